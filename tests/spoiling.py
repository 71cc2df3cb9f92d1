"""A database looked into, and changed, behind holdpay's back: what it has packed and sealed lies open meanwhile."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from holdpay.store.journal import name_of_hash, name_of_reply
from holdpay.store.packing import absolute, pack, relative, unpack
from holdpay.store.reading import name_of_item
from holdpay.store.sealing import seal, unseal

_OPEN = (
    "CREATE TEMP TABLE journal (cursor INTEGER PRIMARY KEY, order_id, at_ms, event, change, data, notes)",
    "CREATE TEMP TABLE replies (cursor INTEGER PRIMARY KEY, data, raw, raw_sha256)",
    "CREATE TEMP TABLE items (order_id, seq, kind, text, seen_at_ms, may_lack_zeros, cursor)",
)
_JOURNAL = """
    SELECT j.cursor, j.at_ms, j.entry, o.id, k.key, r.said, r.raw_sha256 FROM main.journal j
    JOIN main.orders o ON o.no = j.order_no JOIN main.keys k ON k.order_no = o.no
    LEFT JOIN main.replies r USING (cursor)
"""
_ITEMS = """
    SELECT o.id, k.key, i.* FROM main.items i JOIN main.orders o ON o.no = i.order_no
    JOIN main.keys k ON k.order_no = o.no
"""


def look(conn: sqlite3.Connection, sql: str, *values: Any) -> list[sqlite3.Row]:
    """What a query finds where ``journal``, ``replies`` and ``items`` have their texts as columns, and ``order_id``."""
    with opened(conn):
        return conn.execute(sql, values).fetchall()


def spoil(path: Path, *statements: str) -> None:
    """As a person with sqlite3 would, who first drops the triggers that are in the way. See ``look`` for what they may
    change."""
    with sqlite3.connect(path, isolation_level=None) as conn:
        conn.row_factory = sqlite3.Row
        triggers = conn.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            conn.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            if any(f" {table}" in statement for table in ("journal", "replies", "items")):
                with opened(conn):
                    conn.execute(statement)
                    _write_back(conn)
            else:
                conn.execute(statement)
        for _, sql in triggers:
            conn.execute(sql)
    conn.close()


@contextlib.contextmanager
def opened(conn: sqlite3.Connection) -> Iterator[None]:
    """Meanwhile the texts lie open; see ``look``."""
    for statement in _OPEN:
        conn.execute(statement)
    try:
        for row in conn.execute(_JOURNAL).fetchall():
            _open_row(conn, row)
        for row in conn.execute(_ITEMS).fetchall():
            name = name_of_item(row["cursor"], row["seq"])
            text = unseal(row["key"], name, row["text"]).decode() if isinstance(row["text"], bytes) else row["text"]
            values = (row["id"], row["seq"], row["kind"], text, row["seen_at_ms"], row["may_lack_zeros"], row["cursor"])
            conn.execute("INSERT INTO temp.items VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        yield
    finally:
        for table in ("journal", "replies", "items"):
            conn.execute(f"DROP TABLE temp.{table}")


def _open_row(conn: sqlite3.Connection, row: sqlite3.Row) -> None:
    entry, cursor = unpack(row["entry"]), row["cursor"]
    event, change, data, notes, *_ = [*absolute(entry, row["at_ms"]).split("\n"), None, None]
    values = (cursor, row["id"], row["at_ms"], event, change, data or None, notes or "[]")
    conn.execute("INSERT INTO temp.journal VALUES (?, ?, ?, ?, ?, ?, ?)", values)
    if row["said"] is not None:
        said, nul, raw = unpack(unseal(row["key"], name_of_reply(cursor), row["said"]), entry).partition("\0")
        digest = row["raw_sha256"] and unseal(row["key"], name_of_hash(cursor), row["raw_sha256"]).hex()
        told = (cursor, absolute(said, row["at_ms"]), raw if nul else None, digest)
        conn.execute("INSERT INTO temp.replies VALUES (?, ?, ?, ?)", told)


def _write_back(conn: sqlite3.Connection) -> None:
    rows = {
        row["id"]: row for row in conn.execute("SELECT o.id, o.no, k.key FROM orders o JOIN keys k ON order_no = no")
    }
    replies = {row["cursor"]: row for row in conn.execute("SELECT * FROM temp.replies")}
    items = conn.execute("SELECT * FROM temp.items").fetchall()
    for table in ("replies", "journal", "items"):
        conn.execute(f"DELETE FROM main.{table}")
    for row in conn.execute("SELECT * FROM temp.journal ORDER BY cursor").fetchall():
        cursor, at_ms, order = row["cursor"], row["at_ms"], rows[row["order_id"]]
        text = relative("\n".join((row["event"], row["change"], row["data"] or "", row["notes"])), at_ms)
        conn.execute(
            "INSERT INTO main.journal (cursor, order_no, at_ms, entry) VALUES (?, ?, ?, ?)",
            (cursor, order["no"], at_ms, pack(text)),
        )
        if cursor in replies:
            found = replies[cursor]
            said = relative(found["data"], at_ms) + ("" if found["raw"] is None else f"\0{found['raw']}")
            sealed = seal(order["key"], name_of_reply(cursor), pack(said, text))
            digest = found["raw_sha256"] and seal(
                order["key"], name_of_hash(cursor), bytes.fromhex(found["raw_sha256"])
            )
            conn.execute("INSERT INTO main.replies VALUES (?, ?, ?)", (cursor, sealed, digest))
    for row in items:
        order = rows[row["order_id"]]
        delivered = row["text"]
        if row["kind"] != "sending":
            delivered = seal(order["key"], name_of_item(row["cursor"], row["seq"]), delivered.encode())
        values = (
            order["no"],
            row["seq"],
            row["kind"],
            delivered,
            row["seen_at_ms"],
            row["may_lack_zeros"],
            row["cursor"],
        )
        conn.execute("INSERT INTO main.items VALUES (?, ?, ?, ?, ?, ?, ?)", values)
