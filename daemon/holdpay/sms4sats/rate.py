"""One budget for all requests to the provider."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections import deque
from types import TracebackType

from holdpay.ports import Clock, Lane

BURST_S = 1.0
"""After a silence as many requests may go at once as would have gone in this time, ``MIN_BURST`` at least; but not once
the provider has said that it was too much."""
MIN_BURST = 5
LEAST_PER_S = 0.5
"""However much trouble there is: so often the provider is asked whether it is over."""
FASTER_PER_S = 1.0
"""For each second without trouble so many more requests a second, up to what went well before."""
BEYOND_PER_S = 0.02
"""For each second after that: whether more goes well by now is tried out, but seldom."""
RECENT_S = 2.0
"""What was sent in this time is what trouble comes of."""
HALVED_ONCE_IN_S = 2.0
"""All answers of one bad moment halve the rate once."""
OLDEST_FIRST_EVERY = 4
"""Of so many slots one goes to who has waited longest, however urgent the others are: nobody starves."""

_Waiting = tuple[int, int, "asyncio.Future[Slot]"]
"""Lane, arrival, and what it waits for."""


class Slot:
    """Room for one request, until it has ended. A context manager."""

    def __init__(self, limiter: RateLimiter, *, is_probe: bool) -> None:
        self._limiter = limiter
        self._is_probe = is_probe

    def done(self) -> None:
        """The request has ended. Once is enough, more does no harm."""
        if self._is_probe:
            self._is_probe = False
            self._limiter.probe_ended()

    def give_back(self) -> None:
        """No request was made."""
        self._limiter.given_back(was_probe=self._is_probe)
        self.done()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.done()


class RateLimiter:
    """Hands out slots: by lane, then who came first, at most ``requests_per_s``; 0 means no limit.

    The rate is halved when the provider has trouble (``trouble``) and grows again by and by (``fine``). A pause that
    the provider asked for holds up everybody. After a pause the most urgent request goes alone, as a probe; the others
    resume when it has ended, unless it brought the next pause. The accounting is GCRA: ``_due_ms`` is when all slots
    handed out so far would have come one by one.
    """

    def __init__(self, clock: Clock, requests_per_s: float) -> None:
        if requests_per_s < 0:
            raise ValueError("a rate is 0 or more requests a second")
        self._clock = clock
        self._max_per_s = requests_per_s
        self._per_s = requests_per_s
        self._due_ms = 0.0
        self._pause_ms = 0.0
        self._pause_until_ms = 0.0
        self._waiting: list[_Waiting] = []
        self._must_probe = False
        self._probe_is_out = False
        self._resume = asyncio.Event()
        self._arrival = itertools.count()
        self._granted = itertools.count(1)
        self._judged_ms = 0
        self._halved_ms = -math.inf
        self._went_well_per_s = requests_per_s
        self._sent_ms: deque[float] = deque()
        self._server: asyncio.Task[None] | None = None

    # --- how fast -----------------------------------------------------------------------------------------------------

    @property
    def per_s(self) -> float:
        """Requests a second now; 0: no limit."""
        return self._per_s

    def trouble(self) -> None:
        """The provider answered slowly, with 5xx, or not at all."""
        if self._is_new_trouble():
            self._per_s = self._half_of(self._per_s)

    def too_many(self) -> None:
        """The provider said so: what was really sent, which may be far below the rate, was too much."""
        if self._is_new_trouble():
            too_much_per_s = min(self._per_s, self._recent_per_s(self._clock.now_ms()))
            self._went_well_per_s = too_much_per_s * 0.9
            self._per_s = self._half_of(too_much_per_s)

    def _is_new_trouble(self) -> bool:
        now_ms = self._clock.now_ms()
        self._judged_ms = now_ms
        if 0 <= now_ms - self._halved_ms < HALVED_ONCE_IN_S * 1000:
            return False
        self._halved_ms = now_ms
        return True

    def _half_of(self, per_s: float) -> float:
        return min(self._max_per_s, max(LEAST_PER_S, per_s / 2))

    def _recent_per_s(self, now_ms: float) -> float:
        while self._sent_ms and not 0 <= now_ms - self._sent_ms[0] <= RECENT_S * 1000:
            self._sent_ms.popleft()
        return len(self._sent_ms) / RECENT_S

    def fine(self) -> None:
        """The provider answered as it should."""
        now_ms = self._clock.now_ms()
        faster_per_s = FASTER_PER_S if self._per_s < self._went_well_per_s else BEYOND_PER_S
        grown = faster_per_s * min(max(now_ms - self._judged_ms, 0) / 1000, 1)
        self._judged_ms = now_ms
        self._per_s = min(self._max_per_s, self._per_s + grown)

    @property
    def _interval_ms(self) -> float:
        return 1000 / self._per_s if self._per_s else 0.0

    @property
    def _burst(self) -> float:
        least = MIN_BURST if self._went_well_per_s >= self._max_per_s else 1
        return max(least, self._per_s * BURST_S)

    # --- pauses -------------------------------------------------------------------------------------------------------

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

    @property
    def _is_held(self) -> bool:
        return self.pause_left_s > 0 or self._must_probe or self._probe_is_out

    def probe_ended(self) -> None:
        """The request that went alone has ended."""
        self._probe_is_out = False
        self._resume.set()

    # --- slots --------------------------------------------------------------------------------------------------------

    async def slot(self, lane: Lane) -> Slot:
        """Waits for a slot; one that was given to a task canceled at that moment goes back."""
        if not self._is_held and not self._waiting and not self._wait_s():
            return self._taken(is_probe=False)
        slot: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (lane.value, next(self._arrival), slot))
        if self._server is None or self._server.done():
            self._server = asyncio.create_task(self._serve(), name="provider rate")
        try:
            return await slot
        except asyncio.CancelledError:
            if slot.done() and not slot.cancelled():
                slot.result().give_back()
            raise

    def given_back(self, *, was_probe: bool) -> None:
        """A slot that was handed out made no request."""
        self._due_ms -= self._interval_ms
        self._must_probe = self._must_probe or was_probe

    async def aclose(self) -> None:
        """Ends the task behind the slots; whoever still waits for one must be canceled by its owner."""
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
            elif wait_s := self._wait_s():
                await self._clock.sleep(wait_s)
            else:
                self._grant(self._next(), is_probe=False)

    def _next(self) -> _Waiting:
        if next(self._granted) % OLDEST_FIRST_EVERY:
            return heapq.heappop(self._waiting)
        oldest = min(self._waiting, key=lambda waiting: waiting[1])
        self._waiting.remove(oldest)
        heapq.heapify(self._waiting)
        return oldest

    def _grant(self, waiting: _Waiting, *, is_probe: bool) -> bool:
        slot = waiting[2]
        if slot.done():
            return False
        slot.set_result(self._taken(is_probe=is_probe))
        return True

    def _wait_s(self) -> float:
        now_ms = self._clock.now_ms()
        # Never further ahead than a whole burst, also when the wall clock was set back.
        self._due_ms = min(self._due_ms, now_ms + self._burst * self._interval_ms)
        wait_ms = math.ceil(self._due_ms - (self._burst - 1) * self._interval_ms - now_ms)
        return max(wait_ms / 1000, 0.0)

    def _taken(self, *, is_probe: bool) -> Slot:
        now_ms = self._clock.now_ms()
        self._recent_per_s(now_ms)
        self._sent_ms.append(now_ms)
        self._due_ms = max(self._due_ms, now_ms) + self._interval_ms
        return Slot(self, is_probe=is_probe)
