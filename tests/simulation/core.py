"""One seed of the core simulation: phase one under faults (safety), phase two without (liveness)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from holdpay.core import machine
from holdpay.core.charge import ChargeState
from holdpay.core.events import Resolution, Resolved
from holdpay.core.kinds.spec import KindName
from holdpay.core.model import OPERATOR, Order, Request
from holdpay.core.policy import Strictness
from holdpay.core.states import HtlcState
from tests.simulation.auditor import Auditor, Violation
from tests.simulation.budgets import BudgetBook, draw_limits
from tests.simulation.buyers import Buyers
from tests.simulation.daemon import SimDaemon
from tests.simulation.faults import Faults, draw
from tests.simulation.heap import START_MS, Heap
from tests.simulation.parties import MINUTE_MS, PAYEE, SimLnd
from tests.simulation.provider import HOUR_MS, WEEK_MS, SimProvider
from tests.simulation.turns import draw_strategy
from tests.simulation.wanted import draw_spec
from tests.unit.build import POLICY as DEFAULTS

PHASE_ONE_MS = 35 * MINUTE_MS
PHASE_TWO_MS = WEEK_MS + 80 * HOUR_MS
AFTERMATH_MS = 2 * MINUTE_MS
PREPAID_SHARES = (0.0, 0.0, 0.3, 0.9)
"""Of the orders of a seed: two at once from the account meet only where most are."""
RESTARTS = 3
OPERATOR_MS = 6 * HOUR_MS

POLICY = replace(DEFAULTS, payee_pubkeys=frozenset({PAYEE}), order_id_check=Strictness.PIN)


@dataclass(slots=True)
class Outcome:
    """What one seed did. ``violation`` None: every law held."""

    seed: int
    violation: str | None
    ends: Counter[str]
    faults: Counter[str]
    transcript: list[str]


class CoreSimulation:
    """A world from a seed."""

    def __init__(self, seed: int, *, trace: bool = False) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.faults: Faults = draw(self.rng)
        self._prepaid_share = self.rng.choice(PREPAID_SHARES)
        self.heap = Heap(self.rng)
        self.lnd = SimLnd(self.heap, self.faults)
        self.provider = SimProvider(self.heap, self.faults, self.lnd)
        self.auditor = Auditor(self.lnd.truths, self.provider, lambda: self.heap.now_ms)
        self.daemon = SimDaemon(self.heap, self.faults, POLICY, self.lnd, self.provider, self.auditor)
        self.lnd.is_known = self._is_known
        limits, chance = draw_limits(seed)
        self.buyers: Buyers | None = None
        """None: there are no limits, and an order is made whenever one is wanted."""
        if limits is not None:
            self.daemon.purse.limits = limits
            self.daemon.budget_book = BudgetBook(self, dict(limits.budgets), limits=limits)
            self.buyers = Buyers(self.heap, self.daemon, self.daemon.budget_book, chance, self._order)
        self.transcript: list[str] = []
        if trace:
            self.daemon.tell = self.heap.tell = self.faults.tell = self._tell
            self.daemon.is_traced = True

    def run(self) -> Outcome:
        violation = None
        try:
            self._run()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told with its seed
            violation = f"{type(error).__name__}: {error}"
            self._tell(violation)
        ends = Counter(order.end.value if order.end else "open" for order in self.daemon.orders.values())
        counts = Counter(self.faults.counts)
        counts["crash"] = self.daemon.crash_count
        return Outcome(self.seed, violation, ends, counts, self.transcript)

    def _run(self) -> None:
        count = 2 if self._prepaid_share == max(PREPAID_SHARES) else self.rng.choice((1, 1, 2))
        if self.buyers is not None:
            self.buyers.come(range(count + self.rng.choice((1, 2, 4))))
        else:
            for number in range(count):
                at_ms = START_MS + self.rng.randrange(MINUTE_MS)
                self.heap.at(at_ms, lambda n=number: self.daemon.request(self._order(n)))  # type: ignore[misc]
        self.daemon.begin_ticking()
        self._each_minute("lnd_down", self._lnd_down)
        self._each_minute("others_spend", self.provider.others_move_balance)
        self._plan_client()
        self.heap.run(START_MS + PHASE_ONE_MS, lambda: False)
        self.faults.is_calm = True
        self.auditor.calm_since_ms = self.heap.now_ms
        self.lnd.come_up()
        self._tell("-- faults stop --")
        self.heap.after(OPERATOR_MS, self._operate)
        if self.faults.crash:
            self._plan_restarts()
        self.heap.run(START_MS + PHASE_TWO_MS, self._is_over)
        # What is still on its way after the last close must not find money out.
        self.heap.run(self.heap.now_ms + AFTERMATH_MS, lambda: False)
        self.auditor.at_the_end(self.daemon.orders)
        self._replay_journal()

    def _is_known(self, payment_hash: str) -> bool:
        payments = [order.payment for order in self.daemon.orders.values() if order.payment is not None]
        return any(p.payment_hash == payment_hash and p.htlc is HtlcState.IN_FLIGHT for p in payments)

    def _is_over(self) -> bool:
        is_any_to_come = bool(self.buyers.waiting) if self.buyers is not None else not self.daemon.orders
        return not is_any_to_come and all(
            order.is_closed and not order.is_going_on for order in self.daemon.orders.values()
        )

    def _order(self, number: int, client: str = OPERATOR) -> Order:
        now_ms = self.heap.now_ms
        spec, price_sat = draw_spec(self.rng)
        is_prepaid = spec.kind is not KindName.FUND and self.rng.random() < self._prepaid_share
        may_go_on = spec.kind is KindName.CODE and not is_prepaid
        request = Request(
            id=f"order{number}",
            client=client,
            key=f"key{number}",
            fingerprint="",
            spec=spec,
            is_prepaid=is_prepaid,
            created_at_ms=now_ms,
            strategy=draw_strategy(self.rng) if may_go_on else None,
        )
        return Order(
            id=request.id,
            request=request,
            created_at_ms=now_ms,
            pay_by_ms=now_ms + POLICY.pay_within_s * 1000,
            max_price_sat=price_sat,
            max_fee_sat=self.rng.choice((20, 20, 20, 2)),
            quote_sat=self.rng.choice((None, price_sat)),
            state_since_ms=now_ms,
            place_at_ms=now_ms,
        )

    def _each_minute(self, fault: str, trouble: Callable[[], None]) -> None:
        for minute in range(PHASE_ONE_MS // MINUTE_MS):
            if self.faults.hits(self.rng, fault):
                self.heap.at(START_MS + minute * MINUTE_MS + self.rng.randrange(MINUTE_MS), trouble)

    def _plan_restarts(self) -> None:
        """A number is rented for weeks, in which machines are started anew."""
        for _ in range(RESTARTS):
            self.heap.after(self.rng.randrange(WEEK_MS), self._restart)

    def _restart(self) -> None:
        if self.daemon.is_up:
            self.daemon.crash()

    def _operate(self) -> None:
        """The operator looks at the provider's pages, where a charge is that nobody else can tell of."""
        for order in list(self.daemon.orders.values()):
            if not order.is_closed and order.charge is not None and order.charge.state is ChargeState.UNKNOWN:
                taken = any(spend.state == "taken" for spend in self.provider.spends.get(order.id, []))
                word = self.rng.choice((Resolution.SETTLED if taken else Resolution.FAILED, Resolution.WRITTEN_OFF))
                self.daemon.resolve(order.id, Resolved(word, by="ann", why="looked at the provider's page"))
        self.heap.after(OPERATOR_MS, self._operate)

    def _lnd_down(self) -> None:
        self._tell("lnd goes down")
        self.lnd.go_down()
        self.heap.after(self.faults.lnd_down_ms, self.lnd.come_up)

    def _plan_client(self) -> None:
        if self.faults.hits(self.rng, "client_cancel"):
            self.heap.at(START_MS + self.rng.randrange(10 * MINUTE_MS), self._cancel)

    def _cancel(self) -> None:
        daemon = self.daemon
        if daemon.is_up and "order0" in daemon.orders:
            daemon.cancel("order0")

    def _replay_journal(self) -> None:
        """The journal, folded from the first order on, gives the snapshot."""
        for order_id, order in self.daemon.orders.items():
            rows = [row for row in self.daemon.journal if row.order_id == order_id]
            if not rows:
                continue
            state = None
            for row in rows:
                if state is not None:
                    state = machine.decide(state, row.event, POLICY, row.at_ms).order
                    if state != row.after:
                        raise Violation(f"order {order_id}: the journal does not replay to its snapshot")
                state = row.after
            if state != order:
                raise Violation(f"order {order_id}: the journal's last row is not the snapshot")

    def _tell(self, line: str) -> None:
        seconds = (self.heap.now_ms - START_MS) / 1000
        self.transcript.append(f"{seconds:12.3f}  {line}")
