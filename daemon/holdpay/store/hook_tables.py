"""The tables of hooks and notices, since migration 0021."""

from __future__ import annotations

from typing import Final

TABLES: Final = (
    """
    CREATE TABLE hooks (
      name TEXT PRIMARY KEY,
      cursor INTEGER NOT NULL,             -- of the journal: all up to this one are done
      part INTEGER NOT NULL,               -- of what the next row tells, all up to this one is done, too
      notice INTEGER NOT NULL,             -- all up to this one are done
      delivered_at_ms INTEGER,
      failing_since_ms INTEGER,
      attempt_count INTEGER NOT NULL,
      next_try_at_ms INTEGER,
      dead_at_ms INTEGER,
      trouble TEXT NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE notices (
      number INTEGER PRIMARY KEY AUTOINCREMENT,
      after_cursor INTEGER NOT NULL,       -- the journal's last row then
      at_ms INTEGER NOT NULL,
      topic TEXT NOT NULL,
      data TEXT NOT NULL                   -- JSON
    ) STRICT
    """,
)

FORGET: Final = "DELETE FROM hooks WHERE name NOT IN (SELECT value FROM json_each(?))"
"""Of those that are not among these any more. One of the same name that comes later begins anew."""
