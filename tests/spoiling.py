"""A database changed behind holdpay's back."""

from __future__ import annotations

import sqlite3
from pathlib import Path


def spoil(path: Path, *statements: str) -> None:
    """As a person with sqlite3 would, who first drops the triggers that are in the way."""
    with sqlite3.connect(path, isolation_level=None) as conn:
        triggers = conn.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            conn.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            conn.execute(statement)
        for _, sql in triggers:
            conn.execute(sql)
    conn.close()
