"""Orders, payments and words of lnd and the provider, ready made: what a test does not name is plausible."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from holdpay.core import events as ev
from holdpay.core.charge import Charge, ChargeState
from holdpay.core.events import PaymentReported, ProviderReplied, ProviderStatus
from holdpay.core.items import Item, ItemKind
from holdpay.core.kinds import CodeSpec, EmailSpec, FundSpec, RentalSpec, SmsSpec
from holdpay.core.lightning import (
    Attempt,
    AttemptStatus,
    FailureReason,
    HtlcLook,
    Invoice,
    NodeIdentity,
    PaymentStatus,
    PaymentUpdate,
)
from holdpay.core.model import Order, Payment, PaymentFailure, Request
from holdpay.core.payees import PayeeCheck
from holdpay.core.policy import Policy, Strictness
from holdpay.core.routes import RouteLook
from holdpay.core.states import FailureClass, HoldLevel, HtlcState, OrderState

NOW_MS = 1_800_000_000_000
S = 1000
"""Milliseconds in a second."""
HOUR = 3600 * S

PREIMAGE = "11" * 32
HASH = hashlib.sha256(bytes.fromhex(PREIMAGE)).hexdigest()
PAYEE = "02" + "cc" * 32
ALICE = NodeIdentity("03" + "aa" * 32, "simnet")
MALLORY = NodeIdentity("03" + "bb" * 32, "simnet")

POLICY = Policy(
    payee_pubkeys=frozenset({PAYEE}),
    payee_check=PayeeCheck.PIN,
    order_id_check=Strictness.WARN,
    network="simnet",
    price_tolerance_percent=2.0,
    max_price_sat=10_000,
    fee_limit_percent=1.0,
    fee_limit_floor_sat=10,
    max_fee_sat=None,
    fee_rungs_percent=(50.0, 100.0),
    max_final_cltv_delta=144,
    route_cltv_delta=432,
    mpp_from_sat=20_000,
    mpp_max_parts=4,
    min_expiry_left_s=60,
    pay_within_s=600,
    close_unpaid_after_s=120,
    retry_delays_s=(0, 60, 120, 180),
    max_dispatches=6,
    retrack_s=300,
    prove_absent_s=30,
    confirm_unpaid_s=10,
    cancel_after_s=120,
    cancel_retry_s=30,
    promise_s=1260,
    settled_grace_s=48 * 3600,
    hold_max_wait_s=1800,
    guard_in_transit_s=180,
    guard_refund_s=120,
    guard_peer_offline_s=600,
    guard_warning_blocks=24,
    guard_critical_blocks=12,
    place_attempts=3,
    place_retry_s=5,
    poll_min_s=1.0,
    poll_max_s=15.0,
    max_attempts=5,
    poll_late_max_s=600.0,
)


RENTAL = RentalSpec(country=16, country_name="England", service="full", service_name="any service", weeks=2)
SMS = SmsSpec(phone="+19871234567", message="See you at eight.")
EMAIL = EmailSpec(address="satoshi@example.com", message="See you at eight.")
FUND = FundSpec(amount_sat=2_000)
SPEC = CodeSpec(country=187, country_name="United States", service="oi", service_name="OpenAI")


def request(**changes: Any) -> Request:
    """A client's request for an activation code."""
    plain = Request(id="abcdefghjk", key="key-1", fingerprint="f" * 64, spec=SPEC, created_at_ms=NOW_MS)
    return replace(plain, **changes)


_OF_REQUEST = frozenset({"client", "key", "fingerprint", "spec", "is_prepaid"})
_DELIVERED = {
    "earlier_numbers": ItemKind.NUMBER,
    "number": ItemKind.NUMBER,
    "code": ItemKind.CODE,
    "later_codes": ItemKind.CODE,
    "messages": ItemKind.MESSAGE,
    "sending": ItemKind.SENDING,
    "unread": ItemKind.UNREAD,
    "unread_maybe": ItemKind.UNREAD_MAYBE,
}


def items(**said: str | tuple[str, ...] | None) -> tuple[Item, ...]:
    """What was delivered, seen at NOW_MS: by the names of ``_DELIVERED``, one text or several of a kind."""
    found = []
    for name, kind in _DELIVERED.items():
        texts = said.get(name) or ()
        found += [
            Item(kind=kind, text=text, seen_at_ms=NOW_MS) for text in ((texts,) if isinstance(texts, str) else texts)
        ]
    return tuple(found)


def changed(plain: Order, **changes: Any) -> Order:
    """``dataclasses.replace``, where the names of ``_DELIVERED`` are items and those of a request go to it; an item
    kind that is named takes the place of what was there of it."""
    said = {name: changes.pop(name) for name in _DELIVERED if name in changes}
    of_request = {name: changes.pop(name) for name in _OF_REQUEST if name in changes}
    if "id" in changes:
        of_request["id"] = changes["id"]
    if "created_at_ms" in changes:
        of_request["created_at_ms"] = changes["created_at_ms"]
    if said:
        kinds = {_DELIVERED[name] for name in said}
        kept = tuple(item for item in plain.items if item.kind not in kinds)
        changes["items"] = items(**said) + kept if ItemKind.NUMBER in kinds else kept + items(**said)
    if of_request:
        changes["request"] = replace(plain.request, **of_request)
    return replace(plain, **changes)


def order(**changes: Any) -> Order:
    """A request as it is recorded."""
    plain = Order(
        id="abcdefghjk",
        request=request(),
        created_at_ms=NOW_MS,
        pay_by_ms=NOW_MS + 600 * S,
        max_price_sat=2_040,
        max_fee_sat=20,
        quote_sat=2_000,
        state_since_ms=NOW_MS,
        place_at_ms=NOW_MS,
    )
    return changed(plain, **changes)


def invoice(**changes: Any) -> Invoice:
    """The provider's hold invoice over 2,000 sat."""
    plain = Invoice(
        payment_hash=HASH,
        payee=PAYEE,
        amount_msat=2_000_000,
        created_at_ms=NOW_MS,
        expiry_s=86_400,
        final_cltv_delta=40,
        has_payment_address=True,
        memo="sms4sats payment",
    )
    return replace(plain, **changes)


def attempt(status: AttemptStatus = AttemptStatus.IN_FLIGHT, **changes: Any) -> Attempt:
    """A two-hop HTLC attempt."""
    plain = Attempt(
        attempt_id=1,
        status=status,
        amount_msat=2_000_000,
        fee_msat=1_002,
        expiry_height=800_163,
        hop_count=2,
        attempted_at_ms=NOW_MS,
    )
    return replace(plain, **changes)


FAILED_ON_THE_WAY = attempt(AttemptStatus.FAILED, failure_code=18, failure_source_index=1)
FAILED_AT_PAYEE = attempt(AttemptStatus.FAILED, failure_code=1, failure_source_index=2)


def update(status: PaymentStatus, *attempts: Attempt, **changes: Any) -> PaymentUpdate:
    """lnd's snapshot of the payment."""
    is_settled = status is PaymentStatus.SUCCEEDED
    plain = PaymentUpdate(
        status=status,
        failure_reason=FailureReason.NO_ROUTE if status is PaymentStatus.FAILED else FailureReason.NONE,
        attempts=attempts,
        fee_msat=1_002 if is_settled else 0,
        preimage=PREIMAGE if is_settled else None,
        payment_index=7,
    )
    return replace(plain, **changes)


def in_flight(*attempts: Attempt, live: bool = True, **changes: Any) -> PaymentReported:
    return PaymentReported(update(PaymentStatus.IN_FLIGHT, *(attempts or (attempt(),)), **changes), live)


def settled(live: bool = True, **changes: Any) -> PaymentReported:
    return PaymentReported(update(PaymentStatus.SUCCEEDED, attempt(AttemptStatus.SUCCEEDED), **changes), live)


def failed(*attempts: Attempt, live: bool = True, **changes: Any) -> PaymentReported:
    return PaymentReported(update(PaymentStatus.FAILED, *attempts, **changes), live)


def refunded(live: bool = True, **changes: Any) -> PaymentReported:
    """The payee canceled the hold invoice."""
    return failed(FAILED_AT_PAYEE, live=live, **{"failure_reason": FailureReason.INCORRECT_PAYMENT_DETAILS, **changes})


def replied(
    asked_at_ms: int = NOW_MS,
    *,
    paid: bool = False,
    number: str | None = None,
    code: str | None = None,
    error: str | None = None,
    unread: str | tuple[str, ...] = (),
    messages: tuple[str, ...] = (),
    send_status: ev.SendStatus | None = None,
    **more: Any,
) -> ProviderReplied:
    said = ProviderStatus(
        is_paid=paid,
        number=number,
        code=code,
        error=error,
        unread=unread if isinstance(unread, str) else None,
        unread_messages=() if isinstance(unread, str) else unread,
        messages=messages,
        send_status=send_status,
        **more,
    )
    return ProviderReplied(asked_at_ms, said)


def look(height: int, *, carried: bool = False, closing: bool = False, synced: bool = True) -> HtlcLook:
    """What the node's channels say of the payment's HTLC."""
    return HtlcLook(block_height=height, is_synced=synced, is_in_channel=carried, is_maybe_closing=closing)


def looked(height: int, *, carried: bool = False, closing: bool = False, synced: bool = True) -> ev.HtlcLookedFor:
    return ev.HtlcLookedFor(look(height, carried=carried, closing=closing, synced=synced))


def failure(failure_class: FailureClass = FailureClass.ROUTING, **changes: Any) -> PaymentFailure:
    plain = PaymentFailure(
        reason=FailureReason.NO_ROUTE,
        failure_class=failure_class,
        attempt_count=1,
        payment_index=7,
        at_ms=NOW_MS,
    )
    return replace(plain, **changes)


def payment(htlc: HtlcState = HtlcState.NONE, **changes: Any) -> Payment:
    """A vetted hold invoice; NONE: not dispatched yet, every other state: dispatched once."""
    plain = Payment(
        payment_hash=HASH,
        payreq="lnsb20u1...",
        payee=PAYEE,
        amount_msat=2_000_000,
        expires_at_ms=NOW_MS + 86_400 * S,
        final_cltv_delta=40,
        node_pubkey=ALICE.pubkey,
        node_network=ALICE.network,
        htlc=htlc,
        htlc_since_ms=NOW_MS,
        fee_limit_msat=10_000,
        dispatch_at_ms=NOW_MS,
    )
    if htlc is not HtlcState.NONE:
        plain = replace(plain, dispatch_count=1, dispatch_at_ms=None, money_out_since_ms=NOW_MS)
    by_state: dict[HtlcState, dict[str, Any]] = {
        HtlcState.IN_FLIGHT: {"is_known_to_lnd": True, "fee_msat": 1_002, "attempt_count": 1, "expiry_height": 800_163},
        HtlcState.SETTLED: {"is_known_to_lnd": True, "fee_msat": 1_002, "preimage": PREIMAGE, "reached_payee": True},
        HtlcState.GONE: {"is_known_to_lnd": True, "fee_msat": 1_002},
        HtlcState.FAILED: {"is_known_to_lnd": True, "failure": failure(), "dispatch_at_ms": NOW_MS},
    }
    return replace(plain, **{**by_state.get(htlc, {}), **changes})


def proven_absent(**changes: Any) -> Payment:
    """Dispatched once, and lnd twice knew nothing of it."""
    return payment(
        HtlcState.NONE, **{"dispatch_count": 1, "money_out_since_ms": NOW_MS, "dispatch_at_ms": NOW_MS, **changes}
    )


_SAID: dict[OrderState, dict[str, Any]] = {
    OrderState.NUMBER_ASSIGNED: {"number": "15551234567"},
    OrderState.DELIVERED: {"number": "15551234567", "code": "012345"},
    OrderState.CANCELED: {"provider_text": "No available number"},
}
_PAID = {OrderState.PAID, OrderState.NUMBER_ASSIGNED, OrderState.DELIVERED}


def pair(state: OrderState, htlc: HtlcState, **changes: Any) -> Order:
    """An open order in this cell of the pair, at NOW_MS. ``changes`` whose names are a payment's go to the payment.

    NONE means never dispatched with AWAITING_PAYMENT, and proven absent with the states that need a dispatch.
    """
    plain = order(state=state, **_SAID.get(state, {}))
    if state is not OrderState.REQUESTED:
        plain = replace(plain, provider_order_id=HASH, payreq="lnsb20u1...")
    needs_dispatch = state in _PAID | {OrderState.CANCELED}
    made = proven_absent() if htlc is HtlcState.NONE and needs_dispatch else payment(htlc)
    if state in _PAID:
        made = replace(made, reached_payee=True)
    of_payment = {name: value for name, value in changes.items() if name in Payment.__slots__}
    of_order = {name: value for name, value in changes.items() if name not in of_payment}
    if state is OrderState.REQUESTED and htlc is HtlcState.NONE:
        return changed(plain, **changes)
    return changed(plain, payment=replace(made, **of_payment), **of_order)


def charge(state: ChargeState = ChargeState.CHARGED, **changes: Any) -> Charge:
    """2,000 sat of the account's 10,000."""
    plain = Charge(state=state, since_ms=NOW_MS, amount_sat=2_000, balance_before_sat=10_000, intended_at_ms=NOW_MS)
    return replace(plain, **changes)


def prepaid(state: OrderState, charged: ChargeState | None = None, **changes: Any) -> Order:
    """An open order that the account pays, at NOW_MS. ``changes`` whose names are a charge's go to the charge."""
    of_charge = {name: changes.pop(name) for name in list(changes) if name in Charge.__slots__ and name != "state"}
    plain = order(state=state, is_prepaid=True, **_SAID.get(state, {}))
    if state is not OrderState.REQUESTED:
        plain = replace(plain, provider_order_id=HASH)
    return changed(plain, charge=None if charged is None else charge(charged, **of_charge), **changes)


def quarantined(order: Order) -> Order:
    """Put aside at NOW_MS."""
    return replace(order, quarantined_at_ms=NOW_MS, quarantine_reason="It broke a law.")


EVENTS: dict[str, ev.Event] = {
    # one of each kind but DispatchIntended, which needs a license, and of each meaning
    "place given": ev.PlaceGiven(),
    "place denied": ev.PlaceDenied("This order alone may lock too much."),
    "order placed": ev.OrderPlaced(HASH, "lnsb20u1..."),
    "placing failed, may retry": ev.PlacingFailed("busy", may_retry=True),
    "placing failed for good": ev.PlacingFailed("no such service", may_retry=False),
    "the account's balance": ev.BalanceSeen(10_000, is_alone=True),
    "invoice decoded": ev.InvoiceDecoded(invoice(), ALICE, seen_before=False),
    "invoice refused": ev.InvoiceDecoded(invoice(amount_msat=9_000_000), ALICE, seen_before=True),
    "invoice undecodable": ev.InvoiceUndecodable("checksum failed"),
    "in flight": in_flight(),
    "in flight, no attempt": ev.PaymentReported(update(PaymentStatus.IN_FLIGHT), live=True),
    "settled": settled(),
    "settled, read later": settled(live=False),
    "settled with a foreign preimage": settled(preimage="22" * 32),
    "settled without a preimage": settled(preimage=None),
    "failed on the way": failed(FAILED_ON_THE_WAY),
    "failed without an attempt": failed(),
    "failed, read later": failed(live=False, failure_reason=FailureReason.TIMEOUT),
    "failed at the payee": refunded(),
    "failed on chain": failed(attempt(AttemptStatus.FAILED, failure_code=21, failure_source_index=1)),
    "send refused": ev.SendRefused("invoice expired"),
    "tracking lost": ev.TrackingLost("Stream removed"),
    "payment not found": ev.PaymentNotFound(),
    "no channel carries the HTLC": looked(900_000),
    "what is in the way": ev.RouteLookedFor(1, RouteLook(is_route_known=True)),
    "a channel carries the HTLC": looked(900_000, carried=True),
    "hold level changed": ev.HoldLevelChanged(HoldLevel.WARNING, "its peer is offline"),
    "resolved as failed": ev.Resolved(ev.Resolution.FAILED, by="ann", why="node sold"),
    "resolved as settled": ev.Resolved(ev.Resolution.SETTLED, by="ann", why="node sold", preimage=PREIMAGE),
    "resolved as settled by a foreign preimage": ev.Resolved(
        ev.Resolution.SETTLED, by="ann", why="node sold", preimage="22" * 32
    ),
    "written off": ev.Resolved(ev.Resolution.WRITTEN_OFF, by="ann", why="node sold"),
    "reply: unpaid": replied(),
    "reply: paid": replied(paid=True),
    "reply: number": replied(paid=True, number="15551234567"),
    "reply: another number": replied(paid=True, number="15557654321"),
    "reply: code": replied(paid=True, number="15551234567", code="012345"),
    "reply: error": replied(paid=True, error="No available number"),
    "reply: error, unpaid": replied(error="No available number"),
    "reply: another code": replied(paid=True, number="15551234567", code="987654"),
    "reply: unread": replied(paid=True, unread='{"paid":true,"code":{}}'),
    "confused": ev.ProviderConfused("not JSON"),
    "confused, unread": ev.ProviderConfused("not JSON", unread="Your code is 48010"),
    "provider failed": ev.ProviderFailed("HTTP 502"),
    "cancel requested": ev.CancelRequested(),
    "cancel accepted": ev.CancelAnswered(accepted=True, text=""),
    "cancel refused": ev.CancelAnswered(accepted=False, text="too early"),
    "cancel answer lost": ev.CancelAnswered(accepted=None, text="timeout"),
    "order quarantined": ev.OrderQuarantined("It broke a law."),
    "daemon restarted": ev.DaemonRestarted(),
    "copy restored": ev.CopyRestored(),
    "time passed": ev.TimePassed(),
    "time passed, and it is held up": ev.TimePassed("no channel has room"),
    "next ordered": ev.NextOrdered(),
    "no next order": ev.NoNextOrder("no country has numbers"),
}
