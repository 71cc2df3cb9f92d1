"""The world around the real daemon: virtual time, the parties of the core simulation, the judge, and the story told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

from holdpay.core.holds import HoldCaps
from holdpay.core.lightning import DispatchSpec, FailureReason, NodeIdentity
from holdpay.core.model import Order
from holdpay.core.states import HtlcState
from holdpay.ports import Limits
from tests.simulation.auditor import Auditor, Violation
from tests.simulation.budgets import DEAREST_SAT, BudgetBook, draw_budgets
from tests.simulation.daemon import NODE
from tests.simulation.heap import START_MS, Heap
from tests.simulation.parties import LndPayment, SimLnd, Truth
from tests.simulation.provider import HOUR_MS, SimProvider
from tests.simulation.shell_faults import ShellFaults, draw_shell
from tests.virtual_loop import VirtualLoop

CLOCK_OFF_MS = 2 * HOUR_MS
"""As much later, or earlier, than it was set before the daemon may find its clock: see ``shell.CLOCK_STEPS_MS``."""
CAPS = (
    HoldCaps(),
    HoldCaps(max_orders=1),
    HoldCaps(max_orders=2),
    HoldCaps(max_channel_orders=1),
)
"""lnd has one channel here, so that the cap of each is one of all."""
AMPLE = Limits(max_open_orders=10, max_pending_sat=100_000, max_spend_per_day_sat=100_000)
LIMITS = (
    AMPLE,
    AMPLE,
    replace(AMPLE, max_open_orders=1),
    replace(AMPLE, max_pending_sat=2 * DEAREST_SAT),
    replace(AMPLE, max_spend_per_day_sat=2 * DEAREST_SAT - 1),
)
"""What all clients together may do."""
OTHER_NODE = NodeIdentity("03" + "33" * 32, NODE.network)
"""A second node of the user, without channels, that is sometimes found at lnd's address."""


class LoopHeap(Heap):
    """The parties' actions as timers of the virtual loop, on which the daemon's own tasks run.

    ``grain_ms``: what comes from outside comes at multiples of it, so that much of it comes at once.
    """

    def __init__(self, rng: Random, loop: VirtualLoop) -> None:
        super().__init__(rng)
        self._loop = loop
        self.grain_ms = rng.choice((1, 20, 100, 500))

    @property
    def now_ms(self) -> int:
        return START_MS + self._loop.now_ms

    def at(self, time_ms: int, action: Callable[[], object]) -> None:
        late_ms = -(max(time_ms, self.now_ms) - START_MS) % self.grain_ms
        self._loop.call_at((max(time_ms, self.now_ms) + late_ms - START_MS) / 1000, action)

    def run(self, until_ms: int, is_done: Callable[[], bool]) -> None:
        raise NotImplementedError("the loop runs by itself")


class BareLnd(SimLnd):
    """An lnd without channels: it takes a payment, and finds no route."""

    def _route(self, spec: DispatchSpec, truth: Truth, payment: LndPayment) -> None:
        self._fail(truth, payment, FailureReason.NO_ROUTE, ())


class World:
    """What every part of a shell simulation shares."""

    def __init__(self, seed: int, loop: VirtualLoop, *, is_traced: bool) -> None:
        self.rng = Random(seed)
        self.faults: ShellFaults = draw_shell(self.rng)
        self.busy = Random(f"busy {seed}")
        """Of its own, so that a busy daemon and one that is not live in the same world."""
        self.busy_share = self.busy.choice((0.0, 0.0, 0.5))
        """Of the turns of the daemon's loop: what came meanwhile is ready all at once."""
        self.caps = Random(f"caps {seed}").choice(CAPS)
        self.limits = Random(f"limits {seed}").choice(LIMITS)
        self.budgets, self.shopping = draw_budgets(seed)
        """What each client may spend, and the chance by which its buyers come. Empty: all buyers are the operator."""
        self.heap = LoopHeap(self.rng, loop)
        self.lnd = SimLnd(self.heap, self.faults)
        other = BareLnd(self.heap, self.faults)
        other.truths = self.lnd.truths
        self.lnds: dict[NodeIdentity, SimLnd] = {NODE: self.lnd, OTHER_NODE: other}
        self.lnd.is_known = self._is_known
        self.address = NODE
        """The node that answers at lnd's address."""
        self.provider = SimProvider(self.heap, self.faults, self.lnd)
        self.is_provider_down = False
        self.auditor = Auditor(self.lnd.truths, self.provider, lambda: self.heap.now_ms, CLOCK_OFF_MS)
        caps = self.caps
        self.auditor.max_places = caps.max_orders
        self.auditor.max_holds = caps.max_orders if caps.max_channel_orders is None else caps.max_channel_orders
        self.budget_book = BudgetBook(self, self.budgets, CLOCK_OFF_MS, self.limits)
        self.on_disk: dict[str, Order] = {}
        """What the judge saw being committed: a restart must find exactly this."""
        self.changed = asyncio.Event()
        """Set when an order was recorded or closed, or a law was broken."""
        self.violation: str | None = None
        self.is_traced = is_traced
        self.transcript: list[str] = []

    # --- chance -------------------------------------------------------------------------------------------------------

    def hits(self, fault: str) -> bool:
        return self.faults.hits(self.rng, fault)

    async def lag(self, up_to_ms: int) -> None:
        over = asyncio.Event()
        self.heap.lagged(up_to_ms, over.set)
        await over.wait()

    def _is_known(self, payment_hash: str) -> bool:
        payments = [order.payment for order in self.on_disk.values() if order.payment is not None]
        return any(p.payment_hash == payment_hash and p.htlc is HtlcState.IN_FLIGHT for p in payments)

    # --- the node at lnd's address ------------------------------------------------------------------------------------

    @property
    def lnd_there(self) -> SimLnd:
        return self.lnds[self.address]

    def swap_node(self, identity: NodeIdentity) -> None:
        """Another node is started at lnd's address; the one before is off meanwhile."""
        if identity != self.address:
            self.tell(f"node {identity.pubkey[:6]}… is at lnd's address now")
            self.lnd_there.go_down()
            self.address = identity
            self.lnd_there.come_up()

    # --- the judge ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def judged(self) -> Iterator[None]:
        """A Violation inside is kept, whoever swallows it later."""
        try:
            yield
        except Violation as violation:
            self.fail(f"Violation: {violation}")
            raise

    def fail(self, violation: str) -> None:
        if self.violation is None:
            self.violation = violation
            self.tell(violation)
        self.changed.set()

    # --- the story ----------------------------------------------------------------------------------------------------

    def tell(self, line: str) -> None:
        if self.is_traced:
            seconds = (self.heap.now_ms - START_MS) / 1000
            self.transcript.append(f"{seconds:12.3f}  {line}")
