"""The database that is served is the one that was served last, not an older copy in its place."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from holdpay.errors import StoreError
from holdpay.store.newest import allow, newest_of, read_newest
from holdpay.store.schema import FIRST_WITH_NEWEST
from holdpay.store.store import SqliteStore
from tests.unit.audit.test_database import live
from tests.unit.build import order


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "holdpay.db"


def served(path: Path, *ids: str) -> None:
    with closing(SqliteStore(path)) as store:
        for order_id in ids:
            live(store, order(id=order_id, key=order_id))


def test_an_older_copy_in_the_place_of_the_database_is_refused_and_restore_is_named(path: Path, tmp_path: Path) -> None:
    served(path, "order00001")
    copy = shutil.copyfile(path, tmp_path / "copy")
    served(path, "order00002")
    shutil.copyfile(copy, path)
    with pytest.raises(StoreError, match=r"journal ends at row 1, and row 2 was written.*`holdpayd restore FILE`"):
        SqliteStore(path)


def test_a_copy_after_which_nothing_was_recorded_is_as_good_as_the_database(path: Path, tmp_path: Path) -> None:
    served(path, "order00001")
    copy = shutil.copyfile(path, tmp_path / "copy")
    shutil.copyfile(copy, path)
    served(path, "order00002")


def test_what_was_written_is_known_at_once_also_after_a_kill(path: Path, tmp_path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        live(store, order(id="order00001", key="a"))
        assert read_newest(newest_of(path)) == 1
        live(store, order(id="order00002", key="b"))
        assert read_newest(newest_of(path)) == 2


def test_a_database_that_was_served_elsewhere_is_refused_here(path: Path, tmp_path: Path) -> None:
    served(path, "order00001")
    (tmp_path / "other").mkdir()
    moved = shutil.copyfile(path, tmp_path / "other" / "holdpay.db")
    with pytest.raises(StoreError, match="brought here from somewhere else"):
        SqliteStore(moved)


def test_a_database_of_an_earlier_release_is_taken_as_it_is(path: Path) -> None:
    served(path, "order00001")
    newest_of(path).unlink()
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("DELETE FROM _sqlite_migrations WHERE name = ?", (FIRST_WITH_NEWEST,))
        conn.execute("ALTER TABLE orders DROP COLUMN restored_at_ms")
    served(path, "order00002")
    assert read_newest(newest_of(path)) == 2


def test_a_lost_database_is_not_begun_anew_in_silence(path: Path) -> None:
    served(path, "order00001")
    path.unlink()
    with pytest.raises(StoreError, match=r"row 1 of its journal was written here: it was lost.*`holdpayd recover`"):
        SqliteStore(path)
    newest_of(path).rename(newest_of(path).with_name("kept"))
    served(path, "order00002")


def test_a_file_that_makes_no_sense_is_none(path: Path) -> None:
    newest_of(path).write_text("garbage")
    served(path)
    assert read_newest(newest_of(path)) == 0


def test_a_database_that_was_looked_at_may_be_allowed(path: Path) -> None:
    served(path, "order00001")
    allow(path, 0)
    served(path, "order00002")


def test_a_refused_copy_is_left_as_it_was(path: Path, tmp_path: Path) -> None:
    served(path, "order00001")
    copy = shutil.copyfile(path, tmp_path / "copy")
    served(path, "order00002")
    shutil.copyfile(copy, path)
    before = path.read_bytes()
    with pytest.raises(StoreError):
        SqliteStore(path)
    assert path.read_bytes() == before
