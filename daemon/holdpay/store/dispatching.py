"""The table of dispatches: a row for each SendPaymentV2 call, written with the change that begins it or adds to it."""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Final

from sqlite_utils import Database

from holdpay.core.dispatches import Dispatched, DispatchRecord, recorded
from holdpay.core.lightning import Attempt
from holdpay.core.model import Payment
from holdpay.store.packing import absolute, unpack
from holdpay.store.rows import column_names, from_row, to_row

COLUMNS: Final = column_names(DispatchRecord)
_WRITE: Final = (
    f"INSERT INTO dispatches (order_no, {', '.join(COLUMNS)}) VALUES (:order_no, {', '.join(f':{c}' for c in COLUMNS)})"  # noqa: S608 - our own columns
    " ON CONFLICT (order_no, n) DO UPDATE SET "
    + ", ".join(f"{column} = excluded.{column}" for column in COLUMNS if column != "n")
)
SELECT_DISPATCH: Final = "SELECT * FROM dispatches WHERE order_no = ? AND n = ?"
SELECT_DISPATCHES: Final = "SELECT * FROM dispatches WHERE order_no = ? ORDER BY n"
SELECT_ATTEMPTS: Final = "SELECT * FROM htlc_attempts WHERE order_no = ? ORDER BY attempt_id"


def note_dispatch(conn: sqlite3.Connection, order_no: int, before: Payment | None, after: Payment) -> None:
    """What a change of the payment makes of its latest dispatch. Within the caller's transaction."""
    known = None
    if before is not None and (before.failure, before.diagnosis) != (after.failure, after.diagnosis):
        row = conn.execute(SELECT_DISPATCH, (order_no, after.dispatch_count)).fetchone()
        known = None if row is None else from_row(DispatchRecord, row)
    record = recorded(before, after, known)
    if record is not None:
        conn.execute(_WRITE, {"order_no": order_no, **to_row(record)})


def dispatches_of(conn: sqlite3.Connection, order_no: int) -> list[Dispatched]:
    """Oldest first, each with its HTLC attempts."""
    attempts: dict[int, list[Attempt]] = {}
    for row in conn.execute(SELECT_ATTEMPTS, (order_no,)):
        attempts.setdefault(row["dispatch"], []).append(from_row(Attempt, row))
    records = (from_row(DispatchRecord, row) for row in conn.execute(SELECT_DISPATCHES, (order_no,)))
    return [Dispatched(record, tuple(attempts.get(record.n, ()))) for record in records]


# --- the migration that makes it; it never changes any more -----------------------------------------------------------

_TABLE: Final = """
    CREATE TABLE dispatches (
      order_no INTEGER NOT NULL REFERENCES payments (order_no),
      n INTEGER NOT NULL,                  -- from 1
      at_ms INTEGER NOT NULL,              -- of the intent
      fee_limit_msat INTEGER NOT NULL,
      failed_at_ms INTEGER,
      failure_reason TEXT,                 -- LND's
      failure_class TEXT,
      cause TEXT,
      diagnosis TEXT,
      PRIMARY KEY (order_no, n)
    ) STRICT, WITHOUT ROWID
"""
_SENT: Final = "SELECT order_no FROM payments WHERE dispatch_count > 0"
_CHANGES: Final = "SELECT at_ms, entry FROM journal WHERE order_no = ? ORDER BY cursor"
_BEGIN: Final = "INSERT INTO dispatches (order_no, n, at_ms, fee_limit_msat) VALUES (?, ?, ?, ?)"
_END: Final = """
    UPDATE dispatches SET failed_at_ms = ?, failure_reason = ?, failure_class = ? WHERE order_no = ? AND n = ?
"""


def make_dispatches(db: Database) -> None:
    """Makes the table, and fills it from what the journal says that each event changed."""
    conn = db.conn
    conn.execute(_TABLE)
    for (order_no,) in conn.execute(_SENT).fetchall():
        _fill(conn, order_no)


def _fill(conn: sqlite3.Connection, order_no: int) -> None:
    columns: dict[str, Any] = {}
    for at_ms, entry in conn.execute(_CHANGES, (order_no,)).fetchall():
        try:
            change = json.loads(absolute(unpack(entry), at_ms).split("\n")[1])
        except (ValueError, IndexError, TypeError):
            # Damage is found by whoever reads the order; what comes after it adds up to something else.
            return
        sent_before = columns.get("payment.dispatch_count") or 0
        columns.update(change)
        sent = columns.get("payment.dispatch_count") or 0
        if sent > sent_before:
            begun = (columns.get("payment.money_out_since_ms") or 0, columns.get("payment.fee_limit_msat") or 0)
            conn.execute(_BEGIN, (order_no, sent, *begun))
        elif any(name.startswith("payment.failure_") for name in change):
            failure = [columns.get(f"payment.failure_{name}") for name in ("at_ms", "reason", "failure_class")]
            conn.execute(_END, (*failure, order_no, sent))
