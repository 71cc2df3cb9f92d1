"""The audit of a database that no process has open: it must be able to tell the whole story by itself."""

from __future__ import annotations

import json
import sqlite3
import typing
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from holdpay.core import machine
from holdpay.core.events import Event, event_name
from holdpay.core.items import ItemKind
from holdpay.core.model import Order
from holdpay.ports import Update
from holdpay.store.store import SqliteStore
from tests.simulation.auditor import Violation
from tests.simulation.core import POLICY
from tests.spoiling import opened


def audit_database(path: Path, committed: Mapping[str, Order]) -> None:
    """``committed`` is what the judge saw. Raises Violation."""
    with closing(SqliteStore(path)) as store:
        orders = {order_id: store.get(order_id) for order_id in committed}
        told = {order_id: store.updates(0, order_id, 100_000) for order_id in committed}
    with closing(sqlite3.connect(path)) as conn, ExitStack() as stack:
        conn.row_factory = sqlite3.Row
        _is_sound(conn)
        stack.enter_context(opened(conn))
        ids = {row["id"] for row in conn.execute("SELECT id FROM orders")}
        if ids != set(committed):
            raise Violation("the database has other orders than were recorded")
        for order_id, order in orders.items():
            if order != committed[order_id]:
                raise Violation(f"order {order_id}: the database does not have what was committed last")
            _replay(conn, order, told[order_id])
            _reserved(conn, order)


def _is_sound(conn: sqlite3.Connection) -> None:
    found = [row[0] for row in conn.execute("PRAGMA integrity_check")]
    if found != ["ok"] or conn.execute("PRAGMA foreign_key_check").fetchall():
        raise Violation(f"the database is not sound: {found}")


_ROWS = """
    SELECT cursor, at_ms, event, coalesce(j.data, r.data) AS data, notes
    FROM journal j LEFT JOIN replies r USING (cursor)
    WHERE order_id = ? ORDER BY cursor
"""


def _replay(conn: sqlite3.Connection, order: Order, told: Sequence[Update]) -> None:
    """The journal's events, decided anew from its first row on, give what its changes add up to, and the attempts."""
    rows = conn.execute(_ROWS, (order.id,)).fetchall()
    if not rows or rows[0]["event"] != "order_requested":
        raise Violation(f"order {order.id}: its journal does not begin with the request")
    if [update.cursor for update in told] != [row["cursor"] for row in rows]:
        raise Violation(f"order {order.id}: the updates are not the journal's rows")
    state = told[0].order
    attempts: dict[int, dict[str, Any]] = {}
    for row, update in zip(rows[1:], told[1:], strict=True):
        step = machine.decide(state, _event(row["event"], row["data"]), POLICY, row["at_ms"])
        state = step.order
        if _as_told(state) != _as_told(update.order) or list(step.notes) != json.loads(row["notes"]):
            raise Violation(f"order {order.id}: the journal does not replay to what it tells ({row['event']})")
        for attempt in step.attempts:
            attempts[attempt.attempt_id] = asdict(attempt)
    if state != order:
        raise Violation(f"order {order.id}: the journal's last row is not the order")
    if order.payment is not None:
        _attempts(conn, order.id, attempts)


def _as_told(order: Order) -> Order:
    """A count is told as it is now, also as of an earlier row."""
    return replace(order, items=tuple(item for item in order.items if item.kind is not ItemKind.UNREAD_MORE))


def _attempts(conn: sqlite3.Connection, order_id: str, wanted: dict[int, dict[str, Any]]) -> None:
    sql = "SELECT * FROM htlc_attempts WHERE order_no = (SELECT no FROM orders WHERE id = ?)"
    rows = conn.execute(sql, (order_id,)).fetchall()
    stored = {row["attempt_id"]: {key: row[key] for key in row.keys()} for row in rows}  # noqa: SIM118 - a Row is no dict
    if set(stored) != set(wanted) or any(wanted[number].items() - row.items() for number, row in stored.items()):
        raise Violation(f"order {order_id}: its HTLC attempts are not those that the journal tells of")


def _reserved(conn: sqlite3.Connection, order: Order) -> None:
    (reserved_msat,) = conn.execute("SELECT reserved_msat FROM orders WHERE id = ?", (order.id,)).fetchone()
    if reserved_msat != order.reserved_msat:
        raise Violation(f"order {order.id}: {reserved_msat} msat are reserved, and {order.reserved_msat} should be")
    sql = "SELECT what, sum(msat) FROM ledger WHERE order_no = (SELECT no FROM orders WHERE id = ?) GROUP BY what"
    booked = dict(conn.execute(sql, (order.id,)))
    if booked.get("reserve", 0) - booked.get("release", 0) != order.reserved_msat:
        raise Violation(f"order {order.id}: the ledger's reserves are not what is reserved")
    if booked.get("spend", 0) != order.spent_msat:
        raise Violation(f"order {order.id}: the ledger's spends are not what was spent")


@cache
def _events() -> dict[str, TypeAdapter[Any]]:
    # The class alone decides the name.
    return {event_name(kind.__new__(kind)): TypeAdapter(kind) for kind in typing.get_args(Event)}


def _event(name: str, data: str) -> Any:
    return _events()[name].validate_json(data)
