"""The machine's clock, as the engine sees it (``ports.Clock``)."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """Wall-clock time, because orders outlive the process; and the event loop's sleep."""

    __slots__ = ()

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        """Waits; 0 and less let the other tasks run once."""
        await asyncio.sleep(max(seconds, 0.0))
