"""An order's book as a healthy database has it, for tests that then spoil it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from holdpay.audit.books import JournalRow, OrderBook, StoredAttempt
from holdpay.core.events import DispatchIntended, Event, InvoiceDecoded, OrderPlaced
from holdpay.core.machine import decide
from holdpay.core.model import Order, Payment
from tests.unit import build
from tests.unit.build import ALICE, HASH, NOW_MS, POLICY, S

Timed = tuple[int, Event]
"""Seconds after NOW_MS, and the event."""

SENT: tuple[Timed, ...] = (
    (1, OrderPlaced(HASH, "lnsb20u1...")),
    (1, InvoiceDecoded(build.invoice(), ALICE, seen_before=False)),
    (1, DispatchIntended(ALICE)),
)
IN_FLIGHT: tuple[Timed, ...] = (*SENT, (2, build.in_flight()))
HELD: tuple[Timed, ...] = (
    *IN_FLIGHT,
    (3, build.replied(NOW_MS + 3 * S, paid=True)),
    (15, build.replied(NOW_MS + 15 * S, paid=True, number="15551234567")),
)
FULFILLED: tuple[Timed, ...] = (
    *HELD,
    (60, build.replied(NOW_MS + 60 * S, paid=True, number="15551234567", code="012345")),
    (61, build.settled()),
)
REFUNDED: tuple[Timed, ...] = (
    *HELD,
    (900, build.refunded()),
    (901, build.replied(NOW_MS + 901 * S, paid=True, error="No available number")),
)


def book(*events: Timed, request: Order | None = None) -> OrderBook:
    """What the store would have after these events; cursors from 1."""
    order = request or build.order()
    rows = [JournalRow(cursor=1, at_ms=NOW_MS, event=None, after=without_items(order))]
    attempts: dict[int, StoredAttempt] = {}
    for after_s, event in events:
        at_ms = NOW_MS + after_s * S
        step = decide(order, event, POLICY, at_ms)
        assert step.is_change, event
        order = step.order
        dispatch = order.payment.dispatch_count if order.payment else 0
        attempts.update({a.attempt_id: StoredAttempt(dispatch, a) for a in step.attempts})
        rows.append(JournalRow(cursor=len(rows) + 1, at_ms=at_ms, event=event, after=without_items(order)))
    return OrderBook(order=order, reserved_msat=order.reserved_msat, attempts=attempts, journal=tuple(rows))


def without_items(order: Order) -> Order:
    """As the journal has it."""
    return replace(order, items=())


def with_change(healthy: OrderBook, cursor: int, **changes: Any) -> OrderBook:
    """With one change of the journal spoilt; ``changes`` whose names are a payment's go to the payment."""
    rows = [
        replace(row, after=changed(row.after, **changes)) if row.cursor == cursor else row for row in healthy.journal
    ]
    return replace(healthy, journal=tuple(rows))


def changed(order: Order, **changes: Any) -> Order:
    """A copy, as ``build.changed`` makes it; a name that only a payment has goes to the payment."""
    of_payment = {name: changes.pop(name) for name in list(changes) if name in _ONLY_OF_PAYMENTS}
    if of_payment:
        assert order.payment is not None
        changes["payment"] = replace(order.payment, **of_payment)
    return build.changed(order, **changes)


_ONLY_OF_PAYMENTS = frozenset(Payment.__slots__) - frozenset(Order.__slots__)
