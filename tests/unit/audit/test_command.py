"""The command line of check and recover, without lnd and without a daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from holdpay.audit.findings import AuditExit
from holdpay.cli.daemon import cli
from holdpay.core.events import OrderQuarantined
from holdpay.store.store import SqliteStore
from tests.unit.audit.books import HELD, LOST, prepaid
from tests.unit.audit.test_database import live
from tests.unit.build import order


@pytest.fixture(autouse=True)
def no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is the whole process's, and this one runs other tests."""
    monkeypatch.setattr("holdpay.log.configure", lambda *_: None)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "a.macaroon").write_bytes(b"\x02\x01\x03lnd")
    (tmp_path / "a.macaroon").chmod(0o600)
    path = tmp_path / "config.toml"
    path.write_text(f'[daemon]\nstate_dir = "{tmp_path}/state"\n[lnd]\nmacaroon = "a.macaroon"\n')
    path.chmod(0o600)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.mark.parametrize("command", ["check", "recover"])
def test_a_configuration_that_cannot_be_used_is_a_sentence_and_78(config: Path, command: str) -> None:
    config.write_text('[lnd]\nmacaron = "x"\n')
    done = run(command, "--config", config)
    assert done.exit_code == 78
    assert "holdpayd: lnd.macaron " in done.stderr


@pytest.mark.parametrize("command", ["check", "recover"])
def test_a_word_too_many_is_an_error_of_usage(config: Path, command: str) -> None:
    assert run(command, "--config", config, "--nonsense").exit_code == 2


@pytest.mark.parametrize("command", ["check", "recover", "backup", "restore"])
def test_help_names_every_exit_code(command: str) -> None:
    told = run(command, "--help").stdout
    for code in AuditExit:
        assert f"\n    {int(code):<4}{code.meaning}\n" in told


def test_the_configuration_may_be_named_before_the_command(config: Path) -> None:
    assert "no-database" in run("--config", config, "check", "--offline", "--json").stdout


def test_an_offline_check_of_a_held_order_asks_nobody(config: Path) -> None:
    state = config.with_name("state")
    state.mkdir(mode=0o700)
    store = SqliteStore(state / "holdpay.db")
    live(store, order(), *HELD)
    done = run("check", "--config", config, "--offline", "--json")
    store.close()
    report = json.loads(done.stdout)
    assert done.exit_code == report["exit_code"] == 3
    assert report["lnd"] == "not asked (--offline)"
    assert {finding["code"] for finding in report["findings"]} >= {"open", "unwatched"}


def test_recover_without_a_node_of_the_provider_is_a_question_of_configuration(config: Path) -> None:
    config.write_text(config.read_text() + '[provider]\npayee_pubkeys = []\npayee_check = "off"\n')
    done = run("recover", "--config", config)
    assert done.exit_code == 78
    assert "provider.payee_pubkeys is empty" in done.stderr


@pytest.mark.parametrize("words", [(), ("--failed", "--written-off"), ("--failed", "--settled", "00" * 32)])
def test_resolve_wants_one_word_about_the_payment(config: Path, words: tuple[str, ...]) -> None:
    done = run("resolve", "abcd", "--config", config, "--yes", "--why", "so", *words)
    assert (done.exit_code, "Say one of" in done.stderr) == (2, True)


def test_resolve_asks_nobody_where_no_terminal_is(config: Path) -> None:
    done = run("resolve", "abcd", "--config", config, "--failed", "--why", "so")
    assert (done.exit_code, "--yes" in done.stderr) == (2, True)
    done = run("resolve", "abcd", "--config", config, "--failed", "--yes")
    assert (done.exit_code, "--why" in done.stderr) == (2, True)


def test_resolve_makes_no_database(config: Path) -> None:
    done = run("resolve", "abcd", "--config", config, "--failed", "--yes", "--why", "so")
    assert (done.exit_code, "There is no database" in done.stderr) == (4, True)
    assert not (config.parent / "state" / "holdpay.db").exists()


def test_resolve_refuses_an_order_that_is_not_there_or_has_no_money_out(config: Path) -> None:
    state = config.with_name("state")
    state.mkdir(mode=0o700)
    store = SqliteStore(state / "holdpay.db")
    live(store, order(), *HELD[:1])
    store.close()
    for order_id, told in (("zzzz", "no such order"), (order().id, "nothing to resolve")):
        done = run("resolve", order_id, "--config", config, "--failed", "--yes", "--why", "so")
        assert done.exit_code == 4
        assert told in done.stderr.lower()


def test_resolve_ends_an_order_in_quarantine_also_one_that_asks_nobody(config: Path) -> None:
    state = config.with_name("state")
    state.mkdir(mode=0o700)
    store = SqliteStore(state / "holdpay.db")
    live(store, order(), (1, OrderQuarantined("It broke a law.")))
    store.close()
    words = ("--yes", "--why", "never sent")
    refused = run("resolve", order().id, "--config", config, "--written-off", *words)
    assert (refused.exit_code, "no payment" in refused.stderr) == (4, True)
    done = run("resolve", order().id, "--config", config, "--failed", *words)
    assert (done.exit_code, "is closed: canceled unpaid" in done.stdout) == (0, True)
    report = json.loads(run("check", "--config", config, "--offline", "--json").stdout)
    assert (report["exit_code"], report["findings"]) == (0, [])


@pytest.mark.parametrize(
    ("words", "told", "finding"),
    [
        (("--failed",), "is closed: provider refused", None),
        (("--settled",), "is closed: charged unfulfilled", "charged-unfulfilled"),
        (("--written-off",), "is closed: outcome unknown", "outcome-unknown"),
    ],
)
def test_resolve_says_whether_the_account_was_charged(
    config: Path, words: tuple[str, ...], told: str, finding: str | None
) -> None:
    state = config.with_name("state")
    state.mkdir(mode=0o700)
    store = SqliteStore(state / "holdpay.db")
    request = prepaid()
    live(store, request, *LOST)
    store.close()
    refused = run("resolve", request.id, "--config", config, "--settled", "11" * 32, "--yes", "--why", "so")
    assert (refused.exit_code, "Say --settled without one" in refused.stderr) == (4, True)
    done = run("resolve", request.id, "--config", config, *words, "--yes", "--why", "the history says so")
    assert (done.exit_code, told in done.stdout) == (0, True), done.output
    assert "the balance was 9,000 sat right before" in done.stdout
    report = json.loads(run("check", "--config", config, "--offline", "--json").stdout)
    assert {found["code"] for found in report["findings"]} == ({finding} if finding else set())
