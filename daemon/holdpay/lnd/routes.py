"""What LND knows of a way to a payee. Nothing is sent for it, and mission control is read, never reset.

How QueryRoutes says that there is none: code UNKNOWN with the text of the path finder's error (lnd:
routing/payment_session.go noRouteError, the same in 0.18.5 and 0.21). It looks for one part of a payment; LND itself
would halve an amount that does not fit. Everything else that goes wrong (a right that the macaroon lacks, lnd's own
trouble) makes its answer unknown, and is never an error of the order that is looked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay.core.lightning import NodeIdentity
from holdpay.core.routes import OfflinePeer, Outbound, PayeeNode, Route, RouteLook, RouteQuery
from holdpay.errors import LndDenied, LndError, LndRefused
from holdpay.lnd.connection import Connection
from holdpay.lnd.convert import alias_of, sendable_msat, to_route, to_routes_request
from holdpay.lnd.link import Link

T = TypeVar("T")

LOOK_S: Final = 8.0
"""For all of it: an order that is given up, or a client that asks, waits as long at most."""
_NO_ROUTE: Final = (
    "unable to find a path to destination",
    "insufficient local balance",
    "unknown required feature",
    "missing dependent feature",
)
_NOT_IN_GRAPH: Final = "unable to find node"


async def look_for_route(link: Link, query: RouteQuery, payer: NodeIdentity) -> RouteLook:
    """See the port. Raises nothing."""
    look = _Look(link, query)
    try:
        async with asyncio.timeout(LOOK_S):
            connection = await link.verified(afresh=True)
            info = connection.info
            if info is not None and connection.identity == payer:
                await look.ask(info.block_height)
    except TimeoutError:
        look.unknown.append(f"lnd did not say all within {LOOK_S:g} s")
    except LndError as error:
        look.unknown.append(error.message.rstrip("."))
    if link.current.identity != payer:
        return RouteLook(is_route_known=False, unknown=("another node answers at lnd.address, or none",))
    return look.found()


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One question to QueryRoutes, and where its answer goes."""

    name: str
    within_fee: bool
    within_lock: bool
    avoids_failed: bool


_QUESTIONS: Final = (
    _Wanted("route", within_fee=True, within_lock=True, avoids_failed=True),
    _Wanted("dearer", within_fee=False, within_lock=True, avoids_failed=True),
    _Wanted("longer", within_fee=False, within_lock=False, avoids_failed=True),
    _Wanted("avoided", within_fee=True, within_lock=True, avoids_failed=False),
)
"""Until one finds a route."""


class _Look:
    """What is known so far."""

    def __init__(self, link: Link, query: RouteQuery) -> None:
        self._link = link
        self._query = query
        self._is_route_known = False
        self._routes: dict[str, Route] = {}
        self._outbound: Outbound | None = None
        self._payee: PayeeNode | None = None
        self.unknown: list[str] = []

    def found(self) -> RouteLook:
        return RouteLook(
            is_route_known=self._is_route_known,
            route=self._routes.get("route"),
            dearer=self._routes.get("dearer"),
            longer=self._routes.get("longer"),
            avoided=self._routes.get("avoided"),
            outbound=self._outbound,
            payee=self._payee,
            unknown=tuple(self.unknown),
        )

    async def ask(self, block_height: int) -> None:
        """The quick answers first: the time may be over before a large graph was searched."""
        if self._query.is_route_enough:
            await self._or_unknown("QueryRoutes", self._ask_routes(block_height, _QUESTIONS[:1]))
            found = self._routes.get("route")
            if found is not None and found.parts == 1:
                return  # of several parts nobody knows whether they fit together
        await self._or_unknown("ListChannels", self._ask_channels())
        await self._or_unknown("GetNodeInfo", self._ask_payee())
        await self._or_unknown("QueryRoutes", self._ask_routes(block_height, _QUESTIONS))

    async def _or_unknown(self, method: str, asking: Awaitable[None]) -> None:
        try:
            await asking
        except LndDenied:
            self.unknown.append(f"the macaroon does not allow {method}")
        except LndRefused as error:
            self.unknown.append(f"lnd refused {method} ({error.message.rstrip('.')})")

    async def _ask_channels(self) -> None:
        listed = (await self._link.ask_patiently(Connection.channels)).channels
        active = [sendable_msat(channel) for channel in listed if channel.active]
        self._outbound = Outbound(
            largest_msat=max(active, default=0),
            total_msat=sum(active),
            channel_count=len(listed),
            offline=_offline(listed),
        )

    async def _ask_payee(self) -> None:
        try:
            info = await self._link.ask_patiently(partial(_node_info, self._query.payee))
        except LndRefused as error:
            if _NOT_IN_GRAPH not in error.message:
                raise
            self._payee = PayeeNode(is_in_graph=False)
        else:
            self._payee = PayeeNode(is_in_graph=True, alias=info.node.alias, channel_count=info.num_channels)

    async def _ask_routes(self, block_height: int, questions: Sequence[_Wanted]) -> None:
        for wanted in questions:
            if wanted.name == "avoided" and not self._query.avoids_failed:
                continue
            found = await self._in_parts(wanted, block_height)
            if found is not None:
                self._routes[wanted.name] = found
                break
        self._is_route_known = True

    async def _in_parts(self, wanted: _Wanted, block_height: int) -> Route | None:
        """For the whole amount, or for a half, a quarter ... of it as often, as LND would split it."""
        parts = 1
        while parts <= self._query.max_parts:
            found = await self._one_route(wanted, parts, block_height)
            if found is not None:
                return found
            parts *= 2
        return None

    async def _one_route(self, wanted: _Wanted, parts: int, block_height: int) -> Route | None:
        query, limit_msat = self._query, self._query.fee_limit_msat
        part = replace(
            query,
            amount_msat=-(-query.amount_msat // parts),
            fee_limit_msat=None if limit_msat is None else limit_msat // parts,
        )
        request = to_routes_request(
            part,
            within_fee=wanted.within_fee,
            within_lock=wanted.within_lock,
            avoids_failed=wanted.avoids_failed and query.avoids_failed,
        )
        try:
            reply = await self._link.ask_patiently(partial(_routes, request))
        except LndRefused as error:
            if not any(text in error.message for text in _NO_ROUTE):
                raise
            return None
        return to_route(reply.routes[0], parts, block_height) if reply.routes else None


def _offline(listed: Sequence[lnrpc.Channel]) -> tuple[OfflinePeer, ...]:
    """Those who could send most first."""
    present = {channel.remote_pubkey for channel in listed if channel.active}
    away: dict[str, list[lnrpc.Channel]] = {}
    for channel in listed:
        if channel.remote_pubkey not in present:
            away.setdefault(channel.remote_pubkey, []).append(channel)
    peers = [
        OfflinePeer(
            pubkey=pubkey,
            alias=alias_of(channels[0]),
            largest_msat=max(map(sendable_msat, channels)),
            total_msat=sum(map(sendable_msat, channels)),
        )
        for pubkey, channels in away.items()
    ]
    return tuple(sorted(peers, key=lambda peer: -peer.total_msat))


async def _routes(request: lnrpc.QueryRoutesRequest, connection: Connection) -> lnrpc.QueryRoutesResponse:
    return await connection.routes(request)


async def _node_info(pubkey: str, connection: Connection) -> lnrpc.NodeInfo:
    return await connection.node_info(pubkey)
