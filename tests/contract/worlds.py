"""The worlds that the contract suite runs in: the sandbox here, real nodes in real_world.py.

A world has one payer (an lnd under test), one peer that forwards, and one payee that issues hold invoices. The suite
talks to the payer over gRPC (client.py) and to everything else through `World`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

from holdpay.sandbox.clock import WallClock
from holdpay.sandbox.lnd import SandboxLnd
from holdpay.sandbox.lnd_model import InTransition, NotInitiated, PaymentDb
from holdpay.sandbox.lnd_rpc import WalletState
from holdpay.sandbox.payee import HoldInvoices, Payee
from tests.contract.client import Client, client

ADMIN = "admin"
# A client of an lnd that is not the payer, with the macaroon given: hex, or None for none at all.
Connect = Callable[[str | None], AbstractAsyncContextManager[Client]]
Mine = Callable[[], Awaitable[None]]


class World(Protocol):
    """The surroundings of the payer, and control over it."""

    @property
    def invoices(self) -> HoldInvoices: ...

    # For so long lnd avoids a hop that failed; None: too long to wait for.
    mission_control_s: float | None
    # What every node needs after a block to publish and to sweep.
    block_pause_s: float

    def connect(self, macaroon_hex: str | None = ADMIN) -> AbstractAsyncContextManager[Client]:
        """Async context manager: a Client; ADMIN is the admin macaroon, None is none at all."""
        ...

    async def pass_s(self, seconds: float) -> None:
        """Let time pass, for invoices and time-outs."""
        ...

    async def stop_payer(self) -> None: ...

    async def kill_payer(self) -> None: ...

    async def start_payer(self) -> None:
        """Returns when the payer answers; its channels may still be coming up."""
        ...

    async def set_online(self, who: str, *, online: bool) -> None:
        """Let the "peer" or the "payee" go, or come back and be reachable."""
        ...

    async def mine(self, blocks: int) -> None: ...

    async def payer_invoice(self) -> str:
        """An invoice of the payer itself."""
        ...

    async def delete_payment(self, payment_hash: bytes) -> str:
        """What the operator can do; "" or the text of the refusal."""
        ...

    async def bake(self, methods: Sequence[str]) -> str:
        """A macaroon for these methods, with a root key of its own; hex."""
        ...

    async def revoke(self, macaroon_hex: str) -> None:
        """Delete the root key of a baked macaroon."""
        ...

    def stalled_payer(self) -> AbstractAsyncContextManager[None]:
        """Async context manager: connections stay, but what is sent reaches the payer afterwards, if at all."""
        ...

    def wallet(self, state: int) -> AbstractAsyncContextManager[Connect]:
        """Async context manager: how to connect to some lnd whose wallet is not there (0) or locked (1)."""
        ...

    def old_chain(self) -> AbstractAsyncContextManager[tuple[Client, Mine]]:
        """Async context manager: some lnd whose last block (height 0) is years old, and how to mine a new one."""
        ...


class SandboxClock(WallClock):
    """The machine's clock, which a test can put forward. A sleep of ``STALL_S`` ends with ``go_on``, and not before."""

    STALL_S = 1e9

    def __init__(self) -> None:
        super().__init__()
        self.skipped_s = 0.0
        self.go_on = asyncio.Event()

    def now_s(self) -> float:
        return super().now_s() + self.skipped_s

    async def sleep_s(self, seconds: float) -> None:
        await (self.go_on.wait() if seconds == self.STALL_S else super().sleep_s(seconds))


class SandboxWorld:
    block_pause_s = 0.02
    mission_control_s: float | None = 180.0

    def __init__(self, directory: Path, *, payment_db: Callable[[], PaymentDb] = PaymentDb) -> None:
        self._clock = SandboxClock()
        self._directory = directory
        self._payee = Payee(self._clock)
        self._baked: dict[str, Path] = {}
        self.lnd = SandboxLnd(self._payee, directory, clock=self._clock, payment_db=payment_db)

    @property
    def invoices(self) -> HoldInvoices:
        return self._payee

    def connect(self, macaroon_hex: str | None = ADMIN) -> AbstractAsyncContextManager[Client]:
        return client(
            self.lnd.target, self.lnd.tls_cert, macaroon_hex if macaroon_hex != ADMIN else self.lnd.macaroon_hex
        )

    async def pass_s(self, seconds: float) -> None:
        self._clock.skipped_s += seconds
        await asyncio.sleep(0)

    async def stop_payer(self) -> None:
        await self.lnd.stop()

    async def kill_payer(self) -> None:
        await self.lnd.kill()

    async def start_payer(self) -> None:
        await self.lnd.start()

    async def set_online(self, who: str, *, online: bool) -> None:
        self.lnd.set_online(who, online=online)

    async def mine(self, blocks: int) -> None:
        await self.lnd.mine(blocks)

    async def payer_invoice(self) -> str:
        own = Payee(self._clock, key=self.lnd.node.key)
        return await own.add(payment_hash=bytes(31) + b"\1", value_sat=1000, memo="", expiry_s=600, cltv_delta=80)

    async def delete_payment(self, payment_hash: bytes) -> str:
        try:
            self.lnd.delete_payment(payment_hash)
        except (InTransition, NotInitiated) as error:
            return str(error)
        return ""

    async def bake(self, methods: Sequence[str]) -> str:
        path = self.lnd.bake(f"baked-{len(self._baked)}.macaroon", methods)
        baked = path.read_bytes().hex()
        self._baked[baked] = path
        return baked

    async def revoke(self, macaroon_hex: str) -> None:
        self.lnd.revoke(self._baked[macaroon_hex])

    @asynccontextmanager
    async def stalled_payer(self) -> AsyncIterator[None]:
        self._clock.go_on.clear()
        self.lnd.set_knobs(send_delay_s=self._clock.STALL_S)
        try:
            yield
        finally:
            self.lnd.set_knobs(send_delay_s=0.0)
            self._clock.go_on.set()

    @asynccontextmanager
    async def wallet(self, state: int) -> AsyncIterator[Connect]:
        other = SandboxLnd(self._payee, self._directory / "other")
        await other.start(WalletState(state))
        try:
            yield lambda macaroon_hex: client(other.target, other.tls_cert, macaroon_hex)
        finally:
            await other.stop()

    @asynccontextmanager
    async def old_chain(self) -> AsyncIterator[tuple[Client, Mine]]:
        other = SandboxLnd(self._payee, self._directory / "other", height=0)
        other.set_knobs(synced_to_chain=False)
        await other.start(WalletState.RPC_ACTIVE)

        async def mine() -> None:
            other.set_knobs(synced_to_chain=True)
            await other.mine(1)
            other.advance()

        try:
            async with client(other.target, other.tls_cert, other.macaroon_hex) as connected:
                yield connected, mine
        finally:
            await other.stop()


@asynccontextmanager
async def sandbox_world(
    directory: Path, payment_db: Callable[[], PaymentDb] = PaymentDb
) -> AsyncIterator[SandboxWorld]:
    world = SandboxWorld(directory, payment_db=payment_db)
    await world.lnd.start()
    yield world
    await world.lnd.stop()
