"""What lasts too long for a real process to wait for: on virtual time, with its true length."""

from __future__ import annotations

import asyncio

from holdpay.core.states import End, HtlcState, OrderState
from tests.fakes import Story
from tests.unit.engine.world import World


async def _held(world: World, story: Story) -> str:
    world.provider.story = story
    order_id = world.request()
    await world.until(lambda: world.order(order_id).state is OrderState.PAID)
    return order_id


async def test_lnd_that_is_locked_for_ten_minutes_at_boot_costs_nothing_but_time(world: World) -> None:
    order_id = await _held(world, Story(number_after_s=20))
    await world.crash()
    world.lnd.is_down = True
    world.lnd.break_streams()
    world.start()

    await asyncio.sleep(600)
    order = world.order(order_id)
    assert (order.code, order.htlc, order.is_closed) == ("012345", HtlcState.IN_FLIGHT, False)

    world.lnd.is_down = False
    assert (await world.until_closed(order_id, within_s=30)).end is End.FULFILLED
    assert len(world.lnd.sends) == 1


async def test_a_stream_and_a_provider_that_are_both_silent_are_asked_anew_every_five_minutes(world: World) -> None:
    order_id = await _held(world, Story(number_after_s=None, code_after_s=None))
    world.provider.go_down()
    world.lnd.settle(world.theirs.payment_hash, world.theirs.preimage, to_streams=False)
    heard_s = world.now_s

    await world.until(lambda: world.order(order_id).htlc is HtlcState.SETTLED, within_s=302)
    assert world.now_s - heard_s > 200
