"""Whatever the store says to a database in any of these tests, it scans nothing that grows: the daemon waits for it."""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from types import FrameType
from typing import Any, Final

import pytest

from holdpay.store import hook_tables, hooks, outstanding, payees, reading, store
from holdpay.store.hooks import SqliteHookStore
from holdpay.store.store import SqliteStore
from tests.databases import empty_database

MAY_SCAN: Final = {
    reading.SELECT_ORDERS + store.OPEN: "once, at the start: the open orders, off an index that has no others",
    reading.SELECT_ORDERS + store.GOING_ON: "as those; they are few",
    store.MAY_MOVE_BALANCE: "open orders, and only where an answer about the account was lost",
    hook_tables.FORGET: "the hooks of the configuration",
    hooks.LAST_OF_TOPICS: "from the newest on, of the 10,000 that are kept",
    payees.TRUSTED: "off an index of the trusted ones: as many as people trust",
    payees.ALL: "for people, of another process: as many as were ever met",
    outstanding.ADDED_UP: "once in a process: from then on it is carried along",
}
"""Why each of them may."""
OF_FEW: Final = ("CONSTANT ROW", "json_each", "wanted")
"""What is scanned is in the statement itself: ``wanted`` is a page of a list."""
PAGE: Final = "LIMIT ?) wanted)"
"""Read off the index in whose order it is, as far as the page goes: ``tests.unit.store.test_plans``."""
SHORTCUTS: Final = {"rows", "_rows", "_one", "_found"}
STATEMENTS: Final = {"SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "WITH"}


class Watched(sqlite3.Connection):
    """Notes what the store says once it has opened its database, each statement with values of one time."""

    said: Final[dict[str, Any]] = {}
    is_open = False

    def execute(self, sql: str, values: Any = (), /) -> sqlite3.Cursor:
        if self.is_open and sql not in _EXPLAINED and _is_from_the_daemon(sys._getframe(1)):
            self.said.setdefault(sql, values)
        return super().execute(sql, values)


def _is_from_the_daemon(frame: FrameType | None) -> bool:
    """And not from a test that looks into its database, perhaps through one of the store's own shortcuts."""
    while frame is not None and frame.f_code.co_name in SHORTCUTS:
        frame = frame.f_back
    return frame is not None and frame.f_globals["__name__"].startswith("holdpay.")


def scans(conn: sqlite3.Connection, sql: str, values: Any = ()) -> list[str]:
    """What a statement reads from the first to the last."""
    if sql.split(maxsplit=1)[0].upper() not in STATEMENTS:
        return []
    details = [row[3] for row in conn.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    if PAGE in sql and "TEMP B-TREE" not in " ".join(details[:-1]):
        details = [detail for detail in details if not re.match(r"SCAN r USING (COVERING )?INDEX requests_", detail)]
    return [detail for detail in details if detail.startswith("SCAN") and not any(few in detail for few in OF_FEW)]


@pytest.fixture(scope="session")
def explainer() -> Iterator[sqlite3.Connection]:
    """A database of this release, in memory. While it is there the stores of all tests are watched."""
    database, connect = empty_database(), sqlite3.connect
    conn = connect(":memory:")
    conn.deserialize(database[:18] + b"\1\1" + database[20:])  # without a write-ahead log
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sqlite3, "connect", lambda *of, **by: connect(*of, **{"factory": Watched, **by}))
        for kind in (SqliteStore, SqliteHookStore):
            patched.setattr(kind, "__init__", _watching(kind.__init__))
        yield conn
    conn.close()


def _watching(open_database: Callable[..., None]) -> Callable[..., None]:
    @wraps(open_database)
    def opened(self: SqliteStore | SqliteHookStore, *given: Any) -> None:
        open_database(self, *given)
        if isinstance(self._conn, Watched):
            self._conn.is_open = True

    return opened


@pytest.fixture(autouse=True)
def nothing_scans_what_grows(explainer: sqlite3.Connection) -> Iterator[None]:
    """Each statement is explained after the test that has made it first."""
    yield
    new = {sql: values for sql, values in Watched.said.items() if sql not in _EXPLAINED}
    Watched.said.clear()
    _EXPLAINED.update(new)
    bad = {sql: found for sql, values in new.items() if (found := scans(explainer, sql, values))}
    assert bad.keys() <= MAY_SCAN.keys(), bad


_EXPLAINED: Final[set[str]] = set()
