"""What a buyer wrote cannot be guessed from the database once it is erased: its fingerprint goes with it.

``fixtures/database-0019.sql`` is the dump of what the release before migration 0020 made of ``database-0009.sql``, with
requests of clients, orders in turn, and messages to send: some closed, two of them erased, some open.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from holdpay.audit.check import read_stored
from holdpay.audit.findings import Severity
from holdpay.core import events as ev
from holdpay.core.kinds import AnySpec
from holdpay.core.model import Order
from holdpay.core.states import End
from holdpay.core.step import Step
from holdpay.errors import KeyTaken
from holdpay.ports import Limits
from holdpay.store.copying import make_copy
from holdpay.store.store import SqliteStore
from tests.dumps import as_it_was, as_sealed, restore
from tests.unit.build import EMAIL, HOUR, NOW_MS, POLICY, RENTAL, SMS, SPEC, order

DUMP = Path(__file__).parents[2] / "fixtures" / "database-0019.sql"
LIMITS = Limits(max_open_orders=100, max_pending_sat=10**6, max_spend_per_day_sat=10**6)
PRINT = "0123456789abcdef" * 4
ERASED, CLOSED, OPEN = "old0000036", "old0000037", "old0000039"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "holdpay.db"


@pytest.fixture
def db(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as db:
        yield db


@pytest.fixture
def before() -> Iterator[sqlite3.Connection]:
    with as_it_was(DUMP) as conn:
        yield conn


@pytest.fixture
def migrated(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(restore(DUMP, path))) as db:
        yield db


def _make(db: SqliteStore, spec: AnySpec) -> Order:
    return db.create(order(spec=spec, fingerprint=PRINT), LIMITS, NOW_MS)


def _close(db: SqliteStore, now: Order) -> Order:
    closed = replace(now, closed_at_ms=NOW_MS, end=End.PAYMENT_FAILED)
    db.commit(now, ev.TimePassed(), Step(closed, is_change=True), None, NOW_MS)
    return closed


def _erase(db: SqliteStore, closed_before_ms: int = NOW_MS + 1) -> None:
    for _ in db.erase_codes(closed_before_ms, NOW_MS + HOUR):
        pass


def _has(folder: Path, text: str) -> bool:
    """Whether any file beside the database has it, as text or as bytes."""
    content = b"".join(file.read_bytes() for file in folder.iterdir())
    return text.encode() in content or bytes.fromhex(text) in content


# --- a database of today ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [SMS, EMAIL, RENTAL, SPEC], ids=lambda spec: spec.kind.value)
def test_a_fingerprint_is_read_as_it_was_written_and_compared(db: SqliteStore, spec: AnySpec) -> None:
    made = _make(db, spec)
    assert db.get(made.id).request.fingerprint == PRINT
    assert db.create(order(id="another234", spec=spec, fingerprint=PRINT), LIMITS, NOW_MS) == made
    with pytest.raises(KeyTaken):
        db.create(order(id="another234", spec=spec, fingerprint=PRINT[::-1]), LIMITS, NOW_MS)


@pytest.mark.parametrize("spec", [SMS, EMAIL], ids=lambda spec: spec.kind.value)
def test_the_fingerprint_of_what_the_buyer_wrote_is_in_no_file(db: SqliteStore, path: Path, spec: AnySpec) -> None:
    made = _close(db, _make(db, spec))
    assert not _has(path.parent, PRINT)
    _erase(db)
    assert not _has(path.parent, PRINT)
    assert db.get(made.id).request.fingerprint == ""
    with pytest.raises(KeyTaken):
        db.create(order(id="another234", spec=spec, fingerprint=PRINT), LIMITS, NOW_MS)


def test_a_copy_without_secrets_lets_nobody_guess_either(db: SqliteStore, tmp_path: Path) -> None:
    made = _close(db, _make(db, SMS))
    target = tmp_path / "elsewhere" / "copy.db"
    target.parent.mkdir()
    make_copy(db._path, target, NOW_MS, is_without_secrets=True)
    with closing(sqlite3.connect(target)) as conn:
        assert conn.execute("SELECT fingerprint FROM requests").fetchall() == [("",)]
        assert conn.execute("SELECT count(*) FROM secrets").fetchone() == (0,)
    assert not _has(target.parent, PRINT)
    assert db.get(made.id).request.fingerprint == PRINT


@pytest.mark.parametrize("spec", [RENTAL, SPEC], ids=lambda spec: spec.kind.value)
def test_a_key_of_what_stands_in_plain_columns_is_known_after_erasing_too(db: SqliteStore, spec: AnySpec) -> None:
    made = _close(db, _make(db, spec))
    _erase(db)
    assert db.create(order(id="another234", spec=spec, fingerprint=PRINT), LIMITS, NOW_MS).id == made.id


# --- a database of the release before ---------------------------------------------------------------------------------


def test_every_request_of_the_release_before_has_its_fingerprint_but_the_erased_ones(
    before: sqlite3.Connection, migrated: SqliteStore
) -> None:
    then = before.execute("SELECT r.id, fingerprint, erased_at_ms, r.kind FROM requests r JOIN orders o ON o.id = r.id")
    found = {row["id"]: row for row in then}
    assert {"sms", "email", "code", "rental", "fund"} <= {row["kind"] for row in found.values()}
    for order_id, row in found.items():
        is_gone = row["erased_at_ms"] is not None and row["kind"] in {"sms", "email"}
        assert is_gone == (order_id in {ERASED, "old0000033"})
        assert migrated.get(order_id).request.fingerprint == ("" if is_gone else row["fingerprint"])


def test_nothing_else_of_the_release_before_changes(before: sqlite3.Connection, migrated: SqliteStore) -> None:
    tables = [row[0] for row in before.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in {*tables} - {"_sqlite_migrations", "sqlite_sequence"}:
        then = [as_sealed(dict(row)) for row in before.execute(f"SELECT * FROM {table}")]
        now = [dict(row) for row in migrated._rows(f"SELECT * FROM {table}")]
        assert then == [{name: row[name] for name in then[0]} for row in now]


def test_the_release_befores_books_are_right_and_its_tables_those_of_a_new_one(
    path: Path, migrated: SqliteStore, tmp_path: Path
) -> None:
    found = read_stored(path, POLICY, NOW_MS + HOUR)
    assert [finding for finding in found.findings if finding.severity > Severity.NOTE] == []
    tables = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY 1, 2"
    with closing(SqliteStore(tmp_path / "new.db")) as new:
        assert [tuple(row) for row in migrated._rows(tables)] == [tuple(row) for row in new._rows(tables)]


def test_what_was_erased_before_a_copy_was_made_has_no_fingerprint_in_it_from_the_first_round_on(
    path: Path, before: sqlite3.Connection, migrated: SqliteStore
) -> None:
    prints = dict(before.execute("SELECT id, fingerprint FROM requests").fetchall())
    copy = path.with_name("holdpay.db.before-0020_fingerprints")
    migrated.erase_in_copies(1, NOW_MS)
    with closing(sqlite3.connect(copy)) as conn:
        left = dict(conn.execute("SELECT id, fingerprint FROM requests").fetchall())
    assert prints[ERASED]
    assert {**prints, ERASED: "", "old0000033": ""} == left
    written = copy.stat().st_mtime_ns
    migrated.erase_in_copies(2, NOW_MS)
    with closing(SqliteStore(path)) as again:
        again.erase_in_copies(2, NOW_MS)
    assert copy.stat().st_mtime_ns == written, "what is erased is not written anew with each round and start"


def test_erasing_takes_fingerprints_out_of_the_copy_of_the_release_before(
    path: Path, before: sqlite3.Connection, migrated: SqliteStore
) -> None:
    """Also of what was erased before the copy was made."""
    prints = dict(before.execute("SELECT id, fingerprint FROM requests").fetchall())
    copy = path.with_name("holdpay.db.before-0020_fingerprints")
    assert prints[CLOSED].encode() in copy.read_bytes()
    closed_ms = migrated.get(CLOSED).closed_at_ms
    assert closed_ms is not None
    _erase(migrated, closed_ms + 1_001)
    with closing(sqlite3.connect(copy)) as conn:
        left = dict(conn.execute("SELECT id, fingerprint FROM requests WHERE kind IN ('sms', 'email')").fetchall())
    assert (left[ERASED], left[CLOSED], left[OPEN]) == ("", "", prints[OPEN])
    assert prints[CLOSED].encode() not in copy.read_bytes()
    assert migrated.get(CLOSED).request.fingerprint == ""
    assert migrated.get(OPEN).request.fingerprint == prints[OPEN]
