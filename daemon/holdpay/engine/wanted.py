"""What a client asks for, in its own words: nothing is looked up or checked yet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from holdpay.core.model import OPERATOR

ANY: Final = "any"
"""In place of countries: those that have numbers, the cheapest first."""
BEST: Final = "best"
"""As ANY; the countries where codes for the service came surest and soonest so far go first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyWanted:
    """How a request for a code goes on: see ``core.strategy.Strategy``. None: not said."""

    attempts: int | None = None
    max_total_sat: int | None = None
    within_s: int | None = None
    number_within_s: int | None = None
    sms_within_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeWanted:
    """An activation code. ``countries``, ``service``: names or codes; of the countries one, several in turn, ANY or
    BEST. ``ref``: None means the configured one."""

    countries: tuple[str, ...]
    service: str
    is_real_phone: bool = False
    ref: str | None = None
    strategy: StrategyWanted = StrategyWanted()

    @property
    def country(self) -> str:
        """The first, or only one."""
        return self.countries[0]

    @property
    def is_any(self) -> bool:
        return self.is_best or self._is_alone(ANY)

    @property
    def is_best(self) -> bool:
        return self._is_alone(BEST)

    @property
    def has_any_beside(self) -> bool:
        """ANY or BEST stands beside another country."""
        return len(self.countries) > 1 and not {ANY, BEST}.isdisjoint(self._words)

    def _is_alone(self, word: str) -> bool:
        return self._words == (word,)

    @property
    def _words(self) -> tuple[str, ...]:
        return tuple(country.strip().casefold() for country in self.countries)

    @property
    def goes_on(self) -> bool:
        """It may take more than one order."""
        return self.is_any or len(self.countries) > 1 or self.strategy != StrategyWanted()

    def in_country(self, code: int) -> CodeWanted:
        """One order of it."""
        return replace(self, countries=(str(code),), strategy=StrategyWanted())


@dataclass(frozen=True, slots=True, kw_only=True)
class RentalWanted:
    """A rented number. ``weeks`` None: the only duration that is offered, or the shortest."""

    country: str
    service: str | None = None
    weeks: int | None = None
    ref: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SmsWanted:
    """An SMS. ``phone``: E.164, or as people of ``country`` write it."""

    phone: str
    country: str | None = None
    message: str
    webhook_url: str | None = None
    ref: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailWanted:
    """An e-mail."""

    address: str
    message: str
    webhook_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FundWanted:
    """Money for the prepaid account."""

    amount_sat: int


Wanted = CodeWanted | RentalWanted | SmsWanted | EmailWanted | FundWanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What goes with every request. ``client``: who asks. A limit that is absent is None; 0 is one. ``force``: even if
    no stock is shown."""

    client: str = OPERATOR
    key: str
    max_price_sat: int | None = None
    max_fee_sat: int | None = None
    is_prepaid: bool = False
    force: bool = False
