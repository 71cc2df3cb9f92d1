"""Budgets → protobuf."""

from __future__ import annotations

from collections.abc import Sequence

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.core.budget import Usage, Used
from holdpay.ports import BudgetEntry


def budget_to_pb(usage: Usage, entries: Sequence[BudgetEntry] = (), *, is_more: bool = False) -> pb.Budget:
    """``entries``: the orders behind the sums, if they are to be told."""
    budget = usage.budget
    return pb.Budget(
        client=budget.client,
        window=budget.renewal.value,
        lines=[_line_to_pb(used) for used in usage.used],
        max_price_sat=budget.max_price_sat,
        open_orders=usage.open_orders,
        max_open_orders=budget.max_open_orders,
        recent_orders=usage.recent_orders,
        max_orders_per_minute=budget.max_orders_per_minute,
        may_fund=budget.may_fund,
        warnings=usage.warnings(),
        orders=[_entry_to_pb(entry) for entry in entries],
        more_orders=is_more,
    )


def _line_to_pb(used: Used) -> pb.BudgetLine:
    return pb.BudgetLine(
        limit=used.line.limit,
        period=used.line.period.value,
        fees=used.line.is_of_fees,
        limit_sat=used.line.limit_sat,
        spent_msat=used.spent_msat,
        reserved_msat=used.reserved_msat,
        from_ms=used.window.from_ms,
        renews_at_ms=used.renews_at_ms,
    )


def _entry_to_pb(entry: BudgetEntry) -> pb.BudgetOrder:
    return pb.BudgetOrder(
        request_id=entry.request_id,
        at_ms=entry.at_ms,
        spent_msat=entry.spent_msat,
        fee_msat=entry.fee_msat,
        reserved_msat=entry.reserved_msat,
    )
