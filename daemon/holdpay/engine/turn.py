"""What is ready in one turn of the event loop is taken together: one step, one transaction, one fsync."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from holdpay.core.events import Event
from holdpay.core.model import Order

MOST_AT_ONCE: Final = 32
"""Of one step, which holds up the loop for some milliseconds: the rest comes in the next turn."""

Making = Callable[[Order], Event | None]
"""Makes an event when it is decided, of the order as it is then, and sees what was written before it in the same step.
None: there is none any more."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Posted:
    """An event that waits for its step. It comes about whether or not its task still waits for ``result``."""

    order_id: str
    event: Event | Making
    raw: str | None = None
    """The provider's reply behind the event."""
    task: asyncio.Task[Any] | None = None
    """Who posted it."""
    result: asyncio.Future[Order] | None = None
    """None: nobody waits for it."""

    def made(self, order: Order) -> Event | None:
        return self.event(order) if callable(self.event) else self.event

    def answer(self, order: Order) -> None:
        if self.result is not None and not self.result.done():
            self.result.set_result(order)

    def fail(self, error: Exception) -> None:
        if self.result is not None and not self.result.done():
            self.result.set_exception(error)


class Turn:
    """Gathers what is posted until the next turn of the loop. No timer: what is alone waits for nobody."""

    def __init__(self, step: Callable[[Sequence[Posted]], None]) -> None:
        """``step``: what is done with them, in the order in which they came; they all fail with what it raises."""
        self._step = step
        self._posted: list[Posted] = []
        self._is_planned = False

    def post(self, posted: Posted) -> None:
        self._posted.append(posted)
        self._plan()

    def finish(self) -> None:
        """Takes the steps that are left, at once."""
        while self._posted:
            self._next()

    def _plan(self) -> None:
        if self._posted and not self._is_planned:
            self._is_planned = True
            self._call_soon(self._next)

    def _call_soon(self, call: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(call)

    def _next(self) -> None:
        self._is_planned = False
        if not self._posted:
            return
        batch, self._posted = self._posted[:MOST_AT_ONCE], self._posted[MOST_AT_ONCE:]
        try:
            self._step(batch)
        except Exception as error:  # noqa: BLE001 - whoever waits for one of them has to know
            for posted in batch:
                posted.fail(error)
        # Only now: who waited for this step comes before the next one.
        self._plan()
