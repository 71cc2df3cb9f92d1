"""Time in the sandbox.

Two kinds of time meet there. What a client reads or asks for (an invoice's expiry, `timeout_seconds`) is ordinary time,
because the client's own clock is. What belongs to the simulated world alone (how long mission control avoids a hop, how
long the provider looks for a number) may run faster: that is the `pace`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What the sandbox needs to know about time; tests inject one that they move by hand."""

    @property
    def pace(self) -> float:
        """Seconds of the simulated world that pass in one ordinary second; 1 is true to life."""
        ...

    def now_s(self) -> float:
        """Ordinary time: seconds since 1970."""
        ...

    async def sleep_s(self, seconds: float) -> None:
        """Wait ordinary seconds; 0 lets the others run once."""
        ...


class WallClock:
    """The machine's clock."""

    __slots__ = ("_pace",)

    def __init__(self, pace: float = 1.0) -> None:
        if pace <= 0:
            raise ValueError("pace must be more than 0")
        self._pace = pace

    @property
    def pace(self) -> float:
        return self._pace

    def now_s(self) -> float:
        return time.time()

    async def sleep_s(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0.0))


def scaled_s(clock: Clock, world_s: float) -> float:
    """Ordinary seconds that a duration of the simulated world takes."""
    return world_s / clock.pace
