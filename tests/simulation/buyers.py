"""Buyers of the core simulation where there are limits: many at once, some of them after hours and days.

Each asks with the same key until its order is recorded, or until its patience is over. Where a limit refuses it, the
auditor looks whether there was room.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from holdpay.core.model import OPERATOR, Order
from holdpay.errors import LimitExceeded
from tests.simulation.budgets import CLIENTS, HOUR_MS, BudgetBook
from tests.simulation.daemon import SimDaemon
from tests.simulation.heap import START_MS, Heap
from tests.simulation.parties import MINUTE_MS

COMES_AFTER_MS = (0, 0, 0, MINUTE_MS, 30 * MINUTE_MS, 23 * HOUR_MS)
WITHIN_MS = (MINUTE_MS, MINUTE_MS, HOUR_MS)
PATIENCE_MS = (0, HOUR_MS, 26 * HOUR_MS)
ASKS_AGAIN_MS = (MINUTE_MS, 10 * MINUTE_MS, 20 * MINUTE_MS)


class Buyers:
    """``made`` makes the order of a number for a client, as of now."""

    def __init__(
        self, heap: Heap, daemon: SimDaemon, book: BudgetBook, rng: Random, made: Callable[[int, str], Order]
    ) -> None:
        self._heap = heap
        self._daemon = daemon
        self._book = book
        self._rng = rng
        self._made = made
        self.waiting = 0
        """Those that have no answer yet that is their last."""

    def come(self, numbers: range) -> None:
        for number in numbers:
            self.waiting += 1
            at_ms = START_MS + self._rng.choice(COMES_AFTER_MS) + self._rng.randrange(self._rng.choice(WITHIN_MS))
            client = self._rng.choice((*CLIENTS, *CLIENTS, OPERATOR))
            until_ms = at_ms + self._rng.choice(PATIENCE_MS)
            order = self._made(number, client)
            self._heap.at(at_ms, lambda o=order, u=until_ms: self._ask(o, u))  # type: ignore[misc]

    def _ask(self, wanted: Order, until_ms: int) -> None:
        if self._daemon.is_up:
            order = _as_of(wanted, self._heap.now_ms)
            reached = self._daemon.request(order)
            if reached is not None:
                self._refused(order, reached)
            is_answered = order.id in self._daemon.orders
            if is_answered or (reached is not None and self._heap.now_ms >= until_ms):
                self.waiting -= 1
                return
        self._heap.after(self._rng.choice(ASKS_AGAIN_MS), lambda: self._ask(wanted, until_ms))

    def _refused(self, order: Order, reached: LimitExceeded) -> None:
        orders = self._daemon.orders.values()
        limit = reached.metadata["limit"]
        if limit.startswith("limits."):
            self._book.refused_by_all(orders, limit.removeprefix("limits."), order.max_price_sat + order.max_fee_sat)
        else:
            self._book.refused_by_own(order, orders, limit.rpartition(".")[2], int(reached.metadata["limit_sat"]))


def _as_of(order: Order, now_ms: int) -> Order:
    """The same, wanted now."""
    later_ms = now_ms - order.created_at_ms
    return replace(
        order,
        request=replace(order.request, created_at_ms=now_ms),
        created_at_ms=now_ms,
        pay_by_ms=order.pay_by_ms + later_ms,
        state_since_ms=now_ms,
        place_at_ms=now_ms,
    )
