"""The daemon is killed with SIGKILL again and again while orders are in every stage; then three books are compared.

Customers, lnd and the provider live on, have troubles of their own, and come back with the same keys. After each kill
the books are compared (``tests.reconcile``), and at the end, when every order must have ended.

HOLDPAY_KILL_SEED=N replays the plan of a seed: the ways of the orders and the moments to die. How far the processes
get between two of them is the machine's own.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from holdpay._pb.v1 import holdpay_pb2_grpc as pb_grpc
from holdpay.sandbox.lnd_model import FailureCode
from holdpay.sandbox.sms4sats import SERVICES
from holdpay.sandbox.sms4sats_knobs import Knobs, Scenario
from holdpay.sandbox.world import SandboxWorld
from holdpay.sms4sats.catalog import countries
from tests.killing import AfterEvent, AfterStart, AtWrite, Customer, Life, Moment, live_and_die, open_line
from tests.nursery import Nursery, open_nursery
from tests.ledgers import provider_orders, read_journal, sandbox_payments
from tests.reconcile import Books, JournalOrder, reconcile

KILLS = 54
PACE = 30.0
CROWD = 14
"""Customers at a time; when one is done, the next one comes."""
END_WITHIN_S = 40.0
LATE_SEND_S = 1.2
"""Longer than a restart of the daemon takes, shorter than what it takes for a proof of absence."""

CONFIG = """
[limits]
max_open_orders = 1000
max_pending_sat = 10000000
max_spend_per_day_sat = 100000000
[payment]
pay_within_s = 15
close_unpaid_after_s = 1
retry_delays_s = [0, 1]
max_dispatches = 20
confirm_unpaid_s = 1
prove_absent_s = 2
settled_grace_s = 4
"""

WAYS = (
    Scenario(),
    Scenario(number_after_s=5, code_after_s=10),
    Scenario(code_after_s=90, as_numbers=False),
    Scenario(other_order_id=True),
    Scenario(flips=True),
    Scenario(settle_lag_s=60),
    Scenario(code_after_s=60, settle_lag_s=-30),
    Scenario(code_after_s=10_000, settle_lag_s=-9_980),
    Scenario(no_number=True, gives_up_after_s=30),
    Scenario(no_number=True, gives_up_after_s=20, cancel_lag_s=45),
    Scenario(no_number=True, gives_up_after_s=60, cancel_lag_s=-30),
    Scenario(no_code=True, gives_up_after_s=60),
    Scenario(no_code=True, gives_up_after_s=200),
    Scenario(overprice_percent=10),
)
"""How orders go, in seconds of the provider's clock."""

MUST_END = {
    "CODE_RECEIVED",
    "REFUNDED",
    "CANCELED_UNPAID",
    "INVOICE_REJECTED",
    "PROVIDER_REFUSED",
    "CHARGED_WITHOUT_CODE",
}
"""Ends that every run shows, or it did not go through every stage."""


class Town:
    """The sandbox, its customers, and the daemon that is killed."""

    def __init__(self, world: SandboxWorld, nursery: Nursery, line: pb_grpc.HoldpayAsyncStub, seed: int) -> None:
        self.world = world
        self.nursery = nursery
        self.state_dir = world.directory / "state"
        self.customers: list[Customer] = []
        self._line = line
        self._seed = seed
        self._coming: list[asyncio.Task[None]] = []
        self._cursor = 0
        self._goods = self._all_goods()
        self._choices = random.Random(f"{seed} customers")
        self._opened_with_msat = self._local_msat()
        self.state_dir.mkdir(mode=0o700)
        ways = random.Random(f"{seed} ways")
        world.provider.knobs.queue.extend(ways.choice(WAYS) for _ in range(1000))

    def _all_goods(self) -> Iterator[tuple[str, str]]:
        """Each request buys something else, so that a provider order tells whose it is."""
        pairs = list(itertools.product([str(country.code) for country in countries()], SERVICES))
        random.Random(f"{self._seed} goods").shuffle(pairs)
        return iter(pairs)

    # --- customers ---

    def come(self, cancels_after_s: float | None = None) -> None:
        """One more customer."""
        country, service = next(self._goods)
        customer = Customer(self._line, f"kill-{len(self.customers)}", country, service, cancels_after_s)
        self.customers.append(customer)
        self._coming.append(asyncio.ensure_future(customer.run()))

    def fill(self) -> None:
        """As many customers as there is room for. Raises what a customer complains about."""
        for coming in self._coming:
            if coming.done():
                coming.result()
        for _ in range(CROWD - sum(not customer.is_done for customer in self.customers)):
            cancels = self._choices.random() < 0.25
            self.come(self._choices.uniform(0, 2.5) if cancels else None)

    async def all_done(self) -> None:
        try:
            async with asyncio.timeout(END_WITHIN_S):
                await asyncio.gather(*self._coming)
        except TimeoutError:
            open_orders = [customer.order for customer in self.customers if not customer.is_done]
            raise AssertionError(f"not over after {END_WITHIN_S} s: {open_orders}") from None

    # --- the kill ---

    async def live_and_die(self, moment: Moment) -> bool:
        life = Life(self._line, self.state_dir, self._cursor)
        has_come = await live_and_die(await self.nursery.launch(), life, moment)
        await self.audit(is_over=False, when=str(moment))
        return has_come

    async def audit(self, *, is_over: bool, when: str) -> tuple[JournalOrder, ...]:
        """The three books, while the daemon is dead."""
        journal = read_journal(self.state_dir / "holdpay.db")
        self._cursor = max((row.cursor for order in journal for row in order.rows), default=0)
        books = Books(
            journal=journal,
            lnd=sandbox_payments(self.world),
            provider=await provider_orders(self.world.provider.orders.values(), self.world.payee),
            gone_msat=self._opened_with_msat - self._local_msat(),
        )
        found = reconcile(books, is_over=is_over)
        assert not found, f"seed {self._seed}, killed {when}:\n" + "\n".join(map(str, found))
        return journal

    def _local_msat(self) -> int:
        return sum(channel.local_msat for channel in self.world.lnd.network.channels.values())


class Troubles:
    """What goes wrong with the others meanwhile."""

    def __init__(self, town: Town, seed: int) -> None:
        self._world = town.world
        self._town = town
        self._rng = random.Random(f"{seed} troubles")
        self._is_over = asyncio.Event()
        self._going_on = asyncio.ensure_future(self._go_on())

    async def end(self) -> None:
        """Returns when all is well."""
        self._is_over.set()
        await self._going_on
        fresh, knobs = Knobs(), self._world.provider.knobs
        for name in ("refuse_orders", "http_429", "http_500", "garbage", "only_path"):
            setattr(knobs, name, getattr(fresh, name))
        self._world.lnd.network._failures.clear()
        self._world.lnd.set_knobs(send_delay_s=0)

    async def _go_on(self) -> None:
        kinds = (
            self.lnd_dies,
            self.payee_leaves,
            self.htlcs_fail_on_their_way,
            self.orders_are_refused,
            self.orders_find_no_server,
            self.replies_are_garbage,
            self.replies_are_too_many,
        )
        while not self._is_over.is_set():
            await self._rng.choice(kinds)()
            await asyncio.sleep(self._rng.uniform(0.5, 3))

    async def lnd_dies(self) -> None:
        await self._world.lnd.kill()
        await asyncio.sleep(self._rng.uniform(0.05, 0.5))
        await self._world.lnd.start()

    async def payee_leaves(self) -> None:
        self._world.lnd.set_online("payee", online=False)
        await asyncio.sleep(self._rng.uniform(0.05, 0.5))
        self._world.lnd.set_online("payee", online=True)

    async def htlcs_fail_on_their_way(self) -> None:
        """In our own channel as a rule: after a failure beyond it lnd finds no route for 180 s of its clock."""
        index = 1 if self._rng.random() < 0.2 else 0
        self._world.lnd.fail_routing(self._rng.randint(1, 3), FailureCode.TEMPORARY_CHANNEL_FAILURE, index)

    async def orders_are_refused(self) -> None:
        self._world.provider.knobs.refuse_orders += 1
        self._town.come()

    async def orders_find_no_server(self) -> None:
        self._provider("/createorder", http_500=1)
        self._town.come()

    async def replies_are_garbage(self) -> None:
        self._provider("/orderstatus", garbage=2)

    async def replies_are_too_many(self) -> None:
        self._provider("/orderstatus", http_429=1)

    async def sends_are_late(self) -> None:
        """A payment that is sent now reaches lnd after the daemon's death and return."""
        self._world.lnd.set_knobs(send_delay_s=LATE_SEND_S)
        self._town.come()

    async def sends_are_late_no_more(self) -> None:
        self._world.lnd.set_knobs(send_delay_s=0)

    async def lnd_dies_before_a_send_arrives(self) -> None:
        await self.sends_are_late()
        await asyncio.sleep(0.4)
        await self.lnd_dies()
        await self.sends_are_late_no_more()

    def _provider(self, path: str, **faults: int) -> None:
        self._world.provider.knobs.only_path = path
        for name, times in faults.items():
            setattr(self._world.provider.knobs, name, times)


def plan(seed: int, town: Town, troubles: Troubles) -> list[Moment]:
    """When to kill, life by life."""
    rng = random.Random(f"{seed} moments")

    async def order() -> None:
        town.come()

    async def cancel() -> None:
        town.come(cancels_after_s=0.01)

    def after(event: str, provoke: Callable[[], Awaitable[None]] | None = None) -> Moment:
        return AfterEvent(event, rng.choice((0, 0, 0.001, 0.003, 0.008)), 2.5, provoke)

    stages: list[list[Moment]] = [
        *([after(event, order)] for event in ("order_requested", "order_placed", "invoice_decoded")),
        *([after("dispatch_intended", order)] for _ in range(3)),
        *([after("payment_reported", order)] for _ in range(3)),
        *([after("provider_replied")] for _ in range(3)),
        *([after("daemon_restarted")] for _ in range(2)),
        *([after("cancel_requested", cancel)] for _ in range(2)),
        [after("cancel_answered")],
        [after("provider_confused", troubles.replies_are_garbage)],
        [after("placing_failed", troubles.orders_find_no_server)],
        [after("tracking_lost", troubles.lnd_dies_before_a_send_arrives)],
        *(
            [after("dispatch_intended", troubles.sends_are_late), after("payment_not_found", troubles.sends_are_late_no_more)]
            for _ in range(2)
        ),
        *([AtWrite(int(rng.uniform(1, 8) ** 2), 3.0)] for _ in range(14)),
        *([AfterStart(rng.uniform(0.2, 1.2), is_serving=False)] for _ in range(3)),
        *([AfterStart(rng.uniform(0, 0.7), is_serving=True)] for _ in range(9)),
        [AfterStart(3, is_serving=True)],
    ]
    rng.shuffle(stages)
    births: list[Moment] = [AtWrite(1, 5.0), AtWrite(2, 5.0)]
    return [*births, *itertools.chain.from_iterable(stages)]


def quicker(config: Path) -> None:
    """Cancels and tries that the provider's own times make too long for a test."""
    text = config.read_text()
    text = re.sub(r"cancel_after_s = .*", "cancel_after_s = 1\nplace_retry_s = 1", text)
    config.write_text(re.sub(r"requests_per_s = .*", "requests_per_s = 200", text))


async def test_whenever_the_daemon_is_killed_nothing_is_lost_and_nothing_is_paid_twice(tmp_path: Path) -> None:
    seed = int(os.environ.get("HOLDPAY_KILL_SEED") or random.SystemRandom().randrange(10**6))
    print(f"HOLDPAY_KILL_SEED={seed} replays this plan")
    started_s = time.monotonic()
    async with (
        SandboxWorld(tmp_path, pace=PACE, extra_config=CONFIG) as world,
        open_line(world.socket) as line,
        open_nursery(world.config, tmp_path / "daemon.log") as nursery,
    ):
        quicker(world.config)
        world.provider.knobs.cancel_from_s = 15
        town = Town(world, nursery, line, seed)
        troubles = Troubles(town, seed)
        seen: Counter[str] = Counter()
        missed: list[str] = []
        moments = plan(seed, town, troubles)
        for number, moment in enumerate(moments):
            town.fill()
            t=time.monotonic()
            has_come = await town.live_and_die(moment)
            print(f"{time.monotonic()-started_s:.1f} {number} {moment}: {'died' if has_come else 'missed'} {time.monotonic()-t:.2f} open {sum(not c.is_done for c in town.customers)} of {len(town.customers)} {Counter(c.order.phase for c in town.customers if not c.is_done)}")
        await troubles.end()
        last = await nursery.launch()
        await town.all_done()
        last.kill()
        await last.wait()
        journal = await town.audit(is_over=True, when="at the end")
        print(Counter(order.end for order in journal), len(journal), len(town.customers), time.monotonic()-started_s)
        print(Counter(row.event for order in journal for row in order.rows))
