"""Opening the database: file modes, pragmas, migrations with a copy kept before, and the one kind of transaction."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from sqlite_utils import Database

from holdpay import manual
from holdpay.errors import NotReady, StoreError
from holdpay.store.integrity import look_at_open_orders, look_at_start, was_left_behind
from holdpay.store.newest import RESTORE, Newest
from holdpay.store.note import moment, note_of
from holdpay.store.schema import FIRST_WITH_NEWEST, migrations

BUSY_TIMEOUT_S = 5.0
"""A database locked by another program blocks the whole daemon this long: well under a quarter of the watchdog."""

STATEMENTS_KEPT: Final = 500
"""Prepared: there is one for each set of columns that an event changes."""

LOG_MAX_PAGES: Final = 4_000
"""16 MiB: a commit that finds the write-ahead log longer copies what ``aside.checkpoint`` has not."""

COPIES_KEPT = 3

REWRITE_MAX_BYTES: Final = 64 * 2**20
"""Written anew in some tenths of a second."""
FIRST_CLEAN_COPY: Final = "0003"
"""Copies made before earlier migrations have erased codes in them, and freed pages with more."""

MIN_FREE_BYTES: Final = 64 * 2**20
"""With less free on the disk no new order is taken, so that the open ones can be written down to their end: a common
one takes 5 KiB, the worst that a hostile provider can make of one 2 MiB, and the write-ahead log 16 MiB and more."""

_DAMAGED: Final = (
    f"It is damaged. Keep the file, and follow {manual.page('operations.md', 'Damaged database')}"
    " (`holdpayd check`, then `holdpayd recover`)"
)
# SQLite deletes the log of an empty file, and what was committed last is nowhere else.
_LOG_ALONE: Final = (
    "{path} is missing or empty, and its log {path}-wal is there, with what was written last. Put the file back beside"
    " the log, or move the log to another folder and keep it."
)
_RIGHTS: Final = "See that it and its folder belong to the daemon's user, and that the disk is not mounted read-only"
_REMEDIES: Final = {
    sqlite3.SQLITE_FULL: "Make room on the disk",
    sqlite3.SQLITE_IOERR: "Look after the disk (`df`, `dmesg`)",
    sqlite3.SQLITE_BUSY: "Another program holds it: end that one (`fuser` shows it)",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_READONLY: _RIGHTS,
    sqlite3.SQLITE_CANTOPEN: _RIGHTS,
    sqlite3.SQLITE_PERM: _RIGHTS,
}


def open_database(path: Path, newest: Newest) -> Database:
    """Opens or creates the database, brings its tables up to date. Raises StoreError with what to do; also for a copy
    that nobody has compared with lnd."""
    try:
        is_left_behind = was_left_behind(path)
        if is_left_behind and _is_missing(path):
            raise StoreError(_LOG_ALONE.format(path=path))
        path.touch(mode=0o600, exist_ok=True)
        conn = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, cached_statements=STATEMENTS_KEPT)
        # A plug-in of the user's sqlite-utils has no business in here.
        db = Database(conn, execute_plugins=False)
        _refuse_copy(conn, path)
        _set_pragmas(conn)
        look_at_start(conn, path, is_left_behind=is_left_behind)
        _admit(db, newest)
        _migrate(db, path)
        look_at_open_orders(conn)
    except sqlite3.Error as error:
        raise unusable(path, error) from error
    except OSError as error:
        raise StoreError(
            f"The database {path} cannot be opened: {error.strerror}. Check its folder's rights and the disk."
        ) from error
    return db


def unusable(path: Path, error: sqlite3.Error) -> StoreError:
    """With what to do."""
    return StoreError(f"The database {path} cannot be used: {error}. {remedy(error)}.")


def _is_missing(path: Path) -> bool:
    return not path.exists() or not path.stat().st_size


def connect_beside(
    path: Path, mode: Literal["rw", "ro"] = "rw", *, timeout_s: float = BUSY_TIMEOUT_S
) -> sqlite3.Connection:
    """To a database that is there: one that SQLite would make itself is empty, and it deletes the log beside such a
    file. ``timeout_s``: to wait for others. Raises sqlite3.Error."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=timeout_s, isolation_level=None)


@contextlib.contextmanager
def open_beside(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to the database of a daemon that may be running, which holds up for as long as one writes.

    Raises StoreError, also for a database that is not of this release: only the daemon brings one up to date.
    """
    try:
        with contextlib.closing(connect_beside(path)) as conn:
            conn.execute("PRAGMA foreign_keys = ON")
            conn.execute("PRAGMA trusted_schema = OFF")
            conn.execute("PRAGMA synchronous = FULL")
            overwrite_what_is_freed(conn)
            if _applied(Database(conn, execute_plugins=False)) != _ours():
                raise StoreError(f"The database {path} is not of this release. Start holdpayd of this release once.")
            yield conn
    except sqlite3.Error as error:
        raise unusable(path, error) from error


def _refuse_copy(conn: sqlite3.Connection, path: Path) -> None:
    note = note_of(conn)
    if note is not None:
        raise StoreError(
            f"{path} is a copy that `holdpayd backup` made at {moment(note.made_at_ms)}. What was paid since is not in"
            f" it. {RESTORE}"
        )


def _admit(db: Database, newest: Newest) -> None:
    has_journal = bool(db.execute("SELECT 1 FROM sqlite_master WHERE name = 'journal'").fetchone())
    cursor = db.execute("SELECT coalesce(max(cursor), 0) FROM journal").fetchone()[0] if has_journal else 0
    newest.admit(cursor, is_ours=FIRST_WITH_NEWEST not in _applied(db))


def rewrite_if_small(conn: sqlite3.Connection, path: Path) -> None:
    """Writes a copy of the database anew, so that nothing is left of what was erased in it unsealed; not if the disk
    has no room for it: the temporary file and the log are as large as the copy. Raises sqlite3.Error.

    secure_delete overwrites the cells and pages that are freed, but not the gap of a page whose cells SQLite has moved
    (btree.c, rebuildPage), as it does when the rows beside them are deleted.
    """
    size_bytes = path.stat().st_size
    has_room = shutil.disk_usage(path.parent).free >= MIN_FREE_BYTES + 3 * size_bytes
    if size_bytes <= REWRITE_MAX_BYTES and has_room:
        conn.execute("VACUUM")


def remedy(error: sqlite3.Error) -> str:
    """What to do about an error of the database, as a sentence without its end."""
    return _REMEDIES.get(_code(error), "Restart holdpayd, and please report this")


def is_damage(error: sqlite3.Error) -> bool:
    """Whether it is the file that is bad, and not what it lies on."""
    return _code(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def _code(error: sqlite3.Error) -> int:
    # The lowest byte is the error, the rest says more of it.
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def check_space(path: Path) -> None:
    """Raises NotReady while there is too little room beside the database for a new order."""
    free_bytes = shutil.disk_usage(path.parent).free
    if free_bytes < MIN_FREE_BYTES:
        raise NotReady(
            f"Only {free_bytes // 2**20} MiB are free in {path.parent}; new orders want {MIN_FREE_BYTES // 2**20} MiB,"
            " so that what is open can be written down to its end. Make room on the disk.",
            free_mib=free_bytes // 2**20,
        )


def _set_pragmas(conn: sqlite3.Connection) -> None:
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("PRAGMA synchronous = FULL")
    conn.execute("PRAGMA foreign_keys = ON")
    conn.execute("PRAGMA trusted_schema = OFF")
    conn.execute(f"PRAGMA wal_autocheckpoint = {LOG_MAX_PAGES}")
    overwrite_what_is_freed(conn)


def overwrite_what_is_freed(conn: sqlite3.Connection) -> None:
    """From the first write on: each update frees pages with a code in them, long before the code is erased. Whether it
    is the default depends on how SQLite was built.
    """
    conn.execute("PRAGMA secure_delete = ON")


def _migrate(db: Database, path: Path) -> None:
    ours, applied = _ours(), _applied(db)
    newer = applied - ours
    if newer:
        raise StoreError(
            f"The database {path} was written by a newer holdpay ({', '.join(sorted(newer))})."
            " Install that version again."
        )
    if ours == applied:
        return
    kept = _keep_copy(db.conn, path, min(ours - applied)) if applied else None
    migrations.apply(db)
    if kept is not None:
        # What was moved leaves half the file empty. It takes as much room beside the database as it has itself.
        with contextlib.suppress(sqlite3.OperationalError):
            db.execute("VACUUM")
    for old in copies(path):
        if old != kept and old.name < f"{path.name}.before-{FIRST_CLEAN_COPY}":
            old.unlink()
    # Also what a migration rewrote is in the log, and in the file until the log is copied into it.
    db.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _ours() -> set[str]:
    return {migration.name for migration in migrations.pending(Database(memory=True, execute_plugins=False))}


def _applied(db: Database) -> set[str]:
    return {migration.name for migration in migrations.applied(db)}


def _keep_copy(conn: sqlite3.Connection, path: Path, migration: str) -> Path:
    """A consistent copy before a migration, without freed pages; the last few are kept."""
    copy = path.with_name(f"{path.name}.before-{migration}")
    fd = os.open(copy, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    os.close(fd)
    conn.execute("VACUUM INTO ?", (str(copy),))
    for old in copies(path)[:-COPIES_KEPT]:
        old.unlink()
    return copy


def copies(path: Path) -> list[Path]:
    """Those made before migrations, oldest first."""
    return sorted(path.parent.glob(f"{path.name}.before-0*"))


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
            f"The database could not be written: {error}. {remedy(error)}; nothing was done that is not recorded."
        ) from error
