"""Over which channels a payment may leave, where the configuration caps what one channel may hold."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from holdpay.core.lightning import Attempt, AttemptStatus, NodeIdentity, short_channel_id
from holdpay.core.model import Order, Payment
from holdpay.engine.places import Places

if TYPE_CHECKING:
    from holdpay.engine.guard import HoldGuard

_Part = tuple[str | None, int]
"""The channel by which it left (None: LND has not said yet, so it may be any), and how much it is, in msat."""


class Ways:
    """What is out over which channel, and where there is room. It does not survive the process: what is out counts on
    every channel until LND has told of its attempts again."""

    def __init__(self, places: Places) -> None:
        """``places`` has the caps."""
        self._places = places
        self.one_at_a_time = asyncio.Lock()
        """From the choice of channels to the commit by which it counts."""
        self._attempts: dict[str, tuple[Attempt, ...]] = {}
        self._parts: dict[str, list[_Part]] = {}
        self._count: Counter[str | None] = Counter()
        self._msat: Counter[str | None] = Counter()

    def attempts(self, order_id: str) -> tuple[Attempt, ...]:
        """Those of an order that are in flight, as LND last told them."""
        return self._attempts.get(order_id, ())

    def changed(self, order: Order, attempts: tuple[Attempt, ...] = ()) -> None:
        """``attempts``: all of its latest dispatch, where LND has just told them. To be called at each change."""
        if order.payment is None or not order.is_money_out:
            self._attempts.pop(order.id, None)
            self._book(order.id, [])
            return
        if attempts:
            self._attempts[order.id] = tuple(one for one in attempts if one.status is AttemptStatus.IN_FLIGHT)
        self._book(order.id, _parts(order, order.payment, self.attempts(order.id)))

    def _book(self, order_id: str, parts: list[_Part]) -> None:
        if not self.is_capped:
            return
        for by, booked in ((-1, self._parts.pop(order_id, [])), (1, parts)):
            for channel in _counted_on(booked):
                _add(self._count, channel, by)
            for channel, msat in booked:
                _add(self._msat, channel, by * msat)
        if parts:
            self._parts[order_id] = parts

    @property
    def is_capped(self) -> bool:
        """Whether there is a cap for each channel at all."""
        caps = self._places.caps
        return caps.max_channel_orders is not None or caps.max_channel_locked_sat is not None

    async def choose(self, order: Order, guard: HoldGuard, payer: NodeIdentity) -> tuple[int, ...] | None:
        """The channels by which a payment may leave now. Empty: any. None: none has room. Raises LndError's children
        if one is full and the others are not known."""
        assert order.payment is not None
        msat = order.payment.amount_msat + order.payment.fee_limit_msat
        if not self.is_full(None, msat) and not any(self.is_full(channel, msat) for channel in self._msat):
            return ()
        channels = await guard.channels(payer)
        room = (c.chan_id for c in channels if not self.is_full(short_channel_id(c.chan_id), msat))
        return tuple(room) or None

    def is_full(self, channel: str | None, msat: int) -> bool:
        """Whether a channel has no room for a payment of so much; with what may be on any. ``channel`` None: one on
        which nothing is known to be."""
        names = {channel, None}
        count = sum(self._count[name] for name in names)
        locked_msat = sum(self._msat[name] for name in names) + msat
        caps = self._places.caps
        if caps.max_channel_orders is not None and count >= caps.max_channel_orders:
            return True
        return caps.max_channel_locked_sat is not None and locked_msat > caps.max_channel_locked_sat * 1000


def _add(counter: Counter[str | None], channel: str | None, by: int) -> None:
    counter[channel] += by
    if not counter[channel]:
        del counter[channel]


def _counted_on(parts: list[_Part]) -> set[str | None]:
    """An order counts once on each channel that has a part of it, and on every one while a part may be anywhere."""
    channels = {channel for channel, _ in parts}
    return {None} if None in channels else channels


def _parts(order: Order, payment: Payment, attempts: tuple[Attempt, ...]) -> list[_Part]:
    parts: list[_Part] = [(one.first_channel, one.amount_msat + one.fee_msat) for one in attempts]
    rest_msat = payment.amount_msat - sum(one.amount_msat for one in attempts)
    if rest_msat > 0:
        # More attempts are to come, or LND has not told of them yet.
        parts.append((None, order.locked_msat if not attempts else rest_msat))
    return parts
