"""What the desk refuses a client, what a dry run tells it, and that a budget that runs out is told once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from holdpay.core.budget import DAY_MS, HOUR_MS, Budget, Renewal, Usage, Used, window
from holdpay.core.model import Order
from holdpay.core.vetting import Verdict
from holdpay.engine.budgets import BudgetWarnings
from holdpay.engine.wanted import Asked, CodeWanted, FundWanted
from holdpay.errors import LimitExceeded, NotAllowed, PriceTooHigh
from holdpay.ports import OrderFilter
from tests.unit.build import NOW_MS
from tests.unit.engine.desks import desk_of
from tests.unit.engine.test_next_orders import NO_NUMBER, desk
from tests.unit.engine.test_next_orders import WANTED as GOES_ON
from tests.unit.engine.world import LIMITS, World

ASKED = Asked(client="ann", key="k")
WANTED = CodeWanted(countries=("Russia",), service="OpenAI")
PRICE_SAT, CAP_SAT, FEE_SAT = 2_000, 2_040, 20
"""Of the fake provider; with the tolerance; and the fee limit."""


def allow(world: World, **limits: Any) -> None:
    world.engine.limits = replace(LIMITS, budgets={"ann": Budget(client="ann", **limits)})


# --- what is refused ------------------------------------------------------------------------------------------------


async def test_a_price_over_the_clients_own_limit_is_refused_and_nothing_is_ordered(world: World) -> None:
    allow(world, max_price_sat=PRICE_SAT - 1)
    with pytest.raises(PriceTooHigh) as error:
        await desk_of(world.engine).submit(ASKED, WANTED)
    assert error.value.metadata == {"price_sat": "2000", "limit": "client.ann.max_price_sat", "limit_sat": "1999"}
    assert world.store.list_orders(OrderFilter()) == []
    assert (await desk_of(world.engine).submit(replace(ASKED, client="", key="k2"), WANTED)).max_price_sat == CAP_SAT


async def test_its_limit_bounds_what_the_invoice_may_ask(world: World) -> None:
    allow(world, max_price_sat=PRICE_SAT + 1)
    order = await desk_of(world.engine).submit(ASKED, WANTED)
    assert (order.max_price_sat, order.request.client) == (PRICE_SAT + 1, "ann")


async def test_the_budget_counts_what_the_order_may_cost_with_its_whole_fee_limit(world: World) -> None:
    allow(world, max_spend_per_day_sat=CAP_SAT + FEE_SAT - 1)
    with pytest.raises(LimitExceeded) as error:
        await desk_of(world.engine).submit(ASKED, WANTED)
    assert error.value.metadata["wanted_sat"] == str(CAP_SAT + FEE_SAT)
    assert world.provider.place_count == 0
    allow(world, max_spend_per_day_sat=CAP_SAT + FEE_SAT)
    await desk_of(world.engine).submit(ASKED, WANTED)


async def test_a_prepaid_order_counts_too(world: World) -> None:
    allow(world, max_spend_per_day_sat=CAP_SAT - 1)
    with pytest.raises(LimitExceeded):
        await desk_of(world.engine).submit(replace(ASKED, is_prepaid=True), WANTED)
    assert world.provider.place_count == 0


@pytest.mark.parametrize("is_dry", [False, True])
async def test_only_a_client_that_may_puts_money_into_the_account(world: World, is_dry: bool) -> None:
    allow(world)
    desk = desk_of(world.engine)
    with pytest.raises(NotAllowed):
        await (desk.check if is_dry else desk.submit)(ASKED, FundWanted(amount_sat=1_000))
    allow(world, may_fund=True)
    await (desk.check if is_dry else desk.submit)(ASKED, FundWanted(amount_sat=1_000))


async def test_each_order_of_a_request_that_goes_on_needs_room_and_what_the_last_one_gave_back_is_room(
    world: World,
) -> None:
    allow(world, max_spend_per_day_sat=CAP_SAT + FEE_SAT)
    world.provider.story = NO_NUMBER
    first = await desk(world).submit(ASKED, GOES_ON)
    allow(world, max_spend_per_day_sat=CAP_SAT + FEE_SAT - 1)

    def orders() -> list[Order]:
        return world.store.orders_of(first.request.id)

    await world.until(lambda: orders()[0].is_closed)
    await asyncio.sleep(300)
    assert len(orders()) == 1, "it waits for room"
    allow(world, max_spend_per_day_sat=CAP_SAT + FEE_SAT)
    await world.until(lambda: len(orders()) == 2)
    assert {order.request.client for order in orders()} == {"ann"}


# --- what a dry run tells -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "limit_sat", "verdict"),
    [
        ("max_spend_per_day_sat", CAP_SAT + FEE_SAT, Verdict.PASS),
        ("max_spend_per_day_sat", CAP_SAT, Verdict.FAIL),
        ("max_fee_per_day_sat", FEE_SAT, Verdict.PASS),
        ("max_fee_per_day_sat", FEE_SAT - 1, Verdict.FAIL),
    ],
)
async def test_a_dry_run_tells_the_budget_first_and_nothing_of_what_others_do(
    world: World, limit: str, limit_sat: int, verdict: Verdict
) -> None:
    allow(world, **{limit: limit_sat})
    world.request(client="bob")
    answer = await desk_of(world.engine).check(ASKED, WANTED)
    of_rule = {finding.check.rule: finding.check for finding in answer.findings}
    assert (of_rule["budget"].verdict, of_rule["budget"].value) == (verdict, f"{CAP_SAT + FEE_SAT:,} sat more")
    assert {of_rule[rule].value for rule in ("open_orders", "sat_pending", "sat_in_24_hours")} == {
        "of all clients together"
    }
    own = await desk_of(world.engine).check(replace(ASKED, client=""), WANTED)
    rules = {finding.check.rule: finding.check for finding in own.findings}
    assert "budget" not in rules
    assert rules["open_orders"].value == "1, and this one"


@pytest.mark.parametrize("is_enough", [False, True])
async def test_a_client_that_may_not_look_at_the_prepaid_account_hears_only_whether_it_has_enough(
    world: World, is_enough: bool
) -> None:
    desk, prepaid = desk_of(world.engine), replace(ASKED, is_prepaid=True)
    world.provider.balance_sat = 7_654 if is_enough else 765
    for client, may_fund, is_told in (("ann", False, False), ("ann", True, True), ("", False, True)):
        allow(world, may_fund=may_fund)
        answer = await desk.check(replace(prepaid, client=client), WANTED)
        (found,) = (finding for finding in answer.findings if finding.check.rule == "prepaid_account")
        said = f"{found.check.value} {found.check.why} {found.error and found.error.metadata}"
        assert ("765" in said.replace(",", "")) is is_told
        assert is_told or found.check.value == ("enough" if is_enough else "too little")
        assert found.check.verdict is (Verdict.PASS if is_enough else Verdict.FAIL)


async def test_the_sums_of_others_are_in_no_word_that_a_client_is_told(world: World) -> None:
    allow(world)
    world.engine.limits = replace(world.engine.limits, max_pending_sat=2_500)
    world.request(client="bob")
    desk = desk_of(world.engine)
    answer = await desk.check(ASKED, WANTED)
    assert answer.error is not None
    assert answer.error.metadata == {"limit": "limits.max_pending_sat"}
    assert not any("4,1" in f"{finding.check.value} {finding.check.why}" for finding in answer.findings)
    with pytest.raises(LimitExceeded) as error:
        await desk.submit(ASKED, WANTED)
    assert error.value.message == answer.error.message
    world.engine.limits = replace(world.engine.limits, max_open_orders=1)
    assert desk.reason_against_orders("ann").startswith("All clients together leave no room (limits.max_open_orders).")


async def test_a_key_of_another_client_is_not_the_one_of_a_dry_run(world: World) -> None:
    allow(world)
    first = await desk_of(world.engine).submit(ASKED, WANTED)
    again = await desk_of(world.engine).check(ASKED, WANTED)
    assert first.id in again.findings[0].check.value
    others = await desk_of(world.engine).check(replace(ASKED, client=""), WANTED)
    assert first.id not in str(others)


async def test_whether_a_client_could_order_now_is_asked_of_its_budget_too(world: World) -> None:
    allow(world, max_open_orders=1)
    desk = desk_of(world.engine)
    assert desk.reason_against_orders("ann") == ""
    await desk.submit(ASKED, WANTED)
    assert "client.ann.max_open_orders" in desk.reason_against_orders("ann")
    assert desk.reason_against_orders("bob") == desk.reason_against_orders() == ""


# --- 80 percent -----------------------------------------------------------------------------------------------------


def usage(used_percent: int, now_ms: int, renewal: Renewal = Renewal.ROLLING) -> Usage:
    budget = Budget(client="ann", renewal=renewal, max_spend_per_day_sat=100)
    (line,) = budget.lines()
    used = Used(
        line=line,
        window=window(line.period, renewal, now_ms),
        spent_msat=used_percent * 1000,
        reserved_msat=0,
    )
    return Usage(budget=budget, used=(used,), open_orders=0, recent_orders=0, recent_since_ms=None)


def told(looks: list[tuple[int, int]], renewal: Renewal = Renewal.ROLLING) -> list[bool]:
    """Whether each look, at so many ms from now with so many percent used, logs something."""
    warnings, found = BudgetWarnings(), []
    for at_ms, percent in looks:
        with capture_logs() as logs:
            warnings.look(usage(percent, NOW_MS + at_ms, renewal), NOW_MS + at_ms)
        found.append([log["limit"] for log in logs] == ["client.ann.max_spend_per_day_sat"])
        assert len(logs) <= 1
    return found


def test_four_fifths_are_told_once_within_a_rolling_windows_length() -> None:
    assert told([(0, 79), (1, 80), (2, 99), (3, 10), (4, 85), (DAY_MS, 80), (DAY_MS + 1, 80)]) == [
        *(False, True, False, False, False),
        *(False, True),
    ]


def test_four_fifths_are_told_once_in_each_window_of_the_calendar() -> None:
    left_ms = DAY_MS - NOW_MS % DAY_MS
    looks = [(0, 80), (left_ms - 1, 90), (left_ms, 80), (left_ms + HOUR_MS, 95)]
    assert told(looks, Renewal.CALENDAR) == [True, False, True, False]


def test_a_clock_that_was_set_back_does_not_keep_it_from_being_told() -> None:
    assert told([(0, 80), (-2 * DAY_MS, 80)]) == [True, True]


async def test_it_is_told_when_an_order_brings_the_budget_so_far(world: World) -> None:
    allow(world, max_spend_per_day_sat=2 * (CAP_SAT + FEE_SAT))
    with capture_logs() as logs:
        for number in (1, 2):
            world.request(number, client="ann")
    warnings = [log for log in logs if log["event"] == "a budget is nearly used up"]
    assert [(log["client"], log["reserved_msat"]) for log in warnings] == [("ann", 2 * (CAP_SAT + FEE_SAT) * 1000)]
