"""Where daemons are born fast: one process has imported all that holdpayd needs, and forks a daemon on request.

Each daemon is a process of its own that runs the command's `main` from its beginning, with its own stdin, stdout and
stderr. It is born before any thread, event loop or channel exists. That takes a third of the time of a new
interpreter, most of which goes into imports.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # prctl(2)


class Child:
    """One daemon."""

    def __init__(self, pid: int, ending: asyncio.Future[int]) -> None:
        self.pid = pid
        self._ending = ending

    def kill(self) -> None:
        """SIGKILL; harmless when it has ended."""
        if not self._ending.done():
            os.kill(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Its exit code; -9 if it was killed."""
        return await asyncio.shield(self._ending)


class Nursery:
    """At most one daemon at a time, all with the same configuration and log."""

    def __init__(self, process: asyncio.subprocess.Process, config: Path, log: Path) -> None:
        self._process = process
        self._order = json.dumps([str(config), str(log)]).encode() + b"\n"

    async def launch(self) -> Child:
        """Returns when the process is there, which is long before it serves."""
        assert self._process.stdin is not None
        self._process.stdin.write(self._order)
        return Child(await self._read(), asyncio.ensure_future(self._read()))

    async def _read(self) -> int:
        assert self._process.stdout is not None
        return int(await self._process.stdout.readline())


@contextlib.asynccontextmanager
async def open_nursery(config: Path, log: Path) -> AsyncIterator[Nursery]:
    """A daemon that still lives when it is closed is killed."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.nursery", stdin=pipe, stdout=pipe)
    try:
        yield Nursery(process, config, log)
    finally:
        process.kill()
        await process.wait()


def _die_with_the_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _serve() -> None:
    """The nursery itself: for each line of stdin a daemon; its process id on stdout, then its exit code."""
    import holdpay.app  # noqa: F401 - what the daemon imports when it starts
    from holdpay.cli.daemon import main

    _die_with_the_parent()
    for line in sys.stdin:
        config, log = json.loads(line)
        pid = os.fork()
        if not pid:
            _die_with_the_parent()
            _take_stdio(log)
            sys.argv = ["holdpayd", "--config", config]
            os._exit(_run(main))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _take_stdio(log: str) -> None:
    null, output = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    for descriptor, number in ((null, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, number)


def _run(main: Callable[[], None]) -> int:
    try:
        main()
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 - as the interpreter does at the end of a program
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _serve()
