"""What must be running for an order, given what is on disk. Boot, steady state and recovery all ask here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from holdpay.core.charge import ChargeState
from holdpay.core.hold import is_dispatch_planned, may_dispatch, wants_diagnosis
from holdpay.core.lightning import DispatchSpec
from holdpay.core.model import Order, Payment
from holdpay.core.policy import Policy, dispatch_spec, latest_expiry_height
from holdpay.core.states import HtlcState, OrderState


class Duty(StrEnum):
    """One task each, at most, per order."""

    PAY = "pay"
    """Create the order at the provider; have LND decode its hold invoice, for vetting; dispatch when it is licensed and
    due; follow the HTLC while money may be out."""
    PLACE = "place"
    """Create an order that is paid from the account, and hear what became of that."""
    POLL = "poll"
    """Ask the provider, again and again: see ``core.asking``."""
    BALANCE = "balance"
    """Ask for the account's balance: a reply was lost, and it may prove that nothing was spent."""
    CANCEL = "cancel"
    """Ask the provider to cancel, as soon as it may be."""
    DIAGNOSE = "diagnose"
    """Ask LND what was in the way of a payment that failed."""
    NEXT = "next"
    """Make the request's next order."""


def duties(order: Order) -> frozenset[Duty]:
    """The duties of an order now. They wait for their times themselves, so this does not depend on the clock."""
    if order.is_closed or order.is_waiting:
        return frozenset({Duty.NEXT} if order.is_going_on else ())
    if order.request.is_prepaid:
        return _prepaid_duties(order)
    if order.is_quarantined and order.payment is None:
        # Nothing was sent, and nothing will be.
        return frozenset()
    if order.payment is None:
        return frozenset({Duty.PAY})
    wanted = set()
    if order.is_money_out or is_dispatch_planned(order):
        wanted.add(Duty.PAY)
    if _may_be_polled(order) and not _is_untouched(order, order.payment):
        wanted.add(Duty.POLL)
    if order.cancel_at_ms is not None:
        wanted.add(Duty.CANCEL)
    if wants_diagnosis(order):
        wanted.add(Duty.DIAGNOSE)
    return frozenset(wanted)


def _prepaid_duties(order: Order) -> frozenset[Duty]:
    state = None if order.charge is None else order.charge.state
    if order.state is OrderState.REQUESTED and state is not ChargeState.UNKNOWN:
        # INTENDED too, also in quarantine: the task that placed it waits for the answer, or it was lost on the way and
        # the next one has to say so. Nothing is placed for it again.
        return frozenset() if order.is_quarantined and state is not ChargeState.INTENDED else frozenset({Duty.PLACE})
    if order.state is OrderState.REQUESTED:
        return frozenset({Duty.BALANCE})
    wanted = {Duty.POLL} if _may_be_polled(order) else set()
    if order.cancel_at_ms is not None:
        wanted.add(Duty.CANCEL)
    return frozenset(wanted)


def _may_be_polled(order: Order) -> bool:
    if order.provider_order_id is None:
        return False
    return order.state is not OrderState.DELIVERED or order.spec.outlives_delivery


def _is_untouched(order: Order, payment: Payment) -> bool:
    """The provider has nothing to tell of an invoice that was never paid."""
    is_unsent = payment.htlc is HtlcState.NONE and payment.dispatch_count == 0
    return order.state is OrderState.AWAITING_PAYMENT and is_unsent


# --- the PAY duty: what to do next --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Create the order at the provider, not before ``at_ms``."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Vet:
    """Have LND decode the hold invoice, and vet it."""

    payreq: str


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Commit the intent, then call SendPaymentV2 once."""


@dataclass(frozen=True, slots=True)
class Track:
    """Ask LND by hash, not before ``at_ms``."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing before ``at_ms``, or before the order changes (None)."""

    at_ms: int | None


def next_payment_action(order: Order, policy: Policy, now_ms: int) -> Place | Vet | Dispatch | Track | Wait:
    """What the PAY duty does next."""
    payment = order.payment
    if payment is None and order.payreq is not None:
        return Vet(order.payreq)
    if payment is None:
        return Place(order.place_at_ms) if order.state is OrderState.REQUESTED else Wait(None)
    if not (order.is_money_out or is_dispatch_planned(order)):
        return Wait(None)
    if order.is_money_out:
        since_ms = payment.absent_since_ms
        # A time that lies ahead is of a wall clock that was set back since: it says nothing.
        if since_ms is None or since_ms > now_ms:
            return Track(now_ms)
        # Asked too early, a second NOT_FOUND proves nothing: the send may still be on its way.
        return Track(max(now_ms, since_ms + policy.prove_absent_s * 1000))
    if may_dispatch(order, policy, now_ms):
        return Dispatch()
    assert payment.dispatch_at_ms is not None
    return Wait(payment.dispatch_at_ms if payment.dispatch_at_ms > now_ms else None)


def spec_of(order: Order, policy: Policy, now_ms: int) -> DispatchSpec:
    """The SendPaymentV2 call of an order whose intent is on disk."""
    assert order.payment is not None
    return dispatch_spec(order.payment, order.pay_by_ms, policy, now_ms)


def wants_look(order: Order, policy: Policy, block_height: int, now_ms: int) -> bool:
    """Whether only the node's channels can say what became of the HTLC: LND's own word would never end the order.

    So it is when LND has lost its record, or calls a payment in flight whose expiry height has passed: killed before it
    signs an HTLC into the channel, LND takes its attempt for one that is out ever after (lnd issue 9340). Where no
    expiry height is known, the first look tells from which height on the longest life of an HTLC counts.
    """
    payment = order.payment
    if payment is None or not order.is_money_out:
        return False
    is_gone = payment.gone_since_ms is not None
    if not is_gone and payment.htlc is not HtlcState.IN_FLIGHT:
        return False
    until_height = latest_expiry_height(payment, policy)
    if until_height is not None:
        return block_height > until_height
    # Without any attempt: LND's own time for attempts is over at ``pay_by_ms``.
    return is_gone or now_ms > order.pay_by_ms + policy.close_unpaid_after_s * 1000


# --- following a payment stream -------------------------------------------------------------------------------------

_HUNG_AFTER_S = 2
"""The provider is ahead of the stream, and the stream says nothing: lnd is asked anew after this time."""
_FIRST_WORD_S = 30
"""lnd's first word comes within milliseconds. Without one in this time it is asked anew."""


def retrack_at_ms(order: Order, opened_at_ms: int, heard_at_ms: int, policy: Policy) -> int:
    """When a silent payment stream is given up for a fresh Track: streams have hung for days (lnd issue 7727)."""
    is_sending = order.htlc is HtlcState.DISPATCHING
    quiet_s = min(policy.retrack_s, _FIRST_WORD_S) if is_sending else policy.retrack_s
    quiet_ms = heard_at_ms + quiet_s * 1000
    is_over = order.state in {OrderState.DELIVERED, OrderState.CANCELED}
    is_ahead = is_over or (is_sending and order.state is not OrderState.AWAITING_PAYMENT)
    if is_ahead and order.state_since_ms >= opened_at_ms:
        return min(quiet_ms, order.state_since_ms + _HUNG_AFTER_S * 1000)
    return quiet_ms
