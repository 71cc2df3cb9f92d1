"""The half of an order that the prepaid account pays.

There is no HTLC and no second party that could say what became of the money: the provider takes the price from the
balance as it takes the order.

- *The intent is on disk before the order is placed, and it is placed once*: a reply that was lost is never repeated.
- *What may be spent counts as spent*, and the order stays open, until the balance or a person says otherwise.
"""

from __future__ import annotations

from dataclasses import replace

from holdpay.core import events as ev
from holdpay.core.charge import PERHAPS_CHARGED, Charge, ChargeState
from holdpay.core.model import Order
from holdpay.core.states import End, OrderSignal, OrderState
from holdpay.core.step import Context, close, signal_order
from holdpay.errors import InvariantViolation


def may_charge(order: Order, now_ms: int) -> bool:
    """Whether a prepaid order may be placed now."""
    is_free = order.charge is None or order.charge.state is ChargeState.REFUSED
    is_wanted = order.giving_up is None and order.cancel_wanted_at_ms is None and not order.is_quarantined
    is_time = order.place_at_ms <= now_ms < order.pay_by_ms
    return order.request.is_prepaid and order.state is OrderState.REQUESTED and is_free and is_wanted and is_time


def charge_intended(order: Order, event: ev.ChargeIntended, ctx: Context) -> Order:
    """The intent, if it is on disk after this: then, and only then, the order is placed, once."""
    if not order.request.is_prepaid or (order.charge is not None and order.charge.state is not ChargeState.REFUSED):
        raise InvariantViolation(f"Order {order.id} was about to be placed from the account without a license.")
    if not may_charge(order, ctx.now_ms):
        # The time ran out between the look and the commit, or the client does not want it any more.
        return order
    charge = Charge(
        since_ms=ctx.now_ms,
        amount_sat=order.max_price_sat if order.quote_sat is None else order.quote_sat,
        balance_before_sat=event.balance_sat,
        intended_at_ms=ctx.now_ms,
    )
    return replace(order, charge=charge)


def placed(order: Order, ctx: Context) -> Order:
    """The provider took the order, and the price with it."""
    if order.charge is None or order.charge.state not in PERHAPS_CHARGED:
        raise InvariantViolation(f"Order {order.id} was placed from the account without an intent.")
    return signal_order(_now(order, ChargeState.CHARGED, ctx), OrderSignal.PAID, ctx)


def placing_failed(order: Order, event: ev.PlacingFailed, ctx: Context) -> Order:
    """It said no; or nobody knows what it did."""
    if order.charge is None or order.charge.state not in PERHAPS_CHARGED:
        return order
    return _now(order, ChargeState.REFUSED if event.is_sure else ChargeState.UNKNOWN, ctx)


def after_restart(order: Order, ctx: Context) -> Order:
    """What was being placed when the process ended may or may not have arrived."""
    if order.charge is None:
        return order
    if order.charge.state is ChargeState.INTENDED:
        order = _now(order, ChargeState.UNKNOWN, ctx)
    assert order.charge is not None
    return replace(order, charge=replace(order.charge, unmoved_since_ms=None))


def balance_seen(order: Order, event: ev.BalanceSeen, ctx: Context) -> Order:
    """A balance that is what it was proves that nothing was spent, if nothing else could have moved it: believed when
    seen twice, ``prove_absent_s`` apart, since what was sent may arrive late."""
    charge = order.charge
    if charge is None or charge.state is not ChargeState.UNKNOWN or order.is_quarantined:
        return order
    before_sat = charge.balance_before_sat
    if not event.is_alone or before_sat is None or event.balance_sat != before_sat:
        return replace(order, charge=replace(charge, unmoved_since_ms=None))
    # A time that lies ahead is of a wall clock that was set back since.
    if charge.unmoved_since_ms is None or charge.unmoved_since_ms > ctx.now_ms:
        return replace(order, charge=replace(charge, unmoved_since_ms=ctx.now_ms))
    if ctx.now_ms - charge.unmoved_since_ms < ctx.policy.prove_absent_s * 1000:
        return order
    refused = _now(order, ChargeState.REFUSED, ctx)
    return replace(refused, giving_up="the order did not reach the provider: the account's balance is what it was")


def returned(order: Order, ctx: Context) -> Order:
    """An order that is over gives its price back to the balance, says the provider; one that is delivered after all
    does not."""
    state = None if order.charge is None else order.charge.state
    if order.state is OrderState.CANCELED and state is ChargeState.CHARGED:
        return _now(order, ChargeState.RETURNED, ctx)
    if order.state is OrderState.DELIVERED and state is ChargeState.RETURNED:
        return _now(order, ChargeState.CHARGED, ctx)
    return order


def resolved(order: Order, event: ev.Resolved, ctx: Context) -> Order:
    """An operator's word about a charge that nobody else can tell any more, or about an order in quarantine."""
    charge = order.charge
    is_unknown = charge is not None and charge.state in PERHAPS_CHARGED
    if not (is_unknown or order.is_quarantined):
        return order
    reason = f"{event.by} resolved the charge as {event.resolution.value.replace('_', ' ')}: {event.why}"
    ctx.notes.append(reason)
    if charge is not None and event.resolution is not ev.Resolution.WRITTEN_OFF:
        is_failed = event.resolution is ev.Resolution.FAILED
        order = _now(order, ChargeState.REFUSED if is_failed else ChargeState.CHARGED, ctx)
    elif charge is not None:
        order = _now(order, ChargeState.UNKNOWN, ctx)
    is_delivered = order.is_delivered
    ended = replace(
        order, state=OrderState.DELIVERED if is_delivered else OrderState.ABANDONED, state_since_ms=ctx.now_ms
    )
    return close(replace(ended, giving_up=reason), _end(event.resolution, charge, is_delivered), reason, ctx)


def _end(resolution: ev.Resolution, charge: Charge | None, is_delivered: bool) -> End:
    if charge is None or resolution is ev.Resolution.FAILED:
        return End.FULFILLED_FREE if is_delivered else End.PROVIDER_REFUSED
    if is_delivered:
        return End.FULFILLED
    return End.CHARGED_UNFULFILLED if resolution is ev.Resolution.SETTLED else End.OUTCOME_UNKNOWN


def _now(order: Order, state: ChargeState, ctx: Context) -> Order:
    assert order.charge is not None
    return replace(order, charge=replace(order.charge, state=state, since_ms=ctx.now_ms, unmoved_since_ms=None))
