"""A task beside the orders: what fails goes on after a pause, and is known to fail."""

from __future__ import annotations

import asyncio

from holdpay.background import RESTART_AFTER_S, Background
from tests.fakes import FakeClock


async def test_a_turn_that_fails_is_followed_by_the_next_and_known_until_one_ends_well() -> None:
    clock = FakeClock()
    fails: list[BaseException] = [ValueError("planted"), asyncio.CancelledError()]

    async def turn() -> None:
        if fails:
            raise fails.pop()
        await clock.sleep(1)

    task = Background("a", turn, 60, clock)
    await asyncio.sleep(0.1)
    assert (task.is_alive, task.is_well) == (True, False)
    await asyncio.sleep(2 * RESTART_AFTER_S + 2)
    assert task.is_well
    await task.stop()
    assert not task.is_alive


async def test_one_that_comes_seldom_is_well_as_soon_as_a_turn_has_ended_well() -> None:
    clock = FakeClock()
    fails: list[BaseException] = [ValueError("planted")]
    turns = 0

    async def turn() -> None:
        nonlocal turns
        turns += 1
        if fails:
            raise fails.pop()

    task = Background("a", turn, 7200, clock, every_s=3600)
    await asyncio.sleep(RESTART_AFTER_S + 1)
    assert (task.is_well, turns) == (True, 2)
    await asyncio.sleep(3600)
    assert turns == 3
    await task.stop()


async def test_what_fails_again_and_again_or_hangs_is_not_alive() -> None:
    clock = FakeClock()

    async def fail() -> None:
        raise ValueError("planted")

    async def hang() -> None:
        await asyncio.Event().wait()

    tasks = [Background("fails", fail, 60, clock), Background("hangs", hang, 60, clock)]
    await asyncio.sleep(59)
    assert [task.is_alive for task in tasks] == [True, True]
    await asyncio.sleep(10)
    assert [task.is_alive for task in tasks] == [False, False]
    for task in tasks:
        await task.stop()
