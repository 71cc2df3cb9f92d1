"""The sandbox's lnd shows HTLCs of channels being closed, HTLCs never signed, and payments whose record is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import pytest_asyncio
from click.testing import CliRunner

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay.cli.daemon import cli
from holdpay.lnd.convert import may_carry_out, to_channel
from holdpay.sandbox.bolt11 import payment_hash_of
from holdpay.sandbox.lnd_messages import channels, pending_channels
from holdpay.sandbox.lnd_model import PaymentStatus
from holdpay.sandbox.payee import InvoiceState
from holdpay.sandbox.tricks import TRICKS, play
from holdpay.sandbox.world import SandboxWorld as TrickWorld
from tests.contract.client import PATIENCE_S, Client, Payment
from tests.contract.worlds import SandboxWorld, sandbox_world
from tests.unit.sandbox.test_lnd import NOT_FOUND
from tests.unit.sandbox.test_lnd_node import HASH, Scene

OTHER_PREIMAGE = b"q" * 32
OTHER = payment_hash_of(OTHER_PREIMAGE)


@pytest_asyncio.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    await scene.start()
    yield scene
    scene.node.stop()
    scene.network.close()


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[SandboxWorld]:
    async with sandbox_world(tmp_path) as world:
        yield world


@pytest_asyncio.fixture
async def lnd(world: SandboxWorld) -> AsyncIterator[Client]:
    async with world.connect() as client:
        yield client


def shown(scene: Scene) -> tuple[bool, bool]:
    """Whether an open channel shows the HTLC, and whether one that is being closed may carry it."""
    listed = channels(scene.network, lnrpc.ListChannelsRequest()).channels
    is_open = any(HASH.hex() in to_channel(channel).paying for channel in listed)
    return is_open, may_carry_out(pending_channels(scene.network))


async def trick(world: SandboxWorld, text: str) -> None:
    await play(cast(TrickWorld, SimpleNamespace(lnd=world.lnd)), text)


async def invoice(world: SandboxWorld, payment_hash: bytes) -> str:
    return await world.invoices.add(payment_hash=payment_hash, value_sat=2000, memo="", expiry_s=600, cltv_delta=40)


async def held(world: SandboxWorld, lnd: Client, payment_hash: bytes) -> None:
    lnd.send(await invoice(world, payment_hash))
    async with asyncio.timeout(PATIENCE_S):
        await world.invoices.wait_state(payment_hash, InvoiceState.ACCEPTED)


# --- a channel that is being closed -------------------------------------------------------------------------------


async def test_a_channel_that_was_closed_by_force_is_pending_until_its_htlc_is_resolved(scene: Scene) -> None:
    await scene.held()
    assert shown(scene) == (True, False)
    scene.network.set_online("peer", online=False)
    expiry_height = scene.record.attempts[0].route.total_time_lock_height
    await scene.network.mine(expiry_height - scene.network.height - 1)
    assert shown(scene) == (True, False)
    await scene.network.mine(1)
    assert shown(scene) == (False, True)
    await scene.network.mine(1)
    assert shown(scene) == (False, True)
    await scene.network.mine(1)
    assert shown(scene) == (False, False)


async def test_the_other_channel_is_not_closed_with_it(scene: Scene) -> None:
    await scene.held()
    scene.network.set_online("peer", online=False)
    before = set(scene.network.channels)
    await scene.network.mine(scene.record.attempts[0].route.total_time_lock_height - scene.network.height)
    (closed,) = pending_channels(scene.network).waiting_close_channels
    (left,) = scene.network.channels
    assert before == {left, int(closed.channel.channel_point.split(":")[0], 16)}


async def test_it_is_served_as_lnd_serves_it(world: SandboxWorld, lnd: Client) -> None:
    assert list((await lnd.pending_channels()).waiting_close_channels) == []
    await held(world, lnd, HASH)
    height = (await lnd.track(HASH).out()).htlcs[0].route.total_time_lock
    await world.set_online("peer", online=False)
    await world.mine(height - (await lnd.info()).block_height)
    (closed,) = (await lnd.pending_channels()).waiting_close_channels
    assert closed.channel.chan_status_flags == "ChanStatusCommitBroadcasted"


# --- an HTLC that was never signed --------------------------------------------------------------------------------


async def test_an_unsigned_htlc_is_in_no_channel_and_reaches_nobody(scene: Scene) -> None:
    before = [channel.local_msat for channel in scene.network.channels.values()]
    scene.network.leave_unsigned(1)
    scene.send()
    await scene.clock.advance(1)
    assert scene.record.status is PaymentStatus.IN_FLIGHT
    assert shown(scene) == (False, False)
    assert [channel.local_msat for channel in scene.network.channels.values()] == before
    assert await scene.payee.state(HASH) is InvoiceState.OPEN


async def test_an_unsigned_htlc_stays_in_flight_through_restarts_and_past_its_expiry_height(scene: Scene) -> None:
    scene.network.leave_unsigned(1)
    scene.send()
    await scene.clock.advance(1)
    expiry_height = scene.record.attempts[0].route.total_time_lock_height
    await scene.restart()
    await scene.network.mine(expiry_height + 200 - scene.network.height)
    await scene.restart()
    assert scene.record.status is PaymentStatus.IN_FLIGHT
    assert shown(scene) == (False, False)
    assert len(scene.network.channels) == 2


async def test_the_trick_unsigned_is_over_after_so_many_and_by_0(world: SandboxWorld, lnd: Client) -> None:
    await trick(world, "unsigned=1")
    unsigned = await lnd.send(await invoice(world, HASH)).out()
    await held(world, lnd, OTHER)
    assert unsigned.status == Payment.IN_FLIGHT
    (channel,) = await lnd.channels()
    assert [htlc.hash_lock for htlc in channel.pending_htlcs] == [OTHER]

    await trick(world, "unsigned=5")
    await trick(world, "unsigned=0")
    await held(world, lnd, third := payment_hash_of(b"r" * 32))
    (channel,) = await lnd.channels()
    assert {htlc.hash_lock for htlc in channel.pending_htlcs} == {OTHER, third}


# --- records that were deleted ------------------------------------------------------------------------------------


async def test_the_trick_delete_payments_deletes_what_has_ended_and_nothing_else(
    world: SandboxWorld, lnd: Client
) -> None:
    await held(world, lnd, HASH)
    await held(world, lnd, OTHER)
    ended = lnd.track(OTHER)
    await world.invoices.settle(OTHER_PREIMAGE)
    assert (await ended.end()).status == Payment.SUCCEEDED
    await trick(world, "delete-payments")
    assert await lnd.track(OTHER).refusal() == NOT_FOUND
    assert (await lnd.track(HASH).out()).status == Payment.IN_FLIGHT
    assert [payment.payment_hash for payment in await lnd.payments(include_incomplete=True)] == [HASH.hex()]


@pytest.mark.parametrize("name", ["unsigned", "delete-payments"])
def test_the_tricks_are_listed_with_their_value_and_what_they_do(name: str) -> None:
    listed = CliRunner().invoke(cli, ["sandbox", "tricks"]).stdout.splitlines()
    (line,) = [line for line in listed if line.startswith(name)]
    shown_as = {"unsigned": "unsigned=TIMES", "delete-payments": "delete-payments"}[name]
    assert line.split(maxsplit=1) == [shown_as, TRICKS[name].help]
    told = {"unsigned": "never get into their channel", "delete-payments": "deletes its records of payments that have"}
    assert told[name] in line
