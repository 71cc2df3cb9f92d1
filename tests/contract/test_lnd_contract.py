"""What a payer of hold invoices relies on in LND, at the wire: the same tests on the sandbox LND and on a real one.

Each test is one thing that real nodes were seen to do (lnd 0.18.5, 0.20 and 0.21). When the sandbox and a real lnd
disagree, the sandbox is wrong. Here: how payments run. Requests and bad times are in the files beside this one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress

import grpc
import grpc.aio
import pytest

from holdpay.sandbox.payee import InvoiceState
from tests.contract.client import PATIENCE_S, Client, Payment
from tests.contract.steps import (
    ALREADY_EXISTS,
    CANCELED,
    HOP_DELTA,
    INCORRECT_DETAILS,
    INSUFFICIENT_BALANCE,
    NO_ROUTE,
    NONE,
    NOT_INITIATED,
    PADDING,
    PEER_FEE_MSAT,
    SOON_S,
    TIMEOUT,
    UNKNOWN,
    VALUE_MSAT,
    VALUE_SAT,
    Order,
    cancel,
    cancel_when_held,
    failures,
    hold,
    later,
    order,
    outcome,
    quiet,
    rewritten,
    settle,
    tidied,
)
from tests.contract.worlds import World

# --- a plain hold, and a cancel ---


async def test_a_plain_hold_goes_from_nothing_to_one_htlc_to_success(world: World, lnd: Client) -> None:
    bought = await order(world)
    height = (await lnd.info()).block_height
    stream = await hold(world, lnd, bought)
    await asyncio.sleep(0.2)
    while_held = list(stream.messages)
    await settle(world, bought)
    last = await stream.end()

    assert [(m.status, [htlc.status for htlc in m.htlcs]) for m in while_held] == [(1, []), (1, [0])]
    assert {m.payment_preimage for m in while_held} == {"00" * 32}
    route = while_held[-1].htlcs[0].route
    assert route.total_time_lock == height + 80 + PADDING + HOP_DELTA
    assert (route.total_amt_msat, route.total_fees_msat) == (VALUE_MSAT + PEER_FEE_MSAT, PEER_FEE_MSAT)
    assert [(hop.amt_to_forward_msat, hop.fee_msat) for hop in route.hops] == [(VALUE_MSAT, 1002), (VALUE_MSAT, 0)]
    assert route.hops[-1].pub_key == await world.invoices.pubkey()

    assert outcome(last) == (Payment.SUCCEEDED, NONE)
    assert last.payment_hash == bought.payment_hash.hex()
    assert last.payment_preimage == bought.preimage.hex()
    assert (last.value_sat, last.value_msat, last.fee_sat, last.fee_msat) == (VALUE_SAT, VALUE_MSAT, 1, PEER_FEE_MSAT)
    assert last.payment_request == bought.payreq
    assert [(htlc.status, htlc.preimage) for htlc in last.htlcs] == [(1, bought.preimage)]
    assert last.htlcs[0].attempt_time_ns <= last.htlcs[0].resolve_time_ns
    assert abs(last.creation_time_ns / 1e9 - time.time()) < 60


async def test_a_cancel_first_names_the_reason_and_then_fails(world: World, lnd: Client) -> None:
    refused = await order(world)
    stream = await hold(world, lnd, refused)
    await cancel(world, refused)
    last = await stream.end()

    assert outcome(stream.messages[-2]) == (Payment.IN_FLIGHT, INCORRECT_DETAILS)
    assert [htlc.status for htlc in stream.messages[-2].htlcs] == [0]
    assert outcome(last) == (Payment.FAILED, INCORRECT_DETAILS)
    assert failures(last) == [(1, len(last.htlcs[0].route.hops))]
    assert last.htlcs[0].failure.height == (await lnd.info()).block_height


async def test_after_a_cancel_the_attempt_is_gone(world: World, lnd: Client) -> None:
    refused = await order(world)
    stream = await hold(world, lnd, refused)
    await cancel(world, refused)
    await stream.end()

    record = await tidied(lnd, refused.payment_hash)

    assert outcome(record) == (Payment.FAILED, INCORRECT_DETAILS)


async def test_without_inflight_updates_only_the_end_is_told(world: World, lnd: Client) -> None:
    bought = await order(world)
    stream = lnd.send(bought.payreq, no_inflight_updates=True)
    await world.invoices.wait_state(bought.payment_hash, InvoiceState.ACCEPTED)
    tracking = lnd.track(bought.payment_hash, no_inflight_updates=True)
    await asyncio.sleep(0.2)
    await settle(world, bought)

    assert (await stream.end()).status == (await tracking.end()).status == Payment.SUCCEEDED
    assert len(stream.messages) == len(tracking.messages) == 1


# --- the time-out ---


async def test_settled_after_the_time_out_a_later_track_says_succeeded_and_time_out(world: World, lnd: Client) -> None:
    bought = await order(world)
    stream = await hold(world, lnd, bought, timeout_seconds=SOON_S)
    tracking = lnd.track(bought.payment_hash)
    await tracking.out()
    await world.pass_s(SOON_S + 0.5)
    await settle(world, bought)

    assert outcome(await stream.end()) == outcome(await tracking.end()) == (Payment.SUCCEEDED, NONE)
    assert (await rewritten(lnd, bought.payment_hash, TIMEOUT)).status == Payment.SUCCEEDED


async def test_cancelled_after_the_time_out_a_later_track_hides_the_cancel(world: World, lnd: Client) -> None:
    refused = await order(world)
    stream = await hold(world, lnd, refused, timeout_seconds=SOON_S)
    await world.pass_s(SOON_S + 0.5)
    await cancel(world, refused)

    assert outcome(await stream.end()) == (Payment.FAILED, INCORRECT_DETAILS)
    assert (await rewritten(lnd, refused.payment_hash, TIMEOUT)).status == Payment.FAILED


# --- the same hash again ---


async def test_a_hash_that_is_out_cannot_be_sent_again(world: World, lnd: Client) -> None:
    bought = await order(world)
    await hold(world, lnd, bought)

    assert await lnd.send(bought.payreq).refusal() == (ALREADY_EXISTS, "payment is in transition")
    await settle(world, bought)


async def test_a_hash_that_was_paid_cannot_be_sent_again(world: World, lnd: Client) -> None:
    bought = await order(world)
    stream = await hold(world, lnd, bought)
    await settle(world, bought)
    first = await stream.end()

    assert await lnd.send(bought.payreq).refusal() == (ALREADY_EXISTS, "invoice is already paid")
    # So the time tells a payment of before from one that was just sent.
    assert (await later(lnd, bought.payment_hash)).creation_time_ns == first.creation_time_ns > 0


async def test_a_hash_that_failed_can_be_sent_again_with_a_new_index(world: World, lnd: Client) -> None:
    bought = await order(world)
    first = await lnd.send(bought.payreq, fee_limit_msat=1).end()
    again = await hold(world, lnd, bought)
    await settle(world, bought)
    last = await again.end()

    assert first.status == Payment.FAILED
    assert outcome(last) == (Payment.SUCCEEDED, NONE)
    assert last.payment_index > first.payment_index


async def test_a_refused_duplicate_uses_up_an_index(world: World, lnd: Client) -> None:
    first, second = await order(world), await order(world)
    held = await hold(world, lnd, first)
    await lnd.send(first.payreq).refusal()
    after = await hold(world, lnd, second)

    assert after.messages[0].payment_index == held.messages[0].payment_index + 2
    await cancel(world, first)
    await cancel(world, second)


async def test_while_out_an_expired_invoice_is_refused_as_expired(world: World, lnd: Client) -> None:
    bought = await order(world, expiry_s=10)
    stream = await hold(world, lnd, bought)
    await world.pass_s(11)

    code, text = await lnd.send(bought.payreq).refusal()

    assert code is UNKNOWN
    assert text.startswith("invoice expired. Valid until ")
    await settle(world, bought)
    assert outcome(await stream.end()) == (Payment.SUCCEEDED, NONE)


# --- failures that never left us ---


@pytest.mark.parametrize("options", [{"fee_limit_msat": 1001}, {"fee_limit_msat": 0}, {"cltv_limit": 162}])
async def test_a_limit_too_low_for_the_route_ends_in_no_route(
    world: World, lnd: Client, options: dict[str, object]
) -> None:
    asked = await order(world)
    last = await lnd.send(asked.payreq, **options).end()

    assert outcome(last) == (Payment.FAILED, NO_ROUTE)
    assert not last.htlcs


async def test_limits_that_just_fit_do(world: World, lnd: Client) -> None:
    bought = await order(world)
    stream = await hold(world, lnd, bought, fee_limit_msat=PEER_FEE_MSAT, cltv_limit=163)
    await settle(world, bought)

    assert (await stream.end()).fee_msat == PEER_FEE_MSAT


async def test_more_than_the_balance_is_insufficient_balance(world: World, lnd: Client) -> None:
    asked = await order(world, value_sat=15_000_000)
    last = await lnd.send(asked.payreq, fee_limit_msat=10**9, max_parts=4).end()

    assert outcome(last) == (Payment.FAILED, INSUFFICIENT_BALANCE)
    assert not last.htlcs


async def test_with_the_first_peer_away_it_is_insufficient_balance_too(world: World, lnd: Client) -> None:
    asked = await order(world)
    await world.set_online("peer", online=False)
    async with asyncio.timeout(60):
        while any(channel.active for channel in await lnd.channels()):
            await asyncio.sleep(0.05)

    assert outcome(await lnd.send(asked.payreq).end()) == (Payment.FAILED, INSUFFICIENT_BALANCE)
    assert (await lnd.info()).num_active_channels == 0
    await world.set_online("peer", online=True)


async def test_query_routes_tells_why_there_is_no_route(world: World, lnd: Client) -> None:
    payee = await world.invoices.pubkey()
    asked = {"pub_key": payee, "amt_msat": VALUE_MSAT, "final_cltv_delta": 83}
    found = await lnd.routes(**asked, cltv_limit=163, fee_limit={"fixed_msat": PEER_FEE_MSAT})
    height = (await lnd.info()).block_height

    assert found.routes[0].total_time_lock == height + 163
    assert found.routes[0].total_fees_msat == PEER_FEE_MSAT
    for narrowed in ({"fee_limit": {"fixed_msat": PEER_FEE_MSAT - 1}}, {"cltv_limit": 162}):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await lnd.routes(**asked, **narrowed)
        assert (refusal.value.code(), refusal.value.details()) == (UNKNOWN, "unable to find a path to destination")


# --- mission control ---


async def test_with_the_payee_away_one_attempt_fails_and_the_next_sends_make_none(world: World, lnd: Client) -> None:
    asked = await order(world)
    await world.set_online("payee", online=False)
    first = lnd.send(asked.payreq)
    last = await first.end()
    await world.set_online("payee", online=True)

    assert outcome(last) == (Payment.FAILED, NO_ROUTE)
    assert failures(last) == [(18, 1)]
    # A real lnd does not wait for its time-out, which is longer than the patience of this suite.
    again = await lnd.send(asked.payreq).end()
    assert outcome(again) == (Payment.FAILED, NO_ROUTE)
    assert not again.htlcs

    route = {"pub_key": await world.invoices.pubkey(), "amt_msat": VALUE_MSAT, "final_cltv_delta": 80}
    assert (await lnd.routes(**route)).routes
    with pytest.raises(grpc.aio.AioRpcError, match="unable to find a path to destination"):
        await lnd.routes(**route, use_mission_control=True)
    if world.mission_control_s is not None:
        await world.pass_s(world.mission_control_s)
        await hold(world, lnd, asked)
        await settle(world, asked)


# --- races ---


async def test_a_track_right_after_a_send_may_find_nothing_and_then_does(world: World, lnd: Client) -> None:
    bought = await order(world)
    async with world.connect() as other:
        stream = lnd.send(bought.payreq)
        at_once = other.track(bought.payment_hash)
        with suppress(grpc.aio.AioRpcError):
            await at_once.out()
        if not at_once.messages:
            assert await at_once.refusal() == NOT_INITIATED
        await stream.out()
        assert (await other.track(bought.payment_hash).out()).status == Payment.IN_FLIGHT
    await cancel_when_held(world, bought)
    await stream.end()


@pytest.mark.parametrize("hangs_up", [False, True], ids=["cancels", "hangs_up"])
async def test_what_was_sent_to_a_stalled_lnd_is_out_in_a_moment_or_never(
    world: World, lnd: Client, hangs_up: bool
) -> None:
    asked = [await order(world) for _ in range(4)]
    async with AsyncExitStack() as connection:
        sender = await connection.enter_async_context(world.connect())
        await asyncio.gather(sender.info(), lnd.info())
        async with world.stalled_payer():
            sends = [sender.send(one.payreq) for one in asked]
            tracks = [lnd.track(one.payment_hash) for one in asked]
            await asyncio.sleep(0.2)
            if hangs_up:
                await connection.aclose()
            for send in sends:
                send.drop()
            await asyncio.sleep(0.1)
            assert not any(watch.messages for watch in (*sends, *tracks))
    at_first = await follow(lnd, asked)

    # For a moment nothing may become something; something stays, and then nothing stays too.
    for one, views in zip(asked, at_first, strict=True):
        assert views == sorted(views)
        if views[-1] == OUT:
            await world.invoices.wait_state(one.payment_hash, InvoiceState.ACCEPTED)
            assert await lnd.send(one.payreq).refusal() == (ALREADY_EXISTS, "payment is in transition")
        else:
            assert await world.invoices.state(one.payment_hash) is InvoiceState.OPEN
            await hold(world, lnd, one)
        await cancel(world, one)


NOTHING, NO_HTLC_YET, OUT = range(3)
OFTEN = 20
FOLLOWED_S = 3.0


async def follow(lnd: Client, sent: Sequence[Order]) -> list[list[int]]:
    """What Tracks say of each, one after the other, until nothing, or an HTLC that is out, is all that they have said
    of it for long and often: a busy lnd takes its time with what it was sent, and with the Tracks as well."""
    seen: list[list[int]] = [[] for _ in sent]
    changed_s = time.monotonic()
    async with asyncio.timeout(PATIENCE_S):
        while time.monotonic() < changed_s + FOLLOWED_S or not all(is_settled(views) for views in seen):
            for views, one in zip(seen, sent, strict=True):
                views.append(await progress(lnd, one))
                if views[-2:-1] != views[-1:]:
                    changed_s = time.monotonic()
    return seen


def is_settled(views: list[int]) -> bool:
    return len(views) >= OFTEN and set(views[-OFTEN:]) in ({NOTHING}, {OUT})


async def progress(lnd: Client, sent: Order) -> int:
    """How far a Track says that a payment is that nobody settles or cancels."""
    tracking = lnd.track(sent.payment_hash)
    try:
        shown = await tracking.message(lambda _payment: True)
    except grpc.aio.AioRpcError:
        assert await tracking.refusal() == NOT_INITIATED
        return NOTHING
    tracking.drop()
    assert outcome(shown) == (Payment.IN_FLIGHT, NONE)
    return OUT if shown.htlcs else NO_HTLC_YET


# --- a stream that we drop ---


async def test_a_dropped_stream_changes_nothing(world: World, lnd: Client) -> None:
    bought = await order(world)
    stream = await hold(world, lnd, bought)
    stream.drop()
    tracking = lnd.track(bought.payment_hash)
    await tracking.out()
    await settle(world, bought)

    assert outcome(await tracking.end()) == (Payment.SUCCEEDED, NONE)
    await asyncio.sleep(0.3)  # nothing tells it: LND could have put another reason over that one by now
    assert outcome(await later(lnd, bought.payment_hash)) == (Payment.SUCCEEDED, NONE)


async def test_a_dropped_cancelable_stream_does_not_pull_the_htlc_back(world: World, lnd: Client) -> None:
    bought = await order(world)
    stream = await hold(world, lnd, bought, cancelable=True)
    stream.drop()
    # On the same connection: what answers it has seen the drop.
    tracking = lnd.track(bought.payment_hash)
    assert (await tracking.out()).status == Payment.IN_FLIGHT
    await settle(world, bought)
    await tracking.end()

    assert (await rewritten(lnd, bought.payment_hash, CANCELED)).status == Payment.SUCCEEDED


# --- the held HTLC on the channel ---


async def test_a_held_htlc_is_pending_on_the_first_channel(world: World, lnd: Client) -> None:
    await quiet(lnd)
    before = await lnd.balance()
    bought = await order(world)
    stream = await hold(world, lnd, bought)
    attempt = (await stream.out()).htlcs[0]
    pending = [
        (channel, htlc)
        for channel in await lnd.channels()
        for htlc in channel.pending_htlcs
        if htlc.hash_lock == bought.payment_hash
    ]
    during = await lnd.balance()
    version = (await lnd.info()).version
    await cancel(world, bought)
    await stream.end()

    assert len(pending) == 1
    channel, htlc = pending[0]
    assert channel.chan_id == attempt.route.hops[0].chan_id
    assert channel.remote_pubkey == attempt.route.hops[0].pub_key
    assert (htlc.incoming, htlc.amount, htlc.forwarding_channel) == (False, 2001, 0)
    assert htlc.expiration_height == attempt.route.total_time_lock
    assert htlc.locked_in or version < "0.19", "the field came with 0.19"
    assert channel.unsettled_balance == sum(one.amount for one in channel.pending_htlcs)
    assert before.local_balance.msat - during.local_balance.msat >= VALUE_MSAT + PEER_FEE_MSAT
    assert during.unsettled_remote_balance.msat - before.unsettled_remote_balance.msat == VALUE_MSAT + PEER_FEE_MSAT
    assert during.unsettled_local_balance.msat == before.unsettled_local_balance.msat


# --- shards ---


async def test_shards_settle_one_by_one_with_the_preimage_known_before_the_end(world: World, lnd: Client) -> None:
    bought = await order(world, value_sat=900_000)
    stream = lnd.send(bought.payreq, fee_limit_msat=10**6, max_parts=4, max_shard_size_msat=450_000_000)
    both_out = await stream.message(lambda payment: len(payment.htlcs) == 2)
    await world.invoices.wait_state(bought.payment_hash, InvoiceState.ACCEPTED)
    await settle(world, bought)
    last = await stream.end()

    assert [htlc.route.hops[-1].amt_to_forward_msat for htlc in both_out.htlcs] == [450_000_000] * 2
    one_settled = [m for m in stream.messages if sorted(htlc.status for htlc in m.htlcs) == [0, 1]]
    assert {(m.status, m.payment_preimage) for m in one_settled} == {(Payment.IN_FLIGHT, bought.preimage.hex())}
    assert outcome(last) == (Payment.SUCCEEDED, NONE)
    assert last.fee_msat == sum(htlc.route.total_fees_msat for htlc in last.htlcs)


async def test_a_cancel_fails_both_shards(world: World, lnd: Client) -> None:
    refused = await order(world, value_sat=900_000)
    stream = lnd.send(refused.payreq, fee_limit_msat=10**6, max_parts=4, max_shard_size_msat=450_000_000)
    await cancel_when_held(world, refused)
    last = await stream.end()

    assert outcome(last) == (Payment.FAILED, INCORRECT_DETAILS)
    assert failures(last) == [(1, 2), (1, 2)]


# --- DeletePayment ---


async def test_a_payment_that_is_out_cannot_be_deleted_and_a_deleted_one_is_sent_again(
    world: World, lnd: Client
) -> None:
    bought = await order(world)
    stream = await hold(world, lnd, bought)
    assert "payment is in transition" in await world.delete_payment(bought.payment_hash)
    await settle(world, bought)
    await stream.end()
    assert await world.delete_payment(bought.payment_hash) == ""

    assert await lnd.track(bought.payment_hash).refusal() == NOT_INITIATED
    last = await lnd.send(bought.payreq).end()
    assert outcome(last) == (Payment.FAILED, INCORRECT_DETAILS)
    assert failures(last) == [(1, 2)]
