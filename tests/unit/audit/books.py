"""An order's book as a healthy database has it, for tests that then spoil it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from holdpay.audit.books import JournalRow, OrderBook, StoredAttempt
from holdpay.core.events import DispatchIntended, Event, InvoiceDecoded, OrderPlaced
from holdpay.core.machine import decide
from holdpay.core.model import Order
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
    rows = [JournalRow(position=0, cursor=1, at_ms=NOW_MS, event=None, snapshot=order)]
    attempts: dict[int, StoredAttempt] = {}
    for after_s, event in events:
        at_ms = NOW_MS + after_s * S
        step = decide(order, event, POLICY, at_ms)
        assert step.is_change, event
        order = step.order
        dispatch = order.payment.dispatch_count if order.payment else 0
        attempts.update({a.attempt_id: StoredAttempt(dispatch, a) for a in step.attempts})
        rows.append(JournalRow(position=len(rows), cursor=len(rows) + 1, at_ms=at_ms, event=event, snapshot=order))
    return OrderBook(order=order, reserved_msat=order.reserved_msat, attempts=attempts, journal=tuple(rows))


def without_row(healthy: OrderBook, cursor: int) -> OrderBook:
    """As a reader finds it after the row was deleted: positions count what is there."""
    rows = [row for row in healthy.journal if row.cursor != cursor]
    return replace(healthy, journal=tuple(replace(row, position=n) for n, row in enumerate(rows)))


def with_snapshot(healthy: OrderBook, cursor: int, **changes: Any) -> OrderBook:
    """With one snapshot of the journal changed; ``changes`` whose names are a payment's go to the payment."""
    rows = [
        replace(row, snapshot=changed(row.snapshot, **changes)) if row.cursor == cursor else row
        for row in healthy.journal
    ]
    return replace(healthy, journal=tuple(rows))


def changed(order: Order, **changes: Any) -> Order:
    """A copy; a name that only a payment has goes to the payment."""
    of_order = {name: value for name, value in changes.items() if name in Order.__slots__}
    of_payment = {name: value for name, value in changes.items() if name not in of_order}
    if of_payment:
        assert order.payment is not None
        of_order["payment"] = replace(order.payment, **of_payment)
    return replace(order, **of_order)
