"""A fake daemon on a socket, and the command line in this process."""

from __future__ import annotations

import os
import pty
import signal
import tempfile
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from holdpay.cli.root import cli
from holdpay.cli.top.terminal import Terminal as Screen
from tests.unit.cli.fake_daemon import FakeClock, FakeDaemon


@dataclass(frozen=True, slots=True)
class Terminal:
    """Runs `holdpay` against the fake daemon; time passes only in its sleeps."""

    path: str
    clock: FakeClock

    def run(self, *arguments: str) -> Result:
        result = CliRunner().invoke(cli, ["--socket", self.path, *arguments], obj=self.clock)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    # pytest's own tmp_path is often longer than a socket's path may be
    with tempfile.TemporaryDirectory(prefix="holdpay-cli-") as folder:
        fake = FakeDaemon(str(Path(folder) / "holdpay.sock"))
        fake.start()
        yield fake
        fake.stop()


@pytest.fixture
def terminal(daemon: FakeDaemon) -> Terminal:
    return Terminal(daemon.path, FakeClock())


class Pty:
    """A terminal in two ends; ``output`` is what it was sent."""

    def __init__(self) -> None:
        self.user, self.program = pty.openpty()
        os.set_blocking(self.user, False)
        self.stdin, self.stdout = os.fdopen(self.program, "r"), os.fdopen(os.dup(self.program), "w")

    def terminal(self, encoding: str = "utf-8") -> Screen:
        self.stdout.reconfigure(encoding=encoding)
        return Screen(self.stdin, self.stdout)

    def close(self) -> None:
        for end in (self.stdin, self.stdout):
            end.close()
        os.close(self.user)

    def output(self) -> str:
        found = b""
        while True:
            try:
                found += os.read(self.user, 65536)
            except BlockingIOError:
                return found.decode()

    def press(self, keys: bytes) -> None:
        os.write(self.user, keys)

    def attributes(self) -> list[object]:
        return list(termios.tcgetattr(self.program))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pty]:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("COLORTERM", raising=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGTSTP, signal.SIGWINCH)}
    device = Pty()
    yield device
    for number, handler in before.items():
        signal.signal(number, handler)
    device.close()
