"""Opening the database: file modes, pragmas, migrations with a copy kept before, and the one kind of transaction."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sqlite_utils import Database

from holdpay.errors import StoreError
from holdpay.store.schema import migrations

BUSY_TIMEOUT_S = 5.0
"""A database locked by another program blocks the whole daemon this long: well under a quarter of the watchdog."""

COPIES_KEPT = 3


def open_database(path: Path) -> Database:
    """Opens or creates the database, brings its tables up to date. Raises StoreError with what to do."""
    try:
        path.touch(mode=0o600, exist_ok=True)
        conn = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        # A plug-in of the user's sqlite-utils has no business in here.
        db = Database(conn, execute_plugins=False)
        _set_pragmas(conn)
        _migrate(db, path)
    except sqlite3.Error as error:
        raise StoreError(
            f"The database {path} cannot be used: {error}. Check the disk and the file's rights."
        ) from error
    except OSError as error:
        raise StoreError(
            f"The database {path} cannot be opened: {error.strerror}. Check its folder's rights."
        ) from error
    return db


def _set_pragmas(conn: sqlite3.Connection) -> None:
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("PRAGMA synchronous = FULL")
    conn.execute("PRAGMA foreign_keys = ON")
    conn.execute("PRAGMA trusted_schema = OFF")


def _migrate(db: Database, path: Path) -> None:
    ours = {migration.name for migration in migrations.pending(Database(memory=True, execute_plugins=False))}
    applied = {migration.name for migration in migrations.applied(db)}
    newer = applied - ours
    if newer:
        raise StoreError(
            f"The database {path} was written by a newer holdpay ({', '.join(sorted(newer))})."
            " Install that version again."
        )
    if ours == applied:
        return
    if applied:
        _keep_copy(db.conn, path, min(ours - applied))
    migrations.apply(db)


def _keep_copy(conn: sqlite3.Connection, path: Path, migration: str) -> None:
    """A consistent copy by the backup API, before a migration; the last few are kept."""
    copy = path.with_name(f"{path.name}.before-{migration}")
    fd = os.open(copy, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    os.close(fd)
    with contextlib.closing(sqlite3.connect(copy)) as target:
        conn.backup(target)
    copies = sorted(path.parent.glob(f"{path.name}.before-*"), key=lambda p: p.stat().st_mtime)
    for old in copies[:-COPIES_KEPT]:
        old.unlink()


@contextlib.contextmanager
def transaction(conn: sqlite3.Connection) -> Iterator[None]:
    """The only way to write: BEGIN IMMEDIATE … COMMIT, which proves that it was the outermost and that it ended.

    A bare ``execute`` elsewhere could leave an implicit transaction open; a COMMIT inside it would report success and
    be gone after a crash. Raises StoreError on any failure of the database; the caller's errors pass after a ROLLBACK.
    """
    try:
        if conn.in_transaction:
            raise StoreError("A transaction was left open. Restart holdpayd, and please report this.")
        conn.execute("BEGIN IMMEDIATE")
        try:
            yield
            conn.execute("COMMIT")
        except BaseException:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            raise
        if conn.in_transaction:
            raise StoreError("A commit did not end its transaction. Restart holdpayd, and please report this.")
    except sqlite3.Error as error:
        raise StoreError(
            f"The database could not be written: {error}. Check the disk; nothing was done meanwhile."
        ) from error
