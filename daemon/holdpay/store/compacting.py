"""Migration 0009: what the tables of ``ground`` had goes into those of ``tables``. It never changes any more."""

# ruff: noqa: S608 - names of our own columns only
from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from sqlite_utils import Database

from holdpay.store.packing import pack, relative
from holdpay.store.sealing import NO_KEY, new_key, seal
from holdpay.store.tables import INDEXES, TABLES, TRIGGERS

_EARLIER: Final = (
    "ledger",
    "items",
    "replies",
    "journal",
    "charges",
    "htlc_attempts",
    "payments",
    "secrets",
    "orders",
)
"""Children first."""
_ORDER: Final = """
    id, request_id, kind, created_at_ms, pay_by_ms, max_price_sat, max_fee_sat, quote_sat, state, state_since_ms,
    place_count, place_at_ms, provider_order_id, payreq, provider_text, cancel_wanted_at_ms, cancel_at_ms, giving_up,
    anomaly_count, closed_at_ms, "end", reason, erased_at_ms, quarantined_at_ms, quarantine_reason, reserved_msat
"""
_PAYMENT: Final = """
    payment_hash, payee, amount_msat, expires_at_ms, final_cltv_delta, node_pubkey, node_network, htlc, htlc_since_ms,
    dispatch_count, fee_limit_msat, dispatch_at_ms, is_known_to_lnd, reached_payee, money_out_since_ms, expiry_height,
    fee_msat, attempt_count, preimage, failure_reason, failure_failure_class, failure_attempt_count,
    failure_payment_index, failure_at_ms, unpaid_since_ms, unpaid_again_at_ms, absent_since_ms, refusal,
    was_there_before, gone_since_ms, first_look_height, uncarried_since_ms, is_paid_before
"""
_ATTEMPT: Final = """
    dispatch, attempt_id, status, amount_msat, fee_msat, expiry_height, hop_count, attempted_at_ms, resolved_at_ms,
    failure_code, failure_source_index
"""
_CHARGE: Final = "state, since_ms, amount_sat, balance_before_sat, intended_at_ms, unmoved_since_ms"
# A row of an order that is not there (only damage makes one) stays behind, in the copy.
_COPY: Final = (
    f"INSERT INTO orders (no, {_ORDER}) SELECT rowid, {_ORDER} FROM earlier_orders ORDER BY rowid",
    f"""
    INSERT INTO payments (order_no, {_PAYMENT})
    SELECT o.rowid, {_PAYMENT} FROM (SELECT rowid, id FROM earlier_orders) o
    JOIN earlier_payments p ON p.order_id = o.id ORDER BY o.rowid
    """,
    f"""
    INSERT INTO htlc_attempts (order_no, {_ATTEMPT})
    SELECT order_no, {_ATTEMPT} FROM earlier_htlc_attempts a JOIN
      (SELECT order_no, payment_hash FROM payments) p ON p.payment_hash = a.payment_hash ORDER BY order_no, attempt_id
    """,
    f"""
    INSERT INTO charges (order_no, {_CHARGE})
    SELECT o.rowid, {", ".join(f"c.{name.strip()}" for name in _CHARGE.split(","))}
    FROM earlier_orders o JOIN earlier_charges c ON c.order_id = o.id ORDER BY o.rowid
    """,
    """
    INSERT INTO ledger (id, order_no, what, msat, at_ms)
    SELECT l.id, o.rowid, what, msat, at_ms FROM earlier_ledger l JOIN earlier_orders o ON o.id = l.order_id
    ORDER BY l.id
    """,
)
_JOURNAL: Final = """
    SELECT j.cursor, o.rowid AS no, j.at_ms, j.event, j.change, j.data, j.notes, r.data AS said, r.raw, r.raw_sha256,
      p.payreq
    FROM earlier_journal j JOIN earlier_orders o ON o.id = j.order_id LEFT JOIN earlier_replies r ON r.cursor = j.cursor
    LEFT JOIN earlier_payments p ON p.order_id = o.id
    ORDER BY j.cursor
"""
_ITEMS: Final = """
    SELECT o.rowid AS no, seq, i.kind, text, seen_at_ms, may_lack_zeros, cursor
    FROM earlier_items i JOIN earlier_orders o ON o.id = i.order_id ORDER BY o.rowid, seq
"""
_SECRETS: Final = """
    SELECT o.rowid AS no, s.request_id, s.spec
    FROM earlier_secrets s JOIN earlier_orders o ON o.request_id = s.request_id ORDER BY o.rowid
"""


def compact(db: Database) -> None:
    """Makes the tables, and moves into them what those before had. Within the caller's transaction.

    What makes no sense (a disk that lost a bit) is moved as it is, as far as a column can hold it: it is no reason not
    to start, and is found by whoever reads the order.
    """
    conn = db.conn
    text_factory, conn.text_factory = conn.text_factory, lambda data: data.decode(errors="replace")
    try:
        for (name,) in db.execute(
            "SELECT name FROM sqlite_master WHERE type IN ('index', 'trigger') AND sql IS NOT NULL"
            f" AND tbl_name IN ({', '.join('?' * len(_EARLIER))}) AND type = 'index'",
            list(_EARLIER),
        ).fetchall():
            db.execute(f"DROP INDEX {name}")
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name}")
        for table in _EARLIER:
            db.execute(f"ALTER TABLE {table} RENAME TO earlier_{table}")
        for statement in (*TABLES, *_COPY):
            db.execute(statement)
        _move_what_is_sealed(db)
        (given,) = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'earlier_journal'").fetchone() or (0,)
        for table in _EARLIER:
            db.execute(f"DROP TABLE earlier_{table}")
        db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'journal'", [given])
        for statement in (*INDEXES, *TRIGGERS):
            db.execute(statement)
    finally:
        conn.text_factory = text_factory


def _move_what_is_sealed(db: Database) -> None:
    keys: dict[int, bytes] = {}
    for no, erased_at_ms in db.execute("SELECT no, erased_at_ms FROM orders ORDER BY no"):
        keys[no] = new_key() if erased_at_ms is None else NO_KEY
        db.execute("INSERT INTO keys (order_no, key) VALUES (?, ?)", [no, keys[no]])
    for row in db.execute(_JOURNAL):
        _move_journal_row(db, keys, *row)
    for no, seq, kind, text, seen_at_ms, may_lack_zeros, cursor in db.execute(_ITEMS):
        sealed = text if kind == "sending" else seal(keys[no], f"item {cursor} {seq}", text.encode())
        db.execute(
            "INSERT INTO items (order_no, seq, kind, text, seen_at_ms, may_lack_zeros, cursor) VALUES (?,?,?,?,?,?,?)",
            [no, seq, kind, sealed, seen_at_ms, may_lack_zeros, cursor],
        )
    for no, request_id, spec in db.execute(_SECRETS):
        sealed = seal(keys[no], "spec", spec.encode())
        db.execute("INSERT INTO secrets (request_id, spec) VALUES (?, ?)", [request_id, sealed])


def _move_journal_row(
    db: Database,
    keys: dict[int, bytes],
    cursor: int,
    no: int,
    at_ms: int,
    event: str,
    change: str,
    data: str | None,
    notes: str,
    said: str | None,
    raw: str | None,
    raw_sha256: str | None,
    payreq: str | None,
) -> None:
    lines = [event, relative(_without_payreq(change, payreq), at_ms)]
    if data is not None or notes != "[]":
        lines.append("" if data is None else relative(data, at_ms))
    if notes != "[]":
        lines.append(notes)
    text = "\n".join(lines)
    db.execute(
        "INSERT INTO journal (cursor, order_no, at_ms, entry) VALUES (?, ?, ?, ?)", [cursor, no, at_ms, pack(text)]
    )
    if said is None:
        return
    packed = pack(relative(said, at_ms) + ("" if raw is None else f"\0{raw}"), text)
    digest = None if raw_sha256 is None else _digest(raw_sha256)
    db.execute(
        "INSERT INTO replies (cursor, said, raw_sha256) VALUES (?, ?, ?)",
        [
            cursor,
            seal(keys[no], f"reply {cursor}", packed),
            None if digest is None else seal(keys[no], f"sha256 {cursor}", digest),
        ],
    )


def _without_payreq(change: str, payreq: str | None) -> str:
    """An order and its payment have the same."""
    name = "payment.payreq"
    try:
        columns: dict[str, Any] = json.loads(change)
        if columns.get(name) != payreq or payreq is None:
            return change
        del columns[name]
    except (ValueError, AttributeError):
        return change
    return json.dumps(columns, separators=(",", ":"))


def _digest(raw_sha256: str) -> bytes:
    """One that makes no sense is told by that of nothing, which fits no reply."""
    try:
        return bytes.fromhex(raw_sha256)
    except ValueError:
        return hashlib.sha256().digest()
