"""Makes the next order of a request that goes on: in the next country that can be ordered from, inside all limits.

A country without numbers, without the service, or too dear, is passed by and takes no attempt. What passes by itself
(the provider, lnd, a limit of the daemon) is waited for; how long, the strategy says (``core.strategy``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import structlog

from holdpay.core.events import NoNextOrder
from holdpay.core.kinds import CodeSpec
from holdpay.core.model import Order
from holdpay.core.policy import Policy
from holdpay.core.strategy import Country, Strategy
from holdpay.engine.refusals import refusal_of_all
from holdpay.engine.wanted import Asked, CodeWanted
from holdpay.errors import (
    HoldpayError,
    InvalidRequest,
    InvariantViolation,
    LimitExceeded,
    LndError,
    NotReady,
    ProviderError,
    StoreError,
)

if TYPE_CHECKING:
    from holdpay.engine.engine import Engine

USUAL_ATTEMPTS: Final = 3
"""Of a request that goes on and says neither how often nor where."""
MAX_STRATEGY: Final = {
    "max_total_sat": 100_000_000,
    "within_s": 7 * 24 * 3600,
    "number_within_s": 24 * 3600,
    "sms_within_s": 24 * 3600,
}
RETRY_S: Final = 30
"""Between two tries, while the provider, lnd or a limit is in the way."""

_PASSES_BY_ITSELF: Final = (ProviderError, LndError, NotReady, LimitExceeded)

log = structlog.get_logger(__name__)


class Counter(Protocol):
    """Where a next order is looked at as a first one is."""

    async def next_order(self, before: Order, country: Country) -> Order:
        """The order that comes after one, in a country; nothing is recorded. Raises HoldpayError if there is none."""
        ...


class NextOrders:
    """See ``engine.NextOrders``."""

    def __init__(self, engine: Engine, counter: Counter) -> None:
        self._engine = engine
        self._counter = counter
        self._told: dict[str, str] = {}
        """By order: what is in the way, as far as it was logged."""

    async def make(self, before: Order) -> None:
        """Makes one try; waits before it returns if it is worth another one."""
        assert before.request.strategy is not None
        assert isinstance(before.spec, CodeSpec)
        refusals: list[tuple[Country, HoldpayError]] = []
        for country in before.request.strategy.next_countries(before):
            try:
                self._engine.request_next(before, await self._counter.next_order(before, country))
            except (StoreError, InvariantViolation):
                raise
            except _PASSES_BY_ITSELF as error:
                await self._wait(before, error.message)
            except HoldpayError as error:
                refusals.append((country, error))
                continue
            else:
                self._told.pop(before.id, None)
            return
        self._told.pop(before.id, None)
        why = refusal_of_all(before.spec.service_name, refusals).message if refusals else "it names no country"
        await self._engine.apply(before.id, NoNextOrder(f"no further order can be made: {why}"))

    async def _wait(self, before: Order, why: str) -> None:
        if self._told.get(before.id) != why:
            self._told[before.id] = why
            log.warning("the next order of a request cannot be made now", order_id=before.id, error=why)
        try:
            await self._engine.until_changed(before.id, RETRY_S)
        finally:
            if self._engine.order(before.id) is not before:
                self._told.pop(before.id, None)


# --- what a client may ask for ----------------------------------------------------------------------------------------


def strategy_of(asked: Asked, wanted: CodeWanted, countries: tuple[Country, ...], policy: Policy) -> Strategy:
    """As it is recorded."""
    said = wanted.strategy
    usual = len(countries) if len(wanted.countries) > 1 else USUAL_ATTEMPTS
    return Strategy(
        countries=countries,
        attempts=min(usual, policy.max_attempts) if said.attempts is None else said.attempts,
        max_total_sat=said.max_total_sat,
        within_s=said.within_s,
        number_within_s=said.number_within_s,
        sms_within_s=said.sms_within_s,
        max_price_sat=asked.max_price_sat,
        max_fee_sat=asked.max_fee_sat,
        force=asked.force,
    )


def check_strategy(asked: Asked, wanted: CodeWanted, policy: Policy) -> None:
    """Raises InvalidRequest for one that is out of bounds."""
    said = wanted.strategy
    if wanted.goes_on and asked.is_prepaid:
        raise InvalidRequest(
            "A request that may go on with another order is not paid from the prepaid account: that the money of the"
            " last one is back, only lnd can say. Order without the account, or name one country and nothing more.",
            field="prepaid",
        )
    if said.attempts is not None and not 1 <= said.attempts <= policy.max_attempts:
        raise InvalidRequest(
            f"A request makes 1 to {policy.max_attempts} orders (requests.max_attempts). Ask for that many, or raise"
            " the key in the configuration.",
            field="attempts",
            limit="requests.max_attempts",
        )
    for name, value, least in (
        ("max_total_sat", said.max_total_sat, 1),
        ("within_s", said.within_s, 1),
        ("number_within_s", said.number_within_s, policy.cancel_after_s),
        ("sms_within_s", said.sms_within_s, policy.cancel_after_s),
    ):
        if value is not None and not least <= value <= MAX_STRATEGY[name]:
            because = "" if least == 1 else " The provider takes no cancel earlier."
            raise InvalidRequest(
                f"{name} is {value:,}, and may be {least:,} to {MAX_STRATEGY[name]:,}.{because} Give another one.",
                field=name,
            )
