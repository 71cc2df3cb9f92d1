"""Which order is to be looked at when: a heap, so that an order costs nothing before its time."""

from __future__ import annotations

import heapq
from typing import Final

_STALE_KEPT: Final = 1_000
"""Entries of times that were overtaken by earlier ones, besides one for each order."""


class Agenda:
    """At most one time for each order."""

    def __init__(self) -> None:
        self._at_ms: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def plan(self, order_id: str, at_ms: int) -> None:
        """The order is looked at by then. What was planned earlier stays."""
        if at_ms >= self._at_ms.get(order_id, at_ms + 1):
            return
        self._at_ms[order_id] = at_ms
        heapq.heappush(self._heap, (at_ms, order_id))
        if len(self._heap) > 2 * len(self._at_ms) + _STALE_KEPT:
            self._heap = [(at_ms, order_id) for order_id, at_ms in self._at_ms.items()]
            heapq.heapify(self._heap)

    def due(self, now_ms: int) -> list[str]:
        """Those whose time has come, the earliest first. They are on the agenda no more."""
        found = []
        while self._heap and self._heap[0][0] <= now_ms:
            at_ms, order_id = heapq.heappop(self._heap)
            if self._at_ms.get(order_id) == at_ms:
                del self._at_ms[order_id]
                found.append(order_id)
        return found

    def forget(self, order_id: str) -> None:
        self._at_ms.pop(order_id, None)
