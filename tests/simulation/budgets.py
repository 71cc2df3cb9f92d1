"""The auditor's own book of limits and budgets: what the money really did, and what open orders may still cost.

It reads plain fields and what the parties did, never the daemon's sums.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Protocol

from holdpay.core.budget import Budget, Renewal
from holdpay.core.model import Order
from holdpay.engine.wanted import CodeWanted, EmailWanted, FundWanted, SmsWanted, Wanted
from holdpay.ports import Limits
from tests.simulation.auditor import Violation
from tests.simulation.parties import MINUTE_MS

if TYPE_CHECKING:
    from tests.simulation.heap import Heap
    from tests.simulation.parties import SimLnd
    from tests.simulation.provider import SimProvider

HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
WEEK_MS = 7 * DAY_MS
CLIENTS = ("ann", "bob")
DEAREST_SAT = 2_060
"""What a code may cost at most, with the largest fee limit of the simulation."""
LIMITS_SAT = (DEAREST_SAT, 2 * DEAREST_SAT, 3 * DEAREST_SAT + 500, 12_000)
FREE = {"fulfilled_free", "refunded", "canceled_unpaid", "invoice_rejected", "provider_refused", "payment_failed"}
"""Ends with which nothing was spent."""
PATIENCE_MS = (0, 10 * MINUTE_MS, 40 * MINUTE_MS)
"""So long a buyer whose client has used up its budget asks again."""


def draw_budgets(seed: int) -> tuple[dict[str, Budget], Random]:
    """Of its own chance, so that a world without any is as it was. Empty: there are no clients."""
    rng = Random(f"budgets {seed}")
    if rng.random() < 0.4:
        return {}, rng
    budgets = {
        client: Budget(
            client=client,
            renewal=rng.choice(tuple(Renewal)),
            max_spend_per_day_sat=rng.choice(LIMITS_SAT),
            max_spend_per_week_sat=rng.choice((None, 20_000)),
            may_fund=rng.random() < 0.5,
        )
        for client in CLIENTS
    }
    return budgets, rng


class Parties(Protocol):
    """Of either simulation."""

    @property
    def heap(self) -> Heap: ...

    @property
    def lnd(self) -> SimLnd: ...

    @property
    def provider(self) -> SimProvider: ...


@dataclass(frozen=True, slots=True)
class Sum:
    """What an order costs, or may cost."""

    msat: int = 0
    fee_msat: int = 0
    """How much of it is for routing."""
    is_open: bool = False
    """Nothing is settled or charged for it yet."""


@dataclass(slots=True)
class BudgetBook:
    """``clock_off_ms``: the most that the daemon's clock may be off. A rolling window is looked at as so much shorter;
    one of the calendar may begin at any moment then, so in it only what is still pending counts."""

    world: Parties
    budgets: dict[str, Budget]
    clock_off_ms: int = 0
    limits: Limits | None = None
    """Of all clients together. None: they are so high that they say nothing."""

    def look(self, orders: Iterable[Order]) -> None:
        """Called whenever something was written: at no instant more is spent and pending than is allowed. Raises
        Violation."""
        for client, budget in self.budgets.items():
            own = [order for order in orders if order.request.client == client]
            if not budget.may_fund and any(order.spec.kind.value == "fund" for order in own):
                raise Violation(f"{client} puts money into the account, and may not")
            for limit_sat, length_ms, is_of_fees in _lines(budget):
                sums = [self._counts(order, self._since_ms(budget.renewal, length_ms)) for order in own]
                msat = sum(each.fee_msat if is_of_fees else each.msat for each in sums)
                if msat > limit_sat * 1000:
                    raise Violation(f"{client} has {msat} msat spent and pending, and may have {limit_sat} sat")
        if self.limits is not None:
            self._look_at_all(orders, self.limits)

    def _look_at_all(self, orders: Iterable[Order], limits: Limits) -> None:
        sums = [self._counts(order, self._since_ms(Renewal.ROLLING, DAY_MS)) for order in orders]
        pending_msat = sum(each.msat for each in sums if each.is_open)
        for name, found, most in (
            ("orders open", sum(each.is_open for each in sums), limits.max_open_orders),
            ("msat pending", pending_msat, limits.max_pending_sat * 1000),
            ("msat spent and pending", sum(each.msat for each in sums), limits.max_spend_per_day_sat * 1000),
        ):
            if found > most:
                raise Violation(f"there are {found} {name}, and there may be {most}")

    def _since_ms(self, renewal: Renewal, length_ms: int) -> int:
        """What was spent later than that counts."""
        now_ms = self.world.heap.now_ms
        if renewal is Renewal.ROLLING:
            return now_ms - length_ms + self.clock_off_ms
        # 1970 began on a Thursday, and a week begins on Monday.
        into_ms = (now_ms + (3 * DAY_MS if length_ms == WEEK_MS else 0)) % length_ms
        return now_ms if self.clock_off_ms else now_ms - into_ms - 1

    def refused(self, client: str, orders: Iterable[Order], limit_sat: int) -> None:
        """Called right when the daemon has refused a code, or what costs no more, by a limit of the client. Raises
        Violation if there was room for it."""
        own = [order for order in orders if order.request.client == client and not _is_free(order)]
        most_sat = sum(order.max_price_sat + order.max_fee_sat for order in own) + DEAREST_SAT
        if most_sat <= limit_sat:
            raise Violation(f"{client} was refused, and with the order at most {most_sat} of {limit_sat} sat are used")

    def refused_by_own(self, refused: Order, orders: Iterable[Order], limit: str, limit_sat: int) -> None:
        """The same of any order that is known, and of one limit: what has left its window by any clock makes room."""
        own = [order for order in orders if order.request.client == refused.request.client]
        within_ms = {"hour": HOUR_MS, "day": DAY_MS, "week": WEEK_MS}[limit.split("_per_")[1].removesuffix("_sat")]
        if limit == "max_fee_per_day_sat":
            most_sat = refused.max_fee_sat + sum(order.max_fee_sat for order in self._counting(own, within_ms))
        else:
            most_sat = refused.max_price_sat + refused.max_fee_sat + self._most_sat(own, within_ms)
        if most_sat <= limit_sat:
            raise Violation(f"{refused.id} was refused by {limit}, and with it at most {most_sat} sat are used")

    def refused_by_all(self, orders: Iterable[Order], limit: str, wanted_sat: int) -> None:
        """The same, by a limit of all clients together."""
        assert self.limits is not None
        orders = list(orders)
        if limit == "max_open_orders":
            has_room = sum(order.closed_at_ms is None for order in orders) < self.limits.max_open_orders
        elif limit == "max_pending_sat":
            is_open = [order for order in orders if order.closed_at_ms is None]
            has_room = self._most_sat(is_open, 0) + wanted_sat <= self.limits.max_pending_sat
        else:
            has_room = self._most_sat(orders, DAY_MS) + wanted_sat <= self.limits.max_spend_per_day_sat
        if has_room:
            raise Violation(f"an order over {wanted_sat} sat was refused by {limit}, and there is room for it")

    def _most_sat(self, orders: Iterable[Order], within_ms: int) -> int:
        """What they can have cost within that time, and may still cost."""
        return sum(order.max_price_sat + order.max_fee_sat for order in self._counting(orders, within_ms))

    def _counting(self, orders: Iterable[Order], within_ms: int) -> list[Order]:
        ago_ms = self.world.heap.now_ms - within_ms - self.clock_off_ms
        return [o for o in orders if not _is_free(o) and (o.closed_at_ms is None or o.closed_at_ms > ago_ms)]

    def not_allowed(self, client: str, wanted: Wanted) -> None:
        """Called when the daemon has told a client that it may not have that, whatever it waits for. Raises Violation
        if it may."""
        if client not in self.budgets or self.budgets[client].may_fund or not isinstance(wanted, FundWanted):
            raise Violation(f"{client} was told that it may not have {wanted}")

    def _counts(self, order: Order, since_ms: int) -> Sum:
        """At least so much: what was really spent since then, and what may still be."""
        is_open = order.closed_at_ms is None
        if order.request.is_prepaid:
            spends = self.world.provider.spends.get(order.id, [])
            taken = [spend for spend in spends if spend.state in {"taken", "on the way"}]
            if taken:
                is_within = taken[-1].at_ms - self.clock_off_ms > since_ms
                return Sum(sum(spend.price_sat for spend in taken) * 1000) if is_within else Sum()
            is_pending = is_open and order.charge is None
            return Sum(order.max_price_sat * 1000, is_open=True) if is_pending else Sum()
        fee_msat = order.max_fee_sat * 1000
        if order.payment is None:
            return Sum(order.max_price_sat * 1000 + fee_msat, fee_msat, is_open=True) if is_open else Sum()
        truth = self.world.lnd.truths[order.payment.payment_hash]
        if truth.settled_at_ms is not None:
            is_told = order.payment.htlc.value in {"settled", "gone"}
            is_over = is_told and truth.settled_at_ms <= since_ms
            return Sum() if is_over else Sum(truth.amount_msat + truth.fee_msat, truth.fee_msat)
        is_pending = is_open and order.payment.htlc.value != "gone"
        return Sum(order.payment.amount_msat + fee_msat, fee_msat, is_open=True) if is_pending else Sum()


def _lines(budget: Budget) -> list[tuple[int, int, bool]]:
    """Each limit with the length of its window, in ms, and whether it is one of routing fees."""
    lines = (
        (budget.max_spend_per_hour_sat, HOUR_MS, False),
        (budget.max_spend_per_day_sat, DAY_MS, False),
        (budget.max_spend_per_week_sat, WEEK_MS, False),
        (budget.max_fee_per_day_sat, DAY_MS, True),
    )
    return [(limit_sat, length_ms, of_fees) for limit_sat, length_ms, of_fees in lines if limit_sat is not None]


def _is_free(order: Order) -> bool:
    """Whether it is over and cost nothing."""
    return order.end is not None and order.end.value in FREE


def is_no_dearer_than_a_code(wanted: Wanted) -> bool:
    return isinstance(wanted, CodeWanted | SmsWanted | EmailWanted)


# --- of the core simulation -------------------------------------------------------------------------------------------

CODE_SAT, FEE_SAT = 2_000, 20
CORE_LIMITS_SAT = (
    CODE_SAT + FEE_SAT,
    2 * CODE_SAT + FEE_SAT + 1,  # one that is paid, with its fee of 1.002 sat, leaves no room for another
    2 * (CODE_SAT + FEE_SAT) - 1,
    2 * (CODE_SAT + FEE_SAT),
    3 * (CODE_SAT + FEE_SAT) + 500,
    12_000,
)
"""Just enough, or just too little, for so many codes."""
AMPLE_SAT = 10**6
SHARE_WITH_LIMITS = 0.12


def draw_limits(seed: int) -> tuple[Limits | None, Random]:
    """Of its own chance, as ``draw_budgets``. None: a world without any."""
    rng = Random(f"limits {seed}")
    if rng.random() >= SHARE_WITH_LIMITS:
        return None, rng
    budgets = {
        client: Budget(
            client=client,
            renewal=rng.choice(tuple(Renewal)),
            max_spend_per_hour_sat=rng.choice((None, None, *CORE_LIMITS_SAT)),
            max_spend_per_day_sat=rng.choice((None, *CORE_LIMITS_SAT)),
            max_spend_per_week_sat=rng.choice((None, None, 12_000, 20_000)),
            max_fee_per_day_sat=rng.choice((None, None, 2 * FEE_SAT, 2 * FEE_SAT - 1, FEE_SAT + 1)),
            may_fund=True,
        )
        for client in CLIENTS
    }
    limits = Limits(
        max_open_orders=rng.choice((1, 2, 10, 10)),
        max_pending_sat=rng.choice((*CORE_LIMITS_SAT, AMPLE_SAT, AMPLE_SAT)),
        max_spend_per_day_sat=rng.choice((*CORE_LIMITS_SAT, AMPLE_SAT, AMPLE_SAT)),
        budgets=budgets,
    )
    return limits, rng
