"""Migration 0008: what the tables before had goes into those of ``ground``. It never changes any more.

A snapshot of the order in each journal row becomes the change from the one before; what was delivered becomes items;
what the provider said goes to the replies, and that of an erased order nowhere.
"""

# ruff: noqa: S608 - names of our own columns only
from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sqlite_utils import Database

from holdpay.store.ground import INDEXES, TABLES, TRIGGERS

_EARLIER: Final = ("htlc_attempts", "payments", "journal", "orders")
"""Children first."""
_INDEXES_BEFORE: Final = (
    "orders_open",
    "orders_created",
    "orders_provider_order_id",
    "orders_to_erase",
    "payments_spent",
    "journal_order",
)
_ENDS: Final = {
    "code_received": "fulfilled",
    "code_free": "fulfilled_free",
    "charged_without_code": "charged_unfulfilled",
}
"""What was named for codes."""
_NEW_END: Final = 'CASE "end" ' + " ".join(f"WHEN '{a}' THEN '{b}'" for a, b in _ENDS.items()) + ' ELSE "end" END'
_SAME_OF_ORDER: Final = """
    created_at_ms, pay_by_ms, max_price_sat, max_fee_sat, quote_sat, state, state_since_ms, place_count, place_at_ms,
    provider_order_id, payreq, provider_text, cancel_wanted_at_ms, cancel_at_ms, giving_up, anomaly_count, closed_at_ms,
    reason, erased_at_ms, quarantined_at_ms, quarantine_reason, reserved_msat
"""
_OF_PAYMENT: Final = """
    payment_hash, order_id, payreq, payee, amount_msat, expires_at_ms, final_cltv_delta, node_pubkey, node_network,
    htlc, htlc_since_ms, dispatch_count, fee_limit_msat, dispatch_at_ms, is_known_to_lnd, reached_payee,
    money_out_since_ms,
    expiry_height, fee_msat, attempt_count, preimage, failure_reason, failure_failure_class, failure_attempt_count,
    failure_payment_index, failure_at_ms, unpaid_since_ms, unpaid_again_at_ms, absent_since_ms, refusal,
    was_there_before, gone_since_ms, first_look_height, uncarried_since_ms, is_paid_before
"""
_OF_ATTEMPT: Final = """
    payment_hash, dispatch, attempt_id, status, amount_msat, fee_msat, expiry_height, hop_count, attempted_at_ms,
    resolved_at_ms, failure_code, failure_source_index
"""
_MAY_HOLD_GOODS: Final = """
    (event IN ('provider_replied', 'provider_confused') OR raw IS NOT NULL OR raw_sha256 IS NOT NULL)
"""
_MOVE_JOURNAL_ROW: Final = f"""
    INSERT INTO journal (cursor, order_id, at_ms, event, change, data, notes)
    SELECT cursor, order_id, at_ms, event, :change, iif({_MAY_HOLD_GOODS}, NULL, data), notes
    FROM earlier_journal WHERE cursor = :cursor
"""
_MOVE_REPLIES: Final = f"""
    INSERT INTO replies (cursor, data, raw, raw_sha256)
    SELECT cursor, data, raw, raw_sha256 FROM earlier_journal WHERE order_id = ? AND {_MAY_HOLD_GOODS} ORDER BY cursor
"""
_COPY: Final = (
    """
    INSERT INTO requests (id, key, fingerprint, kind, spec, is_prepaid, created_at_ms)
    SELECT id, key, fingerprint, kind, '{}', 0, created_at_ms FROM earlier_orders ORDER BY rowid
    """,
    f"""
    INSERT INTO orders (id, request_id, kind, "end", {_SAME_OF_ORDER})
    SELECT id, id, kind, {_NEW_END}, {_SAME_OF_ORDER} FROM earlier_orders ORDER BY rowid
    """,
    f"INSERT INTO payments ({_OF_PAYMENT}) SELECT {_OF_PAYMENT} FROM earlier_payments ORDER BY rowid",
    f"INSERT INTO htlc_attempts ({_OF_ATTEMPT}) SELECT {_OF_ATTEMPT} FROM earlier_htlc_attempts",
    """
    INSERT INTO ledger (request_id, order_id, what, msat, at_ms)
    SELECT id, id, 'reserve', reserved_msat, created_at_ms FROM earlier_orders WHERE reserved_msat > 0 ORDER BY rowid
    """,
    """
    INSERT INTO ledger (request_id, order_id, what, msat, at_ms)
    SELECT order_id, order_id, 'spend', amount_msat + fee_msat, htlc_since_ms FROM earlier_payments
    WHERE htlc IN ('settled', 'gone') AND NOT is_paid_before ORDER BY rowid
    """,
)


def move(db: Database) -> None:
    """Makes the tables, and moves into them what those before had. Within the caller's transaction.

    What makes no sense (a disk that lost a bit) is moved as it is, as far as a column can hold it: it is no reason not
    to start, and is found by whoever reads the order.
    """
    conn = db.conn
    text_factory, conn.text_factory = conn.text_factory, lambda data: data.decode(errors="replace")
    try:
        for index in _INDEXES_BEFORE:
            db.execute(f"DROP INDEX {index}")
        for table in _EARLIER:
            db.execute(f"ALTER TABLE {table} RENAME TO earlier_{table}")
        for statement in (*TABLES, *_COPY):
            db.execute(statement)
        db.execute("CREATE INDEX earlier_journal_order ON earlier_journal (order_id, cursor)")
        for (order_id,) in db.execute("SELECT id FROM earlier_orders ORDER BY rowid").fetchall():
            _move_order(db, order_id)
        for table in _EARLIER:
            db.execute(f"DROP TABLE earlier_{table}")
        for statement in (*INDEXES, *TRIGGERS):
            db.execute(statement)
    finally:
        conn.text_factory = text_factory


def _move_order(db: Database, order_id: str) -> None:
    seen = _Seen()
    columns: dict[str, Any] = {}
    journal = "SELECT cursor, at_ms, snapshot FROM earlier_journal WHERE order_id = ? ORDER BY cursor"
    for cursor, at_ms, text in db.execute(journal, [order_id]).fetchall():
        snapshot = _object(text)
        before, columns = columns, dict(_columns(snapshot)) or columns
        changed = {name: value for name, value in columns.items() if before.get(name) != value}
        changed |= {name: None for name, value in before.items() if value is not None and name not in columns}
        db.execute(_MOVE_JOURNAL_ROW, {"cursor": cursor, "change": json.dumps(changed, separators=(",", ":"))})
        seen.look(snapshot, cursor, at_ms)
    names = ("params", "erased_at_ms", *_DELIVERED)
    selected = f"SELECT {', '.join(names)} FROM earlier_orders WHERE id = ?"
    order = dict(zip(names, db.execute(selected, [order_id]).fetchone(), strict=True))
    db.execute("UPDATE requests SET spec = ? WHERE id = ?", [_spec(order["params"]), order_id])
    if order["erased_at_ms"] is None:
        db.execute(_MOVE_REPLIES, [order_id])
        insert = (
            "INSERT INTO items (order_id, seq, kind, text, may_lack_zeros, cursor, seen_at_ms) VALUES (?,?,?,?,?,?,?)"
        )
        for seq, item in enumerate(_items(order, seen)):
            db.execute(insert, [order_id, seq, *item])


_DELIVERED: Final = (
    "number",
    "earlier_numbers",
    "code",
    "code_may_lack_zeros",
    "later_codes",
    "unread",
    "unread_has_value",
)
_KEPT_COLUMNS: Final = frozenset({"id", *_SAME_OF_ORDER.replace(",", " ").split()} - {"erased_at_ms", "reserved_msat"})


def _columns(snapshot: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Of the order right after an event, as a change has them. What is NULL is left out."""
    payment = snapshot.get("payment") or {}
    failure = payment.get("failure") or {}
    found = {name: value for name, value in snapshot.items() if name in _KEPT_COLUMNS}
    found |= {"end": _ENDS.get(snapshot.get("end", ""), snapshot.get("end"))}
    found |= {f"payment.{name}": value for name, value in payment.items() if name != "failure"}
    found |= {f"payment.failure_{name}": value for name, value in failure.items()}
    for name, value in found.items():
        if value is not None:
            yield name, int(value) if isinstance(value, bool) else value


def _spec(params: str) -> str:
    given = _object(params)
    try:
        country = given.get("country")
        names = {name: given[name] for name in ("country_name", "service", "service_name")}
        number = None if country is None else int(country)
    except (KeyError, ValueError, TypeError):
        return "{}"
    return json.dumps({"kind": "code", "country": number, **names, "is_real_phone": False, "ref": None})


def _object(text: Any) -> dict[str, Any]:
    """Empty if it is none."""
    try:
        found = json.loads(text)
    except (ValueError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


class _Seen:
    """When each thing that was delivered was there first: cursor and time."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, Any], tuple[int, int]] = {}
        self._last = (0, 0)

    def look(self, snapshot: Mapping[str, Any], cursor: int, at_ms: int) -> None:
        self._last = (cursor, at_ms)
        for kind, names in (("number", ("number",)), ("code", ("code", "later_codes")), ("unread", ("unread",))):
            for name in names:
                found = snapshot.get(name)
                for text in found if isinstance(found, list) else [found]:
                    self._first.setdefault((kind, text), self._last)

    def at(self, kind: str, text: str) -> tuple[int, int]:
        return self._first.get((kind, text), self._last)


def _items(order: Mapping[str, Any], seen: _Seen) -> list[tuple[str, str, int, int, int]]:
    """Kind, text, whether it may lack zeros, and where it was seen first; oldest first."""
    numbers = [*_texts(order["earlier_numbers"]), order["number"]]
    codes = [order["code"], *_texts(order["later_codes"])]
    found = []
    for kind, texts in (("number", numbers), ("code", codes), ("unread", [order["unread"]])):
        at = (0, 0)
        for text in texts:
            if text is None:
                continue
            at = max(at, seen.at(kind, text))
            may_lack_zeros = int(kind == "code" and text == order["code"] and bool(order["code_may_lack_zeros"]))
            name = "unread_maybe" if kind == "unread" and not order["unread_has_value"] else kind
            found.append((name, text, may_lack_zeros, *at))
    # What was there and is no list of text makes the order unreadable, as it was.
    found += [
        ("nonsense", order[name], 0, 0, 0)
        for name in ("earlier_numbers", "later_codes")
        if _texts(order[name]) is _NONE
    ]
    return sorted(found, key=lambda item: item[3])


_NONE: Final[list[str]] = []


def _texts(text: str) -> list[str]:
    """``_NONE`` if it is no list of text."""
    try:
        found = json.loads(text)
    except ValueError:
        return _NONE
    is_list = isinstance(found, list) and all(isinstance(value, str) for value in found)
    return [*found] if is_list else _NONE
