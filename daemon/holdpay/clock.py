"""The machine's clock, as the engine sees it (``ports.Clock``)."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """The wall clock of the start, and the time that has really passed since; and the event loop's sleep.

    So a wall clock that is set while the daemon runs shortens no wait and lengthens none. Orders outlive the process,
    which is why it begins with the wall clock at all; a restart, which is safe at any moment, takes a new one over.
    """

    __slots__ = ("_offset_ns",)

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - _passed_ns()

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        return (self._offset_ns + _passed_ns()) // 1_000_000

    def wall_ahead_ms(self) -> int:
        """How far the wall clock was set forward since the start; negative: back."""
        return (time.time_ns() - self._offset_ns - _passed_ns()) // 1_000_000

    async def sleep(self, seconds: float) -> None:
        """Waits; 0 and less let the other tasks run once."""
        await asyncio.sleep(max(seconds, 0.0))


def _passed_ns() -> int:
    """Also counts what the machine slept (clock_gettime(2))."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
