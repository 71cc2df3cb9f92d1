"""Erasing: what was delivered, what the provider said and what the buyer wrote is deleted, long after the end.

Rows are deleted whole, and secure_delete overwrites them; see ``database.rewrite_if_small`` for what it leaves.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Final

from holdpay.errors import StoreError
from holdpay.store.database import overwrite_what_is_freed, rewrite_if_small, transaction

ERASED_AT_ONCE: Final = 5
"""Orders in one transaction, of one file: the daemon does nothing else meanwhile."""
SELECT_TO_ERASE: Final = (
    "SELECT id FROM orders WHERE closed_at_ms < ? AND erased_at_ms IS NULL ORDER BY closed_at_ms LIMIT ?"
)
ERASE: Final = (
    "UPDATE orders SET erased_at_ms = :now_ms WHERE id = :id",
    "DELETE FROM items WHERE order_id = :id",
    "DELETE FROM replies WHERE cursor IN (SELECT cursor FROM journal WHERE order_id = :id)",
    "DELETE FROM secrets WHERE request_id = (SELECT request_id FROM orders WHERE id = :id)",
)
# A copy from before the ground (migration 0008) has them in its orders and snapshots. It is there to go back to, for
# what was open or new then: an order that closed so long ago is taken out of it whole.
_TAKE_OUT: Final = (
    "DROP TRIGGER IF EXISTS journal_is_kept",
    "DELETE FROM htlc_attempts WHERE payment_hash IN (SELECT payment_hash FROM payments WHERE order_id = :id)",
    "DELETE FROM payments WHERE order_id = :id",
    "DELETE FROM journal WHERE order_id = :id",
    "DELETE FROM orders WHERE id = :id",
)


def erase(conn: sqlite3.Connection, ids: list[str], now_ms: int) -> None:
    """Raises StoreError."""
    _run(conn, ERASE, ids, now_ms)


def erase_in_copy(copy: Path, ids: list[str], now_ms: int) -> None:
    """A copy in which nothing can be erased, as it is damaged, is removed."""
    try:
        with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as conn:
            overwrite_what_is_freed(conn)
            _run(conn, ERASE if _has_items(conn) else _TAKE_OUT, ids, now_ms)
            rewrite_if_small(conn, copy)
    except (sqlite3.Error, StoreError):
        with contextlib.suppress(FileNotFoundError):
            copy.unlink()


def _has_items(conn: sqlite3.Connection) -> bool:
    return bool(conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'items'").fetchall())


def _run(conn: sqlite3.Connection, statements: tuple[str, ...], ids: list[str], now_ms: int) -> None:
    with transaction(conn):
        for order_id in ids:
            for statement in statements:
                conn.execute(statement, {"id": order_id, "now_ms": now_ms})
