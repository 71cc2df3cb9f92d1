"""One request rate for the polls of all orders."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math

from holdpay.ports import Clock, Urgency


class RateLimiter:
    """Hands out turns: the most urgent first, then who came first, at ``requests_per_s`` after a burst of ``burst``.

    ``requests_per_s`` 0 means no limit. A pause that the provider asked for holds up everybody in either case.
    The accounting is GCRA: ``_due_ms`` is when all turns handed out so far would have come one by one.
    """

    def __init__(self, clock: Clock, requests_per_s: float, burst: int) -> None:
        if requests_per_s < 0 or burst < 1:
            raise ValueError("a rate is 0 or more requests a second, a burst 1 request or more")
        self._clock = clock
        self._interval_ms = 1000 / requests_per_s if requests_per_s else 0.0
        self._burst = burst
        self._due_ms = 0.0
        self._pause_ms = 0.0
        self._pause_until_ms = 0.0
        self._waiting: list[tuple[str, int, asyncio.Future[None]]] = []
        self._arrival = itertools.count()
        self._server: asyncio.Task[None] | None = None

    @property
    def pause_left_s(self) -> float:
        """How long the provider still wants to be left alone."""
        now_ms = self._clock.now_ms()
        # A wall clock that was set back must not make the pause longer than it was.
        self._pause_until_ms = min(self._pause_until_ms, now_ms + self._pause_ms)
        return max(0.0, self._pause_until_ms - now_ms) / 1000

    def pause(self, seconds: float) -> None:
        """Nobody sends anything for this long. A shorter pause does not end a longer one."""
        if seconds > self.pause_left_s:
            self._pause_ms = seconds * 1000
            self._pause_until_ms = self._clock.now_ms() + self._pause_ms

    async def unpaused(self) -> None:
        """Waits for the end of a pause, not for a turn."""
        while (left_s := self.pause_left_s) > 0:
            await self._clock.sleep(left_s)

    async def turn(self, urgency: Urgency) -> None:
        """Waits for a turn. One that was given to a task canceled at that moment goes back."""
        if not self._waiting and not self._wait_s():
            self._take()
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (urgency.value, next(self._arrival), turn))
        if self._server is None or self._server.done():
            self._server = asyncio.create_task(self._serve(), name="provider rate")
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._due_ms -= self._interval_ms
            raise

    async def aclose(self) -> None:
        """Ends the task behind the turns; whoever still waits for one must be canceled by its owner."""
        if self._server is not None:
            self._server.cancel()
            await asyncio.wait([self._server])

    async def _serve(self) -> None:
        while self._waiting:
            if wait_s := self._wait_s():
                await self._clock.sleep(wait_s)
                continue
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self._take()
                turn.set_result(None)

    def _wait_s(self) -> float:
        now_ms = self._clock.now_ms()
        # Never further ahead than a whole burst, also when the wall clock was set back.
        self._due_ms = min(self._due_ms, now_ms + self._burst * self._interval_ms)
        wait_ms = math.ceil(self._due_ms - (self._burst - 1) * self._interval_ms - now_ms)
        return max(wait_ms / 1000, self.pause_left_s, 0.0)

    def _take(self) -> None:
        self._due_ms = max(self._due_ms, self._clock.now_ms()) + self._interval_ms
