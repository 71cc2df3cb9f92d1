"""One seed of the shell simulation: the real engine, supervisor, performers and SQLite store on virtual time.

Phase one under faults: safety. Phase two without: everything must end. Then the database is audited by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, MutableMapping
from typing import Any
from unittest.mock import patch

import structlog

from holdpay.core.model import Order
from holdpay.engine import desk as desk_module
from holdpay.engine import engine as engine_module
from holdpay.engine.desk import CodeRequest
from tests.simulation.auditor import Violation
from tests.simulation.books import audit_database
from tests.simulation.core import AFTERMATH_MS, PHASE_ONE_MS, PHASE_TWO_MS, Outcome
from tests.simulation.daemon import NODE
from tests.simulation.disk import Disk, temporary_disk
from tests.simulation.heap import START_MS
from tests.simulation.parties import MINUTE_MS
from tests.simulation.ports import DEFECT
from tests.simulation.process import Killed, Process
from tests.simulation.world import OTHER_NODE, World
from tests.virtual_loop import Deadlock, HotLoop, VirtualLoop

RESTART_DELAYS_MS = (0, 500, 5_000, 120_000)
CLOCK_STEPS_MS = (-3_600_000, -30_000, 30_000, 600_000, 3_600_000)
OPERATOR_MS = 15 * MINUTE_MS
PASS_S = 5.0
CALM_PASS_S = 300.0
"""Days pass in phase two; deadlines may be seen later there."""


class ShellSimulation:
    """A world from a seed, with the daemon in it."""

    def __init__(self, seed: int, *, trace: bool = False) -> None:
        self.seed = seed
        self._loop = VirtualLoop()
        self._loop.set_exception_handler(self._unhandled)
        self.world = World(seed, self._loop, is_traced=trace)
        self.process: Process | None = None
        self.starts = 0
        self._wanted = self.world.rng.choice((1, 2, 3))
        self._accepted: dict[str, str] = {}
        """Order id by the client's key."""
        self._offset_ms = 0

    def run(self) -> Outcome:
        world = self.world
        with temporary_disk() as disk, self._environment():
            try:
                self._loop.run_until_complete(self._main(disk))
                if world.violation is None:
                    with world.judged():
                        audit_database(disk.path, world.on_disk)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told with its seed
                world.fail(f"{type(error).__name__}: {error}")
            finally:
                self._close_loop()
        ends = Counter(order.end.value if order.end else "open" for order in world.on_disk.values())
        counts = Counter(world.faults.counts)
        counts["restart"] = self.starts - 1
        return Outcome(self.seed, world.violation, ends, counts, world.transcript)

    @contextlib.contextmanager
    def _environment(self) -> Iterator[None]:
        """Order ids from the seed, and the daemon's log nowhere, or in the story."""
        before = structlog.get_config()
        level = logging.WARNING if self.world.is_traced else logging.ERROR
        structlog.configure(processors=[self._log], wrapper_class=structlog.make_filtering_bound_logger(level))
        ids_from_the_seed = patch.object(desk_module, "secrets", self.world.rng)
        fewer_passes = patch.object(engine_module, "PASS_INTERVAL_S", PASS_S)
        with ids_from_the_seed, fewer_passes:
            try:
                yield
            finally:
                structlog.configure(**before)

    def _log(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        error = event.get("exc_info")
        if isinstance(error, Exception) and str(error) != DEFECT:
            self.world.fail(f"a task died of its own: {error!r}")
        words = " ".join(f"{key}={value}" for key, value in event.items() if key != "event" and value)
        self.world.tell(f"log: {method} {event['event']} {words}".rstrip())
        raise structlog.DropEvent

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Killed):
            self.world.fail(f"unhandled: {context['message']}: {error!r}")

    def _close_loop(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        with contextlib.suppress(HotLoop, Deadlock):
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    # --- the two phases -----------------------------------------------------------------------------------------------

    async def _main(self, disk: Disk) -> None:
        world = self.world
        manager = self._begin(self._service_manager(disk), "service manager")
        clients = [self._begin(self._client(number), "buyer") for number in range(self._wanted)]
        self._plan_troubles()
        await self._until(START_MS + PHASE_ONE_MS)
        self._faults_stop()
        await self._until(START_MS + PHASE_TWO_MS)
        # What is still on its way after the last close must not find money out.
        await asyncio.sleep(AFTERMATH_MS / 1000)
        if world.violation is None:
            with world.judged():
                world.auditor.at_the_end(world.on_disk, self._codes())
                self._judge_clients()
        manager.cancel()
        for client in clients:
            client.cancel()
        await asyncio.wait({manager, *clients})
        if self.process is not None and self.process.is_alive:
            self.process.stop()

    def _begin(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task of the world, not of the daemon."""
        task = asyncio.create_task(coroutine, name=name)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.world.fail(f"{type(error).__name__}: {error}")

    async def _until(self, until_ms: int) -> None:
        """Until the time, or until every order has ended, or a law was broken."""
        world = self.world
        while not self._is_over() and (left_ms := until_ms - world.heap.now_ms) > 0:
            world.changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_ms / 1000):
                    await world.changed.wait()

    def _is_over(self) -> bool:
        world = self.world
        if world.violation is not None:
            return True
        return len(self._accepted) == self._wanted and all(order.is_closed for order in world.on_disk.values())

    def _faults_stop(self) -> None:
        world = self.world
        world.tell("-- faults stop --")
        world.faults.is_calm = True
        world.is_provider_down = False
        engine_module.PASS_INTERVAL_S = CALM_PASS_S
        world.swap_node(NODE)
        world.lnd.come_up()
        world.heap.after(OPERATOR_MS, self._operate)

    def _operate(self) -> None:
        """The operator does what the daemon asks for: the node that paid an open order is put back."""
        payers = {
            order.payment.node_pubkey for order in self.world.on_disk.values() if order.payment and order.is_money_out
        }
        there = self.world.address
        if OTHER_NODE.pubkey in payers:
            self.world.swap_node(OTHER_NODE if there == NODE else NODE)
        else:
            self.world.swap_node(NODE)
        self.world.heap.after(OPERATOR_MS, self._operate)

    def _codes(self) -> dict[str, str]:
        return {order_id: order.code for order_id, order in self.world.provider.orders.items() if order.code}

    def _judge_clients(self) -> None:
        if set(self._accepted.values()) != set(self.world.on_disk):
            raise Violation(f"{self._wanted} requests made {len(self.world.on_disk)} orders")

    # --- the service manager and the clients --------------------------------------------------------------------------

    async def _service_manager(self, disk: Disk) -> None:
        world = self.world
        while True:
            if world.hits("clock_step"):
                self._offset_ms = world.rng.choice(CLOCK_STEPS_MS)
                world.tell(f"the wall clock is {self._offset_ms / 1000:.0f} s off from here on")
            self.starts += 1
            world.tell("the daemon starts")
            self.process = Process(world, disk, self._offset_ms)
            await self.process.live()
            await asyncio.sleep(world.rng.choice(RESTART_DELAYS_MS) / 1000)

    async def _client(self, number: int) -> None:
        """Asks until it has an answer, with the same key; now and then it asks twice, or has its answer lost."""
        world = self.world
        request = CodeRequest(
            country="187",
            service="oi",
            max_price_sat=None,
            max_fee_sat=world.rng.choice((20, 20, 20, 2)),
            key=f"key{number}",
            force=False,
        )
        await asyncio.sleep(world.rng.randrange(MINUTE_MS) / 1000)
        key = request.key
        while key not in self._accepted or world.hits("lost_reply"):
            for order in await self._ask(request, times=2 if world.hits("lost_reply") else 1):
                with world.judged():
                    if self._accepted.setdefault(key, order.id) != order.id:
                        raise Violation(f"one request became two orders, {self._accepted[key]} and {order.id}")
                world.changed.set()
            await asyncio.sleep(world.rng.randrange(20_000) / 1000)
        if world.hits("client_cancel"):
            await asyncio.sleep(world.rng.randrange(world.rng.choice((1, 3, 10)) * MINUTE_MS) / 1000)
            while not await self._ask_to_cancel(self._accepted[key]):
                await asyncio.sleep(5)

    async def _ask(self, request: CodeRequest, *, times: int) -> list[Order]:
        process = self.process
        if process is None or not process.is_alive:
            return []
        return await process.call(request.key, *(process.desk.request_code(request) for _ in range(times)))

    async def _ask_to_cancel(self, order_id: str) -> list[Order]:
        process = self.process
        if process is None or not process.is_alive:
            return []
        return await process.call(order_id, process.cancel_order(order_id))

    # --- troubles -----------------------------------------------------------------------------------------------------

    def _plan_troubles(self) -> None:
        self._each_minute("lnd_down", self._lnd_down)
        self._each_minute("wrong_node", self._wrong_node)
        self._each_minute("provider_down", self._provider_down)
        self._each_minute("kill", lambda: self._on_process(lambda process: process.kill("at some moment")))
        self._each_minute("stop", lambda: self._on_process(Process.stop))
        self._each_minute("task_cancel", lambda: self._on_process(Process.cancel_some_task))

    def _each_minute(self, fault: str, trouble: Callable[[], None]) -> None:
        for minute in range(PHASE_ONE_MS // MINUTE_MS):
            if self.world.hits(fault):
                at_ms = START_MS + minute * MINUTE_MS + self.world.rng.randrange(MINUTE_MS)
                self.world.heap.at(at_ms, self._unless_calm(trouble))

    def _unless_calm(self, trouble: Callable[[], None]) -> Callable[[], None]:
        return lambda: None if self.world.faults.is_calm else trouble()

    def _on_process(self, trouble: Callable[[Process], None]) -> None:
        if self.process is not None and self.process.is_alive:
            trouble(self.process)

    def _lnd_down(self) -> None:
        self.world.tell("lnd goes down")
        self.world.lnd.go_down()
        self.world.heap.after(self.world.faults.lnd_down_ms, self._lnd_up)

    def _lnd_up(self) -> None:
        if self.world.address == NODE:
            self.world.lnd.come_up()

    def _wrong_node(self) -> None:
        self.world.swap_node(OTHER_NODE)
        self.world.heap.after(self.world.faults.wrong_node_ms, self._unless_calm(lambda: self.world.swap_node(NODE)))

    def _provider_down(self) -> None:
        self.world.tell("the provider goes down")
        self.world.is_provider_down = True
        self.world.heap.after(self.world.faults.provider_down_ms, self._provider_up)

    def _provider_up(self) -> None:
        self.world.is_provider_down = False
