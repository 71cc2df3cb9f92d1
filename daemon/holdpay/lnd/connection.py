"""One pair of channels to lnd, and which node is behind them right now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import grpc
from grpc import aio

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay._pb.lnd import stateservice_pb2 as staterpc
from holdpay._pb.lnd.lightning_pb2_grpc import LightningStub
from holdpay._pb.lnd.router_pb2_grpc import RouterStub
from holdpay._pb.lnd.stateservice_pb2_grpc import StateStub
from holdpay.core.lightning import DispatchSpec, NodeIdentity
from holdpay.lnd.channel import macaroon_metadata, open_channel
from holdpay.lnd.convert import to_identity, to_send_request, to_track_all_request, to_track_request
from holdpay.lnd.settings import LndSettings

if TYPE_CHECKING:
    from holdpay._pb.lnd.lightning_pb2_grpc import LightningAsyncStub
    from holdpay._pb.lnd.router_pb2_grpc import RouterAsyncStub
    from holdpay._pb.lnd.stateservice_pb2_grpc import StateAsyncStub

PaymentCall: TypeAlias = "aio.UnaryStreamCall[Any, lnrpc.Payment]"

_READY: Final = grpc.ChannelConnectivity.READY
_LIST_TIMEOUT_S: Final = 60
"""A page of payments, or all channels, may take a busy node long."""


class _InUse:
    def __init__(self) -> None:
        self.idle = asyncio.Event()
        self.idle.set()
        self._users = 0

    def __enter__(self) -> None:
        self._users += 1
        self.idle.clear()

    def __exit__(self, *error: object) -> None:
        self._users -= 1
        if not self._users:
            self.idle.set()


class Connection:
    """A channel for everything about money, and one of its own for lnd's state, which answers while lnd is locked.

    gRPC reconnects behind the caller's back, and another node may answer then. So what is known of the node is
    forgotten at every change of the channel's state, and a call that was started on the word of the connection before
    is cancelled unless LND has answered it already.
    """

    def __init__(self, settings: LndSettings, certificates: bytes, on_break: Callable[[], None]) -> None:
        self.certificates = certificates
        self._metadata = macaroon_metadata(settings)
        self._timeout_s = settings.call_timeout_s
        self._channel = open_channel(settings, certificates)
        self._state_channel = open_channel(settings, certificates)
        self._lightning: LightningAsyncStub = LightningStub(self._channel)
        self._router: RouterAsyncStub = RouterStub(self._channel)
        self._state: StateAsyncStub = StateStub(self._state_channel)
        self._on_break = on_break
        self._info: lnrpc.GetInfoResponse | None = None
        self._identity: NodeIdentity | None = None
        """As ``_info`` says it."""
        self._changes = 0
        self._unanswered: set[PaymentCall] = set()
        self.in_use = _InUse()
        """A context; while anyone is inside, ``close_when_idle`` waits."""
        self._watch = asyncio.create_task(self._watch_state(), name="lnd connection")

    @property
    def is_watched(self) -> bool:
        """Whether its changes are noticed."""
        return not self._watch.done()

    @property
    def info(self) -> lnrpc.GetInfoResponse | None:
        """What the node behind the standing connection said of itself; None if none stands, or it did not say yet."""
        return self._info if self.is_watched and self._channel.get_state() is _READY else None

    @property
    def identity(self) -> NodeIdentity | None:
        """The node behind the standing connection; None as for ``info``."""
        return None if self.info is None else self._identity

    async def get_info(self) -> None:
        """Asks for ``info``, and keeps it if the connection stayed the same meanwhile. Raises gRPC's errors."""
        changes = self._changes
        info = await self._lightning.GetInfo(lnrpc.GetInfoRequest(), metadata=self._metadata, timeout=self._timeout_s)
        if changes == self._changes:
            self._info, self._identity = info, to_identity(info)

    async def decode(self, payreq: str) -> lnrpc.PayReq:
        """DecodePayReq. Raises gRPC's errors."""
        request = lnrpc.PayReqString(pay_req=payreq)
        return await self._lightning.DecodePayReq(request, metadata=self._metadata, timeout=self._timeout_s)

    async def balance(self) -> lnrpc.ChannelBalanceResponse:
        """ChannelBalance. Raises gRPC's errors."""
        request = lnrpc.ChannelBalanceRequest()
        return await self._lightning.ChannelBalance(request, metadata=self._metadata, timeout=self._timeout_s)

    async def payments(self, created_from_s: int, after_index: int, count: int) -> lnrpc.ListPaymentsResponse:
        """One page of ListPayments, oldest first, whatever became of them. Raises gRPC's errors."""
        request = lnrpc.ListPaymentsRequest(
            include_incomplete=True, index_offset=after_index, max_payments=count, creation_date_start=created_from_s
        )
        return await self._lightning.ListPayments(request, metadata=self._metadata, timeout=_LIST_TIMEOUT_S)

    async def channels(self) -> lnrpc.ListChannelsResponse:
        """ListChannels, with the names of the peers. Raises gRPC's errors."""
        request = lnrpc.ListChannelsRequest(peer_alias_lookup=True)
        return await self._lightning.ListChannels(request, metadata=self._metadata, timeout=_LIST_TIMEOUT_S)

    async def pending_channels(self) -> lnrpc.PendingChannelsResponse:
        """PendingChannels. Raises gRPC's errors."""
        request = lnrpc.PendingChannelsRequest()
        return await self._lightning.PendingChannels(request, metadata=self._metadata, timeout=_LIST_TIMEOUT_S)

    async def routes(self, request: lnrpc.QueryRoutesRequest) -> lnrpc.QueryRoutesResponse:
        """QueryRoutes. Raises gRPC's errors."""
        return await self._lightning.QueryRoutes(request, metadata=self._metadata, timeout=self._timeout_s)

    async def node_info(self, pubkey: str) -> lnrpc.NodeInfo:
        """GetNodeInfo, without the node's channels. Raises gRPC's errors."""
        request = lnrpc.NodeInfoRequest(pub_key=pubkey)
        return await self._lightning.GetNodeInfo(request, metadata=self._metadata, timeout=self._timeout_s)

    async def bake(self, request: lnrpc.BakeMacaroonRequest) -> lnrpc.BakeMacaroonResponse:
        """BakeMacaroon. Raises gRPC's errors."""
        return await self._lightning.BakeMacaroon(request, metadata=self._metadata, timeout=self._timeout_s)

    async def wallet_state(self) -> int:
        """State.GetState, which needs no macaroon. Raises gRPC's errors."""
        return (await self._state.GetState(staterpc.GetStateRequest(), timeout=self._timeout_s)).state

    def send(self, spec: DispatchSpec) -> PaymentCall:
        """Starts SendPaymentV2, without a deadline."""
        return self._router.SendPaymentV2(to_send_request(spec), metadata=self._metadata)

    def track(self, payment_hash: str) -> PaymentCall:
        """Starts TrackPaymentV2, without a deadline."""
        return self._router.TrackPaymentV2(to_track_request(payment_hash), metadata=self._metadata)

    def track_all(self) -> PaymentCall:
        """Starts TrackPayments, without a deadline."""
        return self._router.TrackPayments(to_track_all_request(), metadata=self._metadata)

    def guard(self, call: PaymentCall) -> None:
        """Has ``call`` cancelled if the connection changes before ``release``: it would go to whoever answers next."""
        self._unanswered.add(call)

    def release(self, call: PaymentCall) -> None:
        """LND has answered the call, or it is over."""
        self._unanswered.discard(call)

    async def close_when_idle(self) -> None:
        """Lets the streams end, then closes."""
        await self.in_use.idle.wait()
        await self.close()

    async def close(self) -> None:
        """Ends every call. A payment goes on without its stream."""
        self._watch.cancel()
        await asyncio.wait({self._watch})
        await self._channel.close()
        await self._state_channel.close()

    async def _watch_state(self) -> None:
        while True:
            state = self._channel.get_state()
            await self._channel.wait_for_state_change(state)
            self._changes += 1
            self._info = None
            for call in [*self._unanswered]:
                call.cancel()
            if state is _READY:
                self._on_break()
