"""A damaged file is never served for long, and a large one that is sound never delays a start."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from holdpay.errors import StoreError
from holdpay.ports import Limits
from holdpay.store import integrity
from holdpay.store.aside import FileCheck, checkpoint
from holdpay.store.integrity import mark_of
from holdpay.store.store import SqliteStore
from tests.spoiling import spoil
from tests.unit.build import NOW_MS, order

LIMITS = Limits(max_open_orders=1_000, max_pending_sat=10**9, max_spend_per_day_sat=10**9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Closed orders enough that some page is none of those that a start must read, and an open one."""
    path = tmp_path / "holdpay.db"
    with closing(SqliteStore(path)) as db:
        for n in range(30):
            db.create(order(id=f"order{n:05d}", key=f"key-{n}"), LIMITS, NOW_MS)
    spoil(path, "UPDATE orders SET closed_at_ms = 1, \"end\" = 'refunded' WHERE no < 30")
    spoil(path, "UPDATE requests SET closed_at_ms = 1, \"end\" = 'refunded' WHERE id < 'order00029'")
    return path


@pytest.fixture
def _large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "READ_WHOLE_BYTES", 0)


def _damage(path: Path) -> None:
    """A page of an index over what is closed."""
    with closing(sqlite3.connect(path)) as conn:
        (page,) = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'requests_closed'").fetchone()
    data = bytearray(path.read_bytes())
    data[(page - 1) * 4096 + 4000 : page * 4096] = b"\xde" * 96
    path.write_bytes(data)


def _leave_behind(path: Path) -> None:
    """As a process that was killed does."""
    with closing(SqliteStore(path)) as db:
        db.create(order(id="another234", key="another"), LIMITS, NOW_MS)
        files = {file: file.read_bytes() for file in (path, path.with_name("holdpay.db-wal"))}
    for file, content in files.items():
        file.write_bytes(content)


def _opens(path: Path) -> bool:
    try:
        SqliteStore(path).close()
    except StoreError as error:
        return "It is damaged" not in error.message
    return True


def test_a_small_file_is_read_whole_at_each_start(path: Path) -> None:
    _damage(path)
    assert not _opens(path)


@pytest.mark.usefixtures("_large")
def test_a_large_file_is_not_after_an_ordinary_end(path: Path) -> None:
    _damage(path)
    assert _opens(path)
    assert not mark_of(path).exists()


@pytest.mark.usefixtures("_large")
async def test_after_an_end_that_was_none_a_large_file_is_read_beside_the_daemon(path: Path) -> None:
    _leave_behind(path)
    with closing(SqliteStore(path)):
        assert mark_of(path).read_text() == ""
        await FileCheck(path).run()
    assert not mark_of(path).exists()


@pytest.mark.usefixtures("_large")
async def test_what_is_found_then_ends_the_daemon_and_the_next_start_reads_all_before_it_serves(path: Path) -> None:
    whole = path.read_bytes()
    _damage(path)
    _leave_behind(path)
    with closing(SqliteStore(path)), pytest.raises(StoreError, match="holdpayd check"):
        await FileCheck(path).run()
    assert mark_of(path).read_text()
    assert not _opens(path)
    assert not _opens(path)
    path.write_bytes(whole)
    assert _opens(path), "it is mended"
    assert not mark_of(path).exists()


@pytest.mark.usefixtures("_large")
async def test_a_check_that_is_not_done_is_done_after_the_next_start(path: Path) -> None:
    _leave_behind(path)
    with closing(SqliteStore(path)):
        check = asyncio.create_task(FileCheck(path).run())
        await asyncio.sleep(0)
        check.cancel()
        await asyncio.gather(check, return_exceptions=True)
        for thread in threading.enumerate():
            if thread.name == "database check":  # one that was not stopped in time ends well, and says so
                await asyncio.to_thread(thread.join)
    mark_of(path).touch()
    assert _opens(path)
    assert mark_of(path).exists()
    await FileCheck(path).run()
    assert not mark_of(path).exists()


@pytest.mark.usefixtures("_large")
def test_an_open_order_that_its_index_lost_is_found_at_each_start(path: Path) -> None:
    with closing(sqlite3.connect(path)) as conn:
        (page,) = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'orders_open'").fetchone()
    data = bytearray(path.read_bytes())
    data[(page - 1) * 4096 + 3 : (page - 1) * 4096 + 5] = b"\0\0"  # the page has no cells
    path.write_bytes(data)
    assert not _opens(path)


def test_a_checkpoint_beside_the_daemon_leaves_it_little_to_do(path: Path) -> None:
    with closing(SqliteStore(path)) as db:
        for n in range(100, 150):
            db.create(order(id=f"order{n:05d}", key=f"key-{n}"), LIMITS, NOW_MS)
        checkpoint(path, least_bytes=10**9)
        assert not _has(path, "order00149")
        checkpoint(path)
        assert _has(path, "order00149")
        assert db._rows("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0


def _has(path: Path, order_id: str) -> bool:
    return order_id.encode() in path.read_bytes()
