"""The sandbox LND: a real gRPC server with TLS and macaroons that behaves towards a payer as LND does.

What it does is what real nodes were seen to do; the contract suite (tests/contract) runs the same tests on it and on a
real lnd.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import grpc.aio

from holdpay._pb.lnd import lightning_pb2_grpc, router_pb2_grpc, stateservice_pb2_grpc
from holdpay.sandbox.clock import Clock, WallClock
from holdpay.sandbox.lnd_model import Failure, FailureCode, PaymentDb
from holdpay.sandbox.lnd_network import Channel, Knobs, Network, default_channels
from holdpay.sandbox.lnd_node import LndNode
from holdpay.sandbox.lnd_rpc import NOT_READY, Gate, Lightning, Router, Served, State, WalletState
from holdpay.sandbox.macaroon import MacaroonOven
from holdpay.sandbox.payee import Payee
from holdpay.sandbox.tls import write_certificate

DEFAULT_VERSION = "0.21.0-beta sandbox"
NAMES = ("localhost", "127.0.0.1")
# How long synced_to_chain is false after a block.
CATCH_UP_S = 0.05
# LND allows a client's ping every 5 s (its issue #7730); grpc's own default would answer with GOAWAY.
_SERVER_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5000),
    ("grpc.keepalive_permit_without_calls", 1),
)


class SandboxLnd:
    """One simulated node, with the calls to run it and to play tricks.

    `directory` gets tls.cert, tls.key and admin.macaroon. Payments and keys outlast `stop`, `kill` and `restart`, but
    not the object. Channels and height are those of `default_channels` and 500 unless given.
    """

    def __init__(
        self,
        payee: Payee,
        directory: Path,
        *,
        clock: Clock | None = None,
        port: int = 0,
        version: str = DEFAULT_VERSION,
        alias: str = "alice",
        channels: Sequence[Channel] | None = None,
        height: int = 500,
        payment_db: Callable[[], PaymentDb] = PaymentDb,
    ) -> None:
        self._payee = payee
        self._directory = directory
        self._clock = clock or WallClock()
        self._payment_db = payment_db
        self._port = port
        self._server: grpc.aio.Server | None = None
        self._router: Router | None = None
        self._certificate = write_certificate(directory, NAMES)
        self._oven = MacaroonOven()
        self._macaroon_hex = self._oven.bake(directory / "admin.macaroon")
        self.knobs = Knobs()
        self.max_streams: int | None = None
        """As many calls may run at once on one connection, as with a proxy before lnd; from the next start on. None:
        any number, as with lnd itself."""
        node = self._new_node(default_channels() if channels is None else channels, height)
        self._served = Served(node, self._clock, self.knobs, self._oven, version, alias)

    @property
    def port(self) -> int:
        """0 before the first start, if none was asked for; then always the same."""
        return self._port

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def tls_cert(self) -> Path:
        return self._directory / "tls.cert"

    @property
    def macaroon(self) -> Path:
        return self._directory / "admin.macaroon"

    @property
    def macaroon_hex(self) -> str:
        return self._macaroon_hex

    @property
    def node(self) -> LndNode:
        return self._served.node

    @property
    def network(self) -> Network:
        return self._served.node.network

    async def start(self, until: WalletState = WalletState.SERVER_ACTIVE) -> None:
        """Listen, and come up as far as this state (a locked wallet, say); `advance` goes on from there. One that runs
        is left as it is."""
        if self._server is not None:
            return
        self._served.state = until if until in NOT_READY else WalletState.UNLOCKED
        self._server = grpc.aio.server(interceptors=(Gate(self._served),), options=self._options())
        lightning_pb2_grpc.add_LightningServicer_to_server(Lightning(self._served), self._server)
        self._router = Router(self._served)
        router_pb2_grpc.add_RouterServicer_to_server(self._router, self._server)
        stateservice_pb2_grpc.add_StateServicer_to_server(State(self._served), self._server)
        pair = self._certificate
        credentials = grpc.ssl_server_credentials([(pair.key, pair.certificate)])
        self._port = self._server.add_secure_port(self.target, credentials)
        await self._server.start()
        if until not in NOT_READY:
            self.advance(until)

    def advance(self, until: WalletState = WalletState.SERVER_ACTIVE) -> None:
        """Come up: RPC_ACTIVE answers calls and resumes payments, SERVER_ACTIVE has its peers again."""
        if self._served.state in NOT_READY:
            self._served.node.start()
        self._served.state = until
        self.network.set_online("node", online=until is WalletState.SERVER_ACTIVE)

    async def stop(self) -> None:
        """As SIGTERM does: streams end with "routerrpc server shutting down", then nobody listens."""
        self.network.set_online("node", online=False)
        self._served.node.stop()
        await self._close(grace_s=0.2)

    async def kill(self) -> None:
        """As SIGKILL does: connections break, and the rest of a block of payment numbers is lost."""
        self.network.set_online("node", online=False)
        await self._close(grace_s=None)
        self._served.node.stop()
        self._served.node.db.lose_indexes()

    async def restart(self, until: WalletState = WalletState.SERVER_ACTIVE) -> None:
        await self.stop()
        await self.start(until)

    async def lock(self) -> None:
        """A node that was restarted and waits for its wallet's password; `unlock` brings it up."""
        await self.restart(WalletState.LOCKED)

    def unlock(self) -> None:
        self.advance()

    def set_knobs(self, **changes: float | bool) -> None:
        """Turn some of `Knobs`. Raises ValueError for one that does not exist."""
        unknown = changes.keys() - Knobs.__slots__
        if unknown:
            raise ValueError(f"no such knob: {', '.join(sorted(unknown))}; there are {', '.join(Knobs.__slots__)}")
        for name, value in changes.items():
            setattr(self.knobs, name, value)

    def fail_routing(
        self, times: int, code: FailureCode = FailureCode.TEMPORARY_CHANNEL_FAILURE, source_index: int = 1
    ) -> None:
        """Let the next HTLCs fail on their way (0: no more); `source_index` 0 is our own channel, 1 the peer."""
        self.network.fail_next(times, Failure(code, source_index))

    def leave_unsigned(self, times: int) -> None:
        """Let the next HTLCs never get into their channel, and stay in flight in the payments' records for ever."""
        self.network.leave_unsigned(times)

    def hang_streams(self) -> None:
        """Let the payment streams that are open now stay open and silent, as they did in LND's issues 7727 and 7730."""
        self.node.hang_streams()

    def set_online(self, who: str, *, online: bool) -> None:
        """Let the "peer" or the "payee" go away, or come back."""
        self.network.set_online(who, online=online)

    async def mine(self, blocks: int) -> None:
        """Let the chain grow; synced_to_chain is false for a moment."""
        self._served.is_catching_up = True
        await self.network.mine(blocks)
        asyncio.get_running_loop().call_later(CATCH_UP_S, self._caught_up)

    def delete_payment(self, payment_hash: bytes) -> None:
        """As `lncli deletepayments` does. Raises NotInitiated, InTransition."""
        self.node.db.delete(payment_hash)

    def delete_ended_payments(self) -> None:
        """As `lncli deletepayments --all` does."""
        for payment in self.node.db.all():
            if payment.is_terminal:
                self.node.db.delete(payment.payment_hash)

    def replace_node(self, alias: str = "mallory", node: LndNode | None = None) -> LndNode:
        """Put another node behind the same address, certificate and macaroon: a new one, or one that was there before.

        Returns the one that was there.
        """
        before = self._served.node
        before.stop()
        before.network.set_online("node", online=False)
        self._served.node = node or self._new_node(default_channels(), before.network.height)
        self._served.alias = alias
        self._served.node.start()
        self.advance(self._served.state)
        return before

    async def renew_certificate(self) -> None:
        """Restart with a new certificate, as LND does when the old one has expired."""
        await self.stop()
        self._certificate = write_certificate(self._directory, NAMES)
        await self.start()

    def bake(self, name: str, methods: Sequence[str] | None = None) -> Path:
        """A further macaroon file, for all methods or for some ("/lnrpc.Lightning/GetInfo")."""
        path = self._directory / name
        self._oven.bake(path, methods)
        return path

    def revoke(self, macaroon: Path) -> None:
        self._oven.revoke(macaroon.read_bytes().hex())

    def _options(self) -> list[tuple[str, int]]:
        if self.max_streams is None:
            return [*_SERVER_OPTIONS]
        # A call that has ended makes room for another at once, as with a proxy; grpc would count it for a while.
        return [
            *_SERVER_OPTIONS,
            ("grpc.max_concurrent_streams", self.max_streams),
            ("grpc.http.overload_protection", 0),
        ]

    def _new_node(self, channels: Sequence[Channel], height: int) -> LndNode:
        network = Network(self._clock, self._payee, self.knobs, height=height, channels=tuple(channels))
        return LndNode(self._clock, network, self.knobs, self._payment_db(), network_name=self._payee.network_name)

    async def _close(self, grace_s: float | None) -> None:
        server, self._server = self._server, None
        router, self._router = self._router, None
        if server is not None:
            await server.stop(grace_s)
        if router is not None:
            router.close()

    def _caught_up(self) -> None:
        self._served.is_catching_up = False
