"""What the limits count of an open order, alone and of many together. Money that was spent is counted by the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from holdpay.core.charge import ChargeState
from holdpay.core.explain import beside
from holdpay.core.model import Order
from holdpay.core.states import SPENT


@dataclass(frozen=True, slots=True)
class Outstanding:
    """Of any number of orders."""

    open_orders: int = 0
    """Those that may hold an HTLC or come to hold one."""
    settled_orders: int = 0
    """Open too, and paid, or charged for all we know: they hold no HTLC."""
    pending_msat: int = 0
    """What they may still cost, with the largest fee."""
    pending_fee_msat: int = 0
    """How much of that may go for routing."""

    def __add__(self, other: Outstanding) -> Outstanding:
        return Outstanding(
            self.open_orders + other.open_orders,
            self.settled_orders + other.settled_orders,
            self.pending_msat + other.pending_msat,
            self.pending_fee_msat + other.pending_fee_msat,
        )

    def __sub__(self, other: Outstanding) -> Outstanding:
        return Outstanding(
            self.open_orders - other.open_orders,
            self.settled_orders - other.settled_orders,
            self.pending_msat - other.pending_msat,
            self.pending_fee_msat - other.pending_fee_msat,
        )


NOTHING: Final = Outstanding()


def outstanding(order: Order | None) -> Outstanding:
    """None, or closed: nothing, whatever follows it."""
    if order is None or order.is_closed:
        return NOTHING
    is_settled = beside(order) is not None
    is_spent = order.htlc in SPENT or (order.charge is not None and order.charge.state is not ChargeState.REFUSED)
    pending_msat = 0 if is_spent else order.reserved_msat
    return Outstanding(
        open_orders=int(not is_settled),
        settled_orders=int(is_settled),
        pending_msat=pending_msat,
        pending_fee_msat=order.max_fee_sat * 1000 if pending_msat else 0,
    )
