"""What stands in the way of an order before it is made; and that what a dry run tells is what an order meets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from holdpay.core.holds import HoldCaps, WhenFull
from holdpay.core.lightning import NodeIdentity, PaymentStatus
from holdpay.core.payees import PayeeCheck
from holdpay.core.routes import OfflinePeer, Outbound, PayeeNode, Route, RouteLook, RouteQuery
from holdpay.core.vetting import Check, Verdict
from holdpay.engine import objections
from holdpay.engine.objections import Answer
from holdpay.engine.wanted import (
    Asked,
    CodeWanted,
    EmailWanted,
    FundWanted,
    RentalWanted,
    SmsWanted,
    StrategyWanted,
    Wanted,
)
from holdpay.errors import (
    HoldpayError,
    InvalidRequest,
    KeyTaken,
    LimitExceeded,
    LndRefused,
    LndUnavailable,
    NotPayable,
    NotReady,
    OutOfStock,
    ProviderUnavailable,
)
from holdpay.ports import NodeState, NodeStatus, OrderFilter, Prices
from holdpay.store.database import open_beside, transaction
from holdpay.store.payees import add_payee
from tests.fakes import LATENCY_S, PAYEE, START_MS
from tests.unit.build import invoice
from tests.unit.engine.desks import desk_of
from tests.unit.engine.test_places import HELD, set_caps, until_held
from tests.unit.engine.world import World

ASKED = Asked(key="k")
WANTED = CodeWanted(countries=("Russia",), service="OpenAI")
OTHER = "02" + "dd" * 32

ROUTE = Route(fee_msat=1_002, lock_blocks=163, hops=("02" + "bb" * 32, PAYEE), first_channel="1x1x0")
ENOUGH = Outbound(largest_msat=50_000_000, total_msat=80_000_000, channel_count=2)
KNOWN = PayeeNode(is_in_graph=True, alias="sms4sats", channel_count=9)
WAY = RouteLook(is_route_known=True, route=ROUTE, outbound=ENOUGH, payee=KNOWN)
NO_WAY = RouteLook(is_route_known=True, outbound=ENOUGH, payee=KNOWN)
UNKNOWN = RouteLook(is_route_known=False, unknown=("the macaroon does not allow QueryRoutes",))
TOO_LITTLE = replace(ENOUGH, largest_msat=1_200_000)
AWAY = OfflinePeer(pubkey="02" + "bb" * 32, alias="bob", largest_msat=40_000_000, total_msat=40_000_000)

IN_THE_WAY: dict[str, tuple[RouteLook, str, dict[str, str]]] = {
    "outbound": (
        replace(NO_WAY, outbound=TOO_LITTLE),
        "largest usable channel",
        {"wanted_sat": "2000", "has_sat": "1200"},
    ),
    "peer_offline": (
        replace(NO_WAY, outbound=replace(TOO_LITTLE, offline=(AWAY,))),
        "bob .* is offline",
        {"wanted_sat": "2000", "has_sat": "1200"},
    ),
    "fee_limit": (
        replace(NO_WAY, dearer=replace(ROUTE, fee_msat=36_001)),
        "a route exists at 37 sat, your limit is 20 sat",
        {"fee_sat": "37", "limit_sat": "20"},
    ),
    "time_lock": (
        replace(NO_WAY, longer=replace(ROUTE, lock_blocks=500)),
        "500 blocks",
        {"lock_blocks": "500", "limit_blocks": "475"},
    ),
    "payee_unknown": (replace(NO_WAY, payee=PayeeNode(is_in_graph=False)), "is not in lnd's graph", {}),
    "no_route": (NO_WAY, "no way to sms4sats", {}),
}
"""By cause: what lnd says, the words, the numbers."""


async def _ask(world: World, wanted: Wanted = WANTED, **changes: Any) -> str:
    return (await desk_of(world.engine).submit(replace(ASKED, **changes), wanted)).id


async def _check(world: World, wanted: Wanted = WANTED, **changes: Any) -> Answer:
    return await desk_of(world.engine).check(replace(ASKED, **changes), wanted)


def _rule(answer: Answer, rule: str) -> Check:
    (found,) = [finding.check for finding in answer.findings if finding.check.rule == rule]
    return found


def _says(world: World, answer: Callable[[RouteQuery], RouteLook]) -> None:
    """What lnd says of each query."""
    look_for_route = world.lnd.look_for_route

    async def looked(query: RouteQuery, payer: Any) -> RouteLook:
        await look_for_route(query, payer)
        return answer(query)

    world.lnd.look_for_route = looked  # type: ignore[method-assign]


def _nothing_is_recorded(world: World) -> None:
    assert world.store.list_orders(OrderFilter()) == []
    assert (world.provider.place_count, world.lnd.sends, world.store.last_cursor()) == (0, [], 0)


# --- an order that lnd cannot pay -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", IN_THE_WAY)
async def test_an_order_that_lnd_cannot_pay_is_refused_before_it_is_made_with_cause_and_numbers(
    world: World, cause: str
) -> None:
    world.lnd.route_look, words, numbers = IN_THE_WAY[cause]
    with pytest.raises(NotPayable, match=words) as refused:
        await _ask(world)
    assert refused.value.metadata == {"cause": cause, **numbers}
    assert "holdpayd payees" not in refused.value.message, "it is pinned: the configuration names it"
    await asyncio.sleep(30)
    _nothing_is_recorded(world)


async def test_a_peer_that_is_back_within_seconds_as_after_a_start_of_lnd_refuses_nothing(world: World) -> None:
    began_ms = world.clock.now_ms()
    away = IN_THE_WAY["peer_offline"][0]
    _says(world, lambda query: away if world.clock.now_ms() < began_ms + 10_000 else WAY)
    assert await _ask(world)
    assert 10_000 <= world.clock.now_ms() - began_ms < 12_000


async def test_all_that_wait_for_a_peer_have_lnd_asked_once_a_second(world: World) -> None:
    began_ms = world.clock.now_ms()
    away = IN_THE_WAY["peer_offline"][0]
    asked: list[int] = []

    def look(query: RouteQuery) -> RouteLook:
        asked.append(world.clock.now_ms() - began_ms)
        return away if world.clock.now_ms() < began_ms + 10_000 else WAY

    _says(world, look)
    desk = desk_of(world.engine)
    wants = [replace(ASKED, key=f"k{number}", max_fee_sat=10 + number) for number in range(8)]
    await asyncio.gather(*(desk.submit(each, WANTED) for each in wants))
    assert world.clock.now_ms() - began_ms < 12_000
    assert len([at_ms for at_ms in asked if 1_500 < at_ms < 9_500]) <= 9
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "look for peers"]


async def test_who_gives_up_does_not_end_the_wait_of_the_others(world: World) -> None:
    began_ms = world.clock.now_ms()
    away = IN_THE_WAY["peer_offline"][0]
    _says(world, lambda query: away if world.clock.now_ms() < began_ms + 5_000 else WAY)
    desk = desk_of(world.engine)
    first = asyncio.create_task(desk.submit(ASKED, WANTED))
    second = asyncio.create_task(desk.submit(replace(ASKED, key="next"), WANTED))
    await asyncio.sleep(2)
    first.cancel()
    assert await second
    assert world.clock.now_ms() - began_ms < 7_000
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "look for peers"]


async def test_a_peer_that_stays_away_is_not_waited_for_by_one_who_insists_nor_longer_than_some_seconds(
    world: World,
) -> None:
    began_ms = world.clock.now_ms()
    world.lnd.route_look = IN_THE_WAY["peer_offline"][0]
    assert await _ask(world, force=True)
    assert world.clock.now_ms() - began_ms < 1_000
    with pytest.raises(NotPayable):
        await _ask(world, key="next")
    assert 15_000 <= world.clock.now_ms() - began_ms < 18_000


async def test_a_dry_run_waits_for_no_peer_where_something_else_is_in_the_way(world: World) -> None:
    """It would be as long again for each country of a request, and end behind the deadline of who asks."""
    began_ms = world.clock.now_ms()
    world.lnd.route_look = IN_THE_WAY["peer_offline"][0]
    answer = await _check(world, max_price_sat=1)
    assert answer.error is not None
    assert world.clock.now_ms() - began_ms < 1_000


@pytest.mark.parametrize("cause", IN_THE_WAY)
async def test_one_who_insists_orders_all_the_same(world: World, cause: str) -> None:
    world.lnd.route_look = IN_THE_WAY[cause][0]
    assert await _ask(world, force=True)


@pytest.mark.parametrize("cause", IN_THE_WAY)
async def test_an_order_from_the_account_needs_no_way(world: World, cause: str) -> None:
    world.lnd.route_look = IN_THE_WAY[cause][0]
    assert await _ask(world, is_prepaid=True)
    assert world.lnd.route_queries == []


@pytest.mark.parametrize("look", [UNKNOWN, RouteLook(is_route_known=False), replace(UNKNOWN, outbound=ENOUGH)])
async def test_where_lnd_does_not_know_the_order_goes_on(world: World, look: RouteLook) -> None:
    world.lnd.route_look = look
    assert await _ask(world)


async def test_right_after_a_start_lnd_is_asked_though_its_stream_of_payments_does_not_stand_yet(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(world.lnd), "identity", None)
    world.lnd.route_look = NO_WAY
    with pytest.raises(NotPayable):
        await _ask(world)


async def test_a_channel_that_is_too_small_is_reason_enough_where_routes_are_not_known(world: World) -> None:
    world.lnd.route_look = replace(UNKNOWN, outbound=TOO_LITTLE)
    with pytest.raises(NotPayable, match="largest usable channel"):
        await _ask(world)


async def test_an_lnd_that_takes_long_is_not_waited_for(world: World) -> None:
    world.lnd.route_look_s = 60
    began_s = world.now_s
    assert await _ask(world)
    assert world.now_s - began_s == pytest.approx(objections.ROUTE_LOOK_S, abs=0.01)


async def test_who_is_refused_anyway_does_not_wait_for_lnd(world: World) -> None:
    world.lnd.route_look_s = 60
    world.provider.stock = 0
    began_s = world.now_s
    with pytest.raises(OutOfStock):
        await _ask(world)
    assert world.now_s - began_s < 2 * LATENCY_S + 0.01
    assert not _looks()


@pytest.mark.parametrize("hangs_at_first", [True, False])
async def test_a_client_that_leaves_takes_its_look_for_a_way_along(world: World, hangs_at_first: bool) -> None:
    async def hangs(query: RouteQuery, payer: object) -> RouteLook:
        if query.is_route_enough is hangs_at_first:
            await asyncio.sleep(60)
        return NO_WAY

    world.lnd.look_for_route = hangs  # type: ignore[method-assign]
    asking = asyncio.create_task(_ask(world))
    await asyncio.sleep(1)
    assert _looks()
    asking.cancel()
    await asyncio.wait({asking})
    assert not _looks()


def _looks() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "look for a way"]


@pytest.mark.parametrize("error", [RuntimeError("a defect"), asyncio.CancelledError(), LndUnavailable()])
async def test_a_look_that_fails_is_no_reason_against_an_order(world: World, error: BaseException) -> None:
    async def broken(query: RouteQuery, payer: object) -> RouteLook:
        raise error

    world.lnd.look_for_route = broken  # type: ignore[method-assign]
    assert await _ask(world)


async def test_what_lnd_learnt_of_failures_counts_for_nothing_since_it_forgets_that(world: World) -> None:
    world.lnd.route_look = NO_WAY
    with pytest.raises(NotPayable):
        await _ask(world)
    assert world.lnd.route_queries
    assert not any(query.avoids_failed for query in world.lnd.route_queries)


async def test_a_way_that_carries_the_dearest_order_is_looked_for_while_the_provider_names_its_price(
    world: World,
) -> None:
    world.lnd.route_look = WAY
    began_s = world.now_s
    await _ask(world)
    assert world.now_s - began_s == pytest.approx(2 * LATENCY_S), "services and prices, and nothing else"
    (query,) = world.lnd.route_queries
    assert (query.payee, query.amount_msat, query.is_route_enough) == (PAYEE, 10_000_000, True)
    assert (query.cltv_limit - query.final_cltv_delta, query.max_parts) == (435, 1)


async def test_a_way_that_was_just_found_is_not_looked_for_again_and_later_it_is(world: World) -> None:
    world.lnd.route_look = WAY
    desk = desk_of(world.engine)
    for n in range(3):
        await desk.submit(replace(ASKED, key=f"at once {n}"), WANTED)
    assert len(world.lnd.route_queries) == 1
    await desk.submit(replace(ASKED, key="dearer", max_price_sat=3_000), WANTED)
    assert len(world.lnd.route_queries) == 2, "another amount is another question"
    await asyncio.sleep(5)
    await desk.submit(replace(ASKED, key="later", max_price_sat=3_000), WANTED)
    assert len(world.lnd.route_queries) == 3


@pytest.mark.parametrize("look", [NO_WAY, UNKNOWN, replace(WAY, route=replace(ROUTE, parts=2))])
async def test_only_a_way_is_remembered(world: World, look: RouteLook) -> None:
    world.lnd.route_look = look
    desk = desk_of(world.engine)
    with contextlib.suppress(NotPayable):
        await desk.submit(replace(ASKED, key="first"), WANTED)
    asked = len(world.lnd.route_queries)
    world.lnd.route_look = WAY
    await desk.submit(replace(ASKED, key="second"), WANTED)
    assert len(world.lnd.route_queries) > asked


async def test_where_the_dearest_would_cost_too_much_the_price_itself_is_asked_for(world: World) -> None:
    _says(world, lambda query: replace(WAY, route=replace(ROUTE, fee_msat=query.amount_msat // 400)))
    assert await _ask(world)
    dearest, exact = world.lnd.route_queries
    assert (dearest.amount_msat, exact.amount_msat, exact.fee_limit_msat) == (10_000_000, 2_000_000, 20_000)
    assert not exact.is_route_enough


@pytest.mark.parametrize(("fee_msat", "is_taken"), [(20_000, True), (20_001, False)])
async def test_the_way_found_beforehand_must_be_within_the_fee_limit_of_this_order(
    world: World, fee_msat: int, is_taken: bool
) -> None:
    _says(
        world, lambda query: replace(WAY, route=replace(ROUTE, fee_msat=fee_msat)) if query.is_route_enough else NO_WAY
    )
    if is_taken:
        assert await _ask(world)
    else:
        with pytest.raises(NotPayable):
            await _ask(world)


async def test_parts_that_do_not_fit_together_are_no_way(world: World) -> None:
    """QueryRoutes finds a route for each part, by the same channel."""
    parts = replace(ROUTE, parts=2)
    world.engine.policy = replace(world.engine.policy, mpp_from_sat=1_000)
    world.lnd.route_look = RouteLook(is_route_known=True, route=parts, outbound=replace(ENOUGH, total_msat=1_999_999))
    with pytest.raises(NotPayable) as refused:
        await _ask(world)
    assert refused.value.metadata == {"cause": "outbound", "wanted_sat": "2000", "has_sat": "1999"}
    world.lnd.route_look = RouteLook(is_route_known=True, route=parts, outbound=ENOUGH)
    assert await _ask(world)


async def test_what_parts_cost_together_is_an_estimate_and_refuses_nothing(world: World) -> None:
    world.engine.policy = replace(world.engine.policy, mpp_from_sat=1_000)
    world.lnd.route_look = IN_THE_WAY["fee_limit"][0]
    assert _rule(await _check(world), "routing_fee").verdict is Verdict.WARN
    assert await _ask(world)


async def test_money_for_the_account_is_looked_for_at_its_own_amount(world: World) -> None:
    world.lnd.route_look = WAY
    await _ask(world, FundWanted(amount_sat=5_000))
    assert [query.amount_msat for query in world.lnd.route_queries] == [5_000_000]


async def test_without_a_price_nothing_is_sure(world: World) -> None:
    world.provider.price = Prices(asked_at_ms=START_MS)
    world.lnd.route_look = NO_WAY
    assert await _ask(world, max_price_sat=3_000)


async def test_where_no_way_can_be_looked_for_a_dry_run_says_why(world: World) -> None:
    world.provider.price = Prices(asked_at_ms=START_MS)
    assert _rule(await _check(world, max_price_sat=3_000), "route").why == "no price is known"
    world.engine.policy = replace(world.engine.policy, payee_check=PayeeCheck.FIRST_USE)
    why = _rule(await _check(world, max_price_sat=3_000), "route").why
    assert why == "nobody knows yet which node will be paid"


async def test_a_dry_run_tells_the_rest_where_lnd_was_not_heard_of_since_the_start(world: World) -> None:
    world.engine.node_status = lambda: NodeStatus(state=NodeState.LOCKED)  # type: ignore[method-assign]
    answer = await _check(world)
    assert [f.check.rule for f in answer.findings if f.check.verdict is Verdict.FAIL] == ["lnd"]
    assert _rule(answer, "route").verdict is Verdict.UNKNOWN
    assert world.lnd.route_queries == []


@pytest.mark.parametrize("other", [WAY, UNKNOWN, NO_WAY])
@pytest.mark.parametrize("payee", [PAYEE, OTHER])
async def test_one_listed_node_that_may_be_reached_is_enough(world: World, payee: str, other: RouteLook) -> None:
    world.engine.policy = replace(world.engine.policy, payee_pubkeys=frozenset({PAYEE, OTHER}))
    _says(world, lambda query: other if query.payee == payee and not query.is_route_enough else NO_WAY)
    if other is NO_WAY:
        with pytest.raises(NotPayable):
            await _ask(world)
    else:
        assert await _ask(world)


@pytest.mark.parametrize("check", [PayeeCheck.WARN, PayeeCheck.OFF])
async def test_where_any_node_may_be_paid_only_our_own_channels_are_sure(world: World, check: PayeeCheck) -> None:
    world.engine.policy = replace(world.engine.policy, payee_check=check)
    for cause, (look, words, _) in IN_THE_WAY.items():
        world.lnd.route_look = look
        if cause in {"outbound", "peer_offline"}:
            with pytest.raises(NotPayable, match=words):
                await _ask(world, key=cause)
        else:
            assert await _ask(world, key=cause)


async def test_on_first_use_nobody_is_looked_for_before_and_then_the_trusted_one(world: World) -> None:
    world.engine.policy = replace(world.engine.policy, payee_check=PayeeCheck.FIRST_USE)
    world.lnd.route_look = NO_WAY
    await _ask(world)
    assert world.lnd.route_queries == []
    with open_beside(world.path) as conn, transaction(conn):
        add_payee(conn, OTHER, START_MS)
    with pytest.raises(NotPayable):
        await _ask(world, key="next")
    assert {query.payee for query in world.lnd.route_queries} == {OTHER}
    world.lnd.route_look = IN_THE_WAY["payee_unknown"][0]
    with pytest.raises(NotPayable, match="if the provider has a new node: holdpayd payees add"):
        await _ask(world, key="next")


# --- a dry run --------------------------------------------------------------------------------------------------------

RULES = [
    "disk lnd holdpayd clock stock price fee_limit outbound route routing_fee time_lock",
    "open_orders sat_pending sat_in_24_hours",
]


async def test_a_dry_run_tells_every_rule_and_records_nothing(world: World) -> None:
    world.lnd.route_look = WAY
    answer = await _check(world)
    assert [finding.check.rule for finding in answer.findings] == " ".join(RULES).split()
    assert {finding.check.verdict for finding in answer.findings} == {Verdict.PASS}
    assert (answer.is_fine, answer.error, answer.amount_msat) == (True, None, 2_000_000)
    assert answer.what == "an activation code for OpenAI in Russia"
    await asyncio.sleep(30)
    _nothing_is_recorded(world)


async def test_a_dry_run_tells_values_limits_and_the_keys_that_set_them(world: World) -> None:
    world.lnd.route_look = WAY
    answer = await _check(world)
    told = {check.rule: (check.value, check.limit, check.key) for check in (f.check for f in answer.findings)}
    assert told["stock"] == ("5", "some; force orders all the same", "")
    assert told["price"] == ("2,000 sat", "at most 2,040 sat in the invoice", "payment.price_tolerance_percent")
    world.provider.balance_sat = 5_000
    prepaid = await _check(world, is_prepaid=True)
    (price,) = (found.check for found in prepaid.findings if found.check.rule == "price")
    assert price.limit == "at most 2,040 sat of the account"
    assert told["fee_limit"] == ("20 sat", "at most 102 sat", "payment.max_fee_sat")
    assert told["outbound"] == ("50,000 sat in the largest usable channel", "at least 2,000 sat and the fee", "")
    assert told["routing_fee"] == ("1.002 sat", "at most 20 sat", "payment.fee_limit_percent")
    assert told["time_lock"] == ("163 blocks", "at most 475 blocks", "payment.route_cltv_delta")
    assert told["open_orders"] == ("0, and this one", "at most 8", "limits.max_open_orders")
    assert told["sat_pending"] == ("0 sat, and 2,060 sat of this one", "at most 50,000 sat", "limits.max_pending_sat")


KINDS: list[Wanted] = [
    WANTED,
    RentalWanted(country="Russia"),
    SmsWanted(phone="+19871234567", message="hi"),
    EmailWanted(address="a@example.com", message="hi"),
    FundWanted(amount_sat=2_000),
]


@pytest.mark.parametrize("wanted", KINDS, ids=lambda wanted: type(wanted).__name__)
async def test_every_kind_can_be_asked_about(world: World, wanted: Wanted) -> None:
    world.lnd.route_look = WAY
    world.provider.price = Prices(send_sat=400, exact_sat=2_000, asked_at_ms=START_MS)
    assert (await _check(world, wanted)).is_fine
    _nothing_is_recorded(world)
    assert await _ask(world, wanted)


def _no_stock(world: World) -> None:
    world.provider.stock = 0


def _price(sat: int | None) -> Callable[[World], None]:
    def changed(world: World) -> None:
        world.provider.price = Prices(exact_sat=sat, asked_at_ms=START_MS)

    return changed


def _lnd_down(world: World) -> None:
    world.lnd.is_down = True


def _task_dead(world: World) -> None:
    world.engine.trouble = lambda: "A task fails."


def _no_balance(world: World) -> None:
    world.provider.balance_sat = 1


def _disk_full(world: World) -> None:
    def full() -> None:
        raise NotReady("The disk is full.", cause="disk", free_mib=7)

    world.store.check_space = full  # type: ignore[method-assign]


def _clock_wrong(world: World) -> None:
    world.engine.clock_trouble = lambda: "The clock is wrong."  # type: ignore[method-assign]


def _provider_away(world: World) -> None:
    world.provider.price = ProviderUnavailable("down")


def _balance_unknown(world: World) -> None:
    world.provider.balance_sat = ProviderUnavailable("down")


def _limit(**changes: Any) -> Callable[[World], None]:
    def changed(world: World) -> None:
        world.engine.limits = replace(world.engine.limits, **changes)

    return changed


def _route(cause: str) -> Callable[[World], None]:
    def changed(world: World) -> None:
        world.lnd.route_look = IN_THE_WAY[cause][0]

    return changed


TROUBLES: dict[str, tuple[Callable[[World], None], dict[str, Any], str, str]] = {
    "no stock": (_no_stock, {}, "stock", ""),
    "too dear": (_price(10_001), {}, "price", "payment.max_price_sat"),
    "dearer than asked": (_price(2_000), {"max_price_sat": 1_999}, "price", ""),
    "no price": (_price(None), {}, "price", ""),
    "a fee limit that is too high": (_price(2_000), {"max_fee_sat": 103}, "fee_limit", "payment.max_fee_sat"),
    "the provider is away": (_provider_away, {}, "provider", ""),
    "lnd is away": (_lnd_down, {}, "lnd", ""),
    "a task is dead": (_task_dead, {}, "holdpayd", ""),
    "the clock is wrong": (_clock_wrong, {}, "clock", ""),
    "the disk is full": (_disk_full, {}, "disk", ""),
    "too little on the account": (_no_balance, {"is_prepaid": True}, "prepaid_account", ""),
    "nobody knows what is on the account": (_balance_unknown, {"is_prepaid": True}, "prepaid_account", ""),
    "too many orders": (_limit(max_open_orders=0), {}, "open_orders", "limits.max_open_orders"),
    "too much pending": (_limit(max_pending_sat=2_059), {}, "sat_pending", "limits.max_pending_sat"),
    "too much a day": (_limit(max_spend_per_day_sat=2_059), {}, "sat_in_24_hours", "limits.max_spend_per_day_sat"),
    "outbound": (_route("outbound"), {}, "outbound", ""),
    "peer offline": (_route("peer_offline"), {}, "outbound", ""),
    "fee": (_route("fee_limit"), {}, "routing_fee", "payment.fee_limit_percent"),
    "time lock": (_route("time_lock"), {}, "time_lock", "payment.route_cltv_delta"),
    "payee unknown": (_route("payee_unknown"), {}, "route", ""),
    "no route": (_route("no_route"), {}, "route", ""),
}
"""By name: what spoils it and what is asked, the rule that refuses it, and the key of the configuration to look at."""


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_what_a_dry_run_tells_is_what_an_order_is_refused_with(world: World, trouble: str) -> None:
    spoil, changes, rule, key = TROUBLES[trouble]
    world.lnd.route_look = WAY
    spoil(world)
    answer = await _check(world, **changes)
    assert not answer.is_fine
    assert [f.check.rule for f in answer.findings if f.check.verdict is Verdict.FAIL] == [rule]
    assert answer.error is not None
    assert _rule(answer, rule).why in answer.error.message
    assert _rule(answer, rule).key == key
    with pytest.raises(HoldpayError) as refused:
        await _ask(world, **changes)
    assert (type(refused.value), refused.value.message) == (type(answer.error), answer.error.message)
    assert refused.value.metadata == answer.error.metadata
    _nothing_is_recorded(world)


@pytest.mark.parametrize(
    ("sat", "changes"),
    [(2_000, {"max_price_sat": 2_000}), (10_000, {}), (2_000, {"max_fee_sat": 102}), (2_000, {"is_prepaid": True})],
)
async def test_what_is_just_within_its_limit_is_ordered(world: World, sat: int, changes: dict[str, Any]) -> None:
    world.lnd.route_look = WAY
    world.provider.balance_sat = 2_000
    _price(sat)(world)
    assert await _ask(world, **changes)


async def test_a_dry_run_tells_whether_there_is_a_place_among_the_holds(world: World) -> None:
    world.lnd.route_look = WAY
    world.engine.places.caps = HoldCaps(max_orders=1)
    assert (_rule(await _check(world), "place").value, (await _check(world)).is_fine) == ("free", True)
    world.engine.places.caps = HoldCaps(max_locked_sat=2_060)
    assert _rule(await _check(world), "place").value == "free"
    world.engine.places.caps = HoldCaps(max_orders=1)
    await _ask(world, key="first")
    place = _rule(await _check(world), "place")
    assert (place.value, place.verdict) == ("1st in the queue", Verdict.WARN)
    assert (await _check(world)).is_fine, "it is taken, and waits"
    world.engine.places.caps = HoldCaps(max_orders=1, when_full=WhenFull.REFUSE)
    answer = await _check(world)
    assert _rule(answer, "place").verdict is Verdict.FAIL
    with pytest.raises(LimitExceeded) as refused:
        await _ask(world)
    assert answer.error is not None
    assert refused.value.message == answer.error.message


async def test_a_provider_that_goes_away_meanwhile_ends_a_dry_run_with_what_is_known(world: World) -> None:
    world.provider.stock = 0
    world.provider.price = ProviderUnavailable("down")
    answer = await _check(world)
    assert [f.check.rule for f in answer.findings if f.check.verdict is Verdict.FAIL] == ["stock"]
    assert not answer.is_fine


async def test_without_stock_the_rest_is_told_too(world: World) -> None:
    world.lnd.route_look = WAY
    world.provider.stock = 0
    answer = await _check(world)
    assert _rule(answer, "stock").verdict is Verdict.FAIL
    assert (_rule(answer, "price").value, _rule(answer, "routing_fee").value) == ("2,000 sat", "1.002 sat")


async def test_a_request_that_is_a_known_one_is_told_as_such(world: World) -> None:
    order_id = await _ask(world)
    answer = await _check(world)
    assert answer.is_fine
    assert order_id in _rule(answer, "idempotency_key").value
    with pytest.raises(KeyTaken):
        await _check(world, max_fee_sat=1)


async def test_a_request_that_cannot_be_meant_is_refused_by_a_dry_run_too(world: World) -> None:
    for wanted in (replace(WANTED, countries=("Atlantis",)), replace(WANTED, service="nonsense")):
        with pytest.raises(InvalidRequest):
            await _check(world, wanted)


# --- an invoice -------------------------------------------------------------------------------------------------------

PAYREQ = "lnsb20u1pexample"


async def _vet(world: World, payreq: str = PAYREQ, **limits: Any) -> Answer:
    said: dict[str, Any] = {"max_price_sat": None, "max_fee_sat": None, **limits}
    return await desk_of(world.engine).vet(payreq, **said)


@pytest.fixture
def invoiced(world: World) -> World:
    """lnd can read one invoice, and knows a way to its payee."""
    world.lnd.invoices[PAYREQ] = replace(invoice(), created_at_ms=START_MS)
    world.lnd.route_look = WAY
    return world


async def test_a_good_invoice_would_be_paid_and_nothing_is_recorded(invoiced: World) -> None:
    answer = await _vet(invoiced)
    assert answer.is_fine
    assert [f.check.rule for f in answer.findings if f.check.verdict is not Verdict.PASS] == ["order_id"]
    assert _rule(answer, "route").value == "2 hops, by channel 1x1x0"
    _nothing_is_recorded(invoiced)
    (query,) = invoiced.lnd.route_queries
    assert (query.payee, query.amount_msat, query.final_cltv_delta) == (PAYEE, 2_000_000, 40)


@pytest.mark.parametrize("words", ["lightning:{}", "LIGHTNING:{}", "  {}\n", "{}"])
async def test_an_invoice_may_come_as_wallets_write_it(invoiced: World, words: str) -> None:
    assert (await _vet(invoiced, words.format(PAYREQ))).is_fine


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"amount_msat": 10_000_001}, "amount"),
        ({"amount_msat": 0}, "amount"),
        ({"payee": OTHER}, "payee"),
        ({"final_cltv_delta": 145}, "final_cltv_delta"),
        ({"expiry_s": 59}, "time_left"),
        ({"has_payment_address": False}, "payment_address"),
    ],
)
async def test_an_invoice_is_refused_by_the_rules_of_an_order(
    invoiced: World, changes: dict[str, Any], rule: str
) -> None:
    invoiced.lnd.invoices[PAYREQ] = replace(invoiced.lnd.invoices[PAYREQ], **changes)
    answer = await _vet(invoiced)
    assert not answer.is_fine
    assert rule in [f.check.rule for f in answer.findings if f.check.verdict is Verdict.FAIL]


@pytest.mark.parametrize("cause", IN_THE_WAY)
async def test_an_invoice_that_lnd_cannot_pay_is_told_as_an_order_would_be(invoiced: World, cause: str) -> None:
    invoiced.lnd.route_look, _, numbers = IN_THE_WAY[cause]
    answer = await _vet(invoiced)
    assert not answer.is_fine
    assert answer.error is not None
    assert answer.error.metadata == {"cause": cause, **numbers}


@pytest.mark.parametrize("check", [PayeeCheck.WARN, PayeeCheck.OFF])
async def test_of_an_invoice_the_payee_is_known_whoever_may_be_paid(invoiced: World, check: PayeeCheck) -> None:
    invoiced.engine.policy = replace(invoiced.engine.policy, payee_check=check)
    invoiced.lnd.route_look = IN_THE_WAY["fee_limit"][0]
    assert not (await _vet(invoiced)).is_fine


async def test_the_payment_hash_of_an_order_is_not_paid_a_second_time(world: World) -> None:
    order_id = world.request()
    await world.until_closed(order_id)
    (payreq,) = world.lnd.invoices
    world.lnd.route_look = WAY
    assert _rule(await _vet(world, payreq), "payment_hash").verdict is Verdict.FAIL


async def test_limits_of_the_request_count_and_are_never_over_the_daemons(invoiced: World) -> None:
    assert _rule(await _vet(invoiced, max_price_sat=1_999), "amount").verdict is Verdict.FAIL
    assert _rule(await _vet(invoiced, max_price_sat=99_999), "amount").limit == "at most 10,000 sat"
    await _vet(invoiced, max_fee_sat=7)
    await _vet(invoiced, max_fee_sat=9_999)
    assert [query.fee_limit_msat for query in invoiced.lnd.route_queries[-2:]] == [7_000, 100_000]


async def test_on_first_use_the_record_decides_about_an_invoice(invoiced: World) -> None:
    invoiced.engine.policy = replace(invoiced.engine.policy, payee_check=PayeeCheck.FIRST_USE)
    assert _rule(await _vet(invoiced), "payee").limit.startswith("any: none is trusted yet")
    with open_beside(invoiced.path) as conn, transaction(conn):
        add_payee(conn, OTHER, START_MS)
    assert _rule(await _vet(invoiced), "payee").verdict is Verdict.FAIL
    assert invoiced.store.trusted_payees() == [OTHER], "a look trusts nobody"


@pytest.mark.parametrize("text", ["", "lightning:", "a b", "ln\x1b[31m", "x" * 7_090, "é"])
async def test_what_can_be_no_invoice_is_refused_before_lnd_is_asked(invoiced: World, text: str) -> None:
    with pytest.raises(InvalidRequest, match="no invoice") as refused:
        await _vet(invoiced, text)
    assert refused.value.metadata["field"] == "invoice"
    assert invoiced.lnd.decode_count == 0


async def test_the_longest_invoice_is_asked_about(invoiced: World) -> None:
    payreq = "x" * 7_089
    invoiced.lnd.invoices[payreq] = invoiced.lnd.invoices[PAYREQ]
    assert (await _vet(invoiced, payreq)).is_fine


async def test_what_lnd_cannot_read_is_no_invoice_and_an_lnd_that_is_away_says_nothing_about_it(world: World) -> None:
    async def refuses(payreq: str) -> Any:
        raise LndRefused("checksum failed")

    world.lnd.decode = refuses  # type: ignore[method-assign]
    with pytest.raises(InvalidRequest, match="checksum failed"):
        await _vet(world)
    world.lnd.is_down = True
    world.lnd.decode = type(world.lnd).decode.__get__(world.lnd)  # type: ignore[method-assign]
    with pytest.raises(LndUnavailable):
        await _vet(world)


async def test_an_invoice_for_a_node_that_is_not_there_is_refused_for_lnd_too(invoiced: World) -> None:
    invoiced.engine.trouble = lambda: "A task fails."
    answer = await _vet(invoiced)
    assert (answer.is_fine, _rule(answer, "holdpayd").verdict) == (False, Verdict.FAIL)


# --- what only warns, what waits, and the same key twice ------------------------------------------------------------


@pytest.mark.parametrize("is_forced", [True, False])
async def test_nothing_about_a_way_refuses_where_it_may_only_warn(world: World, is_forced: bool) -> None:
    # What is in the way is the time lock, and the only route is dearer than allowed, too.
    world.lnd.route_look = replace(NO_WAY, longer=replace(ROUTE, lock_blocks=500, fee_msat=36_000))
    with pytest.raises(NotPayable):
        await _ask(world, key="refused")
    if not is_forced:
        world.engine.policy = replace(world.engine.policy, payee_check=PayeeCheck.WARN)
    assert await _ask(world, force=is_forced)


async def test_what_waits_for_its_place_is_not_refused_for_money_that_the_hold_before_it_has(world: World) -> None:
    world.provider.story = HELD
    set_caps(world, HoldCaps(max_orders=1))
    world.lnd.route_look = WAY
    held = await _ask(world, key="a")
    await until_held(world, held)
    world.lnd.route_look = replace(NO_WAY, outbound=TOO_LITTLE)
    assert world.order(await _ask(world, key="b")).is_waiting
    world.lnd.route_look = replace(NO_WAY, payee=PayeeNode(is_in_graph=False))
    with pytest.raises(NotPayable):
        await _ask(world, key="c")


@pytest.mark.parametrize(
    ("max_total_sat", "room_sat", "waits"),
    [(None, 2_059, True), (None, 2_060, False), (2_030, 2_029, True), (2_030, 2_030, False)],
)
async def test_whether_it_would_wait_is_asked_of_all_that_it_may_lock(
    world: World, max_total_sat: int | None, room_sat: int, waits: bool
) -> None:
    """Up to 2,040 sat of an invoice and 20 sat of fees, or what the total of its request leaves of that."""
    world.provider.story = HELD
    world.lnd.route_look = WAY
    held = await _ask(world, key="a")
    await until_held(world, held)
    set_caps(world, HoldCaps(max_locked_sat=world.order(held).reserved_msat // 1000 + room_sat))
    world.lnd.route_look = replace(NO_WAY, outbound=TOO_LITTLE)
    wanted = replace(WANTED, strategy=StrategyWanted(attempts=2, max_total_sat=max_total_sat))
    assert (await _check(world, wanted)).is_fine is waits
    if waits:
        assert world.order(await _ask(world, wanted, key="b")).is_waiting
    else:
        with pytest.raises(NotPayable):
            await _ask(world, wanted, key="b")


async def test_a_key_that_is_used_twice_at_once_is_never_refused_for_its_own_order(world: World) -> None:
    world.provider.story = HELD
    asked = 0

    async def looked(query: RouteQuery, payer: NodeIdentity) -> RouteLook:
        nonlocal asked
        asked += 1
        if asked == 1:
            return WAY
        await asyncio.sleep(2)
        is_out = any(record.status is PaymentStatus.IN_FLIGHT for record in world.lnd.records.values())
        return replace(NO_WAY, outbound=TOO_LITTLE) if is_out else WAY

    world.lnd.look_for_route = looked  # type: ignore[method-assign]
    assert len(set(await asyncio.gather(_ask(world, key="k"), _ask(world, key="k")))) == 1


async def test_a_dry_run_tells_of_the_cap_of_a_channel_as_submit_does(world: World) -> None:
    set_caps(world, HoldCaps(max_channel_locked_sat=1_000))
    world.lnd.route_look = WAY
    with pytest.raises(LimitExceeded):
        await _ask(world)
    (place,) = (each.check for each in (await _check(world)).findings if each.check.rule == "place")
    assert (place.verdict, place.key) == (Verdict.FAIL, "holds.max_channel_locked_sat")
