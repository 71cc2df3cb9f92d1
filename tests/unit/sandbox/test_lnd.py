"""Tricks of the sandbox LND that no real node plays on command, at the wire."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from holdpay.sandbox.bolt11 import payment_hash_of
from holdpay.sandbox.lnd import SandboxLnd
from holdpay.sandbox.lnd_rpc import WalletState
from holdpay.sandbox.payee import InvoiceState, Payee
from tests.contract.client import PATIENCE_S, Client, Payment, client
from tests.contract.worlds import SandboxWorld, sandbox_world
from tests.unit.sms4sats.clock import ManualClock

PREIMAGE = b"p" * 32
HASH = payment_hash_of(PREIMAGE)
NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "payment isn't initiated")


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[SandboxWorld]:
    async with sandbox_world(tmp_path) as world:
        yield world


@pytest_asyncio.fixture
async def lnd(world: SandboxWorld) -> AsyncIterator[Client]:
    async with world.connect() as client:
        yield client


async def invoice(world: SandboxWorld) -> str:
    return await world.invoices.add(payment_hash=HASH, value_sat=2000, memo="", expiry_s=600, cltv_delta=40)


async def accepted(world: SandboxWorld) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await world.invoices.wait_state(HASH, InvoiceState.ACCEPTED)


async def test_a_late_send_is_not_found_meanwhile_and_arrives_though_its_sender_died(
    world: SandboxWorld, lnd: Client
) -> None:
    async with world.stalled_payer():
        stream = lnd.send(await invoice(world))
        assert await lnd.track(HASH).refusal() == NOT_FOUND
        stream.drop()
        assert await lnd.track(HASH).refusal() == NOT_FOUND

    await accepted(world)

    assert (await lnd.track(HASH).out()).status == Payment.IN_FLIGHT


async def test_a_send_that_is_on_its_way_to_an_lnd_that_is_killed_never_arrives(tmp_path: Path) -> None:
    clock = ManualClock()
    payee = Payee(clock)
    lnd = SandboxLnd(payee, tmp_path, clock=clock)
    lnd.set_knobs(lag_s=0, send_delay_s=60)
    await lnd.start()
    payreq = await payee.add(payment_hash=HASH, value_sat=2000, memo="", expiry_s=600, cltv_delta=40)
    async with client(lnd.target, lnd.tls_cert, lnd.macaroon_hex) as before:
        stream = before.send(payreq)
        assert await before.track(HASH).refusal() == NOT_FOUND
        await lnd.kill()
        code, _ = await stream.refusal()
    await lnd.start()
    await clock.advance(61)
    async with client(lnd.target, lnd.tls_cert, lnd.macaroon_hex) as after:
        assert await after.track(HASH).refusal() == NOT_FOUND
    await lnd.stop()

    assert code is grpc.StatusCode.UNAVAILABLE


async def test_when_it_stops_open_streams_end_with_lnds_word_for_it(world: SandboxWorld, lnd: Client) -> None:
    stream = lnd.send(await invoice(world))
    await stream.out()
    await world.lnd.stop()

    assert await stream.refusal() == (grpc.StatusCode.UNKNOWN, "routerrpc server shutting down")


async def test_while_starting_calls_are_refused_and_from_rpc_active_on_a_held_payment_is_shown(
    world: SandboxWorld, lnd: Client
) -> None:
    stream = lnd.send(await invoice(world))
    await stream.out()
    await accepted(world)
    await world.lnd.stop()
    await world.lnd.start(WalletState.UNLOCKED)
    async with world.connect() as again:
        starting = await again.track(HASH).refusal()
        assert await again.state() == WalletState.UNLOCKED
        world.lnd.advance(WalletState.RPC_ACTIVE)
        assert await again.state() == WalletState.RPC_ACTIVE
        tracking = again.track(HASH)
        await tracking.out()
        await world.invoices.settle(PREIMAGE)
        world.lnd.advance()
        last = await tracking.end()

    assert starting == (
        grpc.StatusCode.UNKNOWN,
        "the RPC server is in the process of starting up, but not yet ready to accept calls",
    )
    assert last.status == Payment.SUCCEEDED


async def test_a_locked_node_comes_back_with_its_payments(world: SandboxWorld, lnd: Client) -> None:
    stream = lnd.send(await invoice(world))
    await stream.out()
    await world.lnd.lock()
    async with world.connect() as again:
        assert (await again.track(HASH).refusal())[1] == "wallet locked, unlock it to enable full RPC access"
        world.lnd.unlock()
        assert (await again.track(HASH).out()).status == Payment.IN_FLIGHT


async def test_another_node_at_the_same_address_has_another_key_and_knows_nothing(
    world: SandboxWorld, lnd: Client
) -> None:
    stream = lnd.send(await invoice(world))
    await stream.out()
    before = await lnd.info()
    first = world.lnd.replace_node()
    after = await lnd.info()

    assert after.identity_pubkey != before.identity_pubkey
    assert after.alias == "mallory"
    assert await lnd.track(HASH).refusal() == NOT_FOUND
    world.lnd.replace_node("alice", first)
    assert (await lnd.info()).identity_pubkey == before.identity_pubkey
    assert (await lnd.track(HASH).out()).status == Payment.IN_FLIGHT


async def test_after_a_new_certificate_only_a_new_connection_works(world: SandboxWorld) -> None:
    old = world.lnd.tls_cert.read_bytes()
    await world.lnd.renew_certificate()
    stale = world.lnd.tls_cert.with_name("old.cert")
    stale.write_bytes(old)

    async with client(world.lnd.target, stale, world.lnd.macaroon_hex) as distrustful:
        code, text = await distrustful.track(HASH).refusal()
    async with world.connect() as trusting:
        assert (await trusting.info()).alias == "alice"

    assert code is grpc.StatusCode.UNAVAILABLE
    assert "CERTIFICATE_VERIFY_FAILED" in text


async def test_one_that_runs_is_not_started_a_second_time(world: SandboxWorld, lnd: Client) -> None:
    await world.lnd.start()
    assert (await lnd.info()).identity_pubkey == world.lnd.node.pubkey
    await world.lnd.stop()
    await world.lnd.start()
    assert (await lnd.info()).identity_pubkey == world.lnd.node.pubkey


async def test_a_routing_failure_comes_as_often_as_asked(world: SandboxWorld, lnd: Client) -> None:
    assert world.mission_control_s is not None
    world.lnd.fail_routing(1)
    first = await lnd.send(payreq := await invoice(world)).end()
    await world.pass_s(world.mission_control_s)
    second = lnd.send(payreq)
    await second.out()

    assert [(htlc.failure.code, htlc.failure.failure_source_index) for htlc in first.htlcs] == [(15, 1)]
    await accepted(world)


async def test_secrets_are_readable_by_their_owner_only(world: SandboxWorld) -> None:
    directory = world.lnd.tls_cert.parent
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}

    assert modes == {"tls.cert": 0o644, "tls.key": 0o600, "admin.macaroon": 0o600}


async def test_a_macaroon_of_another_node_is_a_signature_mismatch(world: SandboxWorld) -> None:
    foreign = "02" + "00" * 63
    async with world.connect(foreign) as stranger:
        assert await stranger.track(HASH).refusal() == (
            grpc.StatusCode.UNKNOWN,
            "verification failed: signature mismatch after caveat verification",
        )


async def test_an_unknown_knob_is_refused_with_those_that_exist(world: SandboxWorld) -> None:
    with pytest.raises(ValueError, match=r"no such knob: lagg; there are lag_s, .*synced_to_chain"):
        world.lnd.set_knobs(lagg=1)


async def test_synced_to_chain_is_shown_as_the_knob_says(world: SandboxWorld, lnd: Client) -> None:
    assert (await lnd.info()).synced_to_chain
    world.lnd.set_knobs(synced_to_chain=False)

    assert not (await lnd.info()).synced_to_chain
