"""A copy beside the daemon's own connection: of one moment, whole or not at all, and with a note that it is one."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from holdpay import __version__
from holdpay.audit.check import read_stored
from holdpay.core.model import Order
from holdpay.errors import StoreError
from holdpay.store import copying
from holdpay.store.copying import make_copy
from holdpay.store.database import MIN_FREE_BYTES
from holdpay.store.integrity import raise_unless_sound
from holdpay.store.note import Note, note_of
from holdpay.store.schema import migrations
from holdpay.store.store import SqliteStore
from tests.unit.audit.books import FULFILLED, HELD
from tests.unit.audit.test_database import live
from tests.unit.build import ALICE, HASH, NOW_MS, POLICY, PREIMAGE, order

RAW = '{"code":"012345","number":"15551234567"}'


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """Open all the time, as the daemon has it, with an order that got its code."""
    with closing(SqliteStore(tmp_path / "holdpay.db")) as opened:
        live(opened, order(), *FULFILLED, raw=RAW)
        yield opened


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups" / "copy.db"


def copied(store: SqliteStore, target: Path, *, is_without_secrets: bool = False) -> Note:
    return make_copy(store._path, target, NOW_MS, is_without_secrets=is_without_secrets)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def read(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)


def test_a_copy_has_all_that_was_committed_also_what_is_only_in_the_log(store: SqliteStore, target: Path) -> None:
    note = copied(store, target)
    assert note == Note(
        made_at_ms=NOW_MS,
        holdpay=__version__,
        schema=max(migration.name for migration in migrations.applied(store._db)),
        cursor=9,
        node_pubkey=ALICE.pubkey,
        is_without_secrets=False,
    )
    with closing(read(target)) as conn:
        assert note_of(conn) == note
        assert conn.execute("SELECT count(*) FROM journal").fetchone() == (9,)
    assert target.stat().st_mode & 0o777 == 0o600
    assert names(target.parent) == [target.name]


def test_the_daemon_writes_on_while_a_copy_is_made(
    store: SqliteStore, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of the copy a commit of the other connection takes effect at once."""

    def busy(conn: sqlite3.Connection) -> None:
        live(store, order(id="order00002", key="b"))
        raise_unless_sound(conn)

    monkeypatch.setattr(copying, "raise_unless_sound", busy)
    assert copied(store, target).cursor == 9
    assert store.last_cursor() == 10


def test_what_is_there_already_is_never_overwritten(store: SqliteStore, target: Path) -> None:
    target.write_text("mine")
    with pytest.raises(StoreError, match="is there already, and is left as it is"):
        copied(store, target)
    assert target.read_text() == "mine"
    assert names(target.parent) == [target.name]


def test_what_appears_while_the_copy_is_made_is_not_overwritten_either(
    store: SqliteStore, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "raise_unless_sound", lambda conn: target.write_text("mine"))
    with pytest.raises(StoreError, match="is there already"):
        copied(store, target)
    assert target.read_text() == "mine"
    assert names(target.parent) == [target.name]


def test_a_link_to_nowhere_is_something_too(store: SqliteStore, target: Path) -> None:
    target.symlink_to("nowhere")
    with pytest.raises(StoreError, match="is there already"):
        copied(store, target)


@pytest.mark.parametrize("is_taken", [False, True])
def test_a_file_system_without_hard_links_gets_a_copy_too(
    store: SqliteStore, target: Path, monkeypatch: pytest.MonkeyPatch, is_taken: bool
) -> None:
    def refuse(*_: object) -> None:
        if is_taken:
            target.write_text("mine")
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    if is_taken:
        with pytest.raises(StoreError, match="is there already"):
            copied(store, target)
        assert target.read_text() == "mine"
    else:
        copied(store, target)
    assert names(target.parent) == [target.name]


def test_a_run_that_was_killed_leaves_nothing_under_the_name_and_is_no_hindrance(
    store: SqliteStore, target: Path
) -> None:
    pid = os.fork()
    if pid == 0:
        setattr(copying, "raise_unless_sound", lambda conn: os._exit(9))  # noqa: B010 - mypy knows it as another module's
        try:
            copied(store, target)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert not target.exists()
    assert names(target.parent) == [f".{target.name}.part"]
    copied(store, target)
    assert names(target.parent) == [target.name]


def test_two_backups_into_one_folder_do_not_meet(store: SqliteStore, target: Path) -> None:
    folder = os.open(target.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(StoreError, match="Another backup into"):
        copied(store, target)
    os.close(folder)
    copied(store, target)


def test_a_disk_without_room_for_it_is_refused_before_anything_is_written(
    store: SqliteStore, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = store._path.stat().st_size + store._path.with_name("holdpay.db-wal").stat().st_size
    free = SimpleNamespace(free=size + MIN_FREE_BYTES - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(StoreError, match=r"Only 64 MiB are free in .*, and the copy wants 65 MiB"):
        copied(store, target)
    assert names(target.parent) == []
    free.free += 1
    copied(store, target)


def test_a_folder_that_is_not_there_is_a_sentence(store: SqliteStore, target: Path) -> None:
    with pytest.raises(StoreError, match=r"could not be written \(No such file or directory\)"):
        copied(store, target.parent / "nowhere" / "copy.db")


def test_a_damaged_database_is_not_taken_for_a_backup(store: SqliteStore, target: Path, tmp_path: Path) -> None:
    store.close()
    path = tmp_path / "holdpay.db"
    data = bytearray(path.read_bytes())
    data[4096:8192] = b"\xff" * 4096
    path.write_bytes(data)
    with pytest.raises(StoreError, match="could not be copied"):
        make_copy(path, target, NOW_MS, is_without_secrets=False)
    assert names(target.parent) == []


def test_a_copy_is_not_served(store: SqliteStore, target: Path) -> None:
    copied(store, target)
    before = target.read_bytes()
    with pytest.raises(StoreError, match="is a copy that `holdpayd backup` made at 2027-01-15"):
        SqliteStore(target)
    assert target.read_bytes() == before


# --- without secrets ---


def stored(path: Path) -> list[Order]:
    """As a restore would find them."""
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("DELETE FROM copy_note")
    path.with_name(f"{path.name}.newest").write_text("0")
    with closing(SqliteStore(path)) as store:
        return [update.order for update in {u.order.id: u for u in store.updates(0, None, 100)}.values()]


def test_a_copy_without_secrets_has_nothing_of_what_was_delivered_and_the_proof_of_what_was_paid(
    store: SqliteStore, target: Path
) -> None:
    copied(store, target, is_without_secrets=True)
    data = target.read_bytes()
    assert store.get(order().id).code == "012345", "the database itself keeps it"
    with closing(read(target)) as conn:
        assert conn.execute("SELECT DISTINCT key FROM keys").fetchall() == [(bytes(16),)]
        assert [conn.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("items", "replies")] == [0, 0]
    (found,) = stored(target)
    assert (found.erased_at_ms, found.items, found.code) == (NOW_MS, (), None)
    assert found.payment is not None
    assert (found.payment.payment_hash, found.payment.preimage) == (HASH, PREIMAGE)
    with closing(read(store._path)) as conn:
        (key,) = conn.execute("SELECT key FROM keys").fetchone()
    assert key not in data


def test_an_order_that_is_open_keeps_what_was_delivered_so_that_a_restore_can_go_on(
    target: Path, tmp_path: Path
) -> None:
    with closing(SqliteStore(tmp_path / "holdpay.db")) as store:
        live(store, order(), *HELD, raw=RAW)
        copied(store, target, is_without_secrets=True)
        (found,) = stored(target)
        assert found.number == "15551234567"
        assert found == store.get(order().id)


def test_a_copy_without_secrets_passes_the_check_of_the_books(store: SqliteStore, target: Path) -> None:
    copied(store, target, is_without_secrets=True)
    assert read_stored(target, POLICY, NOW_MS).findings == []
