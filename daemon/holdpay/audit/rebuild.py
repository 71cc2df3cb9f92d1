"""Pure: an order rebuilt from LND's payment and the provider's word, through the machine, as if it had been journaled.

The events are those that must have happened: placed, decoded, sent; then what LND and the provider say now. Nothing
invented decides anything. ``pay_by_ms`` lies right after the send, so that a rebuilt order is never paid again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from holdpay.core.events import (
    DispatchIntended,
    Event,
    InvoiceDecoded,
    OrderPlaced,
    PaymentReported,
    ProviderReplied,
    TimePassed,
)
from holdpay.core.kinds import AnySpec, CodeSpec, RentalSpec, UnknownSpec
from holdpay.core.lightning import AttemptStatus, Invoice, NodeIdentity, PaymentStatus, StoredPayment
from holdpay.core.machine import decide
from holdpay.core.model import RECOVERED, UNKNOWN, Order, Request
from holdpay.core.payees import PayeeCheck
from holdpay.core.policy import Policy, Strictness
from holdpay.core.states import HtlcState
from holdpay.core.step import Step
from holdpay.redact import hash8

NOTE = "recovered from lnd's payments: the request itself, its limits and what was seen before are lost"
NOTE_KIND = "neither its invoice nor the provider's reply shows of which kind the order was: all that comes is kept"

_MEMO = re.compile(r"sms4sats payment (?P<country>[\w ().,'&-]{1,60}) (?P<service>[\w.,-]{1,40})")
_NO_LIMIT = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A payment to the provider's node, with all that can still be learnt of it."""

    payment: StoredPayment
    invoice: Invoice
    word: ProviderReplied | None
    """None: the provider did not answer, or knows no such order."""
    raw: str | None = None
    """The provider's reply as it came."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One journal row to be."""

    event: Event
    step: Step
    at_ms: int
    raw: str | None = None


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """``request`` is what is recorded first, ``entries`` what follows."""

    request: Order
    entries: tuple[Entry, ...]

    @property
    def order(self) -> Order:
        """As it stands in the end."""
        return self.entries[-1].step.order


@dataclass(frozen=True, slots=True)
class Unusable:
    """A payment that cannot be made an order of; ``reason`` completes "because"."""

    payment: StoredPayment
    reason: str


ResolveCountry = Callable[[str], tuple[int, str] | None]
"""A country's name → its number and its usual name; None: there is no such country."""


def rebuild(
    found: Found, name: str, node: NodeIdentity, resolve_country: ResolveCountry, policy: Policy, now_ms: int
) -> Rebuilt | Unusable:
    """``name`` is a hash8, or something like it, that no other order has."""
    payment = found.payment
    sent_ms = payment.created_at_ms
    request = _request(found, name, resolve_country, policy)
    lenient = _lenient(policy, found.invoice.payee)
    history = _History(request, lenient)
    history.add(OrderPlaced(payment.payment_hash, payment.payreq), request.created_at_ms)
    history.add(InvoiceDecoded(found.invoice, node, seen_before=False), sent_ms)
    if history.order.payment is None:
        return Unusable(payment, history.order.reason)
    history.add(DispatchIntended(node), sent_ms)
    if history.order.htlc is not HtlcState.DISPATCHING:
        return Unusable(payment, "its hold invoice had expired when it was sent")
    _add_words(history, found, max(now_ms, request.pay_by_ms))
    first, *others = history.entries
    notes = (NOTE, NOTE_KIND) if is_of_unknown_kind(history.order) else (NOTE,)
    first = replace(first, step=replace(first.step, notes=(*notes, *first.step.notes)))
    return Rebuilt(request, (first, *others))


def _add_words(history: _History, found: Found, now_ms: int) -> None:
    """The provider's word, and LND's. A settlement is told at its own time: the limits and the grace count from it."""
    report = PaymentReported(found.payment.update, live=False)
    is_settled = found.payment.update.status is PaymentStatus.SUCCEEDED
    if is_settled:
        history.add(report, _settled_at_ms(found.payment, now_ms))
    if found.word is not None:
        history.add(found.word, now_ms, found.raw)
    if not is_settled:
        history.add(report, now_ms)
    # A provider that was not heard may have the code of a paid order: the daemon asks before it gives that up.
    if found.word is not None or not is_settled:
        history.add(TimePassed(), now_ms)


class _History:
    def __init__(self, request: Order, policy: Policy) -> None:
        self.order = request
        self.entries: list[Entry] = []
        self._policy = policy

    def add(self, event: Event, at_ms: int, raw: str | None = None) -> None:
        step = decide(self.order, event, self._policy, at_ms)
        if step.is_change:
            self.order = step.order
            self.entries.append(Entry(event, step, at_ms, raw))


def _lenient(policy: Policy, payee: str) -> Policy:
    """Vetting is for what may still be paid; this was paid, to a node of the list."""
    return replace(
        policy,
        payee_check=PayeeCheck.PIN,
        payee_pubkeys=frozenset({payee}),
        order_id_check=Strictness.OFF,
        network=None,
        max_fee_sat=_NO_LIMIT,
        max_final_cltv_delta=_NO_LIMIT,
        min_expiry_left_s=0,
    )


def _settled_at_ms(payment: StoredPayment, now_ms: int) -> int:
    settled = [a.resolved_at_ms for a in payment.update.attempts if a.status is AttemptStatus.SUCCEEDED]
    latest_ms = max((at_ms for at_ms in settled if at_ms is not None), default=now_ms)
    return min(max(latest_ms, payment.created_at_ms), now_ms)


def _request(found: Found, name: str, resolve_country: ResolveCountry, policy: Policy) -> Order:
    payment = found.payment
    created_ms = min(found.invoice.created_at_ms, payment.created_at_ms)
    amount_sat = -(-found.invoice.amount_msat // 1000)
    out_msat = sum(a.fee_msat for a in payment.update.attempts if a.status is not AttemptStatus.FAILED)
    fee_sat = -(-max(out_msat, payment.update.fee_msat) // 1000)
    order_id = f"rec{name}"
    request = Request(
        id=order_id,
        key=f"recovered-{name}",
        fingerprint=RECOVERED,
        spec=_spec(found, resolve_country),
        created_at_ms=created_ms,
    )
    return Order(
        id=order_id,
        request=request,
        created_at_ms=created_ms,
        pay_by_ms=payment.created_at_ms + 1,
        max_price_sat=amount_sat,
        max_fee_sat=max(policy.fee_cap_sat(amount_sat), fee_sat),
        state_since_ms=created_ms,
        place_at_ms=created_ms,
    )


def _spec(found: Found, resolve_country: ResolveCountry) -> AnySpec:
    """Only the memos of activation codes are known, and only a rented number has messages. Of what was sent nobody
    knows whether it was an SMS or an e-mail."""
    code = spec_of_memo(found.invoice.memo, resolve_country)
    status = None if found.word is None else found.word.status
    if status is not None and status.send_status is not None:
        return UnknownSpec()
    if status is not None and status.messages:
        return RentalSpec(
            country=None if code is None else code.country,
            country_name=UNKNOWN if code is None else code.country_name,
            service=UNKNOWN if code is None else code.service,
            service_name=UNKNOWN if code is None else code.service_name,
            weeks=None,
        )
    return code or UnknownSpec()


def spec_of_memo(memo: str, resolve_country: ResolveCountry) -> CodeSpec | None:
    """``sms4sats payment Germany twitter`` → what was ordered; None for what cannot be read."""
    match = _MEMO.fullmatch(memo)
    country = match and resolve_country(match["country"])
    if match is None or country is None:
        return None
    number, country_name = country
    service = match["service"]
    return CodeSpec(country=number, country_name=country_name, service=service, service_name=service)


def is_of_unknown_kind(order: Order) -> bool:
    """Whether nothing shows what a rebuilt order was for."""
    return isinstance(order.spec, UnknownSpec)


def names(payments: list[StoredPayment]) -> list[str]:
    """A name for each: its hash8, with a number behind it where two begin alike."""
    given: list[str] = []
    for payment in payments:
        name = hash8(payment.payment_hash)
        given.append(name if name not in given else f"{name}-{len(given)}")
    return given
