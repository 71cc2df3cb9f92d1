"""LND's gRPC services over the sandbox node: conversions and status codes, nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NoReturn

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
from holdpay.sandbox import lnd_messages
from holdpay.sandbox.bolt11 import InvoiceError
from holdpay.sandbox.clock import Clock
from holdpay.sandbox.lnd_model import AlreadyExists, NotInitiated, PaymentStatus
from holdpay.sandbox.lnd_network import Knobs
from holdpay.sandbox.lnd_node import LndNode, ShuttingDown, Subscription
from holdpay.sandbox.lnd_routing import NoRoute, Refusal, find_route
from holdpay.sandbox.macaroon import MacaroonOven, MacaroonRefused

Context = grpc.aio.ServicerContext[Any, Any]

STATE_METHOD = "/lnrpc.State/GetState"


class WalletState(IntEnum):
    """LND's numbers."""

    NON_EXISTING = 0
    LOCKED = 1
    UNLOCKED = 2
    RPC_ACTIVE = 3
    SERVER_ACTIVE = 4
    WAITING_TO_START = 255


# lnd: rpcperms/interceptor.go
NOT_READY = {
    WalletState.WAITING_TO_START: "waiting to start, RPC services not available",
    WalletState.NON_EXISTING: "wallet not created, create one to enable full RPC access",
    WalletState.LOCKED: "wallet locked, unlock it to enable full RPC access",
    WalletState.UNLOCKED: "the RPC server is in the process of starting up, but not yet ready to accept calls",
}


@dataclass(slots=True)
class Served:
    """What the servicers serve; the control side changes it while they run."""

    node: LndNode
    clock: Clock
    knobs: Knobs
    oven: MacaroonOven
    version: str
    alias: str
    state: WalletState = WalletState.NON_EXISTING
    is_catching_up: bool = False

    async def lag(self) -> None:
        await self.clock.sleep_s(self.knobs.lag_s)


class Gate(grpc.aio.ServerInterceptor):
    """First the wallet's state, then the macaroon, as LND does; GetState passes both."""

    def __init__(self, served: Served) -> None:
        self._served = served

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        await self._served.lag()
        handler = await continuation(handler_call_details)
        refusal = self._refusal(handler_call_details)
        return handler if handler is None or refusal is None else _refusing(handler, refusal)

    def _refusal(self, details: grpc.HandlerCallDetails) -> str | None:
        if details.method == STATE_METHOD:
            return None
        if self._served.state in NOT_READY:
            return NOT_READY[self._served.state]
        presented = [str(value) for key, value in details.invocation_metadata or () if key == "macaroon"]
        try:
            self._served.oven.check(presented, details.method)
        except MacaroonRefused as error:
            return str(error)
        return None


def _refusing(handler: Any, text: str) -> Any:
    async def refuse(_request: object, context: Context) -> None:
        await _abort(context, text)

    make = grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler
    return make(refuse, handler.request_deserializer, handler.response_serializer)


async def _abort(context: Context, error: Exception | str, code: grpc.StatusCode = grpc.StatusCode.UNKNOWN) -> NoReturn:
    await context.abort(code, str(error))


class Lightning(lightning_pb2_grpc.LightningServicer):
    def __init__(self, served: Served) -> None:
        self._served = served

    async def GetInfo(  # noqa: N802 - LND's name
        self, request: lightning_pb2.GetInfoRequest, context: Context
    ) -> lightning_pb2.GetInfoResponse:
        served = self._served
        return lnd_messages.info(
            served.node,
            version=served.version,
            alias=served.alias,
            synced=served.knobs.synced_to_chain and not served.is_catching_up,
            now_s=served.clock.now_s(),
        )

    async def DecodePayReq(  # noqa: N802 - LND's name
        self, request: lightning_pb2.PayReqString, context: Context
    ) -> lightning_pb2.PayReq:
        try:
            return lnd_messages.pay_req(self._served.node.decode(request.pay_req))
        except InvoiceError as error:
            await _abort(context, error)

    async def ListChannels(  # noqa: N802 - LND's name
        self, request: lightning_pb2.ListChannelsRequest, context: Context
    ) -> lightning_pb2.ListChannelsResponse:
        if request.active_only and request.inactive_only:
            await _abort(context, "either `active_only` or `inactive_only` can be set, but not both")
        return lnd_messages.channels(self._served.node.network, request)

    async def PendingChannels(  # noqa: N802 - LND's name
        self, request: lightning_pb2.PendingChannelsRequest, context: Context
    ) -> lightning_pb2.PendingChannelsResponse:
        return lnd_messages.pending_channels(self._served.node.network)

    async def ChannelBalance(  # noqa: N802 - LND's name
        self, request: lightning_pb2.ChannelBalanceRequest, context: Context
    ) -> lightning_pb2.ChannelBalanceResponse:
        return lnd_messages.balance(self._served.node.network)

    async def QueryRoutes(  # noqa: N802 - LND's name
        self, request: lightning_pb2.QueryRoutesRequest, context: Context
    ) -> lightning_pb2.QueryRoutesResponse:
        node = self._served.node
        avoids = node.avoids if request.use_mission_control else lambda _pair: False
        try:
            route = find_route(node.network.graph(node.pubkey), lnd_messages.route_query(request), avoids)
        except (NoRoute, Refusal) as error:
            await _abort(context, error)
        return lightning_pb2.QueryRoutesResponse(routes=[lnd_messages.route(route)], success_prob=1.0)

    async def GetNodeInfo(  # noqa: N802 - LND's name
        self, request: lightning_pb2.NodeInfoRequest, context: Context
    ) -> lightning_pb2.NodeInfo:
        found = lnd_messages.node_info(self._served.node, self._served.alias, request.pub_key)
        if found is None:
            await _abort(context, "unable to find node", grpc.StatusCode.NOT_FOUND)
        return found

    async def ListPayments(  # noqa: N802 - LND's name
        self, request: lightning_pb2.ListPaymentsRequest, context: Context
    ) -> lightning_pb2.ListPaymentsResponse:
        return lnd_messages.payments_page(self._served.node.db.all(), request)

    async def BakeMacaroon(  # noqa: N802 - LND's name
        self, request: lightning_pb2.BakeMacaroonRequest, context: Context
    ) -> lightning_pb2.BakeMacaroonResponse:
        methods = [permission.action for permission in request.permissions]
        if not methods:
            await _abort(context, "permission list cannot be empty. specify at least one action/entity pair")
        if any(permission.entity != "uri" for permission in request.permissions):
            await _abort(context, "the sandbox bakes macaroons for whole methods only")
        return lightning_pb2.BakeMacaroonResponse(macaroon=self._served.oven.make(methods).hex())


class Router(router_pb2_grpc.RouterServicer):
    def __init__(self, served: Served) -> None:
        self._served = served
        self._arriving: set[asyncio.Task[Subscription]] = set()

    async def SendPaymentV2(  # noqa: N802 - LND's name
        self, request: router_pb2.SendPaymentRequest, context: Context
    ) -> AsyncIterator[lightning_pb2.Payment]:
        # A request that is on its way arrives even if its sender has gone.
        arrival = asyncio.create_task(self._arrive(request))
        self._arriving.add(arrival)
        arrival.add_done_callback(self._arrived)
        try:
            subscription = await asyncio.shield(arrival)
        except (Refusal, InvoiceError, ShuttingDown) as error:
            await _abort(context, error)
        except AlreadyExists as error:
            await _abort(context, error, grpc.StatusCode.ALREADY_EXISTS)
        payment_hash = self._served.node.decode(request.payment_request).terms.payment_hash
        try:
            async for payment in self._stream(subscription, request.no_inflight_updates, context):
                yield payment
        finally:
            if request.cancelable:
                self._served.node.sender_left(payment_hash)

    async def TrackPaymentV2(  # noqa: N802 - LND's name
        self, request: router_pb2.TrackPaymentRequest, context: Context
    ) -> AsyncIterator[lightning_pb2.Payment]:
        if len(request.payment_hash) != 32:
            await _abort(context, f"invalid hash length of {len(request.payment_hash)}, want 32")
        try:
            subscription = self._served.node.track(request.payment_hash)
        except NotInitiated as error:
            await _abort(context, error, grpc.StatusCode.NOT_FOUND)
        async for payment in self._stream(subscription, request.no_inflight_updates, context):
            yield payment

    async def TrackPayments(  # noqa: N802 - LND's name
        self, request: router_pb2.TrackPaymentsRequest, context: Context
    ) -> AsyncIterator[lightning_pb2.Payment]:
        node = self._served.node
        try:
            subscription = node.track_all()
        except ShuttingDown as error:
            await _abort(context, error)
        try:
            async for payment in self._stream(subscription, request.no_inflight_updates, context):
                yield payment
        finally:
            node.leave(subscription)

    def close(self) -> None:
        """What is still on its way to a process that is gone never arrives."""
        for arrival in self._arriving:
            arrival.cancel()

    def _arrived(self, arrival: asyncio.Task[Subscription]) -> None:
        self._arriving.discard(arrival)
        if not arrival.cancelled():
            arrival.exception()  # looked at, in case the sender no longer does

    async def _arrive(self, request: router_pb2.SendPaymentRequest) -> Subscription:
        await self._served.clock.sleep_s(self._served.knobs.send_delay_s)
        return self._served.node.send(lnd_messages.send_request(request))

    async def _stream(
        self, subscription: Subscription, only_terminal: bool, context: Context
    ) -> AsyncIterator[lightning_pb2.Payment]:
        pending = (PaymentStatus.INITIATED, PaymentStatus.IN_FLIGHT)
        try:
            async for snapshot in subscription.snapshots():
                if only_terminal and snapshot.status in pending:
                    continue
                await self._served.lag()
                yield lnd_messages.payment(snapshot)
        except ShuttingDown as error:
            await _abort(context, error)


class State(stateservice_pb2_grpc.StateServicer):
    def __init__(self, served: Served) -> None:
        self._served = served

    async def GetState(  # noqa: N802 - LND's name
        self, request: stateservice_pb2.GetStateRequest, context: Context
    ) -> stateservice_pb2.GetStateResponse:
        return stateservice_pb2.GetStateResponse(state=stateservice_pb2.WalletState.ValueType(self._served.state))
