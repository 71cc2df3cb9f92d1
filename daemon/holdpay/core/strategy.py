"""A request that goes on: with the next country, or the next number, where an order brought no code.

Its orders come one after the other. Each is an order like any other; when one has closed, and its money is back by
lnd's own word, the strategy says whether there is another one (``goes_on``). That is decided in the step that closes
the order and is a part of it (``Order.succession``), so that no crash comes between the two. From then on the request
waits for the order that comes next, or for the word that there will be none (``succession``).

Never gone on with: what was delivered, was or may have been charged, broke one of our laws, was refused by our own
rules, found no way to the payee (the next one would look for the same), or was canceled by the client.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdpay.core.lightning import FailureReason
from holdpay.core.states import SPENT, End, HtlcState, OrderState

if TYPE_CHECKING:
    from holdpay.core.model import Order
    from holdpay.core.policy import Policy


@dataclass(frozen=True, slots=True)
class Country:
    """``code``: the provider's number, 0 is a real one."""

    code: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """How a request for a code goes on, as it was recorded with it. None: without that bound."""

    countries: tuple[Country, ...]
    """In turn, each once, and then from the first on again."""
    attempts: int
    """Orders at most."""
    max_total_sat: int | None = None
    """What all its orders may cost together: what was spent, and what the next one would reserve."""
    within_s: int | None = None
    """From the request on. Then no order is begun any more, and the one that is open is asked to be canceled."""
    number_within_s: int | None = None
    """From the payment on, if another order may follow: without a number by then the order is asked to be canceled."""
    sms_within_s: int | None = None
    """The same for the code."""
    max_price_sat: int | None = None
    """Of each order, as the client said."""
    max_fee_sat: int | None = None
    force: bool = False
    """Also in a country for which the provider shows no stock."""

    def next_countries(self, order: Order) -> tuple[Country, ...]:
        """All of them, beginning after that of the order."""
        codes = [country.code for country in self.countries]
        at = codes.index(order.country_code) + 1 if order.country_code in codes else 0
        return self.countries[at:] + self.countries[:at]

    def until_ms(self, order: Order) -> int | None:
        """When its time is over."""
        return None if self.within_s is None else order.request.created_at_ms + self.within_s * 1000

    def may_follow(self, order: Order, now_ms: int) -> bool:
        """Whether its numbers leave room for another order after this one."""
        until_ms = self.until_ms(order)
        return order.nth < self.attempts and (until_ms is None or now_ms < until_ms)


_GOES_ON_AFTER = frozenset({End.REFUNDED, End.CANCELED_UNPAID, End.PROVIDER_REFUSED})


def goes_on(order: Order, now_ms: int) -> bool:
    """Whether the request of an order that has just closed goes on with another one."""
    strategy = order.request.strategy
    if strategy is None or order.end not in _GOES_ON_AFTER or not strategy.may_follow(order, now_ms):
        return False
    is_over_for_good = order.is_delivered or order.is_quarantined or order.is_cancel_wanted_by_client
    # What was made after a copy of the database, from which it was restored, nobody knows.
    return not is_over_for_good and order.restored_at_ms is None and _is_money_back(order)


def _is_money_back(order: Order) -> bool:
    """Nothing was ever out, or lnd itself said that it failed: what an operator said, or only the channels show, is no
    ground for another payment."""
    if order.charge is not None or order.htlc not in {HtlcState.NONE, HtlcState.FAILED}:
        return False
    failure = None if order.payment is None else order.payment.failure
    return failure is None or failure.reason not in {FailureReason.BY_OPERATOR, FailureReason.NEVER_SENT}


def why_to_move_on(order: Order, now_ms: int) -> str | None:
    """Why the daemon asks for an open order to be canceled by itself. None: it does not."""
    strategy = order.request.strategy
    if strategy is None or order.cancel_wanted_at_ms is not None or order.is_delivered or order.is_quarantined:
        return None
    if order.state not in _TO_BE_WAITED_FOR or order.htlc in SPENT or order.restored_at_ms is not None:
        return None
    until_ms = strategy.until_ms(order)
    if until_ms is not None and now_ms >= until_ms:
        return f"the {strategy.within_s} s that the request was given were over"
    if not order.is_money_out or not strategy.may_follow(order, now_ms):
        return None
    if _has_passed(order, strategy.number_within_s, now_ms) and order.number is None:
        return f"no number came in {strategy.number_within_s} s"
    if _has_passed(order, strategy.sms_within_s, now_ms):
        return f"no SMS came in {strategy.sms_within_s} s"
    return None


_TO_BE_WAITED_FOR = frozenset(
    {OrderState.REQUESTED, OrderState.AWAITING_PAYMENT, OrderState.PAID, OrderState.NUMBER_ASSIGNED}
)


def _has_passed(order: Order, wait_s: int | None, now_ms: int) -> bool:
    at_ms = _at_ms(order, wait_s)
    return at_ms is not None and now_ms >= at_ms


def _at_ms(order: Order, wait_s: int | None) -> int | None:
    since_ms = None if order.payment is None else order.payment.money_out_since_ms
    return None if since_ms is None or wait_s is None else since_ms + wait_s * 1000


def times_ms(order: Order, policy: Policy) -> Iterator[int]:
    """When time alone may make something of an order by its request's strategy."""
    strategy = order.request.strategy
    if strategy is None:
        return
    if (until_ms := strategy.until_ms(order)) is not None:
        yield until_ms
    if order.closed_at_ms is not None:
        yield made_by_ms(order, order.closed_at_ms, policy)
        return
    for wait_s in (strategy.number_within_s, strategy.sms_within_s):
        if (at_ms := _at_ms(order, wait_s)) is not None:
            yield at_ms


def made_by_ms(order: Order, closed_at_ms: int, policy: Policy) -> int:
    """It waits for a provider, an lnd or a limit as long as an order waits to be paid."""
    return closed_at_ms + policy.pay_within_s * 1000
