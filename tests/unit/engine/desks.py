"""A desk before a catalog with one country."""

from __future__ import annotations

from collections.abc import Sequence

from holdpay.engine.account import Account
from holdpay.engine.desk import Desk
from holdpay.engine.engine import Engine
from holdpay.errors import InvalidRequest
from holdpay.ports import CountryInfo, ServiceInfo


class OneCountry:
    """A catalog with country 0, which is a real one."""

    def countries(self) -> Sequence[CountryInfo]:
        return [CountryInfo(0, "Russia", ())]

    def resolve_country(self, text: str) -> CountryInfo:
        if text.casefold() not in {"0", "russia"}:
            raise InvalidRequest("There is no such country.")
        return self.countries()[0]

    def resolve_service(self, text: str, services: Sequence[ServiceInfo]) -> ServiceInfo:
        fitting = [service for service in services if text.casefold() in {service.code, service.name.casefold()}]
        if not fitting:
            raise InvalidRequest("There is no such service.")
        return fitting[0]


def desk_of(engine: Engine, ref: str | None = None) -> Desk:
    """The desk of a daemon; ``ref`` as in its configuration."""
    return Desk(engine, OneCountry(), Account(engine.provider, None), ref)
