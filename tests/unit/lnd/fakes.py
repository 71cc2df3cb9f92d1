"""A scripted lnd on a real TLS port, a relay that can pass a client on to another one, and a clock moved by hand."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
from grpc import aio

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay._pb.lnd import lightning_pb2_grpc, router_pb2_grpc, stateservice_pb2_grpc
from holdpay._pb.lnd import router_pb2 as routerrpc
from holdpay._pb.lnd import stateservice_pb2 as staterpc
from holdpay.core.lightning import DispatchSpec, LndMessage, NodeIdentity
from holdpay.lnd.follower import Follower
from holdpay.lnd.node import LndNode
from holdpay.lnd.settings import LndSettings
from holdpay.sandbox.tls import Certificate

Context = aio.ServicerContext[Any, Any]

ALICE = NodeIdentity("02" + "aa" * 32, "simnet")
MALLORY = NodeIdentity("03" + "bb" * 32, "simnet")
PATIENCE_S = 60
"""Ends a test that would hang; nothing waits this long."""

SPEC = DispatchSpec(
    payreq="lnsb20u1...", payment_hash="ab" * 32, fee_limit_msat=0, timeout_s=1500, max_parts=1, cltv_limit=515
)


class FakeClock:
    """Short waits (retries at the edge) pass at once; longer ones end when the test moves the time."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000
        self.slept_s: list[float] = []
        self._sleepers: list[tuple[int, asyncio.Future[None]]] = []
        self._asleep = asyncio.Event()

    def now_ms(self) -> int:
        return self.ms

    def wall_ahead_ms(self) -> int:
        return 0

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        if seconds < 1:
            # No turn of the loop alone: gRPC's own threads have to see that a connection is gone.
            await asyncio.sleep(0.01)
            return
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.ms + int(seconds * 1000), sleeper))
        self._asleep.set()
        await sleeper

    async def until_asleep(self) -> None:
        """Returns when somebody waits for the time: the monitor, after a look."""
        async with asyncio.timeout(PATIENCE_S):
            await self._asleep.wait()

    async def advance(self, seconds: float) -> None:
        """Moves the time; returns when the monitor has looked, and sleeps again."""
        self.wake_at(self.ms + int(seconds * 1000))
        await self.until_asleep()

    def wake_at(self, ms: int) -> None:
        self.ms = ms
        self._asleep.clear()
        due = [sleeper for until_ms, sleeper in self._sleepers if until_ms <= ms]
        self._sleepers = [(until_ms, sleeper) for until_ms, sleeper in self._sleepers if until_ms > ms]
        for sleeper in due:
            if not sleeper.done():
                sleeper.set_result(None)


class FakeStream:
    """The server's end of one payment stream."""

    def __init__(self, request: Any) -> None:
        self.request = request
        self.gone = asyncio.Event()
        self._script: asyncio.Queue[lnrpc.Payment | tuple[grpc.StatusCode, str] | None] = asyncio.Queue()

    def say(self, *payments: lnrpc.Payment) -> None:
        for payment in payments:
            self._script.put_nowait(payment)

    def fail(self, code: grpc.StatusCode, text: str) -> None:
        self._script.put_nowait((code, text))

    def end(self) -> None:
        self._script.put_nowait(None)

    async def play(self, context: Context) -> AsyncIterator[lnrpc.Payment]:
        try:
            while (item := await self._script.get()) is not None:
                if isinstance(item, tuple):
                    await context.abort(*item)
                yield item
        finally:
            self.gone.set()


class FakeLnd(
    lightning_pb2_grpc.LightningServicer, router_pb2_grpc.RouterServicer, stateservice_pb2_grpc.StateServicer
):
    """Answers as told. ``errors`` are by method, ``calls`` what arrived in order."""

    def __init__(self, identity: NodeIdentity = ALICE) -> None:
        self.info = lnrpc.GetInfoResponse(
            identity_pubkey=identity.pubkey,
            alias="alice",
            version="0.21.0-beta commit=v0.21.0-beta",
            block_height=500,
            synced_to_chain=True,
            chains=[lnrpc.Chain(network=identity.network)],
        )
        self.wallet = staterpc.SERVER_ACTIVE
        self.payreq = lnrpc.PayReq(payment_hash="ab" * 32, num_msat=2_000_000)
        self.channels: list[lnrpc.Channel] = []
        self.pending = lnrpc.PendingChannelsResponse()
        self.routes: Callable[[lnrpc.QueryRoutesRequest], lnrpc.Route | None] = lambda request: None
        self.queries: list[lnrpc.QueryRoutesRequest] = []
        self.aliases: dict[str, str] = {}
        """The graph's nodes."""
        self.baked = b""
        """What BakeMacaroon answers."""
        self.bakings: list[lnrpc.BakeMacaroonRequest] = []
        self.on_arrival: Callable[[str], Awaitable[None]] | None = None
        """Called with the method's name, before it is answered."""
        self.on_listed: Callable[[], None] = lambda: None
        """Called when either list of channels is written and not answered yet."""
        self.errors: dict[str, tuple[grpc.StatusCode, str]] = {}
        self.calls: list[str] = []
        self.macaroons: dict[str, list[str]] = {}
        self.mute = asyncio.Event()
        self.mute.set()
        self._streams: asyncio.Queue[FakeStream] = asyncio.Queue()
        self.of_all: FakeStream | None = None
        """The latest stream of all payments."""
        self._server: aio.Server | None = None
        self.port = 0

    async def start(self, certificate: Certificate) -> None:
        self._server = aio.server(options=(("grpc.so_reuseport", 0),))
        lightning_pb2_grpc.add_LightningServicer_to_server(self, self._server)
        router_pb2_grpc.add_RouterServicer_to_server(self, self._server)
        stateservice_pb2_grpc.add_StateServicer_to_server(self, self._server)
        credentials = grpc.ssl_server_credentials([(certificate.key, certificate.certificate)])
        self.port = self._server.add_secure_port(f"127.0.0.1:{self.port}", credentials)
        await self._server.start()

    async def stop(self, grace_s: float | None = None) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(grace_s)

    async def next_stream(self) -> FakeStream:
        async with asyncio.timeout(PATIENCE_S):
            return await self._streams.get()

    def tell(self, *payments: lnrpc.Payment) -> None:
        """On the stream of all payments."""
        assert self.of_all is not None
        self.of_all.say(*payments)

    async def _arrive(self, method: str, context: Context) -> None:
        self.calls.append(method)
        metadata = context.invocation_metadata() or ()
        self.macaroons[method] = [str(value) for key, value in metadata if key == "macaroon"]
        if self.on_arrival is not None:
            await self.on_arrival(method)
        await self.mute.wait()
        if method in self.errors:
            await context.abort(*self.errors[method])

    async def GetInfo(self, request: lnrpc.GetInfoRequest, context: Context) -> lnrpc.GetInfoResponse:  # noqa: N802
        await self._arrive("GetInfo", context)
        return self.info

    async def DecodePayReq(self, request: lnrpc.PayReqString, context: Context) -> lnrpc.PayReq:  # noqa: N802
        await self._arrive("DecodePayReq", context)
        return self.payreq

    async def ChannelBalance(  # noqa: N802
        self, request: lnrpc.ChannelBalanceRequest, context: Context
    ) -> lnrpc.ChannelBalanceResponse:
        await self._arrive("ChannelBalance", context)
        return lnrpc.ChannelBalanceResponse(local_balance=lnrpc.Amount(sat=1234))

    async def GetState(  # noqa: N802
        self, request: staterpc.GetStateRequest, context: Context
    ) -> staterpc.GetStateResponse:
        await self._arrive("GetState", context)
        return staterpc.GetStateResponse(state=self.wallet)

    async def ListChannels(  # noqa: N802
        self, request: lnrpc.ListChannelsRequest, context: Context
    ) -> lnrpc.ListChannelsResponse:
        await self._arrive("ListChannels", context)
        answer = lnrpc.ListChannelsResponse(channels=self.channels)
        self.on_listed()
        return answer

    async def PendingChannels(  # noqa: N802
        self, request: lnrpc.PendingChannelsRequest, context: Context
    ) -> lnrpc.PendingChannelsResponse:
        await self._arrive("PendingChannels", context)
        answer = lnrpc.PendingChannelsResponse()
        answer.CopyFrom(self.pending)
        self.on_listed()
        return answer

    async def QueryRoutes(  # noqa: N802
        self, request: lnrpc.QueryRoutesRequest, context: Context
    ) -> lnrpc.QueryRoutesResponse:
        await self._arrive("QueryRoutes", context)
        asked = lnrpc.QueryRoutesRequest()
        asked.CopyFrom(request)
        self.queries.append(asked)
        route = self.routes(asked)
        if route is None:
            await context.abort(grpc.StatusCode.UNKNOWN, "unable to find a path to destination")
        return lnrpc.QueryRoutesResponse(routes=[route])

    async def GetNodeInfo(self, request: lnrpc.NodeInfoRequest, context: Context) -> lnrpc.NodeInfo:  # noqa: N802
        await self._arrive("GetNodeInfo", context)
        if request.pub_key not in self.aliases:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unable to find node")
        node = lnrpc.LightningNode(pub_key=request.pub_key, alias=self.aliases[request.pub_key])
        return lnrpc.NodeInfo(node=node, num_channels=3)

    async def ListPayments(self, request: Any, context: Context) -> Any:  # noqa: N802
        raise NotImplementedError

    async def BakeMacaroon(  # noqa: N802
        self, request: lnrpc.BakeMacaroonRequest, context: Context
    ) -> lnrpc.BakeMacaroonResponse:
        await self._arrive("BakeMacaroon", context)
        self.bakings.append(request)
        return lnrpc.BakeMacaroonResponse(macaroon=self.baked.hex())

    async def SendPaymentV2(  # noqa: N802
        self, request: routerrpc.SendPaymentRequest, context: Context
    ) -> AsyncIterator[lnrpc.Payment]:
        await self._arrive("SendPaymentV2", context)
        async for payment in self._play(request, context):
            yield payment

    async def TrackPaymentV2(  # noqa: N802
        self, request: routerrpc.TrackPaymentRequest, context: Context
    ) -> AsyncIterator[lnrpc.Payment]:
        await self._arrive("TrackPaymentV2", context)
        async for payment in self._play(request, context):
            yield payment

    async def TrackPayments(  # noqa: N802
        self, request: routerrpc.TrackPaymentsRequest, context: Context
    ) -> AsyncIterator[lnrpc.Payment]:
        await self._arrive("TrackPayments", context)
        self.of_all = FakeStream(request)
        async for payment in self.of_all.play(context):
            yield payment

    def _play(self, request: Any, context: Context) -> AsyncIterator[lnrpc.Payment]:
        stream = FakeStream(request)
        self._streams.put_nowait(stream)
        return stream.play(context)


class Relay:
    """Passes TCP connections on to ``target``, until told otherwise."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.is_dead = False
        """Connections stay up and pass nothing on, as when a cable was pulled."""
        self._pairs: set[asyncio.StreamWriter] = set()
        self._copies: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Relay]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.drop()

    def drop(self) -> None:
        """Breaks all connections that stand."""
        for writer in self._pairs:
            writer.transport.abort()
        self._pairs.clear()

    def cut(self) -> None:
        """As ``drop``, but at once: also for a caller that does not let the event loop go on."""
        for writer in self._pairs:
            with suppress(OSError):
                writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        self._pairs |= {writer, there_writer}
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            task = asyncio.create_task(self._copy(source, sink))
            self._copies.add(task)
            task.add_done_callback(self._copies.discard)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                if not self.is_dead:
                    sink.write(data)
                    await sink.drain()
        sink.close()


def settings_for(port: int, certificate: Any, **changes: Any) -> LndSettings:
    """``certificate`` is the path of tls.cert."""
    values: dict[str, Any] = {
        "address": f"127.0.0.1:{port}",
        "macaroon": b"\x02secret",
        "tls_cert_path": certificate,
        **changes,
    }
    return LndSettings(**values)


async def collect(messages: AsyncGenerator[LndMessage, None]) -> list[LndMessage]:
    """All messages to the end of the stream."""
    async with asyncio.timeout(PATIENCE_S):
        return [message async for message in messages]


async def known(node: LndNode, wanted: NodeIdentity = ALICE) -> None:
    """Returns when this node can be paid from and followed."""
    async with asyncio.timeout(PATIENCE_S):
        while node.identity != wanted:
            await asyncio.sleep(0.001)


def followers(node: LndNode) -> list[Follower]:
    """Who follows a payment now."""
    stream = node._hub._stream
    assert stream is not None
    return [one for several in stream.followers.values() for one in several]


class Reading:
    """Reads a stream in a task of its own."""

    def __init__(self, messages: AsyncGenerator[LndMessage, None]) -> None:
        self.messages: list[LndMessage] = []
        self._begun = asyncio.Event()
        self.task = asyncio.create_task(self._read(messages))

    async def begun(self) -> None:
        """Returns when the first message was read."""
        async with asyncio.timeout(PATIENCE_S):
            await self._begun.wait()

    async def ended(self) -> list[type[LndMessage]]:
        """The types of all messages, at the end."""
        async with asyncio.timeout(PATIENCE_S):
            await self.task
        return [type(message) for message in self.messages]

    async def _read(self, messages: AsyncGenerator[LndMessage, None]) -> None:
        async for message in messages:
            self.messages.append(message)
            self._begun.set()
