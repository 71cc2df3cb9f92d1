"""A request's orders in turn, as the database keeps them: never two that are live, and one end for all."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdpay.audit.check import read_stored
from holdpay.core import events as ev
from holdpay.core.machine import decide
from holdpay.core.model import Order
from holdpay.core.states import End, Succession
from holdpay.core.strategy import Country, Strategy
from holdpay.errors import LimitExceeded, StoreError
from holdpay.ports import Change, Limits, OrderFilter
from holdpay.store.database import transaction
from holdpay.store.store import SqliteStore
from tests.dumps import restore
from tests.unit.build import NOW_MS, POLICY, S, order, request

LIMITS = Limits(max_open_orders=8, max_pending_sat=50_000, max_spend_per_day_sat=100_000)
STRATEGY = Strategy(countries=(Country(187, "United States"), Country(16, "England")), attempts=3)
DUMP = Path(__file__).parents[2] / "fixtures" / "database-0009.sql"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "holdpay.db"


@pytest.fixture
def db(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as db:
        yield db


def _first(n: int = 1, **changes: Any) -> Order:
    name = f"order{n:05d}"
    asked = request(id=name, key=f"key-{n}", strategy=STRATEGY, created_at_ms=NOW_MS + n)
    return replace(order(), id=name, request=asked, created_at_ms=NOW_MS + n, **changes)


def _next(before: Order) -> Order:
    return replace(
        order(),
        id=f"{before.request.id}-{before.nth + 1}",
        request=before.request,
        nth=before.nth + 1,
        country=16,
        country_name="England",
        created_at_ms=NOW_MS + 60 * S,
    )


def _step(db: SqliteStore, before: Order, event: ev.Event) -> Order:
    step = decide(before, event, POLICY, NOW_MS + 50 * S)
    db.commit_all([Change(before, event, step)], NOW_MS + 50 * S)
    return step.order


def _going_on(db: SqliteStore, n: int = 1) -> Order:
    """The provider took none."""
    recorded = db.create(_first(n), LIMITS, NOW_MS)
    return _step(db, recorded, ev.PlacingFailed("no numbers", may_retry=False))


def _follow(db: SqliteStore, before: Order, limits: Limits = LIMITS) -> Order:
    step = decide(before, ev.NextOrdered(), POLICY, NOW_MS + 60 * S)
    db.create_next(Change(before, ev.NextOrdered(), step), _next(before), limits, NOW_MS + 60 * S)
    return _next(before)


def _of_request(db: SqliteStore, column: str) -> Any:
    return db._conn.execute(f"SELECT {column} FROM requests").fetchone()[0]


def test_orders_in_turn_come_back_as_they_were(db: SqliteStore) -> None:
    going = _going_on(db)
    second = _follow(db, going)
    first, found = db.orders_of("order00001")
    assert (first.succession, first.end) == (Succession.FOLLOWED, End.PROVIDER_REFUSED)
    assert found == second
    assert found.request.strategy == STRATEGY
    assert db.open_orders() == [second]
    assert db.find_key("key-1") == second


def test_the_database_refuses_a_second_live_order(db: SqliteStore) -> None:
    first = db.create(_first(), LIMITS, NOW_MS)
    with pytest.raises((StoreError, sqlite3.IntegrityError)), transaction(db._conn):
        db._record(_next(first), NOW_MS)
    going = _step(db, first, ev.PlacingFailed("no numbers", may_retry=False))
    with pytest.raises((StoreError, sqlite3.IntegrityError)), transaction(db._conn):
        db._record(_next(going), NOW_MS)
    assert [found.id for found in db.orders_of("order00001")] == ["order00001"]


def test_a_limit_that_is_reached_leaves_the_request_as_it_was(db: SqliteStore) -> None:
    going = _going_on(db)
    cursor = db.last_cursor()
    with pytest.raises(LimitExceeded):
        _follow(db, going, replace(LIMITS, max_pending_sat=1))
    assert (db.open_orders(), db.last_cursor()) == ([going], cursor)


def test_a_request_is_open_until_its_last_order_ends_it(db: SqliteStore) -> None:
    going = _going_on(db)
    assert _of_request(db, "closed_at_ms") is None
    assert db.open_orders() == [going], "who starts next has to go on with it"
    assert [found.id for found in db.list_orders(OrderFilter(open_only=True))] == ["order00001"]
    second = _follow(db, going)
    assert [found.id for found in db.list_orders(OrderFilter(open_only=True))] == ["order00001-2"]
    third = _follow(db, _step(db, second, ev.PlacingFailed("no numbers", may_retry=False)))
    ended = _step(db, third, ev.PlacingFailed("no numbers", may_retry=False))
    assert ended.ends_request
    assert (_of_request(db, "closed_at_ms"), _of_request(db, '"end"')) == (ended.closed_at_ms, "provider_refused")
    assert db.open_orders() == db.list_orders(OrderFilter(open_only=True)) == []
    assert [found.id for found in db.list_orders(OrderFilter())] == ["order00001-3"]


def test_no_next_order_ends_the_request_too(db: SqliteStore) -> None:
    _step(db, _going_on(db), ev.NoNextOrder("no country has numbers"))
    assert _of_request(db, '"end"') == "provider_refused"
    assert db.open_orders() == []


def test_the_story_of_a_request_is_told_over_all_its_orders(db: SqliteStore) -> None:
    second = _follow(db, _going_on(db))
    db.create(_first(2), LIMITS, NOW_MS)
    _step(db, second, ev.CancelRequested())
    told = db.request_updates(0, "order00001", 100)
    assert [(update.order.id, update.event) for update in told] == [
        ("order00001", "order_requested"),
        ("order00001", "placing_failed"),
        ("order00001", "next_ordered"),
        ("order00001-2", "order_requested"),
        ("order00001-2", "cancel_requested"),
    ]
    assert [len(update.earlier) for update in told] == [0, 0, 0, 1, 1]
    assert told[-1].earlier[0].succession is Succession.FOLLOWED
    pages, cursor = [], 0
    while page := db.request_updates(cursor, "order00001", 2):
        pages += page
        cursor = page[-1].cursor
    assert pages == told
    assert [len(update.earlier) for update in db.updates(0, None, 100)] == [0, 0, 0, 1, 0, 1]


def test_any_of_its_orders_and_the_beginning_of_its_id_name_a_request(db: SqliteStore) -> None:
    _follow(db, _going_on(db))
    for name in ("order00001", "order00001-2", "orde"):
        assert db.request_id(name) == "order00001"
    assert db.get("order00001").nth == 1
    assert db.get("orde").nth == 2


# --- what the check says ----------------------------------------------------------------------------------------------


def _codes(path: Path) -> set[str]:
    return {finding.code for finding in read_stored(path, POLICY, NOW_MS + 60 * S).findings}


def test_the_check_finds_nothing_in_orders_that_follow_one_another(path: Path, db: SqliteStore) -> None:
    _follow(db, _going_on(db))
    _going_on(db, 2)
    _step(db, _going_on(db, 3), ev.CancelRequested())
    assert _codes(path) == set()


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("UPDATE orders SET succession = NULL WHERE nth = 1", "turn-broken"),
        ("UPDATE orders SET nth = 3 WHERE nth = 2", "turn-missing"),
        ("UPDATE requests SET strategy = NULL", "turn-missing"),
        ("UPDATE requests SET closed_at_ms = 1, \"end\" = 'refunded'", "database-damaged"),
        ("UPDATE orders SET end = 'fulfilled' WHERE nth = 1", "end-contradicts"),
    ],
)
def test_the_check_finds_what_breaks_the_turns(path: Path, db: SqliteStore, sql: str, code: str) -> None:
    _follow(db, _going_on(db))
    db._conn.execute(sql)
    assert code in _codes(path)


def test_the_check_finds_an_order_that_was_followed_while_its_money_was_gone(path: Path, db: SqliteStore) -> None:
    _follow(db, _going_on(db))
    db._conn.execute("DROP INDEX orders_live")
    db._conn.execute('UPDATE orders SET closed_at_ms = NULL, "end" = NULL WHERE nth = 1')
    assert "two-at-once" in _codes(path)


# --- a database of before ---------------------------------------------------------------------------------------------


def test_every_request_of_before_has_the_end_of_its_order_and_no_strategy(tmp_path: Path) -> None:
    path = restore(DUMP, tmp_path / "holdpay.db")
    with closing(SqliteStore(path)) as store:
        listed = store.list_orders(OrderFilter(limit=1_000))
        assert listed
        assert all(found.nth == 1 and found.succession is None and found.request.strategy is None for found in listed)
        opened = {found.id for found in store.list_orders(OrderFilter(open_only=True, limit=1_000))}
        assert opened == {found.id for found in store.open_orders()}
        assert opened
        ends = store._rows("""
            SELECT count(*) FROM requests r JOIN orders o ON o.request_id = r.id
            WHERE (r.closed_at_ms, r."end") IS NOT (o.closed_at_ms, o."end")
        """)
        assert ends[0][0] == 0
