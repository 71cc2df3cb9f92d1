"""Deadlines that pass while no daemon runs: the provider is asked before any of them counts."""

from __future__ import annotations

import asyncio

from holdpay.core.model import End, HtlcState
from holdpay.engine.engine import ASK_FIRST_S
from tests.fakes import Story
from tests.unit.build import POLICY
from tests.unit.engine.world import World


async def _charged_before_the_daemon_died(world: World, story: Story) -> str:
    """The HTLC was settled, no code had come, and then nobody ran for longer than the grace."""
    world.provider.story = story
    order_id = world.request()
    await world.until(lambda: world.order(order_id).htlc is HtlcState.IN_FLIGHT)
    world.lnd.settle(world.theirs.payment_hash, world.theirs.preimage)
    await world.until(lambda: world.order(order_id).htlc is HtlcState.SETTLED)
    await world.crash()
    await asyncio.sleep(POLICY.settled_grace_s + 3600)
    return order_id


async def test_a_code_that_came_while_the_daemon_was_away_is_not_lost_to_the_grace(world: World) -> None:
    order_id = await _charged_before_the_daemon_died(world, Story(code_after_s=3600))
    world.start()
    order = await world.until_closed(order_id, within_s=5)
    assert (order.end, order.code) == (End.CODE_RECEIVED, "012345")


async def test_a_provider_that_is_down_at_the_start_is_waited_for(world: World) -> None:
    order_id = await _charged_before_the_daemon_died(world, Story(code_after_s=3600))
    world.provider.go_down()
    world.start()
    await asyncio.sleep(ASK_FIRST_S / 2)
    assert not world.order(order_id).is_closed
    world.provider.come_back()
    order = await world.until_closed(order_id, within_s=POLICY.poll_late_max_s + 60)
    assert (order.end, order.code) == (End.CODE_RECEIVED, "012345")


async def test_a_provider_that_has_no_code_after_the_grace_ends_the_order_with_its_first_answer(world: World) -> None:
    order_id = await _charged_before_the_daemon_died(world, Story(number_after_s=None, code_after_s=None))
    world.start()
    order = await world.until_closed(order_id, within_s=5)
    assert order.end is End.CHARGED_WITHOUT_CODE


async def test_a_provider_that_stays_down_does_not_keep_the_order_open_for_ever(world: World) -> None:
    order_id = await _charged_before_the_daemon_died(world, Story(number_after_s=None, code_after_s=None))
    world.provider.go_down()
    world.start()
    await asyncio.sleep(ASK_FIRST_S - 5)
    assert not world.order(order_id).is_closed
    order = await world.until_closed(order_id, within_s=10)
    assert order.end is End.CHARGED_WITHOUT_CODE
