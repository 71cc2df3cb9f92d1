"""Which of the orders that wait for a place the configuration does not allow any more: nothing was ordered for them
yet, so limits that were lowered meanwhile hold for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from holdpay.core.budget import Usage
from holdpay.core.kinds import FundSpec
from holdpay.core.model import Order
from holdpay.core.outstanding import NOTHING, Outstanding, outstanding
from holdpay.core.policy import Policy
from holdpay.engine.places import Places
from holdpay.ports import Limits, MoneyTotals


def denials(
    waiting: Sequence[Order],
    places: Places,
    policy: Policy,
    limits: Limits,
    totals: MoneyTotals,
    usages: Mapping[str, Usage],
) -> Iterator[tuple[Order, str]]:
    """Those that would be refused if all of them were requested now, one after the other, with the reason. ``totals``
    and ``usages``, by client, count all that is open, these too."""
    totals = _totals_with(totals, NOTHING - _sum(waiting))
    left = {
        client: _usage_with(usage, NOTHING - _sum(order for order in waiting if order.request.client == client))
        for client, usage in usages.items()
    }
    for order in waiting:
        usage = left.get(order.request.client)
        reason = _reason(order, places, _limit(order, policy, limits, totals, usage))
        if reason is not None:
            yield order, reason
            continue
        totals = _totals_with(totals, outstanding(order))
        if usage is not None:
            left[order.request.client] = _usage_with(usage, outstanding(order))


def _reason(order: Order, places: Places, limit: str | None) -> str | None:
    too_big = places.too_big(order)
    if too_big is not None:
        return too_big.message
    # Without the sums: a client reads this, and they may be of others.
    return None if limit is None else f"{limit} leaves no room for it any more"


def _limit(order: Order, policy: Policy, limits: Limits, totals: MoneyTotals, usage: Usage | None) -> str | None:
    if usage is not None and (limit := _limit_of_budget(order, usage)) is not None:
        return limit
    if order.max_price_sat > policy.max_price_sat:
        return "payment.max_price_sat"
    reached = limits.reached_by(totals, order.reserved_msat)
    return None if reached is None else reached.metadata["limit"]


def _limit_of_budget(order: Order, usage: Usage) -> str | None:
    budget = usage.budget
    if isinstance(order.spec, FundSpec) and not budget.may_fund:
        return budget.key("may_fund")
    if budget.max_price_sat is not None and order.max_price_sat > budget.max_price_sat:
        return budget.key("max_price_sat")
    reached = usage.reached_by(order.reserved_msat, order.max_fee_sat * 1000, lambda used, over_msat: None)
    return None if reached is None else reached.metadata["limit"]


def _sum(orders: Iterable[Order]) -> Outstanding:
    return sum(map(outstanding, orders), NOTHING)


def _totals_with(totals: MoneyTotals, more: Outstanding) -> MoneyTotals:
    return replace(
        totals,
        open_orders=totals.open_orders + more.open_orders,
        pending_msat=totals.pending_msat + more.pending_msat,
    )


def _usage_with(usage: Usage, more: Outstanding) -> Usage:
    """Without ``recent_orders``: how fast a client orders was looked at when it did."""
    used = []
    for one in usage.used:
        more_msat = more.pending_fee_msat if one.line.is_of_fees else more.pending_msat
        used.append(replace(one, reserved_msat=one.reserved_msat + more_msat))
    return replace(usage, used=tuple(used), open_orders=usage.open_orders + more.open_orders, recent_orders=0)
