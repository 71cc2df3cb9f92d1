"""The wait for a peer that is away: one question a second is put to lnd for all orders that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from holdpay.core.routes import RouteQuery
from holdpay.ports import Clock

LOOK_EVERY_S: Final = 1.0


class PeerWait:
    """lnd is asked about the least amount that waits: as long as a peer is missed for that, it is missed for more.
    Whose own fee limit or payee would let it go sooner waits until its time is over."""

    def __init__(self, clock: Clock, is_away: Callable[[Sequence[RouteQuery]], Awaitable[bool]]) -> None:
        """``is_away``: whether lnd says that what these queries ask for lacks a peer. Raises nothing."""
        self._clock = clock
        self._is_away = is_away
        self._waiting: dict[asyncio.Event, Sequence[RouteQuery]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def until_back(self, queries: Sequence[RouteQuery], timeout_s: float) -> None:
        """Until a peer may be back, or the time is over: then each looks for its own way again."""
        is_back = asyncio.Event()
        self._waiting[is_back] = queries
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="look for peers")
        try:
            await asyncio.wait_for(is_back.wait(), timeout_s)
        except TimeoutError:
            pass
        finally:
            self._waiting.pop(is_back, None)
            if not self._waiting and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _look(self) -> None:
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            least = min(self._waiting.values(), key=lambda queries: queries[0].amount_msat)
            if not await self._is_away(least):
                for is_back in self._waiting:
                    is_back.set()
