"""The contract with LND, at the wire, about bad times: it stops, dies and starts, and blocks pass over a held HTLC."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from itertools import pairwise

import grpc
import grpc.aio
import pytest

from holdpay._pb.lnd import lightning_pb2
from tests.contract.client import Client, Payment, Watch
from tests.contract.steps import (
    ALREADY_EXISTS,
    HOP_DELTA,
    INCORRECT_DETAILS,
    INSUFFICIENT_BALANCE,
    NO_ROUTE,
    NONE,
    PADDING,
    SOON_S,
    UNAVAILABLE,
    UNKNOWN,
    cancel,
    failures,
    hold,
    later,
    order,
    outcome,
    settle,
    tidied,
)
from tests.contract.worlds import World

# --- lnd stops, dies, starts ---


async def test_when_lnd_stops_streams_say_so_and_then_nobody_answers(world: World, lnd: Client) -> None:
    bought = await order(world)
    stream = await hold(world, lnd, bought)
    tracking = lnd.track(bought.payment_hash)
    await tracking.out()
    await world.stop_payer()

    # A real lnd sometimes is gone before it has said so.
    for code, text in (await stream.refusal(), await tracking.refusal()):
        assert (code, text) == (UNKNOWN, "routerrpc server shutting down") or code is UNAVAILABLE
    # The connection may still be there for a moment.
    async with asyncio.timeout(60):
        while "Connection refused" not in (refusal := await lnd.track(bought.payment_hash).refusal())[1]:
            assert refusal[0] in {UNAVAILABLE, UNKNOWN}
    assert refusal[0] is UNAVAILABLE
    await world.start_payer()
    await cancel(world, bought)


async def test_when_lnd_is_killed_streams_break(world: World, lnd: Client) -> None:
    bought = await order(world)
    stream = await hold(world, lnd, bought)
    await world.kill_payer()

    code, _ = await stream.refusal()

    assert code is UNAVAILABLE
    await world.start_payer()
    await cancel(world, bought)


@pytest.mark.parametrize("is_settled", [True, False])
async def test_a_held_payment_outlives_a_kill(world: World, lnd: Client, is_settled: bool) -> None:
    bought = await order(world)
    stream = await hold(world, lnd, bought)
    before = await stream.out()
    await world.kill_payer()
    await world.start_payer()
    async with world.connect() as again:
        tracking = again.track(bought.payment_hash)
        after = await tracking.out()
        assert await again.send(bought.payreq).refusal() == (ALREADY_EXISTS, "payment is in transition")
        await (settle if is_settled else cancel)(world, bought)
        last = await tracking.end()
        record = await (later if is_settled else tidied)(again, bought.payment_hash)

    assert after.htlcs[0].route.total_time_lock == before.htlcs[0].route.total_time_lock
    assert after.htlcs[0].attempt_id == before.htlcs[0].attempt_id
    expected = (Payment.SUCCEEDED, NONE) if is_settled else (Payment.FAILED, INCORRECT_DETAILS)
    assert outcome(last) == outcome(record) == expected
    assert failures(last) == ([] if is_settled else [(1, 2)])
    assert [htlc.attempt_id for htlc in record.htlcs] == ([before.htlcs[0].attempt_id] if is_settled else [])


@pytest.mark.parametrize("is_settled", [True, False])
async def test_what_happened_while_lnd_was_down_is_told_after_the_start(
    world: World, lnd: Client, is_settled: bool
) -> None:
    bought = await order(world)
    await hold(world, lnd, bought, timeout_seconds=SOON_S)
    await world.stop_payer()
    await (settle if is_settled else cancel)(world, bought)
    await world.pass_s(SOON_S + 0.5)
    await world.start_payer()
    async with world.connect() as again:
        last = await again.track(bought.payment_hash).end()

    # The time-out of before the restart is forgotten, so it overwrites nothing.
    expected = (Payment.SUCCEEDED, NONE) if is_settled else (Payment.FAILED, INCORRECT_DETAILS)
    assert outcome(last) == expected


async def test_a_cancel_that_came_home_before_our_track_shows_no_htlcs(world: World, lnd: Client) -> None:
    refused = await order(world)
    await hold(world, lnd, refused)
    await world.stop_payer()
    await cancel(world, refused)
    await world.start_payer()
    async with world.connect() as again:
        async with asyncio.timeout(60):
            while refused.payment_hash.hex() in await in_flight(again):
                await asyncio.sleep(0.05)
        record = await tidied(again, refused.payment_hash)

    assert outcome(record) == (Payment.FAILED, INCORRECT_DETAILS)


async def in_flight(lnd: Client) -> set[str]:
    payments = await lnd.payments(include_incomplete=True)
    return {payment.payment_hash for payment in payments if payment.status == Payment.IN_FLIGHT}


async def test_after_a_kill_the_payment_index_has_jumped(world: World, lnd: Client) -> None:
    before = await lnd.send((await order(world)).payreq, fee_limit_msat=0).end()
    await world.kill_payer()
    await world.start_payer()
    async with world.connect() as again:
        after = await again.send((await order(world)).payreq, fee_limit_msat=0).end()

    assert after.payment_index > before.payment_index + 100


async def test_the_payees_restart_changes_nothing(world: World, lnd: Client) -> None:
    bought = await order(world)
    stream = await hold(world, lnd, bought)
    count = len(stream.messages)
    await world.set_online("payee", online=False)
    await world.set_online("payee", online=True)

    assert len(stream.messages) == count
    await settle(world, bought)
    assert outcome(await stream.end()) == (Payment.SUCCEEDED, NONE)


# A node that unlocks its wallet by itself is locked for a moment all the same.
STARTING = {
    "waiting to start, RPC services not available",
    "wallet locked, unlock it to enable full RPC access",
    "the RPC server is in the process of starting up, but not yet ready to accept calls",
}


async def test_while_lnd_starts_calls_are_refused_in_known_words(world: World, lnd: Client) -> None:
    bought = await order(world)
    await hold(world, lnd, bought)
    await world.stop_payer()
    starting = asyncio.create_task(world.start_payer())
    refusals = set()
    async with world.connect() as client, asyncio.timeout(60):
        while True:
            tracking = client.track(bought.payment_hash)
            try:
                shown = await tracking.out()
                break
            except grpc.aio.AioRpcError as error:
                refusals.add((error.code(), error.details()))
                await asyncio.sleep(0.02)
    await starting

    assert shown.status == Payment.IN_FLIGHT
    assert {code for code, _ in refusals} <= {UNAVAILABLE, UNKNOWN}
    assert {text for code, text in refusals if code is UNKNOWN} <= STARTING
    await cancel(world, bought)


# --- identity and chain ---


async def test_info_names_the_node_its_network_and_its_height(world: World, lnd: Client) -> None:
    before = await lnd.info()
    await world.mine(2)
    async with asyncio.timeout(60):
        while not (after := await lnd.info()).synced_to_chain:
            await asyncio.sleep(0.02)

    assert re.fullmatch(r"0[23][0-9a-f]{64}", before.identity_pubkey)
    assert after.identity_pubkey == before.identity_pubkey
    assert [chain.network for chain in before.chains] == ["simnet"]
    assert before.version.startswith("0.")
    assert after.block_height == before.block_height + 2
    assert before.alias == "alice"


async def test_at_a_new_block_lnd_is_not_synced_for_a_moment_but_tells_the_height(world: World, lnd: Client) -> None:
    before = await lnd.info()
    seen = [before]
    polling = asyncio.create_task(poll_info(lnd, seen))
    # The polls may miss the moment, a few milliseconds; mostly at one of the first six blocks they do not.
    for blocks in range(1, 201):
        await world.mine(1)
        async with asyncio.timeout(60):
            while seen[-1].block_height < before.block_height + blocks or not seen[-1].synced_to_chain:
                await asyncio.sleep(0.01)
        if moved_while_not_synced(seen):
            break
    polling.cancel()

    assert before.synced_to_chain
    assert moved_while_not_synced(seen)


def moved_while_not_synced(seen: list[lightning_pb2.GetInfoResponse]) -> bool:
    return any(now.block_height > last.block_height and not now.synced_to_chain for last, now in pairwise(seen))


async def poll_info(lnd: Client, seen: list[lightning_pb2.GetInfoResponse]) -> None:
    while True:
        seen.append(await lnd.info())


async def test_while_the_last_block_is_old_lnd_is_not_synced(world: World) -> None:
    async with world.old_chain() as (late, mine):
        stale = []
        for _ in range(20):
            stale.append(await late.info())
            await asyncio.sleep(0.05)
        await mine()
        async with asyncio.timeout(60):
            while not (fresh := await late.info()).synced_to_chain:
                await asyncio.sleep(0.02)

    assert {(info.block_height, info.synced_to_chain) for info in stale} == {(0, False)}
    assert fresh.block_height == 1


# --- time runs out ---

SHORT_DELTA = 24  # the least final delta that LND's invoices may ask for


# Large enough for lnd to find its claim on chain worth the fee; with a small HTLC the payment stays IN_FLIGHT for long.
WORTH_A_CLAIM_SAT = 200_000


async def test_a_silent_payees_lnd_cancels_some_blocks_before_its_htlc_expires(world: World, lnd: Client) -> None:
    asked = await order(world, cltv_delta=SHORT_DELTA)
    stream = await hold(world, lnd, asked)
    early_blocks = auto_cancel_blocks((await lnd.info()).version)
    await world.mine(SHORT_DELTA + PADDING - early_blocks - 1)
    await asyncio.sleep(0.3)
    assert stream.messages[-1].status == Payment.IN_FLIGHT
    await world.mine(1)
    last = await stream.end()

    assert outcome(last) == (Payment.FAILED, INCORRECT_DETAILS)
    assert failures(last) == [(1, 2)]


def auto_cancel_blocks(version: str) -> int:
    """LND's default of invoices.holdexpirydelta; the nodes of a world all run one version."""
    return 18 if version >= "0.21" else 12


async def test_a_payee_that_never_comes_back_ends_in_no_route(mortal_world: World) -> None:
    asked = await order(mortal_world, value_sat=WORTH_A_CLAIM_SAT, cltv_delta=SHORT_DELTA)
    async with mortal_world.connect() as lnd:
        stream = await hold(mortal_world, lnd, asked)
        await mortal_world.set_online("payee", online=False)
        await mortal_world.mine(SHORT_DELTA + PADDING)
        await mine_until(mortal_world, stream, blocks=HOP_DELTA - 1)
        last = await stream.end()

    assert outcome(last) == (Payment.FAILED, NO_ROUTE)
    assert failures(last) == [(21, 1)]


async def test_a_first_peer_that_never_comes_back_costs_the_channel(mortal_world: World) -> None:
    asked = await order(mortal_world, value_sat=WORTH_A_CLAIM_SAT, cltv_delta=SHORT_DELTA)
    async with mortal_world.connect() as lnd:
        stream = await hold(mortal_world, lnd, asked)
        await mortal_world.set_online("peer", online=False)
        await mortal_world.mine(SHORT_DELTA + PADDING + HOP_DELTA - 1)
        assert len(await lnd.channels()) == 1
        await mortal_world.mine(1)
        async with asyncio.timeout(60):
            while await lnd.channels():
                await asyncio.sleep(0.05)
        await mine_until(mortal_world, stream, blocks=40)
        last = await stream.end()

    assert outcome(last) == (Payment.FAILED, INSUFFICIENT_BALANCE)
    assert failures(last) == [(21, 0)]


async def mine_until(world: World, stream: Watch, *, blocks: int) -> None:
    """Mine until the payment has ended; a real node needs a moment after each block to publish and to sweep."""
    for _ in range(blocks):
        await world.mine(1)
        with suppress(TimeoutError):
            async with asyncio.timeout(world.block_pause_s):
                await stream.end()
                return
