"""Another node behind lnd.address is in the way while money is out from the first one, and no longer."""

from __future__ import annotations

from collections import deque

import pytest

from holdpay.core.states import End, HtlcState, OrderState
from holdpay.ports import NodeState
from tests.fakes import ALICE, HOP_DOWN, MALLORY, Send, Story
from tests.unit.engine.world import World


async def test_another_node_is_wrong_while_money_is_out_from_the_first_one(world: World) -> None:
    world.provider.story = Story(number_after_s=20)
    order_id = world.request()
    await world.until(lambda: world.order(order_id).state is OrderState.PAID)
    world.lnd.node = MALLORY
    assert world.engine.node_status().state is NodeState.WRONG_NODE
    assert not world.engine.may_pay_from(MALLORY)


async def test_an_order_that_waits_for_the_node_that_paid_another_says_so_at_once_and_is_paid_from_that(
    world: World,
) -> None:
    """Also before lnd's state is known to be wrong: the look at lnd comes every few seconds."""
    world.provider.story = Story(number_after_s=None, code_after_s=None)
    held = world.request(1)
    await world.until(lambda: world.order(held).state is OrderState.PAID)
    world.lnd.node = MALLORY
    waiting = world.request(2)
    await world.until(lambda: bool(world.engine.held_up_by(waiting)))
    assert world.order(waiting).state is OrderState.AWAITING_PAYMENT
    assert "Point lnd.address at that node again" in world.engine.why_unpaid(world.order(waiting))
    assert len(world.lnd.sends) == 1

    world.lnd.node = ALICE
    await world.until(lambda: world.order(waiting).state is OrderState.PAID)
    payment = world.order(waiting).payment
    assert payment is not None
    assert (payment.node_pubkey, world.engine.held_up_by(waiting)) == (ALICE.pubkey, "")


async def test_an_order_whose_own_node_is_away_names_it(world: World) -> None:
    world.lnd.next_sends = deque([Send(fails=HOP_DOWN)])
    order_id = world.request()
    await world.until(lambda: world.order(order_id).htlc is HtlcState.FAILED)
    world.lnd.node = MALLORY
    await world.until(lambda: bool(world.engine.held_up_by(order_id)))
    assert ALICE.pubkey[:16] in world.engine.why_unpaid(world.order(order_id))


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
