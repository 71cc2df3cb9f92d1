"""The database as the audit reads it: read-only, as of one moment, beside a running daemon. Damage is a finding."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from pydantic import TypeAdapter
from sqlite_utils import Database

from holdpay.audit.books import Booked, JournalRow, OrderBook, StoredAttempt
from holdpay.audit.findings import Finding, Severity
from holdpay.audit.journal import MEND, gap_findings
from holdpay.core.dispatches import DispatchRecord
from holdpay.core.events import Event, event_name
from holdpay.core.lightning import Attempt
from holdpay.core.model import Order
from holdpay.errors import HoldpayError, OrderUnreadable, StoreError
from holdpay.store.changes import order_of
from holdpay.store.journal import RAW_LIMIT_BYTES, REQUESTED, SELECT_WITH_REPLIES, Written, said, written
from holdpay.store.reading import BAD_ROW, SELECT_ORDERS, to_order
from holdpay.store.rows import Row, from_row
from holdpay.store.schema import migrations

MAX_PROBLEMS: Final = 10
"""Of SQLite's own checks, each; a broken file has thousands."""

# The class alone decides the name.
_EVENTS: Final[dict[str, TypeAdapter[Any]]] = {
    event_name(kind.__new__(kind)): TypeAdapter(kind) for kind in typing.get_args(Event)
}
_SELECT_BOOKED: Final = """
    SELECT coalesce(sum(CASE what WHEN 'reserve' THEN msat WHEN 'release' THEN -msat END), 0) AS reserved_msat,
      coalesce(sum(iif(what = 'spend', msat, 0)), 0) AS spent_msat
    FROM ledger WHERE order_no = (SELECT no FROM orders WHERE id = ?)
"""
_OTHER_ENDS: Final = """
    SELECT r.id FROM requests r JOIN orders o ON o.request_id = r.id
    WHERE o.no = (SELECT max(no) FROM orders WHERE request_id = r.id)
      AND (r.closed_at_ms, r."end") IS NOT (
        iif(o.succession IS NULL, o.closed_at_ms, NULL), iif(o.succession IS NULL, o."end", NULL)
      )
    ORDER BY r.id
"""


class DatabaseUnreadable(HoldpayError):
    """It cannot be opened, or is no database; the text is a sentence."""


AS_THE_DAEMON: Final = "Run this as the daemon's user (`sudo -u holdpay`)."


class DatabaseForbidden(HoldpayError):
    """This user may not read the database, which says nothing of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} may not be read by this user. {AS_THE_DAEMON}")


_OF_SEVERAL_CLIENTS = """
    SELECT o.id FROM orders o JOIN requests r ON r.id = o.request_id WHERE o.client <> r.client
    UNION SELECT o.id FROM ledger l JOIN orders o ON o.no = l.order_no WHERE l.client <> o.client
    UNION SELECT o.id FROM journal j JOIN orders o ON o.no = j.order_no WHERE j.client <> o.client
    ORDER BY 1
"""


class StoredBooks:
    """A context manager. Entering raises as ``open_read_only`` does."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> StoredBooks:
        self._conn = open_read_only(self._path)
        self._orders = self._conn
        try:
            if _is_older(self._conn):
                self._orders = _brought_up_to_date(self._conn)
        except BaseException:
            self._conn.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._orders.close()
        self._conn.close()

    @property
    def is_blank(self) -> bool:
        """Not one table: a file that was cut to nothing, or a start that was cut short."""
        return not _objects(self._conn)

    # --- the file -----------------------------------------------------------------------------------------------------

    def file_findings(self) -> list[Finding]:
        """SQLite's own checks, the schema and the journal's cursors."""
        try:
            return [*self._integrity(), *self._schema(), *self._cursors()]
        except sqlite3.Error as error:
            return [_damaged(f"It cannot be read: {error}.")]

    def _integrity(self) -> Iterator[Finding]:
        for (line,) in self._conn.execute(f"PRAGMA integrity_check({MAX_PROBLEMS})"):
            if line != "ok":
                yield _damaged(f"SQLite's integrity check says: {' '.join(str(line).split())}.")
        orphans = self._conn.execute("PRAGMA foreign_key_check").fetchmany(MAX_PROBLEMS)
        for table, rowid, parent, _ in orphans:
            yield _damaged(f"Row {rowid} of {table} belongs to no row of {parent}.")

    def _schema(self) -> Iterator[Finding]:
        fresh = _empty()
        migrations.apply(fresh)
        ours = applied_migrations(fresh.conn)
        theirs = applied_migrations(self._conn)
        if theirs - ours:
            yield Finding(
                severity=Severity.ERROR,
                code="newer-schema",
                text=f"The database was written by a newer holdpay ({', '.join(sorted(theirs - ours))}).",
                todo="Install that version again, and run its `holdpayd check`.",
            )
        elif ours - theirs:
            yield Finding(
                severity=Severity.WARNING,
                code="older-schema",
                text=f"The database is of an older holdpay ({', '.join(sorted(ours - theirs))} is missing).",
                todo="holdpayd brings it up to date at its next start, and keeps a copy; run this again then.",
            )
        else:
            missing = {name for _, name, _ in _objects(fresh.conn) - _objects(self._conn)}
            foreign = {name for _, name, _ in _objects(self._conn) - _objects(fresh.conn)}
            if missing | foreign:
                yield _damaged(f"Its tables, indexes or triggers are not ours: {', '.join(sorted(missing | foreign))}.")

    def _cursors(self) -> list[Finding]:
        gaps = self._conn.execute(
            "SELECT before + 1, cursor - 1 FROM"
            " (SELECT cursor, lag(cursor, 1, 0) OVER (ORDER BY cursor) AS before FROM journal)"
            " WHERE cursor > before + 1"
        ).fetchmany(MAX_PROBLEMS)
        (last,) = self._conn.execute("SELECT coalesce(max(cursor), 0) FROM journal").fetchone()
        given = self._conn.execute("SELECT seq FROM sqlite_sequence WHERE name = 'journal'").fetchone()
        return gap_findings(gaps, last, (given[0] if given else last) + 1)

    # --- the orders ---------------------------------------------------------------------------------------------------

    def order_ids(self) -> list[str]:
        """Oldest first. Raises sqlite3.Error."""
        return [row[0] for row in self._orders.execute("SELECT id FROM orders ORDER BY created_at_ms, id")]

    def payment_hashes(self) -> set[str]:
        """Of every order. Raises sqlite3.Error."""
        return {row[0] for row in self._orders.execute("SELECT payment_hash FROM payments")}

    def request_findings(self) -> list[Finding]:
        """Requests without an order, or with another end than their last one's. (An order without its request cannot
        be read.) Raises sqlite3.Error."""
        sql = "SELECT id FROM requests WHERE id NOT IN (SELECT request_id FROM orders) ORDER BY id"
        found = self._orders.execute(sql).fetchmany(MAX_PROBLEMS)
        ended = self._orders.execute(_OTHER_ENDS).fetchmany(MAX_PROBLEMS)
        return [
            *(_damaged(f"Request {request_id} has no order.") for (request_id,) in found),
            *(_damaged(f"Request {request_id} did not end as its last order did.") for (request_id,) in ended),
        ]

    def client_findings(self) -> list[Finding]:
        """Orders whose rows name several clients: budgets and who may see them go by those. Raises sqlite3.Error."""
        found = self._orders.execute(_OF_SEVERAL_CLIENTS).fetchmany(MAX_PROBLEMS)
        return [
            _damaged(f"Order {order_id} is of one client here and of another there.", order_id) for (order_id,) in found
        ]

    def book(self, order_id: str) -> OrderBook | Finding:
        """All that is stored of an order; a finding if its tables make no sense."""
        try:
            order = self._order(order_id)
            reserved_msat, booked = self._money(order_id)
            attempts, dispatches = self._attempts(order_id), self._dispatches(order_id)
            rows, unreadable = self._journal(order)
        except (sqlite3.Error, OrderUnreadable, StoreError, *BAD_ROW) as error:
            return _damaged(f"Order {order_id} cannot be read ({type(error).__name__}).", order_id)
        return OrderBook(
            order=order,
            reserved_msat=reserved_msat,
            booked=booked,
            attempts=attempts,
            dispatches=dispatches,
            journal=tuple(rows),
            unreadable=tuple(unreadable),
        )

    def order(self, order_id: str) -> Order | None:
        """As its tables have it; None if they make no sense."""
        try:
            return self._order(order_id)
        except (sqlite3.Error, OrderUnreadable, StoreError):
            return None

    def _order(self, order_id: str) -> Order:
        row = self._orders.execute(f"{SELECT_ORDERS} WHERE o.id = ?", (order_id,)).fetchone()
        return to_order(self._orders, row)

    def _money(self, order_id: str) -> tuple[int, Booked]:
        (reserved_msat,) = self._orders.execute("SELECT reserved_msat FROM orders WHERE id = ?", (order_id,)).fetchone()
        row = self._orders.execute(_SELECT_BOOKED, (order_id,)).fetchone()
        return reserved_msat, Booked(reserved_msat=row["reserved_msat"], spent_msat=row["spent_msat"])

    def _attempts(self, order_id: str) -> dict[int, StoredAttempt]:
        sql = "SELECT * FROM htlc_attempts WHERE order_no = (SELECT no FROM orders WHERE id = ?)"
        rows = self._orders.execute(sql, (order_id,))
        return {row["attempt_id"]: StoredAttempt(row["dispatch"], from_row(Attempt, row)) for row in rows}

    def _dispatches(self, order_id: str) -> dict[int, DispatchRecord]:
        sql = "SELECT * FROM dispatches WHERE order_no = (SELECT no FROM orders WHERE id = ?)"
        return {row["n"]: from_row(DispatchRecord, row) for row in self._orders.execute(sql, (order_id,))}

    def _journal(self, order: Order) -> tuple[list[JournalRow], list[int]]:
        readable: list[JournalRow] = []
        unreadable: list[int] = []
        columns: Row = {"erased_at_ms": order.erased_at_ms}
        """All changes so far. That what was delivered was erased, the order's own row says alone."""
        for row in self._orders.execute(SELECT_WITH_REPLIES, (order.id,)):
            try:
                entry = written(row)
                columns.update(entry.change)
                read = _journal_row(row, entry, order_of(columns, order.request, ()))
            except BAD_ROW:
                unreadable.append(row["cursor"])
                continue
            if not unreadable:
                readable.append(read)
        return readable, unreadable


def is_there(path: Path) -> bool:
    """Raises DatabaseForbidden where this user cannot know or may not read it, DatabaseUnreadable."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError as error:
        raise DatabaseForbidden(path) from error
    except OSError as error:
        raise DatabaseUnreadable(f"{path} cannot be opened ({error.strerror})") from error
    # Not by opening it: to close it again would end the locks that SQLite has on it in this process.
    if not os.access(path, os.R_OK):
        raise DatabaseForbidden(path)
    return True


def open_read_only(path: Path, *, is_glance: bool = False) -> sqlite3.Connection:
    """As of one moment, also beside a running daemon. Raises FileNotFoundError, DatabaseForbidden, DatabaseUnreadable.

    ``is_glance``: a look so short that nobody begins to use the database meanwhile. While nobody does, not even
    the lock files of SQLite come into being beside it then.
    """
    if not is_there(path):
        raise FileNotFoundError(path)
    is_in_use = path.with_name(path.name + "-shm").exists() or _size(path.with_name(path.name + "-wal")) > 0
    try:
        return _connect(path, "immutable=1" if is_glance and not is_in_use else "mode=ro")
    except sqlite3.OperationalError as error:
        if _size(path.with_name(path.name + "-wal")):
            raise DatabaseUnreadable(f"{path} cannot be opened ({error})") from error
    except sqlite3.Error as error:
        raise DatabaseUnreadable(f"{path} cannot be opened ({error})") from error
    # A folder in which nothing may be written, and nobody writes: SQLite can do without its lock files then.
    try:
        return _connect(path, "immutable=1")
    except sqlite3.Error as error:
        raise DatabaseUnreadable(f"{path} cannot be opened ({error})") from error


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    conn = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None)
    try:
        conn.row_factory = sqlite3.Row
        # A flipped bit is a finding, not a crash of the reader.
        conn.text_factory = lambda data: data.decode(errors="replace")
        conn.execute("BEGIN")
        conn.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        conn.close()
        raise
    return conn


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _is_older(conn: sqlite3.Connection) -> bool:
    """Whether migrations are still to come, and none is of a newer holdpay."""
    try:
        return applied_migrations(conn) < known_migrations()
    except sqlite3.Error:
        return False


def _empty() -> Database:
    return Database(memory=True, execute_plugins=False)


def known_migrations() -> set[str]:
    """Names of all that this version has."""
    return {migration.name for migration in migrations.pending(_empty())}


def applied_migrations(conn: sqlite3.Connection) -> set[str]:
    """Names of those that a database has had. Raises sqlite3.Error."""
    rows = conn.execute("SELECT name FROM _sqlite_migrations WHERE migration_set = ?", (migrations.name,))
    return {row[0] for row in rows}


def _objects(conn: sqlite3.Connection) -> set[tuple[str, str, str]]:
    rows: Iterable[Any] = conn.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {tuple(row) for row in rows}


def _brought_up_to_date(conn: sqlite3.Connection) -> sqlite3.Connection:
    """A copy in memory, as the next start of holdpayd makes it. Raises DatabaseUnreadable."""
    copy = _empty()
    try:
        conn.backup(copy.conn)
        copy.conn.isolation_level = None
        migrations.apply(copy)
    except (sqlite3.Error, *BAD_ROW) as error:
        copy.conn.close()
        raise DatabaseUnreadable(f"The database cannot be brought up to date ({error})") from error
    copy.conn.row_factory = sqlite3.Row
    copy.conn.text_factory = conn.text_factory
    return copy.conn


def _journal_row(row: sqlite3.Row, entry: Written, after: Order) -> JournalRow:
    """Raises one of BAD_ROW."""
    reply = said(row)
    if reply is not None and entry.data is not None:
        raise ValueError("said twice")
    data = entry.data if reply is None else reply.data
    adapter = None if entry.event == REQUESTED.event else _EVENTS[entry.event]
    is_erased = data is None and after.erased_at_ms is not None
    return JournalRow(
        cursor=row["cursor"],
        at_ms=row["at_ms"],
        event=None if adapter is None or is_erased else adapter.validate_json(data or ""),
        after=after,
        is_raw_intact=reply is None or _is_raw_intact(reply.raw, reply.raw_sha256),
    )


def _is_raw_intact(raw: str | None, sha256: str | None) -> bool:
    if raw is None or sha256 is None:
        return raw is None and sha256 is None
    data = raw.encode()
    # A reply that was cut has the hash of the whole; a character may have been dropped at the cut.
    return len(data) > RAW_LIMIT_BYTES - 4 or hashlib.sha256(data).hexdigest() == sha256


def _damaged(text: str, order_id: str | None = None) -> Finding:
    return Finding(severity=Severity.ERROR, code="database-damaged", text=text, todo=MEND, order_id=order_id)
