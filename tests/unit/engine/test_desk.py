"""What is refused before anything is recorded or ordered, and what becomes an order."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from holdpay.core.holds import HoldCaps, WhenFull
from holdpay.core.kinds import CodeSpec
from holdpay.core.kinds.spec import Placing
from holdpay.core.model import Order
from holdpay.engine.wanted import Asked, CodeWanted, Wanted
from holdpay.errors import (
    BalanceTooLow,
    HoldpayError,
    InvalidRequest,
    KeyTaken,
    NotReady,
    OutOfStock,
    PriceTooHigh,
    PriceUnknown,
    ProviderUnavailable,
)
from holdpay.ports import OrderFilter, Placed, Prices, Reply
from tests.fakes import MALLORY, START_MS
from tests.unit.engine.desks import desk_of
from tests.unit.engine.test_places import set_caps
from tests.unit.engine.world import World

ASKED = Asked(key="k")
WANTED = CodeWanted(countries=("Russia",), service="OpenAI")


async def _ask(world: World, wanted: Wanted = WANTED, **changes: Any) -> Order:
    """``changes`` go to what is wanted where they name a part of it, and to ``Asked``."""
    of_wanted = {name: changes.pop(name) for name in list(changes) if name in type(wanted).__slots__}
    return await desk_of(world.engine).submit(replace(ASKED, **changes), replace(wanted, **of_wanted))


async def test_the_configured_lightning_address_goes_with_each_order(world: World) -> None:
    bodies = []
    place = world.provider.place

    async def spy(placing: Placing) -> Reply[Placed]:
        bodies.append(placing.body)
        return await place(placing)

    world.provider.place = spy  # type: ignore[method-assign]
    for desk in (desk_of(world.engine, "me@example.com"), desk_of(world.engine)):
        order = await desk.submit(Asked(key=f"k{len(bodies)}"), WANTED)
        await world.until_closed(order.id)
    assert bodies == [{"country": 0, "service": "oi", "ref": "me@example.com"}, {"country": 0, "service": "oi"}]


async def _is_refused(world: World, error: type[HoldpayError], words: str, **changes: Any) -> None:
    with pytest.raises(error, match=words):
        await _ask(world, **changes)
    assert world.store.list_orders(OrderFilter()) == []
    await asyncio.sleep(30)
    assert world.provider.place_count == 0


async def test_a_request_becomes_an_order_with_quote_and_caps(world: World) -> None:
    order = await _ask(world)
    assert order.spec == CodeSpec(country=0, country_name="Russia", service="oi", service_name="OpenAI")
    assert (order.quote_sat, order.max_price_sat, order.max_fee_sat) == (2_000, 2_040, 20)
    assert order.pay_by_ms - order.created_at_ms == 600_000
    assert (await world.until_closed(order.id)).code == "012345"


async def test_the_clients_caps_count_and_0_is_a_fee_limit(world: World) -> None:
    order = await _ask(world, max_price_sat=2_001, max_fee_sat=0)
    assert (order.max_price_sat, order.max_fee_sat) == (2_001, 0)


async def test_a_fee_limit_over_the_daemons_is_refused_with_the_keys_name_and_the_numbers(world: World) -> None:
    words = "limit of 103 sat .* payment.max_fee_sat allows 102 sat for an order of up to 2,040 sat"
    await _is_refused(world, InvalidRequest, words, max_fee_sat=103)
    assert (await _ask(world, max_fee_sat=102)).max_fee_sat == 102


async def test_the_standard_price_is_the_quote_where_no_exact_one_is_known(world: World) -> None:
    world.provider.price = Prices(receive_sat=3_000, asked_at_ms=START_MS)
    assert (await _ask(world)).quote_sat == 3_000


@pytest.mark.parametrize("price", [Prices(asked_at_ms=START_MS), ProviderUnavailable("down")])
async def test_without_a_quote_the_clients_own_limit_is_enough(world: World, price: Prices | Exception) -> None:
    world.provider.price = price
    order = await _ask(world, max_price_sat=2_500)
    assert (order.quote_sat, order.max_price_sat) == (None, 2_500)


async def test_without_a_quote_and_without_a_limit_nothing_is_ordered(world: World) -> None:
    world.provider.price = Prices(asked_at_ms=START_MS)
    await _is_refused(world, PriceUnknown, "has to say")


async def test_a_provider_that_cannot_say_the_price_is_told_as_such(world: World) -> None:
    world.provider.price = ProviderUnavailable("sms4sats cannot be reached")
    await _is_refused(world, ProviderUnavailable, "cannot be reached")


@pytest.mark.parametrize(
    ("exact_sat", "changes", "words"),
    [
        (2_000, {"max_price_sat": 1_999}, "2,000 sat, and the request allows 1,999. Allow more"),
        (10_001, {}, "10,001 sat, and payment.max_price_sat allows 10,000. Raise it in the configuration"),
        (10_001, {"max_price_sat": 20_000}, "payment.max_price_sat allows 10,000"),
    ],
)
async def test_a_price_over_a_limit_is_refused_before_ordering(
    world: World, exact_sat: int, changes: dict[str, Any], words: str
) -> None:
    world.provider.price = Prices(exact_sat=exact_sat, asked_at_ms=START_MS)
    await _is_refused(world, PriceTooHigh, words, **changes)


async def test_an_empty_stock_is_refused_unless_forced(world: World) -> None:
    world.provider.stock = 0
    await _is_refused(world, OutOfStock, "no numbers")
    assert (await _ask(world, force=True)).id


async def test_an_unknown_stock_is_no_empty_one(world: World) -> None:
    world.provider.stock = None
    assert (await _ask(world)).id


async def test_while_lnd_is_away_nothing_is_recorded(world: World) -> None:
    world.lnd.is_down = True
    await _is_refused(world, NotReady, "lnd is unreachable")


async def test_while_a_task_beside_the_orders_fails_nothing_is_recorded(world: World) -> None:
    world.engine.trouble = lambda: "Erasing fails again and again."
    with pytest.raises(NotReady, match="Erasing fails") as refused:
        await _ask(world)
    assert refused.value.metadata == {"cause": "tasks"}
    assert world.store.list_orders(OrderFilter()) == []


async def test_while_another_node_answers_nothing_is_recorded(world: World) -> None:
    first = await _ask(world)
    await world.until(lambda: world.order(first.id).is_money_out)
    world.lnd.node = MALLORY
    with pytest.raises(NotReady, match="open orders were paid from"):
        await _ask(world, key="another")
    assert len(world.store.list_orders(OrderFilter())) == 1


async def test_a_limit_that_is_reached_is_told_before_anybody_orders(world: World) -> None:
    desk = desk_of(world.engine)
    assert desk.reason_against_orders() == ""
    world.engine.limits = replace(world.engine.limits, max_open_orders=1)
    await _ask(world)
    assert "limits.max_open_orders is 1" in desk.reason_against_orders()
    world.engine.limits = replace(world.engine.limits, max_open_orders=8, max_pending_sat=2_060)
    assert "limits.max_pending_sat is 2,060" in desk.reason_against_orders()
    world.engine.limits = replace(world.engine.limits, max_pending_sat=50_000, max_spend_per_day_sat=2_060)
    assert "limits.max_spend_per_day_sat is 2,060" in desk.reason_against_orders()


async def test_full_holds_are_told_before_anybody_orders_only_where_an_order_would_be_refused(world: World) -> None:
    desk = desk_of(world.engine)
    for when_full, told in ((WhenFull.QUEUE, ""), (WhenFull.REFUSE, "holds.max_orders")):
        set_caps(world, HoldCaps(max_orders=1, when_full=when_full))
        assert desk.reason_against_orders() == ""
        await _ask(world, key=when_full.value)
        assert told in desk.reason_against_orders()
        assert bool(desk.reason_against_orders()) is bool(told)
        await world.until(lambda: world.store.open_orders() == [], within_s=3600)


async def test_what_is_pending_and_spent_is_told_in_whole_sat_rounded_up(world: World) -> None:
    first = await _ask(world)
    answer = await desk_of(world.engine).check(replace(ASKED, key="next"), WANTED)
    told = {finding.check.rule: finding.check.value for finding in answer.findings}
    reserved_sat = -(-world.order(first.id).reserved_msat // 1000)
    assert told["sat_pending"].startswith(f"{reserved_sat:,} sat, and ")
    assert told["sat_in_24_hours"].startswith(f"0 sat, {reserved_sat:,} sat pending, and ")
    await world.until_closed(first.id)
    answer = await desk_of(world.engine).check(replace(ASKED, key="next"), WANTED)
    told = {finding.check.rule: finding.check.value for finding in answer.findings}
    assert told["sat_in_24_hours"].startswith("2,002 sat, 0 sat pending, and ")


async def test_a_key_sent_again_gets_the_first_order_even_while_lnd_is_away(world: World) -> None:
    first = await _ask(world)
    world.lnd.is_down = True
    assert (await _ask(world)).id == first.id
    assert (await _ask(world, countries=("0",), service="OPENAI")).id == first.id
    assert (await _ask(world, service="oi")).id == first.id


@pytest.mark.parametrize("changes", [{"service": "WhatsApp"}, {"max_price_sat": 2_500}, {"max_fee_sat": 0}])
async def test_a_key_belongs_to_one_request(world: World, changes: dict[str, Any]) -> None:
    await _ask(world)
    with pytest.raises(KeyTaken):
        await _ask(world, **changes)


async def test_the_same_key_sent_twice_at_the_same_time_is_one_order(world: World) -> None:
    first, second = await asyncio.gather(_ask(world), _ask(world))
    assert first.id == second.id
    await world.until_closed(first.id)
    assert (world.provider.place_count, len(world.lnd.sends)) == (1, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key": ""}, "idempotency key"),
        ({"key": "k" * 129}, "idempotency key"),
        ({"key": "a\nb"}, "idempotency key"),
        ({"countries": (" ",)}, "country"),
        ({"countries": ("x" * 65,)}, "country"),
        ({"service": ""}, "service"),
        ({"service": "a\x00b"}, "service"),
        ({"countries": ("Atlantis",)}, "no such country"),
        ({"max_price_sat": 0}, "0 sat allows nothing"),
    ],
)
async def test_a_request_that_cannot_be_meant_is_refused(world: World, changes: dict[str, Any], words: str) -> None:
    await _is_refused(world, InvalidRequest, words, **changes)


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"key": ""}, "idempotency_key"), ({"max_price_sat": 0}, "max_price_sat"), ({"max_fee_sat": 103}, "max_fee_sat")],
)
async def test_a_program_is_told_which_field_was_refused(world: World, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await _ask(world, **changes)
    assert refused.value.metadata["field"] == field


async def test_the_longest_key_is_taken(world: World) -> None:
    assert (await _ask(world, key="k" * 128)).request.key == "k" * 128


async def test_an_order_from_the_account_reserves_no_fee_and_needs_a_balance_even_where_no_price_is_known(
    world: World,
) -> None:
    assert (await _ask(world, is_prepaid=True)).max_fee_sat == 0
    world.provider.price = Prices(asked_at_ms=START_MS)
    world.provider.balance_sat = 0
    with pytest.raises(BalanceTooLow) as refused:
        await _ask(world, key="k2", is_prepaid=True, max_price_sat=2_500)
    assert refused.value.metadata == {"balance_sat": "0", "price_sat": "1"}
    world.provider.balance_sat = 1
    assert (await _ask(world, key="k3", is_prepaid=True, max_price_sat=2_500)).quote_sat is None
