"""What is limited, and how much of it is used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli import render
from holdpay.cli.budget import line_name


@dataclass(frozen=True, slots=True)
class Limit:
    """``spent``, ``reserved`` and ``most`` of one unit, whichever."""

    name: str
    spent: int
    reserved: int
    most: int
    words: str


def limits(status: pb.GetStatusResponse) -> Iterator[Limit]:
    """Those of the operator, or of the client that asks, in the order in which they are shown."""
    if status.client:
        yield from _limits_of_client(status.budget)
        return
    money, holds = status.money, status.holds
    yield _count("Open", status.open_orders, money.max_open_orders)
    yield _sats("Pending", 0, money.pending_msat, money.max_pending_sat)
    yield _sats("Last 24 h", money.spent_day_msat, money.pending_msat, money.max_spend_per_day_sat)
    if holds.HasField("max_orders"):
        yield _count("Holds", holds.orders, holds.max_orders)
    if holds.HasField("max_locked_sat"):
        yield _sats("Locked", 0, holds.locked_msat, holds.max_locked_sat)


def _limits_of_client(budget: pb.Budget) -> Iterator[Limit]:
    if budget.HasField("max_open_orders"):
        yield _count("Open", budget.open_orders, budget.max_open_orders)
    if budget.HasField("max_orders_per_minute"):
        yield _count("Minute", budget.recent_orders, budget.max_orders_per_minute)
    for line in budget.lines:
        yield _sats(line_name(line).capitalize(), line.spent_msat, line.reserved_msat, line.limit_sat)


def _count(name: str, count: int, most: int) -> Limit:
    return Limit(name, count, 0, most, f"{count:,} of {most:,}")


def _sats(name: str, spent_msat: int, reserved_msat: int, most_sat: int) -> Limit:
    used_sat = -(-(spent_msat + reserved_msat) // 1000)
    return Limit(name, spent_msat, reserved_msat, most_sat * 1000, f"{used_sat:,} of {render.sat(most_sat)}")
