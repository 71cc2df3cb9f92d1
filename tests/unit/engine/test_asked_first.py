"""After a downtime the provider is asked before a deadline counts, and once it has answered the deadlines count."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from holdpay.core.states import End, HtlcState
from tests.fakes import HOP_DOWN, Story
from tests.unit.build import POLICY
from tests.unit.engine.world import World

UNPAID_DEADLINE_S = POLICY.pay_within_s + POLICY.close_unpaid_after_s
SILENT = Story(paid_after_s=10 * UNPAID_DEADLINE_S, number_after_s=None, code_after_s=None)


async def _sent_and_never_called_paid(world: World) -> str:
    world.provider.story = SILENT
    order_id = world.request()
    await world.until(lambda: world.order(order_id).htlc is HtlcState.IN_FLIGHT)
    return order_id


def _a_code_comes(world: World) -> None:
    world.theirs.status = replace(world.theirs.status, is_paid=True, code="777777")


async def _brings_the_code(world: World, order_id: str) -> None:
    world.provider.come_back()
    order = await world.until_closed(order_id, within_s=POLICY.poll_late_max_s + 60)
    assert (order.end, order.code) == (End.FULFILLED_FREE, "777777")


async def test_a_failure_that_lnd_tells_after_the_deadline_does_not_end_an_order_that_nobody_asked_about(
    world: World,
) -> None:
    order_id = await _sent_and_never_called_paid(world)
    await world.crash()
    await asyncio.sleep(2 * UNPAID_DEADLINE_S)
    _a_code_comes(world)
    world.lnd.say(world.theirs.payment_hash, HOP_DOWN)
    world.provider.go_down()
    world.start()
    await world.until(lambda: world.order(order_id).htlc is HtlcState.FAILED)
    await asyncio.sleep(300)
    assert not world.order(order_id).is_closed
    await _brings_the_code(world, order_id)


async def test_a_deadline_that_passed_during_the_downtime_does_not_end_an_order_that_nobody_asked_about(
    world: World,
) -> None:
    order_id = await _sent_and_never_called_paid(world)
    world.provider.go_down()
    world.lnd.say(world.theirs.payment_hash, HOP_DOWN)
    await world.until(lambda: world.order(order_id).htlc is HtlcState.FAILED)
    await world.crash()
    await asyncio.sleep(2 * UNPAID_DEADLINE_S)
    _a_code_comes(world)
    world.start()
    assert not world.order(order_id).is_closed
    await asyncio.sleep(300)
    assert not world.order(order_id).is_closed
    await _brings_the_code(world, order_id)


async def test_a_provider_that_fell_silent_after_its_first_answer_does_not_put_a_deadline_off(world: World) -> None:
    world.provider.story = Story(number_after_s=None, code_after_s=None)
    order_id = world.request()
    await world.until(lambda: world.order(order_id).htlc is HtlcState.IN_FLIGHT)
    world.lnd.settle(world.theirs.payment_hash, world.theirs.preimage)
    await world.until(lambda: world.order(order_id).htlc is HtlcState.SETTLED)
    await world.crash()
    left_s = 600
    await asyncio.sleep(POLICY.settled_grace_s - left_s)
    world.provider.polls.clear()
    world.start()
    await world.until(lambda: bool(world.provider.polls))
    await asyncio.sleep(5)
    world.provider.go_down()
    order = await world.until_closed(order_id, within_s=left_s + 5)
    assert order.end is End.CHARGED_UNFULFILLED
