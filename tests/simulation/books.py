"""The audit of a database that no process has open: it must be able to tell the whole story by itself."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from holdpay.core import events, machine
from holdpay.core.model import Order
from holdpay.store.store import SqliteStore
from tests.simulation.auditor import Violation
from tests.simulation.core import POLICY

_ORDER = TypeAdapter(Order)


def audit_database(path: Path, committed: Mapping[str, Order]) -> None:
    """``committed`` is what the judge saw. Raises Violation."""
    with closing(SqliteStore(path)) as store:
        orders = {order_id: store.get(order_id) for order_id in committed}
    with closing(sqlite3.connect(path)) as conn:
        conn.row_factory = sqlite3.Row
        _is_sound(conn)
        ids = {row["id"] for row in conn.execute("SELECT id FROM orders")}
        if ids != set(committed):
            raise Violation("the database has other orders than were recorded")
        for order_id, order in orders.items():
            if order != committed[order_id]:
                raise Violation(f"order {order_id}: the database does not have what was committed last")
            _replay(conn, order)
            _reserved(conn, order)


def _is_sound(conn: sqlite3.Connection) -> None:
    found = [row[0] for row in conn.execute("PRAGMA integrity_check")]
    if found != ["ok"] or conn.execute("PRAGMA foreign_key_check").fetchall():
        raise Violation(f"the database is not sound: {found}")


def _replay(conn: sqlite3.Connection, order: Order) -> None:
    """The journal, folded from its first row on, gives the snapshots, the rows of the order, and the attempts."""
    rows = conn.execute("SELECT * FROM journal WHERE order_id = ? ORDER BY cursor", (order.id,)).fetchall()
    if not rows or rows[0]["event"] != "order_requested":
        raise Violation(f"order {order.id}: its journal does not begin with the request")
    state = _ORDER.validate_json(rows[0]["snapshot"])
    attempts: dict[int, dict[str, Any]] = {}
    for row in rows[1:]:
        step = machine.decide(state, _event(row["event"], row["data"]), POLICY, row["at_ms"])
        state = _ORDER.validate_json(row["snapshot"])
        if step.order != state or list(step.notes) != json.loads(row["notes"]):
            raise Violation(f"order {order.id}: the journal does not replay to its snapshot ({row['event']})")
        for attempt in step.attempts:
            attempts[attempt.attempt_id] = asdict(attempt)
    if state != order:
        raise Violation(f"order {order.id}: the journal's last row is not the snapshot")
    if order.payment is not None:
        _attempts(conn, order.id, order.payment.payment_hash, attempts)


def _attempts(conn: sqlite3.Connection, order_id: str, payment_hash: str, wanted: dict[int, dict[str, Any]]) -> None:
    rows = conn.execute("SELECT * FROM htlc_attempts WHERE payment_hash = ?", (payment_hash,)).fetchall()
    stored = {row["attempt_id"]: {key: row[key] for key in row.keys()} for row in rows}  # noqa: SIM118 - a Row is no dict
    if set(stored) != set(wanted) or any(wanted[number].items() - row.items() for number, row in stored.items()):
        raise Violation(f"order {order_id}: its HTLC attempts are not those that the journal tells of")


def _reserved(conn: sqlite3.Connection, order: Order) -> None:
    (reserved_msat,) = conn.execute("SELECT reserved_msat FROM orders WHERE id = ?", (order.id,)).fetchone()
    if reserved_msat != order.reserved_msat:
        raise Violation(f"order {order.id}: {reserved_msat} msat are reserved, and {order.reserved_msat} should be")


@cache
def _events() -> dict[str, TypeAdapter[Any]]:
    kinds = {name: kind for name, kind in vars(events).items() if isinstance(kind, type)}
    return {name: TypeAdapter(kind) for name, kind in kinds.items() if kind in machine._HANDLERS}


def _event(name: str, data: str) -> Any:
    return _events()["".join(part.capitalize() for part in name.split("_"))].validate_json(data)
