"""Looks at the node's channels while money is out: one ListChannels for all holds, now and then and at each block."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from holdpay.core.guard import MINUTES_PER_BLOCK, HtlcSight, Sight, findings, level_of
from holdpay.core.lightning import Attempt, NodeIdentity, OpenChannel, short_channel_id
from holdpay.core.model import Order, Payment
from holdpay.core.states import HtlcState
from holdpay.errors import LndError

if TYPE_CHECKING:
    from holdpay.engine.engine import Engine

LOOK_EVERY_S: Final = 60
"""Where the configuration says nothing else: ``guard.look_every_s``."""
JUDGED_AT_ONCE: Final = 100
"""Orders in one turn of the event loop, which they hold up for some milliseconds."""
STALE_S: Final = 2 * MINUTES_PER_BLOCK * 60
"""Without a word of lnd's for so long, blocks are counted by the clock."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Look:
    """What the node's channels were at one time."""

    channels: dict[int, OpenChannel]
    offers: dict[str, list[tuple[OpenChannel, int]]] = field(default_factory=dict)
    """By payment hash: the channels that carry HTLCs of it, and at which height each expires."""

    @classmethod
    def of(cls, channels: Iterable[OpenChannel]) -> _Look:
        look = cls({channel.chan_id: channel for channel in channels})
        for channel in look.channels.values():
            for htlc in channel.offered:
                look.offers.setdefault(htlc.payment_hash, []).append((channel, htlc.expiry_height))
        return look


class HoldGuard:
    """What is seen of the HTLCs that are out. It does not survive the process: the next one looks at once."""

    def __init__(self, engine: Engine, look_every_s: float) -> None:
        self._engine = engine
        self._look_every_ms = int(look_every_s * 1000)
        self._look: _Look | None = None
        self._looked_at_ms: int | None = None
        self._looked_height = 0
        self._offline_since_ms: dict[str, int] = {}
        """By channel, of those whose peer was offline at the latest look that found out."""
        self._missing_since_ms: dict[str, int] = {}
        """By order, of those that no open channel carried at the latest look that found out."""
        self._trouble = ""

    async def channels(self, payer: NodeIdentity) -> tuple[OpenChannel, ...]:
        """Of the node, as of the latest look, or of a look right now if there was none. Raises LndError's children."""
        if self._look is None:
            self._look = _Look.of(await self._engine.node.channels(payer))
        return tuple(self._look.channels.values())

    async def look(self) -> None:
        """If a look is due: one ListChannels; then the levels of all holds. Raises nothing of lnd's."""
        engine, now_ms = self._engine, self._engine.clock.now_ms()
        if not engine.tally.out:
            self._look, self._looked_at_ms = None, None
            self._offline_since_ms.clear()
            self._missing_since_ms.clear()
            return
        height = engine.node.status.block_height
        if not self._is_due(now_ms, height):
            return
        self._looked_at_ms, self._looked_height = now_ms, height
        payer = engine.node.identity
        if payer is None or not engine.may_pay_from(payer):
            self._look = None
        else:
            await self._look_at_channels(payer)
        await self._judge()

    def _is_due(self, now_ms: int, height: int) -> bool:
        if self._looked_at_ms is None or height != self._looked_height:
            return True
        # A look that lies ahead is of a wall clock that was set back since.
        return not 0 <= now_ms - self._looked_at_ms < self._look_every_ms

    async def _look_at_channels(self, payer: NodeIdentity) -> None:
        try:
            self._look = _Look.of(await self._engine.node.channels(payer))
        except LndError as error:
            if error.message != self._trouble:
                log.warning("lnd's channels cannot be looked at; peers of holds are not known", error=error.message)
            self._look, self._trouble = None, error.message
            return
        self._trouble = ""
        now_ms = self._engine.clock.now_ms()
        away = [short_channel_id(chan_id) for chan_id, channel in self._look.channels.items() if not channel.is_active]
        self._offline_since_ms = {channel: self._offline_since_ms.get(channel, now_ms) for channel in away}

    async def _judge(self) -> None:
        """An order whose level or findings are others now is looked at in the next pass, which journals and logs it."""
        engine, now_ms = self._engine, self._engine.clock.now_ms()
        if self._look is not None:
            out = engine.orders_out(engine.tally.out)
            missing = [order.id for order in out if self._is_missing(order, self._look)]
            self._missing_since_ms = {order_id: self._missing_since_ms.get(order_id, now_ms) for order_id in missing}
        for number, order in enumerate(engine.orders_out(engine.tally.out)):
            assert order.payment is not None
            found = findings(order, engine.policy, now_ms, self.sight(order))
            if level_of(found) is not order.payment.hold_level or engine.is_news(order.id, found):
                engine.look_again(order.id)
            if number % JUDGED_AT_ONCE == JUDGED_AT_ONCE - 1:
                await asyncio.sleep(0)

    def _is_missing(self, order: Order, look: _Look) -> bool:
        payment = order.payment
        if payment is None or payment.htlc is not HtlcState.IN_FLIGHT or not self._engine.ways.attempts(order.id):
            return False
        return payment.payment_hash not in look.offers

    def sight(self, order: Order) -> Sight:
        """Of an order, as of the latest look."""
        height, is_estimate = self._block_height()
        payment = order.payment
        if payment is None or not order.is_money_out:
            return Sight(block_height=height, is_estimate=is_estimate)
        return Sight(
            block_height=height,
            is_estimate=is_estimate,
            htlcs=self._htlcs(order.id, payment),
            missing_since_ms=self._missing_since_ms.get(order.id),
        )

    def _block_height(self) -> tuple[int, bool]:
        """lnd's latest; where it does not answer for long, with the blocks that have come since on average."""
        status = self._engine.node.status
        if status.answered_at_ms is None or not status.block_height:
            return status.block_height, False
        silent_ms = self._engine.clock.now_ms() - status.answered_at_ms
        if silent_ms < STALE_S * 1000:
            return status.block_height, False
        return status.block_height + silent_ms // (MINUTES_PER_BLOCK * 60_000), True

    def _htlcs(self, order_id: str, payment: Payment) -> tuple[HtlcSight, ...]:
        offers = [] if self._look is None else self._look.offers.get(payment.payment_hash, [])
        found = [self._on_channel(channel, expiry_height) for channel, expiry_height in offers]
        attempts = self._engine.ways.attempts(order_id)
        if len(found) < len(attempts):
            seen = {htlc.channel for htlc in found}
            found += [self._left(attempt) for attempt in attempts if attempt.first_channel not in seen]
        return tuple(found)

    def _on_channel(self, channel: OpenChannel, expiry_height: int) -> HtlcSight:
        return HtlcSight(
            channel=short_channel_id(channel.chan_id),
            peer_pubkey=channel.peer_pubkey,
            peer_alias=channel.peer_alias,
            expiry_height=expiry_height,
            is_on_channel=True,
            is_online=channel.is_active,
            offline_since_ms=self._offline_since_ms.get(short_channel_id(channel.chan_id)),
        )

    def _left(self, attempt: Attempt) -> HtlcSight:
        """By LND's word for the attempt; the latest look did not find it. A peer that was offline stays so until a look
        says something else."""
        offline_since_ms = self._offline_since_ms.get(attempt.first_channel or "")
        return HtlcSight(
            channel=attempt.first_channel or "not told",
            peer_pubkey=attempt.first_hop or "",
            expiry_height=attempt.expiry_height,
            is_on_channel=None if self._look is None else False,
            is_online=None if offline_since_ms is None else False,
            offline_since_ms=offline_since_ms,
        )
