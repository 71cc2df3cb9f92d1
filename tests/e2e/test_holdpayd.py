"""`holdpayd` as a process: its command line, and what it says of a configuration. No engine, no lnd."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from holdpay import __version__
from holdpay.cli.daemon import cli
from holdpay.config import Settings
from holdpay.errors import ConfigError, HoldpayError, InvariantViolation, NotReady, StoreError
from holdpay.lock import AlreadyRunning

HOLDPAYD = [sys.executable, "-m", "holdpay.cli.daemon"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "a.macaroon").write_bytes(b"\x02\x01\x03lnd")
    (tmp_path / "a.macaroon").chmod(0o600)
    path = tmp_path / "config.toml"
    path.write_text(f'[daemon]\nstate_dir = "{tmp_path}/state"\n[lnd]\nmacaroon = "a.macaroon"\n')
    path.chmod(0o600)
    return path


def holdpayd(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HOLDPAYD, *map(str, arguments)], capture_output=True, text=True, timeout=60, env={**os.environ, **env}
    )


# --- as a process ---


def test_a_good_configuration_is_called_fine_with_what_was_found(config: Path, tmp_path: Path) -> None:
    done = holdpayd("--config", config, "--check-config")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{config} is fine.\n")
    for found in (
        "127.0.0.1:10009",
        str(tmp_path / "a.macaroon"),
        "https://api2.sms4sats.com",
        "8 open orders, 50,000 sat",
    ):
        assert found in done.stdout
    assert not (tmp_path / "state").exists()


def test_a_check_warns_and_shows_no_password(config: Path) -> None:
    config.write_text(
        config.read_text() + '[provider]\nproxy = "socks5h://u:sesame@tor:9050"\n[payment]\nprove_absent_s = 1\n'
    )
    done = holdpayd("--config", config, "--check-config")
    assert done.returncode == 0
    assert "warning: payment.prove_absent_s is 1:" in done.stdout
    assert "by a proxy" in done.stdout
    assert "sesame" not in done.stdout + done.stderr


def test_a_check_warns_of_a_hook_whose_program_is_missing(config: Path) -> None:
    config.write_text(config.read_text() + '[[hook]]\nname = "a"\nevents = ["code"]\ncommand = ["/opt/gone"]\n')
    done = holdpayd("--config", config, "--check-config")
    assert (done.returncode, done.stderr) == (0, "")
    assert "warning: hook.a is not usable: command names /opt/gone, and there is no such file: put it" in done.stdout


@pytest.mark.parametrize("check", [["--check-config"], []])
def test_every_problem_is_a_line_on_stderr_and_the_exit_code_is_78(config: Path, check: list[str]) -> None:
    config.write_text('[daemon]\nsokcet = "/x"\n[lnd]\nmacaroon = "gone"\n[payment]\npay_within_s = "10m"\n')
    done = holdpayd("--config", config, *check)
    assert (done.returncode, done.stdout) == (78, "")
    lines = done.stderr.splitlines()
    starts = ["holdpayd: daemon.sokcet ", "holdpayd: lnd.macaroon ", "holdpayd: payment.pay_within_s "]
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == starts


def test_a_missing_configuration_is_a_sentence_and_no_traceback(tmp_path: Path) -> None:
    done = holdpayd("--config", tmp_path / "gone.toml")
    assert done.returncode == 78
    assert done.stderr.count("\n") == 1
    assert "there is no such file" in done.stderr


def test_the_version_is_told() -> None:
    assert holdpayd("--version").stdout == f"holdpayd, version {__version__}\n"


def test_a_word_too_many_is_an_error_of_usage_and_not_of_configuration() -> None:
    assert holdpayd("serve").returncode == 2


def test_help_names_every_exit_code() -> None:
    done = holdpayd("--help")
    assert done.returncode == 0
    for code in (0, 1, 2, 70, 74, 75, 78):
        assert f"\n    {code} " in done.stdout


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys\nfrom holdpay.cli.daemon import cli\ncli(['--help'], standalone_mode=False)\n"
        "print(sorted({'grpc', 'pydantic', 'structlog', 'httpx', 'sqlite_utils'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


# --- how it ends, with the daemon itself replaced ---


@pytest.fixture
def run_with(config: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], int]], Result]:
    """Runs `holdpayd --config PATH` with `holdpay.app.run` replaced."""

    def run_with(body: Callable[[], int]) -> Result:
        def run(settings: Settings, path: Path) -> int:
            assert settings.daemon.state_dir == config.parent / "state"
            assert path == config
            return body()

        app = ModuleType("holdpay.app")
        app.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "holdpay.app", app)
        return CliRunner().invoke(cli, ["--config", str(config)])

    return run_with


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_code_is_the_daemons(run_with: Callable[[Callable[[], int]], Result], code: int) -> None:
    assert run_with(lambda: code).exit_code == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError(["daemon.state_dir is bad.", "daemon.socket is bad."]), 78),
        (AlreadyRunning("Another holdpayd runs."), 75),
        (StoreError("The disk is full."), 74),
        (InvariantViolation("Two truths."), 70),
        (NotReady("Not now."), 1),
    ],
)
def test_an_error_ends_in_a_sentence_and_its_own_exit_code(
    run_with: Callable[[Callable[[], int]], Result], error: HoldpayError, code: int
) -> None:
    def fail() -> int:
        raise error

    result = run_with(fail)
    assert result.exit_code == code
    assert result.output == "".join(f"holdpayd: {line}\n" for line in error.message.splitlines())


def test_an_error_on_the_way_out_shows_no_payment_hash(run_with: Callable[[Callable[[], int]], Result]) -> None:
    def fail() -> int:
        raise InvariantViolation("Paid twice: " + "ab" * 32)

    assert run_with(fail).output == "holdpayd: Paid twice: abababab…\n"


def test_grpc_is_silenced_before_it_can_be_imported() -> None:
    code = "import holdpay.cli.daemon, os; print(os.environ['GRPC_VERBOSITY'])"
    env = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=env)
    assert done.stdout == "NONE\n"
