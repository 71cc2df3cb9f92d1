"""Time for tests: moved by hand, or skipped."""

from __future__ import annotations

import asyncio
import heapq
import itertools

START_S = 1_790_000_000.0


class ManualClock:
    """The product's Clock and the sandbox's; nobody wakes before ``advance``."""

    pace = 1.0

    def __init__(self) -> None:
        self._now_s = START_S
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = itertools.count()

    def now_s(self) -> float:
        return self._now_s

    def now_ms(self) -> int:
        return round(self._now_s * 1000)

    def wall_ahead_ms(self) -> int:
        return 0

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_s + seconds, next(self._count), future))
        await future

    async def sleep_s(self, seconds: float) -> None:
        await self.sleep(seconds)

    async def advance(self, seconds: float) -> None:
        """Wakes everybody who is due, in order, and lets them run until all wait again."""
        until_s = self._now_s + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= until_s + 1e-9:
            due_s, _, future = heapq.heappop(self._sleepers)
            self._now_s = max(self._now_s, due_s)
            if not future.done():
                future.set_result(None)
                await settle()
        self._now_s = until_s
        await settle()

    def set_back(self, seconds: float) -> None:
        """The machine's clock was wrong."""
        self._now_s -= seconds


class SkippingClock(ManualClock):
    """Sleeping takes no time; ``slept_s`` tells how long it would have taken each time."""

    def __init__(self) -> None:
        super().__init__()
        self.slept_s: list[float] = []

    def wall_ahead_ms(self) -> int:
        return 0

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self._now_s += seconds
        await asyncio.sleep(0)


async def settle() -> None:
    """Lets every task run until it waits for something else than the others."""
    for _ in range(25):
        await asyncio.sleep(0)
