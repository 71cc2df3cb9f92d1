"""The payer's gRPC interface through the generated stubs, with waits that end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from holdpay._pb.lnd import (
    lightning_pb2,
    lightning_pb2_grpc,
    router_pb2,
    router_pb2_grpc,
    stateservice_pb2,
    stateservice_pb2_grpc,
)
from tests.regtest.node import ALL_PAYMENTS

Payment = lightning_pb2.Payment
# Any wait in the suite: a real node that restarts needs seconds, everything else far less.
PATIENCE_S = 60.0


class Client:
    """The payer's gRPC interface, as one client with one macaroon sees it."""

    def __init__(self, channel: grpc.aio.Channel, macaroon_hex: str | None) -> None:
        self._metadata = () if macaroon_hex is None else (("macaroon", macaroon_hex),)
        self._lightning = lightning_pb2_grpc.LightningStub(channel)
        self._router = router_pb2_grpc.RouterStub(channel)
        self._state = stateservice_pb2_grpc.StateStub(channel)

    async def info(self) -> lightning_pb2.GetInfoResponse:
        return await self._lightning.GetInfo(lightning_pb2.GetInfoRequest(), metadata=self._metadata)

    async def decode(self, payreq: str) -> lightning_pb2.PayReq:
        return await self._lightning.DecodePayReq(lightning_pb2.PayReqString(pay_req=payreq), metadata=self._metadata)

    async def channels(self) -> list[lightning_pb2.Channel]:
        reply = await self._lightning.ListChannels(lightning_pb2.ListChannelsRequest(), metadata=self._metadata)
        return list(reply.channels)

    async def pending_channels(self) -> lightning_pb2.PendingChannelsResponse:
        return await self._lightning.PendingChannels(lightning_pb2.PendingChannelsRequest(), metadata=self._metadata)

    async def balance(self) -> lightning_pb2.ChannelBalanceResponse:
        return await self._lightning.ChannelBalance(lightning_pb2.ChannelBalanceRequest(), metadata=self._metadata)

    async def routes(self, **fields: Any) -> lightning_pb2.QueryRoutesResponse:
        return await self._lightning.QueryRoutes(lightning_pb2.QueryRoutesRequest(**fields), metadata=self._metadata)

    async def payments(self, *, max_payments: int = ALL_PAYMENTS, **fields: Any) -> list[Payment]:
        request = lightning_pb2.ListPaymentsRequest(max_payments=max_payments, **fields)
        return list((await self._lightning.ListPayments(request, metadata=self._metadata)).payments)

    async def state(self) -> int:
        return (await self._state.GetState(stateservice_pb2.GetStateRequest())).state

    def send(self, payreq: str, **fields: Any) -> Watch:
        """SendPaymentV2 with the options that most tests want."""
        options = {"timeout_seconds": 60, "fee_limit_msat": 10_000, "max_parts": 1, **fields}
        request = router_pb2.SendPaymentRequest(payment_request=payreq, **options)
        return Watch(self._router.SendPaymentV2(request, metadata=self._metadata))

    def track(self, payment_hash: bytes, *, no_inflight_updates: bool = False) -> Watch:
        request = router_pb2.TrackPaymentRequest(payment_hash=payment_hash, no_inflight_updates=no_inflight_updates)
        return Watch(self._router.TrackPaymentV2(request, metadata=self._metadata))

    def track_all(self) -> Watch:
        return Watch(self._router.TrackPayments(router_pb2.TrackPaymentsRequest(), metadata=self._metadata))


class Watch:
    """A payment stream that is read in the background; `messages` holds what has come so far."""

    def __init__(self, call: grpc.aio.UnaryStreamCall[Any, Payment]) -> None:
        self.messages: list[Payment] = []
        self._call = call
        self._error: grpc.aio.AioRpcError | None = None
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def message(self, wanted: Callable[[Payment], bool]) -> Payment:
        """The first message like this, as soon as it is there. Raises grpc.aio.AioRpcError if the stream breaks."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for message in self.messages:
                    if wanted(message):
                        return message
                if self._reading.done():
                    if self._error is not None:
                        raise self._error
                    raise AssertionError(f"the stream ended without it: {self.messages}")
                self._changed.clear()
                await self._changed.wait()

    async def out(self) -> Payment:
        """The first message that shows an HTLC in flight."""
        return await self.message(lambda payment: any(htlc.status == htlc.IN_FLIGHT for htlc in payment.htlcs))

    async def end(self) -> Payment:
        """The last message, when the stream has ended with OK. Raises grpc.aio.AioRpcError."""
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.shield(self._reading)
        if self._error is not None:
            raise self._error
        return self.messages[-1]

    async def refusal(self) -> tuple[grpc.StatusCode, str]:
        """Code and text that the stream ended with."""
        try:
            await self.end()
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or ""
        raise AssertionError(f"not refused: {self.messages}")

    def drop(self) -> None:
        """Go away, as a client that dies."""
        self._call.cancel()

    async def _read(self) -> None:
        try:
            async for message in self._call:
                self.messages.append(message)
                self._changed.set()
        except grpc.aio.AioRpcError as error:
            self._error = error
        finally:
            self._changed.set()


@asynccontextmanager
async def client(target: str, tls_cert: Path, macaroon_hex: str | None) -> AsyncIterator[Client]:
    credentials = grpc.ssl_channel_credentials(tls_cert.read_bytes())
    # After a refused connection gRPC would wait up to minutes before it tries again.
    options = (
        ("grpc.enable_http_proxy", 0),
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 200),
    )
    async with grpc.aio.secure_channel(target, credentials, options) as channel:
        yield Client(channel, macaroon_hex)
