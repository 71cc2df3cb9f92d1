"""The record of payees: every node whose hold invoice was vetted and taken, and those that a person trusts.

The daemon writes it in the transaction that records the payment; `holdpayd payees` reads and writes it beside a running
daemon. Nothing of it is kept in memory.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from holdpay.core.payees import Payee, Standing, Trust
from holdpay.store.rows import Row

TABLES: Final = (
    """
    CREATE TABLE payees (
      pubkey TEXT PRIMARY KEY,
      trust TEXT CHECK (trust IN ('list', 'first-use', 'by-hand')),  -- NULL: paid, but not trusted
      added_at_ms INTEGER NOT NULL,
      first_order_no INTEGER REFERENCES orders (no),
      last_seen_at_ms INTEGER,
      times INTEGER NOT NULL                                         -- vetted invoices
    ) STRICT
    """,
    "CREATE INDEX payees_trusted ON payees (last_seen_at_ms, pubkey) WHERE trust IS NOT NULL",
)

_SEEN: Final = """
    INSERT INTO payees (pubkey, trust, added_at_ms, first_order_no, last_seen_at_ms, times)
    VALUES (:pubkey, :trust, :now_ms, :order_no, :now_ms, 1)
    ON CONFLICT (pubkey) DO UPDATE SET trust = coalesce(trust, excluded.trust),
      first_order_no = coalesce(first_order_no, excluded.first_order_no),
      last_seen_at_ms = excluded.last_seen_at_ms, times = times + 1
"""
_ADD: Final = """
    INSERT INTO payees (pubkey, trust, added_at_ms, times) VALUES (:pubkey, 'by-hand', :now_ms, 0)
    ON CONFLICT (pubkey) DO UPDATE SET trust = 'by-hand' WHERE trust IS NULL
"""
ALL: Final = """
    SELECT p.pubkey, p.trust, p.added_at_ms, o.id AS first_order, p.last_seen_at_ms, p.times
    FROM payees p LEFT JOIN orders o ON o.no = p.first_order_no ORDER BY p.added_at_ms, p.pubkey
"""
TRUSTED: Final = "SELECT pubkey FROM payees WHERE trust IS NOT NULL ORDER BY last_seen_at_ms DESC, pubkey DESC"


def note_payee(conn: sqlite3.Connection, pubkey: str, trust: Trust | None, order_no: int, now_ms: int) -> None:
    """An invoice of it was vetted and taken. One that is trusted already stays so for its first reason."""
    values: Row = {"pubkey": pubkey, "trust": trust, "order_no": order_no, "now_ms": now_ms}
    conn.execute(_SEEN, values)


def standing_of(conn: sqlite3.Connection, pubkey: str) -> Standing:
    """What the record says of a payee."""
    trusted = trusted_payees(conn)
    if not trusted:
        return Standing.FIRST
    return Standing.TRUSTED if pubkey in trusted else Standing.STRANGER


def trusted_payees(conn: sqlite3.Connection) -> list[str]:
    """The one that was paid last comes first."""
    return [pubkey for (pubkey,) in conn.execute(TRUSTED)]


def all_payees(conn: sqlite3.Connection) -> list[Payee]:
    """Oldest first."""
    return [
        Payee(
            pubkey=pubkey,
            trust=None if trust is None else Trust(trust),
            added_at_ms=added_at_ms,
            first_order=first_order,
            last_seen_at_ms=last_seen_at_ms,
            times=times,
        )
        for pubkey, trust, added_at_ms, first_order, last_seen_at_ms, times in conn.execute(ALL)
    ]


def add_payee(conn: sqlite3.Connection, pubkey: str, now_ms: int) -> bool:
    """Trusts it. False: it is trusted already."""
    return conn.execute(_ADD, {"pubkey": pubkey, "now_ms": now_ms}).rowcount > 0


def remove_payee(conn: sqlite3.Connection, pubkey: str) -> bool:
    """Forgets it. False: there is no such row."""
    return conn.execute("DELETE FROM payees WHERE pubkey = ?", (pubkey,)).rowcount > 0
