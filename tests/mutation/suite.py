"""The chosen tests: collected once by pytest, then run in forked children, each as if nothing had run before."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import hypothesis
import pytest
from _pytest.runner import runtestprotocol

Line = tuple[str, int]

PATIENCE = 5
"""A mutant is given up in a test after this many times what the test takes without one, and then …"""
PATIENCE_S = 2.0
"""… of the processor's time, which other programs do not take from it; or …"""
ASLEEP_S = 20.0
"""… in which it may sleep."""


@dataclass(slots=True)
class Record:
    """What the tests do without a mutant. ``lines`` by test; ``imported``: what ran at import."""

    lines: dict[int, frozenset[Line]] = field(default_factory=dict)
    imported: frozenset[Line] = frozenset()
    took_s: dict[int, float] = field(default_factory=dict)
    failed: list[int] = field(default_factory=list)


class Tracer:
    """Which lines of some files run, in every thread."""

    def __init__(self, files: Iterable[str]) -> None:
        self._files = frozenset(files)
        self.lines: set[Line] = set()

    def __enter__(self) -> Tracer:
        threading.settrace(self._call)
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        sys.settrace(None)
        threading.settrace(None)

    def _call(self, frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:
        self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line


class Plugin:
    """Hands the collected tests over instead of running them."""

    def __init__(self, work: Callable[[Sequence[pytest.Item]], None]) -> None:
        self._work = work

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self) -> None:
        hypothesis.settings.register_profile(
            "mutation",
            derandomize=True,
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        hypothesis.settings.load_profile("mutation")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if not session.testsfailed:
            self._work(session.items)
        return True


def collect(paths: Sequence[str], work: Callable[[Sequence[pytest.Item]], None]) -> int:
    """Has pytest collect the tests, and works with them. Returns pytest's exit code."""
    options = ["-m", "not real", "-q", "-s", "-o", "addopts=", "--tb=line", "-p", "no:cacheprovider"]
    return int(pytest.main([*options, "--no-header", *paths], plugins=[Plugin(work)]))


def passes(item: pytest.Item, following: pytest.Item | None) -> bool:
    return not any(report.failed for report in runtestprotocol(item, log=False, nextitem=following))


def run_all(items: Sequence[pytest.Item], order: Sequence[int], tracer: Tracer | None = None) -> Record:
    """Every test, in this process."""
    record = Record()
    for index, following in _pairs(order):
        begun_s = time.monotonic()
        if tracer is not None:
            tracer.lines = set()
        if not passes(items[index], None if following is None else items[following]):
            record.failed.append(index)
        record.took_s[index] = time.monotonic() - begun_s
        if tracer is not None:
            record.lines[index] = frozenset(tracer.lines)
    return record


def first_failure(items: Sequence[pytest.Item], order: Sequence[int], took_s: dict[int, float]) -> int | None:
    """Stops at the first test that fails. A test that takes far too long ends the process by SIGPROF or SIGALRM."""
    for index, following in _pairs(order):
        signal.setitimer(signal.ITIMER_PROF, PATIENCE * took_s[index] + PATIENCE_S)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE * took_s[index] + ASLEEP_S)
        if not passes(items[index], None if following is None else items[following]):
            return index
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return None


def _pairs(order: Sequence[int]) -> Iterator[tuple[int, int | None]]:
    yield from zip(order, [*order[1:], None], strict=False)
