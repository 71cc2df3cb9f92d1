"""Answers that stay good for some seconds, asked for once however many want them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from holdpay.ports import Clock

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class FreshCache(Generic[K, V]):
    """Keeps each answer for ``fresh_s`` from the moment of asking. A failure goes to all who waited and is not kept."""

    def __init__(self, clock: Clock, fresh_s: float) -> None:
        self._clock = clock
        self._fresh_ms = int(fresh_s * 1000)
        self._asked: dict[K, tuple[int, asyncio.Task[V]]] = {}

    async def get(self, key: K, ask: Callable[[], Awaitable[V]]) -> V:
        """The fresh answer for ``key``, or what ``ask`` returns or raises. A waiter that leaves does not stop it."""
        self._forget_old()
        known = self._asked.get(key)
        if known is None:
            task = asyncio.create_task(_call(ask), name="provider lookup")
            task.add_done_callback(lambda done: self._drop_failed(key, done))
            known = self._asked[key] = (self._clock.now_ms(), task)
        return await asyncio.shield(known[1])

    async def aclose(self) -> None:
        running = [task for _, task in self._asked.values() if not task.done()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def _forget_old(self) -> None:
        now_ms = self._clock.now_ms()
        for key, (asked_at_ms, task) in list(self._asked.items()):
            if task.done() and not 0 <= now_ms - asked_at_ms < self._fresh_ms:
                del self._asked[key]

    def _drop_failed(self, key: K, task: asyncio.Task[V]) -> None:
        # exception() also marks it as seen, if everybody who waited has left.
        if task.cancelled() or task.exception() is not None:
            self._asked.pop(key, None)


async def _call(ask: Callable[[], Awaitable[V]]) -> V:
    return await ask()
