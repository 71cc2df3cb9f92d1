"""Wakes the streams. What they send they read from the journal, so nothing is lost between two wake-ups."""

from __future__ import annotations

import asyncio
from typing import Final

WAKE_AFTER_S: Final = 0.005
"""Streams hear of a commit this late: what the commit began, a payment say, goes first, and a run of commits costs one
read."""


class Feed:
    """Tells streams that the journal grew, for one order or for any."""

    def __init__(self) -> None:
        self._events: dict[str | None, asyncio.Event] = {}
        self._grown: set[str | None] = set()
        self.is_stopping = False

    def committed(self, cursor: int, order_id: str) -> None:
        """To be called after each commit, in the event loop."""
        if not self._grown:
            asyncio.get_running_loop().call_later(WAKE_AFTER_S, self._wake_grown)
        self._grown.update((order_id, None))

    def stop(self) -> None:
        """Every stream says that the daemon is going away, and ends."""
        self.is_stopping = True
        for key in list(self._events):
            self._wake(key)

    def next_commit(self, order_id: str | None) -> asyncio.Event:
        """Set at the next commit. Ask for it before reading the journal."""
        return self._events.setdefault(order_id, asyncio.Event())

    def _wake_grown(self) -> None:
        grown, self._grown = self._grown, set()
        for key in grown:
            self._wake(key)

    def _wake(self, key: str | None) -> None:
        event = self._events.pop(key, None)
        if event is not None:
            event.set()
