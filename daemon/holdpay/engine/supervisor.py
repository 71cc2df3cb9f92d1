"""At most one task per (order, duty), started and stopped by what is on disk."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Protocol

import structlog

from holdpay.core.duties import Duty
from holdpay.errors import InvariantViolation, StoreError
from holdpay.ports import Clock

RESTART_AFTER_S = 30
"""A duty that died of a defect of ours is started again after this time: a held payment must not stay unwatched."""

log = structlog.get_logger(__name__)

Key = tuple[str, Duty]


class PerformerTable(Protocol):
    """What does a duty."""

    def perform(self, order_id: str, duty: Duty) -> Coroutine[Any, Any, None]: ...


class Supervisor:
    """Keeps exactly the wanted duties of each order running."""

    def __init__(
        self,
        performers: PerformerTable,
        clock: Clock,
        put_aside: Callable[[str, Exception], object],
        look_again: Callable[[str, int], object],
    ) -> None:
        """``put_aside``: called with an order's id if one of its duties contradicted our own laws. ``look_again``: with
        the id of one whose task has ended by itself, and from when on ``reconcile`` starts it again if it is wanted.
        """
        self._performers = performers
        self._put_aside = put_aside
        self._look_again = look_again
        self._clock = clock
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._stopped: set[asyncio.Task[None]] = set()
        self._not_before_ms: dict[Key, int] = {}
        self._fatal: asyncio.Event = asyncio.Event()
        self._fatal_error: BaseException | None = None
        self._is_over = False

    def reconcile(self, order_id: str, wanted: frozenset[Duty], own: Collection[asyncio.Task[Any] | None] = ()) -> None:
        """Starts what is missing, stops what is over. What is in ``own`` is about to see that itself, and ends by
        itself."""
        for duty in Duty:
            key = (order_id, duty)
            task = self._tasks.get(key)
            if duty in wanted:
                if task is None and duty is not Duty.POLL:
                    self._start(key)
            elif task is None:
                self._not_before_ms.pop(key, None)
            elif task not in own:
                self._stop(key, task)

    def ask(self, order_id: str) -> asyncio.Task[None] | None:
        """Starts one question to the provider: when it is due the scheduler knows. None: not now."""
        key = (order_id, Duty.POLL)
        if key in self._tasks:
            return None
        self._start(key)
        return self._tasks.get(key)

    def _stop(self, key: Key, task: asyncio.Task[None]) -> None:
        self._forget(key)
        self._stopped.add(task)
        task.cancel()

    def _start(self, key: Key) -> None:
        if self._is_over:
            return
        if self._is_too_early(key):
            # The look that was asked for when it died may have come earlier, for another reason.
            self._look_again(key[0], self._not_before_ms[key])
            return
        task = asyncio.create_task(self._performers.perform(*key), name=f"{key[1].value} {key[0]}")
        self._tasks[key] = task
        task.add_done_callback(lambda ended: self._ended(key, ended))

    def _is_too_early(self, key: Key) -> bool:
        # More than the whole wait means that the wall clock was set back.
        left_ms = self._not_before_ms.get(key, 0) - self._clock.now_ms()
        return 0 < left_ms <= RESTART_AFTER_S * 1000

    def _forget(self, key: Key) -> None:
        self._tasks.pop(key, None)
        self._not_before_ms.pop(key, None)

    def _ended(self, key: Key, task: asyncio.Task[None]) -> None:
        self._stopped.discard(task)
        is_wanted = self._tasks.get(key) is task
        if is_wanted:
            self._forget(key)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, StoreError):
            self.fail(error)
        elif error is not None:
            log.error("a task failed; it is started again", order_id=key[0], duty=key[1].value, exc_info=error)
            self._not_before_ms[key] = self._clock.now_ms() + RESTART_AFTER_S * 1000
        if isinstance(error, InvariantViolation) and self._fatal_error is None:
            # A failed write has told ``fail`` itself.
            self._put_aside(key[0], error)
        if is_wanted and key[1] is not Duty.POLL:
            # When the next question is due the scheduler knows.
            self._look_again(key[0], self._not_before_ms.get(key, self._clock.now_ms()))

    def fail(self, error: BaseException) -> None:
        """The process must end: ``failure`` raises this error, or the first one given. Nothing is started any more."""
        self._is_over = True
        self._fatal_error = self._fatal_error or error
        self._fatal.set()

    def check(self) -> None:
        """Raises the error that ends the process, if there is one."""
        if self._fatal_error is not None:
            raise self._fatal_error

    async def failure(self, timeout_s: float) -> None:
        """Waits that long; raises what ended a task, if it must end the process."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._fatal.wait()
        self.check()

    async def stop(self) -> None:
        """Stops watching, for good. Waits for every task."""
        self._is_over = True
        tasks = [*self._tasks.values(), *self._stopped]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
