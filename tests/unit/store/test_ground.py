"""A database of the release before requests, items and the ledger (migrations 0001 to 0007): nothing of it is lost.

``fixtures/database-0007.sql`` is the dump of one that this release wrote, through its own machine: 24 orders of every
sort, among them open ones in flight, settled and refunded ones, one each in quarantine, erased, recovered, written off,
with replaced numbers and later codes, and with replies that could not be read.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from holdpay.core.items import ItemKind
from holdpay.core.kinds import CodeSpec
from holdpay.core.model import UNKNOWN, Order
from holdpay.core.states import End
from holdpay.errors import OrderUnreadable
from holdpay.ports import MoneyTotals
from holdpay.store.store import SqliteStore
from tests.dumps import as_it_was, restore
from tests.spoiling import look
from tests.unit.build import HOUR, NOW_MS, S

DUMP = Path(__file__).parents[2] / "fixtures" / "database-0007.sql"
COUNT = 24
ERASED = "old0000012"
ENDS = {"code_received": "fulfilled", "code_free": "fulfilled_free", "charged_without_code": "charged_unfulfilled"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return restore(DUMP, tmp_path / "holdpay.db")


@pytest.fixture
def before(path: Path) -> Iterator[sqlite3.Connection]:
    """The database as it was."""
    with as_it_was(DUMP) as conn:
        yield conn


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as store:
        yield store


def was(value: Any) -> Any:
    """As the same is called today."""
    return ENDS.get(value, value) if isinstance(value, str) else value


def test_every_column_of_every_order_and_payment_is_as_it_was(before: sqlite3.Connection, store: SqliteStore) -> None:
    for table in ("orders", "payments", "htlc_attempts"):
        order_by = "payment_hash, attempt_id" if table == "htlc_attempts" else "1"
        then = [dict(row) for row in before.execute(f"SELECT * FROM {table} ORDER BY {order_by}")]
        joined = f"{table} JOIN (SELECT order_no, payment_hash FROM payments) USING (order_no)"
        of = joined if table == "htlc_attempts" else table
        now = [dict(row) for row in store._rows(f"SELECT * FROM {of} ORDER BY {order_by}")]
        assert len(then) == len(now) > 0
        by_id = {row.get("id") or (row["payment_hash"], row.get("attempt_id")): row for row in now}
        for row in then:
            found = by_id[row.get("id") or (row["payment_hash"], row.get("attempt_id"))]
            same = set(row) & set(found)
            assert {name: was(row[name]) for name in same} == {name: found[name] for name in same}
            assert set(row) - same <= {
                "params",
                "key",
                "fingerprint",
                "code_may_lack_zeros",
                "payreq",
                "order_id",
                *DELIVERED,
            }


DELIVERED = ("number", "earlier_numbers", "code", "later_codes", "unread", "unread_has_value")


def test_what_was_delivered_is_there_in_the_same_order(before: sqlite3.Connection, store: SqliteStore) -> None:
    for row in before.execute("SELECT * FROM orders"):
        order = store.get(row["id"])
        assert (order.number, order.code, order.unread) == (
            row["number"],
            row["code"],
            (row["unread"],) if row["unread"] else (),
        )
        assert order.earlier_numbers == tuple(json.loads(row["earlier_numbers"]))
        assert order.later_codes == tuple(json.loads(row["later_codes"]))
        assert order.code_may_lack_zeros == bool(row["code_may_lack_zeros"])
        kinds = {item.kind for item in order.items}
        assert (ItemKind.UNREAD in kinds) == bool(row["unread"] and row["unread_has_value"])
        assert (ItemKind.UNREAD_MAYBE in kinds) == bool(row["unread"] and not row["unread_has_value"])
        seen = [item.seen_at_ms for item in order.items]
        assert seen == sorted(seen)
        assert all(order.created_at_ms < at_ms < NOW_MS + HOUR for at_ms in seen)
    several = store.get("old0000014")
    assert (several.number, several.earlier_numbers) == ("15553333333", ("15551111111", "15552222222"))
    assert (several.code, several.later_codes, several.code_may_lack_zeros) == ("4801", ("9922",), True)


def test_requests_are_what_was_asked_for(before: sqlite3.Connection, store: SqliteStore) -> None:
    for row in before.execute("SELECT * FROM orders"):
        order = store.get(row["id"])
        request = order.request
        assert (request.id, request.key, request.fingerprint) == (row["id"], row["key"], row["fingerprint"])
        assert not request.is_prepaid
        assert store.find_key(row["key"]) == order
    spec = store.get("old0000001").spec
    assert spec == CodeSpec(country=187, country_name="United States", service="oi", service_name="OpenAI")
    recovered = store.get("old0000020")
    unknown = CodeSpec(country=None, country_name=UNKNOWN, service=UNKNOWN, service_name=UNKNOWN)
    assert (recovered.spec, recovered.is_recovered) == (unknown, True)


def _snapshot(row: sqlite3.Row) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(row["snapshot"])
    return found


def _seen(order: Order) -> dict[str, Any]:
    payment = order.payment
    return {
        "state": order.state.value,
        "closed_at_ms": order.closed_at_ms,
        "end": order.end and order.end.value,
        "reason": order.reason,
        "number": order.number,
        "earlier_numbers": list(order.earlier_numbers),
        "code": order.code,
        "later_codes": list(order.later_codes),
        "erased_at_ms": order.erased_at_ms,
        "quarantined_at_ms": order.quarantined_at_ms,
        "anomaly_count": order.anomaly_count,
        "htlc": payment and payment.htlc.value,
        "dispatch_count": payment and payment.dispatch_count,
        "preimage": payment and payment.preimage,
        "failure_at_ms": payment and payment.failure and payment.failure.at_ms,
    }


def test_each_journal_row_tells_the_order_as_it_did(before: sqlite3.Connection, store: SqliteStore) -> None:
    rows = before.execute("SELECT * FROM journal ORDER BY cursor").fetchall()
    updates = store.updates(0, None, 10_000)
    assert [(u.cursor, u.at_ms, u.event, list(u.notes)) for u in updates] == [
        (row["cursor"], row["at_ms"], row["event"], json.loads(row["notes"])) for row in rows
    ]
    for row, update in zip(rows, updates, strict=True):
        then = _snapshot(row)
        payment = then["payment"] or {}
        then |= {name: payment.get(name) for name in ("htlc", "dispatch_count", "preimage")}
        then["failure_at_ms"] = (payment.get("failure") or {}).get("at_ms")
        then["end"] = was(then["end"])
        seen = _seen(update.order)
        assert seen == {name: then[name] for name in seen}
    for order_id in {update.order.id for update in updates}:
        assert store.updates(0, order_id, 1_000)[-1].order == store.get(order_id)


def test_events_and_replies_are_kept_but_of_the_erased_order(before: sqlite3.Connection, store: SqliteStore) -> None:
    joined = (
        "SELECT j.cursor, j.data AS own, r.data, r.raw, r.raw_sha256 FROM journal j LEFT JOIN replies r USING (cursor)"
    )
    now = {row["cursor"]: row for row in look(store._conn, joined)}
    kept = 0
    for row in before.execute("SELECT * FROM journal"):
        found = now[row["cursor"]]
        is_reply = row["event"] in {"provider_replied", "provider_confused"} or row["raw_sha256"] is not None
        if is_reply and row["order_id"] == ERASED:
            assert (found["own"], found["data"], found["raw"]) == (None, None, None)
        elif is_reply:
            kept += 1
            assert found["own"] is None
            assert [found[name] for name in ("data", "raw", "raw_sha256")] == [
                row[name] for name in ("data", "raw", "raw_sha256")
            ]
        else:
            assert (found["own"], found["data"]) == (row["data"], None)
    assert kept > 20


def test_the_limits_count_what_they_counted_and_the_ledger_adds_up(store: SqliteStore) -> None:
    assert store.totals(NOW_MS + HOUR) == MoneyTotals(
        open_orders=12, settled_orders=1, pending_msat=24_320_000, spent_day_msat=6 * 2_001_002
    )
    sums = {
        (row["order_id"], row["what"]): row["msat"]
        for row in store._rows(
            "SELECT orders.id AS order_id, what, sum(msat) AS msat FROM ledger JOIN orders ON no = order_no"
            " GROUP BY 1, 2"
        )
    }
    for row in store._rows("SELECT id FROM orders"):
        order = store.get(row["id"])
        assert sums.get((order.id, "reserve"), 0) == order.reserved_msat
        assert sums.get((order.id, "spend"), 0) == order.spent_msat


def test_it_is_sound_and_has_the_tables_of_a_new_one(path: Path, store: SqliteStore, tmp_path: Path) -> None:
    assert store._rows("PRAGMA foreign_key_check") == []
    assert store._one("PRAGMA integrity_check") == "ok"
    tables = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY 1, 2"
    with closing(SqliteStore(tmp_path / "new.db")) as new:
        assert [tuple(row) for row in store._rows(tables)] == [tuple(row) for row in new._rows(tables)]


def test_cursors_go_on_after_the_last_one(store: SqliteStore) -> None:
    last = store.last_cursor()
    assert last == 150
    assert store._one("SELECT seq FROM sqlite_sequence WHERE name = 'journal'") == last


def test_the_database_before_is_kept_beside_it(path: Path, store: SqliteStore) -> None:
    (copy,) = path.parent.glob("holdpay.db.before-*")
    assert copy.name == "holdpay.db.before-0008_ground"
    with closing(sqlite3.connect(copy)) as conn:
        assert conn.execute("SELECT count(*), count(code) FROM orders").fetchone() == (COUNT, 3)


def test_in_the_copy_an_order_that_is_erased_goes_whole_and_the_others_stay(path: Path, store: SqliteStore) -> None:
    """It is there to go back to, and that old an order is none to go back for."""
    (copy,) = path.parent.glob("holdpay.db.before-*")
    assert b"15553333333" in copy.read_bytes()
    closed_before_ms = NOW_MS + 100 * S
    erased = sum(store.erase_codes(closed_before_ms, NOW_MS + HOUR))
    assert erased == 6
    with closing(sqlite3.connect(copy)) as conn:
        conn.execute("PRAGMA foreign_keys = ON")
        assert conn.execute("PRAGMA foreign_key_check").fetchall() == []
        ids = {row[0] for row in conn.execute("SELECT id FROM orders")}
    gone = {f"old{n:07d}" for n in (7, 11, 14, 18, 21, 22)}
    assert {f"old{n:07d}" for n in range(1, COUNT + 1)} - ids == gone
    for file in (copy, path):
        assert b"15553333333" not in file.read_bytes()
        assert b"012345" not in file.read_bytes()


def test_a_row_that_made_no_sense_is_no_reason_not_to_start_and_makes_none_afterwards(path: Path) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("DROP TRIGGER journal_is_append_only")
        conn.execute("UPDATE orders SET later_codes = '[1]' WHERE id = 'old0000001'")
        conn.execute("UPDATE orders SET params = '{\"' WHERE id = 'old0000002'")
        conn.execute("UPDATE orders SET provider_text = CAST(x'ff' AS TEXT) WHERE id = 'old0000003'")
        conn.execute("UPDATE orders SET state = 'nonsense' WHERE id = 'old0000004'")
        conn.execute("UPDATE journal SET snapshot = '{\"', data = CAST(x'ff' AS TEXT) WHERE order_id = 'old0000006'")
        conn.commit()
    with closing(SqliteStore(path)) as store:
        for n in (1, 2, 3, 4):
            with pytest.raises(OrderUnreadable):
                store.get(f"old{n:07d}")
        assert store.get("old0000006").number == "15551234567"
        assert len(store.open_orders()) == 13 - 4
        assert store.quarantine_unreadable(NOW_MS) == [f"old{n:07d}" for n in (1, 2, 3, 4)]
        with pytest.raises(OrderUnreadable):
            store.updates(0, "old0000006", 10)


def test_a_journal_row_that_is_damaged_hides_none_of_those_after_it(path: Path) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("DROP TRIGGER journal_is_append_only")
        (damaged,) = conn.execute(
            "SELECT cursor FROM journal WHERE order_id = 'old0000007' LIMIT 1 OFFSET 5"
        ).fetchone()
        conn.execute("UPDATE journal SET snapshot = '{\"' WHERE cursor = ?", [damaged])
        conn.commit()
    with closing(SqliteStore(path)) as store:
        updates = store.updates(0, "old0000007", 100)
        assert updates[-1].order == store.get("old0000007")
        assert look(store._conn, "SELECT change FROM journal WHERE cursor = ?", damaged)[0]["change"] == "{}"


def test_what_the_node_had_paid_before_the_order_is_no_spend(path: Path) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("UPDATE payments SET is_paid_before = 1 WHERE order_id = 'old0000007'")
        conn.commit()
    with closing(SqliteStore(path)) as store:
        assert (
            store._rows(
                "SELECT 1 FROM ledger JOIN orders ON no = order_no WHERE orders.id = 'old0000007' AND what = 'spend'"
            )
            == []
        )
        assert store.get("old0000007").spent_msat == 0


def test_a_migration_that_is_cut_short_leaves_the_database_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = Database.execute
    with monkeypatch.context() as then:

        def cut_short(db: Database, sql: str, given: Any = None) -> object:
            if sql.startswith("DROP TABLE earlier_orders"):
                raise KeyboardInterrupt
            return execute(db, sql, given)

        then.setattr(Database, "execute", cut_short)
        with pytest.raises(KeyboardInterrupt):
            SqliteStore(path)
    with closing(sqlite3.connect(path)) as conn:
        assert "\n".join(conn.iterdump()) + "\n" == DUMP.read_text()
    with closing(SqliteStore(path)) as store:
        assert store.get("old0000007").end is End.FULFILLED


def test_what_an_earlier_release_left_in_freed_pages_is_gone_and_the_room_is_given_back(path: Path) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA secure_delete = OFF")
        conn.execute("CREATE TABLE t (x TEXT)")
        conn.executemany("INSERT INTO t VALUES (?)", [("an old secret " * 100,)] * 500)
        conn.commit()
        conn.execute("DROP TABLE t")
        conn.commit()
    assert b"an old secret" in path.read_bytes()
    with closing(SqliteStore(path)) as store:
        assert store._one("PRAGMA freelist_count") == 0
    assert b"an old secret" not in path.read_bytes()
