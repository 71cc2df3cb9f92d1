"""The user's LND, as the engine sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Final

from holdpay.background import Background
from holdpay.core.lightning import DispatchSpec, HtlcLook, Invoice, LndMessage, Lost, NodeIdentity, OpenChannel
from holdpay.core.routes import RouteLook, RouteQuery
from holdpay.errors import LndError, LndUnavailable, LndWrongNode
from holdpay.lnd.channels import look_for_htlc, open_channels
from holdpay.lnd.convert import to_invoice
from holdpay.lnd.hub import Hub
from holdpay.lnd.link import Link
from holdpay.lnd.monitor import Monitor
from holdpay.lnd.routes import look_for_route
from holdpay.lnd.settings import LndSettings
from holdpay.lnd.streams import LndRouter, first_word, judge_send
from holdpay.ports import Clock, NodeState, NodeStatus

MONITOR_SILENT_S: Final = 180
"""A look makes up to seven calls of some seconds, and waits before the next."""
SENDS_AT_ONCE: Final = 32
"""Streams of SendPaymentV2; each ends with its first word, and the payment goes on. An order whose send waits here for
longer than its first word may take loses a dispatch, so they are many; with all others fewer than a proxy's 100."""


class LndNode:
    """``ports.LightningNode`` over gRPC. ``start`` it in the event loop, ``close`` it at the end.

    Whoever is about to send, track or decode passes a gate first: the connection stands, and the node behind it has
    said who it is since it stands.
    """

    def __init__(self, settings: LndSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._monitor = Monitor(settings, clock, self._looked)
        self._sending = asyncio.Semaphore(SENDS_AT_ONCE)
        self._link_or_none: Link | None = None
        self._stream_link: Link | None = None
        self._router: LndRouter | None = None
        self._hub_or_none: Hub | None = None
        self._watching: Background | None = None

    async def start(self) -> None:
        """Begins to look for lnd in the background; does not wait for it. Raises ConfigError for the certificate."""
        link = Link(self._settings, self._clock, self._monitor.wake, self._monitor.deny)
        self._stream_link = Link(self._settings, self._clock, lambda: None, self._monitor.deny)
        self._link_or_none = link
        self._router = LndRouter(link, self._stream_link)
        self._hub_or_none = Hub(self._router)
        self._hub.start()
        self._watching = Background(
            "lnd monitor", lambda: self._monitor.turn(self._link), MONITOR_SILENT_S, self._clock
        )

    async def close(self) -> None:
        """Ends every call; payments go on in lnd. Streams that are being read end with ``Lost``."""
        if self._watching is not None:
            await self._watching.stop()
        if self._hub_or_none is not None:
            await self._hub.close()
        if self._router is not None:
            await self._router.close()
        for link in (self._link_or_none, self._stream_link):
            if link is not None:
                await link.close()

    @property
    def status(self) -> NodeStatus:
        """The latest look; its ``detail`` is a warning if the state is READY."""
        seen = self._monitor.status
        if self._watching is not None and not self._watching.is_well:
            detail = "holdpayd cannot look at lnd because of a defect of its own. See its log, and please report it."
            return replace(seen, state=NodeState.UNREACHABLE, detail=detail)
        return seen

    @property
    def is_watched(self) -> bool:
        """Whether the looks at lnd go on."""
        return self._watching is not None and self._watching.is_alive

    @property
    def identity(self) -> NodeIdentity | None:
        """Of the node behind the connections that stand now; None while one of them does not."""
        if self._link_or_none is None:
            return None
        identity = self._link.current.identity
        return identity if identity == self._hub.node else None

    async def decode(self, payreq: str) -> tuple[Invoice, NodeIdentity]:
        """DecodePayReq, and the node that did it.

        Raises LndRefused if the text is not an invoice of its network, LndDenied, LndUnavailable.
        """
        node = (await self._link.verified()).identity
        decoded = await self._link.ask_patiently(lambda connection: connection.decode(payreq), is_for_paying=True)
        if node is None or (await self._link.verified()).identity != node:
            raise LndUnavailable("The connection to lnd changed while lnd read the invoice. Try again.")
        return to_invoice(decoded), node

    async def send(self, spec: DispatchSpec, payer: NodeIdentity) -> AsyncGenerator[LndMessage, None]:
        """SendPaymentV2 from ``payer``: see the port. Its own stream is read for LND's first word only; the others come
        from the hub. Raises LndWrongNode before anything is sent."""
        try:
            follower = await self._hub.follow(spec.payment_hash, payer, is_sending=True)
        except LndUnavailable as error:
            yield Lost(error.message)
            return
        try:
            self._hub.sent(follower, await self._send(spec, payer))
            async for message in follower.messages():
                yield message
        finally:
            self._hub.leave(follower)

    async def _send(self, spec: DispatchSpec, payer: NodeIdentity) -> LndMessage:
        async with self._sending:
            try:
                connection = await self._link.verified()
            except LndError as error:
                return Lost(error.message)
            # From here to the start of the call nothing may wait: the node could change.
            node = connection.identity
            if node is not None and node != payer:
                raise LndWrongNode
            if node is None:
                return Lost("The connection to lnd broke before anything was sent.")
            return await first_word(
                self._link, connection, lambda: connection.send(spec), is_live=True, judge=judge_send
            )

    async def track(self, payment_hash: str, payer: NodeIdentity) -> AsyncGenerator[LndMessage, None]:
        """GetInfo and TrackPaymentV2 for LND's present word, then the hub: see the port."""
        try:
            follower = await self._hub.follow(payment_hash, payer)
        except LndError as error:
            yield Lost(error.message)
            return
        try:
            async for message in follower.messages():
                yield message
        finally:
            self._hub.leave(follower)

    async def until_back(self, payer: NodeIdentity) -> None:
        """See the port."""
        await self._hub.gate.passed(payer)

    async def look_for_htlc(self, payment_hash: str, payer: NodeIdentity) -> HtlcLook:
        """See the port."""
        return await look_for_htlc(self._link, payment_hash, payer)

    async def look_for_route(self, query: RouteQuery, payer: NodeIdentity) -> RouteLook:
        """See the port."""
        return await look_for_route(self._link, query, payer)

    async def channels(self, payer: NodeIdentity) -> tuple[OpenChannel, ...]:
        """See the port."""
        return await open_channels(self._link, payer)

    def _looked(self, answers: bool, why_not: str) -> None:
        if self._hub_or_none is not None:
            self._hub.looked(answers=answers, why_not=why_not)

    @property
    def _hub(self) -> Hub:
        assert self._hub_or_none is not None, "start() comes first"
        return self._hub_or_none

    @property
    def _link(self) -> Link:
        assert self._link_or_none is not None, "start() comes first"
        return self._link_or_none
