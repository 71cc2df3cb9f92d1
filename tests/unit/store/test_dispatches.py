"""The dispatches of an order: a row each, with its failure, its diagnosis and its HTLC attempts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from holdpay.core import events as ev
from holdpay.core.diagnosis import Cause
from holdpay.core.dispatches import Dispatched
from holdpay.core.lightning import AttemptStatus, FailureReason
from holdpay.core.machine import decide
from holdpay.core.model import Order
from holdpay.core.routes import Route, RouteLook
from holdpay.core.states import FailureClass
from holdpay.store.store import SqliteStore
from tests.dumps import as_it_was, restore
from tests.unit.build import ALICE, HASH, NOW_MS, POLICY, S, attempt, failed, invoice, order, replied
from tests.unit.store.test_store import LIMITS

FIXTURES = Path(__file__).parents[2] / "fixtures"
BOB = "02" + "bb" * 32
TOO_DEAR = RouteLook(
    is_route_known=True, dearer=Route(fee_msat=37_000, lock_blocks=163, hops=(BOB,), first_channel="1x1x0")
)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path / "holdpay.db")) as opened:
        yield opened


def live(db: SqliteStore, *timed: tuple[int, ev.Event]) -> Order:
    """An order to which this happened, each so many seconds after ``NOW_MS``."""
    now = db.create(order(), LIMITS, NOW_MS)
    for at_s, event in timed:
        at_ms = NOW_MS + at_s * S
        step = decide(now, event, POLICY, at_ms)
        assert step.is_change, event
        db.commit(now, event, step, None, at_ms)
        now = step.order
    return now


HOP_DOWN = attempt(AttemptStatus.FAILED, failure_code=18, failure_source_index=1, first_hop=BOB, failed_hop=BOB)
SENT = (
    (0, ev.OrderPlaced(HASH, "lnsb20u1...")),
    (1, ev.InvoiceDecoded(invoice(), ALICE, seen_before=False)),
    (2, ev.DispatchIntended(ALICE)),
)
CLIMBED = (
    *SENT,
    (3, failed(payment_index=7)),
    (4, replied(NOW_MS + 4 * S)),
    (5, ev.DispatchIntended(ALICE)),
    (6, failed(HOP_DOWN, payment_index=8)),
)


def test_each_dispatch_has_its_row_with_its_rung_its_failure_and_its_attempts(db: SqliteStore) -> None:
    live(db, *CLIMBED, (7, ev.RouteLookedFor(2, TOO_DEAR)))
    first, second = db.dispatches(order().id)
    assert (first.record.n, first.record.at_ms, first.record.fee_limit_msat) == (1, NOW_MS + 2 * S, 10_000)
    assert (first.record.failed_at_ms, first.record.failure_class) == (NOW_MS + 3 * S, FailureClass.NO_ATTEMPT)
    assert (first.record.cause, first.attempts) == (None, ())
    assert (second.record.n, second.record.fee_limit_msat) == (2, 20_000)
    assert (second.record.failure_reason, second.record.failure_class) == (FailureReason.NO_ROUTE, FailureClass.ROUTING)
    assert second.record.cause is Cause.FEE_LIMIT
    assert second.record.diagnosis is not None
    assert "a route exists at 37 sat, your limit is 20 sat" in second.record.diagnosis
    assert second.attempts == (HOP_DOWN,)


def test_a_dispatch_that_is_out_has_no_failure_not_even_that_of_the_one_before(db: SqliteStore) -> None:
    live(db, *CLIMBED[:-1])
    _, second = db.dispatches(order().id)
    assert second == Dispatched(second.record)
    assert (second.record.failed_at_ms, second.record.failure_reason, second.record.cause) == (None, None, None)


def test_an_order_that_was_never_sent_has_none(db: SqliteStore) -> None:
    live(db, *SENT[:-1])
    assert db.dispatches(order().id) == []
    assert db.dispatches("nobody") == []


@pytest.mark.parametrize("dump", ["database-0007.sql", "database-0009.sql"])
def test_those_of_an_earlier_database_are_read_from_its_journal(dump: str, tmp_path: Path) -> None:
    """The audit holds them against the journal: see ``test_before_0010``."""
    path = restore(FIXTURES / dump, tmp_path / "holdpay.db")
    with as_it_was(FIXTURES / dump) as before:
        then = _sent(before)
    with closing(SqliteStore(path)) as store:
        rows = store._rows("SELECT order_no, count(*), max(n), count(failed_at_ms) FROM dispatches GROUP BY 1")
        assert len(then) > 10
        assert sorted(row[1] for row in rows) == sorted(row[2] for row in rows) == sorted(count for count, _ in then)
        assert sum(row[3] for row in rows) >= sum(has_failed for _, has_failed in then) > 1


def _sent(conn: sqlite3.Connection) -> list[tuple[int, bool]]:
    sql = "SELECT dispatch_count, failure_at_ms FROM payments WHERE dispatch_count > 0"
    return [(row["dispatch_count"], row["failure_at_ms"] is not None) for row in conn.execute(sql)]
