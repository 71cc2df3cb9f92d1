"""The installed command as a process: real signals and pipes, and a scripted daemon that comes and goes."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdpay.cli.exit_codes import ExitCode
from tests.unit.cli.fake_daemon import (
    ACCEPTED,
    DELIVERED,
    HELD,
    NUMBERED,
    ORDER_ID,
    FakeDaemon,
    Hang,
    a_request,
    updates,
)

COMMAND = str(Path(sys.executable).with_name("holdpay"))
PATIENCE_S = 180


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    with tempfile.TemporaryDirectory(prefix="holdpay-e2e-") as folder:
        # these processes have the real clock: an order from its past would be asked for again
        fake = FakeDaemon(str(Path(folder) / "holdpay.sock"), is_from_now=True)
        fake.start()
        yield fake
        fake.stop()


def start(daemon: FakeDaemon, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, *arguments],
        env={**os.environ, "HOLDPAY_SOCKET": daemon.path, "http_proxy": "http://127.0.0.1:1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Lines of stderr up to the one with `text`."""
    assert process.stderr is not None
    lines = ""
    while text not in lines:
        line = process.stderr.readline()
        assert line, f"no {text!r} in {lines}"
        lines += line
    return lines


def test_a_shell_gets_the_code_alone(daemon: FakeDaemon) -> None:
    daemon.submit_scripts = [[*updates(ACCEPTED, HELD, NUMBERED, DELIVERED), Hang()]]
    process = start(daemon, "code", "usa", "openai")
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, stdout) == (ExitCode.DONE, "004211\n")
    assert f"Order {ORDER_ID}" in stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("as_json", [False, True])
def test_an_interrupt_leaves_the_order_open(daemon: FakeDaemon, as_json: bool, number: signal.Signals) -> None:
    daemon.submit_scripts = [[*updates(ACCEPTED, HELD), Hang()]]
    process = start(daemon, "code", "usa", "openai", *(["--json"] if as_json else []))
    if as_json:
        assert process.stdout is not None
        assert [json.loads(process.stdout.readline())["cursor"] for _ in range(2)] == [1, 2]
    else:
        read_until(process, "locked")
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, stdout) == (ExitCode.STILL_OPEN, "")
    assert f"holdpay orders wait {ORDER_ID}" in stderr
    assert "Traceback" not in stderr


def test_an_interrupt_ends_a_question_that_hangs(daemon: FakeDaemon) -> None:
    daemon.answers["GetStatus"] = Hang()
    process = start(daemon, "status")
    daemon.wait_for_call()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, stdout, stderr) == (ExitCode.INTERRUPTED, "", "")


def test_a_watch_outlives_the_daemon(daemon: FakeDaemon) -> None:
    daemon.watch_scripts = [[*updates(HELD), Hang()], [*updates(NUMBERED, first_cursor=2), Hang()]]
    process = start(daemon, "orders", "watch", "--json", "--after", "0")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["cursor"] == 1
    daemon.stop()
    read_until(process, "connecting again")
    daemon.start()
    assert json.loads(process.stdout.readline())["cursor"] == 2
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.INTERRUPTED
    assert daemon.received[1].after_cursor == 1


def test_a_closed_pipe_is_no_traceback(daemon: FakeDaemon) -> None:
    daemon.watch_scripts = [[*updates(HELD), *updates(NUMBERED, first_cursor=2), Hang()]]
    process = start(daemon, "orders", "watch", "--after", "0")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait(timeout=PATIENCE_S)


def test_help_is_quick() -> None:
    """Of CPU time: the machine may do other things too. About 120 ms are wanted; the limit catches a heavy import."""
    spent_s = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([COMMAND, "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent_s) < 1


# --- output that cannot be written ----------------------------------------------------------------------------------


def run(daemon: FakeDaemon, shell: str) -> subprocess.CompletedProcess[bytes]:
    """``shell`` with `$holdpay` in it."""
    environment = {**os.environ, "HOLDPAY_SOCKET": daemon.path, "holdpay": COMMAND}
    return subprocess.run(["bash", "-c", shell], env=environment, capture_output=True, timeout=PATIENCE_S, check=False)


@pytest.mark.parametrize(("where", "why"), [(">/dev/full", "No space left on device"), (">&-", "stdout is closed")])
def test_a_code_that_cannot_be_written_is_not_lost_without_a_word(daemon: FakeDaemon, where: str, why: str) -> None:
    daemon.submit_scripts = [[*updates(ACCEPTED, HELD, NUMBERED, DELIVERED), Hang()]]
    done = run(daemon, f"$holdpay code usa openai {where}")
    assert done.returncode == ExitCode.STILL_OPEN
    assert f"could not be written ({why})".encode() in done.stderr
    assert f"holdpay orders show {ORDER_ID}".encode() in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_reader_that_leaves_early_does_not_hide_that_the_order_goes_on(daemon: FakeDaemon) -> None:
    daemon.submit_scripts = [[*updates(ACCEPTED, HELD, NUMBERED, DELIVERED), Hang()]]
    done = run(daemon, "$holdpay code usa openai --json | true; exit ${PIPESTATUS[0]}")
    assert done.returncode == ExitCode.STILL_OPEN
    assert f"holdpay orders show {ORDER_ID}".encode() in done.stderr


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full"])
def test_progress_that_cannot_be_written_does_not_end_the_wait(daemon: FakeDaemon, where: str) -> None:
    daemon.submit_scripts = [[*updates(ACCEPTED, HELD, NUMBERED, DELIVERED), Hang()]]
    done = run(daemon, f"$holdpay code usa openai {where}")
    assert (done.returncode, done.stdout) == (ExitCode.DONE, b"004211\n")


def test_a_list_that_cannot_be_written_says_so(daemon: FakeDaemon) -> None:
    daemon.requests = [a_request()]
    done = run(daemon, "$holdpay orders list >/dev/full")
    assert (done.returncode, done.stderr) == (
        ExitCode.UNEXPECTED,
        b"Error: The output could not be written (No space left on device).\n",
    )


def test_a_command_line_that_is_no_text_is_refused_with_a_sentence(daemon: FakeDaemon) -> None:
    done = run(daemon, r"$holdpay code usa $'op\xffenai'")
    assert done.returncode == ExitCode.REFUSED_INPUT
    assert b"not valid UTF-8" in done.stderr
    assert daemon.received == []
