"""What becomes of a client's words before anything is recorded: codes, checked texts, prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from holdpay.core.kinds import AnySpec, CodeSpec, EmailSpec, FundSpec, RentalSpec, SmsSpec
from holdpay.engine.quoting import MAX_FUND_SAT, MAX_TEXT_LENGTH, Quoted, Quoter
from holdpay.engine.wanted import CodeWanted, EmailWanted, FundWanted, RentalWanted, SmsWanted, Wanted
from holdpay.errors import HoldpayError, InvalidRequest, KeyTaken, OutOfStock, ProviderUnavailable
from holdpay.ports import CodeProvider, CountryInfo, Prices, RentalOffer, ServiceInfo
from tests.unit.engine.desks import OneCountry

OURS, THEIRS = "me@example.com", "you@example.com"
URL = "https://example.com/hook"
OPENAI = ServiceInfo("oi", "OpenAI", 5)
CODE = CodeWanted(countries=("Russia",), service="OpenAI")
RENTAL = RentalWanted(country="Russia")
SMS = SmsWanted(phone="+19871234567", message="See you at eight.")
EMAIL = EmailWanted(address="satoshi@example.com", message="See you at eight.")
PRICES = Prices(receive_sat=3_000, exact_sat=2_000, real_phone_sat=7_000, send_sat=400, asked_at_ms=0)


class OneProvider:
    """Notes what it is asked for."""

    def __init__(self, prices: Prices | Exception = PRICES, stock: int | None = 5) -> None:
        self._prices = prices
        self._stock = stock
        self.asked: list[tuple[Any, ...]] = []
        self.offers = [
            RentalOffer(country_code=code, country="?", weeks=weeks, price_sat=price_sat)
            for code, weeks, price_sat in ((0, 4, 9_000), (0, 1, 3_500), (0, 1, 3_000), (0, 12, 20_000), (16, 2, 4_000))
        ]

    async def services(self, country: int) -> Sequence[ServiceInfo]:
        self.asked.append(("services", country))
        return [replace(OPENAI, stock=self._stock)]

    async def prices(self, country: int | None, service: str | None) -> Prices:
        self.asked.append(("prices", country, service))
        if isinstance(self._prices, Exception):
            raise self._prices
        return self._prices

    async def rentals(self, service: str) -> Sequence[RentalOffer]:
        self.asked.append(("rentals", service))
        return self.offers


def quoter(provider: OneProvider | None = None, ref: str | None = None) -> Quoter:
    return Quoter(cast(CodeProvider, provider or OneProvider()), OneCountry(), ref)


async def quote(
    wanted: Wanted,
    provider: OneProvider | None = None,
    *,
    ref: str | None = None,
    force: bool = False,
    needs_price: bool = True,
) -> Quoted:
    return await quoter(provider, ref).quote(wanted, force=force, needs_price=needs_price)


CODE_SPEC = CodeSpec(country=0, country_name="Russia", service="oi", service_name="OpenAI")
RENTAL_SPEC = RentalSpec(country=0, country_name="Russia", service="full", service_name="any service", weeks=1)
SMS_SPEC = SmsSpec(phone="+19871234567", message="See you at eight.")
EMAIL_SPEC = EmailSpec(address="satoshi@example.com", message="See you at eight.")


# --- codes ----------------------------------------------------------------------------------------------------------


async def test_a_code_is_quoted_with_the_exact_price_of_its_country_and_service() -> None:
    provider = OneProvider()
    assert await quote(CODE, provider) == Quoted(spec=CODE_SPEC, quote_sat=2_000, stock=5)
    assert provider.asked == [("services", 0), ("prices", 0, "oi")]


@pytest.mark.parametrize(
    ("prices", "is_real_phone", "quote_sat"),
    [
        (PRICES, True, 7_000),
        (replace(PRICES, exact_sat=None), False, 3_000),
        (replace(PRICES, exact_sat=None, receive_sat=None), False, None),
        (replace(PRICES, exact_sat=0), False, 0),
        (replace(PRICES, real_phone_sat=None), True, None),
    ],
)
async def test_the_price_of_a_code_is_the_one_of_its_phone(
    prices: Prices, is_real_phone: bool, quote_sat: int | None
) -> None:
    quoted = await quote(replace(CODE, is_real_phone=is_real_phone), OneProvider(prices))
    assert quoted == Quoted(spec=replace(CODE_SPEC, is_real_phone=is_real_phone), quote_sat=quote_sat, stock=5)


async def test_a_provider_that_names_no_price_now_is_a_reason_to_refuse_only_where_one_is_needed() -> None:
    down = ProviderUnavailable("down")
    for wanted, spec in ((CODE, CODE_SPEC), (SMS, SMS_SPEC)):
        with pytest.raises(ProviderUnavailable):
            await quote(wanted, OneProvider(down))
        assert await quote(wanted, OneProvider(down), needs_price=False) == replace(
            Quoted(spec=spec, quote_sat=None), stock=5 if wanted is CODE else None
        )


@pytest.mark.parametrize(("stock", "force", "is_refused"), [(0, False, True), (0, True, False), (None, False, False)])
async def test_an_empty_stock_is_refused_unless_forced(stock: int | None, force: bool, is_refused: bool) -> None:
    if is_refused:
        with pytest.raises(OutOfStock, match="no numbers for OpenAI in Russia now"):
            await quote(CODE, OneProvider(stock=stock), force=force)
    else:
        assert (await quote(CODE, OneProvider(stock=stock), force=force)).quote_sat == 2_000


# --- the referral ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [CODE, RENTAL, SMS])
async def test_the_client_s_lightning_address_counts_and_else_the_configured_one(wanted: CodeWanted) -> None:
    for ours, theirs, ref in ((None, None, None), (OURS, None, OURS), (OURS, THEIRS, THEIRS), (None, THEIRS, THEIRS)):
        spec = (await quote(replace(wanted, ref=theirs), ref=ours)).spec
        assert cast(CodeSpec, spec).ref == ref
    with pytest.raises(InvalidRequest):
        await quote(replace(wanted, ref="nobody"))


# --- rentals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weeks", "rented_weeks", "price_sat"), [(None, 1, 3_000), (4, 4, 9_000), (12, 12, 20_000)])
async def test_the_shortest_and_then_the_cheapest_rental_is_quoted_unless_another_is_named(
    weeks: int | None, rented_weeks: int, price_sat: int
) -> None:
    provider = OneProvider()
    quoted = await quote(replace(RENTAL, weeks=weeks), provider)
    assert quoted == Quoted(spec=replace(RENTAL_SPEC, weeks=rented_weeks), quote_sat=price_sat)
    assert provider.asked == [("rentals", "full")]


async def test_a_rental_for_one_service_asks_what_it_is_called_and_what_is_rented_for_it() -> None:
    provider = OneProvider()
    quoted = await quote(replace(RENTAL, service="OpenAI"), provider)
    assert quoted.spec == replace(RENTAL_SPEC, service="oi", service_name="OpenAI")
    assert provider.asked == [("services", 0), ("rentals", "oi")]
    for_any = OneProvider()
    assert (await quote(replace(RENTAL, service="full"), for_any)).spec == RENTAL_SPEC
    assert for_any.asked == [("rentals", "full")]


async def test_a_duration_that_is_not_offered_is_refused_with_those_that_are() -> None:
    with pytest.raises(InvalidRequest, match=r"is rented for 3 weeks\. It is for: 1, 4, 12\."):
        await quote(replace(RENTAL, weeks=3))
    provider = OneProvider()
    provider.offers = [RentalOffer(country_code=0, country="?", weeks=None, price_sat=None)]
    with pytest.raises(InvalidRequest, match="It is for: no named duration"):
        await quote(replace(RENTAL, weeks=3), provider)
    assert await quote(RENTAL, provider) == Quoted(spec=replace(RENTAL_SPEC, weeks=None), quote_sat=None)


async def test_a_country_without_rentals_is_out_of_stock() -> None:
    provider = OneProvider()
    provider.offers = provider.offers[-1:]
    with pytest.raises(OutOfStock, match="rents no numbers of Russia now"):
        await quote(RENTAL, provider)


async def test_an_offer_without_a_duration_or_a_price_comes_first() -> None:
    provider = OneProvider()
    provider.offers.append(RentalOffer(country_code=0, country="?", weeks=None, price_sat=50_000))
    assert (await quote(RENTAL, provider)).quote_sat == 50_000
    provider.offers.append(RentalOffer(country_code=0, country="?", weeks=None, price_sat=None))
    assert (await quote(RENTAL, provider)).quote_sat is None


# --- messages and money ---------------------------------------------------------------------------------------------


async def test_what_is_sent_costs_what_sending_costs() -> None:
    provider = OneProvider()
    assert await quote(SMS, provider) == Quoted(spec=SMS_SPEC, quote_sat=400)
    assert await quote(EMAIL, provider) == Quoted(spec=EMAIL_SPEC, quote_sat=400)
    assert provider.asked == [("prices", None, None)] * 2


async def test_a_webhook_of_the_client_s_own_goes_with_what_is_sent() -> None:
    assert (await quote(replace(SMS, webhook_url=URL))).spec == replace(SMS_SPEC, webhook_url=URL)
    assert (await quote(replace(EMAIL, webhook_url=URL))).spec == replace(EMAIL_SPEC, webhook_url=URL)
    with pytest.raises(InvalidRequest):
        await quote(replace(SMS, webhook_url="nowhere"))


class Named(OneCountry):
    """Knows what phone numbers call its country."""

    def __init__(self, *aliases: str) -> None:
        self._country = CountryInfo(0, "Russia", aliases)

    def countries(self) -> Sequence[CountryInfo]:
        return [self._country]


@pytest.mark.parametrize("aliases", [("RU",), ("Rossiya", "RU", "US")])
async def test_a_phone_number_is_read_as_people_of_the_country_write_it(aliases: tuple[str, ...]) -> None:
    reads = Quoter(cast(CodeProvider, OneProvider()), Named(*aliases), None)
    national = replace(SMS, phone="8 (912) 345-67-89", country="Russia")
    quoted = await reads.quote(national, force=False, needs_price=True)
    assert cast(SmsSpec, quoted.spec).phone == "+79123456789"
    with pytest.raises(InvalidRequest):
        await quote(replace(SMS, phone="8 (912) 345-67-89"))


async def test_money_for_the_account_costs_just_itself() -> None:
    quoted = await quote(FundWanted(amount_sat=5_000))
    assert quoted == Quoted(spec=FundSpec(amount_sat=5_000), quote_sat=5_000, is_exact=True)


# --- what is refused without a look-up ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "good",
    [
        FundWanted(amount_sat=1),
        FundWanted(amount_sat=MAX_FUND_SAT),
        replace(RENTAL, weeks=1),
        replace(RENTAL, weeks=520),
        replace(CODE, service="x" * MAX_TEXT_LENGTH),
        replace(CODE, service="x"),
        RENTAL,
        SMS,
        EMAIL,
    ],
)
def test_what_is_right_at_a_bound_is_looked_up(good: Wanted) -> None:
    quoter().check(good)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (FundWanted(amount_sat=0), "0 sat cannot be put into the account"),
        (FundWanted(amount_sat=MAX_FUND_SAT + 1), "100,000,001 sat cannot be put into the account"),
        (replace(RENTAL, weeks=0), "rented for 1 to 520 weeks"),
        (replace(RENTAL, weeks=521), "rented for 1 to 520 weeks"),
        (replace(RENTAL, service=""), "The service must have 1 to 64"),
        (replace(CODE, service="  "), "The service must have 1 to 64"),
        (replace(CODE, service="x" * (MAX_TEXT_LENGTH + 1)), "The service must have 1 to 64"),
        (replace(CODE, service="a\nb"), "The service must have 1 to 64"),
        (replace(CODE, countries=("",)), "The country must have 1 to 64"),
        (replace(CODE, countries=("Atlantis",)), "no such country"),
        (replace(CODE, countries=("any", "usa")), "any and best stand alone"),
        (replace(CODE, countries=("usa", " Best ")), "any and best stand alone"),
        (replace(CODE, countries=("any", "best")), "any and best stand alone"),
        (replace(CODE, ref="nobody"), "no Lightning Address"),
        (replace(SMS, message=""), "."),
        (replace(SMS, phone="12"), "."),
        (replace(EMAIL, address="satoshi"), "."),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anybody_is_asked(bad: Wanted, words: str) -> None:
    with pytest.raises(HoldpayError, match=words):
        quoter().check(bad)


# --- the same request again -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "first"),
    [
        (CODE, CODE_SPEC),
        (CODE, replace(CODE_SPEC, ref=OURS)),
        (replace(CODE, service="oi", ref=THEIRS), replace(CODE_SPEC, ref=THEIRS)),
        (replace(CODE, is_real_phone=True), replace(CODE_SPEC, is_real_phone=True)),
        (RENTAL, RENTAL_SPEC),
        (RENTAL, replace(RENTAL_SPEC, weeks=4, ref=OURS)),
        (replace(RENTAL, weeks=4, service="full"), replace(RENTAL_SPEC, weeks=4)),
        (replace(RENTAL, service="OpenAI"), replace(RENTAL_SPEC, service="oi", service_name="OpenAI")),
        (SMS, SMS_SPEC),
        (SMS, replace(SMS_SPEC, ref=OURS)),
        (replace(SMS, ref=THEIRS), replace(SMS_SPEC, ref=THEIRS)),
        (EMAIL, EMAIL_SPEC),
        (FundWanted(amount_sat=5_000), FundSpec(amount_sat=5_000)),
    ],
)
def test_a_repeated_request_means_the_first_one_in_whatever_words(wanted: Wanted, first: AnySpec) -> None:
    provider = OneProvider()
    assert quoter(provider).read_again(wanted, first) == first
    assert provider.asked == []


@pytest.mark.parametrize(
    ("wanted", "first"),
    [
        (CODE, RENTAL_SPEC),
        (RENTAL, CODE_SPEC),
        (SMS, EMAIL_SPEC),
        (EMAIL, SMS_SPEC),
        (FundWanted(amount_sat=5_000), CODE_SPEC),
        (CODE, FundSpec(amount_sat=5_000)),
        (replace(CODE, service="Telegram"), CODE_SPEC),
        (replace(RENTAL, service="Telegram"), RENTAL_SPEC),
    ],
)
def test_a_key_of_another_kind_or_service_is_taken(wanted: Wanted, first: AnySpec) -> None:
    with pytest.raises(KeyTaken):
        quoter().read_again(wanted, first)


def test_a_repeated_request_with_another_duration_or_address_is_another_one() -> None:
    again = quoter().read_again(replace(RENTAL, weeks=4, ref=THEIRS), replace(RENTAL_SPEC, weeks=1, ref=OURS))
    assert again == replace(RENTAL_SPEC, weeks=4, ref=THEIRS)
