"""Each way a socket can fail gets a sentence of its own and what to do."""

from __future__ import annotations

import grp
import os
import pwd
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from holdpay.cli import sockets
from holdpay.cli.exit_codes import ExitCode
from holdpay.cli.failure import Unreachable
from holdpay.cli.root import cli
from tests.unit.cli.conftest import Terminal
from tests.unit.cli.fake_daemon import FakeDaemon, updates


def order(path: str | Path, **environment: str) -> Result:
    return CliRunner().invoke(cli, ["--socket", str(path), "code", "usa", "openai"], env=environment)


def test_a_missing_socket_says_how_to_start_the_daemon(tmp_path: Path) -> None:
    result = order(tmp_path / "none.sock")
    assert result.exit_code == ExitCode.UNREACHABLE
    assert "There is no socket at" in result.stderr
    assert "systemctl start holdpayd" in result.stderr


def test_a_socket_without_a_daemon_says_that_it_is_not_running(tmp_path: Path) -> None:
    path = Path(os.path.relpath(tmp_path / "dead.sock"))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    result = order(path)
    assert result.exit_code == ExitCode.UNREACHABLE
    assert "the daemon is not running" in result.stderr


def test_a_daemon_that_dies_while_it_is_greeted_is_not_running(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "dying.sock"
    dying = socket.socket(socket.AF_UNIX)
    dying.bind(str(path))
    dying.listen()
    look = sockets.check_socket

    def look_and_let_it_die(named: str, timeout_s: float) -> None:
        look(named, timeout_s)
        dying.close()

    monkeypatch.setattr("holdpay.cli.client.check_socket", look_and_let_it_die)
    result = order(path)
    assert result.exit_code == ExitCode.UNREACHABLE
    assert "the daemon is not running" in result.stderr


@pytest.mark.parametrize(
    ("group", "wanted", "unwanted"),
    [
        ("codes", "Join the group codes (sudo usermod -aG codes ann), then log in again", "as root"),
        ("root", "which is for root alone. Run this as root (sudo)", "usermod"),
    ],
)
def test_a_forbidden_socket_says_which_group_to_join(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, group: str, wanted: str, unwanted: str
) -> None:
    def forbid(self: socket.socket, address: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", forbid)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((group, "x", gid, [])))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd(("ann", "x", uid, 0, "", "/", "/bin/sh")))
    result = order(tmp_path / "holdpay.sock")
    assert result.exit_code == ExitCode.UNREACHABLE
    assert wanted in result.stderr
    assert unwanted not in result.stderr


def test_a_path_too_long_for_a_socket_is_said_so(tmp_path: Path) -> None:
    result = order(tmp_path / ("x" * 120))
    assert result.exit_code == ExitCode.UNREACHABLE
    assert "longer than 107 bytes" in result.stderr


def test_a_file_that_is_no_socket_is_an_answer_and_not_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "holdpay.sock"
    path.write_text("")
    assert order(path).exit_code == ExitCode.UNREACHABLE


def test_without_any_socket_both_defaults_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "SYSTEM_SOCKET", "/nowhere/holdpay.sock")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere/user")
    with pytest.raises(Unreachable, match=r"/nowhere/holdpay.sock or /nowhere/user/holdpay/holdpay.sock"):
        sockets.find_socket(None)


def test_the_first_default_that_exists_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sockets, "SYSTEM_SOCKET", "/nowhere/holdpay.sock")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    own = tmp_path / "holdpay" / "holdpay.sock"
    own.parent.mkdir()
    own.touch()
    assert sockets.find_socket(None) == str(own)


def test_a_default_in_a_closed_folder_counts_as_existing(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "stat", forbid)
    assert sockets.find_socket(None) == sockets.SYSTEM_SOCKET


def test_the_environment_names_the_socket(daemon: FakeDaemon, terminal: Terminal) -> None:
    daemon.submit_scripts = [updates({"code": "1"})]
    result = CliRunner().invoke(cli, ["code", "usa", "openai"], env={"HOLDPAY_SOCKET": daemon.path}, obj=terminal.clock)
    assert result.stdout == "1\n"


def test_a_proxy_of_the_environment_is_not_used(
    daemon: FakeDaemon, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    daemon.submit_scripts = [updates({"code": "1"})]
    assert terminal.run("code", "usa", "openai").stdout == "1\n"


def test_a_path_with_odd_characters_works(daemon: FakeDaemon, terminal: Terminal) -> None:
    path = Path(daemon.path).parent / "a b%20?#.sock"
    fake = FakeDaemon(str(path))
    fake.submit_scripts = [updates({"code": "1"})]
    fake.start()
    try:
        result = Terminal(str(path), terminal.clock).run("code", "usa", "openai")
    finally:
        fake.stop()
    assert result.stdout == "1\n"
