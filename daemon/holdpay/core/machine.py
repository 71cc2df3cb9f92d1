"""The life of an order.

Theory of operation. Two parties that we do not control each know one half. The provider knows what became of the
*order*, LND knows what became of the *HTLC*. Each half has a small state machine, driven only by what its owner said
(``tables``). What a situation *means* is read from the pair of both: ``PAIR_TABLE`` has all 49 cells; some of them
contradict ourselves, and reaching one (``InvariantViolation``) puts the order into quarantine.

What is bought is no matter of this module: a kind (``kinds``) says what a reply delivers and means, and what comes
after that.

``decide(order, event, policy, now_ms)`` is the only way an order changes. It is pure and total: every event in every
state gives a ``Step``; an event that contradicts what a party said before is an anomaly, noted and survived.

How an order is paid is ``hold``'s matter, or ``prepaid``'s; each says its own laws. Those that hold in every step:

- *An order is never closed while money may be out.*
- *What was charged, or perhaps was, is never placed again.*
- *Terminal words are sticky*: the first terminal message of LND is kept, and what was delivered is never forgotten.
- *A quarantined order is never dispatched, and never closed by itself*: it is watched, what the parties say of it is
  kept as far as it makes sense, and a person ends it (``_resolved_in_quarantine``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from holdpay.core import events as ev
from holdpay.core import hold, prepaid
from holdpay.core.amounts import minutes
from holdpay.core.charge import PERHAPS_CHARGED, ChargeState
from holdpay.core.items import Keeper
from holdpay.core.model import Order
from holdpay.core.policy import Policy
from holdpay.core.set_back import ahead_ms, moved_back
from holdpay.core.states import End, HtlcState, OrderSignal, OrderState, Succession
from holdpay.core.step import Context, Step, abandon, close, signal_order
from holdpay.core.strategy import goes_on, why_to_move_on
from holdpay.core.succession import decide_between
from holdpay.core.tables import IMPOSSIBLE, cell
from holdpay.errors import InvariantViolation

CANCEL_RETRY_FRACTION = 16
"""A refused cancel is asked for again when this part of the time since the wish has passed once more."""
MAX_ANOMALIES = 50
"""Contradictions of a party that are journaled per order: a flipping provider must not fill the disk."""


def decide(order: Order, event: ev.Event, policy: Policy, now_ms: int) -> Step:
    """What ``event`` makes of ``order``. Raises InvariantViolation if we contradict ourselves; not of an order that is
    quarantined: it had that already.
    """
    if order.is_going_on:
        return decide_between(order, event, policy, now_ms)
    if order.is_closed:
        return Step(order, is_change=False)
    if isinstance(event, ev.OrderQuarantined):
        return _quarantine(order, event, now_ms)
    if not order.is_quarantined:
        return _decide(order, event, policy, now_ms)
    try:
        return _decide(order, event, policy, now_ms)
    except Exception:  # noqa: BLE001 - whatever defect of ours it was, the order is put aside already
        if not isinstance(event, ev.ProviderReplied):
            return Step(order, is_change=False)
        # Whatever is wrong with the order: a code that came is handed over.
        ctx = Context(policy, now_ms, may_close=False)
        return _step(order, _keep_words(order, event.status, ctx), ctx)


def _quarantine(order: Order, event: ev.OrderQuarantined, now_ms: int) -> Step:
    """Nothing else of the order is touched, and no law is asked: it breaks one."""
    if order.is_quarantined:
        return Step(order, is_change=False)
    after = replace(order, quarantined_at_ms=now_ms, quarantine_reason=event.text)
    return Step(after, is_change=True, notes=(f"put into quarantine: {event.text}",))


def _decide(order: Order, event: ev.Event, policy: Policy, now_ms: int) -> Step:
    may_end_late = isinstance(event, ev.TimePassed | ev.ProviderReplied) and not order.is_quarantined
    held_up_by = event.held_up_by if isinstance(event, ev.TimePassed) else ""
    ctx = Context(policy, now_ms, _may_close(order, event), may_end_late, held_up_by)
    after = _HANDLERS[type(event)](order, event, ctx)
    after = prepaid.returned(_deliver_by_settlement(after, ctx), ctx)
    after = _give_up_in_time(_move_on_in_time(after, ctx), ctx)
    after = _go_on(_close_if_over(after, ctx), ctx)
    _assert_possible(after)
    return _step(order, after, ctx)


def _step(order: Order, after: Order, ctx: Context) -> Step:
    if ctx.notes and after.anomaly_count < MAX_ANOMALIES:
        after = replace(after, anomaly_count=after.anomaly_count + len(ctx.notes))
    is_change = after is not order and after != order
    return Step(after, is_change=is_change, notes=tuple(ctx.notes), attempts=ctx.attempts, trust=ctx.trust)


def _may_close(order: Order, event: ev.Event) -> bool:
    return not order.is_quarantined or (isinstance(event, ev.CancelRequested) and hold.was_never_sent(order))


def _assert_possible(order: Order) -> None:
    if cell(order) == IMPOSSIBLE:
        raise InvariantViolation(f"Order {order.id} is {order.state.value} with {half(order)}.")
    if order.is_waiting and order.state is not OrderState.REQUESTED:
        raise InvariantViolation(f"Order {order.id} is {order.state.value}, and waits to be placed.")
    if order.is_closed and order.is_money_out:
        raise InvariantViolation(f"Order {order.id} was closed while money may be out.")
    if order.payment is not None and order.request.is_prepaid:
        raise InvariantViolation(f"Order {order.id} is paid from the account, and has a hold invoice.")


def half(order: Order) -> str:
    """The other half of the order, for people: its HTLC, or its charge."""
    if not order.request.is_prepaid:
        return f"its HTLC {order.htlc.value}"
    return "no charge" if order.charge is None else f"its charge {order.charge.state.value}"


# --- the provider's words -------------------------------------------------------------------------------------------


def _place_given(order: Order, event: ev.PlaceGiven, ctx: Context) -> Order:
    """Its time to pay begins now."""
    if not order.is_waiting or order.is_quarantined or order.giving_up is not None:
        return order
    pay_by_ms = ctx.now_ms + ctx.policy.pay_within_s * 1000
    return replace(order, waiting_since_ms=None, place_at_ms=ctx.now_ms, pay_by_ms=pay_by_ms)


def _place_denied(order: Order, event: ev.PlaceDenied, ctx: Context) -> Order:
    if not order.is_waiting or order.is_quarantined or order.giving_up is not None:
        return order
    return replace(order, giving_up=event.text)


def _order_placed(order: Order, event: ev.OrderPlaced, ctx: Context) -> Order:
    if order.state is not OrderState.REQUESTED:
        ctx.notes.append("the provider answered a second time to the same order; the first answer counts")
        return order
    placed = signal_order(order, OrderSignal.PLACED, ctx)
    placed = replace(placed, provider_order_id=event.provider_order_id, payreq=event.payreq)
    if not order.request.is_prepaid:
        return placed
    # A wish from before it was placed is passed on now: unlike a hold invoice, the account has paid already.
    return _with_cancel(prepaid.placed(placed, ctx), ctx)


def _placing_failed(order: Order, event: ev.PlacingFailed, ctx: Context) -> Order:
    if order.state is not OrderState.REQUESTED:
        return order
    count = order.place_count + 1
    order = replace(order, place_count=count, provider_text=event.text)
    if order.charge is not None:
        order = prepaid.placing_failed(order, event, ctx)
        if not event.is_sure:
            return order
    at_ms = ctx.now_ms + int(max(count * ctx.policy.place_retry_s, event.wait_s) * 1000)
    if event.may_retry and count < ctx.policy.place_attempts and at_ms < order.pay_by_ms:
        return replace(order, place_at_ms=at_ms)
    return abandon(order, End.PROVIDER_REFUSED, f"the provider did not take the order: {event.text}", ctx)


def _provider_replied(order: Order, event: ev.ProviderReplied, ctx: Context) -> Order:
    status = event.status
    if order.state is OrderState.REQUESTED:
        return order
    order = _keep_words(order, status, ctx)
    order = signal_order(order, order.spec.signal(status), ctx)
    if order.cancel_at_ms is not None and order.state in {OrderState.DELIVERED, OrderState.CANCELED}:
        # A code that came first wins over the wish to cancel; and what is canceled needs no cancel.
        order = replace(order, cancel_at_ms=None)
    if order.payment is None:
        return order
    if status.is_paid:
        if not order.payment.reached_payee:
            order = replace(order, payment=replace(order.payment, reached_payee=True))
    elif status.error is None:
        order = hold.note_unpaid(order, event.asked_at_ms, ctx)
    return order


def _provider_confused(order: Order, event: ev.ProviderConfused, ctx: Context) -> Order:
    ctx.notes.append(event.text)
    is_spent = order.htlc is HtlcState.SETTLED or order.charge is not None
    is_paid_for = order.is_money_out or is_spent or order.state in _PAID_STATES
    is_all_here = order.is_delivered and not order.spec.outlives_delivery
    if event.unread is None or not is_paid_for or is_all_here:
        return order
    keeper = _keeper(order, ctx)
    keeper.unread(event.unread, has_value=False)
    return _kept(order, keeper, ctx)


_PAID_STATES = frozenset({OrderState.PAID, OrderState.NUMBER_ASSIGNED})


def _provider_failed(order: Order, event: ev.ProviderFailed, ctx: Context) -> Order:
    ctx.notes.append(event.text)
    return order


def _keep_words(order: Order, status: ev.ProviderStatus, ctx: Context) -> Order:
    """Nothing is forgotten: what was delivered, a reply that only a person can read, and of errors the first."""
    keeper = _keeper(order, ctx)
    order.spec.keep(keeper, status)
    for raw in (*status.unread_messages, *(() if status.unread is None else (status.unread,))):
        keeper.unread(raw, has_value=True)
    order = _kept(order, keeper, ctx)
    # Also the error is kept as first said: a text that is new at every poll must not fill the disk.
    if status.error is not None and order.state not in {OrderState.DELIVERED, OrderState.CANCELED}:
        order = replace(order, provider_text=status.error)
    return order


def _keeper(order: Order, ctx: Context) -> Keeper:
    return Keeper(order.items, ctx.now_ms, may_count_unread=order.anomaly_count < MAX_ANOMALIES)


def _kept(order: Order, keeper: Keeper, ctx: Context) -> Order:
    ctx.notes.extend(keeper.notes)
    return order if keeper.items == order.items else replace(order, items=keeper.items)


# --- the client's wish, and time ------------------------------------------------------------------------------------


def _cancel_requested(order: Order, event: ev.CancelRequested, ctx: Context) -> Order:
    if not takes_cancel(order):
        return order
    if order.moved_on is not None:
        # It is being canceled already; now nothing follows it.
        return replace(order, moved_on=None)
    return _with_cancel(replace(order, cancel_wanted_at_ms=ctx.now_ms), ctx)


def takes_cancel(order: Order) -> bool:
    """Whether a client's wish to cancel changes anything now: it is not too late, and there is none yet."""
    if order.is_going_on:
        return True
    is_too_late = order.is_closed or order.is_delivered or order.htlc is HtlcState.SETTLED
    return not is_too_late and not order.is_cancel_wanted_by_client and may_be_canceled(order)


def _with_cancel(order: Order, ctx: Context) -> Order:
    """Plans to ask the provider, if it is wanted and can be."""
    if order.cancel_wanted_at_ms is None or not order.spec.may_be_canceled:
        return order
    if order.state is OrderState.CANCELED or order.provider_order_id is None:
        return order
    since_ms = paid_since_ms(order) or order.state_since_ms
    return replace(order, cancel_at_ms=max(ctx.now_ms, since_ms + ctx.policy.cancel_after_s * 1000))


def may_be_canceled(order: Order) -> bool:
    """Whether a cancel can change anything: at the provider, or because nothing was handed to lnd yet."""
    is_charged = order.charge is not None and order.charge.state is not ChargeState.REFUSED
    return order.spec.may_be_canceled or not (order.is_money_out or is_charged)


def _cancel_answered(order: Order, event: ev.CancelAnswered, ctx: Context) -> Order:
    order = replace(order, cancel_at_ms=None)
    if order.state in {OrderState.CANCELED, OrderState.DELIVERED}:
        return order
    if event.accepted:
        return signal_order(replace(order, provider_text=_why_canceled(order)), OrderSignal.OVER, ctx)
    order = replace(order, provider_text=event.text)
    if event.accepted is False and order.charge is not None and order.spec.is_delivered_by_settlement(order):
        # What is bought is there, and stays.
        return order
    if not order.is_money_out and order.charge is None:
        # Nothing is left that a cancel could bring back; a code may still come.
        return order
    # Further and further apart: a provider that refuses for days must not fill the disk with its answers.
    waited_ms = ctx.now_ms - (order.cancel_wanted_at_ms or ctx.now_ms)
    wait_ms = max(ctx.policy.cancel_retry_s * 1000, waited_ms // CANCEL_RETRY_FRACTION)
    return replace(order, cancel_at_ms=ctx.now_ms + wait_ms)


def _why_canceled(order: Order) -> str:
    return "canceled at your request" if order.moved_on is None else f"canceled by holdpayd: {order.moved_on}"


def _daemon_restarted(order: Order, event: ev.DaemonRestarted, ctx: Context) -> Order:
    if by_ms := ahead_ms(order, ctx.now_ms):
        ctx.notes.append(f"the wall clock was set back by {minutes(by_ms)} or more; the waits go on as they were")
        order = moved_back(order, by_ms)
    return prepaid.after_restart(hold.after_restart(order, ctx), ctx)


def _copy_restored(order: Order, event: ev.CopyRestored, ctx: Context) -> Order:
    """Only lnd and the provider know how it went on. Where they cannot be asked about it, a person has to look."""
    order = replace(_daemon_restarted(order, ev.DaemonRestarted(), ctx), restored_at_ms=ctx.now_ms)
    ctx.notes.append(f"{hold.RESTORED}; nothing is placed or paid for it any more")
    if order.state is OrderState.REQUESTED and not order.is_quarantined:
        return replace(order, quarantined_at_ms=ctx.now_ms, quarantine_reason=_PERHAPS_PLACED)
    return hold.after_copy(order, ctx)


_PERHAPS_PLACED = (
    "it was being ordered when the copy of the database was made, from which it was restored, and whether it was"
    " ordered and paid then is not recorded"
)


def _resolved(order: Order, event: ev.Resolved, ctx: Context) -> Order:
    """An operator's word, where nobody else has one any more."""
    return prepaid.resolved(order, event, ctx) if order.request.is_prepaid else hold.resolved(order, event, ctx)


def _nothing_said(order: Order, event: ev.Event, ctx: Context) -> Order:
    """Time passed; or what is about a closed order came to one that is open, and says nothing of it."""
    return order


_HANDLERS: dict[type[ev.Event], Callable[[Order, Any, Context], Order]] = {
    ev.PlaceGiven: _place_given,
    ev.PlaceDenied: _place_denied,
    ev.OrderPlaced: _order_placed,
    ev.PlacingFailed: _placing_failed,
    ev.InvoiceDecoded: hold.invoice_decoded,
    ev.InvoiceUndecodable: hold.invoice_undecodable,
    ev.DispatchIntended: hold.dispatch_intended,
    ev.PaymentReported: hold.payment_reported,
    ev.SendRefused: hold.send_refused,
    ev.TrackingLost: hold.tracking_lost,
    ev.PaymentNotFound: hold.payment_not_found,
    ev.HtlcLookedFor: hold.htlc_looked_for,
    ev.HoldLevelChanged: hold.level_changed,
    ev.RouteLookedFor: hold.route_looked_for,
    ev.Resolved: _resolved,
    ev.ProviderReplied: _provider_replied,
    ev.ProviderConfused: _provider_confused,
    ev.ProviderFailed: _provider_failed,
    ev.CancelRequested: _cancel_requested,
    ev.CancelAnswered: _cancel_answered,
    ev.NextOrdered: _nothing_said,
    ev.NoNextOrder: _nothing_said,
    ev.ChargeIntended: prepaid.charge_intended,
    ev.BalanceSeen: prepaid.balance_seen,
    ev.DaemonRestarted: _daemon_restarted,
    ev.CopyRestored: _copy_restored,
    ev.TimePassed: _nothing_said,
}


# --- the end --------------------------------------------------------------------------------------------------------


def promise_until_ms(order: Order, policy: Policy) -> int | None:
    """When the provider's promise (the thing, or the money back) has passed. None: nothing was sent, or none given."""
    if not order.spec.has_promise:
        return None
    return patience_until_ms(order, policy)


def patience_until_ms(order: Order, policy: Policy) -> int | None:
    """When what was ordered is late: by the provider's promise, or where it gave none by our own measure, which is the
    same. None: nothing was sent."""
    since_ms = paid_since_ms(order)
    return None if since_ms is None else since_ms + policy.promise_s * 1000


def paid_since_ms(order: Order) -> int | None:
    """When the latest payment was handed to lnd, or the account was charged. None: neither was."""
    if order.charge is not None:
        return order.charge.since_ms if order.charge.state is ChargeState.CHARGED else None
    return None if order.payment is None else order.payment.money_out_since_ms


def _give_up_in_time(order: Order, ctx: Context) -> Order:
    if order.waiting_since_ms is not None:
        return _give_up_waiting(order, order.waiting_since_ms, ctx)
    if order.giving_up is not None or ctx.now_ms < order.pay_by_ms or order.is_money_out or order.is_quarantined:
        return order
    if order.charge is not None and order.charge.state in PERHAPS_CHARGED:
        return order
    if order.state in {OrderState.REQUESTED, OrderState.AWAITING_PAYMENT} and order.htlc is not HtlcState.SETTLED:
        why = f": {ctx.held_up_by}" if ctx.held_up_by else ""
        return replace(order, giving_up=f"it was not paid in time{why}")
    return order


def _give_up_waiting(order: Order, since_ms: int, ctx: Context) -> Order:
    max_wait_s = ctx.policy.hold_max_wait_s
    if order.giving_up is not None or order.is_quarantined or ctx.now_ms < since_ms + max_wait_s * 1000:
        return order
    reason = f"no place among the holds became free within {max_wait_s:,} s (holds.max_wait_s)"
    return replace(order, giving_up=reason)


def _move_on_in_time(order: Order, ctx: Context) -> Order:
    """The provider, or the engine after it asked, has just said that nothing came."""
    if order.is_closed or not ctx.may_end_late or (why := why_to_move_on(order, ctx.now_ms)) is None:
        return order
    return _with_cancel(replace(order, cancel_wanted_at_ms=ctx.now_ms, moved_on=why), ctx)


def _go_on(order: Order, ctx: Context) -> Order:
    """Decided in the step that closes the order, and stored with it."""
    if not order.is_closed or not goes_on(order, ctx.now_ms):
        return order
    return replace(order, succession=Succession.GOING_ON)


def _deliver_by_settlement(order: Order, ctx: Context) -> Order:
    """Some kinds are fulfilled as soon as they are paid for: no word of the provider's says so."""
    is_charged = order.charge is not None and order.charge.state is ChargeState.CHARGED
    if not (is_charged or order.htlc is HtlcState.SETTLED) or order.state not in _TO_BE_DELIVERED:
        return order
    until_ms = patience_until_ms(order, ctx.policy)
    if is_charged and order.cancel_at_ms is not None and until_ms is not None and ctx.now_ms < until_ms:
        # The account's money comes back by a cancel: its answer comes first, if it comes in time.
        return order
    return signal_order(order, OrderSignal.FULFILLED, ctx) if order.spec.is_delivered_by_settlement(order) else order


_TO_BE_DELIVERED = frozenset({OrderState.AWAITING_PAYMENT, OrderState.PAID, OrderState.NUMBER_ASSIGNED})


def _close_if_over(order: Order, ctx: Context) -> Order:
    """Closes an order whose pair is final, or whose deadline has passed. Never while money may be out."""
    if order.is_closed or order.is_money_out or not ctx.may_close:
        return order
    if order.request.is_prepaid:
        return _close_prepaid(order, ctx)
    is_followed = order.state is OrderState.DELIVERED and order.spec.outlives_delivery
    if order.htlc is HtlcState.SETTLED or (order.htlc is HtlcState.GONE and is_followed):
        assert order.payment is not None
        return _close_charged(order, order.payment.htlc_since_ms, ctx)
    if order.htlc is HtlcState.GONE:
        is_delivered = order.state is OrderState.DELIVERED
        return close(order, End.FULFILLED if is_delivered else End.OUTCOME_UNKNOWN, order.giving_up or "", ctx)
    if order.state is OrderState.DELIVERED and order.spec.is_taken_back(order.items):
        return close(order, hold.end_without_money(order), order.provider_text or "the provider took it back", ctx)
    if order.state is OrderState.DELIVERED:
        ctx.notes.append("it was fulfilled although nothing was charged")
        return close(order, End.FULFILLED_FREE, "it was fulfilled although nothing was charged", ctx)
    if order.state is OrderState.CANCELED:
        return close(order, hold.end_without_money(order), order.provider_text or "the provider canceled it", ctx)
    if order.state in {OrderState.REQUESTED, OrderState.AWAITING_PAYMENT}:
        return _close_unpaid(order, ctx)
    return _close_after_promise(order, ctx)


def _close_prepaid(order: Order, ctx: Context) -> Order:
    """Never while nobody knows whether the account was charged: then only a person's word closes it."""
    charge = order.charge
    if charge is not None and charge.state is ChargeState.CHARGED:
        return _close_charged(order, charge.since_ms, ctx)
    if charge is not None and charge.state is ChargeState.RETURNED:
        # There is no second party that could confirm it, as lnd does: its one word may be wrong, and what was bought
        # may come still.
        if not ctx.may_end_late or ctx.now_ms < charge.since_ms + ctx.policy.close_unpaid_after_s * 1000:
            return order
        return close(order, End.REFUNDED, order.provider_text or "the provider canceled it", ctx)
    if charge is not None and charge.state is not ChargeState.REFUSED:
        return order
    if order.cancel_wanted_at_ms is not None:
        return abandon(order, End.CANCELED_UNPAID, "canceled at your request before it was paid", ctx)
    return order if order.giving_up is None else abandon(order, End.PROVIDER_REFUSED, order.giving_up, ctx)


def _close_charged(order: Order, since_ms: int, ctx: Context) -> Order:
    """``since_ms``: when the HTLC settled, or the account was charged."""
    if order.state is OrderState.DELIVERED:
        is_followed = order.spec.is_followed(order, ctx.policy, ctx.now_ms)
        may_close = not is_followed and (ctx.may_end_late or not order.spec.outlives_delivery)
        return close(order, End.FULFILLED, "", ctx) if may_close else order
    if not ctx.may_end_late or ctx.now_ms < since_ms + ctx.policy.settled_grace_s * 1000:
        return order
    reason = f"{order.spec.words.thing} did not come in the time that was left for it after it was paid for"
    return abandon(order, End.CHARGED_UNFULFILLED, reason, ctx)


def _close_unpaid(order: Order, ctx: Context) -> Order:
    if order.cancel_wanted_at_ms is not None:
        return abandon(order, hold.end_without_money(order), f"{_why_canceled(order)} before it was paid", ctx)
    if order.giving_up is None:
        return order
    if order.is_waiting:
        return abandon(order, End.NO_PLACE, order.giving_up, ctx)
    if order.payment is None or order.payment.dispatch_count == 0:
        return abandon(order, End.PAYMENT_FAILED, order.giving_up, ctx)
    is_late = ctx.may_end_late and ctx.now_ms >= order.pay_by_ms + ctx.policy.close_unpaid_after_s * 1000
    if not is_late and not hold.is_unpaid_for_sure(order.payment):
        return order
    if hold.awaits_diagnosis(order, ctx.now_ms):
        return order
    order = hold.diagnosed(order) if ctx.may_close else order
    return abandon(order, hold.end_without_money(order), hold.why_given_up(order), ctx)


def _close_after_promise(order: Order, ctx: Context) -> Order:
    until_ms = patience_until_ms(order, ctx.policy) or order.created_at_ms + ctx.policy.promise_s * 1000
    if order.payment is not None and order.htlc is HtlcState.FAILED:
        # Money that comes back when the promise ends, as refunds do: the provider still has to say why.
        until_ms = max(until_ms, order.payment.htlc_since_ms + ctx.policy.close_unpaid_after_s * 1000)
    if not ctx.may_end_late or ctx.now_ms < until_ms:
        return order
    return abandon(order, hold.end_without_money(order), "the provider never said what became of it", ctx)
