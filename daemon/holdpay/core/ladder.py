"""The fee ladder: the same invoice with rising fee limits, so that a cheap route comes first.

Where an order stands on it is read from the fee limit of its latest dispatch, which is on disk: a daemon that restarts
goes on there, also if the configuration has other rungs by then.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdpay.core.model import Order, Payment
from holdpay.core.policy import Policy
from holdpay.core.states import FailureClass


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Dispatch again, not before ``at_ms``, up to ``fee_limit_msat``."""

    at_ms: int
    fee_limit_msat: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No further dispatch."""

    reason: str


def rungs_msat(order: Order, policy: Policy) -> tuple[int, ...]:
    """Rising fee limits: parts of the usual one, and at last the whole one that the request allows.

    The usual limit is of what the order may cost at most, as the whole one is where the client named none: then the two
    are the same, and one rung.
    """
    whole_msat, usual_msat = order.max_fee_sat * 1000, policy.fee_cap_sat(order.max_price_sat) * 1000
    parts = {int(usual_msat * percent / 100) for percent in policy.fee_rungs_percent}
    return (*sorted(part for part in parts if part < whole_msat), whole_msat)


def first_fee_limit_msat(order: Order, policy: Policy) -> int:
    """Of the first dispatch; the whole limit where there is to be no other."""
    return rungs_msat(order, policy)[0 if policy.max_dispatches > 1 else -1]


def retry_decision(order: Order, payment: Payment, policy: Policy, now_ms: int) -> RetryAt | GiveUp:
    """The next rung after a failure. ``payment.failure`` must be set, of a class that may be tried again.

    A dispatch that found nothing within a lower rung is followed at once by the next one: nothing was tried, so LND
    learnt nothing. Otherwise LND itself avoids a failed hop for minutes (lnd semantics: mission control), so the first
    retry comes at once and the others ``retry_delays_s`` apart. Whatever the rungs, the whole limit is tried before it
    is given up: by the last dispatch that may be, or at once where no time is left for the wait.
    """
    assert payment.failure is not None
    whole_msat = order.max_fee_sat * 1000
    higher = (rung for rung in rungs_msat(order, policy) if rung > payment.fee_limit_msat)
    left = policy.max_dispatches - payment.dispatch_count
    if left <= 0:
        return GiveUp(f"{payment.dispatch_count} payments failed")
    next_msat = next(higher, whole_msat) if left > 1 else whole_msat
    if payment.failure.failure_class is FailureClass.NO_ATTEMPT and payment.fee_limit_msat < whole_msat:
        return RetryAt(now_ms, next_msat)
    step = min(payment.dispatch_count - 1, len(policy.retry_delays_s) - 1)
    at_ms = now_ms + policy.retry_delays_s[step] * 1000
    if at_ms >= order.pay_by_ms:
        if payment.fee_limit_msat < whole_msat and now_ms < order.pay_by_ms:
            return RetryAt(now_ms, whole_msat)
        return GiveUp("no time is left for another payment")
    return RetryAt(at_ms, next_msat)
