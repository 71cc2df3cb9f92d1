"""The one scheduler of all questions about orders: a heap of what becomes due, a heap of what is due, the most valuable
first.

An order has one question at a time (``core.asking``). It waits until it is due, then for a slot in the provider's
budget, and only when the slot is there it is decided whose it is. What the provider knows for sure, or owes, has a lane
of its own in that budget: what only looks never delays it. Those that look together keep to one question for each order
in ``HABIT_S``. Times of waiting are the event loop's, so that a wall clock that is set moves none of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

import structlog

from holdpay.core.asking import Learned, Question, hinted_question, is_owed, next_question
from holdpay.core.model import Order
from holdpay.core.policy import Policy
from holdpay.errors import ProviderError, ProviderUnavailable
from holdpay.ports import Clock, Lane, Slot

HABIT_S = 5.0
"""The provider's other clients ask once in so many seconds about each order."""
LOOKS_AT_LEAST_PER_S = 2.0
"""However few orders are open: a person with one should not wait."""
LOOKS_AT_ONCE = 5
"""After a silence."""
WEIGHED_AT_ONCE = 100
"""Questions that fall due in one turn of the event loop, some milliseconds. After a start all do."""
PROVIDER_RETRY_S = (2, 4, 8, 15, 30, 60)
"""Between two questions about one order while the provider does not answer."""
AGAIN_AFTER_S = 30.0
"""After a defect of ours at a question."""
JITTER = 0.1
"""Questions come late by up to this fraction of their wait, so that orders do not march in step."""

log = structlog.get_logger(__name__)


class Asked(Protocol):
    """What the scheduler needs of the engine."""

    def is_watched(self, order: Order) -> bool:
        """Whether a client follows its request now."""
        ...

    def is_told(self, order: Order) -> bool:
        """Whether the provider hints at news of the order by itself."""
        ...


@dataclass(slots=True)
class _Entry:
    """One order that is asked about. ``version``: of its place in the heaps; older places count for nothing.
    ``asked_at_ms``: when the latest question was asked that the provider answered."""

    order: Order
    version: int = 0
    asking_at_ms: int = 0
    asked_at_ms: int | None = None
    is_out: bool = False
    is_hinted: bool = False
    failures: int = 0
    failing: str = ""
    not_before_s: float = 0.0


@dataclass(slots=True)
class _Queue:
    """Of one lane. Both heaps: time on the event loop, then arrival; ``due`` with what the question's patience adds."""

    lane: Lane
    waiting: list[tuple[float, int, str, int]] = field(default_factory=list)
    due: list[tuple[float, int, str, int]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Asker:
    """Knows which orders are asked about, and begins each question in its slot. Used on the event loop."""

    def __init__(
        self,
        engine: Asked,
        *,
        begin: Callable[[str], asyncio.Task[None] | None],
        slot: Callable[[Lane], Coroutine[None, None, Slot]],
        policy: Policy,
        clock: Clock,
        rng: Random,
    ) -> None:
        """``begin``: starts to ask about an order; None: not now. ``slot``: waits for one in the provider's budget."""
        self._engine = engine
        self._begin = begin
        self._slot = slot
        self._policy = policy
        self._clock = clock
        self._rng = rng
        self._entries: dict[str, _Entry] = {}
        self._queues = {lane: _Queue(lane) for lane in (Lane.NEWS, Lane.LOOK)}
        self._arrival = itertools.count()
        self._looked_s = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self.learned = Learned()

    # --- which orders -------------------------------------------------------------------------------------------------

    def want(self, order: Order) -> None:
        """The order is asked about from now on, as it is now."""
        entry = self._entries.get(order.id)
        if entry is None:
            entry = self._entries[order.id] = _Entry(order)
        elif entry.order is order:
            return
        else:
            if entry.order.number is None and order.number is not None:
                self.learned.number_came(order)
            if is_owed(order) != is_owed(entry.order):
                entry.not_before_s = 0.0
            entry.order = order
        self._plan(entry)

    def forget(self, order_id: str) -> None:
        """The order is asked about no more."""
        self._entries.pop(order_id, None)

    def look_again(self, order_id: str) -> None:
        """Somebody began to follow the order."""
        if entry := self._entries.get(order_id):
            self._plan(entry)

    def hint(self, order_id: str) -> None:
        """Somebody hints that the provider has news: it is asked at once, if it is asked at all now."""
        if entry := self._entries.get(order_id):
            entry.is_hinted = True
            self._plan(entry)

    def is_asked_about(self, order_id: str) -> bool:
        """Whether there will be another question about the order."""
        return order_id in self._entries

    # --- one question -------------------------------------------------------------------------------------------------

    def asking(self, order_id: str) -> None:
        """The provider is being asked: a hint from now on may be about something newer than its answer."""
        if entry := self._entries.get(order_id):
            entry.asking_at_ms = self._clock.now_ms()
            entry.is_hinted = False

    def answered(self, order_id: str, error: ProviderError | None) -> None:
        """What came of it. None: a reply."""
        entry = self._entries.get(order_id)
        if entry is None:
            return
        if not isinstance(error, ProviderUnavailable):
            entry.asked_at_ms = entry.asking_at_ms
        if error is None:
            entry.failures, entry.failing, entry.not_before_s = 0, "", 0.0
            return
        entry.failures += 1
        # What is owed waits in the budget for the end of a pause that the provider asked for, as the first.
        if not (_names_pause(error) and is_owed(entry.order)):
            wait_s = PROVIDER_RETRY_S[min(entry.failures, len(PROVIDER_RETRY_S)) - 1]
            entry.not_before_s = asyncio.get_running_loop().time() + wait_s

    def is_new_failure(self, order_id: str, text: str) -> bool:
        """Whether the provider did not fail so before, since it last answered about the order."""
        entry = self._entries.get(order_id)
        if entry is None or entry.failing == text:
            return False
        entry.failing = text
        return True

    def _question(self, entry: _Entry) -> Question:
        now_ms = self._clock.now_ms()
        question = next_question(
            entry.order,
            entry.asked_at_ms,
            self._policy,
            now_ms,
            learned=self.learned,
            is_watched=self._engine.is_watched(entry.order),
            is_told=self._engine.is_told(entry.order),
        )
        hinted = hinted_question(entry.asked_at_ms, now_ms) if entry.is_hinted else question
        return hinted if hinted.at_ms < question.at_ms else question

    # --- the heaps ----------------------------------------------------------------------------------------------------

    def _plan(self, entry: _Entry) -> None:
        entry.version += 1
        if not entry.is_out:
            self._place(entry, self._question(entry))

    def _place(self, entry: _Entry, question: Question) -> None:
        now_s = asyncio.get_running_loop().time()
        wait_s = (question.at_ms - self._clock.now_ms()) / 1000
        if not question.is_news and wait_s > 0:
            wait_s *= self._rng.uniform(1, 1 + JITTER)
        queue = self._queues[Lane.NEWS if question.is_news else Lane.LOOK]
        at_s = max(now_s + wait_s, entry.not_before_s)
        heapq.heappush(queue.waiting, (at_s, next(self._arrival), entry.order.id, entry.version))
        if queue.waiting[0][2] == entry.order.id:
            queue.changed.set()

    def _current(self, order_id: str, version: int) -> _Entry | None:
        entry = self._entries.get(order_id)
        return entry if entry is not None and entry.version == version and not entry.is_out else None

    def _fall_due(self, queue: _Queue) -> bool:
        """What has waited long enough, by the wall clock as it is now, is due. Whether that may be more than could be
        weighed at once."""
        now_s = asyncio.get_running_loop().time()
        for _ in range(WEIGHED_AT_ONCE):
            if not queue.waiting or queue.waiting[0][0] > now_s:
                return False
            at_s, arrival, order_id, version = heapq.heappop(queue.waiting)
            entry = self._current(order_id, version)
            if entry is None:
                continue
            question = self._question(entry)
            if question.at_ms > self._clock.now_ms() or question.is_news != (queue.lane is Lane.NEWS):
                self._plan(entry)
            else:
                heapq.heappush(queue.due, (at_s + question.patience_s, arrival, order_id, version))
        return True

    def _next_due(self, queue: _Queue) -> _Entry | None:
        while queue.due:
            _, _, order_id, version = queue.due[0]
            if entry := self._current(order_id, version):
                return entry
            heapq.heappop(queue.due)
        return None

    # --- slots --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Asks from now on."""
        self._tasks = [
            asyncio.create_task(self._serve(queue), name=f"ask {lane.name}") for lane, queue in self._queues.items()
        ]

    async def close(self) -> None:
        """Asks no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, queue: _Queue) -> None:
        while True:
            try:
                await self._serve_next(queue)
            except Exception as error:
                log.error("asking the provider failed; it goes on", exc_info=error)
                await self._clock.sleep(AGAIN_AFTER_S)

    async def _serve_next(self, queue: _Queue) -> None:
        queue.changed.clear()
        while self._fall_due(queue):
            await self._clock.sleep(0)
        now_s = asyncio.get_running_loop().time()
        if self._next_due(queue) is None:
            await _until(queue.changed, queue.waiting[0][0] - now_s if queue.waiting else None)
            return
        look_s = self._look_at_s() - now_s
        if queue.lane is Lane.LOOK and look_s > 0:
            await self._clock.sleep(look_s)
            return
        slot = await self._slot(queue.lane)
        self._fall_due(queue)
        entry = self._next_due(queue)
        if entry is None:
            slot.give_back()
            return
        heapq.heappop(queue.due)
        if queue.lane is Lane.LOOK:
            self._looked_s = max(self._looked_s, now_s) + 1 / self._looks_per_s
        self._ask(entry, slot)

    @property
    def _looks_per_s(self) -> float:
        return max(LOOKS_AT_LEAST_PER_S, len(self._entries) / HABIT_S)

    def _look_at_s(self) -> float:
        """When the next question that only looks may go. ``_looked_s``: when all so far would have gone one by one."""
        return self._looked_s - (LOOKS_AT_ONCE - 1) / self._looks_per_s

    def _ask(self, entry: _Entry, slot: Slot) -> None:
        order_id = entry.order.id
        task = self._begin(order_id)
        if task is None:
            slot.give_back()
            entry.not_before_s = asyncio.get_running_loop().time() + AGAIN_AFTER_S
            self._plan(entry)
            return
        entry.is_out = True
        task.add_done_callback(lambda _: self._ended(entry, slot))

    def _ended(self, entry: _Entry, slot: Slot) -> None:
        slot.done()
        entry.is_out = False
        if self._entries.get(entry.order.id) is entry:
            self._plan(entry)

    # --- what people ask ----------------------------------------------------------------------------------------------

    def due_count(self) -> int:
        """Questions that are due and wait for a slot. May count some that are due no more, and not yet all right after
        a start."""
        for queue in self._queues.values():
            self._fall_due(queue)
        return sum(len(queue.due) for queue in self._queues.values())

    def delay_s(self, requests_per_s: float) -> float:
        """About how long a question that falls due now waits, with so many requests a second (0: no limit)."""
        return self.due_count() / min(self._looks_per_s, requests_per_s or self._looks_per_s)


async def _until(changed: asyncio.Event, wait_s: float | None) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None if wait_s is None else max(wait_s, 0)):
            await changed.wait()


def _names_pause(error: ProviderError) -> bool:
    """Whether the budget lets nothing through for so long that asking again is no hot loop."""
    return isinstance(error, ProviderUnavailable) and (error.retry_after_s or 0) >= PROVIDER_RETRY_S[0]
