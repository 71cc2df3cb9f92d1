"""Wakes the streams. What they send they read from the journal, so nothing is lost between two wake-ups."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from holdpay.core.model import Order

LATER_S: Final = 0.1
"""Until it delivers something or is over, streams hear of an order this late, which nobody sees: paying goes first, and
its steps cost one wake-up, the dearest part of a stream on both sides."""


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
        self._timer: asyncio.TimerHandle | None = None
        self.is_stopping = False

    def committed(self, cursor: int, order: Order) -> None:
        """To be called after each commit, in the event loop."""
        keys = (order.request.id, None, _Whose(order.request.client))
        if _is_waited_for(order):
            self._told_later.difference_update(keys)
            for key in keys:
                self._wake(key)
            return
        if not self._told_later:
            self._begin_to_wait()
        self._told_later.update(keys)

    def _begin_to_wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(LATER_S, self._tell)

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


def _is_waited_for(order: Order) -> bool:
    """The number, what comes after it, and the end; of what comes before, nobody acts on it."""
    return bool(order.items) or order.is_closed
