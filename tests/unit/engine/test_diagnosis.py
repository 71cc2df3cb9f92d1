"""One look at lnd for each failed dispatch that no other follows at once; the end waits for it, but not long."""

from __future__ import annotations

import asyncio

import pytest

from holdpay.core.diagnosis import Cause
from holdpay.core.hold import DIAGNOSED_WITHIN_S
from holdpay.core.model import Order
from holdpay.core.routes import Route, RouteLook
from holdpay.core.states import End
from tests.fakes import NO_ROUTE, PAYEE, Send
from tests.unit.engine.world import World

TOO_DEAR = RouteLook(
    is_route_known=True, dearer=Route(fee_msat=37_000, lock_blocks=163, hops=(PAYEE,), first_channel="1x1x0")
)
WORDS = "a route exists at 37 sat, your limit is 20 sat: allow a higher fee"


async def _ended(world: World) -> Order:
    world.lnd.next_sends += [Send(fails=NO_ROUTE)] * 50
    return await world.until_closed(world.request())


async def test_a_look_for_each_dispatch_after_the_climb_and_the_last_one_is_the_reason(world: World) -> None:
    world.lnd.route_look = TOO_DEAR
    order = await _ended(world)
    assert order.end is End.PAYMENT_FAILED
    assert order.reason.endswith(f"; {WORDS}")
    assert order.payment is not None
    assert order.payment.diagnosis is not None
    assert order.payment.diagnosis.cause is Cause.FEE_LIMIT
    tries = world.store.dispatches(order.id)
    # The first one was followed by the next rung at once.
    assert len(world.lnd.route_queries) == len(tries) - 1 == order.payment.dispatch_count - 1
    assert [each.record.fee_limit_msat for each in tries] == [10_000] + [20_000] * (len(tries) - 1)
    assert [each.record.cause for each in tries] == [None] + [Cause.FEE_LIMIT] * (len(tries) - 1)
    assert {query.fee_limit_msat for query in world.lnd.route_queries} == {20_000}


async def test_an_lnd_that_never_answers_holds_up_the_end_for_some_seconds_only(world: World) -> None:
    world.lnd.route_look_s = 1e6
    order = await _ended(world)
    assert order.payment is not None
    assert order.payment.failure is not None
    assert order.closed_at_ms is not None
    assert order.reason.endswith("; no route worked within the limits for fee and time lock")
    assert order.closed_at_ms - order.payment.failure.at_ms <= (DIAGNOSED_WITHIN_S + 2) * 1000


async def test_a_look_that_a_crash_cut_off_is_taken_again_by_the_next_process(world: World) -> None:
    world.lnd.route_look, world.lnd.route_look_s = TOO_DEAR, 3.0
    world.lnd.next_sends += [Send(fails=NO_ROUTE)] * 50
    order_id = world.request()
    while not world.lnd.route_queries:
        await asyncio.sleep(0.1)
    before = world.engine.order(order_id)
    assert before is not None
    assert before.payment is not None
    assert before.payment.diagnosis is None
    await world.crash()
    world.start()
    await asyncio.sleep(4)
    after = world.engine.order(order_id)
    assert after is not None
    assert after.payment is not None
    assert after.payment.diagnosis is not None
    assert (after.payment.dispatch_count, after.payment.diagnosis.text) == (before.payment.dispatch_count, WORDS)


async def test_a_look_that_fails_by_a_defect_keeps_no_order_open(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*given: object) -> RouteLook:
        raise RuntimeError("a defect of ours")

    monkeypatch.setattr(world.lnd, "look_for_route", broken)
    order = await _ended(world)
    assert (order.end, order.is_quarantined) == (End.PAYMENT_FAILED, False)


async def test_a_payment_that_goes_well_is_not_looked_at(world: World) -> None:
    order = await world.until_closed(world.request())
    assert order.end is End.FULFILLED
    assert world.lnd.route_queries == []
