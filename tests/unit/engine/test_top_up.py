"""The prepaid account is topped up once at a time, inside the limits, and never in a loop."""

from __future__ import annotations

import asyncio

import pytest

from holdpay.core.kinds import FundSpec
from holdpay.core.model import Order
from holdpay.core.states import HtlcState
from holdpay.engine.account import Account
from holdpay.engine.top_up import EVERY_S, TopUp, TopUpRule
from holdpay.errors import ProviderUnavailable
from holdpay.ports import OrderFilter
from tests.fakes import Story
from tests.unit.engine.desks import desk_of
from tests.unit.engine.world import World


def top_up_of(world: World) -> TopUp:
    world.provider.story = Story(number_after_s=None, code_after_s=None)
    rule = TopUpRule(below_sat=5_000, amount_sat=2_000)
    return TopUp(world.engine, desk_of(world.engine), Account(world.provider, None), rule)


def orders(world: World) -> list[Order]:
    return world.store.list_orders(OrderFilter())


async def test_a_low_balance_makes_one_order_and_a_high_one_none(world: World) -> None:
    top_up = top_up_of(world)
    world.provider.balance_sat = 5_000
    await top_up.look()
    assert orders(world) == []
    world.provider.balance_sat = 4_999
    await top_up.look()
    (order,) = orders(world)
    assert (order.spec, order.max_price_sat) == (FundSpec(amount_sat=2_000), 2_000)


async def test_as_long_as_one_is_open_no_other_is_made(world: World) -> None:
    top_up = top_up_of(world)
    world.provider.balance_sat = 0
    for _ in range(20):
        await top_up.look()
        await asyncio.sleep(1000)
    assert len(orders(world)) == 1


async def test_one_that_is_open_and_cannot_be_read_is_begun_too(world: World) -> None:
    top_up = top_up_of(world)
    world.provider.balance_sat = 0
    await top_up.look()
    await world.until(lambda: orders(world)[0].htlc is HtlcState.IN_FLIGHT)
    await asyncio.sleep(2 * EVERY_S)
    world.store._conn.execute("UPDATE orders SET state = 'nonsense'")
    await top_up.look()
    assert world.store._one("SELECT count(*) FROM orders") == 1


async def test_one_that_is_over_and_cannot_be_read_was_made_all_the_same(world: World) -> None:
    top_up = top_up_of(world)
    world.provider.balance_sat = 0
    await top_up.look()
    await world.until(lambda: orders(world)[0].htlc is HtlcState.IN_FLIGHT)
    world.lnd.settle(world.theirs.payment_hash, world.theirs.preimage)
    await world.until_closed(orders(world)[0].id, within_s=300)
    world.store._conn.execute("UPDATE orders SET state = 'nonsense'")
    await top_up.look()
    assert world.store._one("SELECT count(*) FROM orders") == 1
    await asyncio.sleep(EVERY_S)
    await top_up.look()
    assert world.store._one("SELECT count(*) FROM orders") == 2


async def test_a_balance_that_does_not_show_what_was_paid_is_no_reason_to_pay_again_and_again(world: World) -> None:
    top_up = top_up_of(world)
    world.provider.balance_sat = 0
    for _ in range(3 * EVERY_S // 600):
        await top_up.look()
        await world.until(lambda: orders(world)[0].htlc in {HtlcState.IN_FLIGHT, HtlcState.SETTLED})
        for theirs in world.provider.orders.values():
            world.lnd.settle(theirs.payment_hash, theirs.preimage)
        await asyncio.sleep(600)
    assert 2 <= len(orders(world)) <= 4


async def test_what_the_limits_do_not_allow_is_logged_once_and_not_ordered(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    top_up = top_up_of(world)
    world.provider.balance_sat = ProviderUnavailable("away")
    await top_up.look()
    await top_up.look()
    assert orders(world) == []
    assert capsys.readouterr().out.count("cannot be topped up") == 1
