"""A request of several orders, one after the other, with the real engine and database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from structlog.testing import capture_logs

from holdpay.audit.check import read_stored
from holdpay.core.budget import Budget
from holdpay.core.duties import Duty
from holdpay.core.model import Order
from holdpay.core.states import End, HtlcState, OrderState, Succession
from holdpay.engine.account import Account
from holdpay.engine.desk import Desk
from holdpay.engine.wanted import Asked, CodeWanted, StrategyWanted
from holdpay.errors import (
    InvalidRequest,
    KeyTaken,
    OutOfStock,
    PriceTooHigh,
    ProviderUnavailable,
    UnknownCountry,
    UnknownService,
)
from holdpay.ports import CountryInfo, OrderFilter, Prices, ServiceInfo
from tests.fakes import START_MS, Story
from tests.unit.engine.world import World

NO_NUMBER = Story(number_after_s=None, code_after_s=None, over_after_s=1260.0)
COUNTRIES = (CountryInfo(0, "Russia", ()), CountryInfo(16, "England", ()), CountryInfo(187, "United States", ("usa",)))
ASKED = Asked(key="k")
WANTED = CodeWanted(
    countries=("Russia", "England"), service="OpenAI", strategy=StrategyWanted(number_within_s=120, sms_within_s=300)
)


class Countries:
    """A catalog of a few."""

    def countries(self) -> Sequence[CountryInfo]:
        return COUNTRIES

    def resolve_country(self, text: str) -> CountryInfo:
        found = [c for c in COUNTRIES if text.casefold() in {str(c.code), c.name.casefold(), *c.aliases}]
        if not found:
            raise UnknownCountry("There is no such country.")
        return found[0]

    def resolve_service(self, text: str, services: Sequence[ServiceInfo]) -> ServiceInfo:
        found = [service for service in services if text.casefold() in {service.code, service.name.casefold()}]
        if not found:
            raise UnknownService("There is no such service.")
        return found[0]


def desk(world: World) -> Desk:
    return Desk(world.engine, Countries(), Account(world.provider, None))


async def _submit(world: World, wanted: CodeWanted = WANTED, **asked: Any) -> str:
    return (await desk(world).submit(replace(ASKED, **asked), wanted)).request.id


async def _until_over(world: World, request_id: str, within_s: float = 9000) -> list[Order]:
    await world.until(lambda: world.store.orders_of(request_id)[-1].ends_request, within_s=within_s)
    return world.store.orders_of(request_id)


def _is_sound(world: World) -> None:
    """Neither the audit nor the database's own laws find anything."""
    found = read_stored(world.path, world.policy, world.clock.now_ms()).findings
    assert found == []


def _story_by_country(world: World, stories: dict[int, Story]) -> None:
    place = world.provider.place

    async def placed(placing: Any) -> Any:
        world.provider.story = stories[placing.body["country"]]
        return await place(placing)

    world.provider.place = placed  # type: ignore[method-assign]


def _stories(world: World, *stories: Story) -> None:
    """Of the provider's orders, in turn; the last goes on."""
    left = list(stories)
    place = world.provider.place

    async def placed(placing: Any) -> Any:
        world.provider.story = left.pop(0) if len(left) > 1 else left[0]
        return await place(placing)

    world.provider.place = placed  # type: ignore[method-assign]


async def test_without_a_number_it_is_canceled_and_the_next_country_is_ordered_from(world: World) -> None:
    _stories(world, NO_NUMBER, Story())
    first, second = await _until_over(world, await _submit(world))
    assert (first.end, first.succession, first.moved_on) == (
        End.REFUNDED,
        Succession.FOLLOWED,
        "no number came in 120 s",
    )
    assert (second.id, second.nth, second.spec.what) == (
        f"{first.id}-2",
        2,
        "an activation code for OpenAI in England",
    )
    assert (second.end, second.code) == (End.FULFILLED, "012345")
    assert [placing.body["country"] for placing in world.provider.placings] == [0, 16]
    assert world.store.spent_day_msat(world.clock.now_ms()) == second.spent_msat
    _is_sound(world)


async def test_the_next_order_is_made_only_once_lnd_has_the_money_back(world: World) -> None:
    _stories(world, replace(NO_NUMBER, resolve_lag_s=90.0), Story())
    request_id = await _submit(world)
    await world.until(lambda: world.order(request_id).state is OrderState.CANCELED)
    await asyncio.sleep(80)
    assert len(world.store.orders_of(request_id)) == 1
    first, second = await _until_over(world, request_id)
    assert first.payment is not None
    assert second.created_at_ms >= first.payment.htlc_since_ms
    assert first.payment.htlc is HtlcState.FAILED


async def test_a_number_without_an_sms_gives_way_to_the_next_one(world: World) -> None:
    _stories(world, Story(code_after_s=None), Story())
    one_country = replace(WANTED, countries=("Russia",))
    first, second = await _until_over(world, await _submit(world, one_country))
    assert (first.moved_on, second.end) == ("no SMS came in 300 s", End.FULFILLED)
    assert [placing.body["country"] for placing in world.provider.placings] == [0, 0]


async def test_no_more_orders_are_made_than_attempts_and_the_last_one_is_waited_for(world: World) -> None:
    _stories(world, NO_NUMBER)
    wanted = replace(WANTED, strategy=replace(WANTED.strategy, attempts=3))
    orders = await _until_over(world, await _submit(world, wanted))
    assert [order.spec.placing(is_prepaid=False).body["country"] for order in orders] == [0, 16, 0]
    assert [order.succession for order in orders] == [Succession.FOLLOWED, Succession.FOLLOWED, None]
    assert orders[-1].moved_on is None
    assert world.store.spent_day_msat(world.clock.now_ms()) == 0


async def test_a_code_that_comes_before_the_cancel_is_delivered_and_nothing_follows(world: World) -> None:
    """The provider refuses the cancel, and has the code a moment later."""
    _stories(world, replace(NO_NUMBER, code_after_s=125.0, refuses_cancel=True))
    (only,) = await _until_over(world, await _submit(world))
    assert only.moved_on is not None
    assert (only.end, only.code, only.succession) == (End.FULFILLED, "012345", None)


async def test_a_country_without_numbers_is_passed_by_and_takes_no_attempt(world: World) -> None:
    _stories(world, NO_NUMBER, Story())
    asked = world.provider.services

    async def services(country_code: int) -> Sequence[ServiceInfo]:
        stock = 0 if country_code == 16 else 5
        return [replace(service, stock=stock) for service in await asked(country_code)]

    world.provider.services = services  # type: ignore[method-assign]
    wanted = replace(WANTED, countries=("Russia", "England", "usa"), strategy=replace(WANTED.strategy, attempts=2))
    _, second = await _until_over(world, await _submit(world, wanted))
    assert (second.country_name, second.nth, second.end) == ("United States", 2, End.FULFILLED)
    first_of_two = replace(wanted, countries=("England", "usa"))
    assert world.order(await _submit(world, first_of_two, key="k2")).country_code == 187
    with pytest.raises(OutOfStock, match="in England now"):
        await _submit(world, replace(wanted, countries=("England", "16")), key="k3")


async def test_a_dry_run_tells_of_the_country_that_would_be_ordered_from(world: World) -> None:
    asked = world.provider.services

    async def services(country_code: int) -> Sequence[ServiceInfo]:
        if country_code == 187:
            return []
        stock = 0 if country_code == 0 else 5
        return [replace(service, stock=stock) for service in await asked(country_code)]

    world.provider.services = services  # type: ignore[method-assign]
    answer = await desk(world).check(ASKED, replace(WANTED, countries=("Russia", "England")))
    assert (answer.is_fine, answer.what) == (True, "an activation code for OpenAI in England")
    order = world.order(await _submit(world, replace(WANTED, countries=("Russia", "England"))))
    assert order.spec.what == answer.what
    last = await desk(world).check(replace(ASKED, key="k2"), replace(WANTED, countries=("England", "Russia")))
    assert last.what == answer.what
    none = await desk(world).check(replace(ASKED, key="k2"), replace(WANTED, countries=("Russia", "0")))
    assert isinstance(none.error, OutOfStock)
    assert "in Russia now" in none.error.message
    passed = await desk(world).check(replace(ASKED, key="k2"), replace(WANTED, countries=("usa", "England")))
    assert passed.what == answer.what
    for countries in (("Russia", "usa"), ("usa", "Russia")):
        wanted = replace(WANTED, countries=countries)
        none = await desk(world).check(replace(ASKED, key="k2"), wanted)
        with pytest.raises(OutOfStock) as refused:
            await _submit(world, wanted, key="k2")
        assert none.error is not None
        assert none.error.message == refused.value.message
        assert "Russia: no numbers now" in none.error.message
        assert "United States: not listed" in none.error.message
    with pytest.raises(UnknownService):
        await desk(world).check(replace(ASKED, key="k2"), replace(WANTED, countries=("usa", "187")))


async def test_where_no_country_of_several_has_numbers_all_are_named(world: World) -> None:
    world.provider.stock = 0
    wanted = replace(WANTED, countries=("Russia", "England", "usa"))
    sentence = "The provider has no numbers for OpenAI in Russia, England or United States now. Try another country."
    with pytest.raises(OutOfStock) as caught:
        await _submit(world, wanted)
    assert caught.value.message == sentence
    answer = await desk(world).check(replace(ASKED, key="k2"), wanted)
    assert [finding.check.why for finding in answer.findings if finding.error is not None] == [sentence]


@pytest.mark.parametrize("max_total_sat", [2_019, 2_020, 2_059, 3_000])
async def test_a_dry_run_refuses_what_the_total_of_a_request_would_not_bear(world: World, max_total_sat: int) -> None:
    """A price of 2,000 sat, and a fee limit of 20."""
    wanted = replace(WANTED, strategy=replace(WANTED.strategy, max_total_sat=max_total_sat))
    answer = await desk(world).check(ASKED, wanted)
    if max_total_sat >= 2_020:
        assert answer.is_fine
        assert world.order(await _submit(world, wanted)).reserved_msat <= max_total_sat * 1000
        return
    assert answer.error is not None
    with pytest.raises(PriceTooHigh) as error:
        await _submit(world, wanted)
    assert (error.value.message, error.value.metadata) == (answer.error.message, answer.error.metadata)


async def test_where_no_country_has_numbers_any_more_the_request_ends_and_says_so(world: World) -> None:
    _stories(world, NO_NUMBER)
    request_id = await _submit(world)
    world.provider.stock = 0
    (only,) = await _until_over(world, request_id)
    assert only.end is End.REFUNDED
    assert "no further order can be made: The provider has no numbers" in only.reason


async def test_where_each_country_is_in_the_way_by_itself_the_end_of_the_request_tells_all(world: World) -> None:
    _stories(world, NO_NUMBER)
    request_id = await _submit(world)
    asked = world.provider.services

    async def services(country_code: int) -> Sequence[ServiceInfo]:
        return [] if country_code == 0 else [replace(service, stock=0) for service in await asked(country_code)]

    world.provider.services = services  # type: ignore[method-assign]
    (only,) = await _until_over(world, request_id)
    assert "no further order can be made: OpenAI can be ordered in no country of the request" in only.reason
    assert "Russia: not listed" in only.reason
    assert "England: no numbers now" in only.reason


async def test_while_the_provider_lnd_or_a_limit_is_in_the_way_the_request_waits(world: World) -> None:
    _stories(world, NO_NUMBER, Story())
    request_id = await _submit(world)
    await world.until(lambda: world.order(request_id).state is OrderState.CANCELED)
    world.provider.price = ProviderUnavailable("sms4sats does not answer.")
    with capture_logs() as logs:
        await world.until(lambda: world.order(request_id).is_going_on)
        await asyncio.sleep(200)
    told = [entry["error"] for entry in logs if entry["event"].startswith("the next order of a request cannot")]
    assert told == ["sms4sats does not answer."], "once, however often it is tried"
    assert "a task failed; it is started again" not in [entry["event"] for entry in logs]
    assert len(world.store.orders_of(request_id)) == 1
    assert world.engine.is_live(request_id)
    world.provider.price = Prices(receive_sat=3_000, exact_sat=2_000, asked_at_ms=START_MS)
    world.lnd.is_down = True
    await asyncio.sleep(100)
    assert len(world.store.orders_of(request_id)) == 1
    world.lnd.is_down = False
    world.engine.limits = replace(world.engine.limits, max_pending_sat=1)
    await asyncio.sleep(100)
    assert len(world.store.orders_of(request_id)) == 1
    world.engine.limits = replace(world.engine.limits, max_pending_sat=50_000)
    assert (await _until_over(world, request_id))[-1].end is End.FULFILLED


async def test_of_a_client_that_is_gone_from_the_configuration_nothing_further_is_ordered(world: World) -> None:
    """Nothing says any more what it may spend."""
    limits = world.engine.limits
    world.engine.limits = replace(limits, budgets={"ann": Budget(client="ann", max_orders_per_minute=9)})
    _stories(world, NO_NUMBER, Story())
    request_id = await _submit(world, client="ann")
    await world.until(lambda: world.order(request_id).state is OrderState.CANCELED)
    await world.crash()
    world.start()
    desk(world)
    world.engine.limits = limits
    (only,) = await _until_over(world, request_id)
    assert only.end is End.REFUNDED
    assert "no further order can be made: ann is no client of the configuration any more" in only.reason


async def test_a_next_order_that_nearly_uses_up_the_budget_is_told_as_a_first_one_is(world: World) -> None:
    budget = Budget(client="ann", max_spend_per_day_sat=3_000)
    world.engine.limits = replace(world.engine.limits, budgets={"ann": budget})
    _stories(world, NO_NUMBER, Story())
    with capture_logs() as logs:
        request_id = await _submit(world, client="ann")
        await world.until(lambda: world.order(request_id).state is OrderState.CANCELED)
        assert "a budget is nearly used up" not in {log["event"] for log in logs}
        world.provider.price = Prices(receive_sat=3_000, exact_sat=2_500, asked_at_ms=START_MS)
        await world.until(lambda: len(world.store.orders_of(request_id)) == 2)
    assert [log["client"] for log in logs if log["event"] == "a budget is nearly used up"] == ["ann"]


async def test_who_waits_too_long_for_the_next_order_ends(world: World) -> None:
    _stories(world, NO_NUMBER)
    request_id = await _submit(world)
    await world.until(lambda: world.order(request_id).state is OrderState.CANCELED)
    world.provider.price = ProviderUnavailable("sms4sats does not answer.")
    (only,) = await _until_over(world, request_id)
    assert only.reason.endswith("the time was over before another order could be made")
    assert world.store.list_orders(OrderFilter(open_only=True)) == []
    assert [order.id for order in world.store.list_orders(OrderFilter(closed_only=True))] == [request_id]


async def test_a_wish_to_cancel_reaches_the_live_order_and_nothing_follows(world: World) -> None:
    _stories(world, NO_NUMBER)
    wanted = replace(WANTED, strategy=replace(WANTED.strategy, attempts=3))
    request_id = await _submit(world, wanted)
    await world.until(lambda: len(world.store.orders_of(request_id)) == 2)
    wished = await world.engine.cancel(request_id)
    assert wished.nth == 2
    _, second = await _until_over(world, request_id)
    assert second.is_cancel_wanted_by_client


async def test_a_wish_to_cancel_between_two_orders_ends_the_request_at_once(world: World) -> None:
    _stories(world, NO_NUMBER)
    request_id = await _submit(world)
    await world.until(lambda: world.order(request_id).state is OrderState.CANCELED)
    world.provider.price = ProviderUnavailable("sms4sats does not answer.")
    await world.until(lambda: world.order(request_id).is_going_on)
    assert (await world.engine.cancel(request_id)).ends_request
    assert not world.engine.is_live(request_id)
    name = f"{Duty.NEXT.value} {request_id}"
    await world.until(lambda: name not in {task.get_name() for task in asyncio.all_tasks()}, within_s=5)


@pytest.mark.parametrize("is_durable", [False, True])
@pytest.mark.parametrize("crash_at", range(1, 26))
async def test_a_crash_at_any_commit_makes_no_order_twice_and_loses_none(
    tmp_path: Any, crash_at: int, is_durable: bool
) -> None:
    world = World(tmp_path / "crash.db")
    _story_by_country(world, {0: NO_NUMBER, 16: Story()})
    world.start()
    request_id = await _submit(world)
    await world.crash()
    world.start(crash_at, is_durable=is_durable)
    desk(world)
    try:
        await asyncio.wait({world.running}, timeout=1200)
        if world.running.done():
            world.store.close()
            world.start()
            desk(world)
        first, second = await _until_over(world, request_id)
        assert second.created_at_ms >= (first.closed_at_ms or 0)
        assert second.end is End.FULFILLED
        paid = [order for order in world.provider.orders.values() if order.is_held]
        assert len(paid) == 2
        for one, other in pairwise(world.store.orders_of(request_id)):
            assert one.htlc is HtlcState.FAILED
            assert one.succession is Succession.FOLLOWED
            assert other.nth == one.nth + 1
        _is_sound(world)
    finally:
        await world.close()


async def test_the_same_key_finds_the_same_request_and_another_strategy_is_refused(world: World) -> None:
    _stories(world, NO_NUMBER, Story())
    request_id = await _submit(world)
    await _until_over(world, request_id)
    assert await _submit(world, replace(WANTED, countries=("0", "16"), service="oi")) == request_id
    for other in (
        replace(WANTED, countries=("England", "Russia")),
        replace(WANTED, countries=("Russia",)),
        replace(WANTED, countries=("any",)),
        replace(WANTED, strategy=replace(WANTED.strategy, attempts=3)),
        replace(WANTED, strategy=replace(WANTED.strategy, max_total_sat=9_000)),
        replace(WANTED, countries=("Russia",), strategy=StrategyWanted()),
    ):
        with pytest.raises(KeyTaken):
            await _submit(world, other)


async def test_no_order_may_cost_more_with_its_fee_than_all_of_them_together(world: World) -> None:
    strategy = replace(WANTED.strategy, max_total_sat=2_030)
    order = world.order(await _submit(world, replace(WANTED, strategy=strategy)))
    assert order.max_price_sat + order.max_fee_sat == 2_030
    with pytest.raises(PriceTooHigh, match="2,019 in all"):
        await _submit(world, replace(WANTED, strategy=replace(strategy, max_total_sat=2_019)), key="k2")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attempts": 0}, "1 to 5 orders"),
        ({"attempts": 6}, "1 to 5 orders"),
        ({"sms_within_s": 119}, "no cancel earlier"),
        ({"number_within_s": 119}, "no cancel earlier"),
        ({"within_s": 0}, "within_s is 0"),
        ({"max_total_sat": 0}, "max_total_sat is 0"),
    ],
)
async def test_a_strategy_out_of_bounds_is_refused(world: World, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        await _submit(world, replace(WANTED, strategy=replace(WANTED.strategy, **changes)))
    with pytest.raises(InvalidRequest, match="only lnd can say"):
        await _submit(world, is_prepaid=True)


@pytest.mark.parametrize("text", ["any", "ANY", " Any "])
async def test_any_country_begins_with_the_cheapest_that_has_numbers(world: World, text: str) -> None:
    prices, services = {0: 2_500, 16: 1_900, 187: 1_800}, world.provider.services
    asked = world.provider.prices

    async def priced(country_code: int | None = None, service: str | None = None) -> Prices:
        return replace(await asked(country_code, service), exact_sat=prices[country_code or 0])

    async def stocked(country_code: int) -> Sequence[ServiceInfo]:
        return [replace(s, stock=0 if country_code == 187 else 5) for s in await services(country_code)]

    world.provider.prices, world.provider.services = priced, stocked  # type: ignore[method-assign]
    order = world.order(await _submit(world, replace(WANTED, countries=(text,))))
    assert order.request.strategy is not None
    assert [country.code for country in order.request.strategy.countries] == [16, 0]
    assert (order.country_code, order.request.strategy.attempts) == (16, 3)
