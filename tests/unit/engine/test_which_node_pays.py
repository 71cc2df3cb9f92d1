"""Another node behind lnd.address is in the way while money is out from the first one, and no longer."""

from __future__ import annotations

from collections import deque

import pytest

from holdpay.core.states import End, HtlcState, OrderState
from holdpay.ports import NodeState
from tests.fakes import HOP_DOWN, MALLORY, Send, Story
from tests.unit.engine.world import World


async def test_another_node_is_wrong_while_money_is_out_from_the_first_one(world: World) -> None:
    world.provider.story = Story(number_after_s=20)
    order_id = world.request()
    await world.until(lambda: world.order(order_id).state is OrderState.PAID)
    world.lnd.node = MALLORY
    assert world.engine.node_status().state is NodeState.WRONG_NODE
    assert not world.engine.may_pay_from(MALLORY)


@pytest.mark.parametrize(
    ("send", "htlc"),
    [
        (Send(arrives_after_s=None, is_lost=True), HtlcState.NONE),
        (Send(fails=HOP_DOWN), HtlcState.FAILED),
        (Send(), HtlcState.SETTLED),
    ],
)
async def test_another_node_is_no_wrong_one_for_an_open_order_without_money_out(
    world: World, send: Send, htlc: HtlcState
) -> None:
    """New orders are paid from it; the open one waits for its own node, or for the provider."""
    world.lnd.next_sends = deque([send])
    world.provider.story = Story(number_after_s=None, code_after_s=None)
    order_id = world.request(1)
    await world.until_event(order_id, "dispatch_intended")
    world.provider.go_down()
    if htlc is HtlcState.SETTLED:
        world.lnd.settle(world.theirs.payment_hash, world.theirs.preimage)
    await world.until(lambda: world.order(order_id).htlc is htlc)
    world.lnd.node = MALLORY

    assert not world.order(order_id).is_closed
    assert world.engine.node_status().state is NodeState.READY
    world.provider.story = Story()
    world.provider.come_back()
    assert (await world.until_closed(world.request(2))).end is End.FULFILLED
