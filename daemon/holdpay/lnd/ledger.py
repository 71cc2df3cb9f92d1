"""What LND has on record, for the audit. It reads, and has no way to pay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from types import TracebackType
from typing import Final

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay.core.lightning import HtlcLook, Invoice, LndMessage, Lost, NodeIdentity, OpenChannel, StoredPayment
from holdpay.errors import LndError, LndUnavailable
from holdpay.lnd.channels import look_for_htlc
from holdpay.lnd.connection import Connection
from holdpay.lnd.convert import to_channel, to_invoice, to_stored
from holdpay.lnd.link import Link
from holdpay.lnd.settings import LndSettings
from holdpay.lnd.streams import first_word, judge_track
from holdpay.ports import Clock

PAGE_SIZE: Final = 500


class LndLedger:
    """An async context manager, for one look. Raises ConfigError for the certificate on entering.

    All that it says is of one node, ``identity``: if another one answers meanwhile, LndUnavailable is raised.
    """

    def __init__(self, settings: LndSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._identity: NodeIdentity | None = None

    async def __aenter__(self) -> LndLedger:
        self._link = Link(self._settings, self._clock, on_break=lambda: None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._link.close()

    async def identity(self) -> NodeIdentity:
        """The node that answers. Raises LndError's children."""
        await self._verified()
        assert self._identity is not None
        return self._identity

    async def block_height(self) -> int:
        """Of the chain, as lnd sees it. Raises LndError's children."""
        info = (await self._verified()).info
        if info is None:
            raise LndUnavailable("The connection to lnd broke while it was read. Run this again.")
        return info.block_height

    async def payments(self, created_from_ms: int = 0) -> AsyncIterator[StoredPayment]:
        """Every payment since then, oldest first, also those that did not succeed. Raises LndError's children."""
        after_index = 0
        while True:
            await self._verified()
            page = await self._link.ask_patiently(partial(_page, created_from_ms // 1000, after_index))
            for payment in page.payments:
                yield to_stored(payment)
            if page.last_index_offset <= after_index:
                return
            after_index = page.last_index_offset

    async def channels(self) -> tuple[OpenChannel, ...]:
        """The node's channels; those that are being closed are not among them. Raises LndError's children."""
        await self._verified()
        reply = await self._link.ask_patiently(lambda connection: connection.channels())
        return tuple(to_channel(channel) for channel in reply.channels)

    async def look_for_htlc(self, payment_hash: str) -> HtlcLook:
        """What the channels say of a payment hash (hex), and the block height. Raises LndError's children."""
        return await look_for_htlc(self._link, payment_hash, await self.identity())

    async def payment(self, payment_hash: str) -> LndMessage:
        """The first word of TrackPaymentV2 about a hash (hex): a snapshot, ``NotKnown`` or ``Lost``. Raises nothing."""
        try:
            connection = await self._verified()
        except LndError as error:
            return Lost(error.message)
        return await first_word(
            self._link,
            connection,
            lambda: connection.track(payment_hash),
            is_live=False,
            judge=judge_track,
            timeout_s=self._settings.call_timeout_s,
        )

    async def decode(self, payreq: str) -> Invoice:
        """DecodePayReq. Raises LndRefused if the text is not an invoice of its network, and LndError's others."""
        await self._verified()
        return to_invoice(await self._link.ask_patiently(lambda connection: connection.decode(payreq)))

    async def _verified(self) -> Connection:
        connection = await self._link.verified()
        identity = connection.identity
        self._identity = self._identity or identity
        if identity is None or identity != self._identity:
            raise LndUnavailable("The connection to lnd changed while it was read. Run this again.")
        return connection


async def _page(created_from_s: int, after_index: int, connection: Connection) -> lnrpc.ListPaymentsResponse:
    return await connection.payments(created_from_s, after_index, PAGE_SIZE)
