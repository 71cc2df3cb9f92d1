"""A copy of the database, made beside a running daemon.

VACUUM INTO reads all of one moment in one read transaction of a connection of its own: in WAL mode no writer waits for
it, and what was erased in freed pages is not copied. SQLite's backup API in steps would begin anew at each commit of
another process, and may never end beside a busy daemon. The log grows as long as the copy is made.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from holdpay import __version__
from holdpay.errors import StoreError
from holdpay.store.database import MIN_FREE_BYTES, connect_beside, overwrite_what_is_freed, remedy
from holdpay.store.erasing import erase, to_erase
from holdpay.store.integrity import raise_unless_sound
from holdpay.store.newest import sync_folder
from holdpay.store.note import Note, write_note

_FOR_EVER_MS: Final = 2**62


def make_copy(database: Path, target: Path, now_ms: int, *, is_without_secrets: bool) -> Note:
    """Puts a checked copy at ``target``, 0600, whole or not at all; what is there already is never touched.

    ``is_without_secrets``: what was delivered of closed orders is erased in it. Raises StoreError.
    """
    try:
        with _unfinished(target) as part:
            check_room(database, target.parent)
            copy_into(database, part)
            note = _finish(part, now_ms, is_without_secrets=is_without_secrets)
            _put(part, target)
    except sqlite3.Error as error:
        raise StoreError(f"{database} could not be copied: {error}. {remedy(error)}.") from error
    except FileExistsError as error:
        raise StoreError(f"{target} is there already, and is left as it is. Name another file.") from error
    except OSError as error:
        raise StoreError(f"{target} could not be written ({error.strerror}). Check its folder and the disk.") from error
    return note


def copy_into(database: Path, target: Path) -> None:
    """All of the database as of one moment. ``target`` is an empty file, or none. Raises sqlite3.Error,
    FileNotFoundError."""
    database.stat()
    with contextlib.closing(connect_beside(database, "ro")) as conn:
        conn.execute("VACUUM INTO ?", (str(target),))


def check_room(database: Path, folder: Path) -> None:
    """Raises StoreError if a copy, and some room beside it, is more than what is free; OSError."""
    log = database.with_name(f"{database.name}-wal")
    wanted_bytes = database.stat().st_size + (log.stat().st_size if log.exists() else 0) + MIN_FREE_BYTES
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < wanted_bytes:
        raise StoreError(
            f"Only {free_bytes // 2**20} MiB are free in {folder}, and the copy wants {wanted_bytes // 2**20 + 1} MiB"
            " with some room to spare. Make room, or name a file on another disk."
        )


@contextlib.contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """The name of a new empty file beside the target, which is gone afterwards. One backup at a time in a folder."""
    if os.path.lexists(target):
        raise FileExistsError
    part = target.with_name(f".{target.name}.part")
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.unlink(missing_ok=True)  # a run that was killed left it
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield part
    except BlockingIOError as error:
        raise StoreError(f"Another backup into {target.parent} is at work. Wait for it.") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    else:
        part.unlink(missing_ok=True)
    finally:
        os.close(folder)


def _finish(part: Path, now_ms: int, *, is_without_secrets: bool) -> Note:
    """Raises sqlite3.Error, StoreError."""
    with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as conn:
        # Half a copy is none: there is nothing to roll back, and no file with what is overwritten is to lie about.
        conn.execute("PRAGMA journal_mode = MEMORY")
        overwrite_what_is_freed(conn)
        raise_unless_sound(conn)
        if is_without_secrets:
            erase(conn, to_erase(conn, _FOR_EVER_MS), now_ms)
        note = Note(
            made_at_ms=now_ms,
            holdpay=__version__,
            schema=_one(conn, "SELECT max(name) FROM _sqlite_migrations WHERE migration_set = 'holdpay'"),
            cursor=_one(conn, "SELECT coalesce(max(cursor), 0) FROM journal"),
            node_pubkey=_one(conn, "SELECT (SELECT node_pubkey FROM payments ORDER BY order_no DESC LIMIT 1)"),
            is_without_secrets=is_without_secrets,
        )
        write_note(conn, note)
    return note


def _one(conn: sqlite3.Connection, sql: str) -> Any:
    return conn.execute(sql).fetchone()[0]


def _put(part: Path, target: Path) -> None:
    """Under its name in one step, if nothing has it. Raises FileExistsError, OSError."""
    fd = os.open(part, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    try:
        os.link(part, target)
    except PermissionError:  # a file system without hard links
        if os.path.lexists(target):
            raise FileExistsError from None
        part.rename(target)
    sync_folder(target.parent)
