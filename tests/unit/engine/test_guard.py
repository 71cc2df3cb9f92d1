"""The guard of holds: one look at the channels for all of them, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from structlog.testing import capture_logs

from holdpay.background import Background
from holdpay.core.states import HoldLevel, HtlcState, OrderState
from holdpay.errors import LndDenied
from tests.fakes import PEER, Story
from tests.unit.engine.world import World

EXPIRY = 800_163


@pytest_asyncio.fixture
async def guarded(world: World) -> AsyncIterator[World]:
    """With the guard at work, as in the daemon."""
    looking = Background("hold guard", lambda: world.engine.guard.look(), 60, world.clock, every_s=1)
    yield world
    await looking.stop()


async def hold(world: World, count: int = 1) -> list[str]:
    world.provider.story = Story(number_after_s=None, code_after_s=None)
    ids = [world.request(n) for n in range(1, count + 1)]
    await world.until(lambda: all(world.order(order_id).state is OrderState.PAID for order_id in ids))
    return ids


def level(world: World, order_id: str) -> HoldLevel:
    payment = world.order(order_id).payment
    assert payment is not None
    return payment.hold_level


async def test_one_look_is_for_all_holds_at_an_interval_and_none_while_nothing_is_out(guarded: World) -> None:
    await asyncio.sleep(600)
    assert guarded.lnd.channels_looks_ms == []
    await hold(guarded, 5)
    await asyncio.sleep(600)
    assert 10 <= len(guarded.lnd.channels_looks_ms) <= 12


async def test_a_new_block_is_a_reason_to_look(guarded: World) -> None:
    await hold(guarded)
    await asyncio.sleep(3)
    looks = len(guarded.lnd.channels_looks_ms)
    guarded.lnd.block_height += 1
    await asyncio.sleep(3)
    assert len(guarded.lnd.channels_looks_ms) == looks + 1


async def test_a_look_tells_channel_peer_and_expiry_of_a_hold(guarded: World) -> None:
    (order_id,) = await hold(guarded)
    await asyncio.sleep(3)
    (htlc,) = guarded.engine.guard.sight(guarded.order(order_id)).htlcs
    assert (htlc.channel, htlc.peer_pubkey, htlc.peer_alias) == ("812000x1x1", PEER, "bob")
    assert (htlc.is_on_channel, htlc.is_online, htlc.expiry_height) == (True, True, EXPIRY)


async def test_blocks_raise_the_level_and_each_change_is_one_row_and_one_line_of_the_log(guarded: World) -> None:
    (order_id,) = await hold(guarded)
    heard: list[tuple[str | None, HoldLevel]] = []
    guarded.engine.on_alarm = lambda request_id, level, text: heard.append((request_id, level))
    with capture_logs() as logs:
        for left in (23, 22, 21, 11, 10, 9):
            guarded.lnd.block_height = EXPIRY - left
            await asyncio.sleep(120)
    assert level(guarded, order_id) is HoldLevel.CRITICAL
    assert guarded.events(order_id).count("hold_level_changed") == 2
    told = [(entry["urgency"], entry["order_id"]) for entry in logs if entry["event"] == "alarm"]
    assert told == [("warning", order_id), ("critical", order_id)]
    assert len(logs) == 2, "one line for each"
    assert heard == [(order_id, HoldLevel.WARNING), (order_id, HoldLevel.CRITICAL)]
    assert +guarded.engine.tally.levels == {HoldLevel.CRITICAL: 1}
    guarded.lnd.settle(guarded.theirs.payment_hash, guarded.theirs.preimage)
    await guarded.until(lambda: guarded.order(order_id).htlc is HtlcState.SETTLED)
    assert +guarded.engine.tally.levels == {}


async def test_a_peer_that_is_offline_for_long_is_a_warning_until_it_is_back(guarded: World) -> None:
    (order_id,) = await hold(guarded)
    guarded.lnd.is_peer_online = False
    await asyncio.sleep(guarded.policy.guard_peer_offline_s - 60)
    assert level(guarded, order_id) is HoldLevel.OK
    await asyncio.sleep(240)
    assert level(guarded, order_id) is HoldLevel.WARNING
    assert "is offline for" in guarded.engine.alarms()[0]
    guarded.lnd.is_peer_online = True
    with capture_logs() as logs:
        await asyncio.sleep(120)
    assert level(guarded, order_id) is HoldLevel.OK
    assert [(entry["event"], entry["order_id"]) for entry in logs] == [("the hold is in time again", order_id)]


async def test_a_level_outlives_the_process_and_is_not_told_again(guarded: World) -> None:
    (order_id,) = await hold(guarded)
    guarded.lnd.block_height = EXPIRY - 20
    await asyncio.sleep(5)
    await guarded.crash()
    guarded.start()
    await asyncio.sleep(120)
    assert level(guarded, order_id) is HoldLevel.WARNING
    assert guarded.events(order_id).count("hold_level_changed") == 1


async def test_an_htlc_that_no_channel_carries_is_told_by_its_attempt(guarded: World) -> None:
    (order_id,) = await hold(guarded)
    guarded.lnd.hidden.add(guarded.theirs.payment_hash)
    await asyncio.sleep(guarded.policy.guard_peer_offline_s + 200)
    (htlc,) = guarded.engine.guard.sight(guarded.order(order_id)).htlcs
    assert (htlc.is_on_channel, htlc.is_online, htlc.peer_pubkey) == (False, None, PEER)
    assert level(guarded, order_id) is HoldLevel.WARNING


async def test_channels_that_may_not_be_looked_at_are_told_once_and_blocks_count_all_the_same(guarded: World) -> None:
    guarded.lnd.look_error = LndDenied()
    with capture_logs() as logs:
        (order_id,) = await hold(guarded)
        guarded.lnd.block_height = EXPIRY - 5
        await asyncio.sleep(600)
    assert level(guarded, order_id) is HoldLevel.CRITICAL
    assert len([entry for entry in logs if "cannot be looked at" in entry["event"]]) == 1
    (htlc,) = guarded.engine.guard.sight(guarded.order(order_id)).htlcs
    assert (htlc.is_on_channel, htlc.channel) == (None, "812000x1x1")


async def test_while_lnd_is_silent_blocks_are_counted_by_the_clock(guarded: World) -> None:
    (order_id,) = await hold(guarded)
    guarded.lnd.block_height = EXPIRY - 30
    await asyncio.sleep(5)
    guarded.lnd.answered_at_ms = guarded.clock.now_ms()
    guarded.lnd.is_down = True
    await asyncio.sleep(50 * 60)
    assert level(guarded, order_id) is HoldLevel.LATE, "no block counts yet that brings the bound"
    await asyncio.sleep(30 * 60)
    assert level(guarded, order_id) is HoldLevel.WARNING
    seen = guarded.engine.guard.sight(guarded.order(order_id))
    assert (seen.is_estimate, seen.block_height) == (True, EXPIRY - 22)


async def test_a_second_trouble_of_the_same_level_is_logged_too(guarded: World) -> None:
    await hold(guarded)
    guarded.lnd.block_height = EXPIRY - 20
    await asyncio.sleep(120)
    guarded.lnd.is_peer_online = False
    with capture_logs() as logs:
        await asyncio.sleep(guarded.policy.guard_peer_offline_s + 120)
    told = [entry["text"] for entry in logs if entry["event"] == "alarm"]
    assert len([text for text in told if "is offline for" in text]) == 1


async def test_a_peer_that_was_offline_when_lnd_went_away_is_no_all_clear(guarded: World) -> None:
    (order_id,) = await hold(guarded)
    guarded.lnd.is_peer_online = False
    await asyncio.sleep(guarded.policy.guard_peer_offline_s + 120)
    guarded.lnd.is_down = True
    await asyncio.sleep(180)
    assert level(guarded, order_id) is HoldLevel.WARNING
    (htlc,) = guarded.engine.guard.sight(guarded.order(order_id)).htlcs
    assert (htlc.is_on_channel, htlc.is_online) == (None, False)
    guarded.lnd.is_peer_online, guarded.lnd.is_down = True, False
    await asyncio.sleep(180)
    assert level(guarded, order_id) is HoldLevel.OK
