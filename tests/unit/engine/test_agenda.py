"""An order is looked at when something happened to it or its deadline has come, and costs nothing meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from holdpay.core.guard import Finding, Sight, findings
from holdpay.core.lightning import NodeIdentity
from holdpay.core.model import Order
from holdpay.core.policy import Policy
from holdpay.core.states import End, HtlcState, OrderState
from holdpay.engine import engine as engine_module
from holdpay.engine.agenda import _STALE_KEPT, Agenda
from holdpay.engine.engine import PASS_INTERVAL_S
from holdpay.engine.tally import Tally
from tests.fakes import Story
from tests.unit import build
from tests.unit.build import ALICE, MALLORY
from tests.unit.engine.world import World

HOUR_S = 3600


# --- the agenda -----------------------------------------------------------------------------------------------------


def test_an_order_is_due_at_the_earliest_time_that_was_planned_for_it_and_once() -> None:
    agenda = Agenda()
    for at_ms in (500, 300, 400):
        agenda.plan("a", at_ms)
    agenda.plan("b", 200)
    assert agenda.due(199) == []
    assert agenda.due(300) == ["b", "a"]
    assert agenda.due(1_000) == []


def test_what_is_planned_again_after_it_was_due_is_due_again() -> None:
    agenda = Agenda()
    agenda.plan("a", 100)
    assert agenda.due(100) == ["a"]
    agenda.plan("a", 100)
    assert agenda.due(100) == ["a"]


def test_a_time_that_is_planned_again_and_again_is_kept_once() -> None:
    agenda = Agenda()
    for _ in range(100):
        agenda.plan("a", 5)
    assert len(agenda._heap) == 1
    assert agenda.due(5) == ["a"]


def test_what_is_forgotten_is_not_due() -> None:
    agenda = Agenda()
    agenda.plan("a", 100)
    agenda.forget("a")
    agenda.forget("never there")
    assert agenda.due(100) == []


def test_times_that_were_overtaken_do_not_pile_up_and_no_order_is_lost_by_that() -> None:
    agenda = Agenda()
    agenda.plan("b", 7)
    for at_ms in range(100_000, 10, -1):
        agenda.plan("a", at_ms)
    assert len(agenda._heap) < 2_000
    assert agenda.due(11) == ["b", "a"]


def test_no_order_is_late_or_out_of_turn_after_the_times_that_were_overtaken_are_gone() -> None:
    agenda = Agenda()
    for name, at_ms in (("a", 9), ("b", 5), ("c", 8), ("d", 1), ("e", 7)):
        agenda.plan(name, at_ms)
    for at_ms in range(2 * _STALE_KEPT + 100, 100, -1):
        agenda.plan("f", at_ms)
    assert [agenda.due(now_ms) for now_ms in (4, 6, 8, 101)] == [["d"], ["b"], ["e", "c"], ["a", "f"]]


@pytest.mark.parametrize("count", [1, 3])
def test_beside_twice_as_many_as_there_are_orders_a_thousand_times_are_kept_that_were_overtaken(count: int) -> None:
    agenda = Agenda()
    for number in range(count):
        agenda.plan(f"order {number}", 1)
    sizes = []
    for at_ms in range(10 * _STALE_KEPT, 0, -1):
        agenda.plan("a", at_ms)
        agenda.plan("a", at_ms)
        agenda.plan("a", at_ms + 1)
        sizes.append(len(agenda._heap))
    assert max(sizes) == 2 * (count + 1) + _STALE_KEPT
    assert sizes.count(count + 1) == 1 + (10 * _STALE_KEPT - 1) // (count + 1 + _STALE_KEPT + 1)


# --- the engine -----------------------------------------------------------------------------------------------------


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each order was looked at."""
    counted: Counter[str] = Counter()

    def counting(order: Order, policy: Policy, now_ms: int, sight: Sight) -> tuple[Finding, ...]:
        counted[order.id] += 1
        return findings(order, policy, now_ms, sight)

    monkeypatch.setattr(engine_module, "findings", counting)
    return counted


async def _held(world: World, count: int = 1) -> list[str]:
    world.provider.story = Story(number_after_s=None, code_after_s=None)
    ids = [world.request(n) for n in range(1, count + 1)]
    await world.until(lambda: all(world.order(order_id).state is OrderState.PAID for order_id in ids))
    return ids


async def test_an_order_to_which_nothing_happens_is_looked_at_at_its_deadlines_only(
    world: World, looks: Counter[str]
) -> None:
    ids = await _held(world, 5)
    await asyncio.sleep(2)
    looks.clear()
    await asyncio.sleep(20 * 60)
    assert all(looks[order_id] <= 6 for order_id in ids), looks


async def test_what_happened_to_an_order_is_looked_at_with_the_next_pass(world: World, looks: Counter[str]) -> None:
    (order_id,) = await _held(world)
    await asyncio.sleep(2)
    looks.clear()
    await world.engine.cancel(order_id)
    await asyncio.sleep(PASS_INTERVAL_S + 0.1)
    assert looks[order_id] == 1


async def test_an_alarm_begins_within_a_pass_of_its_time_and_ends_with_its_order(world: World) -> None:
    (order_id,) = await _held(world)
    order = world.order(order_id)
    assert order.payment is not None
    assert order.payment.money_out_since_ms is not None
    policy = world.policy
    from_s = (
        (order.payment.money_out_since_ms - world.clock.offset_ms) / 1000 + policy.promise_s + policy.guard_refund_s
    )
    await asyncio.sleep(from_s - asyncio.get_running_loop().time())
    assert world.engine.alarms() == []
    await asyncio.sleep(PASS_INTERVAL_S + 0.1)
    assert len(world.engine.alarms()) == 1
    world.theirs.status = replace(world.theirs.status, is_paid=True, code="012345")
    world.lnd.settle(world.theirs.payment_hash, world.theirs.preimage)
    await world.until_closed(order_id)
    assert world.engine.alarms() == []


async def test_a_clock_that_is_set_forward_brings_the_deadlines_with_the_next_pass(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.lnd, "decode", lambda payreq: asyncio.Event().wait())
    order_id = world.request()
    await asyncio.sleep(2)
    assert not world.order(order_id).is_closed
    world.clock.offset_ms += world.policy.pay_within_s * 1000
    await asyncio.sleep(PASS_INTERVAL_S + 0.1)
    assert world.order(order_id).end is End.PAYMENT_FAILED


async def test_a_clock_that_is_set_back_has_every_order_looked_at(world: World, looks: Counter[str]) -> None:
    ids = await _held(world, 3)
    await asyncio.sleep(2)
    looks.clear()
    world.clock.offset_ms -= HOUR_S * 1000
    await asyncio.sleep(PASS_INTERVAL_S + 0.1)
    assert all(looks[order_id] == 1 for order_id in ids)


async def test_a_pass_over_many_orders_lets_others_have_their_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "LOOKS_AT_ONCE", 2)
    await _held(world, 7)
    order: list[str] = []
    look = world.engine._look

    def looked(of: Order, now_ms: int) -> None:
        order.append("look")
        look(of, now_ms)

    monkeypatch.setattr(world.engine, "_look", looked)
    world.clock.offset_ms -= 1_000
    passing = asyncio.create_task(world.engine._pass())
    while not passing.done():
        await asyncio.sleep(0)
        order.append("other")
    assert "".join("l" if each == "look" else "o" for each in order).startswith("llollollolo")


async def test_after_a_start_the_tasks_of_all_orders_begin_a_few_in_a_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "LOOKS_AT_ONCE", 2)
    ids = await _held(world, 7)
    await world.crash()
    world.start()
    begun = [0]
    while begun[-1] < len(ids):
        await asyncio.sleep(0)
        begun.append(sum(task.get_name() in {f"pay {order_id}" for order_id in ids} for task in asyncio.all_tasks()))
    assert max(now - before for before, now in pairwise(begun)) == 2


# --- the tally --------------------------------------------------------------------------------------------------------


def test_what_is_out_is_counted_from_the_dispatch_to_the_end() -> None:
    tally = Tally()
    before, out = (
        build.pair(OrderState.AWAITING_PAYMENT, HtlcState.NONE),
        build.pair(OrderState.AWAITING_PAYMENT, HtlcState.IN_FLIGHT),
    )
    tally.changed(None, before)
    assert (tally.out, tally.locked_msat) == (0, 0)
    tally.changed(before, out)
    assert (tally.out, tally.locked_msat) == (1, out.locked_msat)
    tally.changed(out, None)
    assert (tally.out, tally.locked_msat) == (0, 0)


def test_another_payer_is_one_as_long_as_money_of_one_order_is_out_from_it() -> None:
    tally = Tally()
    first, second = _paid_from(ALICE), _paid_from(ALICE)
    tally.changed(None, first)
    tally.changed(None, second)
    assert (tally.payer_besides(MALLORY), tally.payer_besides(ALICE)) == (ALICE, None)
    tally.changed(first, None)
    assert tally.payer_besides(MALLORY) == ALICE
    tally.changed(second, None)
    assert tally.payer_besides(MALLORY) is None


def _paid_from(node: NodeIdentity) -> Order:
    order = build.pair(OrderState.PAID, HtlcState.IN_FLIGHT)
    assert order.payment is not None
    return replace(order, payment=replace(order.payment, node_pubkey=node.pubkey, node_network=node.network))
