"""The command as a whole: help, exit codes, completion, imports."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli import complete as completing
from holdpay.cli.exit_codes import ExitCode
from holdpay.cli.root import COMPLETE_VARIABLE, PROGRAM, cli
from tests.unit.cli.conftest import Terminal
from tests.unit.cli.fake_daemon import FakeDaemon, a_request


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with other things to do takes longer for an answer than a shell waits."""
    monkeypatch.setattr(completing, "PATIENCE_S", 20)


def complete(daemon: FakeDaemon, *arguments: str, incomplete: str = "") -> list[str]:
    completer = ShellComplete(cli, {}, PROGRAM, COMPLETE_VARIABLE)
    return [item.value for item in completer.get_completions(["--socket", daemon.path, *arguments], incomplete)]


def test_help_lists_every_exit_code() -> None:
    stdout = CliRunner().invoke(cli, ["--help"]).stdout
    for code in ExitCode:
        assert f"{code.value:>5}  {code.meaning}" in stdout


def test_help_imports_nothing_slow() -> None:
    program = (
        "import sys, holdpay.cli.root; "
        "print(sorted({'grpc', 'google', 'json', 'socket', 'pydantic', 'structlog', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_for_this_command(shell: str) -> None:
    result = CliRunner().invoke(cli, ["completion", shell], prog_name=PROGRAM)
    assert result.exit_code == ExitCode.DONE
    assert f"{COMPLETE_VARIABLE}={shell}_complete" in result.stdout


def test_countries_complete_from_the_daemon(daemon: FakeDaemon) -> None:
    daemon.answers["ListCountries"] = pb.ListCountriesResponse(
        countries=[pb.Country(code=187, name="USA", aliases=["United States"]), pb.Country(code=1, name="Ukraine")]
    )
    assert complete(daemon, "code", incomplete="u") == ["ukraine", "usa"]


SEEN = pb.ListServicesResponse(
    services=[
        pb.Service(code="go", name="Google,youtube, Gmail"),
        pb.Service(code="ot", name="Any other"),
        pb.Service(code="tg", name="Telegram"),
    ]
)


@pytest.mark.parametrize(
    "command", [("code", "usa"), ("prices", "usa"), ("rentals", "--service"), ("rent", "usa", "--service")]
)
def test_services_complete_from_what_the_daemon_saw_last(daemon: FakeDaemon, command: tuple[str, ...]) -> None:
    daemon.answers["ListServices"] = SEEN
    assert complete(daemon, *command) == ["go", "ot", "tg"]
    assert complete(daemon, *command, incomplete="g") == ["go", "google", "gmail"]
    assert complete(daemon, *command, incomplete="Tel") == ["telegram"]
    assert complete(daemon, *command, incomplete="any") == []
    (asked, *_) = daemon.received_of(pb.ListServicesRequest)
    assert asked.country == ""  # so that the provider is not asked


def test_order_ids_complete_from_the_daemon(daemon: FakeDaemon) -> None:
    daemon.requests = [a_request(id="ord-1"), a_request(id="abc-2")]
    assert complete(daemon, "orders", "show", incomplete="ord") == ["ord-1"]


def test_completion_without_a_daemon_is_silent(daemon: FakeDaemon, capfd: pytest.CaptureFixture[str]) -> None:
    nowhere = FakeDaemon(f"{daemon.path}.none")
    assert complete(nowhere, "code") == []
    assert complete(nowhere, "prices", "usa") == []
    assert capfd.readouterr() == ("", "")


def test_the_version_is_shown() -> None:
    assert CliRunner().invoke(cli, ["--version"]).stdout.startswith("holdpay, version ")


def test_an_unknown_command_is_refused_input(terminal: Terminal) -> None:
    assert terminal.run("buy").exit_code == ExitCode.REFUSED_INPUT
