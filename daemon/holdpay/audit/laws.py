"""Pure: the laws that hold for every stored order, whatever led to it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import pairwise

from holdpay.audit.findings import Finding, Severity, about
from holdpay.audit.journal import MEND
from holdpay.core.amounts import sat
from holdpay.core.charge import COUNTED, Charge, ChargeState
from holdpay.core.lightning import preimage_fits
from holdpay.core.machine import half
from holdpay.core.model import Order, Payment
from holdpay.core.states import SPENT, End, HtlcState, OrderState, Succession
from holdpay.core.tables import IMPOSSIBLE, cell

_HEX32 = re.compile(r"[0-9a-f]{64}")


def is_hash(text: str) -> bool:
    """32 bytes in lower-case hex."""
    return _HEX32.fullmatch(text) is not None


def law_findings(order: Order) -> list[Finding]:
    """Every law that one order breaks."""
    broken = [*_of_the_pair(order), *_of_the_end(order), *_of_what_was_delivered(order), *_of_the_funding(order)]
    if order.payment is not None:
        broken += [*_of_the_payment(order, order.payment), *_of_the_money(order, order.payment)]
    if order.charge is not None:
        broken += _of_the_charge(order, order.charge)
    return [about(order, Severity.ERROR, code, text, MEND) for code, text in broken] + _over_fee(order)


Broken = Iterator[tuple[str, str]]


def _of_the_pair(order: Order) -> Broken:
    if cell(order) == IMPOSSIBLE:
        yield "impossible-pair", f"It is {order.state.value} with {half(order)}, which cannot be."
    if order.is_closed and (order.is_money_out or _is_intended(order)):
        yield "closed-with-money-out", f"It is closed, with {half(order)}: money may be out."


def _is_intended(order: Order) -> bool:
    return order.charge is not None and order.charge.state is ChargeState.INTENDED


def _is_unspent(order: Order) -> bool:
    return order.htlc not in SPENT and (order.charge is None or order.charge.state not in COUNTED)


def _is_spent(order: Order, htlcs: Collection[HtlcState], charges: Collection[ChargeState]) -> bool:
    return order.htlc in htlcs if order.charge is None else order.charge.state in charges


_SPENT_CHARGES = frozenset({ChargeState.CHARGED, ChargeState.UNKNOWN})
"""Of a closed order; the second is one that a person wrote off."""
_ENDS: dict[End, Callable[[Order], bool]] = {
    End.FULFILLED: lambda order: _has_what_was_bought(order) and _is_spent(order, SPENT, _SPENT_CHARGES),
    End.FULFILLED_FREE: lambda order: _has_what_was_bought(order) and _is_unspent(order),
    End.OUTCOME_UNKNOWN: lambda order: _is_spent(order, {HtlcState.GONE}, {ChargeState.UNKNOWN}),
    End.REFUNDED: lambda order: _is_spent(order, {HtlcState.FAILED}, {ChargeState.RETURNED}),
    End.CHARGED_UNFULFILLED: lambda order: (
        order.state is OrderState.ABANDONED and _is_spent(order, {HtlcState.SETTLED}, {ChargeState.CHARGED})
    ),
}
"""What an end says of the order and its money; the others say that nothing was spent."""


def _of_the_end(order: Order) -> Broken:
    if order.is_closed != (order.end is not None):
        yield "half-closed", "It is closed without an end, or has an end and is open."
    if order.end is not None and not _ENDS.get(order.end, _is_unspent)(order):
        yield "end-contradicts", f"It ended as {order.end.value}, and it is {order.state.value} with {half(order)}."


# --- what was delivered ---------------------------------------------------------------------------------------------


def _has_what_was_bought(order: Order) -> bool:
    """As far as it was not erased: the kind's own word, by what came or by the payment alone."""
    if order.state is not OrderState.DELIVERED:
        return False
    if order.erased_at_ms is not None or order.spec.is_delivered(order.items):
        return True
    return _is_spent(order, {HtlcState.SETTLED}, {ChargeState.CHARGED}) and order.spec.is_delivered_by_settlement(order)


def _of_what_was_delivered(order: Order) -> Broken:
    if order.erased_at_ms is not None:
        if order.items or order.spec != order.spec.without_secrets() or not order.is_closed:
            yield "erased-in-part", "It is marked as erased, and is open or still has what was delivered or asked for."
        return
    thing = order.spec.words.thing
    if order.state is OrderState.DELIVERED and not _has_what_was_bought(order):
        yield "delivery-lost", f"It is {order.state.value}, and {thing} is not stored."
    if order.state is not OrderState.DELIVERED and order.spec.is_delivered(order.items):
        yield "delivery-lost", f"It is {order.state.value}, and {thing} is stored."
    if order.state is OrderState.NUMBER_ASSIGNED and order.number is None:
        yield "number-lost", "It has a number, and none is stored."


# --- the money ------------------------------------------------------------------------------------------------------


def _of_the_funding(order: Order) -> Broken:
    if order.request.is_prepaid and order.payment is not None:
        yield "other-funding", "It is paid from the account's balance, and has a payment."
    if not order.request.is_prepaid and order.charge is not None:
        yield "other-funding", "It is paid by a hold invoice, and has a charge of the account's balance."


def _of_the_charge(order: Order, charge: Charge) -> Broken:
    if charge.amount_sat > order.max_price_sat:
        yield (
            "over-price",
            f"Its charge is {charge.amount_sat:,} sat, and {order.max_price_sat:,} sat were allowed.",
        )


def _of_the_payment(order: Order, payment: Payment) -> Broken:
    if not is_hash(payment.payment_hash):
        yield "bad-hash", "Its payment hash is none."
        return
    if payment.payreq != order.payreq:
        yield "other-invoice", "Its order and its payment have different hold invoices."
    if (payment.htlc is HtlcState.SETTLED) != (payment.preimage is not None):
        yield "preimage-missing", f"Its HTLC is {payment.htlc.value}, and {_word(payment.preimage)} preimage is stored."
    if payment.preimage is not None and not _fits(payment.preimage, payment.payment_hash):
        yield "preimage-unfit", "Its preimage does not fit its payment hash."


def _of_the_money(order: Order, payment: Payment) -> Broken:
    if payment.htlc is not HtlcState.NONE and payment.dispatch_count == 0 and order.anomaly_count == 0:
        yield "never-sent", f"Its HTLC is {payment.htlc.value}, and it was never sent."
    if payment.amount_msat > order.max_price_sat * 1000:
        yield (
            "over-price",
            f"Its invoice asks {sat(payment.amount_msat)}, and {order.max_price_sat:,} sat were allowed.",
        )


def _over_fee(order: Order) -> list[Finding]:
    """Possible when a person pays the invoice by hand, with another fee limit."""
    if order.payment is None or order.payment.fee_msat <= order.max_fee_sat * 1000:
        return []
    text = (
        f"Its fee is {sat(order.payment.fee_msat)}, and {order.max_fee_sat:,} sat were allowed: not sent by holdpayd."
    )
    return [about(order, Severity.NOTE, "over-fee", text)]


def _word(value: str | None) -> str:
    return "no" if value is None else "a"


def _fits(preimage: str, payment_hash: str) -> bool:
    return is_hash(preimage) and preimage_fits(preimage, payment_hash)


def shared_findings(orders: Iterable[Order]) -> list[Finding]:
    """What only one order may have, and more than one has: a payment hash, an id at the provider, a request's key."""
    orders = list(orders)
    owners: dict[tuple[str, str], list[Order]] = defaultdict(list)
    for order in orders:
        for kind, value in (
            ("payment hash", order.payment and order.payment.payment_hash),
            # One that nothing was spent on is closed or about to be vetted; a refused duplicate harms nobody.
            ("order at the provider", (order.payment or order.charge) and order.provider_order_id),
            ("idempotency key", order.nth == 1 and order.request.key),
        ):
            if value:
                owners[kind, value].append(order)
    return [
        about(found[0], Severity.ERROR, "shared", f"It shares its {kind} with {_ids(found[1:])}.", MEND)
        for (kind, _), found in owners.items()
        if len(found) > 1
    ]


def turn_findings(orders: Iterable[Order]) -> list[Finding]:
    """The orders of a request come one after the other: each but the last is closed, was followed and cost nothing, and
    was closed before the next one was made."""
    of_request: dict[str, list[Order]] = defaultdict(list)
    for order in orders:
        of_request[order.request.id].append(order)
    return [finding for found in of_request.values() for finding in _turns(sorted(found, key=lambda o: o.nth))]


def _turns(orders: list[Order]) -> Iterator[Finding]:
    for at, order in enumerate(orders, start=1):
        if order.nth != at or (order.nth > 1 and order.request.strategy is None):
            yield about(order, Severity.ERROR, "turn-missing", "An order of its request before it is missing.", MEND)
        if order.is_closed and (order.succession is Succession.FOLLOWED) != (at < len(orders)):
            text = "Its request goes on with another order, and there is none, or it does not, and there is one."
            yield about(order, Severity.ERROR, "turn-broken", text, MEND)
    for before, order in pairwise(orders):
        if before.closed_at_ms is None or not _is_unspent(before) or before.is_delivered:
            text = f"It was followed by order {order.id} before it was over and its money was back."
            yield about(before, Severity.ERROR, "two-at-once", text, MEND)


def _ids(orders: Iterable[Order]) -> str:
    return "order " + ", ".join(order.id for order in orders)
