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
from holdpay.errors import LimitExceeded
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
        refused = limits.unknown(order.request.client) or places.too_big(order)
        reason = _over_limit(order, policy, limits, totals, usage) if refused is None else refused.message
        if reason is not None:
            yield order, reason
            continue
        totals = _totals_with(totals, outstanding(order))
        if usage is not None:
            left[order.request.client] = _usage_with(usage, outstanding(order))


def _over_limit(order: Order, policy: Policy, limits: Limits, totals: MoneyTotals, usage: Usage | None) -> str | None:
    if usage is not None and (reason := _over_budget(order, usage)) is not None:
        return reason
    if order.max_price_sat > policy.max_price_sat:
        return _too_dear("payment.max_price_sat")
    return _no_room(limits.reached_by(totals, order.reserved_msat))


def _over_budget(order: Order, usage: Usage) -> str | None:
    budget = usage.budget
    if isinstance(order.spec, FundSpec) and not budget.may_fund:
        key = budget.key("may_fund")
        return f"{key} does not allow it any more. Ask the operator to fund the account, or to set the key."
    if budget.max_price_sat is not None and order.max_price_sat > budget.max_price_sat:
        return _too_dear(budget.key("max_price_sat"))
    return _no_room(usage.reached_by(order.reserved_msat, order.max_fee_sat * 1000, lambda used, over_msat: None))


def _too_dear(limit: str) -> str:
    return f"{limit} does not allow its price any more. Order again within it, or have it raised."


def _no_room(reached: LimitExceeded | None) -> str | None:
    """Without the sums: a client reads this, and they may be of others."""
    if reached is None:
        return None
    limit = reached.metadata["limit"]
    return f"{limit} leaves no room for it any more. Order again when there is room, or have the limit raised."


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
