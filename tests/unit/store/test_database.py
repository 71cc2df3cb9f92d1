"""The file itself: how it is opened, when it is written anew, and when there is too little room."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from holdpay.errors import NotReady
from holdpay.store import database
from holdpay.store.database import MIN_FREE_BYTES, check_space, open_database, remedy, rewrite_if_small
from holdpay.store.integrity import was_left_behind
from holdpay.store.newest import Newest

MIB = 1024 * 1024


class Usage(NamedTuple):
    """As ``shutil.disk_usage`` has it."""

    total: int
    used: int
    free: int


def leave(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free_bytes, 0, free_bytes))


def with_gaps(path: Path) -> None:
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("CREATE TABLE codes (code TEXT)")
        conn.executemany("INSERT INTO codes VALUES (?)", [("1234" * 250,) for _ in range(100)])
        conn.execute("DELETE FROM codes")


def gaps(path: Path) -> int:
    with closing(sqlite3.connect(path)) as conn:
        count: int = conn.execute("PRAGMA freelist_count").fetchone()[0]
        return count


def rewrite(path: Path) -> None:
    with closing(sqlite3.connect(path)) as conn:
        rewrite_if_small(conn, path)


@pytest.mark.parametrize(("spare_bytes", "is_rewritten"), [(0, True), (-1, False)])
def test_a_small_file_is_written_anew_if_the_disk_has_room_for_it_thrice_and_for_new_orders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spare_bytes: int, is_rewritten: bool
) -> None:
    path = tmp_path / "a.db"
    with_gaps(path)
    leave(monkeypatch, MIN_FREE_BYTES + 3 * path.stat().st_size + spare_bytes)
    assert gaps(path) > 0
    rewrite(path)
    assert (gaps(path) == 0) is is_rewritten


@pytest.mark.parametrize(("over_bytes", "is_rewritten"), [(0, True), (1, False)])
def test_a_large_file_is_not_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over_bytes: int, is_rewritten: bool
) -> None:
    path = tmp_path / "a.db"
    with_gaps(path)
    leave(monkeypatch, 1 << 50)
    monkeypatch.setattr(database, "REWRITE_MAX_BYTES", path.stat().st_size - over_bytes)
    rewrite(path)
    assert (gaps(path) == 0) is is_rewritten


def test_too_little_room_for_new_orders_is_told_in_mebibytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(monkeypatch, MIN_FREE_BYTES)
    check_space(tmp_path / "a.db")
    leave(monkeypatch, MIN_FREE_BYTES - 1)
    floor_mib = MIN_FREE_BYTES // MIB
    words = f"Only {floor_mib - 1} MiB are free in {tmp_path}; new orders want {floor_mib} MiB,"
    with pytest.raises(NotReady, match=words) as told:
        check_space(tmp_path / "a.db")
    assert told.value.metadata["free_mib"] == str(floor_mib - 1)


def test_the_database_is_opened_so_that_a_commit_is_on_disk_and_what_is_freed_is_overwritten(tmp_path: Path) -> None:
    conn = open_database(tmp_path / "a.db", Newest(tmp_path / "a.db")).conn
    said = {
        name: conn.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys", "trusted_schema", "secure_delete")
    }
    assert said == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "trusted_schema": 0, "secure_delete": 1}
    conn.close()


def test_an_error_that_is_none_of_sqlite_s_has_a_remedy_too() -> None:
    assert remedy(sqlite3.OperationalError("odd")) == "Restart holdpayd, and please report this"


@pytest.mark.parametrize(("log", "is_left"), [(None, False), (b"", False), (b"x", True)])
def test_a_log_that_has_something_in_it_was_left_behind(tmp_path: Path, log: bytes | None, is_left: bool) -> None:
    if log is not None:
        (tmp_path / "a.db-wal").write_bytes(log)
    assert was_left_behind(tmp_path / "a.db") is is_left
