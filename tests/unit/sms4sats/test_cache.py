from __future__ import annotations

import asyncio

import pytest

from holdpay.errors import ProviderUnavailable
from holdpay.sms4sats.cache import FreshCache
from tests.unit.sms4sats.clock import ManualClock, settle


class Source:
    """Answers with the number of the question, once it is let go."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.error = error

    async def __call__(self) -> int:
        self.asked += 1
        number = self.asked
        await self.may_answer.wait()
        if self.error:
            raise self.error
        return number


async def test_many_who_ask_at_once_ask_once() -> None:
    cache: FreshCache[str, int] = FreshCache(ManualClock(), 10)
    source = Source()
    waiting = [asyncio.create_task(cache.get("a", source)) for _ in range(5)]
    await settle()
    source.may_answer.set()
    assert await asyncio.gather(*waiting) == [1, 1, 1, 1, 1]


async def test_an_answer_is_kept_until_it_is_old() -> None:
    clock = ManualClock()
    cache: FreshCache[str, int] = FreshCache(clock, 10)
    source = Source()
    source.may_answer.set()
    assert await cache.get("a", source) == 1
    await clock.advance(9.9)
    assert await cache.get("a", source) == 1
    assert await cache.get("b", source) == 2
    await clock.advance(0.1)
    assert await cache.get("a", source) == 3


async def test_an_answer_from_the_future_is_not_kept_after_the_clock_was_set_back() -> None:
    clock = ManualClock()
    cache: FreshCache[str, int] = FreshCache(clock, 10)
    source = Source()
    source.may_answer.set()
    await cache.get("a", source)
    clock.set_back(3600)
    assert await cache.get("a", source) == 2


async def test_a_failure_reaches_all_who_waited_and_is_not_kept() -> None:
    cache: FreshCache[str, int] = FreshCache(ManualClock(), 10)
    source = Source(ProviderUnavailable("away"))
    waiting = [asyncio.create_task(cache.get("a", source)) for _ in range(2)]
    source.may_answer.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [ProviderUnavailable] * 2
    source.error = None
    assert await cache.get("a", source) == 2


async def test_who_leaves_does_not_take_the_answer_from_the_others() -> None:
    cache: FreshCache[str, int] = FreshCache(ManualClock(), 10)
    source = Source()
    leaves = asyncio.create_task(cache.get("a", source))
    stays = asyncio.create_task(cache.get("a", source))
    await settle()
    leaves.cancel()
    await settle()
    source.may_answer.set()
    assert await stays == 1
    assert leaves.cancelled()


async def test_closing_ends_what_is_being_asked() -> None:
    cache: FreshCache[str, int] = FreshCache(ManualClock(), 10)
    waiting = asyncio.create_task(cache.get("a", Source()))
    await settle()
    await cache.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_old_answers_do_not_pile_up() -> None:
    clock = ManualClock()
    cache: FreshCache[int, int] = FreshCache(clock, 10)
    source = Source()
    source.may_answer.set()
    for number in range(100):
        await cache.get(number, source)
        await clock.advance(1)
    assert len(cache._asked) <= 11
