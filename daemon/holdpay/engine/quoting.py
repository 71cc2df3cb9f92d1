"""Makes sense of what a client wants, by kind: names become the provider's codes, texts are checked, prices asked for.

Nothing is recorded or ordered here. Everything raises HoldpayError where the request is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from holdpay.core.kinds import AnySpec, CodeSpec, EmailSpec, FundSpec, RentalSpec, SmsSpec
from holdpay.core.strategy import Country
from holdpay.engine.wanted import ANY, BEST, CodeWanted, EmailWanted, FundWanted, RentalWanted, SmsWanted, Wanted
from holdpay.errors import InvalidRequest, KeyTaken, OutOfStock, ProviderError, UnknownService
from holdpay.ports import Catalog, CodeProvider, CountryInfo, Prices, RentalOffer, ServiceInfo
from holdpay.recipients import email_address, is_region, lightning_address, message_text, phone_number, webhook_url

MAX_TEXT_LENGTH = 64
MAX_COUNTRIES = 20
ANY_LOOKED_AT = 12
"""Countries that are asked about where any will do: two questions to the provider each."""
MAX_FUND_SAT = 100_000_000
ANY_SERVICE = ServiceInfo("full", "any service", None)
"""What ``/getRentalCountries`` calls a number that is rented for no service in particular."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    """``quote_sat``: the provider's price; None: it named none. ``is_exact``: the invoice asks just that."""

    spec: AnySpec
    quote_sat: int | None
    is_exact: bool = False
    stock: int | None = None
    """Of codes. None: the provider does not say."""


class Quoter:
    """``ref``: the configured Lightning Address that earns a share of each order."""

    def __init__(self, provider: CodeProvider, catalog: Catalog, ref: str | None) -> None:
        self._provider = provider
        self._catalog = catalog
        self._ref = ref

    def check(self, wanted: Wanted) -> None:
        """All that needs no look-up, so that a bad request is refused before anybody is asked."""
        match wanted:
            case CodeWanted() | RentalWanted():
                for country in wanted.countries if isinstance(wanted, CodeWanted) else (wanted.country,):
                    _check_name("country", country)
                if wanted.service is not None:
                    _check_name("service", wanted.service)
                if isinstance(wanted, CodeWanted):
                    self.countries(wanted)
                else:
                    self._catalog.resolve_country(wanted.country)
                _ref(wanted.ref)
            case SmsWanted() | EmailWanted():
                self._message(wanted)
            case FundWanted(amount_sat=amount_sat):
                if not 1 <= amount_sat <= MAX_FUND_SAT:
                    raise InvalidRequest(
                        f"{amount_sat:,} sat cannot be put into the account. Give 1 to {MAX_FUND_SAT:,} sat.",
                        field="amount_sat",
                    )
        if isinstance(wanted, RentalWanted) and wanted.weeks is not None and not 1 <= wanted.weeks <= 520:
            raise InvalidRequest("A number is rented for 1 to 520 weeks. Give another duration.", field="weeks")

    def countries(self, wanted: CodeWanted) -> tuple[Country, ...]:
        """Those that are named, in turn, each once; none if any will do. Raises InvalidRequest."""
        if wanted.is_any:
            return ()
        if not 1 <= len(wanted.countries) <= MAX_COUNTRIES:
            raise InvalidRequest(
                f"A request names 1 to {MAX_COUNTRIES} countries. Give that many, any or best.", field="countries"
            )
        if wanted.has_any_beside:
            raise InvalidRequest(
                f"{ANY} and {BEST} stand alone: they look for the countries themselves. Name countries, or one of the"
                " two words.",
                field="countries",
            )
        found = (self._catalog.resolve_country(text) for text in wanted.countries)
        return tuple(dict.fromkeys(Country(country.code, country.name) for country in found))

    async def countries_with_stock(self, wanted: CodeWanted, known: Sequence[int] = ()) -> tuple[Country, ...]:
        """Of the first ANY_LOOKED_AT countries of the provider's list, but ``known`` ones before all others, those that
        have numbers, the cheapest first as far as the provider says. Raises ProviderError, OutOfStock."""
        listed = [country for country in self._catalog.countries() if country.is_shown is not False]
        shown = sorted(listed, key=lambda country: country.code not in known)[:ANY_LOOKED_AT]
        offers = await asyncio.gather(*(self._offered(wanted, country) for country in shown))
        found = sorted((offer for offer in offers if offer is not None), key=lambda offer: offer[0])
        if not found:
            raise OutOfStock(
                f"None of the {len(shown)} countries that were looked at has numbers for {wanted.service} now. Name a"
                " country, or try again later.",
                service=wanted.service,
            )
        return tuple(country for _, country in found)

    async def _offered(self, wanted: CodeWanted, info: CountryInfo) -> tuple[tuple[float, int, int], Country] | None:
        """What it is sorted by, and the country. None: it has no numbers, or not the service."""
        try:
            service = self._catalog.resolve_service(wanted.service, await self._provider.services(info.code))
        except UnknownService:
            return None
        if service.stock == 0:
            return None
        prices = await self._prices(info.code, service.code, needs_price=False)
        price_sat = None if prices is None else _price_of_a_code(prices, wanted)
        by = (float("inf") if price_sat is None else price_sat, -(service.stock or 0), info.code)
        return by, Country(info.code, info.name)

    def read_again(self, wanted: Wanted, first: AnySpec) -> AnySpec:
        """The spec of a repeated request, without any look-up: what is named otherwise means the same, if it can.
        Raises KeyTaken if it cannot."""
        if isinstance(wanted, CodeWanted) and isinstance(first, CodeSpec):
            return self._code(wanted, self._same_service(wanted.service, first), ref=wanted.ref or first.ref)
        if isinstance(wanted, RentalWanted) and isinstance(first, RentalSpec):
            service = self._same_service(wanted.service or ANY_SERVICE.code, first)
            weeks = first.weeks if wanted.weeks is None else wanted.weeks
            return self._rental(wanted, service, weeks, ref=wanted.ref or first.ref)
        if isinstance(wanted, SmsWanted) and isinstance(first, SmsSpec):
            return replace(self._sms(wanted), ref=_ref(wanted.ref) or first.ref)
        if isinstance(wanted, EmailWanted) and isinstance(first, EmailSpec):
            return self._email(wanted)
        if isinstance(wanted, FundWanted) and isinstance(first, FundSpec):
            return FundSpec(amount_sat=wanted.amount_sat)
        raise KeyTaken

    async def quote(self, wanted: Wanted, *, force: bool, needs_price: bool) -> Quoted:
        """The spec, and the price. ``needs_price`` False: a provider that names none now is no reason to refuse."""
        match wanted:
            case CodeWanted():
                return await self._quote_code(wanted, force=force, needs_price=needs_price)
            case RentalWanted():
                return await self._quote_rental(wanted)
            case SmsWanted() | EmailWanted():
                prices = await self._prices(None, None, needs_price=needs_price)
                return Quoted(spec=self._message(wanted), quote_sat=None if prices is None else prices.send_sat)
            case FundWanted(amount_sat=amount_sat):
                return Quoted(spec=FundSpec(amount_sat=amount_sat), quote_sat=amount_sat, is_exact=True)

    # --- codes --------------------------------------------------------------------------------------------------------

    async def _quote_code(self, wanted: CodeWanted, *, force: bool, needs_price: bool) -> Quoted:
        country = self._catalog.resolve_country(wanted.country)
        services = await self._provider.services(country.code)
        service = self._catalog.resolve_service(wanted.service, services)
        if service.stock == 0 and not force:
            raise OutOfStock(
                f"The provider has no numbers for {service.name} in {country.name} now. Try another country.",
                country=country.name,
                service=service.code,
            )
        spec = self._code(wanted, service, ref=wanted.ref or self._ref)
        prices = await self._prices(country.code, service.code, needs_price=needs_price)
        quote_sat = None if prices is None else _price_of_a_code(prices, wanted)
        return Quoted(spec=spec, quote_sat=quote_sat, stock=service.stock)

    def _code(self, wanted: CodeWanted, service: ServiceInfo, ref: str | None) -> CodeSpec:
        country = self._catalog.resolve_country(wanted.country)
        return CodeSpec(
            country=country.code,
            country_name=country.name,
            service=service.code,
            service_name=service.name,
            is_real_phone=wanted.is_real_phone,
            ref=_ref(ref),
        )

    def _same_service(self, text: str, first: CodeSpec | RentalSpec) -> ServiceInfo:
        try:
            return self._catalog.resolve_service(text, [ServiceInfo(first.service, first.service_name, None)])
        except InvalidRequest:
            raise KeyTaken from None

    async def _prices(self, country: int | None, service: str | None, *, needs_price: bool) -> Prices | None:
        try:
            return await self._provider.prices(country, service)
        except ProviderError:
            # The client's own limit is all that is needed to vet the invoice.
            if needs_price:
                raise
            return None

    # --- rentals ------------------------------------------------------------------------------------------------------

    async def _quote_rental(self, wanted: RentalWanted) -> Quoted:
        country = self._catalog.resolve_country(wanted.country)
        service = ANY_SERVICE
        if wanted.service is not None and wanted.service != ANY_SERVICE.code:
            service = self._catalog.resolve_service(wanted.service, await self._provider.services(country.code))
        offers = [offer for offer in await self._provider.rentals(service.code) if offer.country_code == country.code]
        offer = _offer(offers, wanted.weeks, country)
        spec = self._rental(wanted, service, offer.weeks, ref=wanted.ref or self._ref)
        return Quoted(spec=spec, quote_sat=offer.price_sat)

    def _rental(self, wanted: RentalWanted, service: ServiceInfo, weeks: int | None, ref: str | None) -> RentalSpec:
        country = self._catalog.resolve_country(wanted.country)
        return RentalSpec(
            country=country.code,
            country_name=country.name,
            service=service.code,
            service_name=service.name,
            weeks=weeks,
            ref=_ref(ref),
        )

    # --- messages -----------------------------------------------------------------------------------------------------

    def _message(self, wanted: SmsWanted | EmailWanted) -> SmsSpec | EmailSpec:
        return self._sms(wanted) if isinstance(wanted, SmsWanted) else self._email(wanted)

    def _sms(self, wanted: SmsWanted) -> SmsSpec:
        return SmsSpec(
            phone=phone_number(wanted.phone, self._region(wanted.country)),
            message=message_text(wanted.message),
            webhook_url=wanted.webhook_url and webhook_url(wanted.webhook_url),
            ref=_ref(wanted.ref or self._ref),
        )

    def _region(self, country: str | None) -> str | None:
        """What phone numbers call the country. Raises UnknownCountry."""
        if country is None:
            return None
        names = self._catalog.resolve_country(country).aliases
        return next((name for name in names if is_region(name)), country)

    def _email(self, wanted: EmailWanted) -> EmailSpec:
        return EmailSpec(
            address=email_address(wanted.address),
            message=message_text(wanted.message),
            webhook_url=wanted.webhook_url and webhook_url(wanted.webhook_url),
        )


def _price_of_a_code(prices: Prices, wanted: CodeWanted) -> int | None:
    if wanted.is_real_phone:
        return prices.real_phone_sat
    return prices.receive_sat if prices.exact_sat is None else prices.exact_sat


def _offer(offers: Sequence[RentalOffer], weeks: int | None, country: CountryInfo) -> RentalOffer:
    if not offers:
        raise OutOfStock(
            f"The provider rents no numbers of {country.name} now. Try another country.", country=country.name
        )
    shortest_first = sorted(offers, key=lambda offer: (offer.weeks or 0, offer.price_sat or 0))
    found = next((offer for offer in shortest_first if weeks is None or offer.weeks == weeks), None)
    if found is None:
        durations = ", ".join(sorted({str(offer.weeks) for offer in offers if offer.weeks is not None}, key=int))
        raise InvalidRequest(
            f"No number of {country.name} is rented for {weeks} weeks. It is for: {durations or 'no named duration'}.",
            field="weeks",
        )
    return found


def _ref(ref: str | None) -> str | None:
    return None if ref is None else lightning_address(ref)


def _check_name(name: str, text: str) -> None:
    if not 1 <= len(text.strip()) <= MAX_TEXT_LENGTH or not text.isprintable():
        raise InvalidRequest(
            f"The {name} must have 1 to {MAX_TEXT_LENGTH} printable characters. Give its name or its code.",
            field=name,
        )
