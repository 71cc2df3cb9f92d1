from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from unittest.mock import patch

import pytest
import pytest_asyncio

from holdpay.ports import Lane
from holdpay.sms4sats.rate import LEAST_PER_S, MIN_BURST, RateLimiter
from tests.unit.sms4sats.clock import ManualClock, settle


class Queue:
    """Tasks that want a turn, and the names of those that got one."""

    def __init__(self, limiter: RateLimiter) -> None:
        self.limiter = limiter
        self.served: list[str] = []
        self.answer = asyncio.Event()
        self.answer.set()
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def want(self, *names: str, lane: Lane = Lane.LOOK) -> None:
        for name in names:
            self.tasks[name] = asyncio.create_task(self._take(name, lane))
        await settle()

    async def use_burst(self) -> None:
        """As many at once as may go at once."""
        await self.want(*(f"burst {number}" for number in range(MIN_BURST)))
        self.served.clear()

    async def _take(self, name: str, lane: Lane) -> None:
        with await self.limiter.slot(lane):
            self.served.append(name)
            await self.answer.wait()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest_asyncio.fixture
async def queue_at(clock: ManualClock) -> AsyncIterator[Callable[[float], Queue]]:
    queues: list[Queue] = []

    def make(requests_per_s: float) -> Queue:
        queues.append(Queue(RateLimiter(clock, requests_per_s)))
        return queues[-1]

    yield make
    for queue in queues:
        for task in queue.tasks.values():
            task.cancel()
        await queue.limiter.aclose()


QueueAt = Callable[[float], Queue]


async def test_a_burst_goes_at_once_and_the_rest_at_the_rate(clock: ManualClock, queue_at: QueueAt) -> None:
    queue = queue_at(2)
    await queue.want(*"abcdefgh")
    assert queue.served == list("abcde")
    await clock.advance(0.499)
    assert queue.served == list("abcde")
    await clock.advance(0.002)
    assert queue.served == list("abcdef")
    await clock.advance(1.0)
    assert queue.served == list("abcdefgh")


async def test_a_burst_is_possible_again_after_a_rest(clock: ManualClock, queue_at: QueueAt) -> None:
    queue = queue_at(2)
    await queue.use_burst()
    await clock.advance(60)
    await queue.want(*"abcdef")
    assert queue.served == list("abcde")


async def test_over_a_long_time_the_rate_is_kept(clock: ManualClock, queue_at: QueueAt) -> None:
    queue = queue_at(2)
    await queue.want(*(str(number) for number in range(200)))
    await clock.advance(50)
    assert len(queue.served) == 5 + 2 * 50


async def test_at_a_high_rate_a_second_s_worth_may_go_at_once(queue_at: QueueAt) -> None:
    queue = queue_at(20)
    await queue.want(*(str(number) for number in range(50)))
    assert len(queue.served) == 20


async def test_lane_by_lane_then_who_came_first(clock: ManualClock, queue_at: QueueAt) -> None:
    queue = queue_at(1)
    await queue.use_burst()
    await queue.want("person", lane=Lane.PERSON)
    await queue.want("cancel", lane=Lane.CANCEL)
    await queue.want("news 1", "news 2", lane=Lane.NEWS)
    await clock.advance(3.01)
    assert queue.served == ["news 1", "news 2", "cancel"]


async def test_however_urgent_the_others_are_who_waits_longest_has_its_turn(
    clock: ManualClock, queue_at: QueueAt
) -> None:
    queue = queue_at(1)
    await queue.use_burst()
    await queue.want("look", lane=Lane.LOOK)
    for number in range(20):
        await queue.want(str(number), lane=Lane.NEWS)
    await clock.advance(4.01)
    assert "look" in queue.served


async def test_who_leaves_the_queue_costs_no_turn(clock: ManualClock, queue_at: QueueAt) -> None:
    queue = queue_at(1)
    await queue.use_burst()
    await queue.want("leaves", "stays")
    queue.tasks["leaves"].cancel()
    await clock.advance(1.001)
    assert queue.served == ["stays"]


async def test_a_turn_that_is_given_back_is_somebody_else_s(clock: ManualClock, queue_at: QueueAt) -> None:
    queue = queue_at(1)
    await queue.use_burst()
    await clock.advance(1)
    (await queue.limiter.slot(Lane.LOOK)).give_back()
    await queue.want("a")
    assert queue.served == ["a"]


def _then(do: Callable[..., bool], also: Callable[[], object]) -> Callable[..., bool]:
    def both(*args: object, **kwargs: object) -> bool:
        done = do(*args, **kwargs)
        also()
        return done

    return both


async def test_a_turn_given_to_a_task_canceled_at_that_moment_goes_back(clock: ManualClock, queue_at: QueueAt) -> None:
    queue = queue_at(1)
    await queue.use_burst()
    late = asyncio.create_task(queue.limiter.slot(Lane.LOOK))
    await settle()
    with patch.object(queue.limiter, "_grant", _then(queue.limiter._grant, late.cancel)):
        await clock.advance(1.001)
    assert late.cancelled()
    await queue.want("next")
    assert queue.served == ["next"]


async def test_a_rate_of_zero_is_no_limit_but_a_pause_still_holds(clock: ManualClock, queue_at: QueueAt) -> None:
    queue = queue_at(0)
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
    queue = queue_at(2)
    queue.limiter.pause(30)
    queue.limiter.pause(1)
    await queue.want("look")
    await queue.want("person", lane=Lane.PERSON)
    await clock.advance(29)
    assert (queue.served, queue.limiter.pause_left_s) == ([], 1.0)
    await clock.advance(1.1)
    assert (queue.served, queue.limiter.pause_left_s) == (["person", "look"], 0.0)


async def test_a_wall_clock_that_is_set_back_stops_nobody_for_long(clock: ManualClock, queue_at: QueueAt) -> None:
    queue = queue_at(2)
    await queue.use_burst()
    queue.limiter.pause(10)
    clock.set_back(3600)
    await queue.want("c")
    await clock.advance(9.9)
    assert queue.served == []
    await clock.advance(0.2)
    assert queue.served == ["c"]


def test_a_rate_that_makes_no_sense_is_refused(clock: ManualClock) -> None:
    with pytest.raises(ValueError, match="rate"):
        RateLimiter(clock, -1)


async def test_trouble_halves_the_rate_once_in_a_while_and_never_to_nothing(clock: ManualClock) -> None:
    limiter = RateLimiter(clock, 20)
    limiter.trouble()
    limiter.trouble()
    assert limiter.per_s == 10, "one bad moment"
    for _ in range(20):
        await clock.advance(2.1)
        limiter.trouble()
    assert limiter.per_s == LEAST_PER_S


async def test_the_rate_grows_by_and_by_when_all_is_well_again(clock: ManualClock) -> None:
    limiter = RateLimiter(clock, 20)
    limiter.trouble()
    await clock.advance(0.5)
    limiter.fine()
    assert limiter.per_s == 10.5
    await clock.advance(3600)
    limiter.fine()
    assert limiter.per_s == 11.5, "a silence says nothing"
    for _ in range(20):
        await clock.advance(1)
        limiter.fine()
    assert limiter.per_s == 20


async def test_a_rate_below_the_least_is_kept_in_trouble(clock: ManualClock) -> None:
    limiter = RateLimiter(clock, 0.1)
    limiter.trouble()
    assert limiter.per_s == 0.1


async def test_after_a_pause_the_most_urgent_goes_alone_and_the_rest_when_it_was_answered(
    clock: ManualClock, queue_at: QueueAt
) -> None:
    queue = queue_at(2)
    queue.limiter.pause(30)
    queue.answer.clear()
    await queue.want("look")
    await queue.want("person", lane=Lane.PERSON)
    await queue.want("news", lane=Lane.NEWS)
    await clock.advance(40)
    assert queue.served == ["news"]
    queue.answer.set()
    await clock.advance(0.1)
    assert queue.served == ["news", "person", "look"]


async def test_a_probe_that_brings_the_next_pause_lets_nobody_else_go(clock: ManualClock, queue_at: QueueAt) -> None:
    queue = queue_at(2)
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
    queue = queue_at(2)
    queue.limiter.pause(30)
    queue.answer.clear()
    await queue.want("a", "b")
    await clock.advance(31)
    queue.tasks["a"].cancel()
    await clock.advance(0.1)
    assert queue.served == ["a", "b"]


async def test_what_was_too_much_is_what_was_really_sent(clock: ManualClock, queue_at: QueueAt) -> None:
    queue = queue_at(20)
    for number in range(10):
        await queue.want(str(number))
        await clock.advance(0.5)
    queue.limiter.too_many()
    assert queue.limiter.per_s <= 1.25, (
        "half of the two a second that were sent, not of the twenty that might have been"
    )


async def test_more_than_went_well_is_tried_out_slowly(clock: ManualClock, queue_at: QueueAt) -> None:
    queue = queue_at(20)
    await queue.want(*(str(number) for number in range(100)))
    await clock.advance(3)
    queue.limiter.too_many()
    for _ in range(60):
        await clock.advance(1)
        queue.limiter.fine()
    assert 18 <= queue.limiter.per_s < 21


async def test_once_it_was_too_much_there_are_no_bursts(clock: ManualClock, queue_at: QueueAt) -> None:
    queue = queue_at(2)
    await queue.want("a", "b")
    queue.limiter.too_many()
    await clock.advance(60)
    queue.served.clear()
    await queue.want(*(str(number) for number in range(10)))
    assert len(queue.served) == 1
