"""Erasing: what was delivered, what the provider said and what the buyer wrote is gone, long after the end.

It lies sealed under a key of its order (see ``sealing``). The key is overwritten where it lies; what it sealed is
deleted, too, so that it takes no room. A copy made before a migration is erased in the way of its own tables.
"""

# ruff: noqa: S608 - our own words only
from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from holdpay.errors import StoreError
from holdpay.store.database import connect_beside, copies, overwrite_what_is_freed, rewrite_if_small, transaction
from holdpay.store.reading import rows

ERASED_AT_ONCE: Final = 5
"""Orders in one transaction: the daemon does nothing else meanwhile."""
SELECT_TO_ERASE: Final = (
    "SELECT id FROM orders WHERE closed_at_ms < ? AND erased_at_ms IS NULL ORDER BY closed_at_ms LIMIT ?"
)
_ALL: Final = -1
_NO: Final = "(SELECT no FROM orders WHERE id = :id)"
ERASE: Final = (
    "UPDATE orders SET erased_at_ms = :now_ms WHERE id = :id",
    f"DELETE FROM items WHERE order_no = {_NO}",
    f"DELETE FROM replies WHERE cursor IN (SELECT cursor FROM journal WHERE order_no = {_NO})",
    "DELETE FROM secrets WHERE request_id = (SELECT request_id FROM orders WHERE id = :id)",
    f"UPDATE keys SET key = zeroblob(16) WHERE order_no = {_NO}",
)
# A copy from before migration 0009 has them unsealed.
_ERASE_UNSEALED: Final = (
    "UPDATE orders SET erased_at_ms = :now_ms WHERE id = :id",
    "DELETE FROM items WHERE order_id = :id",
    "DELETE FROM replies WHERE cursor IN (SELECT cursor FROM journal WHERE order_id = :id)",
    "DELETE FROM secrets WHERE request_id = (SELECT request_id FROM orders WHERE id = :id)",
)
# A copy from before migration 0020 has fingerprints unsealed, also of what was erased before it was made.
_FORGET_FINGERPRINTS: Final = (
    "UPDATE requests SET fingerprint = '' WHERE kind IN ('sms', 'email')"
    " AND fingerprint != '' AND id IN (SELECT request_id FROM orders WHERE erased_at_ms IS NOT NULL)"
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


def to_erase(conn: sqlite3.Connection, closed_before_ms: int, limit: int = _ALL) -> list[str]:
    """The ids of orders that were closed before and are not erased, oldest first. Raises StoreError."""
    return [row[0] for row in rows(conn, SELECT_TO_ERASE, closed_before_ms, limit)]


def erase(conn: sqlite3.Connection, ids: Sequence[str], now_ms: int) -> None:
    """Raises StoreError."""
    _run(conn, ERASE, ids, now_ms)


def erase_in_copies(path: Path, closed_before_ms: int, now_ms: int, *, is_first: bool) -> None:
    """Erases in the copies of the database at ``path`` what is to be erased in it, which stays as it is. A copy in
    which nothing can be erased, as it is damaged, is removed. ``is_first``: since the start, which may have made a copy
    with more than erasing leaves; otherwise copies are opened only where something is due. One that could not be
    written anew, for lack of room or of time, is when the next row of it is erased. May run in any thread. Raises
    StoreError."""
    found = copies(path)
    if not found:
        return
    with contextlib.closing(connect_beside(path)) as conn:
        ids = to_erase(conn, closed_before_ms)
    for copy in found if ids or is_first else ():
        try:
            with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as conn:
                overwrite_what_is_freed(conn)
                way = _way_of(conn)
                _run(conn, way, ids, now_ms)
                if way is not _TAKE_OUT:
                    conn.execute(_FORGET_FINGERPRINTS)
                if conn.total_changes:
                    rewrite_if_small(conn, copy)
        except (sqlite3.Error, StoreError):
            with contextlib.suppress(FileNotFoundError):
                copy.unlink()


def _way_of(conn: sqlite3.Connection) -> tuple[str, ...]:
    tables = {name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "keys" in tables:
        return ERASE
    return _ERASE_UNSEALED if "items" in tables else _TAKE_OUT


def _run(conn: sqlite3.Connection, statements: tuple[str, ...], ids: Sequence[str], now_ms: int) -> None:
    with transaction(conn):
        for order_id in ids:
            for statement in statements:
                conn.execute(statement, {"id": order_id, "now_ms": now_ms})
