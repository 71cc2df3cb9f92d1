"""A file beside the log of another one: what SQLite makes of both is no database of ours."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from holdpay.core.model import Order
from holdpay.errors import StoreError
from holdpay.ports import Limits
from holdpay.store import integrity
from holdpay.store.agreeing import refuse_another_log
from holdpay.store.aside import checkpoint
from holdpay.store.journal import written
from holdpay.store.store import SqliteStore
from tests.unit.audit.books import FULFILLED, HELD, KINDS, PREPAID, Timed, prepaid
from tests.unit.audit.test_database import LIMITS, go_on, live
from tests.unit.build import NOW_MS, order

MANY: Limits = replace(LIMITS, max_open_orders=10**6, max_pending_sat=2**40, max_spend_per_day_sat=2**40)
ENOUGH = 60
"""Orders, so that the pages of the first are not those of the last."""
MORE_THAN_A_PAGE_OF_AN_INDEX = 2_500
REFUSED = r"is not what its journal says last|missing from index|missing in their index"


def take(path: Path, copy: Path) -> None:
    """As `sqlite3 FILE .backup` does: page by page. To read the file itself would end the locks of this process."""
    with closing(sqlite3.connect(path)) as here, closing(sqlite3.connect(copy)) as there:
        here.backup(there)


def after_a_crash(path: Path, to: Path) -> None:
    """The files as a kill leaves them. The last thing that is done beside the store."""
    for file in path.parent.glob(f"{path.name}*"):
        shutil.copyfile(file, to.with_name(to.name + file.name.removeprefix(path.name)))


def filled(store: SqliteStore, count: int) -> list[Order]:
    """With ids that are not in the order of the numbers."""
    store._conn.execute("PRAGMA synchronous = OFF")
    return [store.create(order(id=f"{n * 7919 % 10**9:010}", key=f"{n}"), MANY, NOW_MS) for n in range(count)]


@contextmanager
def copied(folder: Path, count: int) -> Iterator[tuple[Path, SqliteStore, list[Order]]]:
    """A store of so many orders, and a copy of it. After what is done with it comes a crash: left.db is the copy beside
    the log of the other, and same.db is the other."""
    path, left, copy = folder / "holdpay.db", folder / "left.db", folder / "copy.db"
    with closing(SqliteStore(path)) as store:
        orders = filled(store, count)
        take(path, copy)
        yield path, store, orders
        after_a_crash(path, left)
        after_a_crash(path, folder / "same.db")
    copy.replace(left)


@pytest.mark.parametrize("steps", range(1, len(FULFILLED) + 1))
def test_a_copy_that_was_put_beside_the_log_of_another_file_is_refused_for_good(tmp_path: Path, steps: int) -> None:
    with copied(tmp_path, ENOUGH) as (path, store, orders):
        go_on(store, orders[0], *FULFILLED[:steps])
        checkpoint(path)
        store.create(order(id="zzzzzorder", key="last"), MANY, NOW_MS)
    with closing(SqliteStore(tmp_path / "same.db")) as same:
        assert same.last_cursor() == ENOUGH + steps + 1
    for _ in range(2):
        with pytest.raises(StoreError, match=REFUSED):
            SqliteStore(tmp_path / "left.db")


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file counts as one that is too large to be read whole at the start."""
    monkeypatch.setattr(integrity, "READ_WHOLE_BYTES", 0)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("steps", [1, 3, 5, len(FULFILLED)])
def test_an_index_that_is_as_old_as_the_order_hides_nothing(tmp_path: Path, steps: int) -> None:
    with copied(tmp_path, MORE_THAN_A_PAGE_OF_AN_INDEX) as (path, store, orders):
        go_on(store, orders[0], *FULFILLED[:steps])
        checkpoint(path)
        store.create(order(id="zzzzzorder", key="last"), MANY, NOW_MS)
    with pytest.raises(StoreError, match=f"order {orders[0].id} is not what its journal says last"):
        SqliteStore(tmp_path / "left.db")


@pytest.mark.usefixtures("large")
def test_an_order_that_the_copy_does_not_have_is_missed(tmp_path: Path) -> None:
    with copied(tmp_path, MORE_THAN_A_PAGE_OF_AN_INDEX) as (path, store, orders):
        go_on(store, store.create(order(id="zzzzzorder", key="last"), MANY, NOW_MS), *FULFILLED[:5])
        checkpoint(path)
        go_on(store, orders[0], *FULFILLED[:1])
    with pytest.raises(StoreError, match=r"an order of its journal is missing"):
        SqliteStore(tmp_path / "left.db")


LIVES: dict[str, tuple[Order, tuple[Timed, ...]]] = {
    "held": (order(), HELD),
    "fulfilled": (order(), FULFILLED),
    **KINDS,
    **{f"prepaid, {name}": (prepaid(), events) for name, events in PREPAID.items()},
}


@pytest.mark.parametrize("name", LIVES)
def test_whatever_an_order_goes_through_its_tables_agree_with_its_journal(tmp_path: Path, name: str) -> None:
    path = tmp_path / "holdpay.db"
    now, events = LIVES[name]
    with closing(SqliteStore(path)) as store, closing(sqlite3.connect(path)) as beside:
        beside.row_factory = sqlite3.Row
        store.create(now, LIMITS, now.created_at_ms)
        refuse_another_log(beside)
        for event in events:
            now = go_on(store, now, event)
            refuse_another_log(beside)


@pytest.mark.parametrize(
    ("name", "set_back"),
    [
        ("held", "UPDATE payments SET htlc = 'none'"),
        ("prepaid, placed", "UPDATE charges SET state = 'intended'"),
        ("fulfilled", """UPDATE orders SET closed_at_ms = NULL, "end" = NULL"""),
        ("held", "DELETE FROM htlc_attempts; DELETE FROM payments"),
    ],
)
def test_a_table_that_was_set_back_alone_is_noticed(tmp_path: Path, name: str, set_back: str) -> None:
    path = tmp_path / "holdpay.db"
    request, events = LIVES[name]
    with closing(SqliteStore(path)) as store:
        live(store, request, *events)
    with closing(sqlite3.connect(path)) as conn:
        conn.executescript(set_back)
    with pytest.raises(StoreError, match="order abcdefghjk is not what its journal says last"):
        SqliteStore(path)


def test_an_order_whose_latest_word_makes_no_sense_is_not_judged_by_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "holdpay.db"
    request, events = LIVES["fulfilled"]
    with closing(SqliteStore(path)) as store:
        live(store, request, *events)
    with closing(sqlite3.connect(path)) as conn:
        conn.row_factory = sqlite3.Row
        told = conn.execute("SELECT cursor, at_ms, entry FROM journal").fetchall()
        latest = max(row["cursor"] for row in told if "payment.htlc" in written(row).change)
        conn.executescript("DROP TRIGGER journal_is_append_only")
        conn.execute("UPDATE journal SET entry = x'00' WHERE cursor = ?", (latest,))
        refuse_another_log(conn)


def test_when_an_order_was_closed_is_of_no_weight(tmp_path: Path) -> None:
    path = tmp_path / "holdpay.db"
    request, events = LIVES["fulfilled"]
    with closing(SqliteStore(path)) as store:
        live(store, request, *events)
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("UPDATE orders SET closed_at_ms = closed_at_ms + 1")
        conn.commit()
    SqliteStore(path).close()
