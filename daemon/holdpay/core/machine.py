"""The life of an order.

Theory of operation. Two parties that we do not control each know one half. The provider knows what became of the
*order*, LND knows what became of the *HTLC*. Each half has a small state machine, driven only by what its owner said
(``tables``). What a situation *means* is read from the pair of both: ``PAIR_TABLE`` has all 49 cells; some of them
contradict ourselves, and reaching one (``InvariantViolation``) puts the order into quarantine.

What is bought is no matter of this module: a kind (``kinds``) says what a reply delivers and means, and what comes
after that.

``decide(order, event, policy, now_ms)`` is the only way an order changes. It is pure and total: every event in every
state gives a ``Step``; an event that contradicts what a party said before is an anomaly, noted and survived.

The laws that hold in every step:

- *The payer's law*: once dispatched, only the payee or the chain resolves an HTLC. No time-out, refusal, lost stream
  or lost client ever makes it FAILED.
- *An order is never closed while money may be out.*
- *A payment that reached the payee, or that the provider called paid, is never dispatched again*, whatever LND's
  reason says.
- *Terminal words are sticky*: the first terminal message of LND is kept, and what was delivered is never forgotten.
- *A quarantined order is never dispatched, and never closed by itself*: it is watched, what the parties say of it is
  kept as far as it makes sense, and a person ends it (``_resolved_in_quarantine``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from holdpay.core import events as ev
from holdpay.core.items import Keeper
from holdpay.core.lightning import (
    Attempt,
    AttemptStatus,
    FailureReason,
    PaymentStatus,
    PaymentUpdate,
    preimage_fits,
)
from holdpay.core.model import Order, Payment, PaymentFailure
from holdpay.core.policy import (
    GiveUp,
    Policy,
    classify,
    first_fee_limit_msat,
    latest_expiry_height,
    retry_decision,
    vet,
)
from holdpay.core.set_back import ahead_ms, moved_back
from holdpay.core.states import (
    MONEY_MAY_BE_OUT,
    End,
    FailureClass,
    HtlcSignal,
    HtlcState,
    OrderSignal,
    OrderState,
)
from holdpay.core.tables import HTLC_TABLE, IMPOSSIBLE, ORDER_TABLE, PAIR_TABLE
from holdpay.errors import InvariantViolation

CANCEL_RETRY_FRACTION = 16
"""A refused cancel is asked for again when this part of the time since the wish has passed once more."""
CLOCKS_DIFFER_MS = 60_000
"""Two machines that keep time at all are closer than this; without a time server it is off by seconds a day."""
MAX_ANOMALIES = 50
"""Contradictions of a party that are journaled per order: a flipping provider must not fill the disk."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one event made of an order. ``is_change`` False: nothing to store."""

    order: Order
    is_change: bool
    notes: tuple[str, ...] = ()
    """Anomalies and warnings, for the journal and the log."""
    attempts: tuple[Attempt, ...] = ()
    """LND's HTLC attempts as of this event, to be stored."""


@dataclass(slots=True)
class _Context:
    policy: Policy
    now_ms: int
    may_close: bool
    """Not an order in quarantine, but for a cancel where nothing was ever sent."""
    may_end_late: bool = False
    """A deadline closes an order when the provider has just answered, or when the engine says that time has passed,
    which asks first after a downtime. Any other event may come before anybody has asked."""
    notes: list[str] = field(default_factory=list)
    attempts: tuple[Attempt, ...] = ()


def decide(order: Order, event: ev.Event, policy: Policy, now_ms: int) -> Step:
    """What ``event`` makes of ``order``. Raises InvariantViolation if we contradict ourselves; not of an order that is
    quarantined: it had that already.
    """
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
        ctx = _Context(policy, now_ms, may_close=False)
        return _step(order, _keep_words(order, event.status, ctx), ctx)


def _quarantine(order: Order, event: ev.OrderQuarantined, now_ms: int) -> Step:
    """Nothing else of the order is touched, and no law is asked: it breaks one."""
    if order.is_quarantined:
        return Step(order, is_change=False)
    after = replace(order, quarantined_at_ms=now_ms, quarantine_reason=event.text)
    return Step(after, is_change=True, notes=(f"put into quarantine: {event.text}",))


def _decide(order: Order, event: ev.Event, policy: Policy, now_ms: int) -> Step:
    may_end_late = isinstance(event, ev.TimePassed | ev.ProviderReplied) and not order.is_quarantined
    ctx = _Context(policy, now_ms, may_close=_may_close(order, event), may_end_late=may_end_late)
    after = _HANDLERS[type(event)](order, event, ctx)
    after = _deliver_by_settlement(after, ctx)
    after = _give_up_in_time(after, ctx)
    after = _close_if_over(after, ctx)
    _assert_possible(after)
    return _step(order, after, ctx)


def _step(order: Order, after: Order, ctx: _Context) -> Step:
    if ctx.notes and after.anomaly_count < MAX_ANOMALIES:
        after = replace(after, anomaly_count=after.anomaly_count + len(ctx.notes))
    return Step(after, is_change=after != order, notes=tuple(ctx.notes), attempts=ctx.attempts)


def _may_close(order: Order, event: ev.Event) -> bool:
    return not order.is_quarantined or (isinstance(event, ev.CancelRequested) and was_never_sent(order))


def was_never_sent(order: Order) -> bool:
    """Whether no payment of it was ever begun."""
    return order.payment is None or (order.payment.dispatch_count == 0 and order.htlc is HtlcState.NONE)


def _assert_possible(order: Order) -> None:
    if PAIR_TABLE[order.state, order.htlc] == IMPOSSIBLE:
        raise InvariantViolation(f"Order {order.id} is {order.state.value} with its HTLC {order.htlc.value}.")
    if order.is_closed and order.is_money_out:
        raise InvariantViolation(f"Order {order.id} was closed while money may be out.")


def _signal_order(order: Order, signal: OrderSignal, ctx: _Context) -> Order:
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


def _signal_htlc(payment: Payment, signal: HtlcSignal, ctx: _Context) -> Payment:
    target = HTLC_TABLE.get((payment.htlc, signal))
    if target is None:
        raise InvariantViolation(f"A payment that is {payment.htlc.value} got {signal.value}.")
    if target.is_anomaly:
        ctx.notes.append(f"lnd says {signal.value} of a payment that was {payment.htlc.value}")
    if target.state is payment.htlc:
        return payment
    assert isinstance(target.state, HtlcState)
    return replace(payment, htlc=target.state, htlc_since_ms=ctx.now_ms)


# --- the provider's words -------------------------------------------------------------------------------------------


def _order_placed(order: Order, event: ev.OrderPlaced, ctx: _Context) -> Order:
    if order.state is not OrderState.REQUESTED:
        ctx.notes.append("the provider answered a second time to the same order; the first answer counts")
        return order
    placed = _signal_order(order, OrderSignal.PLACED, ctx)
    return replace(placed, provider_order_id=event.provider_order_id, payreq=event.payreq)


def _placing_failed(order: Order, event: ev.PlacingFailed, ctx: _Context) -> Order:
    if order.state is not OrderState.REQUESTED:
        return order
    count = order.place_count + 1
    order = replace(order, place_count=count, provider_text=event.text)
    at_ms = ctx.now_ms + int(max(count * ctx.policy.place_retry_s, event.wait_s) * 1000)
    if event.may_retry and count < ctx.policy.place_attempts and at_ms < order.pay_by_ms:
        return replace(order, place_at_ms=at_ms)
    return _abandon(order, End.PROVIDER_REFUSED, f"the provider did not take the order: {event.text}", ctx)


def _provider_replied(order: Order, event: ev.ProviderReplied, ctx: _Context) -> Order:
    status = event.status
    if order.state is OrderState.REQUESTED:
        return order
    order = _keep_words(order, status, ctx)
    order = _signal_order(order, order.spec.signal(status), ctx)
    if order.state in {OrderState.DELIVERED, OrderState.CANCELED}:
        # A code that came first wins over the wish to cancel; and what is canceled needs no cancel.
        order = replace(order, cancel_at_ms=None)
    if order.payment is None:
        return order
    if status.is_paid:
        order = replace(order, payment=replace(order.payment, reached_payee=True))
    elif status.error is None:
        order = _note_unpaid(order, event.asked_at_ms, ctx)
    return order


def _provider_confused(order: Order, event: ev.ProviderConfused, ctx: _Context) -> Order:
    ctx.notes.append(event.text)
    is_paid_for = order.is_money_out or order.htlc is HtlcState.SETTLED or order.state in _PAID_STATES
    if event.unread is None or not is_paid_for or order.is_delivered:
        return order
    keeper = _keeper(order, ctx)
    keeper.unread(event.unread, has_value=False)
    return _kept(order, keeper, ctx)


_PAID_STATES = frozenset({OrderState.PAID, OrderState.NUMBER_ASSIGNED})


def _provider_failed(order: Order, event: ev.ProviderFailed, ctx: _Context) -> Order:
    ctx.notes.append(event.text)
    return order


def _keep_words(order: Order, status: ev.ProviderStatus, ctx: _Context) -> Order:
    """Nothing is forgotten: what was delivered, a reply that only a person can read, and of errors the first."""
    keeper = _keeper(order, ctx)
    order.spec.keep(keeper, status)
    if status.unread is not None and status.unread != order.unread:
        ctx.notes.append("something in the provider's reply cannot be read; the reply is kept")
        keeper.unread(status.unread, has_value=True)
    order = _kept(order, keeper, ctx)
    # Also the error is kept as first said: a text that is new at every poll must not fill the disk.
    if status.error is not None and order.state not in {OrderState.DELIVERED, OrderState.CANCELED}:
        order = replace(order, provider_text=status.error)
    return order


def _keeper(order: Order, ctx: _Context) -> Keeper:
    return Keeper(order.items, ctx.now_ms, may_replace_unread=order.anomaly_count < MAX_ANOMALIES)


def _kept(order: Order, keeper: Keeper, ctx: _Context) -> Order:
    ctx.notes.extend(keeper.notes)
    return order if keeper.items == order.items else replace(order, items=keeper.items)


def _note_unpaid(order: Order, asked_at_ms: int, ctx: _Context) -> Order:
    """A reply, asked after the failure, that says unpaid and no error: it licenses the next rung (``may_dispatch``)."""
    payment = order.payment
    assert payment is not None
    if payment.htlc not in {HtlcState.NONE, HtlcState.FAILED} or payment.dispatch_count == 0:
        return order
    if asked_at_ms <= payment.htlc_since_ms:
        return order
    # A time that lies ahead is of a wall clock that was set back since.
    if payment.unpaid_since_ms is None or payment.unpaid_since_ms > ctx.now_ms:
        return replace(order, payment=replace(payment, unpaid_since_ms=ctx.now_ms))
    is_confirmed = ctx.now_ms - payment.unpaid_since_ms >= ctx.policy.confirm_unpaid_s * 1000
    if is_confirmed and payment.unpaid_again_at_ms is None:
        return replace(order, payment=replace(payment, unpaid_again_at_ms=ctx.now_ms))
    return order


# --- the hold invoice -----------------------------------------------------------------------------------------------


def _invoice_decoded(order: Order, event: ev.InvoiceDecoded, ctx: _Context) -> Order:
    if order.state is not OrderState.AWAITING_PAYMENT or order.payment is not None:
        return order
    assert order.payreq is not None
    invoice = event.invoice
    verdict = vet(order, invoice, event.node, event.seen_before, ctx.policy, ctx.now_ms + event.wall_ahead_ms)
    ctx.notes.extend(verdict.warnings)
    if verdict.reasons:
        reason = "the hold invoice was refused: " + "; ".join(verdict.reasons)
        return _abandon(order, End.INVOICE_REJECTED, reason, ctx)
    # An invoice may be far cheaper than what was allowed for it; the daemon's bound is about what is really paid.
    max_fee_sat = min(order.max_fee_sat, ctx.policy.fee_bound_sat(-(-invoice.amount_msat // 1000)))
    payment = Payment(
        payment_hash=invoice.payment_hash,
        payreq=order.payreq,
        payee=invoice.payee,
        amount_msat=invoice.amount_msat,
        expires_at_ms=invoice.expires_at_ms,
        final_cltv_delta=invoice.final_cltv_delta,
        node_pubkey=event.node.pubkey,
        node_network=event.node.network,
        htlc_since_ms=ctx.now_ms,
        fee_limit_msat=first_fee_limit_msat(max_fee_sat, ctx.policy),
        dispatch_at_ms=ctx.now_ms,
    )
    latest_ms = invoice.expires_at_ms - event.wall_ahead_ms - ctx.policy.min_expiry_left_s * 1000
    return replace(order, payment=payment, max_fee_sat=max_fee_sat, pay_by_ms=min(order.pay_by_ms, latest_ms))


def _invoice_undecodable(order: Order, event: ev.InvoiceUndecodable, ctx: _Context) -> Order:
    if order.state is not OrderState.AWAITING_PAYMENT or order.payment is not None:
        return order
    reason = f"the hold invoice was refused: lnd cannot read it ({event.text})"
    return _abandon(order, End.INVOICE_REJECTED, reason, ctx)


# --- LND's words ----------------------------------------------------------------------------------------------------


def may_dispatch(order: Order, policy: Policy, now_ms: int) -> bool:
    """Whether SendPaymentV2 may be called for this order now."""
    payment = order.payment
    if payment is None or not is_dispatch_planned(order) or not _is_licensed(payment):
        return False
    return _is_time_to_dispatch(order, payment, now_ms)


def _is_time_to_dispatch(order: Order, payment: Payment, now_ms: int) -> bool:
    return payment.dispatch_at_ms is not None and payment.dispatch_at_ms <= now_ms < order.pay_by_ms


def is_dispatch_planned(order: Order) -> bool:
    """Whether a dispatch may come, now or later."""
    return order.payment is not None and not order.is_closed and _is_dispatch_planned(order, order.payment)


def _is_dispatch_planned(order: Order, payment: Payment) -> bool:
    return (
        order.state is OrderState.AWAITING_PAYMENT
        and payment.htlc in {HtlcState.NONE, HtlcState.FAILED}
        and payment.dispatch_at_ms is not None
        and not payment.reached_payee
        and order.giving_up is None
        and order.cancel_wanted_at_ms is None
        and not order.is_quarantined
    )


def _is_licensed(payment: Payment) -> bool:
    """A second dispatch needs the provider's word, asked after the failure, that nothing was paid."""
    if payment.dispatch_count == 0 and payment.failure is None:
        return True
    if payment.failure is not None and payment.failure.failure_class is FailureClass.READ_LATER:
        return payment.unpaid_again_at_ms is not None
    return payment.unpaid_since_ms is not None


def _dispatch_intended(order: Order, event: ev.DispatchIntended, ctx: _Context) -> Order:
    """The intent, if it is on disk after this: then, and only then, SendPaymentV2 is called, once."""
    payment = order.payment
    if payment is None or not is_dispatch_planned(order) or not _is_licensed(payment):
        raise InvariantViolation(f"Order {order.id} was about to be paid without a license.")
    if not _is_time_to_dispatch(order, payment, ctx.now_ms):
        # The time ran out between the look and the commit, or the wall clock was set.
        return order
    if (event.node.pubkey, event.node.network) != (payment.node_pubkey, payment.node_network):
        raise InvariantViolation(f"Order {order.id} was about to be paid from another node.")
    payment = _signal_htlc(payment, HtlcSignal.SEND, ctx)
    payment = replace(
        payment,
        dispatch_count=payment.dispatch_count + 1,
        dispatch_at_ms=None,
        money_out_since_ms=ctx.now_ms,
        unpaid_since_ms=None,
        unpaid_again_at_ms=None,
        absent_since_ms=None,
        is_known_to_lnd=False,
        refusal=None,
        fee_msat=0,
        expiry_height=None,
        gone_since_ms=None,
        first_look_height=None,
        uncarried_since_ms=None,
    )
    return replace(order, payment=payment)


def _payment_reported(order: Order, event: ev.PaymentReported, ctx: _Context) -> Order:
    payment = order.payment
    if payment is None:
        raise InvariantViolation(f"Order {order.id} got a payment report and has no payment.")
    update = event.update
    if _is_about_an_earlier_dispatch(payment, update):
        return _never_arrived(order, payment, ctx)
    if payment.htlc is not HtlcState.SETTLED:
        # The attempts that settled it are kept, with their fees; a later word about them is an anomaly or nothing new.
        ctx.attempts = update.attempts
    payment = _spoken_of(payment)
    if update.status is PaymentStatus.SUCCEEDED:
        return _succeeded(order, payment, update, ctx)
    if update.status is PaymentStatus.FAILED:
        return _failed(order, payment, update, event.live, ctx)
    return _in_flight(order, payment, update, ctx)


def _spoken_of(payment: Payment) -> Payment:
    """LND has the payment on record, after all if it had lost it; then what the channels showed counts no more."""
    payment = replace(payment, is_known_to_lnd=True, absent_since_ms=None)
    if payment.gone_since_ms is None:
        return payment
    return replace(payment, gone_since_ms=None, first_look_height=None, uncarried_since_ms=None)


def _is_about_an_earlier_dispatch(payment: Payment, update: PaymentUpdate) -> bool:
    return (
        payment.htlc in {HtlcState.DISPATCHING, HtlcState.UNKNOWN}
        and update.status is PaymentStatus.FAILED
        and payment.failure is not None
        and payment.failure.payment_index == update.payment_index
    )


def _in_flight(order: Order, payment: Payment, update: PaymentUpdate, ctx: _Context) -> Order:
    payment = _signal_htlc(payment, HtlcSignal.IN_FLIGHT, ctx)
    if payment.htlc is not HtlcState.IN_FLIGHT:
        return order
    out = [a for a in update.attempts if a.status is not AttemptStatus.FAILED]
    expiry_height = max((a.expiry_height for a in out), default=payment.expiry_height)
    # LND tells why before it says FAILED, and may have forgotten it if we ask later.
    was_refused = classify(update, live=True) is FailureClass.PAYEE_REFUSED
    return replace(
        order,
        payment=replace(
            payment,
            attempt_count=max(payment.attempt_count, len(update.attempts)),
            expiry_height=expiry_height,
            uncarried_since_ms=payment.uncarried_since_ms if expiry_height == payment.expiry_height else None,
            fee_msat=sum(a.fee_msat for a in out),
            reached_payee=payment.reached_payee or was_refused,
        ),
    )


def _succeeded(order: Order, payment: Payment, update: PaymentUpdate, ctx: _Context) -> Order:
    if update.preimage is None or not preimage_fits(update.preimage, payment.payment_hash):
        ctx.notes.append("lnd says succeeded, but its preimage does not fit the payment hash; not believed")
        return order
    payment = _signal_htlc(payment, HtlcSignal.SETTLED, ctx)
    if payment.preimage is None:
        is_paid_before = _is_paid_before(order, payment, update)
        if is_paid_before:
            ctx.notes.append("this node had paid the hold invoice before the order was requested; not counted as spent")
        payment = replace(
            payment,
            preimage=update.preimage,
            fee_msat=update.fee_msat,
            attempt_count=max(payment.attempt_count, len(update.attempts)),
            reached_payee=True,
            dispatch_at_ms=None,
            is_paid_before=is_paid_before,
        )
    return replace(order, payment=payment, cancel_at_ms=None)


def _is_paid_before(order: Order, payment: Payment, update: PaymentUpdate) -> bool:
    """Whether what settled is a payment that the node had begun before the order was requested.

    LND must have refused the first dispatch because it had the hash: clocks alone, which may be set between the request
    and the payment, could free the spending limit of all that is really paid. LND's clock and ours may be
    ``CLOCKS_DIFFER_MS`` apart; what began within that time counts as spent, and so does a payment whose refusal was
    lost, which is the safe side of the limit.
    """
    if not payment.was_there_before or payment.dispatch_count > 1 or update.created_at_ms is None:
        return False
    return update.created_at_ms < order.created_at_ms - CLOCKS_DIFFER_MS


def _failed(order: Order, payment: Payment, update: PaymentUpdate, live: bool, ctx: _Context) -> Order:
    if payment.htlc in {HtlcState.FAILED, HtlcState.SETTLED}:
        return replace(order, payment=_signal_htlc(payment, HtlcSignal.FAILED, ctx))
    failure = PaymentFailure(
        reason=update.failure_reason,
        failure_class=classify(update, live),
        attempt_count=len(update.attempts),
        payment_index=update.payment_index,
        at_ms=ctx.now_ms,
    )
    payment = _signal_htlc(payment, HtlcSignal.FAILED, ctx)
    payment = replace(
        payment,
        failure=failure,
        attempt_count=max(payment.attempt_count, len(update.attempts)),
        fee_msat=0,
        unpaid_since_ms=None,
        unpaid_again_at_ms=None,
    )
    if failure.failure_class in {FailureClass.PAYEE_REFUSED, FailureClass.ON_CHAIN}:
        payment = replace(payment, reached_payee=True)
    return _plan_retry(replace(order, payment=payment, cancel_at_ms=None), ctx)


def _plan_retry(order: Order, ctx: _Context) -> Order:
    payment = order.payment
    assert payment is not None
    if payment.reached_payee:
        return replace(order, giving_up="the payment had reached the payee, and came back")
    retry = retry_decision(order, payment, ctx.policy, ctx.now_ms)
    if isinstance(retry, GiveUp):
        return replace(order, giving_up=retry.reason)
    return replace(order, payment=replace(payment, dispatch_at_ms=retry.at_ms, fee_limit_msat=retry.fee_limit_msat))


def _send_refused(order: Order, event: ev.SendRefused, ctx: _Context) -> Order:
    payment = order.payment
    if payment is None or payment.htlc is not HtlcState.DISPATCHING:
        return order
    was_there_before = payment.was_there_before or (event.has_hash and payment.dispatch_count == 1)
    return replace(order, payment=replace(payment, refusal=event.text, was_there_before=was_there_before))


def _tracking_lost(order: Order, event: ev.Event, ctx: _Context) -> Order:
    if order.payment is None:
        return order
    # What the channels showed counts only beside LND's own word.
    payment = replace(order.payment, uncarried_since_ms=None)
    return replace(order, payment=_signal_htlc(payment, HtlcSignal.LOST, ctx))


def _daemon_restarted(order: Order, event: ev.DaemonRestarted, ctx: _Context) -> Order:
    if by_ms := ahead_ms(order, ctx.now_ms):
        ctx.notes.append(f"the wall clock was set back by {by_ms / 1000:.0f} s or more; the waits go on as they were")
        order = moved_back(order, by_ms)
    order = _tracking_lost(order, event, ctx)
    if order.payment is None:
        return order
    # Two words some seconds apart prove something only within one process: the wall clock may have been set since.
    payment = replace(order.payment, absent_since_ms=None)
    if payment.unpaid_again_at_ms is None:
        payment = replace(payment, unpaid_since_ms=None)
    return replace(order, payment=payment)


def _payment_not_found(order: Order, event: ev.PaymentNotFound, ctx: _Context) -> Order:
    payment = order.payment
    if payment is None or payment.htlc not in MONEY_MAY_BE_OUT:
        return order
    if not payment.is_known_to_lnd:
        return _never_arrived(order, payment, ctx)
    if payment.gone_since_ms is not None:
        return order
    ctx.notes.append("lnd does not know a payment that it has spoken of: its record was deleted; asking the provider")
    return replace(order, payment=replace(payment, gone_since_ms=ctx.now_ms))


def _htlc_looked_for(order: Order, event: ev.HtlcLookedFor, ctx: _Context) -> Order:
    """No channel carries it after its expiry height: believed when seen twice, ``prove_absent_s`` apart."""
    payment, look = order.payment, event.look
    if payment is None or payment.htlc not in MONEY_MAY_BE_OUT:
        return order
    if payment.first_look_height is None and look.is_synced:
        payment = replace(payment, first_look_height=look.block_height)
    until_height = latest_expiry_height(payment, ctx.policy)
    if look.is_carried or until_height is None or look.block_height <= until_height:
        return replace(order, payment=replace(payment, uncarried_since_ms=None))
    # A time that lies ahead is of a wall clock that was set back since.
    if payment.uncarried_since_ms is None or payment.uncarried_since_ms > ctx.now_ms:
        return replace(order, payment=replace(payment, uncarried_since_ms=ctx.now_ms))
    if ctx.now_ms - payment.uncarried_since_ms < ctx.policy.prove_absent_s * 1000 or order.is_quarantined:
        # What it means for an order in quarantine a person has to say.
        return replace(order, payment=payment)
    if payment.gone_since_ms is None and not payment.reached_payee:
        return _never_signed(order, payment, ctx)
    said = "has no record of the payment any more" if payment.gone_since_ms is not None else "never ends the payment"
    return _gone(order, payment, f"lnd {said}, and no channel carries its HTLC after its expiry height", ctx)


def _never_signed(order: Order, payment: Payment, ctx: _Context) -> Order:
    """LND calls it in flight for ever: it was killed before it signed the HTLC into a channel (lnd issue 9340)."""
    failure = _failure_of_ours(payment, FailureReason.NEVER_SENT, ctx)
    payment = replace(_signal_htlc(payment, HtlcSignal.FAILED, ctx), failure=failure, fee_msat=0)
    return replace(order, payment=payment, cancel_at_ms=None, giving_up=failure.reason.in_words)


def _failure_of_ours(payment: Payment, reason: FailureReason, ctx: _Context) -> PaymentFailure:
    return PaymentFailure(
        reason=reason,
        failure_class=FailureClass.READ_LATER,
        attempt_count=payment.attempt_count,
        payment_index=0,
        at_ms=ctx.now_ms,
    )


def _gone(order: Order, payment: Payment, reason: str, ctx: _Context) -> Order:
    """Nobody can say how it ended, and no HTLC of it is left: it counts as spent, with the fee that was last seen."""
    fee_msat = payment.fee_msat or payment.fee_limit_msat
    payment = replace(_signal_htlc(payment, HtlcSignal.GONE, ctx), fee_msat=fee_msat)
    return _told_the_end(replace(order, payment=payment, giving_up=reason), ctx)


def _told_the_end(order: Order, ctx: _Context) -> Order:
    """The provider's last word stays if it is final, and is waited for no longer if it is not."""
    is_final = order.state in {OrderState.DELIVERED, OrderState.CANCELED}
    return order if is_final else _signal_order(order, OrderSignal.ABANDON, ctx)


def _resolved(order: Order, event: ev.Resolved, ctx: _Context) -> Order:
    """An operator's word stands in LND's place, where LND has none any more."""
    payment = order.payment
    reason = f"{event.by} resolved the payment as {event.resolution.value.replace('_', ' ')}: {event.why}"
    if order.is_quarantined:
        return _resolved_in_quarantine(order, event, reason, ctx)
    if payment is None or not order.is_money_out:
        return order
    if event.resolution is not ev.Resolution.SETTLED:
        payment = replace(payment, failure=_failure_of_ours(payment, FailureReason.BY_OPERATOR, ctx))
    if event.resolution is ev.Resolution.WRITTEN_OFF:
        return _gone(order, payment, reason, ctx)
    if event.resolution is ev.Resolution.FAILED:
        payment = replace(_signal_htlc(payment, HtlcSignal.FAILED, ctx), fee_msat=0)
        order = _told_the_end(replace(order, payment=payment, giving_up=reason), ctx)
        is_free = order.state is OrderState.DELIVERED
        return _close(order, End.FULFILLED_FREE if is_free else _end_without_money(order), reason, ctx)
    if event.preimage is None or not preimage_fits(event.preimage, payment.payment_hash):
        ctx.notes.append(f"{event.by} gave a preimage that does not fit the payment hash; not believed")
        return order
    payment = _signal_htlc(payment, HtlcSignal.SETTLED, ctx)
    fee_msat = payment.fee_msat or payment.fee_limit_msat
    payment = replace(payment, preimage=event.preimage, fee_msat=fee_msat, reached_payee=True, dispatch_at_ms=None)
    ctx.notes.append(reason)
    return replace(order, payment=payment, cancel_at_ms=None)


def misfit(order: Order, event: ev.Resolved) -> str:
    """Why an operator's word cannot end an order in quarantine: one sentence. Empty: it can."""
    payment = order.payment
    if payment is None:
        is_fit = event.resolution is ev.Resolution.FAILED
        return "" if is_fit else "It has no payment, so nothing can have been spent."
    if event.resolution is ev.Resolution.SETTLED:
        is_fit = event.preimage is not None and preimage_fits(event.preimage, payment.payment_hash)
        return "" if is_fit else "The preimage does not fit the payment hash of the order."
    if payment.preimage is not None and preimage_fits(payment.preimage, payment.payment_hash):
        return "Its stored preimage proves that it is spent."
    return ""


def _resolved_in_quarantine(order: Order, event: ev.Resolved, reason: str, ctx: _Context) -> Order:
    """Ends it, whatever its two halves say: they may contradict each other, so no table is asked."""
    if why_not := misfit(order, event):
        ctx.notes.append(f"{event.by} resolved an order in quarantine, not believed: {why_not}")
        return order
    ctx.notes.append(reason)
    state = OrderState.ABANDONED
    is_settled = event.resolution is ev.Resolution.SETTLED
    if order.is_delivered or (is_settled and order.spec.is_delivered_by_settlement(order)):
        state = OrderState.DELIVERED
    elif order.state is OrderState.CANCELED and event.resolution is not ev.Resolution.SETTLED:
        state = OrderState.CANCELED
    payment = order.payment and _payment_resolved_in_quarantine(order.payment, event, ctx)
    ended = replace(order, state=state, state_since_ms=ctx.now_ms, payment=payment, giving_up=reason)
    if state is OrderState.DELIVERED:
        end = End.FULFILLED_FREE if event.resolution is ev.Resolution.FAILED else End.FULFILLED
    elif event.resolution is ev.Resolution.FAILED:
        end = _end_without_money(ended)
    else:
        end = End.CHARGED_UNFULFILLED if is_settled else End.OUTCOME_UNKNOWN
    return _close(ended, end, reason, ctx)


def _payment_resolved_in_quarantine(payment: Payment, event: ev.Resolved, ctx: _Context) -> Payment:
    """A payment that was never sent stays so, if the operator says that the money is back."""
    payment = replace(payment, dispatch_at_ms=None, preimage=None)
    is_failed = event.resolution is ev.Resolution.FAILED
    if is_failed and payment.dispatch_count == 0 and payment.htlc is HtlcState.NONE:
        return payment
    htlc = {
        ev.Resolution.FAILED: HtlcState.FAILED,
        ev.Resolution.SETTLED: HtlcState.SETTLED,
        ev.Resolution.WRITTEN_OFF: HtlcState.GONE,
    }[event.resolution]
    payment = replace(payment, htlc=htlc, htlc_since_ms=ctx.now_ms)
    if event.resolution is ev.Resolution.SETTLED:
        payment = replace(payment, preimage=event.preimage, reached_payee=True)
    else:
        payment = replace(payment, failure=_failure_of_ours(payment, FailureReason.BY_OPERATOR, ctx))
    return replace(payment, fee_msat=0 if is_failed else payment.fee_msat or payment.fee_limit_msat)


def _never_arrived(order: Order, payment: Payment, ctx: _Context) -> Order:
    """LND says that the latest dispatch did not arrive (yet). Believed when said twice, ``prove_absent_s`` apart."""
    # A time that lies ahead is of a wall clock that was set back since.
    if payment.absent_since_ms is None or payment.absent_since_ms > ctx.now_ms:
        return replace(order, payment=replace(payment, absent_since_ms=ctx.now_ms))
    if ctx.now_ms - payment.absent_since_ms < ctx.policy.prove_absent_s * 1000:
        return order
    if payment.reached_payee:
        ctx.notes.append("the provider calls the order paid, and lnd knows nothing of such a payment")
    refusal = payment.refusal
    if payment.failure is not None:
        # The dispatch before it is what LND knows: back to its failure, which is the truth about the money.
        payment = replace(payment, htlc=HtlcState.FAILED, htlc_since_ms=ctx.now_ms, absent_since_ms=None)
    else:
        payment = replace(_signal_htlc(payment, HtlcSignal.ABSENT, ctx), absent_since_ms=None)
    order = replace(order, payment=replace(payment, dispatch_at_ms=ctx.now_ms), cancel_at_ms=None)
    if refusal is not None:
        return replace(order, giving_up=f"lnd refused the payment: {refusal}")
    if payment.dispatch_count >= ctx.policy.max_dispatches:
        return replace(order, giving_up=f"{payment.dispatch_count} dispatches did not reach lnd")
    return order


# --- the client's wish, and time ------------------------------------------------------------------------------------


def _cancel_requested(order: Order, event: ev.CancelRequested, ctx: _Context) -> Order:
    if order.cancel_wanted_at_ms is not None or order.is_delivered:
        return order
    if order.htlc is HtlcState.SETTLED or not may_be_canceled(order):
        return order
    order = replace(order, cancel_wanted_at_ms=ctx.now_ms)
    if order.state is OrderState.CANCELED or order.provider_order_id is None or not order.spec.may_be_canceled:
        return order
    payment = order.payment
    since_ms = (payment.money_out_since_ms if payment else None) or order.state_since_ms
    return replace(order, cancel_at_ms=max(ctx.now_ms, since_ms + ctx.policy.cancel_after_s * 1000))


def may_be_canceled(order: Order) -> bool:
    """Whether a cancel can change anything: at the provider, or because nothing was handed to lnd yet."""
    return order.spec.may_be_canceled or not order.is_money_out


def _cancel_answered(order: Order, event: ev.CancelAnswered, ctx: _Context) -> Order:
    order = replace(order, cancel_at_ms=None)
    if order.state in {OrderState.CANCELED, OrderState.DELIVERED}:
        return order
    if event.accepted:
        return _signal_order(replace(order, provider_text="canceled at your request"), OrderSignal.OVER, ctx)
    order = replace(order, provider_text=event.text)
    if not order.is_money_out:
        # Nothing is left that a cancel could bring back; a code may still come.
        return order
    # Further and further apart: a provider that refuses for days must not fill the disk with its answers.
    waited_ms = ctx.now_ms - (order.cancel_wanted_at_ms or ctx.now_ms)
    wait_ms = max(ctx.policy.cancel_retry_s * 1000, waited_ms // CANCEL_RETRY_FRACTION)
    return replace(order, cancel_at_ms=ctx.now_ms + wait_ms)


def _time_passed(order: Order, event: ev.TimePassed, ctx: _Context) -> Order:
    return order


_HANDLERS: dict[type[ev.Event], Callable[[Order, Any, _Context], Order]] = {
    ev.OrderPlaced: _order_placed,
    ev.PlacingFailed: _placing_failed,
    ev.InvoiceDecoded: _invoice_decoded,
    ev.InvoiceUndecodable: _invoice_undecodable,
    ev.DispatchIntended: _dispatch_intended,
    ev.PaymentReported: _payment_reported,
    ev.SendRefused: _send_refused,
    ev.TrackingLost: _tracking_lost,
    ev.PaymentNotFound: _payment_not_found,
    ev.HtlcLookedFor: _htlc_looked_for,
    ev.Resolved: _resolved,
    ev.ProviderReplied: _provider_replied,
    ev.ProviderConfused: _provider_confused,
    ev.ProviderFailed: _provider_failed,
    ev.CancelRequested: _cancel_requested,
    ev.CancelAnswered: _cancel_answered,
    ev.DaemonRestarted: _daemon_restarted,
    ev.TimePassed: _time_passed,
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
    if order.payment is None or order.payment.money_out_since_ms is None:
        return None
    return order.payment.money_out_since_ms + policy.promise_s * 1000


def _give_up_in_time(order: Order, ctx: _Context) -> Order:
    if order.giving_up is not None or ctx.now_ms < order.pay_by_ms or order.is_money_out or order.is_quarantined:
        return order
    if order.state in {OrderState.REQUESTED, OrderState.AWAITING_PAYMENT} and order.htlc is not HtlcState.SETTLED:
        return replace(order, giving_up="it was not paid in time")
    return order


def _deliver_by_settlement(order: Order, ctx: _Context) -> Order:
    """Some kinds are fulfilled as soon as they are paid for: no word of the provider's says so."""
    if order.htlc is not HtlcState.SETTLED or order.state not in _TO_BE_DELIVERED:
        return order
    return _signal_order(order, OrderSignal.FULFILLED, ctx) if order.spec.is_delivered_by_settlement(order) else order


_TO_BE_DELIVERED = frozenset({OrderState.AWAITING_PAYMENT, OrderState.PAID, OrderState.NUMBER_ASSIGNED})


def _close_if_over(order: Order, ctx: _Context) -> Order:
    """Closes an order whose pair is final, or whose deadline has passed. Never while money may be out."""
    if order.is_closed or order.is_money_out or not ctx.may_close:
        return order
    if order.htlc is HtlcState.SETTLED:
        return _close_settled(order, ctx)
    if order.htlc is HtlcState.GONE:
        is_delivered = order.state is OrderState.DELIVERED
        return _close(order, End.FULFILLED if is_delivered else End.OUTCOME_UNKNOWN, order.giving_up or "", ctx)
    if order.state is OrderState.DELIVERED:
        ctx.notes.append("it was fulfilled although nothing was charged")
        return _close(order, End.FULFILLED_FREE, "it was fulfilled although nothing was charged", ctx)
    if order.state is OrderState.CANCELED:
        return _close(order, _end_without_money(order), order.provider_text or "the provider canceled it", ctx)
    if order.state in {OrderState.REQUESTED, OrderState.AWAITING_PAYMENT}:
        return _close_unpaid(order, ctx)
    return _close_after_promise(order, ctx)


def _close_settled(order: Order, ctx: _Context) -> Order:
    if order.state is OrderState.DELIVERED:
        is_followed = order.spec.is_followed(order, ctx.policy, ctx.now_ms)
        may_close = not is_followed and (ctx.may_end_late or not order.spec.outlives_delivery)
        return _close(order, End.FULFILLED, "", ctx) if may_close else order
    assert order.payment is not None
    if not ctx.may_end_late or ctx.now_ms < order.payment.htlc_since_ms + ctx.policy.settled_grace_s * 1000:
        return order
    reason = f"{order.spec.words.thing} did not come in the time that was left for it after the HTLC had settled"
    return _abandon(order, End.CHARGED_UNFULFILLED, reason, ctx)


def _end_without_money(order: Order) -> End:
    payment = order.payment
    if payment is None or payment.dispatch_count == 0:
        return End.CANCELED_UNPAID
    if payment.reached_payee and payment.htlc is HtlcState.FAILED:
        return End.REFUNDED
    return End.CANCELED_UNPAID if order.cancel_wanted_at_ms is not None else End.PAYMENT_FAILED


def _close_unpaid(order: Order, ctx: _Context) -> Order:
    if order.cancel_wanted_at_ms is not None:
        return _abandon(order, _end_without_money(order), "canceled at your request before it was paid", ctx)
    if order.giving_up is None:
        return order
    if order.payment is None or order.payment.dispatch_count == 0:
        return _abandon(order, End.PAYMENT_FAILED, order.giving_up, ctx)
    is_late = ctx.may_end_late and ctx.now_ms >= order.pay_by_ms + ctx.policy.close_unpaid_after_s * 1000
    if is_late or _is_unpaid_for_sure(order.payment):
        return _abandon(order, _end_without_money(order), order.giving_up, ctx)
    return order


def _is_unpaid_for_sure(payment: Payment) -> bool:
    if payment.failure is None or payment.failure.failure_class in {FailureClass.ROUTING, FailureClass.NO_ATTEMPT}:
        return payment.unpaid_since_ms is not None
    return payment.unpaid_again_at_ms is not None


def _close_after_promise(order: Order, ctx: _Context) -> Order:
    until_ms = patience_until_ms(order, ctx.policy) or order.created_at_ms + ctx.policy.promise_s * 1000
    if order.payment is not None and order.htlc is HtlcState.FAILED:
        # Money that comes back when the promise ends, as refunds do: the provider still has to say why.
        until_ms = max(until_ms, order.payment.htlc_since_ms + ctx.policy.close_unpaid_after_s * 1000)
    if not ctx.may_end_late or ctx.now_ms < until_ms:
        return order
    return _abandon(order, _end_without_money(order), "the provider never said what became of it", ctx)


def _abandon(order: Order, end: End, reason: str, ctx: _Context) -> Order:
    if not ctx.may_close:
        return order
    return _close(_signal_order(order, OrderSignal.ABANDON, ctx), end, reason, ctx)


def _close(order: Order, end: End, reason: str, ctx: _Context) -> Order:
    return replace(order, closed_at_ms=ctx.now_ms, end=end, reason=reason, cancel_at_ms=None)
