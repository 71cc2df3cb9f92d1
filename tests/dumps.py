"""Databases of earlier releases, from their dumps in ``fixtures``."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from holdpay.store.newest import allow


def restore(dump: Path, path: Path) -> Path:
    """Writes the database to ``path``, as one that was always there, and returns that."""
    with closing(sqlite3.connect(path)) as conn:
        conn.executescript(dump.read_text())
    allow(path, 0)
    return path


@contextmanager
def as_it_was(dump: Path) -> Iterator[sqlite3.Connection]:
    """The database in memory, to be read by the names of its columns."""
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.executescript(dump.read_text())
        conn.row_factory = sqlite3.Row
        yield conn


def as_sealed(row: dict[str, Any]) -> dict[str, Any]:
    """A row of any table as migration 0020 leaves it: fingerprints of what the buyer wrote are elsewhere then."""
    return {**row, "fingerprint": ""} if "fingerprint" in row and row["kind"] in {"sms", "email"} else row
