"""Orders outlive the process, and the wall clock may have been set back between two: a time that was is ahead then.

Within a process time only goes forward (``clock.SystemClock``). A clock that was set *forward* looks like a long
downtime and needs no help of its own.
"""

from __future__ import annotations

from dataclasses import replace

from holdpay.core.charge import Charge
from holdpay.core.model import Order, Payment


def ahead_ms(order: Order, now_ms: int) -> int:
    """How far the latest time at which something happened lies ahead of now; 0 as a rule."""
    return max(0, max(_happened_ms(order)) - now_ms)


def moved_back(order: Order, by_ms: int) -> Order:
    """The same order with every time earlier: what was a minute ago or is due in a minute stays so.

    Only the invoice's own expiry, which is the provider's, and the time of the request, by which orders are sorted,
    stay as they are.
    """
    return replace(
        order,
        pay_by_ms=order.pay_by_ms - by_ms,
        state_since_ms=order.state_since_ms - by_ms,
        place_at_ms=order.place_at_ms - by_ms,
        waiting_since_ms=_earlier(order.waiting_since_ms, by_ms),
        cancel_wanted_at_ms=_earlier(order.cancel_wanted_at_ms, by_ms),
        cancel_at_ms=_earlier(order.cancel_at_ms, by_ms),
        quarantined_at_ms=_earlier(order.quarantined_at_ms, by_ms),
        restored_at_ms=_earlier(order.restored_at_ms, by_ms),
        payment=order.payment and _payment_moved_back(order.payment, by_ms),
        charge=order.charge and _charge_moved_back(order.charge, by_ms),
    )


def _charge_moved_back(charge: Charge, by_ms: int) -> Charge:
    return replace(
        charge,
        since_ms=charge.since_ms - by_ms,
        intended_at_ms=charge.intended_at_ms - by_ms,
        unmoved_since_ms=_earlier(charge.unmoved_since_ms, by_ms),
    )


def _payment_moved_back(payment: Payment, by_ms: int) -> Payment:
    failure = payment.failure
    return replace(
        payment,
        htlc_since_ms=payment.htlc_since_ms - by_ms,
        dispatch_at_ms=_earlier(payment.dispatch_at_ms, by_ms),
        money_out_since_ms=_earlier(payment.money_out_since_ms, by_ms),
        failure=failure and replace(failure, at_ms=failure.at_ms - by_ms),
        unpaid_since_ms=_earlier(payment.unpaid_since_ms, by_ms),
        unpaid_again_at_ms=_earlier(payment.unpaid_again_at_ms, by_ms),
        absent_since_ms=_earlier(payment.absent_since_ms, by_ms),
        gone_since_ms=_earlier(payment.gone_since_ms, by_ms),
        uncarried_since_ms=_earlier(payment.uncarried_since_ms, by_ms),
    )


def _happened_ms(order: Order) -> list[int]:
    times = [order.state_since_ms, order.cancel_wanted_at_ms, order.waiting_since_ms]
    if order.payment is not None:
        times += [order.payment.htlc_since_ms, order.payment.unpaid_since_ms, order.payment.unpaid_again_at_ms]
    if order.charge is not None:
        times.append(order.charge.since_ms)
    return [at_ms for at_ms in times if at_ms is not None]


def _earlier(at_ms: int | None, by_ms: int) -> int | None:
    return None if at_ms is None else at_ms - by_ms
