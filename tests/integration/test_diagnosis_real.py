"""Why a payment failed, on real nodes: causes that lnd names alike are told apart, and the order says which it was.

``force``: the check before an order would refuse most of these.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.harness import Seen, enum_name, is_over, run_cli
from tests.integration.market import FAST, Market, open_market
from tests.regtest.net import Net

pytestmark = pytest.mark.real

LARGE = "\n[limits]\nmax_pending_sat = 90000000\nmax_spend_per_day_sat = 90000000\n"
ONE_PART = f"{FAST}max_price_sat = 9000000\nmpp_from_sat = 9000000\n{LARGE}"
"""Large sums, and not split."""


@pytest_asyncio.fixture
async def market(healthy_net: Net, tmp_path: Path) -> AsyncIterator[Market]:
    async with open_market(healthy_net, tmp_path) as opened:
        yield opened


async def _failed(market: Market, **fields: object) -> Seen:
    """How an order ends whose payment does not get through."""
    order = await market.daemon.order(force=True, **fields)
    done = await market.daemon.until(order.id, is_over)
    assert (enum_name(done, "end"), done.spent_msat) == ("PAYMENT_FAILED", 0)
    return done


async def test_a_fee_limit_that_is_too_low_is_told_with_what_it_would_take(market: Market) -> None:
    done = await _failed(market, max_fee_sat=1)
    assert enum_name(done, "cause") == "FEE_LIMIT"
    assert "a route exists at 2 sat, your limit is 1 sat: allow a higher fee" in done.reason
    socket = market.daemon.socket
    code, out, _ = await run_cli(socket, "orders", "explain", done.id)
    assert (code, "fee up to 1 sat: nothing to try (no route)" in out) == (0, True), out
    code, _, err = await run_cli(socket, "code", "usa", "openai", "--max-fee", "1", "--force")
    assert (code, "a route exists at 2 sat" in err) == (10, True), err


async def test_the_ladder_climbs_from_a_rung_that_is_too_low_to_one_that_is_not(
    healthy_net: Net, tmp_path: Path
) -> None:
    async with open_market(healthy_net, tmp_path, f"{FAST}fee_rungs_percent = [5.0, 50.0]\n") as market:
        order = await market.daemon.order()
        done = await market.daemon.until(order.id, is_over)
        assert (enum_name(done, "end"), done.dispatches) == ("FULFILLED", 2)
        first, second = (await market.daemon.get(order.id)).tries
        assert (first.fee_limit_msat, first.failure_class, len(first.attempts)) == (1_000, "no_attempt", 0)
        assert (second.fee_limit_msat, second.failed_at_ms, second.attempts[0].status) == (10_000, 0, "succeeded")
        assert second.attempts[0].first_hop == market.net["bob"].pubkey
        assert len(await market.payments(done.payment_hash)) == 1


async def test_a_peer_that_is_away_is_named(market: Market) -> None:
    bob = market.net["bob"]
    await bob.leave()
    done = await _failed(market)
    assert enum_name(done, "cause") == "PEER_OFFLINE"
    assert f"your peer bob ({bob.pubkey[:10]}…) is offline, whose channels could send" in done.reason


async def test_a_time_lock_that_is_too_short_is_told_with_what_it_would_take(healthy_net: Net, tmp_path: Path) -> None:
    async with open_market(healthy_net, tmp_path, f"{FAST}route_cltv_delta = 79\n") as market:
        done = await _failed(market)
    assert enum_name(done, "cause") == "TIME_LOCK"
    assert "a route exists at 2 sat, and could lock the money for" in done.reason


async def test_a_payee_that_the_graph_lacks_is_told_with_how_to_reach_it(healthy_net: Net, tmp_path: Path) -> None:
    """dave has no channel, so nobody announces him."""
    dave = await healthy_net.add_node(f"dave{secrets.token_hex(3)}")
    shop = copy.copy(healthy_net)
    shop.nodes = {**healthy_net.nodes, "carol": dave}
    try:
        async with open_market(shop, tmp_path) as market:
            done = await _failed(market)
    finally:
        await healthy_net.remove_node(dave)
    assert enum_name(done, "cause") == "PAYEE_UNKNOWN"
    assert f"is not in lnd's graph; open a channel to it: `lncli connect {dave.pubkey}@HOST`" in done.reason


async def test_two_channels_of_which_neither_is_large_enough_alone(own_net: Net, tmp_path: Path) -> None:
    """Together they would do: the payment may not be split here."""
    alice, bob = own_net["alice"], own_net["bob"]
    await own_net.open_channels((alice, bob), capacity_sat=2_000_000, push_sat=0)
    async with open_market(own_net, tmp_path, ONE_PART) as market:
        market.provider.knobs.price_sat = 6_000_000
        done = await _failed(market)
    assert enum_name(done, "cause") == "OUTBOUND"
    words = r"largest usable channel 4,89\d,\d{3} sat, and 6,000,000 sat and the fee have to leave your node"
    assert re.search(words, done.reason), done.reason


async def test_a_hop_with_too_little_is_named_with_its_channel(own_net: Net, tmp_path: Path) -> None:
    bob = own_net["bob"]
    await _drain_bob(own_net, 3_000_000)
    async with open_market(own_net, tmp_path, ONE_PART) as market:
        market.provider.knobs.price_sat = 3_000_000
        done = await _failed(market)
        tries = (await market.daemon.get(done.id)).tries
        code, out, _ = await run_cli(market.daemon.socket, "orders", "explain", done.id)
    assert enum_name(done, "cause") == "HOP_FAILED"
    words = f"hop 1, {bob.pubkey[:10]}…, had too little on channel "
    assert words in done.reason
    assert "(TEMPORARY_CHANNEL_FAILURE); lnd avoids it for some minutes: try again later" in done.reason
    (attempt,) = [each for tried in tries for each in tried.attempts]
    assert (attempt.failed_place, attempt.failed_hop, attempt.failure_code) == (1, bob.pubkey, 15)
    assert attempt.failed_channel != attempt.first_channel
    assert (code, f"HTLC by channel {attempt.first_channel}: {words}{attempt.failed_channel}" in out) == (0, True), out


async def _drain_bob(net: Net, value_sat: int) -> None:
    """Moves as much from bob to carol."""
    preimage = secrets.token_bytes(32)
    payment_hash = hashlib.sha256(preimage).digest()
    paying = asyncio.create_task(net["bob"].pay(await net["carol"].add_hold_invoice(payment_hash, value_sat)))
    await net["carol"].wait_invoice_state(payment_hash, "ACCEPTED")
    await net["carol"].settle(preimage)
    assert (await paying).status == "SUCCEEDED"
