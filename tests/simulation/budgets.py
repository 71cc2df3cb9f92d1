"""The auditor's own book of budgets: what a client's money really did, and what its open orders may still cost.

It reads plain fields and what the parties did, never the daemon's sums.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from holdpay.core.budget import Budget, Renewal
from holdpay.core.model import Order
from holdpay.engine.wanted import CodeWanted, EmailWanted, FundWanted, SmsWanted, Wanted
from tests.simulation.auditor import Violation
from tests.simulation.parties import MINUTE_MS

if TYPE_CHECKING:
    from tests.simulation.world import World

HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
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


@dataclass(slots=True)
class BudgetBook:
    """``clock_off_ms``: the most that the daemon's clock may be off. A rolling window is looked at as so much shorter;
    one of the calendar may begin at any moment, so in it only what is still pending counts."""

    world: World
    budgets: dict[str, Budget]
    clock_off_ms: int

    def look(self, orders: Iterable[Order]) -> None:
        """Called whenever something was written: at no instant more is spent and pending than is allowed. Raises
        Violation."""
        for client, budget in self.budgets.items():
            own = [order for order in orders if order.request.client == client]
            if not budget.may_fund and any(order.spec.kind.value == "fund" for order in own):
                raise Violation(f"{client} puts money into the account, and may not")
            for limit_sat, length_ms in _lines(budget):
                window_ms = 0 if budget.renewal is Renewal.CALENDAR else length_ms - self.clock_off_ms
                since_ms = self.world.heap.now_ms - window_ms
                msat = sum(self._counts(order, since_ms) for order in own)
                if msat > limit_sat * 1000:
                    raise Violation(f"{client} has {msat} msat spent and pending, and may have {limit_sat} sat")

    def refused(self, client: str, orders: Iterable[Order], limit_sat: int) -> None:
        """Called right when the daemon has refused a code, or what costs no more, by a limit of the client. Raises
        Violation if there was room for it."""
        own = [order for order in orders if order.request.client == client and not _is_free(order)]
        most_sat = sum(order.max_price_sat + order.max_fee_sat for order in own) + DEAREST_SAT
        if most_sat <= limit_sat:
            raise Violation(f"{client} was refused, and with the order at most {most_sat} of {limit_sat} sat are used")

    def not_allowed(self, client: str, wanted: Wanted) -> None:
        """Called when the daemon has told a client that it may not have that, whatever it waits for. Raises Violation
        if it may."""
        if client not in self.budgets or self.budgets[client].may_fund or not isinstance(wanted, FundWanted):
            raise Violation(f"{client} was told that it may not have {wanted}")

    def _counts(self, order: Order, since_ms: int) -> int:
        """At least so much, in msat: what was really spent since then, and what may still be."""
        if order.request.is_prepaid:
            spends = self.world.provider.spends.get(order.id, [])
            taken_sat = sum(spend.price_sat for spend in spends if spend.state == "taken")
            if taken_sat:
                return taken_sat * 1000 if order.created_at_ms - self.clock_off_ms > since_ms else 0
            return order.max_price_sat * 1000 if order.closed_at_ms is None and order.charge is None else 0
        is_open = order.closed_at_ms is None
        if order.payment is None:
            return (order.max_price_sat + order.max_fee_sat) * 1000 if is_open else 0
        if order.payment.is_paid_before:
            return 0
        truth = self.world.lnd.truths[order.payment.payment_hash]
        if truth.settled_at_ms is not None:
            is_told = order.payment.htlc.value == "settled"
            return 0 if is_told and truth.settled_at_ms <= since_ms else truth.amount_msat
        return order.payment.amount_msat + order.max_fee_sat * 1000 if is_open else 0


def _lines(budget: Budget) -> list[tuple[int, int]]:
    """Each limit with the length of its window, in ms."""
    lines = ((budget.max_spend_per_day_sat, DAY_MS), (budget.max_spend_per_week_sat, 7 * DAY_MS))
    return [(limit_sat, length_ms) for limit_sat, length_ms in lines if limit_sat is not None]


def _is_free(order: Order) -> bool:
    """Whether it is over and cost nothing."""
    return order.end is not None and order.end.value in FREE


def is_no_dearer_than_a_code(wanted: Wanted) -> bool:
    return isinstance(wanted, CodeWanted | SmsWanted | EmailWanted)
