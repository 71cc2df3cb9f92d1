"""Files that are moved, removed or replaced under a store that has them open: nothing is committed any more."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from holdpay.errors import DatabaseGone, StoreError
from holdpay.store.aside import checkpoint
from holdpay.store.hooks import SqliteHookStore
from holdpay.store.newest import newest_of, read_newest
from holdpay.store.place import ENDINGS
from holdpay.store.store import SqliteStore
from tests.unit.audit.test_database import live
from tests.unit.build import order


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state" / "holdpay.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    """With one order, open."""
    with closing(SqliteStore(path)) as opened:
        live(opened, order(id="order00001", key="a"))
        yield opened


def files_of(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}*"))


def move_away(path: Path) -> Path:
    away = path.parent.parent / "away"
    away.mkdir()
    for file in files_of(path):
        file.rename(away / file.name)
    return away


def replace(path: Path, ending: str = "") -> None:
    file = path.with_name(path.name + ending)
    shutil.copyfile(file, other := file.with_name("other"))
    other.replace(file)


def remove(path: Path, ending: str) -> None:
    path.with_name(path.name + ending).unlink()


def another_folder(path: Path) -> None:
    """As a file system that is mounted over it."""
    path.parent.rename(path.parent.with_name("old"))
    shutil.copytree(path.parent.with_name("old"), path.parent)


GONE: dict[str, Callable[[Path], object]] = {
    "moved": move_away,
    "its folder renamed": lambda path: path.parent.rename(path.parent.with_name("old")),
    "its folder replaced": another_folder,
    **{f"removed{ending}": partial(remove, ending=ending) for ending in ("", *ENDINGS)},
    **{f"replaced{ending}": partial(replace, ending=ending) for ending in ("", *ENDINGS)},
}


@pytest.mark.parametrize("how", GONE)
def test_nothing_is_committed_to_a_database_that_the_next_start_would_not_find(
    store: SqliteStore, path: Path, how: str
) -> None:
    GONE[how](path)
    with pytest.raises(StoreError, match="moved, removed or replaced while holdpayd ran"):
        live(store, order(id="order00002", key="b"))
    assert store.last_cursor() == 1
    with pytest.raises(StoreError, match="moved, removed or replaced"):
        store.check_place()


def test_what_is_done_to_the_files_where_they_are_moves_nothing(store: SqliteStore, path: Path) -> None:
    for file in files_of(path):
        file.chmod(0o640)
        os.utime(file)
        os.link(file, path.parent.parent / file.name)
    store.checkpoint()
    list(store.erase_codes(10**15, 10**15))
    live(store, order(id="order00002", key="b"))


def test_a_start_after_all_was_moved_away_is_refused_until_it_is_back(path: Path) -> None:
    store = SqliteStore(path)
    live(store, order(id="order00001", key="a"))
    away = move_away(path)
    with pytest.raises(StoreError):
        store.check_place()
    store.close()
    assert read_newest(newest_of(path)) == 1
    with pytest.raises(StoreError, match="it was lost"):
        SqliteStore(path)

    for file in sorted(away.iterdir()):
        file.replace(path.with_name(file.name))
    with closing(SqliteStore(path)) as again:
        assert again.last_cursor() == 1


def test_a_start_after_its_folder_was_moved_away_is_refused(path: Path) -> None:
    store = SqliteStore(path)
    live(store, order(id="order00001", key="a"))
    path.parent.rename(path.parent.with_name("old"))
    with pytest.raises(StoreError):
        store.check_place()
    store.close()
    with pytest.raises(StoreError, match="it was lost"):
        SqliteStore(path)


def test_where_no_start_can_be_refused_there_is_to_be_none(path: Path) -> None:
    store = SqliteStore(path)
    live(store, order(id="order00001", key="a"))
    path.parent.parent.rename(path.parent.parent.with_name("moved"))
    with pytest.raises(DatabaseGone, match="before you start holdpayd"):
        store.check_place()
    store.close()


def test_a_folder_that_cannot_be_looked_at_ends_it_too(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **options: object) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(StoreError, match="cannot be looked at"):
        store.check_place()


def test_a_database_that_is_a_link_is_one(path: Path) -> None:
    target = path.parent.parent / "disk" / "h.db"
    target.parent.mkdir()
    target.touch(0o600)
    path.symlink_to(target)
    with closing(SqliteStore(path)) as store:
        live(store, order(id="order00001", key="a"))
        target.with_name("h.db-wal").unlink()
        with pytest.raises(StoreError):
            store.check_place()


def test_a_database_in_its_place_is_judged_by_what_came_with_it(store: SqliteStore, path: Path) -> None:
    replace(path)
    newest_of(path).unlink()
    with pytest.raises(StoreError):
        store.check_place()
    assert not newest_of(path).exists()


def test_the_log_that_stayed_when_the_file_was_moved_is_kept_and_goes_on_with_it(path: Path) -> None:
    store = SqliteStore(path)
    live(store, order(id="order00001", key="a"))
    path.rename(path.parent / "moved")
    checkpoint(path)
    with pytest.raises(StoreError):
        live(store, order(id="order00002", key="b"))
    store.close()
    assert not path.exists()
    with pytest.raises(StoreError, match="missing or empty, and its log"):
        SqliteStore(path)
    path.touch()
    with pytest.raises(StoreError, match="missing or empty, and its log"):
        SqliteStore(path)

    (path.parent / "moved").replace(path)
    with closing(SqliteStore(path)) as again:
        assert again.last_cursor() == 1


def test_the_log_is_not_played_into_a_file_that_has_taken_the_databases_place(path: Path) -> None:
    store = SqliteStore(path)
    live(store, order(id="order00001", key="a"))
    checkpoint(path)
    shutil.copyfile(path, copy := path.parent.parent / "copy")
    live(store, order(id="order00002", key="b"))
    path.rename(away := path.parent.parent / "away")
    copy.rename(path)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"needs its old name") as raised:
            store.check_place()
    store.close()
    (log,) = path.parent.glob("*-wal")
    assert str(log) in raised.value.message
    with pytest.raises(StoreError, match="older than the one that was served here last: its journal ends at row 1,"):
        SqliteStore(path)

    away.replace(path)
    log.replace(path.with_name(f"{path.name}-wal"))
    with closing(SqliteStore(path)) as again:
        assert again.last_cursor() == 2


def test_a_log_that_came_with_the_file_in_the_databases_place_is_its_own(store: SqliteStore, path: Path) -> None:
    another_folder(path)
    with pytest.raises(StoreError) as raised:
        store.check_place()
    assert path.with_name(f"{path.name}-wal").exists()
    assert "old name" not in raised.value.message


def open_hooks(store: SqliteStore) -> None:
    with closing(SqliteHookStore(store)) as hooks:
        hooks.begin("shop")


@pytest.mark.parametrize(
    "opened_anew",
    [
        SqliteStore.checkpoint,
        lambda store: store.erase_in_copies(1, 1),
        lambda store: list(store.erase_codes(1, 1)),
        open_hooks,
    ],
    ids=["checkpoint", "erase in copies", "erase codes", "hooks"],
)
def test_nothing_goes_from_the_log_into_a_file_that_has_taken_the_databases_place(
    store: SqliteStore, path: Path, opened_anew: Callable[[SqliteStore], object]
) -> None:
    path.with_name(f"{path.name}.before-0990_next").touch()
    shutil.copyfile(path, copy := path.with_name("copy"))
    copy.replace(path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="moved, removed or replaced while holdpayd ran"):
        opened_anew(store)
    assert path.read_bytes() == before
