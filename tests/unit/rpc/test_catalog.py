"""Countries, services, rentals and prices, as clients read them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.errors import InvalidRequest, UnknownCountry, UnknownService
from holdpay.ports import CountriesOrigin, CountryInfo, Prices, RentalOffer, ServiceInfo
from holdpay.rpc.catalog import CatalogCalls
from holdpay.sms4sats.catalog import Countries, resolve_service

NOW_MS = 1_790_000_000_000
OPENAI = ServiceInfo("dr", "OpenAI", 28)
COUNTRIES = Countries(
    [
        CountryInfo(0, "Russia", ("RU",), is_shown=True, has_rentals=False),
        CountryInfo(187, "USA", (), is_shown=False, has_rentals=True),
        CountryInfo(999, "Auto-Select", ()),
    ]
)


class Known:
    """``ports.Directory``."""

    def __init__(self) -> None:
        self.told = CountriesOrigin(asked_at_ms=NOW_MS, is_stale=False)
        self.seen: list[ServiceInfo] = []

    def countries(self) -> Sequence[CountryInfo]:
        return COUNTRIES.all

    def resolve_country(self, text: str) -> CountryInfo:
        return COUNTRIES.resolve(text)

    def resolve_service(self, text: str, services: Sequence[ServiceInfo]) -> ServiceInfo:
        return resolve_service(text, services)

    def origin(self) -> CountriesOrigin:
        return self.told

    def seen_services(self) -> Sequence[ServiceInfo]:
        return self.seen


class Provider:
    """Only what is looked up. ``asked``: each look-up, with what for."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.offers = [
            RentalOffer(187, "United States", 4, 9_000),
            RentalOffer(0, "Россия", 2, 1_368),
            RentalOffer(187, "United States", 2, 5_000),
            RentalOffer(None, "Somewhere", None, None),
            RentalOffer(555, "Newland", 1, 100),
        ]

    async def services(self, country_code: int) -> Sequence[ServiceInfo]:
        self.asked.append(("services", country_code))
        return [OPENAI]

    async def rentals(self, service: str | None = None) -> Sequence[RentalOffer]:
        self.asked.append(("rentals", service))
        return self.offers

    async def prices(self, country_code: int | None = None, service: str | None = None) -> Prices:
        self.asked.append(("prices", country_code, service))
        return Prices(receive_sat=3_000, exact_sat=None if service is None else 2_500, asked_at_ms=NOW_MS)


class Desk:
    def __init__(self) -> None:
        self.known = Known()
        self.provider = Provider()
        self.calls = CatalogCalls(self.known, self.provider)  # type: ignore[arg-type]

    async def rentals(self, country: str = "", service: str = "") -> pb.ListRentalsResponse:
        return await self.calls.list_rentals(pb.ListRentalsRequest(country=country, service=service))


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_countries_tell_their_rentals_and_what_the_provider_never_said_is_absent(desk: Desk) -> None:
    russia, usa, auto = desk.calls.list_countries().countries
    assert (russia.code, russia.name, list(russia.aliases)) == (0, "Russia", ["RU"])
    assert (russia.rentals, russia.shown, usa.rentals, usa.shown) == (False, True, True, False)
    assert russia.HasField("rentals")
    assert not auto.HasField("rentals")
    assert not auto.HasField("shown")


def test_countries_tell_their_age_and_the_bundled_ones_have_none(desk: Desk) -> None:
    told = desk.calls.list_countries()
    assert (told.asked_at_ms, told.stale) == (NOW_MS, False)
    desk.known.told = CountriesOrigin(asked_at_ms=None, is_stale=True)
    told = desk.calls.list_countries()
    assert (told.HasField("asked_at_ms"), told.stale) == (False, True)


async def test_services_of_a_country_are_the_providers_present_ones(desk: Desk) -> None:
    told = await desk.calls.list_services(pb.ListServicesRequest(country="0"))
    assert told.country.name == "Russia"
    assert list(told.services) == [pb.Service(code="dr", name="OpenAI", stock=28)]
    assert desk.provider.asked == [("services", 0)]


async def test_services_without_a_country_are_those_seen_and_nobody_is_asked(desk: Desk) -> None:
    desk.known.seen = [ServiceInfo("tg", "Telegram", None), ServiceInfo("dr", "OpenAI", None)]
    told = await desk.calls.list_services(pb.ListServicesRequest())
    assert list(told.services) == [pb.Service(code="dr", name="OpenAI"), pb.Service(code="tg", name="Telegram")]
    assert not told.HasField("country")
    assert desk.provider.asked == []


async def test_auto_select_is_asked_for_as_what_it_is(desk: Desk) -> None:
    await desk.calls.list_services(pb.ListServicesRequest(country="auto-select"))
    assert desk.provider.asked == [("services", 999)]


async def test_prices_tell_what_was_understood(desk: Desk) -> None:
    told = await desk.calls.get_prices(pb.GetPricesRequest(country="ru", service="openai"))
    assert (told.exact_sat, told.country.code, told.service.code) == (2_500, 0, "dr")
    standard = await desk.calls.get_prices(pb.GetPricesRequest())
    assert [standard.HasField(name) for name in ("country", "service", "exact_sat")] == [False] * 3


@pytest.mark.parametrize(("country", "service", "field"), [("ru", "", "service"), ("", "openai", "country")])
async def test_an_exact_price_needs_both(desk: Desk, country: str, service: str, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await desk.calls.get_prices(pb.GetPricesRequest(country=country, service=service))
    assert caught.value.metadata["field"] == field


async def test_all_rentals_are_told_by_country_under_our_names_the_shortest_first(desk: Desk) -> None:
    told = await desk.rentals()
    assert list(told.rentals) == [
        pb.RentalOffer(country_code=555, country="Newland", weeks=1, price_sat=100),
        pb.RentalOffer(country_code=0, country="Russia", weeks=2, price_sat=1_368),
        pb.RentalOffer(country="Somewhere"),
        pb.RentalOffer(country_code=187, country="USA", weeks=2, price_sat=5_000),
        pb.RentalOffer(country_code=187, country="USA", weeks=4, price_sat=9_000),
    ]
    assert (told.HasField("country"), told.service.code) == (False, "full")
    assert desk.provider.asked == [("rentals", "full")]


async def test_rentals_of_country_zero_are_of_that_country_alone(desk: Desk) -> None:
    told = await desk.rentals("0")
    assert [offer.price_sat for offer in told.rentals] == [1_368]
    assert told.country.name == "Russia"


async def test_a_country_without_rentals_has_none(desk: Desk) -> None:
    told = await desk.rentals("999")
    assert (list(told.rentals), told.country.code) == ([], 999)


async def test_the_service_of_a_rental_is_known_by_what_the_country_sells(desk: Desk) -> None:
    told = await desk.rentals("usa", "openai")
    assert (told.service.code, desk.provider.asked) == ("dr", [("services", 187), ("rentals", "dr")])
    with pytest.raises(UnknownService):
        await desk.rentals("usa", "telegram")


async def test_without_a_country_the_service_is_known_by_what_was_seen_or_by_its_short_code(desk: Desk) -> None:
    with pytest.raises(UnknownService, match="name a country, too, or give the short code"):
        await desk.rentals("", "openai")
    assert desk.provider.asked == []
    assert (await desk.rentals("", "dr")).service.name == "dr"
    desk.known.seen = [ServiceInfo("dr", "OpenAI", None)]
    assert (await desk.rentals("", "openai")).service.name == "OpenAI"
    assert desk.provider.asked == [("rentals", "dr")] * 2


async def test_a_short_code_that_was_never_listed_and_brings_nothing_may_be_a_typo(desk: Desk) -> None:
    desk.provider.offers = []
    with pytest.raises(
        UnknownService, match=r'No number is rented for "nope", and no service of that short code was listed yet.$'
    ):
        await desk.rentals("", "nope")
    desk.known.seen = [ServiceInfo("nope", "Nope", None)]
    for country, service in (("", "nope"), ("", "full"), ("", ""), ("usa", "dr")):
        assert list((await desk.rentals(country, service)).rentals) == []


@pytest.mark.parametrize("service", ["", "full", " FULL "])
async def test_any_service_is_no_service_to_look_up(desk: Desk, service: str) -> None:
    await desk.rentals("usa", service)
    assert desk.provider.asked == [("rentals", "full")]


async def test_a_country_that_nobody_knows_is_refused_before_anybody_is_asked(desk: Desk) -> None:
    with pytest.raises(UnknownCountry):
        await desk.rentals("atlantis", "dr")
    assert desk.provider.asked == []
