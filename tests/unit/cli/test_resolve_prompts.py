"""`holdpayd resolve` on a terminal: it asks why, shows what it would write, and writes nothing without a yes."""

from __future__ import annotations

import getpass
import io
import os
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from holdpay.cli.daemon import cli
from holdpay.core.model import Order
from holdpay.core.states import End, HtlcState
from holdpay.store.store import SqliteStore
from tests.unit.audit.books import HELD
from tests.unit.audit.test_database import live
from tests.unit.build import PREIMAGE, order

QUESTION = "Record it as written off, by ann, because: node sold?"


@pytest.fixture(autouse=True)
def no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is the whole process's, and this one runs other tests."""
    monkeypatch.setattr("holdpay.log.configure", lambda *_: None)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a node that is gone with its certificate, and of one order that it held."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.macaroon").write_bytes(b"\x02\x01\x03lnd")
    (tmp_path / "a.macaroon").chmod(0o600)
    path = tmp_path / "config.toml"
    path.write_text(f'[daemon]\nstate_dir = "{tmp_path}/state"\n[lnd]\nmacaroon = "a.macaroon"\n')
    path.chmod(0o600)
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    with closing(SqliteStore(state / "holdpay.db")) as store:
        live(store, order(), *HELD)
    return path


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked on is one, as far as the command can see."""
    stdin = io.StringIO(f"{PREIMAGE}\n")
    stdin.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("holdpay.cli.resolve.sys", SimpleNamespace(stdin=stdin))


def resolve(config: Path, *words: str, typed: str) -> Result:
    arguments = ["resolve", order().id, "--config", str(config), "--node-retired", *words]
    return CliRunner().invoke(cli, arguments, input=typed)


def stored(config: Path) -> tuple[Order, int]:
    """The order, and the length of the journal."""
    with closing(SqliteStore(config.parent / "state" / "holdpay.db")) as store:
        return store.get(order().id), store.last_cursor()


@pytest.mark.usefixtures("terminal")
def test_it_asks_why_and_whether_and_writes_after_a_yes(config: Path) -> None:
    _, before = stored(config)
    done = resolve(config, "--written-off", "--by", "ann", typed="  node \tsold\ny\n")
    assert done.exit_code == 0, done.output
    assert "Why: " in done.output
    assert QUESTION in done.output
    assert f"Order {order().id} is closed: outcome unknown. Start holdpayd again." in done.output
    written, after = stored(config)
    assert (written.htlc, written.end, after) == (HtlcState.GONE, End.OUTCOME_UNKNOWN, before + 1)
    assert written.reason == "ann resolved the payment as written off: node sold"


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("answer", ["n", "no", ""])
def test_without_a_yes_nothing_is_written_and_the_order_stays_unresolved(config: Path, answer: str) -> None:
    before = stored(config)
    done = resolve(config, "--written-off", "--by", "ann", typed=f"node sold\n{answer}\n")
    assert (done.exit_code, QUESTION in done.output) == (3, True)
    assert done.stdout.endswith("Nothing was written.\n")
    assert stored(config) == before


@pytest.mark.usefixtures("terminal")
def test_a_prompt_that_is_left_writes_nothing(config: Path) -> None:
    before = stored(config)
    for typed in ("", "node sold\n"):
        assert resolve(config, "--written-off", "--by", "ann", typed=typed).exit_code == 1
    assert stored(config) == before


@pytest.mark.usefixtures("terminal")
def test_what_is_known_stands_before_the_question(config: Path) -> None:
    told = resolve(config, "--failed", "--by", "ann", "--why", "node sold", typed="n\n").output
    assert "Why: " not in told
    assert "It was paid from node 03aaaaaaaaaaaaaa" in told[: told.index("Record it as failed, by ann")]


@pytest.mark.usefixtures("terminal")
def test_a_reason_that_is_no_line_of_text_is_an_error_of_usage(config: Path) -> None:
    before = stored(config)
    for reason in (" \n", "x" * 301 + "\n", "node\x07sold\n"):
        done = resolve(config, "--written-off", "--by", "ann", "--why", reason, typed="y\n")
        assert (done.exit_code, "--why wants 1 to 300 printable characters" in done.stderr) == (2, True)
    assert stored(config) == before


@pytest.mark.usefixtures("terminal")
def test_a_preimage_can_be_read_from_stdin_and_settles_the_order(config: Path) -> None:
    done = resolve(config, "--settled", "-", "--by", "ann", "--why", "the payee has it", typed="y\n")
    assert done.exit_code == 0, done.output
    assert "goes on asking for the code" in done.output
    assert PREIMAGE not in done.output
    written, _ = stored(config)
    assert (written.htlc, written.is_closed) == (HtlcState.SETTLED, False)


# --- who says it --------------------------------------------------------------------------------------------------


def reason_by(config: Path) -> str:
    done = resolve(config, "--written-off", "--why", "node sold", "--yes", typed="")
    assert done.exit_code == 0, done.output
    return stored(config)[0].reason


def test_who_says_it_is_the_person_behind_sudo(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ann")
    monkeypatch.setattr(getpass, "getuser", lambda: "root")
    assert reason_by(config).startswith("ann resolved the payment")


def test_who_says_it_is_the_user_where_there_is_no_sudo(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(getpass, "getuser", lambda: "bob")
    assert reason_by(config).startswith("bob resolved the payment")


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found: 12345"), OSError("No username set")])
def test_a_user_without_a_name_is_named_by_its_number(
    config: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def nobody() -> str:
        raise error

    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(getpass, "getuser", nobody)
    assert reason_by(config).startswith(f"uid {os.getuid()} resolved the payment")
