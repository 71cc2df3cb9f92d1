"""One seed of the shell simulation: the real engine, supervisor, performers and SQLite store on virtual time.

Phase one under faults: safety. Phase two without: everything must end. Then the database is audited by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, MutableMapping
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import structlog

from holdpay.core.charge import ChargeState
from holdpay.core.events import Resolution, Resolved
from holdpay.core.kinds import rental
from holdpay.core.kinds.spec import KindName
from holdpay.core.model import OPERATOR, Order
from holdpay.engine import desk as desk_module
from holdpay.engine import engine as engine_module
from holdpay.engine.wanted import Asked, CodeWanted, FundWanted, Wanted
from holdpay.errors import LimitExceeded, NotAllowed
from tests.simulation.auditor import Violation
from tests.simulation.books import audit_database
from tests.simulation.budgets import PATIENCE_MS, is_no_dearer_than_a_code
from tests.simulation.core import AFTERMATH_MS, PHASE_ONE_MS, PHASE_TWO_MS, Outcome
from tests.simulation.daemon import NODE
from tests.simulation.disk import Disk, temporary_disk
from tests.simulation.heap import START_MS
from tests.simulation.parties import MINUTE_MS
from tests.simulation.ports import DEFECT
from tests.simulation.process import Killed, Process
from tests.simulation.provider import HOUR_MS, WEEK_MS
from tests.simulation.turns import draw_strategy_wanted
from tests.simulation.wanted import draw_wanted
from tests.simulation.world import OTHER_NODE, World
from tests.virtual_loop import Deadlock, HotLoop, VirtualLoop

RESTART_DELAYS_MS = (0, 500, 5_000, 120_000)
CLOCK_STEPS_MS = (-3_600_000, -30_000, 30_000, 600_000, 3_600_000)
PREPAID_SHARES = (0.0, 0.3, 0.9)
"""Of the orders of a seed that may be paid so."""
OPERATOR_MS = 15 * MINUTE_MS
PASS_S = 5.0
CALM_PASS_S = 900.0
"""Days pass in phase two; deadlines may be seen later there."""
CALM_POLL_S = 45 * 60.0
"""And a number that is rented for weeks is asked for less often."""
MOST_TURNS = 100_000
"""Of the loop. A seed takes some thousand."""
UNKNOWN_MS = 2 * HOUR_MS
"""So long the operator leaves it to the balance to tell what became of a charge."""


class ShellSimulation:
    """A world from a seed, with the daemon in it."""

    def __init__(self, seed: int, *, trace: bool = False) -> None:
        self.seed = seed
        self._loop = VirtualLoop(MOST_TURNS)
        self._loop.set_exception_handler(self._unhandled)
        self.world = World(seed, self._loop, is_traced=trace)
        self.process: Process | None = None
        self.starts = 0
        self._wanted = self.world.rng.choice((1, 2, 3))
        if self.world.budgets:
            self._wanted += self.world.shopping.choice((1, 2, 3, 4))
        self._accepted: dict[str, str] = {}
        """Order id by the client's key."""
        self._over_budget: set[str] = set()
        """Keys of buyers to whom the latest answer was that a limit is reached."""
        self._not_allowed: set[str] = set()
        """Keys of buyers who were told that their client may not have that, ever."""
        self._gave_up = 0
        """Buyers who have left after either."""
        self._offset_ms = 0
        self._prepaid_share = self.world.rng.choice(PREPAID_SHARES)

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
        with ids_from_the_seed, fewer_passes, patch.object(rental, "_POLL_MAX_S", rental._POLL_MAX_S):
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
        # What is cut off here tells nothing of the daemon, whenever Python finds it.
        self._loop.set_exception_handler(lambda loop, context: None)
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
                world.auditor.at_the_end(world.on_disk)
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
        answered = len(self._accepted) + self._gave_up
        return answered == self._wanted and all(
            order.is_closed and not order.is_going_on for order in world.on_disk.values()
        )

    def _faults_stop(self) -> None:
        world = self.world
        world.tell("-- faults stop --")
        world.faults.is_calm = True
        world.is_provider_down = False
        world.auditor.calm_since_ms = world.heap.now_ms
        engine_module.PASS_INTERVAL_S = CALM_PASS_S
        rental._POLL_MAX_S = CALM_POLL_S
        world.provider.filled_up()
        self._restart_now_and_then()
        world.swap_node(NODE)
        world.lnd.come_up()
        world.heap.after(OPERATOR_MS, self._operate)

    def _operate(self) -> None:
        """The operator does what the daemon asks for: the node that paid an open order is put back; and what nobody
        else can tell of a charge is looked up at the provider."""
        payers = {
            order.payment.node_pubkey for order in self.world.on_disk.values() if order.payment and order.is_money_out
        }
        there = self.world.address
        if OTHER_NODE.pubkey in payers:
            self.world.swap_node(OTHER_NODE if there == NODE else NODE)
        else:
            self.world.swap_node(NODE)
        for order in list(self.world.on_disk.values()):
            self._look_up(order)
        self.world.heap.after(OPERATOR_MS, self._operate)

    def _look_up(self, order: Order) -> None:
        charge, process = order.charge, self.process
        if order.is_closed or charge is None or charge.state is not ChargeState.UNKNOWN or process is None:
            return
        if process.is_alive and self.world.heap.now_ms - charge.intended_at_ms > UNKNOWN_MS:
            is_taken = any(spend.state == "taken" for spend in self.world.provider.spends.get(order.id, []))
            truth = Resolution.SETTLED if is_taken else Resolution.FAILED
            word = self.world.rng.choice((truth, Resolution.WRITTEN_OFF))
            said = Resolved(word, by="ann", why="looked at the provider's page")
            self._begin(self._resolve(process, order.id, said), "operator")

    async def _resolve(self, process: Process, order_id: str, said: Resolved) -> None:
        await process.call(order_id, process.resolve_order(order_id, said))

    def _restart_now_and_then(self) -> None:
        """A number is rented for weeks, in which machines are started anew. Without one nobody does that: what only a
        new start takes up again never ends then."""
        rng, heap = self.world.rng, self.world.heap
        heap.after(rng.randrange(WEEK_MS), self._while_rented(Process.stop))
        heap.after(rng.randrange(WEEK_MS), self._while_rented(lambda process: process.kill("at some moment")))

    def _while_rented(self, trouble: Callable[[Process], None]) -> Callable[[], None]:
        def make() -> None:
            open_orders = (order for order in self.world.on_disk.values() if not order.is_closed)
            if any(order.spec.kind is KindName.RENTAL for order in open_orders):
                self._on_process(trouble)

        return make

    def _judge_clients(self) -> None:
        if set(self._accepted.values()) != {order.request.id for order in self.world.on_disk.values()}:
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
        wanted = draw_wanted(world.rng)
        patient_until_ms = START_MS + world.shopping.choice(PATIENCE_MS)
        asked = Asked(
            client=world.shopping.choice((*world.budgets, *world.budgets, OPERATOR)),
            key=f"key{number}",
            max_fee_sat=world.rng.choice((20, 20, 20, 2)),
            is_prepaid=not isinstance(wanted, FundWanted) and world.rng.random() < self._prepaid_share,
        )
        if isinstance(wanted, CodeWanted) and not asked.is_prepaid:
            wanted = replace(wanted, strategy=draw_strategy_wanted(world.rng))
        await asyncio.sleep(world.rng.randrange(MINUTE_MS) / 1000)
        key = asked.key
        while key not in self._accepted or world.hits("lost_reply"):
            is_over_budget = key in self._over_budget and world.heap.now_ms > patient_until_ms
            if is_over_budget or key in self._not_allowed:
                self._gave_up += 1
                world.changed.set()
                return
            self._over_budget.discard(key)
            for order in await self._ask(asked, wanted, times=2 if world.hits("lost_reply") else 1):
                with world.judged():
                    if self._accepted.setdefault(key, order.request.id) != order.request.id:
                        raise Violation(f"one key became two requests, {self._accepted[key]} and {order.request.id}")
                world.changed.set()
            await asyncio.sleep(world.rng.randrange(20_000) / 1000)
        if world.hits("client_cancel"):
            await asyncio.sleep(world.rng.randrange(world.rng.choice((1, 3, 10)) * MINUTE_MS) / 1000)
            while not await self._ask_to_cancel(self._accepted[key]):
                await asyncio.sleep(5)

    async def _ask(self, asked: Asked, wanted: Wanted, *, times: int) -> list[Order]:
        process = self.process
        if process is None or not process.is_alive:
            return []
        return await process.call(asked.key, *(self._submit(process, asked, wanted) for _ in range(times)))

    async def _submit(self, process: Process, asked: Asked, wanted: Wanted) -> Order:
        try:
            return await process.desk.submit(asked, wanted)
        except NotAllowed:
            self._not_allowed.add(asked.key)
            with self.world.judged():
                self.world.budget_book.not_allowed(asked.client, wanted)
            raise
        except LimitExceeded as error:
            if not error.metadata["limit"].startswith("holds."):
                self._over_budget.add(asked.key)
            is_own = error.metadata["limit"].startswith(f"client.{asked.client}.")
            if is_own and is_no_dearer_than_a_code(wanted):
                with self.world.judged():
                    limit_sat = int(error.metadata["limit_sat"])
                    self.world.budget_book.refused(asked.client, self.world.on_disk.values(), limit_sat)
            raise

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
        self._each_minute("others_spend", self.world.provider.others_move_balance)
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
