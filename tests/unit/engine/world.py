"""The real engine, supervisor, performers and database, between a fake lnd and a fake provider, on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

from holdpay.core.holds import HoldCaps
from holdpay.core.model import Order
from holdpay.core.policy import Policy
from holdpay.engine.engine import Engine
from holdpay.engine.hooks import Webhooks
from holdpay.errors import InvariantViolation, StoreError
from holdpay.ports import Change, Limits
from holdpay.store.store import SqliteStore
from tests import fakes
from tests.databases import empty_database
from tests.fakes import FakeClock, FakeLnd, FakeProvider, ProviderOrder, Story
from tests.unit import build

LIMITS = Limits(max_open_orders=8, max_pending_sat=50_000, max_spend_per_day_sat=100_000)


class Crash(StoreError):
    """The process dies at this commit."""


class CrashingStore(SqliteStore):
    """Dies at its nth commit from now, right before or right after it is durable."""

    crash_at: int | None = None
    is_durable = False
    begun_count = 0

    def commit_all(self, changes: Iterable[Change], now_ms: int) -> list[int]:
        changes = iter(changes)
        first = next(changes, None)
        if first is None:
            return []
        self.begun_count += 1
        is_last = self.begun_count == self.crash_at
        if is_last and not self.is_durable:
            raise Crash
        cursors = super().commit_all(chain((first,), changes), now_ms)
        if is_last:
            raise Crash
        return cursors

    def create_next(self, before: Change, order: Order, limits: Limits, now_ms: int) -> None:
        self.commit_count += 1
        is_last = self.commit_count == self.crash_at
        if is_last and not self.is_durable:
            raise Crash
        super().create_next(before, order, limits, now_ms)
        if is_last:
            raise Crash


class World:
    """Everything but the engine and its database connection survives ``crash`` and ``start``."""

    def __init__(self, path: Path, story: Story | None = None, policy: Policy = build.POLICY) -> None:
        self.path = path
        self.webhooks: Webhooks | None = None
        self.policy = policy
        self.caps = HoldCaps()
        self.limits = LIMITS
        self.clock = FakeClock()
        self.lnd = FakeLnd(self.clock)
        self.provider = FakeProvider(self.clock, self.lnd, story)
        self._committed = asyncio.Event()
        self.store: CrashingStore
        self.engine: Engine
        self.running: asyncio.Task[None]

    # --- the process

    def start(self, crash_at: int | None = None, *, is_durable: bool = False) -> None:
        """A new process. With ``crash_at`` it dies at that commit."""
        if not self.path.exists():
            self.path.write_bytes(empty_database())
        self.store = CrashingStore(self.path)
        self.store.crash_at, self.store.is_durable = crash_at, is_durable
        self.store.on_commit = self._noted
        self.engine = Engine(
            store=self.store,
            node=self.lnd,
            provider=self.provider,
            policy=self.policy,
            limits=self.limits,
            clock=self.clock,
            rng=Random(1),
            webhooks=self.webhooks,
            caps=self.caps,
        )
        self.engine.take_over()
        self.running = asyncio.create_task(self.engine.run(), name="engine")

    def _noted(self, cursor: int, order: Order) -> None:
        """What is told without the database is what the journal says, at every commit of every test."""
        told, *_ = self.store.request_updates(cursor - 1, order.request.id, 100)
        written, *_ = self.store.updates(cursor - 1, order.id, 100)
        assert told == written
        self._committed.set()

    async def crash(self) -> None:
        """The process is gone, wherever it was."""
        self.running.cancel()
        with contextlib.suppress(asyncio.CancelledError, StoreError, InvariantViolation):
            await self.running
        self.store.close()

    async def failure(self) -> BaseException | None:
        """Waits for the process to end by itself. Returns the error that ended it."""
        done, _ = await asyncio.wait({self.running}, timeout=100)
        assert done, "the process did not end"
        return self.running.exception()

    async def close(self) -> None:
        """Ends the process; fails if it had ended by itself for another reason than a crash."""
        error = self.running.exception() if self.running.done() and not self.running.cancelled() else None
        await self.crash()
        assert error is None or isinstance(error, Crash), error

    # --- orders

    def request(self, n: int = 1, **changes: Any) -> str:
        """A client's order. Returns its id."""
        now_ms = self.clock.now_ms()
        times = {"created_at_ms": now_ms, "state_since_ms": now_ms, "place_at_ms": now_ms}
        order = build.order(
            id=f"order{n:05d}", key=f"key-{n}", pay_by_ms=now_ms + self.policy.pay_within_s * 1000, **times, **changes
        )
        return self.engine.request(order).id

    def quarantine_at_the_intent(self) -> None:
        """From now on an order is put aside in the very step in which it is intended to pay or to charge."""
        intend = self.engine.intend

        async def at_once(order_id: str, *args: Any) -> Order | None:
            intending = intend(order_id, *args)
            self.engine.quarantine(order_id, InvariantViolation("Two truths."))
            return await intending

        self.engine.intend = at_once  # type: ignore[method-assign, assignment]

    def order(self, order_id: str) -> Order:
        """As it is on disk."""
        return self.store.get(order_id)

    def events(self, order_id: str) -> list[str]:
        return [update.event for update in self.store.updates(0, order_id, 1000)]

    @property
    def theirs(self) -> ProviderOrder:
        """The provider's only order."""
        (order,) = self.provider.orders.values()
        return order

    @property
    def send_times_s(self) -> list[float]:
        """When SendPaymentV2 was called, in seconds since the beginning."""
        return [(at_ms - fakes.START_MS) / 1000 for at_ms, _ in self.lnd.sends]

    @property
    def track_times_s(self) -> list[float]:
        return [(at_ms - fakes.START_MS) / 1000 for at_ms, _ in self.lnd.tracks]

    @property
    def now_s(self) -> float:
        return (self.clock.now_ms() - fakes.START_MS) / 1000

    # --- time

    async def until(self, is_so: Callable[[], bool], *, within_s: float = 4000) -> None:
        """Lets time go by until something is so: looks after each commit, and every now and then."""
        ends_at_s = asyncio.get_running_loop().time() + within_s
        while not is_so():
            assert asyncio.get_running_loop().time() < ends_at_s, "it did not come to that"
            self._committed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.25):
                    await self._committed.wait()

    async def until_closed(self, order_id: str, *, within_s: float = 4000) -> Order:
        await self.until(lambda: self.order(order_id).is_closed, within_s=within_s)
        return self.order(order_id)

    async def until_event(self, order_id: str, event: str) -> None:
        await self.until(lambda: event in self.events(order_id))
