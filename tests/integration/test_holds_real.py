"""Holds on real nodes: where an HTLC is, what its peer does, how near its expiry is, what a channel may hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from holdpay._pb.v1 import holdpay_pb2 as pb
from tests.harness import Seen, enum_name, is_held, is_over
from tests.integration.market import FAST, Market, open_market
from tests.regtest.net import Net
from tests.regtest.rest import b64

pytestmark = pytest.mark.real

UNTIL_TOLD_S = 1e9
"""Of the provider's clock: the order is held until the test settles its invoice."""
PATIENT = FAST.replace("pay_within_s = 10\n", "pay_within_s = 60\n")
GUARD = "[guard]\nlook_every_s = 1\nrefund_s = 3600\nin_transit_s = 3600\n"
SMALL_SAT = 1_000_000
NO_ROOM = "no channel has room for it (holds.max_channel_orders"


async def hold(market: Market) -> Seen:
    order = await ask(market)
    return await market.daemon.until(order.id, is_held)


async def ask(market: Market) -> Seen:
    knobs = market.provider.knobs
    knobs.queue.append(replace(knobs.scenario, code_after_s=UNTIL_TOLD_S, gives_up_after_s=UNTIL_TOLD_S))
    return await market.daemon.order()


async def settle(market: Market, held: Seen) -> Seen:
    theirs = market.provider.orders[held.payment_hash]
    theirs.code = "246810"
    await market.net["carol"].rest.post("/v2/invoices/settle", {"preimage": b64(theirs.preimage)})
    return await market.daemon.until(held.id, is_over)


async def until_out(market: Market, order: Seen, is_so: Callable[[pb.MoneyOut], bool]) -> pb.MoneyOut:
    """What the status says of its money, once it is so."""
    last = pb.GetStatusResponse()
    try:
        async with asyncio.timeout(60):
            while True:
                last = await market.daemon.status()
                for out in last.out:
                    if out.request_id == order.id and is_so(out):
                        return out
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"not seen: {last.out}") from None


def is_on_channel(out: pb.MoneyOut) -> bool:
    return bool(out.htlcs) and out.htlcs[0].on_channel


async def test_an_htlc_is_seen_on_its_channel_its_peer_goes_and_blocks_raise_the_level(
    own_net: Net, tmp_path: Path
) -> None:
    async with open_market(own_net, tmp_path, f"{FAST}{GUARD}") as market:
        held = await hold(market)
        out = await until_out(market, held, is_on_channel)
        (htlc,) = out.htlcs
        assert (htlc.peer_pubkey, htlc.peer_alias, htlc.peer_online) == (own_net["bob"].pubkey, "bob", True)
        assert htlc.expiry_height == held.expiry_height
        assert out.blocks_left == held.expiry_height - (await market.daemon.status()).lnd.block_height
        assert out.level == pb.HOLD_LEVEL_OK

        await own_net["bob"].kill()
        out = await until_out(market, held, lambda now: now.htlcs[0].HasField("peer_offline_since_ms"))
        assert (out.htlcs[0].peer_online, out.htlcs[0].on_channel) == (False, True)

        # lnd takes block after block: the first look that finds a level may be ahead of the last block.
        await own_net.mine(out.blocks_left - 20)
        out = await until_out(market, held, lambda now: now.blocks_left == 20)
        assert out.level == pb.HOLD_LEVEL_WARNING
        assert "its HTLC expires at block" in out.alarms[0]
        await own_net.mine(20 - 8)
        out = await until_out(market, held, lambda now: now.blocks_left == 8)
        assert out.level == pb.HOLD_LEVEL_CRITICAL
        assert f"lnd closes channel {htlc.channel} with bob" in out.alarms[0]
        assert f"lncli connect {own_net['bob'].pubkey}" in out.alarms[0]
        last = await market.daemon.until(held.id, lambda now: enum_name(now, "hold_level") == "CRITICAL")
        assert last.hold_why in out.alarms[0] or "by force" in last.hold_why

        await own_net.mine(8)
        out = await until_out(market, held, lambda now: now.blocks_left <= 0)
        assert "has expired" in out.alarms[0], "lnd closes the channel now"
        out = await until_out(market, held, lambda now: bool(now.htlcs) and not now.htlcs[0].on_channel)
        assert out.htlcs[0].channel == htlc.channel, "by the attempt: no open channel carries it any more"


async def test_a_channel_at_its_cap_is_left_out_and_where_all_are_a_payment_waits(own_net: Net, tmp_path: Path) -> None:
    await own_net.open_channels((own_net["alice"], own_net["bob"]), capacity_sat=SMALL_SAT, push_sat=SMALL_SAT // 2)
    async with open_market(own_net, tmp_path, f"{PATIENT}{GUARD}[holds]\nmax_channel_orders = 1\n") as market:
        first, second = await hold(market), await hold(market)
        by = [(await until_out(market, held, is_on_channel)).htlcs[0].channel for held in (first, second)]
        assert len(set(by)) == 2, "the second went over the other channel"

        third = await ask(market)
        async with asyncio.timeout(60):
            while NO_ROOM not in (await market.daemon.explain(third.id)).next:
                await asyncio.sleep(0.1)
        await asyncio.sleep(3)  # nothing tells it: it could have been sent by now
        waiting = await market.daemon.get(third.id)
        assert (enum_name(waiting, "htlc"), waiting.dispatches) == ("NONE", 0)
        assert NO_ROOM in (await market.daemon.explain(third.id)).next

        assert enum_name(await settle(market, second), "end") == "FULFILLED"
        third = await market.daemon.until(third.id, is_held)
        out = await until_out(market, third, is_on_channel)
        assert out.htlcs[0].channel == by[1]
        for held in (first, third):
            assert enum_name(await settle(market, held), "end") == "FULFILLED"
