"""One request rate for the polls of all orders."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from holdpay.ports import Clock, Urgency

_Waiting = tuple[str, int, bool, "asyncio.Future[bool]"]
"""Urgency, arrival, whether it counts for the rate, and what it waits for."""


class RateLimiter:
    """Hands out turns: the most urgent first, then who came first, at ``requests_per_s`` after a burst of ``burst``.

    ``requests_per_s`` 0 means no limit. A pause that the provider asked for holds up everybody in either case.
    After a pause the most urgent request goes alone, as a probe; the others resume when it has ended, unless it brought
    the next pause. The accounting is GCRA: ``_due_ms`` is when all turns handed out so far would have come one by one.
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
        self._waiting: list[_Waiting] = []
        self._must_probe = False
        self._probe_is_out = False
        self._resume = asyncio.Event()
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
            self._must_probe = True

    @asynccontextmanager
    async def turn(self, urgency: Urgency, *, is_counted: bool = True) -> AsyncIterator[None]:
        """Waits for a turn; the request is made inside. ``is_counted`` False: waits for a pause, not for the rate."""
        is_probe = await self._wait(urgency, is_counted)
        try:
            yield
        finally:
            if is_probe:
                self._probe_ended()

    async def _wait(self, urgency: Urgency, is_counted: bool) -> bool:
        """Returns whether the turn is the probe. One that was given to a task canceled at that moment goes back."""
        if not self._is_held and (not is_counted or not (self._waiting or self._wait_s())):
            self._take(is_counted)
            return False
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (urgency.value, next(self._arrival), is_counted, turn))
        if self._server is None or self._server.done():
            self._server = asyncio.create_task(self._serve(), name="provider rate")
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._due_ms -= self._interval_ms if is_counted else 0
                if turn.result():
                    self._must_probe = True
                    self._probe_ended()
            raise

    @property
    def _is_held(self) -> bool:
        return self.pause_left_s > 0 or self._must_probe or self._probe_is_out

    def _probe_ended(self) -> None:
        self._probe_is_out = False
        self._resume.set()

    async def aclose(self) -> None:
        """Ends the task behind the turns; whoever still waits for one must be canceled by its owner."""
        if self._server is not None:
            self._server.cancel()
            await asyncio.wait([self._server])

    async def _serve(self) -> None:
        while self._waiting:
            if left_s := self.pause_left_s:
                await self._clock.sleep(left_s)
            elif self._probe_is_out:
                self._resume.clear()
                await self._resume.wait()
            elif self._must_probe:
                if self._grant(heapq.heappop(self._waiting), is_probe=True):
                    self._must_probe, self._probe_is_out = False, True
            elif free := next((waiting for waiting in sorted(self._waiting) if not waiting[2]), None):
                self._waiting.remove(free)
                heapq.heapify(self._waiting)
                self._grant(free)
            elif wait_s := self._wait_s():
                await self._clock.sleep(wait_s)
            else:
                self._grant(heapq.heappop(self._waiting))

    def _grant(self, waiting: _Waiting, *, is_probe: bool = False) -> bool:
        _, _, is_counted, turn = waiting
        if turn.done():
            return False
        self._take(is_counted)
        turn.set_result(is_probe)
        return True

    def _wait_s(self) -> float:
        now_ms = self._clock.now_ms()
        # Never further ahead than a whole burst, also when the wall clock was set back.
        self._due_ms = min(self._due_ms, now_ms + self._burst * self._interval_ms)
        wait_ms = math.ceil(self._due_ms - (self._burst - 1) * self._interval_ms - now_ms)
        return max(wait_ms / 1000, 0.0)

    def _take(self, is_counted: bool) -> None:
        if is_counted:
            self._due_ms = max(self._due_ms, self._clock.now_ms()) + self._interval_ms
