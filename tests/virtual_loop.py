"""An event loop on virtual time: waiting takes no time, a hot loop and a deadlock are errors.

``VirtualLoop`` is asyncio's own selector loop with a selector that never blocks: when nothing is ready it moves the
clock to the next timer. Everything that waits through the loop (``asyncio.sleep``, ``timeout``, ``wait``, ``Event``)
works unchanged, in an order that is the same in each run. There are no threads and no real sockets in it.

Under pytest-asyncio a folder's conftest.py puts its tests on it::

    def pytest_asyncio_loop_factories(config, item):
        return {"virtual": VirtualLoop}

and elsewhere: ``asyncio.Runner(loop_factory=VirtualLoop).run(...)``.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from typing import Final

_NS: Final = 1_000_000_000
MAX_TURNS: Final = 50_000
"""Turns of the loop without any time going by that are still taken for work."""


class HotLoop(RuntimeError):
    """Something runs for ever without waiting."""


class Deadlock(RuntimeError):
    """Everybody waits for something that can no longer happen."""


class _VirtualSelector(selectors.SelectSelector):
    def __init__(self, most_turns: float) -> None:
        super().__init__()
        self.now_ns = 0
        self._turns = 0
        self._all_turns = 0
        self._most_turns = most_turns

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock("no task is ready and no timer is set")
        if timeout > 0:
            self.now_ns += math.ceil(timeout * _NS)
            self._turns = 0
        self._turns += 1
        self._all_turns += 1
        if self._all_turns > self._most_turns:
            self._most_turns = math.inf
            raise HotLoop(f"{self._all_turns} turns of the loop up to {self.now_ns / _NS:.3f} s")
        if self._turns > MAX_TURNS:
            self._turns = 0
            raise HotLoop(f"{MAX_TURNS} turns of the loop at {self.now_ns / _NS:.3f} s")
        # Nothing ever comes from outside, so nobody needs to look.
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Begins at 0 s. ``most_turns``: that it may make in all. What is done again and again for days is hot, too."""

    def __init__(self, most_turns: float = math.inf) -> None:
        self._virtual = _VirtualSelector(most_turns)
        super().__init__(self._virtual)
        # Less than a tick, so that no timer is early; and not 0, or a timer due at this very instant would never fire.
        self._clock_resolution = 0.5 / _NS

    def time(self) -> float:
        return self._virtual.now_ns / _NS

    @property
    def now_ms(self) -> int:
        """Whole milliseconds since the loop was made."""
        return self._virtual.now_ns * 1000 // _NS
