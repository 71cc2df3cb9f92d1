"""The looks at this machine."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from holdpay.doctor import machine
from holdpay.doctor.findings import Unseen
from holdpay.doctor.machine import (
    look_at_database,
    look_at_disk,
    look_at_files,
    look_at_socket,
    look_at_unit,
)
from holdpay.doctor.seen import DatabaseSeen, Listening
from holdpay.ports import Limits
from holdpay.store.database import open_database
from holdpay.store.integrity import mark_of
from holdpay.store.newest import Newest
from holdpay.store.store import SqliteStore
from tests.spoiling import spoil
from tests.unit.audit.books import FULFILLED, HELD, Timed
from tests.unit.audit.test_database import live
from tests.unit.build import ALICE, NOW_MS, order

LIMITS = Limits(max_open_orders=100, max_pending_sat=10**9, max_spend_per_day_sat=10**9)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "state" / "holdpay.db"
    path.parent.mkdir(mode=0o700)
    SqliteStore(path).close()
    return path


# --- files and disk ---------------------------------------------------------------------------------------------------


def test_files_are_seen_with_their_rights_and_what_is_missing_is_not(database: Path) -> None:
    seen = look_at_files(database.parent, database)
    assert seen.state_dir is not None
    assert (seen.state_dir.mode, seen.state_dir.is_ours, seen.state_dir.owner) == (0o700, True, seen.me)
    assert [(file.path, file.mode) for file in seen.database] == [(database, 0o600)]
    assert look_at_files(database.parent / "gone", database.parent / "gone" / "x").state_dir is None


def test_the_disk_of_a_folder_that_is_not_there_yet_is_that_of_the_one_above(tmp_path: Path) -> None:
    seen = look_at_disk(tmp_path / "not" / "there")
    assert seen.folder == tmp_path
    assert seen.free_bytes > 0
    assert not seen.is_read_only


# --- database ---------------------------------------------------------------------------------------------------------


def seen_of(path: Path) -> DatabaseSeen:
    seen = look_at_database(path)
    assert isinstance(seen, DatabaseSeen)
    return seen


def test_a_sound_database_is_seen_and_nothing_in_it_changes(database: Path) -> None:
    before = {file.name: file.read_bytes() for file in database.parent.iterdir()}
    assert seen_of(database) == DatabaseSeen(path=database, is_there=True, written_cursor=0)
    assert {file.name: file.read_bytes() for file in database.parent.iterdir()} == before


@pytest.mark.parametrize(("events", "payers"), [(FULFILLED, ()), (HELD, (ALICE.pubkey,))], ids=["over", "held"])
def test_the_nodes_from_which_money_of_open_orders_is_out_are_seen_and_no_others(
    database: Path, events: list[Timed], payers: tuple[str, ...]
) -> None:
    with closing(SqliteStore(database)) as store:
        live(store, order(), *events)
        assert seen_of(database).payers == payers


def test_a_database_that_is_in_use_is_seen_too(database: Path) -> None:
    with open_database(database, Newest(database)).conn as held:
        held.execute("BEGIN IMMEDIATE")
        assert seen_of(database).is_there
        held.execute("ROLLBACK")


@pytest.mark.parametrize("content", [None, b""])
def test_one_that_is_missing_or_blank_is_not_there(database: Path, content: bytes | None) -> None:
    for file in database.parent.iterdir():
        file.unlink()
    if content is not None:
        database.write_bytes(content)
    assert not seen_of(database).is_there


def test_one_of_another_version_is_told_apart(database: Path) -> None:
    with sqlite3.connect(database) as conn:
        conn.execute("DELETE FROM _sqlite_migrations WHERE id = (SELECT max(id) FROM _sqlite_migrations)")
    assert seen_of(database).is_older
    assert not seen_of(database).is_newer
    with sqlite3.connect(database) as conn:
        conn.execute("UPDATE _sqlite_migrations SET name = '9999_later' WHERE id = 1")
    assert seen_of(database).is_newer


def test_damage_is_seen_and_so_is_what_an_earlier_look_had_found(database: Path) -> None:
    mark_of(database).write_text("row 7 is missing")
    assert seen_of(database).damage == "row 7 is missing"
    content = bytearray(database.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    database.write_bytes(content)
    assert "malformed" in seen_of(database).damage or "corrupt" in seen_of(database).damage


def test_open_orders_are_counted_and_one_that_its_index_lost_is_damage(database: Path) -> None:
    with closing(SqliteStore(database)) as store:
        for n in range(3):
            store.create(order(id=f"order{n:05d}", key=f"key-{n}"), LIMITS, NOW_MS)
    spoil(database, "UPDATE orders SET quarantined_at_ms = 1 WHERE no = 2")
    seen = seen_of(database)
    assert (seen.open_count, seen.quarantined_count) == (3, 1)
    assert seen.last_cursor == seen.written_cursor == 3
    with closing(sqlite3.connect(database)) as conn:
        (page,) = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'orders_open'").fetchone()
    content = bytearray(database.read_bytes())
    content[(page - 1) * 4096 + 3 : (page - 1) * 4096 + 5] = b"\0\0"  # the page has no cells
    database.write_bytes(content)
    assert "missing in their index" in seen_of(database).damage


def test_a_file_that_is_no_database_is_damaged_and_one_that_cannot_be_opened_is_unseen(database: Path) -> None:
    for file in database.parent.iterdir():
        file.unlink()
    database.write_bytes(b"no database" * 1000)
    assert "not a database" in seen_of(database).damage
    database.unlink()
    database.mkdir()
    assert isinstance(look_at_database(database), Unseen)


# --- socket -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(tmp_path / "s"))
        (tmp_path / "s").chmod(0o660)
        yield sock


def test_a_socket_that_answers_is_seen_with_its_mode(listener: socket.socket, tmp_path: Path) -> None:
    listener.listen()
    seen = look_at_socket(tmp_path / "s")
    assert (seen.listening, seen.mode) == (Listening.ANSWERS, 0o660)
    assert seen.group
    assert seen.me


def test_what_else_there_may_be_is_told_apart(listener: socket.socket, tmp_path: Path) -> None:
    assert look_at_socket(tmp_path / "s").listening is Listening.NOBODY
    assert look_at_socket(tmp_path / "gone").listening is Listening.MISSING
    (tmp_path / "file").touch()
    assert look_at_socket(tmp_path / "file").listening is Listening.NO_SOCKET


def test_a_daemon_that_does_not_take_connections_is_silent(
    listener: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "CONNECT_TIMEOUT_S", 0.05)
    listener.listen(0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as first:
        first.connect(str(tmp_path / "s"))
        assert look_at_socket(tmp_path / "s").listening is Listening.SILENT


# --- unit -------------------------------------------------------------------------------------------------------------


def systemctl(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "systemctl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_what_systemd_says_of_the_unit_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl(
        tmp_path,
        'echo "LoadState=loaded"; echo "LimitNOFILE=8192"; echo "Foreign=x"; echo "$@" >"$0.args"',
        monkeypatch,
    )
    assert look_at_unit().properties == {"LoadState": "loaded", "LimitNOFILE": "8192"}
    assert "show holdpayd.service" in (tmp_path / "systemctl.args").read_text()


def test_where_there_is_no_systemd_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl(tmp_path, "exit 1", monkeypatch)
    assert look_at_unit().absent == "systemd does not run here"
    systemctl(tmp_path, "exec sleep 30", monkeypatch)
    monkeypatch.setattr(machine, "SYSTEMCTL_TIMEOUT_S", 0.05)
    assert look_at_unit().absent == "systemd does not answer"
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert look_at_unit().absent == "systemd is not installed here"
