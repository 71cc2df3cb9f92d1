"""What lnd says of itself and of its ways to a payee, for `holdpayd doctor`. It reads, and has no way to pay."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay.core.lightning import NodeIdentity
from holdpay.core.routes import RouteLook, RouteQuery
from holdpay.errors import LndDenied, LndRefused, LndUnavailable
from holdpay.lnd.connection import Connection
from holdpay.lnd.convert import sendable_msat, to_identity
from holdpay.lnd.link import Link
from holdpay.lnd.routes import look_for_route
from holdpay.lnd.settings import LndSettings
from holdpay.lnd.version import too_old_text, version_warning
from holdpay.ports import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSeen:
    """GetInfo."""

    pubkey: str
    network: str
    alias: str
    version: str
    too_old: str
    """Why this release must not pay, in two sentences. Empty: it may."""
    version_warning: str
    """The same of a release that was not tried."""
    block_height: int
    block_at_ms: int
    """By the clock of whoever mined it."""
    synced_to_chain: bool
    peer_count: int

    @property
    def identity(self) -> NodeIdentity:
        return NodeIdentity(self.pubkey, self.network)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sendable:
    """What the channels could send, without what must stay in them."""

    total_msat: int
    """Over those whose peer is there."""
    away_msat: int
    """Over those whose peer is not."""
    channel_count: int
    away_count: int


class LndExam:
    """An async context manager, for one look. Raises ConfigError for the certificate on entering."""

    def __init__(self, settings: LndSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    async def __aenter__(self) -> LndExam:
        self._link = Link(self._settings, self._clock, on_break=lambda: None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._link.close()

    async def node(self) -> NodeSeen:
        """Who answers. Raises LndError's children."""
        connection = await self._link.verified(afresh=True)
        info = connection.info
        if info is None:
            raise LndUnavailable("The connection to lnd broke while it answered. Run this again.")
        return NodeSeen(
            pubkey=info.identity_pubkey,
            network=to_identity(info).network,
            alias=info.alias,
            version=info.version,
            too_old=too_old_text(info.version),
            version_warning=version_warning(info.version),
            block_height=info.block_height,
            block_at_ms=info.best_header_timestamp * 1000,
            synced_to_chain=info.synced_to_chain,
            peer_count=info.num_peers,
        )

    async def sendable(self) -> Sendable:
        """Raises LndError's children."""
        channels = (await self._link.ask_patiently(Connection.channels)).channels
        away = [sendable_msat(channel) for channel in channels if not channel.active]
        return Sendable(
            total_msat=sum(sendable_msat(channel) for channel in channels if channel.active),
            away_msat=sum(away),
            channel_count=len(channels),
            away_count=len(away),
        )

    async def route(self, query: RouteQuery, payer: NodeIdentity) -> RouteLook:
        """See ``ports.LightningNode.look_for_route``. Raises nothing."""
        return await look_for_route(self._link, query, payer)

    async def denied(self, methods: Iterable[str]) -> tuple[str, ...]:
        """Those of ``methods`` (names of ``macaroon.RIGHTS``) that lnd denies this macaroon.

        Only those of ``TRIED`` are asked for, in a way that reads little and changes nothing. Raises LndError's
        children if lnd goes away meanwhile.
        """
        return tuple([method for method in methods if method in TRIED and await self._is_denied(method)])

    async def _is_denied(self, method: str) -> bool:
        try:
            await self._link.ask_patiently(_QUESTIONS[method])
        except LndDenied:
            return True
        except LndRefused:
            pass  # it was let in, and its nonsense was not
        return False


_NOBODY: Final = "02" + 64 * "0"
_QUESTIONS: Final[dict[str, Callable[[Connection], Awaitable[Any]]]] = {
    "GetInfo": Connection.get_info,
    "DecodePayReq": lambda connection: connection.decode("lnbc"),
    "ChannelBalance": Connection.balance,
    "ListChannels": Connection.channels,
    "PendingChannels": Connection.pending_channels,
    "ListPayments": lambda connection: connection.payments(0, 0, 1),
    "GetNodeInfo": lambda connection: connection.node_info(_NOBODY),
    "QueryRoutes": lambda connection: connection.routes(lnrpc.QueryRoutesRequest(pub_key=_NOBODY)),
}
TRIED: Final = frozenset(_QUESTIONS)
"""Not tried: to pay, and the streams."""
