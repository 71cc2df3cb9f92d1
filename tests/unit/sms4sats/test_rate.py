from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from holdpay.ports import Urgency
from holdpay.sms4sats.rate import RateLimiter
from tests.unit.sms4sats.clock import ManualClock, settle

HELD, CODE, REFUND = Urgency.HELD_WITHOUT_NUMBER, Urgency.AWAITING_CODE, Urgency.REFUND


class Queue:
    """Tasks that want a turn, and the names of those that got one."""

    def __init__(self, limiter: RateLimiter) -> None:
        self.limiter = limiter
        self.served: list[str] = []
        self.answer = asyncio.Event()
        self.answer.set()
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def want(self, *names: str, urgency: Urgency = CODE) -> None:
        for name in names:
            self.tasks[name] = asyncio.create_task(self._take(name, urgency))
        await settle()

    async def _take(self, name: str, urgency: Urgency) -> None:
        async with self.limiter.turn(urgency):
            self.served.append(name)
            await self.answer.wait()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest_asyncio.fixture
async def queue_at(clock: ManualClock) -> AsyncIterator[Callable[[float, int], Queue]]:
    queues: list[Queue] = []

    def make(requests_per_s: float, burst: int) -> Queue:
        queues.append(Queue(RateLimiter(clock, requests_per_s, burst)))
        return queues[-1]

    yield make
    for queue in queues:
        for task in queue.tasks.values():
            task.cancel()
        await queue.limiter.aclose()


QueueAt = Callable[[float, int], Queue]


async def test_a_burst_goes_at_once_and_the_rest_at_the_rate(clock: ManualClock, queue_at: QueueAt) -> None:
    queue = queue_at(2, 3)
    await queue.want(*"abcdef")
    assert queue.served == ["a", "b", "c"]
    await clock.advance(0.499)
    assert queue.served == ["a", "b", "c"]
    await clock.advance(0.002)
    assert queue.served == ["a", "b", "c", "d"]
    await clock.advance(1.0)
    assert queue.served == list("abcdef")


async def test_a_burst_is_possible_again_after_a_rest(clock: ManualClock, queue_at: QueueAt) -> None:
    queue = queue_at(2, 3)
    await queue.want(*"abc")
    await clock.advance(60)
    await queue.want(*"defg")
    assert queue.served == list("abcdef")


async def test_over_a_long_time_the_rate_is_kept(clock: ManualClock, queue_at: QueueAt) -> None:
    queue = queue_at(2, 5)
    await queue.want(*(str(number) for number in range(200)))
    await clock.advance(50)
    assert len(queue.served) == 5 + 2 * 50


async def test_the_most_urgent_goes_first_then_who_came_first(clock: ManualClock, queue_at: QueueAt) -> None:
    queue = queue_at(1, 1)
    await queue.want("first")
    await queue.want("refund 1", "refund 2", urgency=REFUND)
    await queue.want("code 1", "code 2", urgency=CODE)
    await queue.want("held", urgency=HELD)
    await clock.advance(10)
    assert queue.served == ["first", "held", "code 1", "code 2", "refund 1", "refund 2"]


async def test_who_leaves_the_queue_costs_no_turn(clock: ManualClock, queue_at: QueueAt) -> None:
    queue = queue_at(1, 1)
    await queue.want("first", "leaves", "stays")
    queue.tasks["leaves"].cancel()
    await clock.advance(1.001)
    assert queue.served == ["first", "stays"]


async def test_a_turn_given_to_a_task_canceled_at_that_moment_goes_back(clock: ManualClock) -> None:
    limiter = RateLimiter(clock, 1, 1)
    await limiter._wait(CODE, True)
    late = asyncio.create_task(limiter._wait(CODE, True))
    next_one = asyncio.create_task(limiter._wait(CODE, True))
    await settle()
    turn = heapq.heappop(limiter._waiting)[3]
    limiter._take(True)
    turn.set_result(False)
    late.cancel()
    await clock.advance(0.999)
    assert (late.cancelled(), next_one.done()) == (True, False)
    await clock.advance(0.002)
    assert next_one.done()


async def test_a_rate_of_zero_is_no_limit_but_a_pause_still_holds(clock: ManualClock, queue_at: QueueAt) -> None:
    queue = queue_at(0, 1)
    await queue.want(*(str(number) for number in range(100)))
    assert len(queue.served) == 100
    queue.limiter.pause(5)
    await queue.want("later")
    await clock.advance(4.9)
    assert len(queue.served) == 100
    await clock.advance(0.2)
    assert len(queue.served) == 101


async def test_a_pause_holds_up_everybody_and_a_shorter_one_does_not_end_it(
    clock: ManualClock, queue_at: QueueAt
) -> None:
    queue = queue_at(2, 5)
    queue.limiter.pause(30)
    queue.limiter.pause(1)
    await queue.want("poll", urgency=HELD)
    other = asyncio.create_task(queue.limiter._wait(REFUND, False))
    await clock.advance(29)
    assert (queue.served, other.done(), queue.limiter.pause_left_s) == ([], False, 1.0)
    await clock.advance(1.1)
    assert (queue.served, other.done(), queue.limiter.pause_left_s) == (["poll"], True, 0.0)


async def test_a_wall_clock_that_is_set_back_stops_nobody_for_long(clock: ManualClock, queue_at: QueueAt) -> None:
    queue = queue_at(2, 2)
    await queue.want("a", "b")
    queue.limiter.pause(10)
    clock.set_back(3600)
    await queue.want("c")
    await clock.advance(9.9)
    assert queue.served == ["a", "b"]
    await clock.advance(0.2)
    assert queue.served == ["a", "b", "c"]


def test_a_rate_that_makes_no_sense_is_refused(clock: ManualClock) -> None:
    for requests_per_s, burst in ((-1, 1), (1, 0)):
        with pytest.raises(ValueError, match="rate"):
            RateLimiter(clock, requests_per_s, burst)


async def test_after_a_pause_the_most_urgent_goes_alone_and_the_rest_when_it_was_answered(
    clock: ManualClock, queue_at: QueueAt
) -> None:
    queue = queue_at(2, 5)
    queue.limiter.pause(30)
    queue.answer.clear()
    await queue.want("refund", urgency=REFUND)
    await queue.want("code", urgency=CODE)
    await queue.want("charged", urgency=Urgency.CHARGED)
    await clock.advance(40)
    assert queue.served == ["charged"]
    queue.answer.set()
    await clock.advance(0.1)
    assert queue.served == ["charged", "code", "refund"]


async def test_a_probe_that_brings_the_next_pause_lets_nobody_else_go(clock: ManualClock, queue_at: QueueAt) -> None:
    queue = queue_at(2, 5)
    queue.limiter.pause(30)
    queue.answer.clear()
    await queue.want("a", "b")
    await clock.advance(31)
    queue.limiter.pause(30)
    queue.answer.set()
    await clock.advance(29)
    assert queue.served == ["a"]
    await clock.advance(2)
    assert queue.served == ["a", "b"]


async def test_a_probe_whose_task_is_canceled_hands_the_probe_on(clock: ManualClock, queue_at: QueueAt) -> None:
    queue = queue_at(2, 5)
    queue.limiter.pause(30)
    queue.answer.clear()
    await queue.want("a", "b")
    await clock.advance(31)
    queue.tasks["a"].cancel()
    await clock.advance(0.1)
    assert queue.served == ["a", "b"]
