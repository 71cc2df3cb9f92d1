"""The user's LND, as the engine sees it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from holdpay.background import Background
from holdpay.core.lightning import DispatchSpec, HtlcLook, Invoice, LndMessage, Lost, NodeIdentity
from holdpay.errors import LndError, LndUnavailable, LndWrongNode
from holdpay.lnd.channels import look_for_htlc
from holdpay.lnd.convert import to_invoice
from holdpay.lnd.link import Link
from holdpay.lnd.monitor import Monitor
from holdpay.lnd.settings import LndSettings
from holdpay.lnd.streams import follow, judge_send, judge_track
from holdpay.ports import Clock, NodeState, NodeStatus

MONITOR_SILENT_S: Final = 180
"""A look makes up to seven calls of some seconds, and waits before the next."""


class LndNode:
    """``ports.LightningNode`` over gRPC. ``start`` it in the event loop, ``close`` it at the end.

    Whoever is about to send, track or decode passes a gate first: the connection stands, and the node behind it has
    said who it is since it stands.
    """

    def __init__(self, settings: LndSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._monitor = Monitor(settings, clock)
        self._link_or_none: Link | None = None
        self._watching: Background | None = None

    async def start(self) -> None:
        """Begins to look for lnd in the background; does not wait for it. Raises ConfigError for the certificate."""
        self._link_or_none = Link(self._settings, self._clock, self._monitor.wake, self._monitor.deny)
        self._watching = Background(
            "lnd monitor", lambda: self._monitor.turn(self._link), MONITOR_SILENT_S, self._clock
        )

    async def close(self) -> None:
        """Ends every call; payments go on in lnd. Streams that are being read end with ``Lost``."""
        if self._watching is not None:
            await self._watching.stop()
        if self._link_or_none is not None:
            await self._link.close()

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
        """Of the node behind the connection that stands now; None while none stands."""
        return None if self._link_or_none is None else self._link.current.identity

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
        """SendPaymentV2 from ``payer``: see the port. Raises LndWrongNode before anything is sent."""
        try:
            connection = await self._link.verified()
        except LndError as error:
            yield Lost(error.message)
            return
        # From here to the start of the call nothing may wait: the node could change.
        node = connection.identity
        if node is not None and node != payer:
            raise LndWrongNode
        if node is None:
            yield Lost("The connection to lnd broke before anything was sent.")
            return
        stream = follow(self._link, connection, lambda: connection.send(spec), is_live=True, judge=judge_send)
        async with aclosing(stream):
            async for message in stream:
                yield message

    async def track(self, payment_hash: str, payer: NodeIdentity) -> AsyncGenerator[LndMessage, None]:
        """GetInfo, then TrackPaymentV2: see the port. Its first message may not be LND's first word."""
        try:
            connection = await self._link.verified(afresh=True)
        except LndError as error:
            yield Lost(error.message)
            return
        if connection.identity != payer:
            yield Lost(LndWrongNode().message)
            return
        stream = follow(
            self._link, connection, lambda: connection.track(payment_hash), is_live=False, judge=judge_track
        )
        async with aclosing(stream):
            async for message in stream:
                yield message

    async def look_for_htlc(self, payment_hash: str, payer: NodeIdentity) -> HtlcLook:
        """See the port."""
        return await look_for_htlc(self._link, payment_hash, payer)

    @property
    def _link(self) -> Link:
        assert self._link_or_none is not None, "start() comes first"
        return self._link_or_none
