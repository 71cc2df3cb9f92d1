"""Wakes the streams. What they send they read from the journal, so nothing is lost between two wake-ups."""

from __future__ import annotations

import asyncio


class Feed:
    """Tells streams that the journal grew, for one order or for any."""

    def __init__(self) -> None:
        self._events: dict[str | None, asyncio.Event] = {}
        self.is_stopping = False

    def committed(self, cursor: int, order_id: str) -> None:
        """To be called after each commit."""
        self._wake(order_id)
        self._wake(None)

    def stop(self) -> None:
        """Every stream says that the daemon is going away, and ends."""
        self.is_stopping = True
        for key in list(self._events):
            self._wake(key)

    def next_commit(self, order_id: str | None) -> asyncio.Event:
        """Set at the next commit. Ask for it before reading the journal."""
        return self._events.setdefault(order_id, asyncio.Event())

    def _wake(self, key: str | None) -> None:
        event = self._events.pop(key, None)
        if event is not None:
            event.set()
