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
