"""The note inside a copy that `holdpayd backup` made. A database that has one is not served: see ``newest``."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from holdpay.store.rows import column_names, from_row, to_row

NOTE_TABLE: Final = """
    CREATE TABLE IF NOT EXISTS copy_note (  -- of one row in a copy, empty in the database itself
      made_at_ms INTEGER NOT NULL,
      holdpay TEXT NOT NULL,
      schema TEXT NOT NULL,
      cursor INTEGER NOT NULL,
      node_pubkey TEXT,
      is_without_secrets INTEGER NOT NULL
    ) STRICT
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a copy says of itself."""

    made_at_ms: int
    """All that was recorded before is in it."""
    holdpay: str
    """The version that made it."""
    schema: str
    """The latest migration of its tables."""
    cursor: int
    """Of the journal's last row in it; 0: none."""
    node_pubkey: str | None
    """The node that the latest payment was vetted for; None: there is none."""
    is_without_secrets: bool


def moment(at_ms: int) -> str:
    """A time for people."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def note_of(conn: sqlite3.Connection) -> Note | None:
    """None: it is no copy. Raises sqlite3.Error."""
    if not conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'copy_note'").fetchone():
        return None
    columns = column_names(Note)
    found = conn.execute(f"SELECT {', '.join(columns)} FROM copy_note").fetchone()  # noqa: S608 - our own columns
    return None if found is None else from_row(Note, dict(zip(columns, found, strict=True)))


def write_note(conn: sqlite3.Connection, note: Note) -> None:
    """Raises sqlite3.Error."""
    row = to_row(note)
    conn.execute(NOTE_TABLE)
    conn.execute(f"INSERT INTO copy_note ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values()))  # noqa: S608


def take_out_note(conn: sqlite3.Connection) -> None:
    """Raises sqlite3.Error."""
    conn.execute("DELETE FROM copy_note")
