"""Wakes the streams. What they send they read from the journal, so nothing is lost between two wake-ups."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from holdpay.core.model import Order
from holdpay.core.states import HtlcState, OrderState

LATER_S: Final = 0.05
"""Until its payment is out, streams hear of an order this late: paying goes first, and its steps cost one read."""


@dataclass(frozen=True, slots=True)
class _Whose:
    """All orders of a client."""

    client: str


_Key = str | _Whose | None
"""An order's id, a client, or all."""


class Feed:
    """Tells streams that the journal grew, for one request or for any."""

    def __init__(self) -> None:
        self._events: dict[_Key, asyncio.Event] = {}
        self._told_later: set[_Key] = set()
        self.is_stopping = False

    def committed(self, cursor: int, order: Order) -> None:
        """To be called after each commit, in the event loop."""
        keys = (order.request.id, None, _Whose(order.request.client))
        if not _is_being_paid(order):
            for key in keys:
                self._wake(key)
            return
        if not self._told_later:
            asyncio.get_running_loop().call_later(LATER_S, self._tell)
        self._told_later.update(keys)

    def stop(self) -> None:
        """Every stream says that the daemon is going away, and ends."""
        self.is_stopping = True
        for key in list(self._events):
            self._wake(key)

    def next_commit(self, request_id: str | None, client: str | None = None) -> asyncio.Event:
        """Set at the next commit of a request, of any, or of any of a client's. Ask for it before reading the
        journal."""
        key = _Whose(client) if request_id is None and client is not None else request_id
        return self._events.setdefault(key, asyncio.Event())

    def _tell(self) -> None:
        keys, self._told_later = self._told_later, set()
        for key in keys:
            self._wake(key)

    def _wake(self, key: _Key) -> None:
        event = self._events.pop(key, None)
        if event is not None:
            event.set()


def _is_being_paid(order: Order) -> bool:
    """From the request to SendPaymentV2."""
    is_before = order.state in {OrderState.REQUESTED, OrderState.AWAITING_PAYMENT} and not order.is_closed
    return is_before and order.htlc in {HtlcState.NONE, HtlcState.DISPATCHING}
