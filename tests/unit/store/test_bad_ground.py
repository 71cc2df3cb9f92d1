"""A disk that is full, a file that is damaged: what the store refuses, and what it says to do."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections import namedtuple
from pathlib import Path

import pytest

from holdpay.errors import NotReady, StoreError
from holdpay.store.database import MIN_FREE_BYTES, remedy
from holdpay.store.store import SqliteStore
from tests.unit.build import NOW_MS, order
from tests.unit.store.test_store import LIMITS

Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with one order in it."""
    path = tmp_path / "holdpay.db"
    db = SqliteStore(path)
    db.create(order(), LIMITS, NOW_MS)
    db.close()
    return path


def page_of(path: Path, index: str) -> int:
    """Where the first page of an index begins in the file, in bytes."""
    conn = sqlite3.connect(path)
    (root,) = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", [index]).fetchone()
    (size,) = conn.execute("PRAGMA page_size").fetchone()
    conn.close()
    return int((root - 1) * size)


def overwrite(path: Path, at_byte: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at_byte)
        file.write(data)


def refusal(path: Path) -> str:
    with pytest.raises(StoreError) as refused:
        SqliteStore(path)
    return refused.value.message


DAMAGE = {
    "no header": lambda path: overwrite(path, 0, b"\xde\xad" * 50),
    "half a file": lambda path: os.truncate(path, path.stat().st_size // 2),
    "a broken table": lambda path: overwrite(path, page_of(path, "orders"), b"\xde\xad" * 2000),
    "a broken index": lambda path: overwrite(path, page_of(path, "journal_order"), b"\xde\xad" * 2000),
    "an index that lost a row": lambda path: overwrite(path, page_of(path, "journal_order") + 3, b"\x00\x00"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_database_is_refused_at_the_start_with_what_to_do(path: Path, kind: str) -> None:
    DAMAGE[kind](path)
    damaged = path.read_bytes()

    text = refusal(path)

    assert str(path) in text
    assert "Keep the file" in text
    assert "`holdpayd recover`" in text
    assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (sqlite3.SQLITE_FULL, "Make room"),
        (sqlite3.SQLITE_IOERR | 3 << 8, "dmesg"),
        (sqlite3.SQLITE_BUSY, "fuser"),
        (sqlite3.SQLITE_CORRUPT | 2 << 8, "Keep the file"),
        (sqlite3.SQLITE_NOTADB, "Keep the file"),
        (sqlite3.SQLITE_READONLY | 4 << 8, "read-only"),
        (sqlite3.SQLITE_CANTOPEN, "daemon's user"),
        (sqlite3.SQLITE_CONSTRAINT, "report this"),
    ],
)
def test_every_error_of_the_database_says_what_to_do(code: int, word: str) -> None:
    error = sqlite3.OperationalError("it failed")
    error.sqlite_errorcode = code
    assert word in remedy(error)


def test_an_error_that_is_not_sqlites_own_says_what_to_do_too() -> None:
    assert "report this" in remedy(sqlite3.ProgrammingError("closed"))


@pytest.mark.parametrize(("free_bytes", "is_enough"), [(MIN_FREE_BYTES, True), (MIN_FREE_BYTES - 1, False), (0, False)])
def test_new_orders_want_room_on_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int, is_enough: bool
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: {path.parent: Usage(10**12, 0, free_bytes)}[folder])
    db = SqliteStore(path)
    if is_enough:
        db.check_space()
    else:
        with pytest.raises(NotReady, match="Make room on the disk"):
            db.check_space()
    db.close()
