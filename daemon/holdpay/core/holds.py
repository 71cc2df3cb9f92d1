"""How many holds may be out at once, and which orders count: an order waits for its place before it is placed at all,
because a hold invoice expires and a request does not.

An order has a place from the commit by which it leaves the queue (or, where there was room, is recorded) until its
money is back or spent, or until nothing can be sent for it any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from holdpay.core.model import Order
from holdpay.core.states import SPENT, OrderState

_TO_BE_PAID = frozenset({OrderState.REQUESTED, OrderState.AWAITING_PAYMENT})


class WhenFull(StrEnum):
    """What becomes of a request for which there is no place."""

    QUEUE = "queue"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldCaps:
    """None: no cap of its own."""

    max_orders: int | None = None
    max_locked_sat: int | None = None
    """Of all that have a place together, each with the largest fee that it may come to."""
    when_full: WhenFull = WhenFull.QUEUE
    max_channel_orders: int | None = None
    """Orders of which one channel may hold HTLCs; of a payment in parts it may hold several."""
    max_channel_locked_sat: int | None = None


def takes_place(order: Order) -> bool:
    """Whether a hold of it is out, or may come to be out without another decision."""
    if order.is_closed or order.request.is_prepaid or order.is_waiting:
        return False
    if order.is_money_out:
        return True
    is_over = order.htlc in SPENT or order.giving_up is not None or order.cancel_wanted_at_ms is not None
    return order.state in _TO_BE_PAID and not is_over and not order.is_quarantined


def ordinal(number: int) -> str:
    """``2`` → ``2nd``."""
    is_teen = number % 100 in {11, 12, 13}
    ending = "th" if is_teen else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"
