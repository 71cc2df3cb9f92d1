"""Where orders wait while lnd is away, and from where they go on a few at a time."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import Final

from holdpay.core.lightning import NodeIdentity

RELEASED_AT_ONCE: Final = 25
RELEASE_EVERY_S: Final = 0.05
"""On average: with the number above, 500 orders a second."""


class Gate:
    """Closed at first. A waiting order costs nothing but its place."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._node: NodeIdentity | None = None
        self._waiting: dict[NodeIdentity, deque[asyncio.Future[None]]] = {}
        self._releasing: asyncio.Task[None] | None = None

    def open(self, node: NodeIdentity) -> None:
        """This node answers: the orders that it pays go on, those that came first first."""
        self._node = node
        if self._releasing is None or self._releasing.done():
            self._releasing = asyncio.create_task(self._release(), name="lnd gate")

    def close(self) -> None:
        """No node answers."""
        self._node = None

    async def stop(self) -> None:
        """Ends what runs in the background. Whoever waits still waits."""
        self.close()
        if self._releasing is not None:
            self._releasing.cancel()
            await asyncio.wait({self._releasing})

    async def passed(self, payer: NodeIdentity) -> None:
        """Returns when ``payer`` answers and all who came before have gone."""
        waiting = self._waiting.get(payer)
        if self._node == payer and not waiting:
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(payer, deque()).append(place)
        await place

    async def _release(self) -> None:
        while self._node is not None and (waiting := self._waiting.get(self._node)):
            for _ in range(min(RELEASED_AT_ONCE, len(waiting))):
                place = waiting.popleft()
                if not place.done():
                    place.set_result(None)
            await asyncio.sleep(RELEASE_EVERY_S * self._rng.uniform(0.5, 1.5))
