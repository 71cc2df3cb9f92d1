"""Virtual time: actions on a heap of (time, sequence)."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random

START_MS = 1_800_000_000_000


class Heap:
    """Runs actions in the order of their times; equal times in the order of their making."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self._now_ms = START_MS
        self._heap: list[tuple[int, int, Callable[[], object]]] = []
        self._sequence = 0
        self.tell: Callable[[str], None] = lambda line: None
        """Takes what the parties do, for the story of a seed."""

    @property
    def now_ms(self) -> int:
        return self._now_ms

    def at(self, time_ms: int, action: Callable[[], object]) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (max(time_ms, self.now_ms), self._sequence, action))

    def after(self, delay_ms: int, action: Callable[[], object]) -> None:
        self.at(self.now_ms + delay_ms, action)

    def lagged(self, lag_ms: int, action: Callable[[], object]) -> None:
        """After up to ``lag_ms``, so that two parties overtake each other."""
        self.after(self.rng.randrange(lag_ms + 1), action)

    def run(self, until_ms: int, is_done: Callable[[], bool]) -> None:
        """Stops at the time, when nothing is left, or when ``is_done``."""
        while self._heap and self._heap[0][0] <= until_ms and not is_done():
            time_ms, _, action = heapq.heappop(self._heap)
            self._now_ms = time_ms
            action()
