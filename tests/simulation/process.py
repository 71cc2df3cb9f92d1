"""One life of the daemon: the real engine on the real store, until it is killed, fails or is stopped."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from random import Random
from typing import Any, NoReturn, TypeVar

from holdpay.core.duties import Duty
from holdpay.core.events import Resolved
from holdpay.core.model import Order
from holdpay.core.outstanding import NOTHING
from holdpay.engine.account import Account
from holdpay.engine.desk import Desk
from holdpay.engine.engine import Engine
from holdpay.errors import StoreError
from holdpay.ports import CountryInfo, ServiceInfo
from holdpay.store.outstanding import added_up
from tests.simulation.auditor import Violation, has_place
from tests.simulation.core import POLICY
from tests.simulation.disk import Disk, SimStore
from tests.simulation.ports import NodePort, ProviderPort
from tests.simulation.world import World

SERVICE = ServiceInfo("oi", "OpenAI", 100)
BURIAL_S = 60.0
HOT_COUNT = 20
HOT_MS = 10_000
"""More questions than this in this time are a hot loop."""
BUSY_S = (0.001, 0.05, 0.3, 1.0)
T = TypeVar("T")


class Killed(BaseException):
    """The process is gone. Not an Exception: no code of the daemon may catch it."""


class SimClock:
    """As ``holdpay.clock``: the wall clock of the start, and the time that has passed since."""

    def __init__(self, world: World, offset_ms: int) -> None:
        self._heap = world.heap
        self._offset_ms = offset_ms

    def now_ms(self) -> int:
        return self._heap.now_ms + self._offset_ms

    def wall_ahead_ms(self) -> int:
        return 0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class OneServiceCatalog:
    """A country and a service."""

    def countries(self) -> Sequence[CountryInfo]:
        return (CountryInfo(187, "United States", ()),)

    def resolve_country(self, text: str) -> CountryInfo:
        return self.countries()[0]

    def resolve_service(self, text: str, services: Sequence[ServiceInfo]) -> ServiceInfo:
        return next((service for service in services if service.code == text), SERVICE)


class Process:
    """After ``die`` no port does anything any more, so no clean-up of the daemon's counts."""

    def __init__(self, world: World, disk: Disk, offset_ms: int) -> None:
        self.world = world
        self.disk = disk
        self.is_alive = True
        self.has_failed_commit = False
        self.streams: set[str] = set()
        """Payment hashes that a stream of this process is open for."""
        self._asked_ms: dict[str, deque[int]] = {}
        self._open: tuple[int, list[Order]] = (-1, [])
        """The open orders as they were on disk after so many changes of the database."""
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._outsiders = asyncio.all_tasks()
        self._running: asyncio.Task[None] | None = None
        self.store = SimStore(self, disk.path)
        self.engine = Engine(
            store=self.store,
            node=NodePort(self),
            provider=ProviderPort(self),
            policy=POLICY,
            limits=replace(world.limits, budgets=world.budgets),
            clock=SimClock(world, offset_ms),
            rng=Random(world.rng.getrandbits(64)),
            caps=world.caps,
        )
        self.engine._turn._call_soon = self._call_soon  # type: ignore[method-assign]
        self.desk = Desk(self.engine, OneServiceCatalog(), Account(self.engine.provider, warn_below_sat=None))

    def _call_soon(self, call: Callable[[], None]) -> None:
        """The next turn of the loop comes late where the daemon is busy."""
        loop, busy = asyncio.get_running_loop(), self.world.busy
        if busy.random() < self.world.busy_share:
            loop.call_later(busy.choice(BUSY_S), call)
        else:
            loop.call_soon(call)

    # --- death --------------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """To be called by every port before it does anything."""
        if not self.is_alive:
            raise Killed

    def may_die(self, where: str) -> None:
        """A point inside a performer where the process may be killed."""
        self.enter()
        if self.world.hits("kill_inside"):
            self.die(where)

    def ask(self, whom: str, payment_hash: str) -> None:
        """To be called for each question about an order: a party is not asked in a hot loop."""
        asked_ms = self._asked_ms.setdefault(f"{whom} about {payment_hash[:8]}…", deque(maxlen=HOT_COUNT))
        asked_ms.append(self.world.heap.now_ms)
        with self.world.judged():
            if len(asked_ms) == HOT_COUNT and asked_ms[-1] - asked_ms[0] < HOT_MS:
                raise Violation(f"{whom} was asked {HOT_COUNT} times in {asked_ms[-1] - asked_ms[0]} ms")
            self._count_what_is_open()

    def _count_what_is_open(self) -> None:
        """What the daemon keeps count of is what is on disk, whenever a task of it runs. Not once it was killed, or a
        commit has failed, which may be on disk all the same: it decides nothing any more then, and ends."""
        if not self.is_alive:
            return
        try:
            self.engine._supervisor.check()
        except StoreError:
            return
        engine, open_orders = self.engine, self._open_on_disk()
        out = [order for order in open_orders if order.is_money_out]
        placed = sum(has_place(order) for order in open_orders)
        may_cost = added_up(self.store._conn)
        on_disk = (len(out), sum(order.locked_msat for order in out), placed, may_cost)
        carried = {client: self.store._outstanding.client(client) for client in may_cost}
        counted = (engine.tally.out, engine.tally.locked_msat, engine.tally.placed, carried)
        if (whole := sum(may_cost.values(), NOTHING)) != self.store._outstanding.all():
            raise Violation(f"{whole} may still be spent, and {self.store._outstanding.all()} is counted")
        if counted != on_disk:
            raise Violation(f"{on_disk} is on disk, and {counted} is counted")

    def _open_on_disk(self) -> list[Order]:
        """Read anew whenever this process, which alone may write, has written anything."""
        changes = self.store._conn.total_changes
        if self._open[0] != changes:
            self._open = changes, self.store.open_orders()
        return self._open[1]

    def die(self, where: str, *, has_image: bool = False) -> NoReturn:
        self.kill(where, has_image=has_image)
        raise Killed

    def kill(self, where: str, *, has_image: bool = False) -> None:
        """kill −9. ``has_image``: the disk was taken before."""
        self.world.tell(f"the daemon is killed {where}")
        self.is_alive = False
        if not has_image:
            self.disk.take_image()
        self._end("killed")

    def stop(self) -> None:
        """SIGTERM."""
        self.world.tell("the daemon is told to stop")
        self._end("stopped")

    def _end(self, how: str) -> None:
        if not self._over.done():
            self._over.set_result(how)

    # --- life ---------------------------------------------------------------------------------------------------------

    async def live(self) -> None:
        """From the start to the end, whatever end it is."""
        try:
            self._find_all_on_disk()
            self.engine.take_over()
        except Killed:
            pass
        except StoreError:
            self._end("failed")
        else:
            self._running = asyncio.create_task(self.engine.run(), name="engine")
            self._running.add_done_callback(self._engine_ended)
        how = await self._over
        if how != "killed":
            await self._leave()
        # Both asyncio.run and a kill end what is left; after a kill nothing of it counts.
        await self._bury()
        self.store.close()
        if not self.is_alive:
            self.disk.crash()
        self.is_alive = False

    def _find_all_on_disk(self) -> None:
        with self.world.judged():
            for order_id, order in self.world.on_disk.items():
                if self.store.get(order_id) != order:
                    raise Violation(f"order {order_id}: what was committed is not what a restart finds")

    def _engine_ended(self, running: asyncio.Task[None]) -> None:
        error = None if running.cancelled() else running.exception()
        if isinstance(error, Killed):
            return
        if error is None:
            self._end("stopped")
        elif isinstance(error, StoreError):
            self.world.tell(f"the daemon ends: {error}")
            self._end("failed")
        else:
            self.world.fail(f"{type(error).__name__}: {error}")

    async def _leave(self) -> None:
        """As the daemon does: the engine stops its own tasks. It must leave none behind."""
        if self._running is None:
            return
        clients = [task for task in self._tasks() if task.get_name().startswith("client")]
        self._running.cancel()
        await asyncio.wait({self._running})
        for client in clients:
            client.cancel()
        if clients:
            await asyncio.wait(clients)
        left = [task.get_name() for task in self._tasks()]
        if left and self.is_alive:
            self.world.fail(f"Violation: the engine was stopped and left {', '.join(left)} running")

    async def _bury(self) -> None:
        tasks = self._tasks()
        for task in tasks:
            task.cancel()
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=BURIAL_S)
            if pending:
                self.world.fail(f"Violation: {min(task.get_name() for task in pending)} cannot be canceled")

    def _tasks(self) -> list[asyncio.Task[Any]]:
        """Always in the same order, so that a seed always tells the same story."""
        return sorted(asyncio.all_tasks() - self._outsiders, key=lambda task: task.get_name())

    # --- from outside -------------------------------------------------------------------------------------------------

    async def call(self, client: str, *requests: Coroutine[Any, Any, T]) -> list[T]:
        """Requests on the daemon's socket, all at once; the answers that came."""
        tasks = [asyncio.create_task(request, name=f"client {client}") for request in requests]
        await asyncio.wait(tasks)
        answers = [task.result() for task in tasks if not task.cancelled() and task.exception() is None]
        return answers if self.is_alive else []

    async def cancel_order(self, order_id: str) -> Order:
        return await self.engine.cancel(order_id)

    async def resolve_order(self, order_id: str, said: Resolved) -> Order:
        return await self.engine.apply(order_id, said)

    def cancel_some_task(self) -> None:
        """Cancels one task of a duty."""
        names = {duty.value for duty in Duty}
        tasks = [task for task in self._tasks() if task.get_name().split()[0] in names]
        if tasks:
            task = self.world.rng.choice(tasks)
            self.world.tell(f"somebody cancels the task {task.get_name()}")
            task.cancel()
