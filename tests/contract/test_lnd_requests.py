"""The contract with LND, at the wire, about requests: what is refused and how, what decodes, who may ask what."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from dataclasses import replace

import grpc
import grpc.aio
import pytest
from coincurve import PrivateKey

from holdpay.sandbox.bolt11 import Terms, decode, encode, payment_hash_of
from holdpay.sandbox.lnd_rpc import WalletState
from holdpay.sandbox.payee import InvoiceState
from tests.contract.client import Client, Payment
from tests.contract.steps import (
    NOT_INITIATED,
    UNKNOWN,
    VALUE_SAT,
    hold,
    order,
    settle,
)
from tests.contract.worlds import World

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


# --- locked ---


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (WalletState.NON_EXISTING, "wallet not created, create one to enable full RPC access"),
        (WalletState.LOCKED, "wallet locked, unlock it to enable full RPC access"),
    ],
)
async def test_without_a_wallet_or_locked_only_the_state_is_told(world: World, state: WalletState, text: str) -> None:
    async with world.wallet(state) as connect:
        for macaroon_hex in (b"garbage".hex(), None):
            async with connect(macaroon_hex) as closed:
                assert await closed.state() == state
                with pytest.raises(grpc.aio.AioRpcError) as refusal:
                    await closed.info()
                assert (refusal.value.code(), refusal.value.details()) == (UNKNOWN, text)
                assert await closed.track(bytes(32)).refusal() == (UNKNOWN, text)
                assert await closed.send("lnsb1").refusal() == (UNKNOWN, text)
                assert await closed.state() == state


async def test_the_state_is_told_without_a_macaroon(world: World) -> None:
    async with world.connect(None) as stranger:
        async with asyncio.timeout(60):
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


async def test_a_list_without_max_payments_ends_at_a_hundred(world: World, lnd: Client) -> None:
    if (version := (await lnd.info()).version) < "0.21":
        pytest.skip(f"lnd {version} is older than this limit and lists all")
    first = await lnd.send((await order(world)).payreq, fee_limit_msat=0).end()
    for _ in range(100):
        await lnd.send((await order(world)).payreq, fee_limit_msat=0).end()

    page = await lnd.payments(include_incomplete=True, index_offset=first.payment_index - 1, max_payments=0)
    everything = await lnd.payments(include_incomplete=True, index_offset=first.payment_index - 1)

    assert len(page) == 100
    assert page == everything[:100]
    assert len(everything) == 101
