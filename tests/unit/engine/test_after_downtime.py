"""Deadlines that pass while no daemon runs: the provider is asked before any of them counts."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from holdpay.core.states import End, HtlcState, OrderState
from holdpay.engine.engine import ASK_FIRST_S
from holdpay.errors import ProviderError, ProviderProtocolError, ProviderRefused, ProviderUnavailable
from tests.fakes import HOP_DOWN, Story
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
    assert (order.end, order.code) == (End.FULFILLED, "012345")


async def test_a_provider_that_is_down_at_the_start_is_waited_for(world: World) -> None:
    order_id = await _charged_before_the_daemon_died(world, Story(code_after_s=3600))
    world.provider.go_down()
    world.start()
    await asyncio.sleep(ASK_FIRST_S / 2)
    assert not world.order(order_id).is_closed
    world.provider.come_back()
    order = await world.until_closed(order_id, within_s=POLICY.poll_late_max_s + 60)
    assert (order.end, order.code) == (End.FULFILLED, "012345")


@pytest.mark.parametrize(
    "error",
    [
        ProviderUnavailable("HTTP 502", None, raw="<html>502</html>"),
        ProviderUnavailable("HTTP 503", 120.0, raw=None),
        ProviderProtocolError("not JSON", raw="<html>maintenance</html>"),
        ProviderRefused('sms4sats says "unable to save data"', raw='{"status":"error"}'),
    ],
    ids=["502", "503, retry later", "nonsense", "refusal"],
)
async def test_a_provider_that_answers_with_an_error_at_the_start_is_asked_again(
    world: World, error: ProviderError
) -> None:
    order_id = await _charged_before_the_daemon_died(world, Story(code_after_s=3600))
    world.provider.status_error = error
    world.start()
    await asyncio.sleep(60)
    assert not world.order(order_id).is_closed
    world.provider.come_back()
    order = await world.until_closed(order_id, within_s=POLICY.poll_late_max_s + 120)
    assert (order.end, order.code) == (End.FULFILLED, "012345")


async def test_a_client_that_cancels_before_the_provider_was_asked_loses_no_code(world: World) -> None:
    order_id = await _charged_before_the_daemon_died(world, Story(code_after_s=3600))
    world.provider.go_down()
    world.start()
    await asyncio.sleep(3)
    await world.engine.cancel(order_id)
    world.provider.come_back()
    order = await world.until_closed(order_id, within_s=POLICY.poll_late_max_s + 60)
    assert (order.end, order.code) == (End.FULFILLED, "012345")


async def test_lnd_that_answers_before_the_provider_does_not_end_an_order_that_nobody_asked_about(
    world: World,
) -> None:
    """Held, then away for longer than the promise; meanwhile a code came, and the HTLC failed."""
    world.provider.story = Story(number_after_s=None, code_after_s=None)
    order_id = world.request()
    await world.until(lambda: world.order(order_id).state is OrderState.PAID)
    await world.crash()
    await asyncio.sleep(2 * POLICY.promise_s)
    world.theirs.status = replace(world.theirs.status, code="777777")
    world.lnd.say(world.theirs.payment_hash, HOP_DOWN)
    world.provider.go_down()
    world.start()
    await world.until(lambda: world.order(order_id).htlc is HtlcState.FAILED)
    world.provider.come_back()
    order = await world.until_closed(order_id, within_s=POLICY.poll_late_max_s + 60)
    assert (order.end, order.code) == (End.FULFILLED_FREE, "777777")


async def test_a_provider_that_has_no_code_after_the_grace_ends_the_order_with_its_first_answer(world: World) -> None:
    order_id = await _charged_before_the_daemon_died(world, Story(number_after_s=None, code_after_s=None))
    world.start()
    order = await world.until_closed(order_id, within_s=5)
    assert order.end is End.CHARGED_UNFULFILLED


async def test_a_provider_that_stays_down_does_not_keep_the_order_open_for_ever(world: World) -> None:
    order_id = await _charged_before_the_daemon_died(world, Story(number_after_s=None, code_after_s=None))
    world.provider.go_down()
    world.start()
    await asyncio.sleep(ASK_FIRST_S - 5)
    assert not world.order(order_id).is_closed
    order = await world.until_closed(order_id, within_s=10)
    assert order.end is End.CHARGED_UNFULFILLED
