"""`holdpay` always ends, with the right exit code, whatever threads, locks and lost connections it leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli.exit_codes import ExitCode
from tests.unit.cli.fake_daemon import ACCEPTED, DELIVERED, HELD, FakeDaemon, updates

PATIENCE_S = 180
RECONNECTS = 300
PROCESSES = 24
AT_ONCE = 6

HASTY = "import time, holdpay.cli.app as app, holdpay.cli.main as main; "
HASTY += "app.Clock.sleep = lambda self, duration_s: time.sleep(duration_s / 50); main.main()"
"""The command with shorter waits between two tries to connect."""

WAITS_AT_ITS_END = "import atexit, threading, holdpay.cli.main as main; "
WAITS_AT_ITS_END += "atexit.register(threading.Event().wait); main.main()"
"""Stands for what was seen of gRPC: its objects wait at the interpreter's end for what a stopped thread holds."""


class Flapping(FakeDaemon):
    """Breaks every stream after its first update, until `streams` are used up; then the code comes."""

    streams = RECONNECTS

    def Submit(  # noqa: N802
        self, request: pb.SubmitRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.RequestUpdates]:
        yield from self._play(updates(ACCEPTED, first_cursor=1), context)
        context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    def WatchRequests(  # noqa: N802
        self, request: pb.WatchRequestsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.RequestUpdates]:
        self.received.append(request)
        stage = HELD if len(self.received) < self.streams else DELIVERED
        yield from self._play(updates(stage, first_cursor=request.after_cursor + 1), context)
        context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")


@pytest.fixture
def flapping() -> Iterator[Flapping]:
    with tempfile.TemporaryDirectory(prefix="holdpay-e2e-") as folder:
        fake = Flapping(str(Path(folder) / "holdpay.sock"), is_from_now=True)
        fake.start()
        yield fake
        fake.stop()


def start(daemon: FakeDaemon, program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "HOLDPAY_SOCKET": daemon.path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and stdout. A process that hangs fails the test, and is killed."""
    try:
        stdout, _ = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, stdout


def test_a_process_that_connected_hundreds_of_times_ends_with_its_code(flapping: Flapping) -> None:
    assert finish(start(flapping, HASTY, "code", "usa", "openai")) == (ExitCode.DONE, "004211\n")
    assert len(flapping.received) >= RECONNECTS


def test_processes_whose_daemon_restarts_all_the_time_end_when_their_time_is_over(flapping: Flapping) -> None:
    flapping.streams = sys.maxsize
    is_over = threading.Event()

    def restart() -> None:
        while not is_over.wait(0.1):
            flapping.stop()
            flapping.start()

    restarting = threading.Thread(target=restart)
    restarting.start()
    try:
        for _ in range(PROCESSES // AT_ONCE):
            started = [start(flapping, HASTY, "code", "usa", "openai", "--timeout", "1s") for _ in range(AT_ONCE)]
            for process in started:
                exit_code, stdout = finish(process)
                # UNREACHABLE: it came while the socket was away for a moment
                assert exit_code in {ExitCode.STILL_OPEN, ExitCode.UNREACHABLE}
                assert stdout == ""
    finally:
        is_over.set()
        restarting.join()


def test_what_waits_for_ever_at_the_interpreters_end_does_not_hold_the_process(flapping: Flapping) -> None:
    flapping.streams = 1
    assert finish(start(flapping, WAITS_AT_ITS_END, "code", "usa", "openai")) == (ExitCode.DONE, "004211\n")


@pytest.mark.parametrize(
    ("arguments", "expected"), [(("--help",), ExitCode.DONE), (("code", "usa"), ExitCode.REFUSED_INPUT)]
)
def test_what_the_command_line_itself_says_is_written_whole(
    flapping: Flapping, arguments: tuple[str, ...], expected: ExitCode
) -> None:
    process = start(flapping, HASTY, *arguments)
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == expected
    assert "Usage: holdpay" in stdout + stderr


@pytest.mark.parametrize(
    ("where", "why"),
    [(">/dev/full", "No space left on device"), (">&-", "stdout is closed"), ("| true", "")],
)
@pytest.mark.parametrize(
    ("program", "command"),
    [
        ("main", "--help"),
        ("main", "completion bash"),
        ("daemon", "--help"),
        ("daemon", "--print-config-example"),
        ("daemon", "doctor --config /dev/null/none"),
        ("daemon", "sandbox tricks"),
    ],
)
def test_output_that_cannot_be_written_ends_with_1_and_without_a_traceback(
    program: str, command: str, where: str, why: str
) -> None:
    shell = f"{sys.executable} -m holdpay.cli.{program} {command} {where}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    if why:
        who = "Error" if program == "main" else "holdpayd"
        assert (done.returncode, done.stderr) == (1, f"{who}: The output could not be written ({why}).\n")
    else:  # a pipe's reader may be gone sooner or later, and the doctor finds something
        assert done.stderr == ""
        assert done.returncode in {0, 1, 4, 78}


def test_output_in_ascii_that_cannot_be_written_is_told_as_well() -> None:
    shell = f"PYTHONIOENCODING=ascii {sys.executable} -m holdpay.cli.main completion bash >/dev/full"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "Error: The output could not be written (No space left on device).\n",
    )


CLOSED_STDIN = [
    ("main", "vet -", 2, "Stdin is closed. Hand the text over with a pipe or <FILE, or write it instead of -."),
    ("main", "sms send +19871234567 -", 2, "Stdin is closed."),
    ("main", "email send a@example.org -", 2, "Stdin is closed."),
    ("main", "top", 2, "`holdpay top` needs a terminal"),
    ("daemon", "resolve dpktyah2w6 --failed --why lost", 2, "There is no terminal to ask on."),
    ("daemon", "resolve dpktyah2w6 --settled - --why paid --yes", 2, "Stdin is closed."),
]


@pytest.mark.parametrize(("program", "words", "exit_code", "sentence"), CLOSED_STDIN)
def test_a_closed_stdin_is_told_in_a_sentence(program: str, words: str, exit_code: int, sentence: str) -> None:
    run = f"{sys.executable} -c 'from holdpay.cli.{program} import main; main()' {words}"
    done = subprocess.run(["bash", "-c", f"{run} <&-"], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout) == (exit_code, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("stdin", "locale", "sentence"),
    [
        ("<<<$'\\xff'", "C.UTF-8", "What stdin has is not valid UTF-8."),
        ("<<<$'\\xff'", "C", "What stdin has is not valid UTF-8."),
        ("0>/dev/null", "C.UTF-8", "Stdin cannot be read (Bad file descriptor)."),
    ],
)
@pytest.mark.parametrize("words", ["vet -", "email send a@example.org -"])
def test_what_cannot_be_read_from_stdin_is_told_in_a_sentence(
    words: str, stdin: str, locale: str, sentence: str
) -> None:
    run = f"LC_ALL={locale} {sys.executable} -m holdpay.cli.main {words} {stdin}"
    done = subprocess.run(["bash", "-c", run], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout) == (ExitCode.REFUSED_INPUT, "")
    assert sentence in done.stderr


HALF_A_COMPLETION = [("bash", {}), ("bash", {"COMP_WORDS": "holdpay c", "COMP_CWORD": "x"}), ("zsh", {}), ("fish", {})]


@pytest.mark.parametrize(("shell", "handed"), HALF_A_COMPLETION)
@pytest.mark.parametrize(("module", "program"), [("main", "holdpay"), ("daemon", "holdpayd")])
def test_a_completion_without_the_shells_words_is_told_in_a_sentence(
    module: str, program: str, shell: str, handed: dict[str, str]
) -> None:
    environment = {**os.environ, f"_{program.upper()}_COMPLETE": f"{shell}_complete", **handed}
    run = [sys.executable, "-c", f"from holdpay.cli.{module} import main; main()"]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: A completion was asked for without COMP_WORDS and COMP_CWORD. Its script hands them over: "
        f"{program} completion bash\n"
    )
