"""Limits and budgets of the core simulation's daemon: the store's part, made of the same pure parts.

The ledger is on the disk, and gets its rows with the order's own. What is outstanding is in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from holdpay.core.budget import DAY_MS, Budget, Usage, Used, window
from holdpay.core.model import Order
from holdpay.core.outstanding import NOTHING, Outstanding, outstanding
from holdpay.errors import LimitExceeded
from holdpay.ports import Limits, MoneyTotals
from holdpay.store import ledger


@dataclass(frozen=True, slots=True)
class Booked:
    """A row of the ledger."""

    order_id: str
    client: str
    what: str
    msat: int
    fee_msat: int
    at_ms: int


@dataclass(slots=True)
class Purse:
    """``limits`` None: there are none."""

    limits: Limits | None = None
    rows: list[Booked] = field(default_factory=list)

    def written(self, before: Order | None, after: Order, now_ms: int) -> None:
        """With what is written of the order."""
        earlier = [row.at_ms for row in self.rows if row.order_id == after.id and row.what == "spend"]
        booked_at_ms = earlier[-1] if earlier else None
        for what, msat, fee_msat, at_ms in ledger.entries(before, after, lambda: booked_at_ms, now_ms):
            self.rows.append(Booked(after.id, after.request.client, what, msat, fee_msat, at_ms))

    def reached_by(self, order: Order, is_open: Mapping[str, Outstanding], now_ms: int) -> LimitExceeded | None:
        """The limit that leaves no room for the order; None: there is room."""
        if self.limits is None:
            return None
        client = order.request.client
        budget = self.limits.budgets.get(client)
        reached = None
        if budget is not None:
            usage = self._usage(budget, is_open.get(client, NOTHING), now_ms)
            reached = usage.reached_by(order.reserved_msat, order.max_fee_sat * 1000, lambda used, over_msat: None)
        return reached or self.limits.reached_by(self._totals(is_open, now_ms), order.reserved_msat, client)

    def _usage(self, budget: Budget, is_open: Outstanding, now_ms: int) -> Usage:
        used = []
        for line in budget.lines():
            found = window(line.period, budget.renewal, now_ms)
            own = [row for row in self._spends() if row.client == budget.client]
            within = [row for row in own if found.from_ms <= row.at_ms < found.before_ms]
            one = Used(
                line=line,
                window=found,
                spent_msat=sum(row.fee_msat if line.is_of_fees else row.msat for row in within),
                reserved_msat=is_open.pending_fee_msat if line.is_of_fees else is_open.pending_msat,
            )
            used.append(one)
        return Usage(
            budget=budget, used=tuple(used), open_orders=is_open.open_orders, recent_orders=0, recent_since_ms=None
        )

    def _totals(self, is_open: Mapping[str, Outstanding], now_ms: int) -> MoneyTotals:
        whole = sum(is_open.values(), NOTHING)
        day = [row.msat for row in self._spends() if now_ms - DAY_MS < row.at_ms < now_ms + DAY_MS]
        return MoneyTotals(
            open_orders=whole.open_orders,
            settled_orders=whole.settled_orders,
            pending_msat=whole.pending_msat,
            spent_day_msat=sum(day),
        )

    def _spends(self) -> Iterable[Booked]:
        return (row for row in self.rows if row.what == "spend")


def added_up(orders: Iterable[Order]) -> dict[str, Outstanding]:
    """As at a start."""
    found: dict[str, Outstanding] = {}
    for order in orders:
        found[order.request.client] = found.get(order.request.client, NOTHING) + outstanding(order)
    return found
