"""The half of an order that a hold invoice pays: vetting it, sending the payment, and what LND says of it.

- *The payer's law*: once dispatched, only the payee or the chain resolves an HTLC. No time-out, refusal, lost stream
  or lost client ever makes it FAILED.
- *A payment that reached the payee, or that the provider called paid, is never dispatched again*, whatever LND's
  reason says.
"""

from __future__ import annotations

from dataclasses import replace

from holdpay.core import events as ev
from holdpay.core.charge import ChargeState
from holdpay.core.diagnosis import Cause, Diagnosis, diagnose, without_look
from holdpay.core.ladder import GiveUp, first_fee_limit_msat, retry_decision
from holdpay.core.lightning import Attempt, AttemptStatus, FailureReason, PaymentStatus, PaymentUpdate, preimage_fits
from holdpay.core.model import Order, Payment, PaymentFailure
from holdpay.core.policy import Policy, classify, latest_expiry_height, route_query
from holdpay.core.states import (
    MONEY_MAY_BE_OUT,
    End,
    FailureClass,
    HoldLevel,
    HtlcSignal,
    HtlcState,
    OrderSignal,
    OrderState,
)
from holdpay.core.step import Context, abandon, close, signal_htlc, signal_order
from holdpay.core.vetting import terms_of, trust_of, vet
from holdpay.errors import InvariantViolation

CLOCKS_DIFFER_MS = 60_000
"""Two machines that keep time at all are closer than this; without a time server it is off by seconds a day."""


def note_unpaid(order: Order, asked_at_ms: int, ctx: Context) -> Order:
    """A reply, asked after the failure, that says unpaid and no error: it licenses the next rung (``may_dispatch``)."""
    payment = order.payment
    assert payment is not None
    is_looked_up = order.restored_at_ms is not None and payment.gone_since_ms is not None
    if not (payment.htlc in {HtlcState.NONE, HtlcState.FAILED} or is_looked_up) or payment.dispatch_count == 0:
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


def invoice_decoded(order: Order, event: ev.InvoiceDecoded, ctx: Context) -> Order:
    if order.state is not OrderState.AWAITING_PAYMENT or order.payment is not None:
        return order
    payreq, invoice = order.payreq, event.invoice
    assert payreq is not None
    # One from a copy is looked at as it was when it came: it may have been paid since, and is not paid now.
    at_ms = ctx.now_ms + event.wall_ahead_ms if order.restored_at_ms is None else order.state_since_ms
    report = vet(terms_of(order), event, ctx.policy, at_ms)
    ctx.notes.extend(report.warnings)
    if not report.is_fine:
        reason = "the hold invoice was refused: " + "; ".join(report.reasons)
        return abandon(order, End.INVOICE_REJECTED, reason, ctx)
    ctx.trust = trust_of(event, ctx.policy)
    # An invoice may be far cheaper than what was allowed for it; the daemon's bound is about what is really paid.
    max_fee_sat = min(order.max_fee_sat, ctx.policy.fee_bound_sat(-(-invoice.amount_msat // 1000)))
    latest_ms = invoice.expires_at_ms - event.wall_ahead_ms - ctx.policy.min_expiry_left_s * 1000
    order = replace(order, max_fee_sat=max_fee_sat, pay_by_ms=min(order.pay_by_ms, latest_ms))
    payment = Payment(
        payment_hash=invoice.payment_hash,
        payreq=payreq,
        payee=invoice.payee,
        amount_msat=invoice.amount_msat,
        expires_at_ms=invoice.expires_at_ms,
        final_cltv_delta=invoice.final_cltv_delta,
        node_pubkey=event.node.pubkey,
        node_network=event.node.network,
        htlc_since_ms=ctx.now_ms,
        fee_limit_msat=first_fee_limit_msat(order, ctx.policy),
        dispatch_at_ms=ctx.now_ms,
    )
    order = replace(order, payment=payment)
    return order if order.restored_at_ms is None else after_copy(order, ctx)


def invoice_undecodable(order: Order, event: ev.InvoiceUndecodable, ctx: Context) -> Order:
    if order.state is not OrderState.AWAITING_PAYMENT or order.payment is not None:
        return order
    reason = f"the hold invoice was refused: lnd cannot read it ({event.text})"
    return abandon(order, End.INVOICE_REJECTED, reason, ctx)


# --- LND's words ----------------------------------------------------------------------------------------------------


def may_dispatch(order: Order, policy: Policy, now_ms: int) -> bool:
    """Whether SendPaymentV2 may be called for this order now."""
    payment = order.payment
    if payment is None or not is_dispatch_planned(order) or not is_licensed(payment):
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


def is_licensed(payment: Payment) -> bool:
    """A second dispatch needs the provider's word, asked after the failure, that nothing was paid."""
    if payment.dispatch_count == 0 and payment.failure is None:
        return True
    if payment.failure is not None and payment.failure.failure_class is FailureClass.READ_LATER:
        return payment.unpaid_again_at_ms is not None
    return payment.unpaid_since_ms is not None


def dispatch_intended(order: Order, event: ev.DispatchIntended, ctx: Context) -> Order:
    """The intent, if it is on disk after this: then, and only then, SendPaymentV2 is called, once."""
    payment = order.payment
    if payment is None or not is_dispatch_planned(order) or not is_licensed(payment):
        raise InvariantViolation(f"Order {order.id} was about to be paid without a license.")
    if not _is_time_to_dispatch(order, payment, ctx.now_ms):
        # The time ran out between the look and the commit, or the wall clock was set.
        return order
    if (event.node.pubkey, event.node.network) != (payment.node_pubkey, payment.node_network):
        raise InvariantViolation(f"Order {order.id} was about to be paid from another node.")
    payment = signal_htlc(payment, HtlcSignal.SEND, ctx)
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
        hold_level=HoldLevel.OK,
        hold_why="",
        diagnosis=None,
    )
    return replace(order, payment=payment)


def payment_reported(order: Order, event: ev.PaymentReported, ctx: Context) -> Order:
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
    if not payment.is_known_to_lnd or payment.absent_since_ms is not None:
        payment = replace(payment, is_known_to_lnd=True, absent_since_ms=None)
    if payment.gone_since_ms is None:
        return payment
    return replace(payment, gone_since_ms=None, first_look_height=None, uncarried_since_ms=None)


def _is_about_an_earlier_dispatch(payment: Payment, update: PaymentUpdate) -> bool:
    return (
        payment.htlc in {HtlcState.DISPATCHING, HtlcState.UNKNOWN}
        and update.status is PaymentStatus.FAILED
        and payment.failure is not None
        and _is_same_try(payment.failure, update)
    )


def _is_same_try(failure: PaymentFailure, update: PaymentUpdate) -> bool:
    if failure.payment_index != update.payment_index:
        return False
    return failure.created_at_ms == update.created_at_ms or None in {failure.created_at_ms, update.created_at_ms}


def _in_flight(order: Order, payment: Payment, update: PaymentUpdate, ctx: Context) -> Order:
    payment = signal_htlc(payment, HtlcSignal.IN_FLIGHT, ctx)
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


def _succeeded(order: Order, payment: Payment, update: PaymentUpdate, ctx: Context) -> Order:
    if update.preimage is None or not preimage_fits(update.preimage, payment.payment_hash):
        ctx.notes.append("lnd says succeeded, but its preimage does not fit the payment hash; not believed")
        return order
    payment = signal_htlc(payment, HtlcSignal.SETTLED, ctx)
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


def _failed(order: Order, payment: Payment, update: PaymentUpdate, live: bool, ctx: Context) -> Order:
    if payment.htlc in {HtlcState.FAILED, HtlcState.SETTLED}:
        return replace(order, payment=signal_htlc(payment, HtlcSignal.FAILED, ctx))
    failure = PaymentFailure(
        reason=update.failure_reason,
        failure_class=classify(update, live),
        attempt_count=len(update.attempts),
        payment_index=update.payment_index,
        at_ms=ctx.now_ms,
        created_at_ms=update.created_at_ms,
    )
    failed_last, earlier = _failed_last(update), payment.failure
    if failed_last is None and earlier is not None:
        # Nothing was tried this time, since LND avoids what failed then.
        failure = replace(
            failure,
            hop_place=earlier.hop_place,
            hop_pubkey=earlier.hop_pubkey,
            hop_channel=earlier.hop_channel,
            hop_code=earlier.hop_code,
        )
    if failed_last is not None:
        failure = replace(
            failure,
            hop_place=failed_last.failure_source_index,
            hop_pubkey=failed_last.failed_hop,
            hop_channel=failed_last.failed_channel,
            hop_code=failed_last.failure_code,
        )
    payment = signal_htlc(payment, HtlcSignal.FAILED, ctx)
    payment = replace(
        payment,
        failure=failure,
        diagnosis=None,
        attempt_count=max(payment.attempt_count, len(update.attempts)),
        fee_msat=0,
        unpaid_since_ms=None,
        unpaid_again_at_ms=None,
    )
    if failure.failure_class in {FailureClass.PAYEE_REFUSED, FailureClass.ON_CHAIN}:
        payment = replace(payment, reached_payee=True)
    return _plan_retry(replace(order, payment=payment, cancel_at_ms=None), ctx)


def _failed_last(update: PaymentUpdate) -> Attempt | None:
    """Of those that tell where they went: an earlier release's journal has attempts that do not."""
    failed = [a for a in update.attempts if a.status is AttemptStatus.FAILED and a.first_hop is not None]
    return max(failed, key=lambda attempt: attempt.attempt_id, default=None)


def _plan_retry(order: Order, ctx: Context) -> Order:
    payment = order.payment
    assert payment is not None
    if payment.reached_payee:
        return replace(order, giving_up="the payment had reached the payee, and came back")
    retry = retry_decision(order, payment, ctx.policy, ctx.now_ms)
    if isinstance(retry, GiveUp):
        return replace(order, giving_up=retry.reason)
    return replace(order, payment=replace(payment, dispatch_at_ms=retry.at_ms, fee_limit_msat=retry.fee_limit_msat))


def send_refused(order: Order, event: ev.SendRefused, ctx: Context) -> Order:
    payment = order.payment
    if payment is None or payment.htlc is not HtlcState.DISPATCHING:
        return order
    was_there_before = payment.was_there_before or (event.has_hash and payment.dispatch_count == 1)
    return replace(order, payment=replace(payment, refusal=event.text, was_there_before=was_there_before))


def tracking_lost(order: Order, event: ev.TrackingLost, ctx: Context) -> Order:
    """LND cannot be asked, or its stream broke."""
    return _lost(order, ctx)


def _lost(order: Order, ctx: Context) -> Order:
    if order.payment is None:
        return order
    # What the channels showed counts only beside LND's own word.
    payment = replace(order.payment, uncarried_since_ms=None)
    return replace(order, payment=signal_htlc(payment, HtlcSignal.LOST, ctx))


def after_restart(order: Order, ctx: Context) -> Order:
    """What was being sent when the process ended may or may not have arrived."""
    order = _lost(order, ctx)
    if order.payment is None:
        return order
    # Two words some seconds apart prove something only within one process: the wall clock may have been set since.
    payment = replace(order.payment, absent_since_ms=None)
    if payment.unpaid_again_at_ms is None:
        payment = replace(payment, unpaid_since_ms=None)
    return replace(order, payment=payment)


def after_copy(order: Order, ctx: Context) -> Order:
    """Of an order of an old copy: a payment that was still to be sent may have been sent since, and ended, and even be
    deleted from LND's records. So it is taken for sent, and only looked up: nothing is dispatched any more."""
    payment = order.payment
    if payment is None or order.is_quarantined:
        return order
    if _is_dispatch_planned(order, payment):
        payment = signal_htlc(signal_htlc(payment, HtlcSignal.SEND, ctx), HtlcSignal.LOST, ctx)
        payment = replace(payment, dispatch_count=payment.dispatch_count + 1, money_out_since_ms=ctx.now_ms)
    if payment.htlc in MONEY_MAY_BE_OUT:
        # A NOT_FOUND may mean a deleted record; how it ended the provider knows, or nobody.
        payment = replace(payment, dispatch_at_ms=None, is_known_to_lnd=True, unpaid_since_ms=None)
    is_unpaid = order.state is OrderState.AWAITING_PAYMENT and payment.htlc is not HtlcState.SETTLED
    giving_up = order.giving_up or (RESTORED if is_unpaid else None)
    return replace(order, payment=replace(payment, unpaid_again_at_ms=None), giving_up=giving_up)


RESTORED = "the database was restored from a copy, and what was done after the copy is not recorded"


def payment_not_found(order: Order, event: ev.PaymentNotFound, ctx: Context) -> Order:
    payment = order.payment
    if payment is None or payment.htlc not in MONEY_MAY_BE_OUT:
        return order
    if not payment.is_known_to_lnd:
        return _never_arrived(order, payment, ctx)
    if payment.gone_since_ms is not None and order.restored_at_ms is not None and _is_called_unpaid(payment):
        # Neither of the two has it, and what is in flight LND does not let anybody delete: it was not spent.
        since_ms, payment = payment.gone_since_ms, replace(payment, gone_since_ms=None, first_look_height=None)
        return _never_arrived(order, replace(payment, absent_since_ms=since_ms), ctx)
    if payment.gone_since_ms is not None:
        return order
    ctx.notes.append("lnd does not know a payment that it has spoken of: its record was deleted; asking the provider")
    return replace(order, payment=replace(payment, gone_since_ms=ctx.now_ms))


def _is_called_unpaid(payment: Payment) -> bool:
    return payment.unpaid_since_ms is not None and not payment.reached_payee


def htlc_looked_for(order: Order, event: ev.HtlcLookedFor, ctx: Context) -> Order:
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


def level_changed(order: Order, event: ev.HoldLevelChanged, ctx: Context) -> Order:
    """Of money that is out; what is back, or spent, has no level."""
    if order.payment is None or not order.is_money_out:
        return order
    if event.level is order.payment.hold_level:
        return order
    return replace(order, payment=replace(order.payment, hold_level=event.level, hold_why=event.why))


def _never_signed(order: Order, payment: Payment, ctx: Context) -> Order:
    """LND calls it in flight for ever: it was killed before it signed the HTLC into a channel (lnd issue 9340)."""
    failure = _failure_of_ours(payment, FailureReason.NEVER_SENT, ctx)
    payment = replace(signal_htlc(payment, HtlcSignal.FAILED, ctx), failure=failure, fee_msat=0)
    return replace(order, payment=payment, cancel_at_ms=None, giving_up=failure.reason.in_words)


def _failure_of_ours(payment: Payment, reason: FailureReason, ctx: Context) -> PaymentFailure:
    return PaymentFailure(
        reason=reason,
        failure_class=FailureClass.READ_LATER,
        attempt_count=payment.attempt_count,
        payment_index=0,
        at_ms=ctx.now_ms,
    )


def _gone(order: Order, payment: Payment, reason: str, ctx: Context) -> Order:
    """Nobody can say how it ended, and no HTLC of it is left: it counts as spent, with the fee that was last seen."""
    fee_msat = payment.fee_msat or payment.fee_limit_msat
    payment = replace(signal_htlc(payment, HtlcSignal.GONE, ctx), fee_msat=fee_msat)
    return _told_the_end(replace(order, payment=payment, giving_up=reason), ctx)


def _told_the_end(order: Order, ctx: Context) -> Order:
    """The provider's last word stays if it is final, and is waited for no longer if it is not."""
    if order.state in {OrderState.DELIVERED, OrderState.CANCELED}:
        return order
    assert order.payment is not None
    has_it = order.payment.htlc is HtlcState.GONE and order.spec.is_delivered_by_settlement(order)
    is_followed = has_it and order.spec.outlives_delivery
    return signal_order(order, OrderSignal.FULFILLED if is_followed else OrderSignal.ABANDON, ctx)


def resolved(order: Order, event: ev.Resolved, ctx: Context) -> Order:
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
        payment = replace(signal_htlc(payment, HtlcSignal.FAILED, ctx), fee_msat=0)
        order = _told_the_end(replace(order, payment=payment, giving_up=reason), ctx)
        is_free = order.state is OrderState.DELIVERED
        return close(order, End.FULFILLED_FREE if is_free else end_without_money(order), reason, ctx)
    if event.preimage is None or not preimage_fits(event.preimage, payment.payment_hash):
        ctx.notes.append(f"{event.by} gave a preimage that does not fit the payment hash; not believed")
        return order
    payment = signal_htlc(payment, HtlcSignal.SETTLED, ctx)
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


def _resolved_in_quarantine(order: Order, event: ev.Resolved, reason: str, ctx: Context) -> Order:
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
        end = end_without_money(ended)
    else:
        end = End.CHARGED_UNFULFILLED if is_settled else End.OUTCOME_UNKNOWN
    return close(ended, end, reason, ctx)


def _payment_resolved_in_quarantine(payment: Payment, event: ev.Resolved, ctx: Context) -> Payment:
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


def _never_arrived(order: Order, payment: Payment, ctx: Context) -> Order:
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
        payment = replace(signal_htlc(payment, HtlcSignal.ABSENT, ctx), absent_since_ms=None)
    order = replace(order, payment=replace(payment, dispatch_at_ms=ctx.now_ms), cancel_at_ms=None)
    if refusal is not None:
        return _given_up_for_lnd(order, f"lnd refused the payment: {refusal}")
    if payment.dispatch_count >= ctx.policy.max_dispatches:
        return _given_up_for_lnd(order, f"{payment.dispatch_count} dispatches did not reach lnd")
    return order


def _given_up_for_lnd(order: Order, reason: str) -> Order:
    assert order.payment is not None
    payment = replace(order.payment, diagnosis=Diagnosis(cause=Cause.LND, text=reason))
    return replace(order, giving_up=reason, payment=payment)


# --- why it failed --------------------------------------------------------------------------------------------------

DIAGNOSED_WITHIN_S = 15
"""A failed order waits as long at most before it is closed, for LND to say what was in the way."""


def wants_diagnosis(order: Order) -> bool:
    """Whether LND is to be asked what was in the way of the latest dispatch: no other one follows at once."""
    payment = order.payment
    if payment is None or payment.failure is None or payment.diagnosis is not None or payment.reached_payee:
        return False
    is_wanted = order.state is OrderState.AWAITING_PAYMENT and payment.htlc is HtlcState.FAILED
    if not is_wanted or order.is_closed or order.is_quarantined or order.cancel_wanted_at_ms is not None:
        return False
    if payment.failure.reason in {FailureReason.NEVER_SENT, FailureReason.BY_OPERATOR} or order.is_recovered:
        # What failed was no matter of routes; or its limits are not known any more.
        return False
    return order.giving_up is not None or (payment.dispatch_at_ms or 0) > payment.failure.at_ms


def awaits_diagnosis(order: Order, now_ms: int) -> bool:
    """Whether the end of an order that is given up waits for that."""
    if not wants_diagnosis(order):
        return False
    assert order.payment is not None
    assert order.payment.failure is not None
    # A failure that lies ahead is of a wall clock that was set back since.
    return 0 <= now_ms - order.payment.failure.at_ms < DIAGNOSED_WITHIN_S * 1000


def route_looked_for(order: Order, event: ev.RouteLookedFor, ctx: Context) -> Order:
    if not wants_diagnosis(order) or order.payment is None or event.dispatch != order.payment.dispatch_count:
        return order
    payment = order.payment
    assert payment.failure is not None
    query, failure = route_query(order, payment, ctx.policy), payment.failure
    found = diagnose(failure.reason, failure.hop, query, event.look, is_by_full_channel=event.is_by_full_channel)
    return replace(order, payment=replace(payment, diagnosis=found))


def diagnosed(order: Order) -> Order:
    """As far as the failure itself tells, where nothing more was learnt."""
    payment = order.payment
    if payment is None or payment.failure is None or payment.diagnosis is not None or payment.reached_payee:
        return order
    found = without_look(payment.failure.reason, payment.failure.hop)
    return replace(order, payment=replace(payment, diagnosis=found))


def why_given_up(order: Order) -> str:
    """With what was in the way. Empty: it is not given up."""
    reason = order.giving_up or ""
    if not reason or order.payment is None or order.payment.diagnosis is None or order.payment.reached_payee:
        return reason
    text = order.payment.diagnosis.text
    return reason if text == reason else f"{reason}; {text}"


# --- what it means for the end --------------------------------------------------------------------------------------


def was_never_sent(order: Order) -> bool:
    """Whether no payment of it was ever begun, and no charge."""
    if order.charge is not None and order.charge.state is not ChargeState.REFUSED:
        return False
    return order.payment is None or (order.payment.dispatch_count == 0 and order.htlc is HtlcState.NONE)


def end_without_money(order: Order) -> End:
    """How an order ends of which nothing was spent."""
    payment = order.payment
    if payment is None or payment.dispatch_count == 0:
        return End.CANCELED_UNPAID
    if payment.reached_payee and payment.htlc is HtlcState.FAILED:
        return End.REFUNDED
    return End.CANCELED_UNPAID if order.cancel_wanted_at_ms is not None else End.PAYMENT_FAILED


def is_unpaid_for_sure(payment: Payment) -> bool:
    """Whether the provider has confirmed a failure as often as its class needs."""
    if payment.failure is None or payment.failure.failure_class in {FailureClass.ROUTING, FailureClass.NO_ATTEMPT}:
        return payment.unpaid_since_ms is not None
    return payment.unpaid_again_at_ms is not None
