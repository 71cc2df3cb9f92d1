"""The caps of holds: who gets a place, who waits, and that a crash changes nothing of it."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdpay.audit.check import read_stored
from holdpay.audit.findings import Severity
from holdpay.core.budget import Budget
from holdpay.core.holds import HoldCaps, WhenFull, takes_place
from holdpay.core.kinds import FundSpec
from holdpay.core.states import End, HtlcState, OrderState
from holdpay.engine.wanted import Asked, CodeWanted
from holdpay.errors import LimitExceeded, StoreError
from tests.fakes import Story
from tests.unit import build
from tests.unit.engine.desks import desk_of
from tests.unit.engine.world import LIMITS, World

HELD = Story(number_after_s=None, code_after_s=None)
ONE = HoldCaps(max_orders=1)


@pytest.fixture
def capped(world: World) -> World:
    """One hold at a time, and it stays out until a test ends it."""
    world.provider.story = HELD
    set_caps(world, ONE)
    return world


def set_caps(world: World, caps: HoldCaps) -> None:
    """As of a start with this configuration."""
    world.caps = caps
    world.engine.places.caps = caps


def placed(world: World) -> int:
    return sum(takes_place(order) for order in world.store.open_orders())


async def until_held(world: World, order_id: str) -> None:
    await world.until(lambda: world.order(order_id).htlc is HtlcState.IN_FLIGHT)


async def end_hold(world: World, order_id: str) -> None:
    payment = world.order(order_id).payment
    assert payment is not None
    theirs = next(one for one in world.provider.orders.values() if one.payment_hash == payment.payment_hash)
    world.lnd.settle(theirs.payment_hash, theirs.preimage)
    await world.until(lambda: world.order(order_id).htlc is HtlcState.SETTLED)


async def test_three_orders_go_one_after_the_other_the_oldest_first(capped: World) -> None:
    ids = [capped.request(n) for n in (1, 2, 3)]
    for at, order_id in enumerate(ids):
        await until_held(capped, order_id)
        await asyncio.sleep(60)
        assert len(capped.provider.orders) == at + 1, "the others were not even placed"
        assert placed(capped) == 1
        assert all(capped.order(later).is_waiting for later in ids[at + 1 :])
        await end_hold(capped, order_id)
    assert "place_given" not in capped.events(ids[0])
    assert capped.events(ids[1])[:2] == ["order_requested", "place_given"]


async def test_the_queue_says_how_many_are_out_and_whose_turn_is_next(capped: World) -> None:
    first, second, third = (capped.request(n) for n in (1, 2, 3))
    places, order = capped.engine.places, capped.order
    assert [places.position(order(one)) for one in (first, second, third)] == [None, 1, 2]
    assert places.words(order(third)) == "1 of 1 holds are out; 2nd in the queue"
    assert [one.id for one in capped.engine.first_waiting(20)] == [second, third]
    await capped.engine.cancel(second)
    assert places.words(order(third)) == "1 of 1 holds are out; 1st in the queue"


async def test_a_client_that_finds_no_place_is_not_told_how_much_the_others_hold(capped: World) -> None:
    capped.request()
    waiting = capped.order(capped.request(2, client="ann"))
    places = capped.engine.places
    assert places.words(waiting, "ann") == "there is no place for it yet; 1st in the queue"
    set_caps(capped, HoldCaps(max_orders=1, max_locked_sat=3_000, when_full=WhenFull.REFUSE))
    desk = desk_of(capped.engine)
    assert "1 of 1 holds" in desk.reason_against_orders()
    assert desk.reason_against_orders("ann").startswith("All clients together leave no room (holds.max_orders).")
    with pytest.raises(LimitExceeded) as error:
        capped.request(3, client="ann")
    assert error.value.metadata == {"limit": "holds.max_orders"}
    set_caps(capped, HoldCaps(max_locked_sat=3_000, when_full=WhenFull.REFUSE))
    with pytest.raises(LimitExceeded) as error:
        capped.request(3, client="ann")
    assert error.value.metadata == {"limit": "holds.max_locked_sat"}
    set_caps(capped, HoldCaps(max_orders=9, when_full=WhenFull.REFUSE))
    for client, said in (("", "1 order waits"), ("ann", "All clients together leave no room (holds).")):
        full = places.entering(build.order(client=client))
        assert full is not None
        assert full.message.startswith(said)


async def test_one_that_is_canceled_while_it_waits_ends_at_once_and_costs_nothing(capped: World) -> None:
    _, second, third = (capped.request(n) for n in (1, 2, 3))
    closed = await capped.engine.cancel(second)
    assert (closed.end, closed.spent_msat) == (End.CANCELED_UNPAID, 0)
    assert len(capped.provider.orders) <= 1
    assert capped.engine.places.waiting == 1
    assert capped.order(third).is_waiting


async def test_one_that_waits_too_long_is_closed_and_nothing_was_ordered(capped: World) -> None:
    _, second = capped.request(1), capped.request(2)
    closed = await capped.until_closed(second)
    assert closed.end is End.NO_PLACE
    assert capped.policy.hold_max_wait_s <= capped.now_s <= capped.policy.hold_max_wait_s + 2
    assert len(capped.provider.orders) == 1


async def test_a_new_order_never_overtakes_one_that_waits(capped: World) -> None:
    first, second = capped.request(1), capped.request(2)
    await until_held(capped, first)
    payment = capped.order(first).payment
    assert payment is not None
    settling = asyncio.create_task(end_hold(capped, first))
    third = capped.request(3)
    await settling
    await until_held(capped, second)
    assert capped.order(third).is_waiting


async def test_a_crash_keeps_the_queue_and_its_order(capped: World) -> None:
    first, second, third = (capped.request(n) for n in (1, 2, 3))
    await until_held(capped, first)
    await capped.crash()
    capped.start()
    assert [one.id for one in capped.engine.first_waiting(20)] == [second, third]
    await asyncio.sleep(60)
    assert (placed(capped), len(capped.provider.orders)) == (1, 1)
    await end_hold(capped, first)
    await until_held(capped, second)
    assert capped.order(third).is_waiting


@pytest.mark.parametrize("is_durable", [False, True])
async def test_a_crash_at_the_commit_that_gives_a_place_gives_it_once(capped: World, is_durable: bool) -> None:
    first, second, third = (capped.request(n) for n in (1, 2, 3))
    await until_held(capped, first)
    await asyncio.sleep(60)
    capped.store.crash_at, capped.store.is_durable = capped.store.begun_count + 2, is_durable
    payment = capped.order(first).payment
    assert payment is not None
    capped.lnd.settle(payment.payment_hash, capped.theirs.preimage)
    await capped.failure()
    assert capped.order(second).is_waiting is not is_durable
    assert len(capped.provider.orders) == 1, "nothing is placed before its place is on disk"
    capped.store.close()
    capped.start()
    await until_held(capped, second)
    assert (placed(capped), capped.order(third).is_waiting) == (1, True)
    assert capped.events(second).count("place_given") == 1


async def test_a_cap_that_is_raised_at_a_restart_lets_the_next_ones_in(capped: World) -> None:
    first, second, third = (capped.request(n) for n in (1, 2, 3))
    await until_held(capped, first)
    await capped.crash()
    capped.caps = HoldCaps(max_orders=2)
    capped.start()
    await until_held(capped, second)
    assert capped.order(third).is_waiting


async def test_the_sum_of_what_may_be_locked_is_capped_with_the_largest_fees(world: World) -> None:
    world.provider.story = HELD
    set_caps(world, HoldCaps(max_locked_sat=2 * 2_060 - 1))
    first, second = world.request(1), world.request(2)
    assert world.order(second).is_waiting
    assert world.engine.places.words(world.order(second)) == "2,060 of 4,119 sat are locked; 1st in the queue"
    await until_held(world, first)
    # Its invoice asks 2,000 sat, and it reserved 2,040.
    await until_held(world, second)


async def test_an_order_that_alone_is_over_the_sum_is_refused_whatever_becomes_of_others(world: World) -> None:
    set_caps(world, HoldCaps(max_locked_sat=2_059))
    with pytest.raises(LimitExceeded, match=r"holds\.max_locked_sat") as refused:
        world.request()
    assert refused.value.metadata == {"limit": "holds.max_locked_sat", "limit_sat": "2059", "wanted_sat": "2060"}
    assert world.store.open_orders() == []


async def test_where_it_may_not_wait_it_is_refused_and_nothing_is_recorded(capped: World) -> None:
    set_caps(capped, HoldCaps(max_orders=1, when_full=WhenFull.REFUSE))
    first = capped.request(1)
    with pytest.raises(LimitExceeded, match=r"1 of 1 holds are out or about to be \(holds\.max_orders\)"):
        capped.request(2)
    assert [order.id for order in capped.store.open_orders()] == [first]
    with pytest.raises(LimitExceeded):
        capped.request(1, client="shop")
    assert len(capped.store.open_orders()) == 1, "another client's key is another request"


async def test_a_key_that_is_used_twice_at_once_is_one_order_where_none_may_wait(capped: World) -> None:
    set_caps(capped, HoldCaps(max_orders=1, when_full=WhenFull.REFUSE))
    desk, wanted = desk_of(capped.engine), CodeWanted(countries=("0",), service="OpenAI")
    first, second = await asyncio.gather(*(desk.submit(Asked(key="k"), wanted) for _ in range(2)))
    assert first.id == second.id
    assert (await desk.submit(Asked(key="k"), wanted)).id == first.id
    with pytest.raises(LimitExceeded):
        await desk.submit(Asked(key="another"), wanted)


async def test_a_prepaid_order_needs_no_place(capped: World) -> None:
    capped.request(1)
    assert not capped.order(capped.request(2, is_prepaid=True, max_fee_sat=0)).is_waiting


async def test_an_order_that_fails_for_good_gives_its_place_up_before_it_closes(world: World, tmp_path: Path) -> None:
    world.provider.story = Story(number_after_s=None, code_after_s=None)
    set_caps(world, ONE)
    first, second = world.request(1), world.request(2)
    await until_held(world, first)
    world.engine.quarantine(second, RuntimeError("a defect"))
    await world.until(lambda: world.order(second).is_quarantined)
    third = world.request(3)
    await end_hold(world, first)
    await until_held(world, third)
    assert world.order(second).state is OrderState.REQUESTED


async def test_the_audit_finds_nothing_wrong_with_orders_that_wait_or_waited_in_vain(capped: World) -> None:
    first, second = capped.request(1), capped.request(2)
    await until_held(capped, first)
    found = read_stored(capped.path, capped.policy, capped.clock.now_ms())
    assert [finding for finding in found.findings if finding.severity > Severity.UNRESOLVED] == []
    await capped.until_closed(second)
    found = read_stored(capped.path, capped.policy, capped.clock.now_ms())
    assert {finding.code for finding in found.findings if finding.severity > Severity.UNRESOLVED} <= {"alarm"}


@pytest.mark.parametrize("lowered", [HoldCaps(max_locked_sat=10_000), HoldCaps(max_channel_locked_sat=10_000)])
async def test_one_that_a_lowered_cap_leaves_no_place_ends_at_once_and_holds_nobody_up(
    world: World, lowered: HoldCaps
) -> None:
    world.provider.story = HELD
    set_caps(world, HoldCaps(max_locked_sat=22_000))
    first = world.request(1)
    await until_held(world, first)
    big, third = world.request(2, max_price_sat=20_000, max_fee_sat=0), world.request(3)
    assert (world.order(big).is_waiting, world.order(third).is_waiting) == (True, True)
    await world.crash()
    world.caps = lowered
    world.start()
    await until_held(world, third)
    closed = world.order(big)
    assert (closed.end, closed.spent_msat, world.events(big)[-1]) == (End.NO_PLACE, 0, "place_denied")
    key = "max_locked_sat" if lowered.max_locked_sat else "max_channel_locked_sat"
    assert f"alone may lock 20,000 sat, and holds.{key} is 10,000" in closed.reason
    assert len(world.provider.orders) == 2, "it was not even placed"


PENDING_SAT = 2_060
"""What an order of these tests may cost, with its largest fee."""


NO_ROOM = "leaves no room for it any more. Order again when there is room, or have the limit raised."
TOO_DEAR = "does not allow its price any more. Order again within it, or have it raised."


async def until_denied(world: World, order_id: str, why: str) -> None:
    """In vain it waited, for that reason, and nothing was ordered for it."""
    closed = await world.until_closed(order_id, within_s=1)
    assert (closed.end, closed.spent_msat, world.events(order_id)[-1]) == (End.NO_PLACE, 0, "place_denied")
    assert closed.reason == why


@pytest.mark.parametrize(
    ("limit", "room_for_two"),
    [
        ("max_open_orders", 2),
        ("max_pending_sat", 2 * PENDING_SAT),
        ("max_spend_per_day_sat", 2 * PENDING_SAT),
    ],
)
@pytest.mark.parametrize("is_restart", [False, True])
async def test_limits_that_are_lowered_hold_for_what_waits_the_oldest_has_the_room_that_is_left(
    capped: World, limit: str, room_for_two: Any, is_restart: bool
) -> None:
    capped.limits = capped.engine.limits = replace(LIMITS, budgets={"ann": Budget(client="ann")})
    ids = [capped.request(n, client="ann") for n in (1, 2, 3, 4)]
    limits = replace(capped.limits, **{limit: room_for_two})
    if is_restart:
        await capped.crash()
        capped.limits = limits
        capped.start()
    else:
        capped.engine.take_limits(limits)
    for order_id in ids[2:]:
        await until_denied(capped, order_id, f"limits.{limit} {NO_ROOM}")
    assert capped.order(ids[1]).is_waiting
    await until_held(capped, ids[0])
    await end_hold(capped, ids[0])
    await until_held(capped, ids[1])
    assert len(capped.provider.orders) == 2


@pytest.mark.parametrize("is_lower", [False, True])
async def test_a_price_limit_that_a_restart_has_lowered_holds_for_what_waits(capped: World, is_lower: bool) -> None:
    first, second = capped.request(1), capped.request(2)
    await until_held(capped, first)
    await capped.crash()
    capped.policy = replace(capped.policy, max_price_sat=2_040 - is_lower)
    capped.start()
    if is_lower:
        await until_denied(capped, second, f"payment.max_price_sat {TOO_DEAR}")
    await asyncio.sleep(1)
    assert capped.order(second).is_waiting is not is_lower
    assert capped.order(first).htlc is HtlcState.IN_FLIGHT


@pytest.mark.parametrize("fits", [False, True])
async def test_a_big_one_that_a_lowered_limit_has_no_room_for_leaves_it_to_a_small_one_behind_it(
    capped: World, fits: bool
) -> None:
    first = capped.request(1)
    big, small = capped.request(2, max_price_sat=10_000, max_fee_sat=0), capped.request(3)
    limit_sat = PENDING_SAT + 10_000 + PENDING_SAT if fits else 3 * PENDING_SAT
    capped.engine.take_limits(replace(capped.engine.limits, max_pending_sat=limit_sat))
    if not fits:
        await until_denied(capped, big, f"limits.max_pending_sat {NO_ROOM}")
    await asyncio.sleep(1)
    assert capped.order(big).is_waiting is fits
    assert capped.order(small).is_waiting
    await until_held(capped, first)


@pytest.mark.parametrize(
    ("limit", "lowered", "why"),
    [
        ("max_spend_per_day_sat", 2 * PENDING_SAT, NO_ROOM),
        ("max_fee_per_day_sat", 2 * 20, NO_ROOM),
        ("max_open_orders", 2, NO_ROOM),
        ("max_price_sat", 2_040, TOO_DEAR),
        (
            "may_fund",
            False,
            "does not allow it any more. Ask the operator to fund the account, or to set the key.",
        ),
    ],
)
async def test_a_clients_lowered_budget_holds_for_what_it_has_waiting_and_for_nobody_else(
    capped: World, limit: str, lowered: Any, why: str
) -> None:
    ann = Budget(client="ann", may_fund=True, max_price_sat=2_041, max_open_orders=3, max_orders_per_minute=1)
    capped.request(1, client="ann")
    kept = [capped.request(2), capped.request(3, client="ann")]
    last = capped.request(4, client="ann", spec=FundSpec(amount_sat=2_041), max_price_sat=2_041)
    capped.engine.take_limits(replace(capped.engine.limits, budgets={"ann": ann}))
    await asyncio.sleep(1)
    assert capped.order(last).is_waiting, "what is as it was denies nobody"
    capped.engine.take_limits(replace(capped.engine.limits, budgets={"ann": replace(ann, **{limit: lowered})}))
    await until_denied(capped, last, f"client.ann.{limit} {why}")
    assert all(capped.order(order_id).is_waiting for order_id in kept)


@pytest.mark.parametrize("is_gone", [False, True])
async def test_of_a_client_that_is_gone_from_the_configuration_nothing_that_waits_is_ordered(
    capped: World, is_gone: bool
) -> None:
    capped.engine.limits = replace(LIMITS, budgets={"ann": Budget(client="ann"), "bob": Budget(client="bob")})
    held, anns, bobs, own = (capped.request(n, client=who) for n, who in enumerate(("ann", "ann", "bob", ""), 1))
    await until_held(capped, held)
    await capped.crash()
    capped.limits = replace(
        LIMITS, budgets={who: Budget(client=who) for who in ("ann", "bob") if who == "bob" or not is_gone}
    )
    capped.start()
    if is_gone:
        why = (
            "ann is no client of the configuration any more, so nothing says what it may spend."
            " Order it anew, or have the client entered again."
        )
        await until_denied(capped, anns, why)
    await end_hold(capped, held)
    for order_id in (bobs, own) if is_gone else (anns, bobs, own):
        await until_held(capped, order_id)
        await end_hold(capped, order_id)
    assert len(capped.provider.orders) == 4 - is_gone


@pytest.mark.parametrize("table", ["ledger", "orders"])
async def test_where_it_cannot_be_read_what_is_allowed_the_process_ends_and_nobody_gets_a_place(
    capped: World, table: str
) -> None:
    limits = capped.engine.limits = replace(LIMITS, budgets={"ann": Budget(client="ann")})
    first, second = capped.request(1), capped.request(2, client="ann")
    await until_held(capped, first)

    conn = capped.store._conn

    def refuse(action: int, name: str | None, *of: object) -> int:
        return sqlite3.SQLITE_DENY if (action, name) == (sqlite3.SQLITE_READ, table) else sqlite3.SQLITE_OK

    conn.set_authorizer(refuse)
    with pytest.raises(StoreError):
        capped.engine.take_limits(limits)
    conn.set_authorizer(None)
    assert isinstance(await capped.failure(), StoreError)
    assert capped.order(second).is_waiting
    await capped.crash()
    capped.start()
