"""Forked children, a few at a time, each with a folder for temporary files that goes with it."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

MEMORY_BYTES = 6 << 30
"""A mutant may fill a list for ever."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: with a result, or by a signal."""

    result: Any
    signal: int | None


@dataclass(frozen=True, slots=True)
class Broken:
    """The driver's own work failed in a child."""

    text: str


class Children:
    """At most ``jobs`` forked children at a time."""

    def __init__(self, jobs: int, scratch: Path) -> None:
        self._jobs = jobs
        self._scratch = scratch
        self._running: dict[int, tuple[Path, Callable[[Ended], None]]] = {}
        self._count = 0

    def start(self, work: Callable[[], object], done: Callable[[Ended], None], *, is_quiet: bool = True) -> None:
        """Waits for a free place first. ``done`` is called in this process, in a later call."""
        while len(self._running) >= self._jobs:
            self._reap()
        self._count += 1
        folder = self._scratch / str(self._count)
        folder.mkdir()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _be_child(folder, work, is_quiet=is_quiet)
        self._running[pid] = folder, done

    def finish(self) -> None:
        while self._running:
            self._reap()

    def _reap(self) -> None:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        pid = ended.si_pid
        # What a test left behind goes with it, while its number is still its own.
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        folder, done = self._running.pop(pid)
        result = folder / "result"
        value = pickle.loads(result.read_bytes()) if result.exists() else None
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(value, Broken):
            raise SystemExit(f"scripts/mutate: {value.text}")
        done(Ended(value, os.WTERMSIG(status) if os.WIFSIGNALED(status) else None))


def _be_child(folder: Path, work: Callable[[], object], *, is_quiet: bool) -> NoReturn:
    try:
        os.setpgid(0, 0)
        if is_quiet:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
        tempfile.tempdir = str(folder)
        os.environ["TMPDIR"] = str(folder)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        result = work()
    except SystemExit as left:
        result = Broken(str(left))
    except BaseException:  # noqa: BLE001 - told by the parent
        result = Broken(traceback.format_exc())
    (folder / "result.new").write_bytes(pickle.dumps(result))
    (folder / "result.new").rename(folder / "result")
    os._exit(0)
