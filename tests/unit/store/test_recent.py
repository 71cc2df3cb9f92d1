"""What is told of a request without the database."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdpay.core import events as ev
from holdpay.core.machine import decide
from holdpay.core.model import Order
from holdpay.ports import Limits
from holdpay.store.recent import MOST_REQUESTS, MOST_UPDATES
from holdpay.store.store import SqliteStore
from tests.unit.build import NOW_MS, POLICY, order

LIMITS = Limits(max_open_orders=10**6, max_pending_sat=10**12, max_spend_per_day_sat=10**12)


@pytest.fixture
def db(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "holdpay.db")


def _first(n: int = 1) -> Order:
    return order(id=f"order{n:05d}", key=f"key-{n}")


def _failed(db: SqliteStore, before: Order, text: str) -> Order:
    event = ev.PlacingFailed(text, may_retry=True)
    step = decide(before, event, POLICY, NOW_MS)
    db.commit(before, event, step, None, NOW_MS)
    return step.order


def _reads(db: SqliteStore) -> list[str]:
    """What it asks the database for, from now on."""
    asked: list[str] = []
    db._conn.set_trace_callback(asked.append)
    return asked


def _told(db: SqliteStore, request_id: str, after: int = 0, limit: int = 10**6) -> list[tuple[int, str]]:
    return [(update.cursor, update.event) for update in db.request_updates(after, request_id, limit)]


def test_who_follows_a_request_is_told_of_it_without_the_database(db: SqliteStore) -> None:
    first = db.create(_first(), LIMITS, NOW_MS)
    db.create(_first(2), LIMITS, NOW_MS)
    _failed(db, first, "no answer")
    asked = _reads(db)
    assert _told(db, first.id) == [(1, "order_requested"), (3, "placing_failed")]
    assert _told(db, first.id, after=1) == [(3, "placing_failed")]
    assert _told(db, first.id, limit=1) == [(1, "order_requested")]
    assert _told(db, first.id, after=3) == []
    assert asked == []


def test_what_was_told_before_is_told_by_the_journal_after_a_restart(db: SqliteStore, tmp_path: Path) -> None:
    first = db.create(_first(), LIMITS, NOW_MS)
    _failed(db, first, "no answer")
    told = db.request_updates(0, first.id, 100)
    db.close()
    again = SqliteStore(tmp_path / "holdpay.db")
    asked = _reads(again)
    assert again.request_updates(0, first.id, 100) == told
    assert asked != []


def test_of_a_long_story_the_journal_tells(db: SqliteStore) -> None:
    current = db.create(_first(), LIMITS, NOW_MS)
    for n in range(MOST_UPDATES + 3):
        current = _failed(db, current, f"no answer {n}")
    told = _told(db, current.id)
    assert [cursor for cursor, _ in told] == list(range(1, MOST_UPDATES + 5))
    asked = _reads(db)
    assert _told(db, current.id, after=MOST_UPDATES) == told[MOST_UPDATES:]
    assert asked != []


def test_only_so_many_requests_are_kept_and_those_that_go_on_longest(db: SqliteStore) -> None:
    first, second = (db.create(_first(n), LIMITS, NOW_MS) for n in (1, 2))
    for n in range(3, MOST_REQUESTS + 1):
        db.create(_first(n), LIMITS, NOW_MS)
    _failed(db, first, "no answer")
    db.create(_first(MOST_REQUESTS + 1), LIMITS, NOW_MS)
    asked = _reads(db)
    assert [event for _, event in _told(db, first.id)] == ["order_requested", "placing_failed"]
    assert asked == []
    assert [event for _, event in _told(db, second.id)] == ["order_requested"]
    assert asked != []


def test_a_commit_that_failed_is_not_told(db: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    first = db.create(_first(), LIMITS, NOW_MS)

    def fails(*args: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(db, "_write_items", fails)
    with pytest.raises(ZeroDivisionError):
        _failed(db, first, "no answer")
    assert _told(db, first.id) == [(1, "order_requested")]


def test_what_was_erased_is_told_as_erased(db: SqliteStore) -> None:
    closed = db.create(_first(), LIMITS, NOW_MS)
    event = ev.PlacingFailed("no numbers", may_retry=False)
    step = decide(closed, event, POLICY, NOW_MS)
    db.commit(closed, event, step, None, NOW_MS)
    assert step.order.is_closed
    assert sum(db.erase_codes(NOW_MS + 1, NOW_MS + 2)) == 1
    assert {update.order.erased_at_ms for update in db.request_updates(0, closed.id, 100)} == {NOW_MS + 2}
    assert replace(db.get(closed.id), erased_at_ms=None) == step.order
