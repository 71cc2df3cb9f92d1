"""The caps of each channel: a full one is left out, and where all are full a payment waits."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from holdpay.core.holds import HoldCaps
from holdpay.core.lightning import AttemptStatus
from holdpay.core.states import End, HtlcState, OrderState
from holdpay.engine.places import Places
from holdpay.engine.tally import Tally
from holdpay.engine.ways import Ways
from holdpay.errors import LimitExceeded
from tests.fakes import CHANNEL, NO_ROUTE, Send, Story
from tests.unit.build import attempt, pair
from tests.unit.engine.test_objections import ROUTE, WAY
from tests.unit.engine.test_places import end_hold, set_caps, until_held
from tests.unit.engine.world import World

SECOND = CHANNEL + 1
ONE_EACH = HoldCaps(max_channel_orders=1)
NO_ROOM = "no channel has room for it (holds.max_channel_orders, holds.max_channel_locked_sat)"


@pytest.fixture
def two(world: World) -> World:
    """A node with two channels, and one hold at most on each."""
    world.provider.story = Story(number_after_s=None, code_after_s=None)
    world.lnd.channel_ids = [CHANNEL, SECOND]
    set_caps(world, ONE_EACH)
    return world


def ways_named(world: World) -> list[tuple[int, ...]]:
    """By each SendPaymentV2."""
    return [spec.outgoing_chan_ids for _, spec in world.lnd.sends]


async def test_channels_are_named_only_once_one_of_them_is_full(two: World) -> None:
    first, second = two.request(1), two.request(2)
    await until_held(two, first)
    await until_held(two, second)
    assert ways_named(two) == [(), (SECOND,)]


async def test_without_a_cap_none_is_ever_named_nor_asked_for(two: World) -> None:
    set_caps(two, HoldCaps())
    for n in range(1, 5):
        await until_held(two, two.request(n))
    assert ways_named(two) == [()] * 4
    assert two.lnd.channels_looks_ms == []


async def test_where_all_are_full_a_payment_waits_says_so_and_goes_once_one_is_free(two: World) -> None:
    first, second, third = (two.request(n) for n in (1, 2, 3))
    await until_held(two, first)
    await until_held(two, second)
    await asyncio.sleep(60)
    assert two.order(third).state is OrderState.AWAITING_PAYMENT
    assert two.order(third).htlc is HtlcState.NONE
    assert two.engine.held_up_by(third) == NO_ROOM
    await end_hold(two, first)
    await until_held(two, third)
    assert ways_named(two)[2] == (CHANNEL,)
    assert two.engine.held_up_by(third) == ""


async def test_its_time_to_pay_goes_on_while_it_waits_for_a_channel(two: World) -> None:
    for n in (1, 2):
        await until_held(two, two.request(n))
    closed = await two.until_closed(two.request(3))
    assert (closed.end, closed.spent_msat, len(two.lnd.sends)) == (End.PAYMENT_FAILED, 0, 2)
    assert closed.reason == f"it was not paid in time: {NO_ROOM}"


@pytest.mark.parametrize(("by", "words"), [("812000x1x1", "which may hold no more"), ("1x1x0", "order again")])
async def test_a_way_by_a_full_channel_is_not_called_a_way(two: World, by: str, words: str) -> None:
    await until_held(two, two.request(1))
    two.lnd.route_look = replace(WAY, route=replace(ROUTE, first_channel=by))
    two.lnd.next_sends += [Send(fails=NO_ROUTE)] * 50
    closed = await two.until_closed(two.request(2))
    assert words in closed.reason


async def test_what_is_sent_and_not_told_yet_counts_on_every_channel(two: World) -> None:
    two.lnd.next_sends.append(Send(arrives_after_s=5))
    first, second = two.request(1), two.request(2)
    await two.until(lambda: two.order(first).htlc is HtlcState.DISPATCHING)
    await asyncio.sleep(4)
    assert len(two.lnd.sends) == 1
    await until_held(two, second)
    assert ways_named(two) == [(), (SECOND,)]


async def test_after_a_restart_what_is_out_counts_before_lnd_has_told_of_it(two: World) -> None:
    first = two.request(1)
    await until_held(two, first)
    await two.crash()
    two.start()
    second = two.request(2)
    await until_held(two, second)
    assert ways_named(two)[1] == (SECOND,)


async def test_the_sat_of_a_channel_are_capped_with_the_fee_limit(two: World) -> None:
    set_caps(two, HoldCaps(max_channel_locked_sat=2 * 2_010))
    ids = [two.request(n) for n in (1, 2, 3)]
    for order_id in ids:
        await until_held(two, order_id)
    assert ways_named(two) == [(), (), (SECOND,)]


async def test_an_order_that_no_channel_may_hold_is_refused(two: World) -> None:
    set_caps(two, HoldCaps(max_channel_locked_sat=2_059))
    with pytest.raises(LimitExceeded, match=r"alone may lock 2,060 sat, and holds\.max_channel_locked_sat is 2,059"):
        two.request(1)


def test_a_payment_in_parts_counts_where_each_part_is_and_the_rest_anywhere() -> None:
    ways = Ways(Places(HoldCaps(max_channel_locked_sat=1_000), Tally()))
    parts = [attempt(attempt_id=n, amount_msat=500_000, fee_msat=0, first_channel=f"1x{n}x0") for n in (1, 2)]
    order = pair(OrderState.PAID, HtlcState.IN_FLIGHT)
    ways.changed(order, (*parts, attempt(AttemptStatus.FAILED, attempt_id=3, first_channel="1x3x0")))
    assert ways.is_full("1x1x0", 0), "500 sat, and 1,000 sat that LND has not told of"
    assert not ways.is_full("1x3x0", 0)
    assert ways.is_full("1x3x0", 1)
    ways.changed(pair(OrderState.PAID, HtlcState.SETTLED))
    assert not ways.is_full("1x1x0", 1_000_000)
    assert not ways._msat


def test_of_a_payment_in_parts_a_channel_counts_one_order() -> None:
    ways = Ways(Places(HoldCaps(max_channel_orders=2), Tally()))
    parts = [attempt(attempt_id=n, amount_msat=1_000_000, fee_msat=0, first_channel="1x1x0") for n in (1, 2)]
    order = pair(OrderState.PAID, HtlcState.IN_FLIGHT)
    ways.changed(order, tuple(parts[:1]))
    assert not ways.is_full("1x1x0", 1), "half of it may be anywhere, and is of the same order"
    ways.changed(order, tuple(parts))
    assert not ways.is_full("1x1x0", 1)
    ways.changed(replace(order, id="another"), tuple(parts))
    assert ways.is_full("1x1x0", 1)
    assert not ways.is_full("1x2x0", 1)


def test_a_part_counts_with_its_fee_to_the_millisatoshi() -> None:
    ways = Ways(Places(HoldCaps(max_channel_locked_sat=3_000), Tally()))
    ways.changed(pair(OrderState.PAID, HtlcState.IN_FLIGHT), (attempt(fee_msat=1_002, first_channel="1x1x0"),))
    room_msat = 3_000_000 - 2_001_002
    assert not ways.is_full("1x1x0", room_msat)
    assert ways.is_full("1x1x0", room_msat + 1)
