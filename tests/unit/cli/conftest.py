"""A fake daemon on a socket, and the command line in this process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from holdpay.cli.root import cli
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
