"""New databases without the migrations, which take longer than most tests."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from holdpay.store.store import SqliteStore

NAME = "holdpay.db"


@cache
def empty_database() -> bytes:
    """What the store makes of nothing, made once."""
    with tempfile.TemporaryDirectory(prefix="holdpay-empty-") as folder:
        path = Path(folder) / NAME
        SqliteStore(path).close()
        return path.read_bytes()
