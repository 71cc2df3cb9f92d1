"""A database of an earlier release: opened, brought up to date with a copy kept, and sound by every rule of today.

``fixtures/database-0002.sql`` is the dump of one that release 0.1.0's first commits wrote (migrations 0001 and 0002):
twelve orders, from just requested to erased. See ``test_ground`` for the latest before the ground was laid.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from holdpay.audit.check import read_stored
from holdpay.audit.findings import Severity
from holdpay.core.states import End, HtlcState, OrderState
from holdpay.store.store import SqliteStore
from tests.dumps import restore
from tests.unit.build import NOW_MS, POLICY

DUMP = Path(__file__).parents[2] / "fixtures" / "database-0002.sql"
WERE = {
    "old0000001": (OrderState.REQUESTED, HtlcState.NONE, None),
    "old0000002": (OrderState.AWAITING_PAYMENT, HtlcState.NONE, None),
    "old0000003": (OrderState.AWAITING_PAYMENT, HtlcState.NONE, None),
    "old0000004": (OrderState.AWAITING_PAYMENT, HtlcState.DISPATCHING, None),
    "old0000005": (OrderState.AWAITING_PAYMENT, HtlcState.UNKNOWN, None),
    "old0000006": (OrderState.NUMBER_ASSIGNED, HtlcState.IN_FLIGHT, None),
    "old0000007": (OrderState.DELIVERED, HtlcState.SETTLED, End.FULFILLED),
    "old0000008": (OrderState.CANCELED, HtlcState.FAILED, End.REFUNDED),
    "old0000009": (OrderState.PAID, HtlcState.SETTLED, None),
    "old0000010": (OrderState.AWAITING_PAYMENT, HtlcState.FAILED, None),
    "old0000011": (OrderState.ABANDONED, HtlcState.NONE, End.INVOICE_REJECTED),
    "old0000012": (OrderState.DELIVERED, HtlcState.SETTLED, End.FULFILLED),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return restore(DUMP, tmp_path / "holdpay.db")


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as store:
        yield store


def test_every_order_is_as_it_was(store: SqliteStore) -> None:
    for order_id, was in WERE.items():
        order = store.get(order_id)
        assert (order.state, order.htlc, order.end) == was
    assert [order.id for order in store.open_orders()] == [o for o, was in WERE.items() if was[2] is None]
    kept, erased = store.get("old0000007"), store.get("old0000012")
    assert (kept.code, kept.number, kept.spent_msat) == ("012345", "15551234567", 2_001_002)
    assert (erased.code, erased.number, erased.erased_at_ms) == (None, None, NOW_MS + 60_000)


def test_every_word_of_the_journal_can_be_read(store: SqliteStore) -> None:
    updates = store.updates(0, None, 1000)
    assert {update.order.id for update in updates} == set(WERE)
    assert [update.event for update in store.updates(0, "old0000009", 100)][-1] == "payment_reported"


def test_the_limits_count_what_they_counted(store: SqliteStore) -> None:
    totals = store.totals(NOW_MS + 60_000)
    assert totals.spent_day_msat == 3 * 2_001_002


def test_the_audit_finds_nothing_wrong(path: Path, store: SqliteStore) -> None:
    found = read_stored(path, POLICY, NOW_MS + 60_000)
    assert [finding for finding in found.findings if finding.severity > Severity.NOTE] == []


def test_before_its_first_start_the_audit_reads_all_of_it_and_says_that_it_is_older(path: Path) -> None:
    stored = read_stored(path, POLICY, NOW_MS + 60_000)
    findings = [(f.severity, f.code) for f in stored.findings if f.severity > Severity.NOTE]
    assert findings == [(Severity.WARNING, "older-schema")]
    assert stored.order_count == len(WERE)
    assert {order.id for order in stored.relevant} == set(WERE)
    with closing(SqliteStore(path)) as opened:
        assert [opened.get(order.id) for order in stored.relevant] == stored.relevant


def test_a_copy_of_the_earlier_database_is_kept(path: Path, store: SqliteStore) -> None:
    (copy,) = path.parent.glob("holdpay.db.before-*")
    with closing(sqlite3.connect(copy)) as conn:
        assert conn.execute("SELECT count(*) FROM orders").fetchone() == (12,)
        assert conn.execute("SELECT count(*) FROM _sqlite_migrations").fetchone() == (2,)


def test_a_disk_without_room_for_writing_the_database_anew_is_no_reason_not_to_start(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = Database.execute

    def full(db: Database, sql: str, given: Any = None) -> object:
        if sql == "VACUUM":
            raise sqlite3.OperationalError("database or disk is full")
        return execute(db, sql, given)

    monkeypatch.setattr(Database, "execute", full)
    with closing(SqliteStore(path)) as opened:
        assert len(opened.open_orders()) == 8
    (copy,) = path.parent.glob("holdpay.db.before-*")
    assert copy.name == "holdpay.db.before-0003_replies"
