"""What a payer of hold invoices relies on in LND, at the wire: the same tests on the sandbox LND and on a real one.

Each test is one thing that real nodes were seen to do (lnd 0.18.5, 0.20 and 0.21). When the sandbox and a real lnd
disagree, the sandbox is wrong.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from coincurve import PrivateKey

from holdpay.sandbox.bolt11 import Terms, decode, encode, payment_hash_of
from holdpay.sandbox.lnd_rpc import WalletState
from holdpay.sandbox.payee import InvoiceState
from tests.contract.client import Client, Payment, Watch
from tests.contract.worlds import World

VALUE_SAT = 2_000
VALUE_MSAT = VALUE_SAT * 1000
PEER_FEE_MSAT = 1_002  # LND's defaults: 1,000 msat and one millionth
HOP_DELTA = 80  # LND's default for forwarding
SHORT_DELTA = 24  # the least final delta that LND's invoices may ask for
PADDING = 3  # blocks that LND adds to the final delta

UNKNOWN = grpc.StatusCode.UNKNOWN
ALREADY_EXISTS = grpc.StatusCode.ALREADY_EXISTS
NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NOT_INITIATED = (NOT_FOUND, "payment isn't initiated")

NONE, TIMEOUT, NO_ROUTE = (
    Payment.DESCRIPTOR.file.enum_types_by_name["PaymentFailureReason"].values_by_name[f"FAILURE_REASON_{name}"].number
    for name in ("NONE", "TIMEOUT", "NO_ROUTE")
)
INCORRECT_DETAILS, INSUFFICIENT_BALANCE, CANCELED = 4, 5, 6


@pytest_asyncio.fixture
async def lnd(world: World) -> AsyncIterator[Client]:
    async with world.connect() as client:
        yield client


@dataclass(frozen=True, slots=True)
class Order:
    """A hold invoice of the payee."""

    payreq: str
    preimage: bytes

    @property
    def payment_hash(self) -> bytes:
        return payment_hash_of(self.preimage)


async def order(world: World, *, value_sat: int = VALUE_SAT, expiry_s: int = 600, cltv_delta: int = 80) -> Order:
    preimage = secrets.token_bytes(32)
    payreq = await world.invoices.add(
        payment_hash=payment_hash_of(preimage),
        value_sat=value_sat,
        memo="a code",
        expiry_s=expiry_s,
        cltv_delta=cltv_delta,
    )
    return Order(payreq, preimage)


async def hold(world: World, lnd: Client, held: Order, **options: object) -> Watch:
    """Pay, and return when the payee holds it and the payer says so."""
    stream = lnd.send(held.payreq, **options)
    await stream.out()
    await world.invoices.wait_state(held.payment_hash, InvoiceState.ACCEPTED)
    return stream


async def settle(world: World, held: Order) -> None:
    await world.invoices.settle(held.preimage)


async def cancel(world: World, held: Order) -> None:
    await world.invoices.cancel(held.payment_hash)


async def later(lnd: Client, payment_hash: bytes) -> Payment:
    """What somebody who was away is told: LND changes the record a moment after the last message of the stream."""
    await asyncio.sleep(0.3)
    return await lnd.track(payment_hash).end()


def outcome(payment: Payment) -> tuple[int, int]:
    return payment.status, payment.failure_reason


def failures(payment: Payment) -> list[tuple[int, int]]:
    return [(htlc.failure.code, htlc.failure.failure_source_index) for htlc in payment.htlcs if htlc.status == 2]


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

    record = await later(lnd, refused.payment_hash)

    assert outcome(record) == (Payment.FAILED, INCORRECT_DETAILS)
    assert not record.htlcs


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
    stream = await hold(world, lnd, bought, timeout_seconds=1)
    tracking = lnd.track(bought.payment_hash)
    await tracking.out()
    await world.pass_s(1.5)
    await settle(world, bought)

    assert outcome(await stream.end()) == outcome(await tracking.end()) == (Payment.SUCCEEDED, NONE)
    assert outcome(await later(lnd, bought.payment_hash)) == (Payment.SUCCEEDED, TIMEOUT)


async def test_cancelled_after_the_time_out_a_later_track_hides_the_cancel(world: World, lnd: Client) -> None:
    refused = await order(world)
    stream = await hold(world, lnd, refused, timeout_seconds=1)
    await world.pass_s(1.5)
    await cancel(world, refused)

    assert outcome(await stream.end()) == (Payment.FAILED, INCORRECT_DETAILS)
    assert outcome(await later(lnd, refused.payment_hash)) == (Payment.FAILED, TIMEOUT)


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
    await stream.end()

    assert await lnd.send(bought.payreq).refusal() == (ALREADY_EXISTS, "invoice is already paid")


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
    bought = await order(world, expiry_s=2)
    stream = await hold(world, lnd, bought)
    await world.pass_s(3)

    code, text = await lnd.send(bought.payreq).refusal()

    assert code is UNKNOWN
    assert text.startswith("invoice expired. Valid until ")
    await settle(world, bought)
    assert outcome(await stream.end()) == (Payment.SUCCEEDED, NONE)


# --- refusals that leave no record ---


async def refused_without_a_record(lnd: Client, payreq: str, payment_hash: bytes, **options: object) -> str:
    code, text = await lnd.send(payreq, **options).refusal()
    assert code is UNKNOWN
    assert await lnd.track(payment_hash).refusal() == NOT_INITIATED
    return text


async def test_an_expired_invoice_is_refused(world: World, lnd: Client) -> None:
    stale = await order(world, expiry_s=1)
    await world.pass_s(2.5)

    text = await refused_without_a_record(lnd, stale.payreq, stale.payment_hash)

    assert re.fullmatch(r"invoice expired\. Valid until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000 UTC", text)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"amt_msat": 1}, "amount must not be specified when paying a non-zero amount invoice"),
        ({"amt": 1, "amt_msat": 1}, "sat and msat arguments are mutually exclusive"),
        ({"fee_limit_sat": 1, "fee_limit_msat": 1}, "sat and msat arguments are mutually exclusive"),
        ({"cltv_limit": 20}, "cltv limit 20 should be greater than 83"),
        ({"cltv_limit": 83}, "cltv limit 83 should be greater than 83"),
        ({"cltv_limit": 2017}, "total time lock of 2017 exceeds max allowed 2016"),
        ({"time_pref": 2.0}, "time preference out of range"),
    ],
)
async def test_a_wrong_option_is_refused(world: World, lnd: Client, options: dict[str, object], text: str) -> None:
    asked = await order(world)

    refusal = await refused_without_a_record(lnd, asked.payreq, asked.payment_hash, **options)

    # lnd 0.18 has a space too many in one of them.
    assert " ".join(refusal.split()) == text


async def test_a_negative_limit_is_refused(world: World, lnd: Client) -> None:
    if (version := (await lnd.info()).version) < "0.19":
        pytest.skip(f"lnd {version} takes it for no limit; the check came with 0.19")
    asked = await order(world)

    text = await refused_without_a_record(lnd, asked.payreq, asked.payment_hash, fee_limit_msat=-1)

    assert text == "amount cannot be negative"


async def test_paying_oneself_is_refused(world: World, lnd: Client) -> None:
    own = await world.payer_invoice()
    payment_hash = decode(own, "simnet").terms.payment_hash

    assert await refused_without_a_record(lnd, own, payment_hash) == "self-payments not allowed"


async def test_an_invoice_that_does_not_decode_is_refused_by_send_and_by_decode(world: World, lnd: Client) -> None:
    asked = await order(world)
    last_chars = asked.payreq[-6:]
    damaged = asked.payreq[:-3] + "qqq"
    mainnet = encode(replace(decode(asked.payreq, "simnet").terms, network="mainnet"), PrivateKey())
    texts = {
        "lnsb1": "invalid bech32 string length 5",
        mainnet: "invoice not for current active network 'simnet'",
        damaged: f"checksum failed. Expected {last_chars}, got {damaged[-6:]}.",
    }
    for payreq, text in texts.items():
        assert await refused_without_a_record(lnd, payreq, asked.payment_hash) == text
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await lnd.decode(payreq)
        assert (refusal.value.code(), refusal.value.details()) == (UNKNOWN, text)


async def test_an_invoice_in_upper_case_is_fine(world: World, lnd: Client) -> None:
    bought = await order(world)
    stream = lnd.send(bought.payreq.upper())
    await stream.out()
    await world.invoices.wait_state(bought.payment_hash, InvoiceState.ACCEPTED)
    await settle(world, bought)

    assert (await stream.end()).payment_request == bought.payreq.upper()


# --- decoding ---


async def test_decode_tells_what_the_invoice_says(world: World, lnd: Client) -> None:
    preimage = secrets.token_bytes(32)
    payreq = await world.invoices.add(
        payment_hash=payment_hash_of(preimage), value_sat=3000, memo="Grüße", expiry_s=1234, cltv_delta=40
    )
    facts = await lnd.decode(payreq)
    own = decode(payreq, "simnet")

    assert facts.destination == await world.invoices.pubkey()
    assert facts.payment_hash == payment_hash_of(preimage).hex()
    assert (facts.num_satoshis, facts.num_msat) == (3000, 3_000_000)
    assert (facts.description, facts.expiry, facts.cltv_expiry) == ("Grüße", 1234, 40)
    assert abs(facts.timestamp - time.time()) < 60
    assert len(facts.payment_addr) == 32
    # The sandbox's decoder reads the same as the node under test, also from the invoices of a real payee.
    assert own.payee_pubkey.hex() == facts.destination
    assert own.terms.payment_secret == facts.payment_addr
    assert own.terms.feature_bits == set(facts.features)
    assert {bit: (feature.name, feature.is_known) for bit, feature in facts.features.items()}.items() >= {
        (14, ("payment-addr", True)),
        (17, ("multi-path-payments", True)),
    }


async def test_the_sandboxs_own_invoices_are_genuine(lnd: Client) -> None:
    key = PrivateKey()
    terms = Terms(
        "simnet", secrets.token_bytes(32), None, 1_234_567, int(time.time()), "Grüße", 99, 144, frozenset({9})
    )
    facts = await lnd.decode(encode(terms, key))

    assert facts.destination == key.public_key.format().hex()
    assert facts.payment_hash == terms.payment_hash.hex()
    assert (facts.num_satoshis, facts.num_msat) == (1234, 1_234_567)
    assert (facts.timestamp, facts.description) == (terms.timestamp_s, terms.description)
    assert (facts.expiry, facts.cltv_expiry) == (99, 144)
    assert facts.payment_addr == bytes(32), "no payment secret reads as zeros"
    assert set(facts.features) == {9}


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
    async with asyncio.timeout(20):
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
    started = time.monotonic()
    again = await lnd.send(asked.payreq).end()
    assert outcome(again) == (Payment.FAILED, NO_ROUTE)
    assert not again.htlcs
    assert time.monotonic() - started < 1

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


async def cancel_when_held(world: World, held: Order) -> None:
    await world.invoices.wait_state(held.payment_hash, InvoiceState.ACCEPTED)
    await cancel(world, held)


# --- a stream that we drop ---


async def test_a_dropped_stream_changes_nothing(world: World, lnd: Client) -> None:
    bought = await order(world)
    stream = await hold(world, lnd, bought)
    stream.drop()
    tracking = lnd.track(bought.payment_hash)
    await tracking.out()
    await settle(world, bought)

    assert outcome(await tracking.end()) == (Payment.SUCCEEDED, NONE)
    assert outcome(await later(lnd, bought.payment_hash)) == (Payment.SUCCEEDED, NONE)


async def test_a_dropped_cancelable_stream_does_not_pull_the_htlc_back(world: World, lnd: Client) -> None:
    bought = await order(world)
    stream = await hold(world, lnd, bought, cancelable=True)
    stream.drop()
    await asyncio.sleep(0.3)
    tracking = lnd.track(bought.payment_hash)
    assert (await tracking.out()).status == Payment.IN_FLIGHT
    await settle(world, bought)
    await tracking.end()

    assert outcome(await later(lnd, bought.payment_hash)) == (Payment.SUCCEEDED, CANCELED)


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
    code, text = await lnd.track(bought.payment_hash).refusal()
    assert code is UNAVAILABLE
    assert "Connection refused" in text
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


async def test_a_held_payment_outlives_a_kill(world: World, lnd: Client) -> None:
    bought = await order(world)
    stream = await hold(world, lnd, bought)
    before = await stream.out()
    await world.kill_payer()
    await world.start_payer()
    async with world.connect() as again:
        tracking = again.track(bought.payment_hash)
        after = await tracking.out()
        assert await again.send(bought.payreq).refusal() == (ALREADY_EXISTS, "payment is in transition")
        await settle(world, bought)
        last = await tracking.end()

    assert after.htlcs[0].route.total_time_lock == before.htlcs[0].route.total_time_lock
    assert after.htlcs[0].attempt_id == before.htlcs[0].attempt_id
    assert outcome(last) == (Payment.SUCCEEDED, NONE)


@pytest.mark.parametrize("is_settled", [True, False])
async def test_what_happened_while_lnd_was_down_is_told_after_the_start(
    world: World, lnd: Client, is_settled: bool
) -> None:
    bought = await order(world)
    await hold(world, lnd, bought, timeout_seconds=1)
    await world.stop_payer()
    await (settle if is_settled else cancel)(world, bought)
    await world.pass_s(1.5)
    await world.start_payer()
    async with world.connect() as again:
        last = await again.track(bought.payment_hash).end()

    # The time-out of before the restart is forgotten, so it overwrites nothing.
    expected = (Payment.SUCCEEDED, NONE) if is_settled else (Payment.FAILED, INCORRECT_DETAILS)
    assert outcome(last) == expected


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
    "wallet locked, unlock it to enable full RPC access",
    "the RPC server is in the process of starting up, but not yet ready to accept calls",
}


async def test_while_lnd_starts_calls_are_refused_in_known_words(world: World, lnd: Client) -> None:
    bought = await order(world)
    await hold(world, lnd, bought)
    await world.stop_payer()
    starting = asyncio.create_task(world.start_payer())
    refusals = set()
    async with world.connect() as client, asyncio.timeout(30):
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


# --- locked ---


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (WalletState.NON_EXISTING, "wallet not created, create one to enable full RPC access"),
        (WalletState.LOCKED, "wallet locked, unlock it to enable full RPC access"),
    ],
)
async def test_without_a_wallet_or_locked_only_the_state_is_told(world: World, state: WalletState, text: str) -> None:
    async with world.wallet(state) as closed:
        assert await closed.state() == state
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await closed.info()
        assert (refusal.value.code(), refusal.value.details()) == (UNKNOWN, text)
        assert await closed.track(bytes(32)).refusal() == (UNKNOWN, text)
        assert await closed.send("lnsb1").refusal() == (UNKNOWN, text)


async def test_the_state_is_told_without_a_macaroon(world: World) -> None:
    async with world.connect(None) as stranger:
        async with asyncio.timeout(20):
            while await stranger.state() != WalletState.SERVER_ACTIVE:
                await asyncio.sleep(0.05)


# --- macaroons ---

PAYER_METHODS = (
    "/lnrpc.Lightning/GetInfo",
    "/lnrpc.Lightning/DecodePayReq",
    "/routerrpc.Router/SendPaymentV2",
    "/routerrpc.Router/TrackPaymentV2",
)


async def test_a_macaroon_for_some_methods_is_enough_for_them_only(world: World) -> None:
    bought = await order(world)
    async with world.connect(await world.bake(PAYER_METHODS)) as payer:
        stream = await hold(world, payer, bought)
        await settle(world, bought)
        assert (await stream.end()).status == Payment.SUCCEEDED
        assert (await payer.decode(bought.payreq)).num_satoshis == VALUE_SAT
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await payer.channels()
        assert (refusal.value.code(), refusal.value.details()) == (UNKNOWN, "permission denied")


async def test_no_macaroon_and_garbage_are_refused(world: World) -> None:
    texts = {
        None: "expected 1 macaroon, got 0",
        b"garbage".hex(): "cannot determine data format of binary-encoded macaroon",
    }
    for macaroon_hex, text in texts.items():
        async with world.connect(macaroon_hex) as stranger:
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await stranger.info()
            assert (refusal.value.code(), refusal.value.details()) == (UNKNOWN, text)
            assert await stranger.track(bytes(32)).refusal() == (UNKNOWN, text)


async def test_a_revoked_macaroon_is_refused_but_an_open_stream_lives_on(world: World) -> None:
    bought = await order(world)
    baked = await world.bake(PAYER_METHODS)
    async with world.connect(baked) as payer:
        stream = await hold(world, payer, bought)
        await world.revoke(baked)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await payer.info()
        await settle(world, bought)
        last = await stream.end()

    assert refusal.value.code() is UNKNOWN
    assert re.fullmatch(
        r"cannot retrieve macaroon: cannot get macaroon: root key with id \d+ doesn't exist",
        refusal.value.details() or "",
    )
    assert last.status == Payment.SUCCEEDED


# --- the held HTLC on the channel ---


async def test_a_held_htlc_is_pending_on_the_first_channel(world: World, lnd: Client) -> None:
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
    await asyncio.sleep(0.3)
    assert await world.delete_payment(bought.payment_hash) == ""

    assert await lnd.track(bought.payment_hash).refusal() == NOT_INITIATED
    last = await lnd.send(bought.payreq).end()
    assert outcome(last) == (Payment.FAILED, INCORRECT_DETAILS)
    assert failures(last) == [(1, 2)]


# --- listing ---


async def test_payments_are_listed_by_rising_index(world: World, lnd: Client) -> None:
    failed = await lnd.send((await order(world)).payreq, fee_limit_msat=0).end()
    bought = await order(world)
    stream = await hold(world, lnd, bought)
    open_payment = stream.messages[0]
    page = await lnd.payments(include_incomplete=True, max_payments=2, reversed=True)
    after = await lnd.payments(include_incomplete=True, index_offset=failed.payment_index)
    only_complete = await lnd.payments()
    await settle(world, bought)
    await stream.end()

    assert [p.payment_hash for p in page] == [failed.payment_hash, open_payment.payment_hash]
    assert [p.status for p in page] == [Payment.FAILED, Payment.IN_FLIGHT]
    assert [p.payment_hash for p in after] == [open_payment.payment_hash]
    assert open_payment.payment_hash not in {p.payment_hash for p in only_complete}
    assert bought.payment_hash.hex() in {p.payment_hash for p in await lnd.payments()}


# --- identity and chain ---


async def test_info_names_the_node_its_network_and_its_height(world: World, lnd: Client) -> None:
    before = await lnd.info()
    await world.mine(2)
    async with asyncio.timeout(20):
        while not (after := await lnd.info()).synced_to_chain:
            await asyncio.sleep(0.02)

    assert re.fullmatch(r"0[23][0-9a-f]{64}", before.identity_pubkey)
    assert after.identity_pubkey == before.identity_pubkey
    assert [chain.network for chain in before.chains] == ["simnet"]
    assert before.version.startswith("0.")
    assert after.block_height == before.block_height + 2
    assert before.alias == "alice"


# --- time runs out ---

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
        async with asyncio.timeout(20):
            while await lnd.channels():
                await asyncio.sleep(0.05)
        await mine_until(mortal_world, stream, blocks=10)
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
