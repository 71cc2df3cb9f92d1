"""What gRPC does behind the caller's back: it must not pass a payment on, send it twice, or wait for a dead peer."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc import aio

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay._pb.lnd import router_pb2 as routerrpc
from holdpay._pb.lnd.router_pb2_grpc import RouterStub
from holdpay.core.lightning import DispatchSpec, Lost, Reported
from holdpay.lnd.channel import open_channel
from holdpay.lnd.node import LndNode
from holdpay.ports import NodeState
from holdpay.sandbox.tls import write_certificate
from tests.unit.lnd.fakes import (
    ALICE,
    MALLORY,
    PATIENCE_S,
    SPEC,
    FakeClock,
    FakeLnd,
    Reading,
    Relay,
    collect,
    known,
    settings_for,
)

OUT = lnrpc.Payment(payment_hash=SPEC.payment_hash, status=lnrpc.Payment.IN_FLIGHT)


@asynccontextmanager
async def relayed(lnd: FakeLnd, clock: FakeClock, certificate: Path) -> AsyncIterator[tuple[LndNode, Relay]]:
    """A node that reaches alice through a relay, after its first look."""
    async with Relay(lnd.port).running() as relay:
        node = LndNode(settings_for(relay.port, certificate), clock)
        await node.start()
        await clock.until_asleep()
        try:
            yield node, relay
        finally:
            await node.close()


# --- a connection that breaks while the payment is on its way out ---------------------------------------------------


class BreakingSpec:
    """What is to be sent; who reads its invoice has passed every check by then, and finds that the connection broke."""

    def __init__(self, break_now: Callable[[], None]) -> None:
        self._break_now: Callable[[], None] | None = break_now

    def __getattr__(self, name: str) -> Any:
        if name == "payreq" and self._break_now is not None:
            break_now, self._break_now = self._break_now, None
            break_now()
        return getattr(SPEC, name)


async def test_a_payment_whose_connection_breaks_as_it_is_sent_never_goes_to_the_node_that_answers_next(
    lnd: FakeLnd, mallory: FakeLnd, clock: FakeClock, tmp_path: Path
) -> None:
    async with relayed(lnd, clock, tmp_path / "tls.cert") as (node, relay):

        def break_now() -> None:
            relay.target_port = mallory.port
            relay.cut()
            ends_at_s = time.monotonic() + PATIENCE_S
            while node.identity is not None:
                assert time.monotonic() < ends_at_s, "gRPC did not notice the break"

        messages = await collect(node.send(cast("DispatchSpec", BreakingSpec(break_now)), ALICE))
        assert [type(message) for message in messages] == [Lost]
        await node.decode("lnsb1")
        await known(node, MALLORY)
    assert "SendPaymentV2" not in [*lnd.calls, *mallory.calls]


# --- a connection that is dead and does not say so ------------------------------------------------------------------

SPED_UP = 40
"""gRPC knows no virtual clock."""
GRPCS_OWN = {"grpc.http2.ping_timeout_ms": 60_000}
"""Its default, to be sped up like the rest."""
WAITS = {"grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", *GRPCS_OWN}


async def test_a_connection_that_died_without_a_word_is_noticed_within_minutes(
    lnd: FakeLnd, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_open = aio.secure_channel

    def open_sped_up(target: str, credentials: Any, options: Any) -> aio.Channel:
        said = {**GRPCS_OWN, **dict(options)}
        quicker = {name: value // SPED_UP if name in WAITS else value for name, value in said.items()}
        # gRPC pings by itself while data flow. Not here: as on a connection that has been quiet for hours.
        return really_open(target, credentials, options=[*quicker.items(), ("grpc.http2.bdp_probe", 0)])

    monkeypatch.setattr(aio, "secure_channel", open_sped_up)
    async with relayed(lnd, clock, tmp_path / "tls.cert") as (node, relay):
        sending = Reading(node.send(SPEC, ALICE))
        (await lnd.next_stream()).say(OUT)
        await sending.begun()
        relay.is_dead = True
        died_at_s = time.monotonic()
        assert await sending.ended() == [Reported, Lost]
        took_s = (time.monotonic() - died_at_s) * SPED_UP
        async with asyncio.timeout(PATIENCE_S):
            while node.identity is not None:  # gRPC tells the stream first, and then the channel
                await asyncio.sleep(0)
    assert 10 < took_s < 600


# --- a call that gRPC could try again by itself ---------------------------------------------------------------------

_SETTINGS, _HEADERS, _GOAWAY, _ACK = 4, 1, 7, 1


def _frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """HTTP/2 (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream_id.to_bytes(4) + payload


class LeavingServer:
    """Speaks just enough HTTP/2 to go away with every call unread, which gRPC takes as leave to try again elsewhere."""

    def __init__(self) -> None:
        self.call_count = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_frame(_SETTINGS, 0, 0, b""))
        try:
            await reader.readexactly(len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
            while True:
                head = await reader.readexactly(9)
                await reader.readexactly(int.from_bytes(head[:3]))
                kind, flags = head[3], head[4]
                if kind == _SETTINGS and not flags & _ACK:
                    writer.write(_frame(_SETTINGS, _ACK, 0, b""))
                elif kind == _HEADERS:
                    self.call_count += 1
                    writer.write(_frame(_GOAWAY, 0, 0, bytes(8)))  # last stream read: 0; no error
        except (EOFError, OSError):
            writer.close()


async def test_a_payment_that_a_server_left_unread_as_it_went_away_is_not_sent_again_by_grpc(tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.set_alpn_protocols(["h2"])
    tls.load_cert_chain(tmp_path / "tls.cert", tmp_path / "tls.key")
    leaving = LeavingServer()
    async with await asyncio.start_server(leaving.serve, "127.0.0.1", 0, ssl=tls) as server:
        port = server.sockets[0].getsockname()[1]
        async with open_channel(settings_for(port, tmp_path / "tls.cert"), certificate.certificate) as channel:
            call = RouterStub(channel).SendPaymentV2(routerrpc.SendPaymentRequest(), timeout=PATIENCE_S)
            with pytest.raises(grpc.RpcError) as failed:
                await call.read()
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert leaving.call_count == 1


# --- a connection that took another one's place ---------------------------------------------------------------------


async def _sees(node: LndNode, state: NodeState) -> None:
    """Returns when the node's status is this one. The clock stands: what comes of a look every few seconds fails."""
    async with asyncio.timeout(PATIENCE_S):
        while node.status.state is not state:
            await asyncio.sleep(0)


async def test_lnd_is_watched_after_a_new_certificate_as_it_was_before(
    node: LndNode, lnd: FakeLnd, tmp_path: Path
) -> None:
    await lnd.stop()
    await _sees(node, NodeState.UNREACHABLE)
    await lnd.start(write_certificate(tmp_path))
    await node.decode("lnsb1")
    await _sees(node, NodeState.READY)
    await lnd.stop()
    await _sees(node, NodeState.UNREACHABLE)
