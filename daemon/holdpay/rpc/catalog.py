"""What can be bought, as the interface tells it: countries, services, rentals and prices, under the names in use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.engine.quoting import ANY_SERVICE
from holdpay.errors import InvalidRequest, UnknownService
from holdpay.ports import CodeProvider, CountryInfo, Directory, RentalOffer, ServiceInfo
from holdpay.rpc import convert

_SHORT_CODE: Final = re.compile(r"[a-z0-9]{2,4}")
"""What the provider's short codes look like. One that was never seen may be right."""


class CatalogCalls:
    """One method for each call of the interface."""

    def __init__(self, directory: Directory, provider: CodeProvider) -> None:
        self._directory = directory
        self._provider = provider

    def list_countries(self) -> pb.ListCountriesResponse:
        """Without a call to the provider."""
        origin = self._directory.origin()
        return pb.ListCountriesResponse(
            countries=[convert.country_to_pb(country) for country in self._directory.countries()],
            asked_at_ms=origin.asked_at_ms,
            stale=origin.is_stale,
        )

    async def list_services(self, request: pb.ListServicesRequest) -> pb.ListServicesResponse:
        """Without a country: those seen, without a call to the provider. Raises UnknownCountry, ProviderError."""
        if not request.country:
            seen = sorted(self._directory.seen_services(), key=lambda service: service.code)
            return pb.ListServicesResponse(services=[convert.service_to_pb(service) for service in seen])
        country = self._directory.resolve_country(request.country)
        services = await self._provider.services(country.code)
        return pb.ListServicesResponse(
            country=convert.country_to_pb(country), services=[convert.service_to_pb(service) for service in services]
        )

    async def get_prices(self, request: pb.GetPricesRequest) -> pb.GetPricesResponse:
        """Raises UnknownCountry, UnknownService, InvalidRequest, ProviderError."""
        if not request.country and not request.service:
            return convert.prices_to_pb(await self._provider.prices())
        if not request.country or not request.service:
            raise InvalidRequest(
                "An exact price needs a country and a service. Give both, or neither.",
                field="service" if request.country else "country",
            )
        country = self._directory.resolve_country(request.country)
        service = self._directory.resolve_service(request.service, await self._provider.services(country.code))
        told = convert.prices_to_pb(await self._provider.prices(country.code, service.code))
        told.country.CopyFrom(convert.country_to_pb(country))
        told.service.CopyFrom(convert.service_to_pb(service))
        return told

    async def list_rentals(self, request: pb.ListRentalsRequest) -> pb.ListRentalsResponse:
        """Raises UnknownCountry, UnknownService, ProviderError."""
        country = self._directory.resolve_country(request.country) if request.country else None
        service = await self._service_to_rent(request.service, country) if request.service else ANY_SERVICE
        offers = await self._provider.rentals(service.code)
        if not offers and country is None and not self._was_seen(service):
            raise UnknownService(
                f'No number is rented for "{service.code}", and no service of that short code was listed yet.',
                field="service",
            )
        names = {known.code: known.name for known in self._directory.countries()}
        told = [
            _rental_to_pb(offer, names) for offer in offers if country is None or offer.country_code == country.code
        ]
        told.sort(key=lambda rental: (rental.country, rental.weeks, rental.price_sat))
        return pb.ListRentalsResponse(
            country=None if country is None else convert.country_to_pb(country),
            service=convert.service_to_pb(service),
            rentals=told,
        )

    def _was_seen(self, service: ServiceInfo) -> bool:
        return service.code in {ANY_SERVICE.code, *(seen.code for seen in self._directory.seen_services())}

    async def _service_to_rent(self, text: str, country: CountryInfo | None) -> ServiceInfo:
        """In a country by what the provider lists there now, else by what it ever listed."""
        if text.strip().lower() == ANY_SERVICE.code:
            return ANY_SERVICE
        if country is not None:
            return self._directory.resolve_service(text, await self._provider.services(country.code))
        try:
            return self._directory.resolve_service(text, self._directory.seen_services())
        except UnknownService as unknown:
            if _SHORT_CODE.fullmatch(text):
                return ServiceInfo(text, text, None)
            raise UnknownService(
                f"{unknown.message} Services are known by name once they were listed: name a country, too, or give the"
                " short code.",
                field="service",
            ) from None


def _rental_to_pb(offer: RentalOffer, names: Mapping[int, str]) -> pb.RentalOffer:
    """``names``: of the countries, by their numbers."""
    code = offer.country_code
    return pb.RentalOffer(
        country_code=code,
        country=offer.country if code is None else names.get(code, offer.country),
        weeks=offer.weeks,
        price_sat=offer.price_sat,
    )
