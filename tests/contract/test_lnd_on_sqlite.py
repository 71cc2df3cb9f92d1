"""An lnd that keeps payments in tables of SQLite (db.backend=sqlite, db.use-native-sql): what is another there.

All else is as the other suites say: they were run on such an lnd 0.21.0, too, once and by hand.
"""

from __future__ import annotations

import pytest

from holdpay.core.lightning import FailureReason, PaymentStatus, Reported
from tests.contract.adapter import Stream, lnd_node, payer, spec
from tests.contract.client import Client, Payment
from tests.contract.steps import (
    ALREADY_EXISTS,
    INCORRECT_DETAILS,
    NO_ROUTE,
    cancel,
    cancel_when_held,
    hold,
    later,
    order,
    outcome,
    settle,
)
from tests.contract.worlds import World


@pytest.fixture(params=["sandbox_on_sqlite", pytest.param("real_on_sqlite", marks=pytest.mark.real)])
def world(request: pytest.FixtureRequest) -> World:
    chosen: World = request.getfixturevalue(request.param)
    return chosen


async def test_a_try_gets_the_index_of_the_one_that_it_replaces_and_a_time_of_its_own(
    world: World, lnd: Client
) -> None:
    bought = await order(world)
    first = await lnd.send(bought.payreq, fee_limit_msat=1).end()
    again = await hold(world, lnd, bought)
    await cancel(world, bought)
    last = await again.end()

    assert outcome(first) == (Payment.FAILED, NO_ROUTE)
    assert outcome(last) == (Payment.FAILED, INCORRECT_DETAILS)
    assert last.payment_index == first.payment_index
    assert last.creation_time_ns // 10**6 > first.creation_time_ns // 10**6, "in milliseconds, as it is kept"
    asked = await later(lnd, bought.payment_hash)
    assert (asked.payment_index, asked.creation_time_ns) == (last.payment_index, last.creation_time_ns)


async def test_a_try_after_another_payment_has_a_new_index(world: World, lnd: Client) -> None:
    bought, other = await order(world), await order(world)
    first = await lnd.send(bought.payreq, fee_limit_msat=1).end()
    between = await lnd.send(other.payreq, fee_limit_msat=1).end()
    again = await lnd.send(bought.payreq, fee_limit_msat=1).end()

    assert (between.payment_index, again.payment_index) == (first.payment_index + 1, first.payment_index + 2)


async def test_a_hash_that_is_out_or_was_paid_is_refused_and_that_uses_up_no_index(world: World, lnd: Client) -> None:
    bought, other = await order(world), await order(world)
    stream = await hold(world, lnd, bought)
    while_out = await lnd.send(bought.payreq).refusal()
    await settle(world, bought)
    await stream.end()
    afterwards = await lnd.send(bought.payreq).refusal()
    after = await lnd.send(other.payreq, fee_limit_msat=1).end()

    prefix = "failed to initialize payment: payment is not initializable: "
    assert while_out == (ALREADY_EXISTS, f"{prefix}payment is in transition")
    assert afterwards == (ALREADY_EXISTS, f"{prefix}invoice is already paid")
    assert after.payment_index == stream.messages[0].payment_index + 1


async def test_a_kill_leaves_no_gap_in_the_indexes(world: World, lnd: Client) -> None:
    before = await lnd.send((await order(world)).payreq, fee_limit_msat=1).end()
    await world.kill_payer()
    await world.start_payer()
    async with world.connect() as again:
        after = await again.send((await order(world)).payreq, fee_limit_msat=1).end()

    assert after.payment_index == before.payment_index + 1


async def test_the_adapter_tells_a_second_dispatch_apart_from_the_first(world: World) -> None:
    async with lnd_node(world) as node:
        alice, bought = await payer(node), await order(world)
        first = Stream(node.send(spec(bought, fee_limit_msat=1), alice))
        failed = await first.last()
        second = Stream(node.send(spec(bought), alice))
        await second.out()
        await cancel_when_held(world, bought)
        back = await second.last()

    assert isinstance(failed, Reported)
    assert isinstance(back, Reported)
    assert (back.update.status, back.live) == (PaymentStatus.FAILED, True)
    assert back.update.failure_reason is FailureReason.INCORRECT_PAYMENT_DETAILS
    assert back.update.payment_index == failed.update.payment_index
    assert back.update.created_at_ms != failed.update.created_at_ms
