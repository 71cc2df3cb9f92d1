"""The record of payees: written with the payment, asked for the next one, changed by a person beside the daemon."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from holdpay.core import events as ev
from holdpay.core.machine import decide
from holdpay.core.payees import Payee, PayeeCheck, Standing, Trust
from holdpay.errors import StoreError
from holdpay.ports import Limits
from holdpay.store.database import open_beside, transaction
from holdpay.store.payees import TRUSTED, add_payee, all_payees, remove_payee
from holdpay.store.store import SqliteStore
from tests.unit.build import ALICE, NOW_MS, PAYEE, POLICY, S, invoice, order

LIMITS = Limits(max_open_orders=8, max_pending_sat=50_000, max_spend_per_day_sat=100_000)
OTHER = "02" + "dd" * 32
FIRST_USE = replace(POLICY, payee_check=PayeeCheck.FIRST_USE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "holdpay.db"


@pytest.fixture
def db(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as store:
        yield store


def _vetted(db: SqliteStore, number: int, payee: str, *, policy: object = POLICY, after_s: int = 0) -> None:
    """An order whose invoice is of this payee, as the daemon takes it."""
    now_ms = NOW_MS + after_s * S
    made = order(id=f"order{number:05d}", key=f"key-{number}")
    db.create(made, LIMITS, now_ms)
    decoded = ev.InvoiceDecoded(
        invoice(payee=payee, payment_hash=f"{number:064x}"), ALICE, seen_before=False, payee=db.standing_of(payee)
    )
    for event in (ev.OrderPlaced(f"{number:064x}", "lnsb20u1..."), decoded):
        step = decide(made, event, policy, now_ms)  # type: ignore[arg-type]
        db.commit(made, event, step, None, now_ms)
        made = step.order


def _rows(db: SqliteStore) -> list[Payee]:
    return all_payees(db._conn)


def test_the_payee_of_a_vetted_invoice_is_recorded_with_its_first_order_and_counted(db: SqliteStore) -> None:
    _vetted(db, 1, PAYEE)
    _vetted(db, 2, PAYEE, after_s=60)
    (row,) = _rows(db)
    assert row == Payee(
        pubkey=PAYEE,
        trust=Trust.LIST,
        added_at_ms=NOW_MS,
        first_order="order00001",
        last_seen_at_ms=NOW_MS + 60 * S,
        times=2,
    )


def test_the_payee_of_a_refused_invoice_is_not_recorded(db: SqliteStore) -> None:
    _vetted(db, 1, OTHER)
    assert _rows(db) == []


def test_a_payee_that_was_paid_with_a_warning_is_recorded_and_not_trusted(db: SqliteStore) -> None:
    _vetted(db, 1, OTHER, policy=replace(POLICY, payee_check=PayeeCheck.WARN))
    (row,) = _rows(db)
    assert (row.trust, row.times) == (None, 1)
    assert db.trusted_payees() == []
    assert db.standing_of(OTHER) is Standing.FIRST


def test_on_first_use_the_first_payee_is_trusted_and_another_one_is_a_stranger(db: SqliteStore) -> None:
    assert db.standing_of(OTHER) is Standing.FIRST
    _vetted(db, 1, OTHER, policy=FIRST_USE)
    assert (db.standing_of(OTHER), db.standing_of(PAYEE)) == (Standing.TRUSTED, Standing.STRANGER)
    _vetted(db, 2, PAYEE, policy=FIRST_USE)
    assert [(row.pubkey, row.trust) for row in _rows(db)] == [(OTHER, Trust.FIRST_USE)]
    assert db.get("order00002").reason.startswith("the hold invoice was refused: its payee is")


def test_the_first_reason_of_trust_stays(db: SqliteStore) -> None:
    _vetted(db, 1, PAYEE)
    _vetted(db, 2, PAYEE, policy=FIRST_USE)
    assert [(row.trust, row.times) for row in _rows(db)] == [(Trust.LIST, 2)]


def test_a_person_may_add_a_payee_which_is_told_apart_and_seen_later(db: SqliteStore) -> None:
    _vetted(db, 1, PAYEE, policy=FIRST_USE)
    assert add_payee(db._conn, OTHER, NOW_MS + S)
    assert not add_payee(db._conn, OTHER, NOW_MS + S)
    assert not add_payee(db._conn, PAYEE, NOW_MS + S)
    assert db.standing_of(OTHER) is Standing.TRUSTED
    assert [(row.first_order, row.last_seen_at_ms, row.times) for row in _rows(db)][1] == (None, None, 0)
    _vetted(db, 2, OTHER, policy=FIRST_USE, after_s=60)
    last = _rows(db)[1]
    assert (last.trust, last.first_order, last.times) == (Trust.BY_HAND, "order00002", 1)


def test_a_person_may_trust_what_was_paid_with_a_warning(db: SqliteStore) -> None:
    _vetted(db, 1, OTHER, policy=replace(POLICY, payee_check=PayeeCheck.OFF))
    assert add_payee(db._conn, OTHER, NOW_MS + S)
    assert [(row.trust, row.times) for row in _rows(db)] == [(Trust.BY_HAND, 1)]


def test_without_a_record_that_was_removed_the_next_first_use_counts_again(db: SqliteStore) -> None:
    _vetted(db, 1, PAYEE, policy=FIRST_USE)
    assert remove_payee(db._conn, PAYEE)
    assert not remove_payee(db._conn, PAYEE)
    assert db.standing_of(OTHER) is Standing.FIRST
    _vetted(db, 2, OTHER, policy=FIRST_USE)
    assert db.standing_of(PAYEE) is Standing.STRANGER


def test_the_payee_that_was_paid_last_comes_first(db: SqliteStore) -> None:
    add_payee(db._conn, OTHER, NOW_MS)
    _vetted(db, 1, PAYEE, policy=FIRST_USE)
    assert db.trusted_payees() == [OTHER]
    add_payee(db._conn, PAYEE, NOW_MS)
    _vetted(db, 2, PAYEE, policy=FIRST_USE)
    assert db.trusted_payees() == [PAYEE, OTHER]
    _vetted(db, 3, OTHER, policy=FIRST_USE, after_s=1)
    assert db.trusted_payees() == [OTHER, PAYEE]


def test_the_trusted_ones_are_found_by_their_index(db: SqliteStore) -> None:
    (step,) = [row["detail"] for row in db._conn.execute(f"EXPLAIN QUERY PLAN {TRUSTED}")]
    assert step == "SCAN payees USING INDEX payees_trusted"  # which has no others


# --- beside the daemon ------------------------------------------------------------------------------------------------


def test_a_change_beside_a_running_daemon_is_what_the_daemon_sees_next(path: Path, db: SqliteStore) -> None:
    with open_beside(path) as conn, transaction(conn):
        add_payee(conn, OTHER, NOW_MS)
    assert (db.standing_of(OTHER), db.standing_of(PAYEE)) == (Standing.TRUSTED, Standing.STRANGER)
    db.create(order(), LIMITS, NOW_MS)
    with open_beside(path) as conn, transaction(conn):
        assert remove_payee(conn, OTHER)
    assert db.trusted_payees() == []
    assert db.get(order().id).id == order().id


def test_a_database_of_another_release_is_not_touched_beside_the_daemon(path: Path) -> None:
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("DELETE FROM _sqlite_migrations WHERE name LIKE '%payees'")
        conn.commit()
    with pytest.raises(StoreError, match="not of this release"), open_beside(path):
        pytest.fail("it was opened")


@pytest.mark.parametrize("content", [None, b"no database" * 100])
def test_what_is_no_database_is_told_as_such(path: Path, content: bytes | None) -> None:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match="cannot be used"), open_beside(path):
        pytest.fail("it was opened")
    assert path.exists() is (content is not None)
