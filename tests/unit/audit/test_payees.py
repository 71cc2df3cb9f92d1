"""`holdpayd payees`: what it shows and changes, beside a daemon that has the database open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from holdpay.cli.daemon import cli
from holdpay.core.payees import Standing
from holdpay.store.store import SqliteStore
from tests.unit.audit.books import SENT
from tests.unit.audit.test_database import live
from tests.unit.build import PAYEE, order

OTHER = "02" + "dd" * 32


@pytest.fixture(autouse=True)
def no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is the whole process's, and this one runs other tests."""
    monkeypatch.setattr("holdpay.log.configure", lambda *_: None)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "a.macaroon").write_bytes(b"\x02\x01\x03lnd")
    (tmp_path / "a.macaroon").chmod(0o600)
    path = tmp_path / "config.toml"
    path.write_text(
        f'[daemon]\nstate_dir = "{tmp_path}/state"\n[lnd]\nmacaroon = "a.macaroon"\n'
        '[provider]\npayee_check = "first-use"\n'
    )
    path.chmod(0o600)
    return path


@pytest.fixture
def store(config: Path) -> Iterator[SqliteStore]:
    """The daemon's, which has paid one order."""
    state = config.with_name("state")
    state.mkdir(mode=0o700)
    with closing(SqliteStore(state / "holdpay.db")) as made:
        live(made, order(), *SENT)
        yield made


def run(config: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, ["--config", str(config), "payees", *words])


def test_a_node_that_was_paid_is_shown_with_when_how_often_and_why_it_is_trusted(
    config: Path, store: SqliteStore
) -> None:
    shown = run(config)
    assert shown.exit_code == 0
    assert shown.stdout.splitlines() == [
        PAYEE,
        "    trusted     yes, by provider.payee_pubkeys",
        "    first seen  2027-01-15 08:00:01 UTC, order abcdefghjk",
        "    last seen   2027-01-15 08:00:01 UTC; 1 invoice taken",
    ]
    assert shown.stderr == ""


def test_a_node_is_added_and_forgotten_while_the_daemon_runs(config: Path, store: SqliteStore) -> None:
    added = run(config, "add", OTHER.upper())
    assert (added.exit_code, added.stdout) == (0, f"{OTHER} is trusted from now on.\n")
    assert store.standing_of(OTHER) is Standing.TRUSTED
    assert run(config, "add", OTHER).stdout == f"{OTHER} is trusted already.\n"
    assert "no invoice of it was taken yet" in run(config).stdout
    assert run(config, "remove", PAYEE).stdout == f"{PAYEE} is forgotten.\n"
    assert store.standing_of(PAYEE) is Standing.STRANGER
    last = run(config, "remove", OTHER).stdout
    assert last == f"{OTHER} is forgotten. No node is trusted now: on first use, the next invoice's payee will be.\n"
    assert store.standing_of(PAYEE) is Standing.FIRST
    assert run(config).stdout == "No node was paid yet, and none was added.\n"


@pytest.mark.parametrize("word", ["add", "remove"])
@pytest.mark.parametrize("place", ["holdpayd", "payees", "the command", "also before, of another"])
def test_the_record_that_is_changed_is_that_of_the_configuration_named_nearest(
    config: Path, store: SqliteStore, word: str, place: str
) -> None:
    option, elsewhere = ["--config", str(config)], ["--config", str(config.with_name("none.toml"))]
    words = {
        "holdpayd": [*option, "payees", word],
        "payees": ["payees", *option, word],
        "the command": ["payees", word, *option],
        "also before, of another": [*elsewhere, "payees", *option, word],
    }[place]
    changed = CliRunner().invoke(cli, [*words, OTHER if word == "add" else PAYEE])
    assert changed.exit_code == 0, changed.output
    assert set(store.trusted_payees()) == ({PAYEE, OTHER} if word == "add" else set())


@pytest.mark.parametrize("word", ["add", "remove"])
@pytest.mark.parametrize("pubkey", ["02abcd", "04" + "dd" * 32, "02" + "xx" * 32, PAYEE + "00"])
def test_what_is_no_node_id_is_refused(config: Path, store: SqliteStore, word: str, pubkey: str) -> None:
    done = run(config, word, pubkey)
    assert (done.exit_code, "66 hex digits" in done.stderr) == (4, True)
    assert store.trusted_payees() == [PAYEE]


def test_a_node_that_is_not_there_cannot_be_forgotten(config: Path, store: SqliteStore) -> None:
    done = run(config, "remove", OTHER)
    assert (done.exit_code, "is not in the record" in done.stderr) == (4, True)


@pytest.mark.parametrize("words", [(), ("add", PAYEE), ("remove", PAYEE)])
def test_no_database_is_made(config: Path, words: tuple[str, ...]) -> None:
    done = run(config, *words)
    assert (done.exit_code, "There is no database" in done.stderr) == (4, True)
    assert not config.with_name("state").exists()


@pytest.mark.parametrize(("check", "words"), [("pin", "provider.payee_pubkeys does."), ("off", "does not either.")])
def test_where_the_record_does_not_decide_that_is_said(
    config: Path, store: SqliteStore, check: str, words: str
) -> None:
    config.write_text(config.read_text().replace("first-use", check))
    for command in ((), ("add", OTHER)):
        done = run(config, *command)
        assert (done.exit_code, done.stderr.strip().endswith(words)) == (0, True)
