"""Money that is out, and how much may be: the guard, the caps and the queue, with the real daemon on the sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from holdpay._pb.v1 import holdpay_pb2 as pb
from tests.e2e.shop import FOR_EVER_S, QUICK, Shop, open_shop
from tests.harness import enum_name, is_held, is_over, run_cli

pytestmark = pytest.mark.asyncio(loop_scope="module")

GUARDED = QUICK.replace("refund_s = 1\n", "refund_s = 1\nlook_every_s = 1\npeer_offline_s = 1\n")
ONE = f"{GUARDED}[holds]\nmax_orders = 1\n"


@pytest_asyncio.fixture(loop_scope="module")
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """One hold at a time, and it stays until a test ends it."""
    async with open_shop(tmp_path, extra_config=ONE) as opened:
        knobs = opened.world.provider.knobs
        knobs.scenario = replace(knobs.scenario, code_after_s=FOR_EVER_S, gives_up_after_s=FOR_EVER_S)
        yield opened


async def until_status(shop: Shop, is_so: Callable[[pb.GetStatusResponse], bool]) -> pb.GetStatusResponse:
    async with asyncio.timeout(60):
        while not is_so(status := await shop.daemon.status()):
            await asyncio.sleep(0.1)
    return status


# --- the queue ------------------------------------------------------------------------------------------------------


async def test_three_orders_go_one_after_the_other_and_the_queue_is_told(shop: Shop) -> None:
    ids = [(await shop.daemon.order()).id for _ in range(3)]
    first = await shop.daemon.until(ids[0], is_held)
    status = await shop.daemon.status()
    assert (status.holds.orders, status.holds.max_orders, status.holds.waiting) == (1, 1, 2)
    assert [order.request_id for order in status.holds.queue] == ids[1:]
    assert (await shop.daemon.get(ids[2])).phase == "waiting: 1 of 1 holds are out; 2nd in the queue"
    assert "1 of 1 holds are out; 2nd in the queue" in (await shop.daemon.explain(ids[2])).next
    assert len(shop.world.provider.orders) == 1
    code, stdout, _ = await run_cli(shop.world.socket, "status")
    assert (code, "1 of 1" in stdout, f"{ids[1]}: for a place among the holds" in stdout) == (0, True, True)
    for order_id in ids:
        held = await shop.daemon.until(order_id, is_held)
        assert (await shop.daemon.status()).holds.orders == 1
        await shop.deliver(held)
        assert enum_name(await shop.daemon.until(order_id, is_over), "end") == "FULFILLED"
    assert first.id == ids[0]
    await shop.audit()


async def test_a_cancel_while_it_waits_ends_it_at_once_and_nothing_was_ordered(shop: Shop) -> None:
    held, waiting = await shop.daemon.order(), await shop.daemon.order()
    reply = await shop.daemon.cancel(waiting.id)
    assert reply.request.terminal
    assert enum_name(await shop.daemon.get(waiting.id), "end") == "CANCELED_UNPAID"
    await shop.deliver(await shop.daemon.until(held.id, is_held))
    await shop.daemon.until(held.id, is_over)
    assert len(shop.world.provider.orders) == 1


async def test_a_crash_while_orders_wait_keeps_them_and_their_order(shop: Shop) -> None:
    ids = [(await shop.daemon.order()).id for _ in range(3)]
    await shop.daemon.until(ids[0], is_held)
    await shop.daemon.restart()
    status = await shop.daemon.status()
    assert [order.request_id for order in status.holds.queue] == ids[1:]
    for order_id in ids:
        await shop.deliver(await shop.daemon.until(order_id, is_held))
        await shop.daemon.until(order_id, is_over)
    assert len(shop.world.provider.orders) == 3
    await shop.audit()


async def test_what_waits_too_long_ends_as_a_limit_does(tmp_path: Path) -> None:
    async with open_shop(tmp_path, extra_config=f"{ONE}max_wait_s = 1\n") as shop:
        held = await shop.held()
        code, stdout, stderr = await run_cli(shop.world.socket, "code", "usa", "openai")
        assert (code, stdout) == (8, "")
        assert "waiting: 1 of 1 holds are out; 1st in the queue" in stderr
        assert "over: it waited in vain for a place among the holds; nothing was ordered, nothing was spent" in stderr
        assert len(shop.world.provider.orders) == 1
        await shop.deliver(held)
        await shop.daemon.until(held.id, is_over)


async def test_where_it_may_not_wait_a_request_is_refused_and_the_cap_is_named(tmp_path: Path) -> None:
    async with open_shop(tmp_path, extra_config=f'{ONE}when_full = "refuse"\n') as shop:
        held = await shop.held()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await shop.daemon.order()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "1 of 1 holds are out or about to be (holds.max_orders)" in (refused.value.details() or "")
        status = await shop.daemon.status()
        assert (status.ready, "holds.max_orders" in status.not_ready_reason) == (False, True)
        await shop.deliver(held)
        await shop.daemon.until(held.id, is_over)
        assert len(await shop.daemon.every()) == 1


# --- the guard ------------------------------------------------------------------------------------------------------


async def test_a_hold_is_shown_with_its_channel_its_peer_and_the_time_that_is_left(shop: Shop) -> None:
    order = await shop.daemon.order()
    await shop.daemon.until(order.id, is_held)
    status = await until_status(shop, lambda now: any(out.htlcs and out.htlcs[0].on_channel for out in now.out))
    (out,) = status.out
    (htlc,) = out.htlcs
    assert (htlc.peer_alias, htlc.peer_online, htlc.on_channel) == ("bob", True, True)
    assert htlc.peer_pubkey == shop.world.lnd.network.peer_pubkey
    assert out.blocks_left == htlc.expiry_height - status.lnd.block_height
    assert out.hours_left == out.blocks_left / 6
    told = await shop.daemon.explain(order.id)
    assert f"The HTLC is on channel {htlc.channel}; its peer, bob" in told.money
    _, stdout, _ = await run_cli(shop.world.socket, "status")
    assert f"by channel {htlc.channel} (the HTLC is on it) to bob" in stdout


async def test_an_offline_peer_and_each_bound_of_blocks_are_told_once_in_the_stream_and_with_what_to_do(
    shop: Shop,
) -> None:
    order = await shop.daemon.order()
    held = await shop.daemon.until(order.id, is_held)
    await until_status(shop, lambda now: bool(now.out and now.out[0].htlcs))
    shop.world.lnd.network.set_online("payee", online=False)
    shop.world.lnd.network.set_online("peer", online=False)
    status = await until_status(shop, lambda now: now.out[0].level == pb.HOLD_LEVEL_WARNING)
    (alarm, *_) = status.out[0].alarms
    assert "is offline for" in alarm
    assert "lncli connect" in alarm
    assert not status.out[0].htlcs[0].peer_online

    await shop.world.lnd.mine(status.out[0].blocks_left - 5)
    status = await until_status(shop, lambda now: now.out[0].level == pb.HOLD_LEVEL_CRITICAL)
    assert "by force at block" in status.out[0].alarms[0]
    seen = await shop.daemon.until(order.id, lambda now: enum_name(now, "hold_level") == "CRITICAL")
    assert "by force at block" in seen.hold_why
    events = [entry.text for entry in (await shop.daemon.explain(order.id)).history]
    assert sum(text.startswith("the hold is critical") for text in events) == 1
    shop.world.lnd.network.set_online("peer", online=True)
    shop.world.lnd.network.set_online("payee", online=True)
    await shop.deliver(held)
    await shop.daemon.until(order.id, is_over)
