"""A database of the release before packing and sealing (migrations 0001 to 0008): nothing of it is lost.

``fixtures/database-0008.sql`` is the dump of one that this release wrote, through its own machine: 32 orders of every
kind and both fundings, in every sort of state; one of the account and one that was paid are erased.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from holdpay.audit.check import read_stored
from holdpay.audit.findings import Severity
from holdpay.core.kinds import SmsSpec
from holdpay.core.states import End
from holdpay.errors import OrderUnreadable
from holdpay.ports import MoneyTotals
from holdpay.store.changes import change
from holdpay.store.sealing import NO_KEY
from holdpay.store.store import SqliteStore
from tests.dumps import as_it_was, as_sealed, restore
from tests.spoiling import look
from tests.unit.build import HOUR, NOW_MS, POLICY, S

DUMP = Path(__file__).parents[2] / "fixtures" / "database-0008.sql"
COUNT = 32
ERASED = {"old0000012", "old0000033"}
SECRETS = (b"15551234567", b"012345", b"meet me", b"See you at eight", b"satoshi@example.com", b"447700900123", b"5512")
"""Unsealed in the database before."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return restore(DUMP, tmp_path / "holdpay.db")


@pytest.fixture
def before() -> Iterator[sqlite3.Connection]:
    """The database as it was."""
    with as_it_was(DUMP) as conn:
        yield conn


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as store:
        yield store


OF_AN_ORDER = {
    "payments": "SELECT o.id, p.* FROM payments p JOIN orders o ON o.{key} ORDER BY 1",
    "charges": "SELECT o.id, c.* FROM charges c JOIN orders o ON o.{key} ORDER BY 1",
    "htlc_attempts": "SELECT payment_hash, a.* FROM htlc_attempts a {payment} ORDER BY 1, attempt_id",
    "ledger": "SELECT o.id AS of_order, l.* FROM ledger l JOIN orders o ON o.{key} ORDER BY l.id",
}


@pytest.mark.parametrize("table", ["requests", "orders", *OF_AN_ORDER])
def test_every_column_of_every_row_is_as_it_was(table: str, before: sqlite3.Connection, store: SqliteStore) -> None:
    sql = OF_AN_ORDER.get(table, f"SELECT * FROM {table} ORDER BY id")
    then = [as_sealed(dict(row)) for row in before.execute(sql.format(key="id = order_id", payment=""))]
    payment = "JOIN payments p ON p.order_no = a.order_no"
    now = [dict(row) for row in store._rows(sql.format(key="no = order_no", payment=payment))]
    assert len(then) > 4
    # A payment's payreq is its order's, and a ledger's request too.
    left_out = {"order_id", "request_id"} if table == "ledger" else {"order_id", "payreq"} - set(now[0])
    assert [{name: row[name] for name in row if name not in left_out} for row in then] == [
        {name: row[name] for name in row if name in then[0]} for row in now
    ]


@pytest.mark.parametrize("table", ["journal", "replies", "items"])
def test_what_is_packed_and_sealed_now_says_what_it_said(
    table: str, before: sqlite3.Connection, store: SqliteStore
) -> None:
    sql = f"SELECT * FROM {table} ORDER BY {'order_id, seq' if table == 'items' else 'cursor'}"
    then = [_said(dict(row)) for row in before.execute(sql)]
    now = [_said(dict(row)) for row in look(store._conn, sql)]
    assert len(then) == len(now) > 20
    assert then == now


def _said(row: dict[str, Any]) -> dict[str, Any]:
    if "change" in row:
        row["change"] = {name: value for name, value in json.loads(row["change"]).items() if name != "payment.payreq"}
        row["notes"] = json.loads(row["notes"])
    return row


def test_every_order_is_what_its_journal_adds_up_to(store: SqliteStore) -> None:
    updates = store.updates(0, None, 10_000)
    last = {update.order.id: update.order for update in updates}
    assert len(last) == COUNT
    for order_id, order in last.items():
        assert store.get(order_id) == order
    paid = store.get("old0000007")
    assert (paid.code, paid.number, paid.end, paid.spent_msat) == ("012345", "15551234567", End.FULFILLED, 2_001_002)
    assert paid.payment is not None
    assert paid.payment.payreq == paid.payreq == change(None, paid).order["payreq"]
    sms = store.get("old0000025").spec
    assert isinstance(sms, SmsSpec)
    assert (sms.phone, sms.message) == ("+19871234567", "See you at eight.")
    assert [item.text for item in store.get("old0000027").items][-1] == "Ünïcode: 998877"
    for order_id in ERASED:
        assert store.get(order_id).items == ()


def test_the_limits_count_what_they_counted(store: SqliteStore) -> None:
    assert store.totals(NOW_MS + HOUR) == MoneyTotals(
        open_orders=13, settled_orders=6, pending_msat=26_340_000, spent_day_msat=26_008_016
    )


def test_the_audit_finds_what_it_found_which_is_nothing(path: Path, store: SqliteStore) -> None:
    found = read_stored(path, POLICY, NOW_MS + HOUR)
    assert [finding for finding in found.findings if finding.severity > Severity.NOTE] == []
    assert store._rows("PRAGMA foreign_key_check") == []


def test_it_has_the_tables_of_a_new_one(store: SqliteStore, tmp_path: Path) -> None:
    tables = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY 1, 2"
    with closing(SqliteStore(tmp_path / "new.db")) as new:
        assert [tuple(row) for row in store._rows(tables)] == [tuple(row) for row in new._rows(tables)]


def test_nothing_that_is_sealed_now_is_left_as_it_was_and_the_file_is_smaller(path: Path) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("VACUUM")
    content = path.read_bytes()
    assert all(secret in content for secret in SECRETS if secret != b"meet me")
    SqliteStore(path).close()
    assert not any(secret in path.read_bytes() for secret in SECRETS)
    assert len(path.read_bytes()) < 0.9 * len(content), "half of it are pages that begin a table or an index"


def test_keys_are_drawn_but_for_what_is_erased(store: SqliteStore) -> None:
    keys = {row["id"]: row["key"] for row in store._rows("SELECT id, key FROM keys JOIN orders ON no = order_no")}
    assert {order_id for order_id, key in keys.items() if key == NO_KEY} == ERASED
    assert len(set(keys.values())) == COUNT - len(ERASED) + 1


def test_in_the_copy_an_order_is_erased_too(path: Path, store: SqliteStore) -> None:
    (copy,) = path.parent.glob("holdpay.db.before-*")
    assert copy.name == "holdpay.db.before-0009_compact"
    assert b"15553333333" in copy.read_bytes()
    erased = sum(store.erase_codes(NOW_MS + 100 * S, NOW_MS + HOUR))
    assert erased > 4
    assert b"15553333333" not in copy.read_bytes()
    with closing(sqlite3.connect(copy)) as conn:
        assert conn.execute("SELECT count(*) FROM orders").fetchone() == (COUNT,)
        assert conn.execute("PRAGMA foreign_key_check").fetchall() == []


def test_cursors_go_on_where_they_were_even_if_the_last_rows_are_gone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("DROP TRIGGER journal_is_kept")
        (last,) = conn.execute("SELECT max(cursor) FROM journal").fetchone()
        conn.execute("DELETE FROM journal WHERE cursor = ?", (last,))
        conn.commit()
    SqliteStore(path).close()
    assert "journal-gap" in {finding.code for finding in read_stored(path, POLICY, NOW_MS + HOUR).findings}


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE journal SET change = '{' WHERE order_id = 'old0000006' AND event = 'order_placed'",
        "UPDATE journal SET event = CAST(x'ff' AS TEXT) WHERE order_id = 'old0000006' AND event = 'order_placed'",
        "UPDATE items SET kind = 'nonsense' WHERE order_id = 'old0000006'",
        "UPDATE replies SET raw_sha256 = 'x' WHERE cursor IN (SELECT cursor FROM journal WHERE order_id LIKE '%06')",
        "UPDATE orders SET state = 'nonsense' WHERE id = 'old0000006'",
    ],
)
def test_a_row_that_made_no_sense_is_no_reason_not_to_start_and_makes_none_afterwards(path: Path, damage: str) -> None:
    with closing(sqlite3.connect(path)) as conn:
        for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            conn.execute(f"DROP TRIGGER {name}")
        conn.execute(damage)
        conn.commit()
    with closing(SqliteStore(path)) as store:
        assert store.get("old0000007").code == "012345"
        if "items" in damage or "orders" in damage:
            with pytest.raises(OrderUnreadable):
                store.get("old0000006")
    found = read_stored(path, POLICY, NOW_MS + HOUR)
    assert "old0000006" in {finding.order_id for finding in found.findings if finding.severity > Severity.NOTE}
