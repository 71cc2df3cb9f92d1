"""The payer of a world as `LndNode` reaches it, and what only a client that stays connected can live through."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from holdpay.clock import SystemClock
from holdpay.core.lightning import AttemptStatus, DispatchSpec, LndMessage, NodeIdentity, PaymentUpdate, Reported
from holdpay.lnd.ledger import LndLedger
from holdpay.lnd.node import LndNode
from holdpay.lnd.settings import LndSettings
from holdpay.ports import NodeState
from holdpay.sandbox.lnd import SandboxLnd
from holdpay.sandbox.lnd_rpc import WalletState
from tests.contract.client import PATIENCE_S
from tests.contract.real_world import RealWorld, Walletless
from tests.contract.steps import Order
from tests.contract.worlds import SandboxWorld, World
from tests.unit.lnd.fakes import Relay

LOOK_EVERY_S = 0.2
Target = tuple[str, Path, bytes]


def lnd_settings(world: World, macaroon_hex: str | None = None) -> LndSettings:
    """Of the world's payer, with the admin macaroon unless told otherwise."""
    address, tls_cert, admin = _target(world)
    return _settings((address, tls_cert, bytes.fromhex(macaroon_hex) if macaroon_hex else admin))


@asynccontextmanager
async def lnd_node(
    world: World, macaroon_hex: str | None = None, *, state: NodeState = NodeState.READY
) -> AsyncIterator[LndNode]:
    """The adapter on the world's payer, with the admin macaroon unless told otherwise; in this state."""
    node = LndNode(lnd_settings(world, macaroon_hex), SystemClock())
    await node.start()
    try:
        await until_state(node, state)
        yield node
    finally:
        await node.close()


@asynccontextmanager
async def relayed_node(world: World) -> AsyncIterator[tuple[LndNode, Relay]]:
    """The adapter, and the proxy before the world's payer that both its connections go through."""
    address, tls_cert, admin = _target(world)
    async with Relay(int(address.rpartition(":")[2])).running() as relay:
        node = LndNode(_settings((f"127.0.0.1:{relay.port}", tls_cert, admin)), SystemClock())
        await node.start()
        try:
            await payer(node)
            yield node, relay
        finally:
            await node.close()


@asynccontextmanager
async def lnd_ledger(world: World, macaroon_hex: str | None = None) -> AsyncIterator[LndLedger]:
    """What the audit reads of the world's payer."""
    address, tls_cert, admin = _target(world)
    macaroon = bytes.fromhex(macaroon_hex) if macaroon_hex else admin
    async with LndLedger(_settings((address, tls_cert, macaroon)), SystemClock()) as ledger:
        yield ledger


def spec(bought: Order, *, fee_limit_msat: int = 10_000) -> DispatchSpec:
    """What is said to pay it."""
    return DispatchSpec(
        payreq=bought.payreq,
        payment_hash=bought.payment_hash.hex(),
        fee_limit_msat=fee_limit_msat,
        timeout_s=1_500,
        max_parts=1,
        cltv_limit=600,
    )


async def until_state(node: LndNode, state: NodeState) -> None:
    """Returns when the background look has seen this state."""
    async with asyncio.timeout(PATIENCE_S):
        while node.status.state is not state:
            await asyncio.sleep(0.02)


async def payer(node: LndNode) -> NodeIdentity:
    """The node that can be paid from, as soon as there is one."""
    async with asyncio.timeout(PATIENCE_S):
        while node.identity is None:
            await asyncio.sleep(0.02)
    return node.identity


@asynccontextmanager
async def locked_node(world: World) -> AsyncIterator[LndNode]:
    """The adapter on an lnd whose wallet is locked."""
    async with _locked(world) as target:
        node = LndNode(_settings(target), SystemClock())
        await node.start()
        yield node
        await node.close()


async def renew_certificate(world: World) -> None:
    """Restarts the payer with a new certificate, as lnd does when the old one has expired."""
    if isinstance(world, SandboxWorld):
        await world.lnd.renew_certificate()
        return
    assert isinstance(world, RealWorld)
    alice = world._net["alice"]
    await alice.stop()
    for name in ("tls.cert", "tls.key"):
        (alice.directory / name).unlink()
    await world.start_payer()


@asynccontextmanager
async def another_node_behind(world: World) -> AsyncIterator[None]:
    """Another node at the payer's address, with its certificate and macaroons."""
    if isinstance(world, SandboxWorld):
        await world.lnd.stop()
        before = world.lnd.replace_node()
        await world.lnd.start()
        yield
        await world.lnd.stop()
        world.lnd.replace_node("alice", before)
        await world.lnd.start()
        return
    assert isinstance(world, RealWorld)
    alice = world._net["alice"]
    await alice.stop()
    other = await world._net.add_node(f"other-{secrets.token_hex(4)}", behind=alice)
    try:
        yield
    finally:
        await world._net.remove_node(other)
        await world.start_payer()


class Stream:
    """A payment stream of the adapter, read in the background."""

    def __init__(self, messages: AsyncGenerator[LndMessage, None]) -> None:
        self.messages: list[LndMessage] = []
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read(messages))

    async def message(self, wanted: Callable[[PaymentUpdate], bool]) -> Reported:
        """The first report like this, as soon as it is there."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for message in self.messages:
                    if isinstance(message, Reported) and wanted(message.update):
                        return message
                assert not self._reading.done(), f"ended without it: {self.messages}"
                self._changed.clear()
                await self._changed.wait()

    async def out(self) -> Reported:
        """The first report of an HTLC in flight."""
        return await self.message(lambda update: any(a.status is AttemptStatus.IN_FLIGHT for a in update.attempts))

    async def last(self) -> LndMessage:
        """The last message, when the stream has ended."""
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.shield(self._reading)
        return self.messages[-1]

    async def leave(self) -> None:
        """Stops reading, as a daemon that ends."""
        self._reading.cancel()
        await asyncio.wait({self._reading})

    async def _read(self, messages: AsyncGenerator[LndMessage, None]) -> None:
        try:
            async for message in messages:
                self.messages.append(message)
                self._changed.set()
        finally:
            self._changed.set()
            await messages.aclose()


def _settings(target: Target) -> LndSettings:
    address, tls_cert, macaroon = target
    return LndSettings(
        address=address,
        macaroon=macaroon,
        tls_cert_path=tls_cert,
        look_every_ready_s=LOOK_EVERY_S,
        look_every_unready_s=LOOK_EVERY_S,
    )


def _target(world: World) -> Target:
    if isinstance(world, SandboxWorld):
        return world.lnd.target, world.lnd.tls_cert, world.lnd.macaroon.read_bytes()
    assert isinstance(world, RealWorld)
    alice = world._net["alice"]
    return alice.rpc_address, alice.tls_cert_path, alice.admin_macaroon_path.read_bytes()


@asynccontextmanager
async def _locked(world: World) -> AsyncIterator[Target]:
    if isinstance(world, SandboxWorld):
        other = SandboxLnd(world._payee, world._directory / "locked")
        await other.start(WalletState.LOCKED)
        yield other.target, other.tls_cert, other.macaroon.read_bytes()
        await other.stop()
        return
    assert isinstance(world, RealWorld)
    directory = world._net.directory / f"locked-{secrets.token_hex(4)}"
    directory.mkdir()
    lnd = Walletless(world._net.programs.lnd, directory)
    try:
        await lnd.start()
        await lnd.make_wallet()
        await lnd.stop()
        await lnd.start()
        yield lnd.rpc_address, lnd.tls_cert_path, b"\x02"
    finally:
        await lnd.stop()
