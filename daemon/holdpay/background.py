"""Tasks that run beside the orders: one turn after another, never ended by an error, and known to be alive or not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from holdpay.ports import Clock

RESTART_AFTER_S = 5
"""After a turn that failed."""

log = structlog.get_logger(__name__)


class Background:
    """One task. A turn that fails is logged, and the next one comes after a pause.

    It is *alive* if a turn has ended well within the last ``silent_s``. So neither one that fails again and again nor
    one that hangs is alive. The next turn comes ``every_s`` after one that ended well; 0: a turn contains its own wait.
    """

    def __init__(
        self, name: str, turn: Callable[[], Awaitable[None]], silent_s: float, clock: Clock, *, every_s: float = 0
    ) -> None:
        self.name = name
        self._turn = turn
        self._silent_s = silent_s
        self._every_s = every_s
        self._clock = clock
        # Neither a wall clock that is set nor a machine that slept makes a task look dead.
        self._loop = asyncio.get_running_loop()
        self._turned_at_s = self._loop.time()
        self._is_failing = False
        self._task = asyncio.create_task(self._run(), name=name)

    @property
    def is_alive(self) -> bool:
        return not self._task.done() and self._loop.time() - self._turned_at_s <= self._silent_s

    @property
    def is_well(self) -> bool:
        """Alive, and its latest turn did not fail."""
        return self.is_alive and not self._is_failing

    async def stop(self) -> None:
        """Ends it, and waits for that."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            try:
                await self._turn()
            except (Exception, asyncio.CancelledError) as error:
                task = asyncio.current_task()
                # gRPC raises CancelledError in the readers of a closed channel, too: nobody ended the task then.
                if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
                    raise
                self._is_failing = True
                log.error("a background task failed; it goes on after a pause", task=self.name, exc_info=error)
                await self._clock.sleep(RESTART_AFTER_S)
            else:
                self._is_failing = False
                self._turned_at_s = self._loop.time()
                if self._every_s:
                    await self._clock.sleep(self._every_s)
