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
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from holdpay._pb.v1 import holdpay_pb2_grpc as pb_grpc
from holdpay.sandbox.lnd_model import FailureCode
from holdpay.sandbox.sms4sats_knobs import Knobs, Scenario
from holdpay.sandbox.world import SandboxWorld
from tests.books import Books, JournalOrder
from tests.customers import Crowd
from tests.killing import AfterEvent, AfterStart, AtWrite, Life, Moment, live_and_die, open_line, quicken
from tests.ledgers import provider_orders, read_journal, sandbox_payments
from tests.nursery import Nursery, open_nursery
from tests.reconcile import reconcile
from tests.regtest.process import free_port

LEAST_KILLS = 50
"""That came at their moment."""
PACE = 30.0
CROWD = 14
"""Orders at a time; when one is over, the next one comes."""
END_WITHIN_S = 180.0
COMES_WITHIN_S = 15.0
"""A moment that does not come is waited for so long; many times what a quiet machine needs."""
LATE_SEND_S = 1.2
"""Longer than a restart of the daemon takes, and shorter than what it takes for a proof of absence."""

CONFIG = """
[limits]
max_open_orders = 1000
max_pending_sat = 10000000
max_spend_per_day_sat = 100000000
[payment]
pay_within_s = 30
close_unpaid_after_s = 1
retry_delays_s = [0, 1]
max_dispatches = 20
confirm_unpaid_s = 1
prove_absent_s = 2
settled_grace_s = 4
"""

WAYS = {
    "code": Scenario(),
    "quick code": Scenario(number_after_s=5, code_after_s=10),
    "slow code": Scenario(code_after_s=90, as_numbers=False),
    "other order id": Scenario(other_order_id=True),
    "provider flips": Scenario(flips=True),
    "settled late": Scenario(settle_lag_s=60),
    "settled before the code": Scenario(code_after_s=60, settle_lag_s=-30),
    "settled without a code": Scenario(code_after_s=10_000, settle_lag_s=-9_980),
    "no number": Scenario(no_number=True, gives_up_after_s=30),
    "no number, money back late": Scenario(no_number=True, gives_up_after_s=20, cancel_lag_s=45),
    "no number, money back first": Scenario(no_number=True, gives_up_after_s=60, cancel_lag_s=-30),
    "no code": Scenario(no_code=True, gives_up_after_s=60),
    "no code for long": Scenario(no_code=True, gives_up_after_s=200),
    "overpriced": Scenario(overprice_percent=10),
}
"""How orders go, in seconds of the provider's clock."""

MUST_END = {"fulfilled", "refunded"}
"""Ends that every run shows. The rarer ones are drawn by chance, and a quick machine has fewer orders to draw."""


MUST_DIE_AFTER = {
    "order_requested",
    "order_placed",
    "invoice_decoded",
    "dispatch_intended",
    "payment_reported",
    "provider_replied",
    "daemon_restarted",
    "cancel_requested",
}
"""Each of these is the last thing that some daemon wrote down, in every run."""


class Town:
    """The sandbox, its customers, and the daemon that is killed."""

    def __init__(self, world: SandboxWorld, nursery: Nursery, line: pb_grpc.HoldpayAsyncStub, seed: int) -> None:
        self.world = world
        self.crowd = Crowd(line, CROWD, seed)
        self._nursery = nursery
        self._line = line
        self._seed = seed
        self._cursor = 0
        self.died_after: set[str] = set()
        self._opened_with_msat = self._local_msat()
        self._state_dir = world.directory / "state"
        self._state_dir.mkdir(mode=0o700)
        ways = random.Random(f"{seed} ways")
        for _ in range(50):
            world.provider.knobs.queue.extend(ways.sample(list(WAYS.values()), len(WAYS)))

    async def live_and_die(self, moment: Moment) -> bool:
        """One life of the daemon, and the books after it."""
        life = Life(self._line, self._state_dir, self._cursor)
        has_come = await live_and_die(await self._nursery.launch(), life, moment)
        if has_come and isinstance(moment, AfterEvent):
            self.died_after.add(moment.event)
        await self.audit(is_over=False, when=f"killed {moment}")
        return has_come

    async def audit(self, *, is_over: bool, when: str) -> tuple[JournalOrder, ...]:
        """Compares the three books, while the daemon is dead. Returns the journal."""
        journal = read_journal(self._state_dir / "holdpay.db")
        self._cursor = max((row.cursor for order in journal for row in order.rows), default=0)
        books = Books(
            journal=journal,
            lnd=sandbox_payments(self.world),
            provider=await provider_orders(self.world.provider.orders.values(), self.world.payee),
            gone_msat=self._opened_with_msat - self._local_msat(),
        )
        found = reconcile(books, is_over=is_over)
        assert not found, f"seed {self._seed}, {when}:\n" + "\n".join(map(str, found))
        return journal

    def _local_msat(self) -> int:
        return sum(channel.local_msat for channel in self.world.lnd.network.channels.values())


class Troubles:
    """What goes wrong with the others meanwhile."""

    def __init__(self, town: Town, seed: int) -> None:
        self._town = town
        self._lnd = town.world.lnd
        self._knobs = town.world.provider.knobs
        self._rng = random.Random(f"{seed} troubles")
        self._is_lnd_dead = asyncio.Lock()
        self._are_over = False
        self._going_on = [asyncio.ensure_future(self._go_on())]

    def check(self) -> None:
        """Raises what went wrong in making trouble."""
        for trouble in self._going_on:
            if trouble.done():
                trouble.result()

    async def end(self) -> None:
        """Returns when all is well."""
        self._are_over = True
        await asyncio.gather(*self._going_on)
        fresh = Knobs()
        for name in ("refuse_orders", "http_429", "http_500", "garbage", "only_path"):
            setattr(self._knobs, name, getattr(fresh, name))
        self._lnd.fail_routing(0)
        self._lnd.set_knobs(send_delay_s=0)

    async def _go_on(self) -> None:
        kinds: list[Callable[[], Awaitable[None]]] = [
            self.lnd_dies,
            self.payee_leaves,
            self.htlcs_fail_on_their_way,
            self.a_request_is_refused,
            self.a_request_finds_no_server,
            self.replies_are_garbage,
            self.requests_are_too_many,
        ]
        while not self._are_over:
            self._rng.shuffle(kinds)
            for trouble in kinds:
                await trouble()
                await asyncio.sleep(self._rng.uniform(0.5, 2))
                if self._are_over:
                    return

    async def lnd_dies(self) -> None:
        async with self._is_lnd_dead:
            await self._lnd.kill()
            await asyncio.sleep(self._rng.uniform(0.05, 0.5))
            await self._lnd.start()

    async def payee_leaves(self) -> None:
        self._lnd.set_online("payee", online=False)
        await asyncio.sleep(self._rng.uniform(0.05, 0.5))
        self._lnd.set_online("payee", online=True)

    async def htlcs_fail_on_their_way(self) -> None:
        """In our own channel as a rule: after a failure beyond it lnd finds no route for 180 s of its clock."""
        index = 1 if self._rng.random() < 0.2 else 0
        self._lnd.fail_routing(self._rng.randint(1, 3), FailureCode.TEMPORARY_CHANNEL_FAILURE, index)

    async def a_request_is_refused(self) -> None:
        self._knobs.refuse_orders += 1
        self._town.crowd.come()

    async def a_request_finds_no_server(self) -> None:
        self._knobs.only_path, self._knobs.http_500 = "/createorder", 1
        self._town.crowd.come()

    async def replies_are_garbage(self) -> None:
        self._knobs.only_path, self._knobs.garbage = "/orderstatus", 2

    async def requests_are_too_many(self) -> None:
        self._knobs.only_path, self._knobs.http_429 = "/orderstatus", 1

    async def sends_are_late(self) -> None:
        """A payment that is sent now reaches lnd after the daemon's death and return."""
        self._lnd.set_knobs(send_delay_s=LATE_SEND_S)
        self._town.crowd.come()

    async def sends_are_late_no_more(self) -> None:
        self._lnd.set_knobs(send_delay_s=0)

    async def lnd_dies_before_a_send_arrives(self) -> None:
        async def late() -> None:
            await asyncio.sleep(0.4)
            await self.lnd_dies()
            await self.sends_are_late_no_more()

        await self.sends_are_late()
        self._going_on.append(asyncio.ensure_future(late()))


def plan(seed: int, town: Town, troubles: Troubles) -> list[Moment]:
    """When to kill, life by life."""
    rng = random.Random(f"{seed} moments")

    async def order() -> None:
        town.crowd.come()

    async def cancel() -> None:
        town.crowd.come(cancels_after_s=0.01)

    def after(event: str, provoke: Callable[[], Awaitable[None]] | None = None) -> Moment:
        return AfterEvent(event, rng.choice((0, 0, 0.001, 0.003, 0.008)), COMES_WITHIN_S, provoke)

    stages: list[list[Moment]] = [
        *([after(event, order)] for event in ("order_requested", "order_placed", "invoice_decoded")),
        *([after("dispatch_intended", order)] for _ in range(3)),
        *([after("payment_reported", order)] for _ in range(3)),
        *([after("provider_replied")] for _ in range(3)),
        [after("daemon_restarted")],
        # Surely: what was being sent when the daemon died changes at its restart.
        [
            after("dispatch_intended", troubles.sends_are_late),
            after("daemon_restarted", troubles.sends_are_late_no_more),
        ],
        *([after("cancel_requested", cancel)] for _ in range(2)),
        [after("cancel_answered")],
        [after("provider_confused", troubles.replies_are_garbage)],
        [after("placing_failed", troubles.a_request_finds_no_server)],
        [after("tracking_lost", troubles.lnd_dies_before_a_send_arrives)],
        [after("dispatch_intended", troubles.sends_are_late), after("payment_not_found")],
        [after("dispatch_intended", troubles.sends_are_late), AfterStart(2.5, is_serving=True)],
        [AfterStart(0, is_serving=True), after("payment_not_found", troubles.sends_are_late_no_more)],
        *(singly(AtWrite(int(rng.uniform(1, 8) ** 2), COMES_WITHIN_S)) for _ in range(16)),
        *(singly(AfterStart(rng.uniform(0, 0.4), is_serving=False)) for _ in range(4)),
        *(singly(AfterStart(rng.uniform(0, 0.7), is_serving=True)) for _ in range(10)),
    ]
    rng.shuffle(stages)
    births: list[Moment] = [AtWrite(1, 5.0), AtWrite(2, 5.0)]
    return [*births, *itertools.chain.from_iterable(stages)]


def singly(moment: Moment) -> list[Moment]:
    return [moment]


async def test_whenever_the_daemon_is_killed_nothing_is_lost_and_nothing_is_paid_twice(tmp_path: Path) -> None:
    seed = int(os.environ.get("HOLDPAY_KILL_SEED") or random.SystemRandom().randrange(10**6))
    print(f"HOLDPAY_KILL_SEED={seed} replays this plan; the daemon's log is {tmp_path / 'daemon.log'}")
    began_s = time.monotonic()
    async with (
        SandboxWorld(tmp_path, pace=PACE, extra_config=CONFIG, lnd_port=free_port()) as world,
        open_line(world.socket) as line,
        open_nursery(world.config, tmp_path / "daemon.log") as nursery,
    ):
        quicken(world.config)
        world.provider.knobs.cancel_from_s = 0.9 * PACE
        town = Town(world, nursery, line, seed)
        troubles = Troubles(town, seed)
        kills = await kill_again_and_again(town, troubles, plan(seed, town, troubles))
        await troubles.end()
        last = await nursery.launch()
        assert not await town.crowd.left_after(END_WITHIN_S)
        last.kill()
        await last.wait()
        journal = await town.audit(is_over=True, when="when all was over")
    ends = Counter(order.end for order in journal)
    print(f"{kills} kills, {len(journal)} orders in {time.monotonic() - began_s:.0f} s: {dict(ends)}")
    assert town.crowd.order_ids == {order.id for order in journal}
    assert set(ends) >= MUST_END
    assert town.died_after >= MUST_DIE_AFTER
    assert kills >= LEAST_KILLS


async def kill_again_and_again(town: Town, troubles: Troubles, moments: list[Moment]) -> int:
    """Returns how many kills came at their moment; one whose moment did not come gets a second chance."""
    kills = 0
    missed: list[Moment] = []
    for number, moment in enumerate(itertools.chain(moments, missed)):
        troubles.check()
        town.crowd.fill()
        has_come = await town.live_and_die(moment)
        kills += has_come
        if not has_come and number < len(moments):
            missed.append(moment)
    return kills
