"""When an order's next question to the provider is due: where news is likely, not evenly.

A question is due when the news that may have come since the one before would have waited, on the average over all that
may happen, for ``cost_s`` seconds: so much waiting a question is worth. If news is equally likely at all times, at a
rate of ``hazard`` a second, that is every ``sqrt(2 * cost_s / hazard)`` seconds; where none is likely nobody asks. LND
tells by itself when a hold invoice was settled (there is a code) or canceled: the provider is asked then.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from holdpay.core.charge import ChargeState
from holdpay.core.items import ItemKind
from holdpay.core.model import Order, Payment
from holdpay.core.policy import Policy
from holdpay.core.states import MONEY_MAY_BE_OUT, FailureClass, HtlcState, OrderState

WATCHED_POLL_S = 5.0
"""Somebody waits for what comes after the delivery: a message to a rented number, say."""
TOLD_POLL_S = 30.0
"""The provider tells of news by itself: between two questions in case a hint is lost, at least."""
HINTED_POLL_S = 1.0
"""As soon as a hint makes a question after the one before."""
_AT_ONCE_S = 0.5
"""As soon as "at once" comes after a question, so that no clock and no provider can make it a hot loop."""

_NUMBER_COST_S: Final = 0.18
"""What a question about a number costs, in seconds of waiting."""
_CODE_COST_S: Final = 0.26
"""About a code of which lnd tells too, mostly within a second."""
_UNTOLD_COST_S: Final = 0.15
"""About a code of which nobody else tells: it was paid from the account."""
_FADING_COST_S: Final = 0.4
"""About anything else, where news gets the less likely the longer there was none."""

_LATE_FRACTION: Final = 0.125
"""What is later than the promise is in no hurry: it is asked for again after this fraction of the time waited."""

_PATIENCE_S: Final = {OrderState.NUMBER_ASSIGNED: 8.0, OrderState.CANCELED: 8.0}
"""A number is known from the provider alone; of a code, and of a refund, lnd tells too."""
_WITHOUT_NUMBER: Final = frozenset({OrderState.AWAITING_PAYMENT, OrderState.PAID})
_LICENSED_BY_ONE: Final = frozenset({FailureClass.ROUTING, FailureClass.NO_ATTEMPT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One to ask. ``at_ms``: not earlier. ``is_news``: the provider knows something for sure, or owes it; the others
    only look. ``patience_s``: of those that look, by how much it may give way to others."""

    at_ms: int
    is_news: bool = False
    patience_s: float = 0.0


# --- how likely news is ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How long something took to come, counted over earlier orders in steps of time, as ``STEP_ENDS_S`` has them.

    What was expected before anybody saw it counts as ``_BELIEF`` of them.
    """

    counts: tuple[float, ...]

    def with_one(self, delay_s: float) -> Arrivals:
        """One more, after so long."""
        step = next((i for i, end_s in enumerate(STEP_ENDS_S) if delay_s < end_s), len(STEP_ENDS_S) - 1)
        # Older ones fade, so that the provider may change its ways.
        faded = (count * _MEMORY for count in self.counts)
        return Arrivals(tuple(count + (i == step) for i, count in enumerate(faded)))

    def wait_s(self, waited_s: float, cost_s: float) -> float:
        """How long from ``waited_s`` on until news would have waited for ``cost_s`` on the average."""
        chance, waiting_s, wait_s = 0.0, 0.0, 0.0
        for length_s, count, left in self._steps_from(waited_s):
            # In a step the chance grows evenly, so that what is waited on the average is a parabola.
            growth = count / left / length_s
            needed_s = cost_s - waiting_s
            if chance * length_s + growth * length_s**2 / 2 >= needed_s:
                return wait_s + 2 * needed_s / (chance + math.sqrt(chance**2 + 2 * growth * needed_s))
            waiting_s += chance * length_s + growth * length_s**2 / 2
            chance, wait_s = chance + growth * length_s, wait_s + length_s
        return wait_s + (cost_s - waiting_s) / chance if chance else fading_wait_s(waited_s, cost_s)

    def _steps_from(self, waited_s: float) -> Iterator[tuple[float, float, float]]:
        """What is left of each step: its length, how many come in it, and how many of all are left from here on."""
        steps = []
        began_s = 0.0
        for count, end_s in zip(self.counts, STEP_ENDS_S, strict=True):
            length_s = end_s - max(began_s, waited_s)
            if length_s > 0:
                steps.append((length_s, count * length_s / (end_s - began_s)))
            began_s = end_s
        left = sum(count for _, count in steps)
        return ((length_s, count, left) for length_s, count in steps)


STEP_ENDS_S: Final = (4, 8, 12, 15, 18, 21, 25, 30, 40, 60, 90, 120, 180, 300, 600, 1800)
_BELIEF: Final = 10.0
_MEMORY: Final = 0.98
"""What one more leaves of those before it: the last fifty or so count."""


def _believed(*percents: float) -> Arrivals:
    return Arrivals(tuple(percent * _BELIEF / 100 for percent in percents))


NUMBER: Final = _believed(0.5, 0.5, 1, 18, 18, 18, 23, 7, 4, 3, 2, 1, 1, 1, 1, 1)
"""From the payment to the number: 12 to 25 s as a rule (the provider's page, and its public clients)."""
CODE: Final = _believed(2, 3, 4, 4, 4, 4, 5, 7, 13, 18, 14, 8, 6, 4, 2, 2)
"""From the number to the code: 30 to 120 s mostly; how long the sender takes is nobody's rule."""


@dataclass(slots=True)
class Learned:
    """When numbers came, by market (``Spec.market``): see ``Arrivals``. Until some did, ``NUMBER`` is believed."""

    by_market: dict[str, Arrivals] = field(default_factory=dict)

    def number_came(self, order: Order) -> None:
        """What this one tells, if it has a number that was paid for, and a market."""
        number = next((item for item in order.items if item.kind is ItemKind.NUMBER), None)
        paid_ms = _sent_at_ms(order)
        market = order.spec.market
        if number is not None and market is not None and paid_ms is not None and number.seen_at_ms >= paid_ms:
            delay_s = (number.seen_at_ms - paid_ms) / 1000
            self.by_market[market] = self.numbers(market).with_one(delay_s)

    def numbers(self, market: str | None) -> Arrivals:
        return NUMBER if market is None else self.by_market.get(market, NUMBER)


_FRESH_S: Final = 5.0
"""Until then it is as likely as at first."""


def _sent_at_ms(order: Order) -> int | None:
    """When its money was sent, or asked for; also of a closed order."""
    if order.payment is not None:
        return order.payment.money_out_since_ms
    return None if order.charge is None else order.charge.intended_at_ms


def fading_wait_s(waited_s: float, cost_s: float) -> float:
    """The same where news gets the less likely the longer there was none: at a rate of one by the time waited."""
    return math.sqrt(2 * cost_s * max(waited_s, _FRESH_S))


# --- the next question ----------------------------------------------------------------------------------------------


def is_owed(order: Order) -> bool:
    """Whether the money is gone, from the node or from the account, and nothing came for it yet."""
    is_charged = order.charge is not None and order.charge.state is ChargeState.CHARGED
    return (is_charged or order.htlc is HtlcState.SETTLED) and order.state is not OrderState.DELIVERED


def hinted_question(asked_at_ms: int | None, now_ms: int) -> Question:
    """After a hint that the provider has news. ``asked_at_ms`` as for ``next_question``."""
    soon_ms = now_ms if asked_at_ms is None else min(asked_at_ms, now_ms) + int(HINTED_POLL_S * 1000)
    return Question(at_ms=max(now_ms, soon_ms), is_news=True)


def next_question(
    order: Order,
    asked_at_ms: int | None,
    policy: Policy,
    now_ms: int,
    *,
    learned: Learned,
    is_watched: bool = False,
    is_told: bool = False,
) -> Question:
    """What to ask next; ``asked_at_ms`` is the latest question (None: not asked by this process yet).

    ``is_watched``: a client follows the order. ``is_told``: the provider hints at news, so that there is no hurry.
    A wall clock that is set back delays nothing by more than the longest wait.
    """
    payment = order.payment
    asked_at_ms = None if asked_at_ms is None else min(asked_at_ms, now_ms)
    least_s = TOLD_POLL_S if is_told else 0.0
    if order.state is OrderState.DELIVERED:
        follow_s = order.spec.follow_poll_s(order, policy, now_ms)
        wait_ms = int(max(min(follow_s, WATCHED_POLL_S if is_watched else follow_s), least_s) * 1000)
        return Question(at_ms=now_ms if asked_at_ms is None else asked_at_ms + wait_ms, patience_s=10)
    if payment is None:
        return _waiting(order, order.state_since_ms, asked_at_ms, policy, now_ms, learned, least_s)
    is_ended = payment.htlc not in MONEY_MAY_BE_OUT and payment.htlc_since_ms <= now_ms
    if is_ended and (asked_at_ms is None or asked_at_ms <= payment.htlc_since_ms):
        again_ms = 0 if asked_at_ms is None else asked_at_ms + int(min(_AT_ONCE_S, policy.poll_min_s) * 1000)
        # A reply to a request of that very millisecond would not count as asked afterwards.
        return Question(at_ms=max(now_ms, payment.htlc_since_ms + 1, again_ms), is_news=True)
    if order.state is OrderState.AWAITING_PAYMENT and payment.htlc in {HtlcState.NONE, HtlcState.FAILED}:
        return _licensing(payment, asked_at_ms, policy, now_ms)
    since_ms = max(order.state_since_ms, payment.htlc_since_ms)
    return _waiting(order, since_ms, asked_at_ms, policy, now_ms, learned, least_s)


def _waiting(
    order: Order,
    since_ms: int,
    asked_at_ms: int | None,
    policy: Policy,
    now_ms: int,
    learned: Learned,
    least_s: float,
) -> Question:
    """``since_ms``: from when on the wait counts."""
    is_settled = order.htlc is HtlcState.SETTLED
    if not is_settled and order.state in _WITHOUT_NUMBER and order.spec.market is not None:
        # Being told that it is paid for brings no number nearer.
        since_ms = paid_at_ms(order)
    since_ms = min(since_ms, now_ms)
    latest_ms = max(since_ms, asked_at_ms or 0)
    waited_s = (latest_ms - since_ms) / 1000
    max_s = policy.poll_max_s if waited_s < policy.promise_s else policy.poll_late_max_s
    min_s = policy.poll_max_s if order.state is OrderState.CANCELED else policy.poll_min_s
    wait_s = _wait_s(order, waited_s, learned)
    if waited_s >= policy.promise_s:
        wait_s = max(wait_s, waited_s * _LATE_FRACTION)
    wait_s = min(max(wait_s, min_s), max_s)
    at_ms = latest_ms + int(max(wait_s, least_s) * 1000)
    return Question(at_ms=at_ms, is_news=is_settled, patience_s=_PATIENCE_S.get(order.state, 0))


def _wait_s(order: Order, waited_s: float, learned: Learned) -> float:
    if order.spec.market is not None and order.htlc is not HtlcState.SETTLED:
        if order.state in _WITHOUT_NUMBER:
            return learned.numbers(order.spec.market).wait_s(waited_s, _NUMBER_COST_S)
        if order.state is OrderState.NUMBER_ASSIGNED:
            return CODE.wait_s(waited_s, _CODE_COST_S if order.is_money_out else _UNTOLD_COST_S)
    return fading_wait_s(waited_s, _FADING_COST_S)


def paid_at_ms(order: Order) -> int:
    """Since when the provider may have had the money of an order whose HTLC is out, or whose charge is made."""
    if order.payment is not None:
        return order.payment.htlc_since_ms
    return order.state_since_ms if order.charge is None else order.charge.since_ms


def _licensing(payment: Payment, asked_at_ms: int | None, policy: Policy, now_ms: int) -> Question:
    """The money is back; one reply, or two, must say unpaid before the next dispatch, or the end."""
    if asked_at_ms is None:
        return Question(at_ms=now_ms, is_news=True)
    soon_ms = max(now_ms, asked_at_ms + int(2 * policy.poll_min_s * 1000))
    if payment.unpaid_since_ms is None or payment.unpaid_since_ms > now_ms:
        return Question(at_ms=soon_ms, is_news=True)
    is_sure = payment.failure is None or payment.failure.failure_class in _LICENSED_BY_ONE
    if is_sure or payment.unpaid_again_at_ms is not None:
        return Question(at_ms=asked_at_ms + int(policy.poll_max_s * 1000))
    return Question(at_ms=max(soon_ms, payment.unpaid_since_ms + policy.confirm_unpaid_s * 1000), is_news=True)
