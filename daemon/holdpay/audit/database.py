"""The database as the audit reads it: read-only, as of one moment, beside a running daemon. Damage is a finding."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import typing
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from sqlite_utils import Database

from holdpay.audit.books import JournalRow, OrderBook, StoredAttempt
from holdpay.audit.findings import Finding, Severity
from holdpay.audit.journal import MEND, gap_findings
from holdpay.core.events import Event, event_name
from holdpay.core.lightning import Attempt
from holdpay.core.model import Order, Payment
from holdpay.store.rows import from_row, to_value
from holdpay.store.schema import migrations
from holdpay.store.journal import RAW_LIMIT_BYTES

MAX_PROBLEMS: Final = 10
"""Of SQLite's own checks, each; a broken file has thousands."""

_BAD_ROW = (ValueError, KeyError, TypeError, AttributeError, ValidationError)

# The class alone decides the name.
_EVENTS: Final[dict[str, TypeAdapter[Any]]] = {
    event_name(kind.__new__(kind)): TypeAdapter(kind) for kind in typing.get_args(Event)
}
_ORDER: Final = TypeAdapter(Order)


class DatabaseUnreadable(Exception):
    """It cannot be opened, or is no database; the text is a sentence."""


class StoredBooks:
    """A context manager. Entering raises FileNotFoundError if there is no database, DatabaseUnreadable otherwise."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> StoredBooks:
        self._conn = _open(self._path)
        self._is_older = _is_older(self._conn)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
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
        ours = _applied(fresh.conn)
        theirs = _applied(self._conn)
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
        return [row[0] for row in self._conn.execute("SELECT id FROM orders ORDER BY created_at_ms, id")]

    def payment_hashes(self) -> set[str]:
        """Of every order. Raises sqlite3.Error."""
        return {row[0] for row in self._conn.execute("SELECT payment_hash FROM payments")}

    def book(self, order_id: str) -> OrderBook | Finding:
        """All that is stored of an order; a finding if its tables make no sense."""
        try:
            order, reserved_msat = self._order(order_id)
            attempts = self._attempts(order.payment.payment_hash) if order.payment is not None else {}
            rows, unreadable = self._journal(order_id)
        except (sqlite3.Error, *_BAD_ROW) as error:
            return _damaged(f"Order {order_id} cannot be read ({type(error).__name__}).", order_id)
        return OrderBook(
            order=order,
            reserved_msat=reserved_msat,
            attempts=attempts,
            journal=tuple(rows),
            unreadable=tuple(unreadable),
        )

    def order(self, order_id: str) -> Order | None:
        """As its tables have it; None if they make no sense."""
        try:
            return self._order(order_id)[0]
        except (sqlite3.Error, *_BAD_ROW):
            return None

    def _order(self, order_id: str) -> tuple[Order, int]:
        row = self._conn.execute("SELECT * FROM orders WHERE id = ?", (order_id,)).fetchone()
        paid = self._conn.execute("SELECT * FROM payments WHERE order_id = ?", (order_id,)).fetchone()
        payment = None if paid is None else from_row(Payment, self._of_today(Payment, paid))
        return from_row(Order, self._of_today(Order, row), payment=payment), row["reserved_msat"]

    def _attempts(self, payment_hash: str) -> dict[int, StoredAttempt]:
        rows = self._conn.execute("SELECT * FROM htlc_attempts WHERE payment_hash = ?", (payment_hash,))
        return {
            row["attempt_id"]: StoredAttempt(row["dispatch"], from_row(Attempt, self._of_today(Attempt, row)))
            for row in rows
        }

    def _of_today(self, cls: type[Order | Payment | Attempt], row: sqlite3.Row) -> dict[str, Any]:
        """The row; one of an older holdpay with what the columns that it lacks will say after the next start."""
        if not self._is_older:
            return dict(row)
        return {**{f.name: to_value(f.default) for f in fields(cls) if f.default is not MISSING}, **dict(row)}

    def _journal(self, order_id: str) -> tuple[list[JournalRow], list[int]]:
        readable, unreadable = [], []
        rows = self._conn.execute("SELECT * FROM journal WHERE order_id = ? ORDER BY cursor", (order_id,))
        for position, row in enumerate(rows):
            try:
                readable.append(_journal_row(position, row))
            except _BAD_ROW:
                unreadable.append(row["cursor"])
        return readable, unreadable


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.stat()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DatabaseUnreadable(f"{path} cannot be opened ({error.strerror})") from error
    try:
        return _connect(path, "mode=ro")
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
        return _applied(conn) < {migration.name for migration in migrations.pending(_empty())}
    except sqlite3.Error:
        return False


def _empty() -> Database:
    return Database(memory=True, execute_plugins=False)


def _applied(conn: sqlite3.Connection) -> set[str]:
    rows = conn.execute("SELECT name FROM _sqlite_migrations WHERE migration_set = ?", (migrations.name,))
    return {row[0] for row in rows}


def _objects(conn: sqlite3.Connection) -> set[tuple[str, str, str]]:
    rows: Iterable[Any] = conn.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {tuple(row) for row in rows}


def _journal_row(position: int, row: sqlite3.Row) -> JournalRow:
    """Raises one of _BAD_ROW."""
    if not all(isinstance(note, str) for note in json.loads(row["notes"])):
        raise ValueError("notes")
    adapter = None if row["event"] == "order_requested" else _EVENTS[row["event"]]
    snapshot = _ORDER.validate_json(row["snapshot"])
    return JournalRow(
        position=position,
        cursor=row["cursor"],
        at_ms=row["at_ms"],
        event=None if adapter is None else adapter.validate_json(row["data"]),
        snapshot=snapshot,
        is_raw_intact=snapshot.erased_at_ms is not None or _is_raw_intact(row["raw"], row["raw_sha256"]),
    )


def _is_raw_intact(raw: str | None, sha256: str | None) -> bool:
    if raw is None or sha256 is None:
        return raw is None and sha256 is None
    data = raw.encode()
    # A reply that was cut has the hash of the whole; a character may have been dropped at the cut.
    return len(data) > RAW_LIMIT_BYTES - 4 or hashlib.sha256(data).hexdigest() == sha256


def _damaged(text: str, order_id: str | None = None) -> Finding:
    return Finding(severity=Severity.ERROR, code="database-damaged", text=text, todo=MEND, order_id=order_id)
