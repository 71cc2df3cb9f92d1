"""A database of the release before migration 0010: nothing of it is lost, and the audit finds nothing wrong.

``fixtures/database-0009.sql`` is the dump of what that release made of ``database-0008.sql``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from holdpay.audit.check import read_stored
from holdpay.audit.findings import Severity
from holdpay.store.store import SqliteStore
from tests.dumps import as_it_was, as_sealed, restore
from tests.unit.build import HOUR, NOW_MS, POLICY

DUMP = Path(__file__).parents[2] / "fixtures" / "database-0009.sql"
KEYS = {"requests": "id", "orders": "no", "keys": "order_no", "secrets": "request_id", "payments": "order_no"}
KEYS |= {"htlc_attempts": "order_no, attempt_id", "charges": "order_no", "journal": "cursor", "replies": "cursor"}
KEYS |= {"items": "order_no, seq", "ledger": "id"}


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


@pytest.mark.parametrize("table", KEYS)
def test_every_column_of_every_row_is_as_it_was(table: str, before: sqlite3.Connection, store: SqliteStore) -> None:
    sql = f"SELECT * FROM {table} ORDER BY {KEYS[table]}"
    then = [as_sealed(dict(row)) for row in before.execute(sql)]
    now = [dict(row) for row in store._rows(sql)]
    assert then
    assert then == [{name: row[name] for name in then[0]} for row in now]


def test_the_audit_finds_nothing_wrong(path: Path, store: SqliteStore) -> None:
    found = read_stored(path, POLICY, NOW_MS + HOUR)
    assert [finding for finding in found.findings if finding.severity > Severity.NOTE] == []
    assert store._rows("PRAGMA foreign_key_check") == []


def test_it_has_the_tables_of_a_new_one(store: SqliteStore, tmp_path: Path) -> None:
    tables = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY 1, 2"
    with closing(SqliteStore(tmp_path / "new.db")) as new:
        assert [tuple(row) for row in store._rows(tables)] == [tuple(row) for row in new._rows(tables)]
