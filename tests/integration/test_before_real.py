"""Before anything is ordered or paid, on real nodes: what lnd itself says of a way, and what is made of it."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from tests.harness import code_request, fresh_key, is_over, run_cli
from tests.integration.market import Market, open_market
from tests.regtest.net import Net
from tests.regtest.rest import NodeError

pytestmark = pytest.mark.real


@pytest_asyncio.fixture
async def market(healthy_net: Net, tmp_path: Path) -> AsyncIterator[Market]:
    async with open_market(healthy_net, tmp_path) as opened:
        yield opened


async def _vet(market: Market, payreq: str, *words: str) -> tuple[int, dict[str, dict[str, str]]]:
    code, out, err = await run_cli(market.daemon.socket, "vet", "-", "--json", *words, stdin=payreq)
    assert out, err
    return code, {check["rule"]: check for check in json.loads(out)["checks"]}


async def _refusal(market: Market, **fields: object) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await market.daemon.submit(code_request(idempotency_key=fresh_key(), **fields))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert await market.daemon.every() == []
    assert market.provider.requests["/createorder"] == 0
    return refused.value.details() or ""


async def _invoice(market: Market, value_sat: int = 2_000) -> str:
    return await market.net["carol"].add_hold_invoice(secrets.token_bytes(32), value_sat)


async def test_an_invoice_that_passes_is_told_with_the_route_and_the_fee_that_it_then_costs(market: Market) -> None:
    code, checks = await _vet(market, await _invoice(market))
    assert code == 0
    assert (checks["routing_fee"]["value"], checks["routing_fee"]["verdict"]) == ("1.002 sat", "pass")
    assert checks["route"]["value"].startswith("2 hops, by channel ")
    order = await market.daemon.order()
    done = await market.daemon.until(order.id, is_over)
    assert done.spent_msat == 2_001_002


async def test_an_invoice_that_costs_too_much_or_is_for_another_node_is_told_as_such(market: Market) -> None:
    code, checks = await _vet(market, await _invoice(market), "--max-fee", "1")
    assert (code, checks["routing_fee"]["verdict"]) == (4, "fail")
    assert "a route exists at 2 sat, your limit is 1 sat" in checks["routing_fee"]["why"]
    of_bob = await market.net["bob"].add_hold_invoice(secrets.token_bytes(32), 2_000)
    code, checks = await _vet(market, of_bob)
    assert (code, checks["payee"]["verdict"], checks["routing_fee"]["value"]) == (4, "fail", "0 sat")


async def test_a_dry_run_finds_the_way_and_orders_nothing(market: Market) -> None:
    code, out, err = await run_cli(market.daemon.socket, "code", "usa", "openai", "--dry-run")
    assert (code, err) == (0, ""), out
    assert "2 hops, by channel " in out
    assert await market.daemon.every() == []


async def test_an_order_over_the_fee_limit_is_refused_before_it_is_made(market: Market) -> None:
    assert "a route exists at 2 sat, your limit is 1 sat" in await _refusal(market, max_fee_sat=1)


async def test_an_order_whose_peer_is_away_is_refused_before_it_is_made_and_goes_when_it_is_back(
    market: Market,
) -> None:
    await market.net["bob"].leave()
    try:
        assert "is offline" in await _refusal(market)
    finally:
        await market.net["bob"].start()


async def test_an_order_that_no_channel_can_carry_is_refused_before_it_is_made(
    healthy_net: Net, tmp_path: Path
) -> None:
    config = (
        "[payment]\nmax_price_sat = 9000000\n[limits]\nmax_pending_sat = 90000000\nmax_spend_per_day_sat = 90000000\n"
    )
    async with open_market(healthy_net, tmp_path, config) as market:
        market.provider.knobs.price_sat = 8_000_000
        assert "have to leave your node" in await _refusal(market)


async def test_an_order_to_a_node_that_the_graph_does_not_have_is_refused_before_it_is_made(
    healthy_net: Net, tmp_path: Path
) -> None:
    async with open_market(healthy_net, tmp_path) as market:
        config = market.daemon.config.read_text()
        unknown = "02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
        market.daemon.config.write_text(config.replace(market.net["carol"].pubkey, unknown))
        await market.daemon.restart()
        await market.daemon.until_ready()
        assert "is not in lnd's graph" in await _refusal(market)


async def test_what_mission_control_remembers_of_a_failure_refuses_nothing(market: Market) -> None:
    """lnd avoids a hop that failed for minutes, and an order has ten."""
    carol = market.net["carol"]
    payreq = await _invoice(market)
    await carol.leave()
    assert (await market.alice.pay(payreq)).status != "SUCCEEDED"
    await carol.start()
    await carol.wait_active_channels()
    way = f"/v1/graph/routes/{carol.pubkey}/2000?fee_limit.fixed=20&use_mission_control="
    with pytest.raises(NodeError):
        await market.alice.rest.get(f"{way}true")
    assert (await market.alice.rest.get(f"{way}false"))["routes"]

    code, out, _ = await run_cli(market.daemon.socket, "code", "usa", "openai", "--dry-run")

    assert (code, "2 hops, by channel" in out) == (0, True), out
