"""Databases of earlier releases, from their dumps in ``fixtures``."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


def restore(dump: Path, path: Path) -> Path:
    """Writes the database to ``path``, and returns that."""
    with closing(sqlite3.connect(path)) as conn:
        conn.executescript(dump.read_text())
    return path


@contextmanager
def as_it_was(dump: Path) -> Iterator[sqlite3.Connection]:
    """The database in memory, to be read by the names of its columns."""
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.executescript(dump.read_text())
        conn.row_factory = sqlite3.Row
        yield conn
