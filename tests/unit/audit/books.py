"""An order's book as a healthy database has it, for tests that then spoil it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from holdpay.audit.books import Booked, JournalRow, OrderBook, StoredAttempt
from holdpay.core.dispatches import DispatchRecord, recorded
from holdpay.core.events import (
    BalanceSeen,
    ChargeIntended,
    DaemonRestarted,
    DispatchIntended,
    Event,
    InvoiceDecoded,
    OrderPlaced,
    PlacingFailed,
    Resolution,
    Resolved,
    SendStatus,
)
from holdpay.core.machine import decide
from holdpay.core.model import Order, Payment
from tests.unit import build
from tests.unit.build import ALICE, FUND, HASH, NOW_MS, POLICY, RENTAL, SMS, S

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
CHARGE: Timed = (1, ChargeIntended(9_000))
PLACED: Timed = (2, OrderPlaced("a" * 20, None))
LOST: tuple[Timed, ...] = (CHARGE, (2, PlacingFailed("timeout", may_retry=False, is_sure=False)))
UNMOVED: tuple[Timed, ...] = tuple((after_s, BalanceSeen(9_000, is_alone=True)) for after_s in (10, 45))
PREPAID: dict[str, tuple[Timed, ...]] = {
    "requested": (),
    "being placed": (CHARGE,),
    "placed": (CHARGE, PLACED),
    "refused": (CHARGE, (2, PlacingFailed("no such service", may_retry=False))),
    "refused, then placed": (
        CHARGE,
        (2, PlacingFailed("busy", may_retry=True)),
        (10, ChargeIntended(9_000)),
        (12, PLACED[1]),
    ),
    "reply lost": LOST,
    "reply lost by a restart": (CHARGE, (2, DaemonRestarted())),
    "not charged, says the balance": (*LOST, *UNMOVED),
    "charged, says an operator": (*LOST, (20, Resolved(Resolution.SETTLED, by="ann", why="the history has it"))),
    "not charged, says an operator": (*LOST, (20, Resolved(Resolution.FAILED, by="ann", why="the balance"))),
    "written off": (*LOST, (20, Resolved(Resolution.WRITTEN_OFF, by="ann", why="nobody knows"))),
    "fulfilled": (CHARGE, PLACED, HELD[5], FULFILLED[6]),
    "returned": (CHARGE, PLACED, REFUNDED[-1]),
}
"""Lives of an order that the account pays; see ``prepaid``."""


RENTED: tuple[Timed, ...] = (
    (10, build.replied(NOW_MS + 10 * S, paid=True, number="15551234567")),
    (20, build.replied(NOW_MS + 20 * S, paid=True, number="15551234567", messages=("one",))),
    (30, build.replied(NOW_MS + 30 * S, paid=True, number="15551234567", messages=("one", "two"))),
)
SAID_SENT: tuple[Timed, ...] = (
    (10, build.replied(NOW_MS + 10 * S, paid=True, send_status=SendStatus.CREATED)),
    (20, build.replied(NOW_MS + 20 * S, paid=True, send_status=SendStatus.SENT)),
    (30, build.replied(NOW_MS + 30 * S, paid=True, send_status=SendStatus.DELIVERED)),
)
KINDS: dict[str, tuple[Order, tuple[Timed, ...]]] = {
    "rental, held with messages": (build.order(spec=RENTAL), (*IN_FLIGHT, *RENTED)),
    "rental, settled": (build.order(spec=RENTAL), (*IN_FLIGHT, RENTED[0], (15, build.settled()), *RENTED[1:])),
    "SMS": (build.order(spec=SMS), (*IN_FLIGHT, *SAID_SENT[:2], (25, build.settled()), SAID_SENT[2])),
    "fund": (build.order(spec=FUND), (*IN_FLIGHT, (15, build.settled()))),
    "rental, prepaid": (build.order(spec=RENTAL, is_prepaid=True), (CHARGE, PLACED, *RENTED)),
    "SMS, prepaid": (build.order(spec=SMS, is_prepaid=True), (CHARGE, PLACED, *SAID_SENT)),
}
"""Requests of the other kinds, and what happened to them."""


def prepaid() -> Order:
    """A request that the account pays."""
    return build.order(is_prepaid=True)


def book(*events: Timed, request: Order | None = None) -> OrderBook:
    """What the store would have after these events; cursors from 1."""
    order = request or build.order()
    rows = [JournalRow(cursor=1, at_ms=NOW_MS, event=None, after=without_items(order))]
    attempts: dict[int, StoredAttempt] = {}
    dispatches: dict[int, DispatchRecord] = {}
    if order.payment is not None and (record := recorded(None, order.payment, None)):
        dispatches[record.n] = record
    for after_s, event in events:
        at_ms = NOW_MS + after_s * S
        step = decide(order, event, POLICY, at_ms)
        assert step.is_change, event
        note(dispatches, order, step.order)
        order = step.order
        dispatch = order.payment.dispatch_count if order.payment else 0
        attempts.update({a.attempt_id: StoredAttempt(dispatch, a) for a in step.attempts})
        rows.append(JournalRow(cursor=len(rows) + 1, at_ms=at_ms, event=event, after=without_items(order)))
    return OrderBook(
        order=order,
        reserved_msat=order.reserved_msat,
        booked=booked(order),
        attempts=attempts,
        dispatches=dispatches,
        journal=tuple(rows),
    )


def note(dispatches: dict[int, DispatchRecord], before: Order, after: Order) -> None:
    """As the store does it."""
    if after.payment is None:
        return
    known = dispatches.get(after.payment.dispatch_count)
    if record := recorded(before.payment, after.payment, known):
        dispatches[record.n] = record


def booked(order: Order) -> Booked:
    """As the ledger has it."""
    return Booked(reserved_msat=order.reserved_msat, spent_msat=order.spent_msat)


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
