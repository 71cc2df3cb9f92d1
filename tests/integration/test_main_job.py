"""The main job against real nodes: the real daemon, as a process, beside alice; the hold invoices are carol's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from holdpay.sandbox.http_server import Request, Response
from tests.harness import Seen, enum_name, is_held, is_over, pair
from tests.integration.market import PACE, Market, open_market
from tests.regtest.net import Net

pytestmark = pytest.mark.real

BOBS_FEE_MSAT = 1_002
HELD_S = 6 * PACE
"""Of the provider's clock: so long an order is held before its end. A busy machine has to see it held, and does things
then."""


@pytest_asyncio.fixture
async def market(healthy_net: Net, tmp_path: Path) -> AsyncIterator[Market]:
    async with open_market(healthy_net, tmp_path) as opened:
        yield opened


async def hold(market: Market, **scenario: Any) -> Seen:
    """An order that is held, and goes on by itself: with its code unless told otherwise."""
    knobs = market.provider.knobs
    knobs.queue.append(replace(knobs.scenario, **{"code_after_s": HELD_S, **scenario}))
    order = await market.daemon.order()
    return await market.daemon.until(order.id, is_held)


async def test_a_code_is_received_and_the_hold_invoice_settled(market: Market) -> None:
    daemon = market.daemon
    held = await hold(market)
    assert held.locked_msat == 2_000_000 + BOBS_FEE_MSAT
    assert held.expiry_height > (await daemon.status()).lnd.block_height + 40
    done = await daemon.until(held.id, is_over)

    assert enum_name(done, "end") == "FULFILLED"
    assert done.code.isdecimal()
    assert done.spent_msat == 2_000_000 + BOBS_FEE_MSAT
    (payment,) = await market.payments(done.payment_hash)
    assert payment["payment_preimage"] == done.preimage


async def test_a_request_without_a_number_is_refunded(market: Market) -> None:
    market.provider.knobs.queue.append(replace(market.provider.knobs.scenario, no_number=True, gives_up_after_s=60))
    order = await market.daemon.order()

    done = await market.daemon.until(order.id, is_over)

    assert enum_name(done, "end") == "REFUNDED"
    assert (done.spent_msat, done.locked_msat) == (0, 0)
    assert "money came back" in (await market.daemon.explain(order.id)).summary


async def test_a_clients_cancel_is_carried_out_after_two_minutes_of_the_provider(market: Market) -> None:
    order = await hold(market, no_code=True)

    answer = await market.daemon.cancel(order.id)
    assert Seen(answer.request).has("cancel_from_ms")
    done = await market.daemon.until(order.id, is_over)

    assert enum_name(done, "end") == "REFUNDED"
    assert pair(done) == ("CANCELED", "FAILED")


async def test_a_daemon_that_is_killed_while_held_goes_on_and_pays_once(market: Market) -> None:
    order = await hold(market)

    await market.daemon.restart()
    done = await market.daemon.until(order.id, is_over)

    assert enum_name(done, "end") == "FULFILLED"
    assert done.dispatches == 1
    assert len(await market.payments(done.payment_hash)) == 1


async def test_lnd_restarts_while_held(market: Market) -> None:
    order = await hold(market)

    await market.alice.restart()
    done = await market.daemon.until(order.id, is_over)

    assert (enum_name(done, "end"), done.dispatches) == ("FULFILLED", 1)


@pytest.mark.parametrize("has_code", [True, False], ids=["settled", "canceled"])
async def test_the_end_comes_while_lnd_is_down(market: Market, has_code: bool) -> None:
    ending: dict[str, Any] = {"settle_lag_s": 0} if has_code else {"no_code": True, "gives_up_after_s": HELD_S}
    order = await hold(market, **ending)

    await market.alice.kill()
    expected = "DELIVERED" if has_code else "CANCELED"
    seen = await market.daemon.until(order.id, lambda o: enum_name(o, "state") == expected)
    assert not seen.terminal, "money is out as long as lnd has not spoken"
    await market.alice.start()
    done = await market.daemon.until(order.id, is_over)

    assert enum_name(done, "end") == ("FULFILLED" if has_code else "REFUNDED")


async def test_carol_is_down_and_nothing_is_spent(market: Market) -> None:
    broken = asyncio.Event()
    _after_create(market, broken)
    order = await market.daemon.order()
    async with asyncio.timeout(60):
        while not market.provider.orders:
            await asyncio.sleep(0.05)
    await market.net["carol"].leave()
    broken.set()

    done = await market.daemon.until(order.id, is_over)

    assert enum_name(done, "end") == "PAYMENT_FAILED"
    assert done.dispatches >= 2
    explained = await market.daemon.explain(order.id)
    assert "Nothing was spent" in explained.money


async def test_bob_is_down_and_nothing_is_spent(market: Market) -> None:
    await market.net["bob"].leave()
    order = await market.daemon.order(force=True)

    done = await market.daemon.until(order.id, is_over)

    assert (enum_name(done, "end"), done.spent_msat) == ("PAYMENT_FAILED", 0)


async def test_a_fee_limit_that_is_too_low_for_good_spends_nothing(market: Market) -> None:
    order = await market.daemon.order(max_fee_sat=1, force=True)

    done = await market.daemon.until(order.id, is_over)

    assert (enum_name(done, "end"), done.spent_msat) == ("PAYMENT_FAILED", 0)


async def test_the_operator_paid_the_invoice_by_hand_first(market: Market) -> None:
    paid_by_hand = asyncio.Event()
    _after_create(market, paid_by_hand)
    order = await market.daemon.order()
    async with asyncio.timeout(60):
        while not market.provider.orders:
            await asyncio.sleep(0.05)
    (at_provider,) = market.provider.orders.values()
    by_hand = asyncio.create_task(market.alice.pay(at_provider.payreq))
    await market.net["carol"].wait_invoice_state(at_provider.payment_hash, "ACCEPTED")
    paid_by_hand.set()

    done = await market.daemon.until(order.id, is_over)

    assert enum_name(done, "end") == "FULFILLED"
    assert (await by_hand).status == "SUCCEEDED"
    assert len(await market.payments(done.payment_hash)) == 1


async def test_another_node_behind_alices_address_is_not_asked(market: Market) -> None:
    net, alice = market.net, market.alice
    order = await hold(market, code_after_s=300)

    await alice.stop()
    mallory = await net.add_node(f"mallory-{order.id}", behind=alice)
    async with asyncio.timeout(60):
        while (status := await market.daemon.status()).lnd.state != "wrong-node":
            await asyncio.sleep(0.1)
    assert not status.ready
    assert pair(await market.daemon.get(order.id))[1] in {"IN_FLIGHT", "UNKNOWN"}
    await net.remove_node(mallory)
    await alice.start()
    done = await market.daemon.until(order.id, is_over)

    assert (enum_name(done, "end"), done.dispatches) == ("FULFILLED", 1)


def _after_create(market: Market, then: asyncio.Event) -> None:
    """The provider's answer to the next order waits: its invoice exists, and the daemon does not have it yet."""
    endpoints = dict(market.provider._endpoints)
    create = endpoints["POST", "/createorder"]

    async def late(request: Request) -> Response:
        response = await create(request)
        await then.wait()
        return response

    endpoints["POST", "/createorder"] = late
    market.provider._endpoints = endpoints
