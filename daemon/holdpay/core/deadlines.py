"""When time alone can make something of an order, or begin one of its alarms."""

from __future__ import annotations

from collections.abc import Iterator

from holdpay.core.hold import DIAGNOSED_WITHIN_S
from holdpay.core.machine import patience_until_ms
from holdpay.core.model import Order
from holdpay.core.policy import Policy
from holdpay.core.strategy import times_ms


def next_deadline_ms(order: Order, policy: Policy, now_ms: int) -> int | None:
    """The earliest time after ``now_ms`` at which ``TimePassed`` may change the order, or an alarm of it may begin,
    unless something else happens to it before. None: never.

    It may turn out that nothing comes of it then. But what time makes of an order it makes at one of these times, or
    has made by now.
    """
    if order.is_closed and not order.is_going_on:
        return None
    found = times_ms(order, policy) if order.is_closed else _times_ms(order, policy)
    return min((at_ms for at_ms in found if at_ms > now_ms), default=None)


def _times_ms(order: Order, policy: Policy) -> Iterator[int]:
    """All bounds that ``machine`` and ``guard.findings`` compare the time with, whatever the order's state."""
    close_ms, grace_ms = policy.close_unpaid_after_s * 1000, policy.settled_grace_s * 1000
    # Alarms begin when more than their time has passed.
    refund_ms, transit_ms = policy.guard_refund_s * 1000 + 1, policy.guard_in_transit_s * 1000 + 1
    yield from times_ms(order, policy)
    if order.waiting_since_ms is not None:
        yield order.waiting_since_ms + policy.hold_max_wait_s * 1000
    yield order.pay_by_ms
    yield order.pay_by_ms + close_ms
    yield order.created_at_ms + policy.promise_s * 1000
    until_ms = patience_until_ms(order, policy)
    if until_ms is not None:
        yield until_ms
        yield until_ms + refund_ms
    followed_until_ms = order.spec.followed_until_ms(order)
    if followed_until_ms is not None:
        yield followed_until_ms
    if order.charge is not None:
        yield order.charge.since_ms + close_ms
        yield order.charge.since_ms + grace_ms
        yield order.charge.since_ms + refund_ms
    if order.payment is not None:
        since_ms = max(order.state_since_ms, order.payment.htlc_since_ms)
        yield order.payment.htlc_since_ms + close_ms
        if order.payment.failure is not None:
            yield order.payment.failure.at_ms + DIAGNOSED_WITHIN_S * 1000
        yield order.payment.htlc_since_ms + grace_ms
        yield since_ms + transit_ms
        yield since_ms + refund_ms
