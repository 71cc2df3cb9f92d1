"""Whether the file is sound: at the start as far as the open orders need it, and all of it where there is time.

A small file is read whole at each start. A large one is only after an end that was none (its log was left behind), and
then by a connection of its own while the daemon serves: a mark beside the file says so until it was done. The mark also
keeps what was found, so that the next start reads all of the file first, however long that takes.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Final

READ_WHOLE_BYTES: Final = 32 * 2**20
"""Read in some tenths of a second."""
NEWEST_LOOKED_AT: Final = 5_000
"""Orders; what is open is among the newest, as a rule."""
# The index by which open orders are found, against the table itself.
NEWEST_OPEN: Final = (
    "SELECT count(*) FROM orders NOT INDEXED WHERE closed_at_ms IS NULL AND no > (SELECT max(no) FROM orders) - ?"
)
NEWEST_OPEN_BY_INDEX: Final = (
    "SELECT count(*) FROM orders INDEXED BY orders_open"
    " WHERE closed_at_ms IS NULL AND no > (SELECT max(no) FROM orders) - ?"
)


def mark_of(path: Path) -> Path:
    """Beside the database while all of it is still to be read: empty, or with what was found."""
    return path.with_name(f"{path.name}.unchecked")


def was_left_behind(path: Path) -> bool:
    """Whether whoever had the database open last did not close it. To be asked before it is opened."""
    with contextlib.suppress(FileNotFoundError):
        return path.with_name(f"{path.name}-wal").stat().st_size > 0
    return False


def look_at_start(conn: sqlite3.Connection, path: Path, *, is_left_behind: bool) -> None:
    """Raises sqlite3.Error if the file is damaged. ``aside.FileCheck`` is wanted if ``mark_of`` is there afterwards."""
    mark = mark_of(path)
    if path.stat().st_size <= READ_WHOLE_BYTES or (mark.exists() and mark.read_text()):
        raise_unless_sound(conn)
        mark.unlink(missing_ok=True)
    elif is_left_behind:
        mark.touch(mode=0o600)


def look_at_open_orders(conn: sqlite3.Connection) -> None:
    """What is open is found by an index: one that lost an order would lose it for good. Raises sqlite3.Error."""
    counts = {conn.execute(sql, (NEWEST_LOOKED_AT,)).fetchone()[0] for sql in (NEWEST_OPEN, NEWEST_OPEN_BY_INDEX)}
    if len(counts) > 1:
        raise damaged("orders that are open are missing in their index")


def raise_unless_sound(conn: sqlite3.Connection) -> None:
    """Reads the whole file."""
    ((verdict, *_),) = conn.execute("PRAGMA integrity_check(1)").fetchall()
    if verdict != "ok":
        raise damaged(" ".join(str(verdict).split()))


def damaged(words: str) -> sqlite3.DatabaseError:
    """As SQLite says it. ``words`` may quote the file."""
    error = sqlite3.DatabaseError(words.encode(errors="replace").decode())
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error
