"""Between two orders of a request: the last one is closed, the next one is not made yet (``strategy``)."""

from __future__ import annotations

from dataclasses import replace

from holdpay.core import events as ev
from holdpay.core.model import Order
from holdpay.core.policy import Policy
from holdpay.core.states import Succession
from holdpay.core.step import Step
from holdpay.core.strategy import made_by_ms


def decide_between(order: Order, event: ev.Event, policy: Policy, now_ms: int) -> Step:
    """What an event makes of an order that is closed, and whose request goes on."""
    match event:
        case ev.NextOrdered():
            return Step(replace(order, succession=Succession.FOLLOWED), is_change=True)
        case ev.NoNextOrder(text=text):
            return _none_follows(order, text)
        case ev.CancelRequested():
            after = replace(order, cancel_wanted_at_ms=now_ms, moved_on=None)
            return _none_follows(after, "canceled at your request before the next order was made")
        case ev.CopyRestored():
            why = (
                "no further order is made, since this is of a copy of the database, and what came after it is not known"
            )
            return _none_follows(replace(order, restored_at_ms=now_ms), why)
        case ev.OrderQuarantined(text=text):
            return _none_follows(order, f"no further order is made, since holdpayd contradicted itself: {text}")
        case ev.TimePassed() if order.closed_at_ms is not None and _is_too_late(
            order, order.closed_at_ms, policy, now_ms
        ):
            return _none_follows(order, "the time was over before another order could be made")
        case _:
            return Step(order, is_change=False)


def _none_follows(order: Order, why: str) -> Step:
    reason = f"{order.reason.rstrip('.')}; {why}" if order.reason else why
    return Step(replace(order, succession=None, reason=reason), is_change=True)


def _is_too_late(order: Order, closed_at_ms: int, policy: Policy, now_ms: int) -> bool:
    strategy = order.request.strategy
    until_ms = None if strategy is None else strategy.until_ms(order)
    return now_ms >= made_by_ms(order, closed_at_ms, policy) or (until_ms is not None and now_ms >= until_ms)
