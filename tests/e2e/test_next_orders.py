"""A request that goes on, on the sandbox with the real daemon: no number in one country, a code in the next one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.sandbox.sms4sats_knobs import Knobs
from tests.e2e.shop import FEE_MSAT, FOR_EVER_S, PRICE_MSAT, QUICK, Shop, open_shop
from tests.e2e.test_audit import check
from tests.harness import Seen, enum_name, is_held, run_cli

pytestmark = pytest.mark.asyncio(loop_scope="module")

COUNTRIES = ["usa", "canada", "england"]
NUMBER_WITHIN_S = 5
"""Longer than the daemon takes to see a number that is there, also after a restart on a slow machine."""
STRATEGY = pb.Strategy(number_within_s=NUMBER_WITHIN_S, sms_within_s=30)
"""The sandbox takes a cancel soon."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path_factory.mktemp("next"), extra_config=QUICK) as opened:
        yield opened


def _ends(request: Seen) -> list[str]:
    return [pb.End.Name(order.end).removeprefix("END_") for order in request.request.orders]


async def _over(shop: Shop, request_id: str) -> Seen:
    return await shop.daemon.until(request_id, lambda seen: bool(seen.terminal))


async def _order(shop: Shop, **fields: Any) -> Seen:
    return await shop.daemon.order(countries=COUNTRIES, strategy=STRATEGY, **fields)


def _without_number(shop: Shop) -> None:
    shop.next_order(no_number=True, gives_up_after_s=FOR_EVER_S)


async def test_no_number_in_the_first_country_and_a_code_in_the_second(shop: Shop) -> None:
    gone_msat = shop.books.gone_msat
    _without_number(shop)
    first = await _order(shop)
    done = await _over(shop, first.id)
    orders = done.request.orders
    assert [(order.id, order.country) for order in orders] == [
        (first.id, "USA"),
        (f"{first.id}-2", "Canada"),
    ]
    assert _ends(done) == ["REFUNDED", "FULFILLED"]
    assert (enum_name(done, "end"), bool(done.code)) == ("FULFILLED", True)
    assert orders[0].moved_on == f"no number came in {NUMBER_WITHIN_S} s"
    assert orders[1].created_at_ms >= orders[0].closed_at_ms
    assert shop.books.gone_msat - gone_msat == PRICE_MSAT + FEE_MSAT == done.spent_msat
    assert [shop.books.settled(order.payment_hash) for order in orders] == [0, 1]
    told = await shop.daemon.explain(first.id)
    text = "\n".join(entry.text for entry in told.history)
    assert f"no number came in {NUMBER_WITHIN_S} s, so the daemon asks for a cancel" in text
    assert "order 2 of the request is made, for an activation code" in text


async def test_every_update_of_all_orders_comes_in_one_stream_that_ends_with_the_request(shop: Shop) -> None:
    _without_number(shop)
    first = await _order(shop)
    updates = [update async for update in shop.daemon.updates(first.id)]
    assert [update.request.terminal for update in updates].count(True) == 1
    assert updates[-1].request.terminal
    assert {update.request.id for update in updates} == {first.id}
    counts = [len(update.request.orders) for update in updates]
    assert counts == sorted(counts)
    assert set(counts) == {1, 2}
    assert any(update.request.going_on for update in updates)
    again = [update.cursor async for update in shop.daemon.updates(first.id, after=updates[3].cursor)]
    assert again == [update.cursor for update in updates[4:]]


async def test_the_list_has_a_request_once_and_any_of_its_orders_names_it(shop: Shop) -> None:
    _without_number(shop)
    done = await _over(shop, (await _order(shop)).id)
    listed = [request.id for request in await shop.daemon.listed()]
    assert listed.count(done.id) == 1
    assert f"{done.id}-2" not in listed
    for name in (done.id[:6], f"{done.id}-2"):
        assert (await shop.daemon.get(name)).id == done.id
    by_end = await shop.daemon.listed(end=pb.END_REFUNDED)
    assert done.id not in [request.id for request in by_end]


@pytest.mark.parametrize("wait_s", [0.5, 5.0, 5.4, 6.2])
async def test_a_killed_daemon_goes_on_with_the_next_order_once(shop: Shop, wait_s: float) -> None:
    """Wherever it dies: with money out, while it cancels, between two orders, in the second one."""
    gone_msat, placed = shop.books.gone_msat, len(shop.world.provider.orders)
    _without_number(shop)
    first = await _order(shop)
    await asyncio.sleep(wait_s)
    await shop.daemon.restart()
    await shop.daemon.until_ready()
    done = await _over(shop, first.id)
    assert _ends(done) == ["REFUNDED", "FULFILLED"]
    assert shop.books.gone_msat - gone_msat == PRICE_MSAT + FEE_MSAT
    assert sum(shop.books.htlcs(order.payment_hash) for order in done.request.orders) == 2
    assert len(shop.world.provider.orders) - placed >= 2


async def test_a_code_that_wins_the_race_against_the_cancel_is_delivered_and_nothing_follows(shop: Shop) -> None:
    _without_number(shop)
    shop.world.provider.knobs.cancel_from_s = FOR_EVER_S
    first = await _order(shop)
    canceling = await shop.daemon.until(first.id, lambda seen: bool(seen.order.moved_on))
    assert is_held(canceling)
    shop.show_code(canceling)
    await shop.settle(canceling)
    done = await _over(shop, first.id)
    shop.world.provider.knobs.cancel_from_s = Knobs().cancel_from_s
    assert (_ends(done), done.code) == (["FULFILLED"], "246810")


async def test_a_client_s_cancel_ends_the_request(shop: Shop) -> None:
    _without_number(shop)
    first = await _order(shop)
    await shop.daemon.until(first.id, is_held)
    await shop.daemon.cancel(first.id)
    done = await _over(shop, first.id)
    assert _ends(done) == ["REFUNDED"]
    assert done.has("cancel_wanted_at_ms")


async def test_the_same_key_streams_the_same_request_and_another_strategy_is_refused(shop: Shop) -> None:
    _without_number(shop)
    first = await _order(shop, idempotency_key="again")
    assert (await _order(shop, idempotency_key="again")).id == first.id
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await shop.daemon.order(countries=["usa"], idempotency_key="again")
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    await _over(shop, first.id)


async def test_the_command_tells_of_all_orders_and_prints_the_code_alone(shop: Shop) -> None:
    _without_number(shop)
    code, stdout, stderr = await run_cli(
        shop.daemon.socket,
        "code",
        "usa,canada",
        "openai",
        "--number-within",
        f"{NUMBER_WITHIN_S}",
        "--sms-within",
        "60s",
    )
    assert code == 0, stderr
    assert stdout.strip().isdecimal()
    assert f"no number came in {NUMBER_WITHIN_S} s; the order is being canceled" in stderr
    assert "the money is back; the next order is being made" in stderr
    assert "now Canada (2 of 2)" in stderr


async def test_the_books_are_as_lnd_has_them_and_the_check_finds_nothing(shop: Shop) -> None:
    """Last: over all requests of this module."""
    await shop.audit()
    _, findings = await check(shop)
    assert findings == {}
