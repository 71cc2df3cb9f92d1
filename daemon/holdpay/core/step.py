"""What one event makes of an order, and the moves that every part of the machine makes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from holdpay.core.lightning import Attempt
from holdpay.core.model import Order, Payment
from holdpay.core.payees import Trust
from holdpay.core.policy import Policy
from holdpay.core.states import End, HtlcSignal, HtlcState, OrderSignal, OrderState
from holdpay.core.tables import HTLC_TABLE, ORDER_TABLE
from holdpay.errors import InvariantViolation


@dataclass(frozen=True, slots=True)
class Step:
    """What one event made of an order. ``is_change`` False: nothing to store."""

    order: Order
    is_change: bool
    notes: tuple[str, ...] = ()
    """Anomalies and warnings, for the journal and the log."""
    attempts: tuple[Attempt, ...] = ()
    """LND's HTLC attempts as of this event, to be stored."""
    trust: Trust | None = None
    """Why the payee of the invoice that this event vetted is trusted."""


@dataclass(slots=True)
class Context:
    policy: Policy
    now_ms: int
    may_close: bool
    """Not an order in quarantine, but for a cancel where nothing was ever sent."""
    may_end_late: bool = False
    """A deadline closes an order when the provider has just answered, or when the engine says that time has passed,
    which asks first after a downtime. Any other event may come before anybody has asked."""
    held_up_by: str = ""
    """What keeps a payment from being sent just now. Empty: nothing that is known."""
    notes: list[str] = field(default_factory=list)
    attempts: tuple[Attempt, ...] = ()
    trust: Trust | None = None


def signal_order(order: Order, signal: OrderSignal, ctx: Context) -> Order:
    target = ORDER_TABLE.get((order.state, signal))
    if target is None:
        raise InvariantViolation(f"Order {order.id} is {order.state.value} and got {signal.value}.")
    if target.is_anomaly:
        called = order.state.value.replace("_", " ")
        ctx.notes.append(f"the provider says {signal.value} of an order that it had called {called}")
    if target.state is order.state:
        return order
    assert isinstance(target.state, OrderState)
    return replace(order, state=target.state, state_since_ms=ctx.now_ms)


def signal_htlc(payment: Payment, signal: HtlcSignal, ctx: Context) -> Payment:
    target = HTLC_TABLE.get((payment.htlc, signal))
    if target is None:
        raise InvariantViolation(f"A payment that is {payment.htlc.value} got {signal.value}.")
    if target.is_anomaly:
        ctx.notes.append(f"lnd says {signal.value} of a payment that was {payment.htlc.value}")
    if target.state is payment.htlc:
        return payment
    assert isinstance(target.state, HtlcState)
    return replace(payment, htlc=target.state, htlc_since_ms=ctx.now_ms)


def abandon(order: Order, end: End, reason: str, ctx: Context) -> Order:
    if not ctx.may_close:
        return order
    return close(signal_order(order, OrderSignal.ABANDON, ctx), end, reason, ctx)


def close(order: Order, end: End, reason: str, ctx: Context) -> Order:
    return replace(order, closed_at_ms=ctx.now_ms, end=end, reason=reason, cancel_at_ms=None)
