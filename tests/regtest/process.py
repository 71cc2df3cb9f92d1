"""A child process of the harness (btcd or lnd), and what children need: free ports and bounded waits."""

import asyncio
import atexit
import os
import random
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

TIED: Final = Path(__file__).with_name("tied.py")
STOP_TIMEOUT_S: Final = 40
PATIENCE_S: Final = 90  # of every wait: what takes a second takes half a minute where everything else runs, too
LOG_TAIL_LINES: Final = 30
# Below the range from which Linux takes the ports of outgoing connections: a stopped node's port must stay free.
PORTS: Final = range(10_000, 32_000)

_running: "weakref.WeakSet[Process]" = weakref.WeakSet()
_claims: dict[int, socket.socket] = {}


class StartFailed(Exception):
    """A node did not come up; the text carries the end of its log."""


class Process:
    """One program, started and stopped any number of times with the same arguments.

    Start it from the main thread: Linux takes the death of the starting thread for the death of the parent.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the program is there (a paused one is)."""
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the running program."""
        if self._child is None or not self.running:
            raise RuntimeError(f"{self.name} is not running.")
        return self._child.pid

    def start(self) -> None:
        """Starts the program; its output is appended to the log."""
        if self.running:
            raise RuntimeError(f"{self.name} is running already.")
        # -I -S: a bare interpreter is ready in 10 ms. A session of its own keeps a terminal's ^C away, so that the
        # harness can stop lnd before btcd.
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-S", str(TIED), str(os.getpid()), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _running.add(self)

    async def stop(self) -> None:
        """Asks the program to end and waits for it; one that does not end is killed."""
        if not self.running:
            return
        self.resume()
        self.signal(signal.SIGTERM)
        if not await self._ended(STOP_TIMEOUT_S):
            await self.kill()

    async def kill(self) -> None:
        """SIGKILL, and waits until the process is gone (its ports are free again)."""
        if self.running:
            self.signal(signal.SIGKILL)
            await self._ended(STOP_TIMEOUT_S)

    def pause(self) -> None:
        """SIGSTOP: the program keeps its connections and answers nothing."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT; harmless when it was not paused."""
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the running program."""
        os.kill(self.pid, number)

    def tail(self) -> str:
        """The last lines of the log, for error messages."""
        if not self.log.exists():
            return "(no log)"
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return f"The end of {self.log}:\n  " + "\n  ".join(lines)

    async def _ended(self, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while self.running:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.02)
        return True


@atexit.register
def _kill_leftovers() -> None:
    """For platforms without a parent-death signal, and runs that were interrupted twice."""
    for process in list(_running):
        if process.running:
            process.signal(signal.SIGKILL)


def free_port() -> int:
    """A loopback port that is nobody else's as long as this process lives, also while its node is down.

    A socket that is bound and does not listen claims it: the next one who looks for a port, in another run of the tests
    perhaps, finds it taken. A node binds and listens all the same, since it sets SO_REUSEADDR, too; on Linux only.
    """
    while True:
        port = random.choice(PORTS)
        if port in _claims:
            continue
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        if sys.platform == "linux":
            claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            claim.close()
        _claims[port] = claim
        return port


async def until(
    what: str, probe: Callable[[], Awaitable[T | None]], *, within_s: float = PATIENCE_S, every_s: float = 0.05
) -> T:
    """Asks `probe` until it answers something true, and returns that. Raises TimeoutError naming `what`."""
    deadline = time.monotonic() + within_s
    while not (answer := await probe()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {within_s:g} s.")
        await asyncio.sleep(every_s)
    return answer
