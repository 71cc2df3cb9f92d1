"""No query scans what grows: a database may have ten thousand open orders and a million closed ones."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from holdpay.core.states import End
from holdpay.ports import OrderFilter
from holdpay.store import dispatching, erasing, integrity, journal, listing, reading, spent, store
from holdpay.store.store import SqliteStore
from tests.unit import conftest as watch
from tests.unit.build import NOW_MS


@pytest.fixture(scope="module")
def conn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    db = SqliteStore(tmp_path_factory.mktemp("plans") / "holdpay.db")
    yield db._conn
    db.close()


ORDERS = reading.SELECT_ORDERS


def plan(conn: sqlite3.Connection, sql: str, values: Any = ()) -> list[str]:
    return [row["detail"] for row in conn.execute(f"EXPLAIN QUERY PLAN {sql}", values)]


def index_of(filtered: OrderFilter) -> str:
    """The one in whose order the list is, and in which all of it is what was asked for."""
    kind = "_kind" if filtered.kind else ""
    if filtered.end is not None:
        return f"requests{kind}_end"
    if filtered.open_only or filtered.closed_only:
        return f"requests{kind}_{'open' if filtered.open_only else 'closed'}"
    return f"requests{kind or '_created'}"


FILTERS = [
    OrderFilter(
        open_only=standing == "open",
        closed_only=standing == "closed",
        kind=kind,
        end=end,
        created_from_ms=since,
        created_before_ms=until,
        before=before,
    )
    for standing, kind, end, since, until, before in product(
        ("", "open", "closed"),
        ("", "code"),
        (None, End.REFUNDED),
        (None, NOW_MS),
        (None, NOW_MS + 9),
        (None, (NOW_MS + 5, "order00001"), (NOW_MS + 50, "order00001")),
    )
    if not (standing == "open" and end is not None)  # there is none
]


@pytest.mark.parametrize("wanted", FILTERS, ids=repr)
def test_every_list_is_read_off_an_index_of_its_own(conn: sqlite3.Connection, wanted: OrderFilter) -> None:
    text, values = listing.where(wanted)
    details = plan(conn, text, values)
    assert f"INDEX {index_of(wanted)} " in f"{details[0]} ", details
    assert not any("TEMP B-TREE" in detail for detail in details), details
    assert len(details) == 1, details
    whole = plan(conn, ORDERS + store.LAST_OF_EACH.format(requests=text), values)
    assert details[0] in whole, whole
    # Of no more than a page.
    others = [found for found in whole if found not in {details[0], "SCAN wanted", "USE TEMP B-TREE FOR ORDER BY"}]
    assert not any(found.startswith(("SCAN", "USE")) for found in others), whole


BOUND = {
    "at_ms": NOW_MS,
    "besides": 1,
    "settled": "s",
    "gone": "g",
    "charged": "c",
    "returned": "r",
    "unknown": "u",
    "refused": "n",
    "id": "x",
    "now_ms": 1,
}
QUERIES = {
    "an order by its id": (ORDERS + store.BY_ID, ("x",)),
    "a request by the beginning of its id": (store.REQUESTS_BY_PREFIX, ("x", "y")),
    "the request of an order": (store.REQUEST_OF_ORDER, ("x",)),
    "the orders of a request": (ORDERS + store.OF_REQUEST, ("x",)),
    "their ids": (store.ORDERS_OF_REQUEST, ("x",)),
    "the last of them": (ORDERS + store.LAST_OF_REQUEST, ("x",)),
    "those before one": (ORDERS + store.EARLIER, ("x", "y")),
    "a request by its key": (store.REQUEST_BY_KEY, ("", "x")),
    "its items": (reading.SELECT_ITEMS, (1,)),
    "a dispatch of its": (dispatching.SELECT_DISPATCH, (1, 1)),
    "its dispatches": (dispatching.SELECT_DISPATCHES, (1,)),
    "their attempts": (dispatching.SELECT_ATTEMPTS, (1,)),
    "its request": (reading.SELECT_REQUEST, (1,)),
    "where it lies": (store.SELECT_ROW, ("x",)),
    "the journal after a cursor": (journal.SELECT_ALL, (5, 10)),
    "the journal of an order": (journal.SELECT_OF_ORDER, ("x", 5, 10)),
    "the row before one": (journal.SELECT_PREVIOUS, (1, 5)),
    "what changed up to a row": (journal.SELECT_CHANGES, (1, 5)),
    "the journal with the replies": (journal.SELECT_WITH_REPLIES, ("x",)),
    "the provider's order": (store.HAS_PROVIDER_ORDER, ("x", "y")),
    "what may have moved the balance": (store.HAS_MOVED_BALANCE, BOUND),
    "whether an order of a kind is open": (store.HAS_OPEN, ("x",)),
    "whether one was made lately": (store.HAS_RECENT, ("x", 1, 2, "xy")),
    "what was spent": (spent.SPENT_SINCE, (1, 2, 3, 4, 5)),
    "the ledger's end": (spent.LAST_ID, ()),
    "when an order's price was spent": (store.SPENT_AT, (1,)),
    "the newest orders at the start": (integrity.NEWEST_OPEN, (5,)),
    "what is to erase": (erasing.SELECT_TO_ERASE, (1, 5)),
    **{f"erasing: {sql[:20]}": (sql, BOUND) for sql in erasing.ERASE},
}


@pytest.mark.parametrize("name", QUERIES)
def test_what_the_daemon_looks_up_is_found_by_an_index(conn: sqlite3.Connection, name: str) -> None:
    sql, values = QUERIES[name]
    details = plan(conn, sql, values)
    assert not any("TEMP B-TREE" in detail for detail in details), details
    assert not any(detail.startswith("SCAN") and "CONSTANT ROW" not in detail for detail in details), details


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        (ORDERS + store.OPEN, ()),
        (integrity.NEWEST_OPEN_BY_INDEX, (5,)),
        (store.MAY_MOVE_BALANCE, BOUND),
        (store.SINCE_THE_EARLIEST, BOUND),
    ],
)
def test_the_open_orders_are_read_off_an_index_that_has_no_closed_one(
    conn: sqlite3.Connection, sql: str, values: Any
) -> None:
    details = plan(conn, sql, values)
    # The second one has, besides, those whose request goes on: they are few.
    assert "INDEX orders_open" in details[0] or "INDEX orders_live" in details[0], details
    assert all(
        detail.startswith(("SEARCH ", "SCALAR SUBQUERY", "CORRELATED SCALAR SUBQUERY")) for detail in details[1:]
    ), details


def test_the_requests_that_go_on_are_read_off_an_index_of_their_own(conn: sqlite3.Connection) -> None:
    details = plan(conn, ORDERS + store.GOING_ON)
    assert "INDEX orders_going_on" in details[0], details
    assert all(detail.startswith("SEARCH ") for detail in details[1:]), details


def test_erasing_and_deleting_check_no_foreign_key_by_a_scan(conn: sqlite3.Connection) -> None:
    """Nothing that is deleted has children; SQLite would look for them."""
    children = {
        row["table"]
        for table in ("items", "replies", "secrets")
        for name in [r["name"] for r in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for row in conn.execute(f"PRAGMA foreign_key_list({name})")
        if row["table"] == table
    }
    assert children == set()


def test_what_the_store_says_in_any_test_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what would read a whole table is seen; not what a test itself asks its database."""
    monkeypatch.setattr(watch, "_EXPLAINED", set())
    with closing(SqliteStore(tmp_path / "holdpay.db")) as db:
        db._rows("SELECT 1")
        db.find_key("nobody's")
        assert watch.Watched.said == {store.REQUEST_BY_KEY: ("", "nobody's")}
        assert watch.scans(db._conn, "SELECT sum(reserved_msat) FROM orders") == ["SCAN orders"]
        assert watch.scans(db._conn, store.REQUEST_BY_KEY, ("", "x")) == []
