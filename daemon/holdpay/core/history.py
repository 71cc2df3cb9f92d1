"""The history of an order in plain words: a line for each journal row that tells a person something."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from holdpay.core.amounts import sat
from holdpay.core.events import SendStatus
from holdpay.core.explain import end_words, failure_words
from holdpay.core.items import ItemKind, texts
from holdpay.core.model import Order
from holdpay.core.states import HtlcState, OrderState
from holdpay.core.tables import phase


@dataclass(frozen=True, slots=True)
class Moment:
    """One journal row, for the history: the event's name, and the order right after it."""

    at_ms: int
    event: str
    order: Order
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the history."""

    at_ms: int
    text: str


def history(moments: Iterable[Moment]) -> list[Line]:
    """What happened, oldest first. A line that repeats the one before it is counted, not told again."""
    told: list[tuple[Line, int]] = []
    before: Order | None = None
    for moment in moments:
        if before is not None and before.id != moment.order.id:
            before = None  # the next order of the request
        text = history_line(moment, before)
        before = moment.order
        if text is None:
            continue
        if told and told[-1][0].text == text:
            told[-1] = (told[-1][0], told[-1][1] + 1)
        else:
            told.append((Line(moment.at_ms, text), 1))
    return [line if count == 1 else Line(line.at_ms, f"{line.text} ({count} times)") for line, count in told]


def history_line(moment: Moment, before: Order | None) -> str | None:
    """One line of the history; None if there is nothing to tell a person."""
    order, parts = moment.order, []
    text = _event_line(moment)
    if text is not None and not (moment.event == "provider_replied" and _is_same_phase(before, order)):
        parts.append(text.format(**_words(order)))
    elif before is not None and not _is_same_phase(before, order):
        parts.append(f"{phase(order)}")
    if order.moved_on is not None and before is not None and before.moved_on is None:
        parts.append(f"{order.moved_on}, so the daemon asks for a cancel")
    if before is not None and (new := order.earlier_numbers[len(before.earlier_numbers) :]):
        parts.append(f"the number is +{order.number} now, no longer +{new[-1]}")
    parts += _what_came(before, order)
    parts += [f"noticed: {note}" for note in moment.notes]
    if order.is_closed and not (before and before.is_closed) and order.end is not None:
        parts.append(f"closed: {end_words(order)}")
    return "; ".join(parts) or None


def _what_came(before: Order | None, order: Order) -> list[str]:
    """What the phase does not tell, without what is in it."""
    if before is None:
        return []
    count = len(texts(order.items, ItemKind.MESSAGE)) - len(texts(before.items, ItemKind.MESSAGE))
    messages = [] if count < 1 else ["a message came" if count == 1 else f"{count:,} messages came"]
    words = texts(order.items, ItemKind.SENDING)[len(texts(before.items, ItemKind.SENDING)) :]
    return messages + [f"the provider says that it {_LAST_WORDS[word]}" for word in words if word in _LAST_WORDS]


_LAST_WORDS = {SendStatus.DELIVERED.value: "was delivered", SendStatus.FAILED.value: "failed"}


def _event_line(moment: Moment) -> str | None:
    if moment.order.is_recovered and moment.event in _RECOVERED_LINES:
        return _RECOVERED_LINES[moment.event]
    if moment.event == "order_requested" and moment.order.nth > 1:
        return "order {nth} of the request is made, for {what}, at most {max_price}"
    if moment.event == "payment_not_found" and not moment.order.is_money_out:
        return "lnd twice knew nothing of the payment, which proves that it was never sent"
    if moment.event == "order_placed" and moment.order.request.is_prepaid:
        return "the provider took the order and the price of the prepaid account"
    if moment.event in {"invoice_decoded", "invoice_undecodable"} and moment.order.payment is None:
        return "{reason}"
    return _EVENT_LINES.get(moment.event)


def _is_same_phase(before: Order | None, after: Order) -> bool:
    return before is not None and phase(before) == phase(after)


_EVENT_LINES = {
    "order_requested": "you asked for {what}, at most {max_price}",
    "place_given": "there was a place among the holds; the order is placed",
    "place_denied": "no place among the holds is given to it any more: {reason}",
    "next_ordered": "the next order of the request is made",
    "no_next_order": "the request ends: {reason}",
    "order_placed": "the provider took the order and sent a hold invoice",
    "placing_failed": "the provider did not take the order: {provider_text}",
    "invoice_decoded": "the hold invoice over {amount} was checked",
    "dispatch_intended": "payment {dispatch_count} is handed to lnd, fee limit {fee_limit}",
    "payment_reported": "lnd: {htlc}{fee}{failure}",
    "send_refused": "lnd answered with an error, which proves nothing: {refusal}",
    "payment_not_found": "lnd does not know the payment (said once, this proves nothing)",
    "route_looked_for": "lnd was asked what was in the way: {diagnosis}",
    "htlc_looked_for": "the node's channels were looked at for the HTLC",
    "hold_level_changed": "the hold is {hold_level}{hold_why}",
    "resolved": "an operator said how the payment ended",
    "provider_replied": "provider: {phase}{said}",
    "cancel_requested": "you asked to cancel",
    "cancel_answered": "the provider answered the request to cancel: {provider_text}",
    "order_quarantined": "quarantined: it is watched, and nothing is paid for it any more",
    "daemon_restarted": "the daemon restarted; {phase}",
    "copy_restored": "the database was restored from a copy",
}


_RECOVERED_LINES = {
    "order_requested": "somebody asked for {what}; the request and its limits are lost",
    "order_placed": "the provider took the order; it was recovered later, without what was recorded then",
    "invoice_decoded": "the hold invoice was over {amount}; how it was checked is lost",
    "dispatch_intended": "the payment was handed to lnd; with which fee limit, and at which try, is lost",
}
"""Of an order made by `holdpayd recover`: what must have happened, without the numbers that it had to make up."""


_HTLC_WORDS = {
    HtlcState.NONE: "no payment",
    HtlcState.DISPATCHING: "no word about the payment yet",
    HtlcState.UNKNOWN: "no word about the payment yet",
    HtlcState.IN_FLIGHT: "the payment is in flight",
    HtlcState.SETTLED: "the payment is settled",
    HtlcState.FAILED: "the payment failed, the money is back",
    HtlcState.GONE: "no record of the payment",
}
"""What LND says: it knows of no number and no code."""


def _words(order: Order) -> dict[str, object]:
    payment = order.payment
    fee = f", fee {sat(payment.fee_msat)}" if payment and payment.fee_msat else ""
    return {
        "what": order.spec.what,
        "nth": order.nth,
        "max_price": sat(order.max_price_sat * 1000),
        "provider_text": order.provider_text,
        "amount": sat(payment.amount_msat) if payment else "?",
        "dispatch_count": payment.dispatch_count if payment else 0,
        "fee_limit": sat(payment.fee_limit_msat) if payment else "?",
        "refusal": payment.refusal if payment else "",
        "phase": phase(order),
        "htlc": _HTLC_WORDS[order.htlc],
        "fee": fee,
        "failure": f" ({why})" if (why := failure_words(payment) if payment else "") else "",
        "reason": order.reason,
        "hold_level": payment.hold_level.value if payment else "",
        "hold_why": f": {payment.hold_why}" if payment and payment.hold_why else "",
        "diagnosis": payment.diagnosis.text if payment and payment.diagnosis else "it does not say",
        "said": _said(order),
    }


def _said(order: Order) -> str:
    """What came with the provider's word."""
    if order.state is OrderState.NUMBER_ASSIGNED:
        return f" on +{order.number}" if order.number else ""
    return f' ("{order.provider_text}")' if order.state is OrderState.CANCELED else ""
