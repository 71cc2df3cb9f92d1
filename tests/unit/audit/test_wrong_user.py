"""Run by somebody who may read the configuration and not the state directory: each command says so, and no more."""

from __future__ import annotations

import asyncio
import importlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from holdpay.cli.daemon import cli
from holdpay.doctor.findings import Unseen
from holdpay.doctor.looking import look
from holdpay.doctor.machine import look_at_database, look_at_files
from holdpay.store.store import SqliteStore
from tests.unit.audit.conftest import NOBODY, AsNobody
from tests.unit.build import PAYEE

LOADED_BY_COMMANDS = (
    "audit.backup",
    "audit.payees",
    "audit.recover",
    "audit.report",
    "audit.resolve",
    "lock",
    "redact",
)
"""Beforehand: a user without rights may not be able to read the program."""


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr("holdpay.log.configure", lambda *_: None)
    for name in LOADED_BY_COMMANDS:
        importlib.import_module(f"holdpay.{name}")
    with tempfile.TemporaryDirectory(prefix="holdpay-audit-") as folder:
        state = Path(folder, "state")
        state.mkdir(mode=0o700)
        SqliteStore(state / "holdpay.db").close()
        path, macaroon = Path(folder, "config.toml"), Path(folder, "a.macaroon")
        macaroon.write_bytes(b"\x02\x01\x03lnd")
        path.write_text(f'[daemon]\nstate_dir = "{state}"\n[lnd]\naddress = "127.0.0.1:1"\nmacaroon = "a.macaroon"\n')
        for file in (path, macaroon):
            file.chmod(0o600)
            if os.geteuid() == 0:
                os.chown(file, NOBODY, NOBODY)
        Path(folder).chmod(0o755)
        state.chmod(0)  # closed to its owner, too, who runs this test unless root does
        yield path
        state.chmod(0o700)


def run(config: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, ["--config", str(config), *words])


def is_said(config: Path, *words: str) -> bool:
    done = run(config, *words)
    wanted = f"holdpayd: {config.parent}/state/holdpay.db may not be read by this user. Run this as the daemon's user"
    print(done.output, done.exception)  # of a test that fails
    return done.exit_code == 4 and done.stderr.startswith(wanted) and not done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("backup", "STATE/copy.db"),
        ("payees",),
        ("payees", "add", PAYEE),
        ("payees", "remove", PAYEE),
        ("recover",),
        ("resolve", "abcd", "--failed", "--yes", "--why", "so"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_command_says_it_and_asks_nobody(config: Path, as_nobody: AsNobody, words: tuple[str, ...]) -> None:
    words = tuple(word.replace("STATE", f"{config.parent}/state") for word in words)
    assert as_nobody(lambda: is_said(config, *words))


def test_a_check_holds_nothing_against_lnd(config: Path, as_nobody: AsNobody) -> None:
    def is_told() -> bool:
        done = run(config, "check", "--json")
        print(done.output, done.exception)
        codes = [part.split('"')[0] for part in done.stdout.split('"code": "')[1:]]
        return done.exit_code == 3 and codes == ["database-forbidden"]

    assert as_nobody(is_told)


@pytest.mark.parametrize("looking", ["files", "database"])
def test_the_doctor_says_who_may(config: Path, as_nobody: AsNobody, looking: str) -> None:
    state = config.with_name("state")

    async def seen() -> object:
        if looking == "files":
            return look_at_files(state, state / "holdpay.db")
        return look_at_database(state / "holdpay.db")

    def is_told() -> bool:
        found = asyncio.run(look(seen(), 5.0, Unseen("slow", "")))
        print(found)
        return isinstance(found, Unseen) and "daemon's user" in found.todo

    assert as_nobody(is_told)


@pytest.mark.parametrize("place", ["nope.db", "state"])
def test_a_copy_that_is_named_and_is_no_file_is_a_mistake_in_the_command(config: Path, place: str) -> None:
    done = run(config, "check", "--database", str(config.with_name(place)), "--offline")
    assert (done.exit_code, "Name a copy of the database" in done.stderr) == (2, True)
