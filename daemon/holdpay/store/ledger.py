"""What each step of an order books: what is reserved for it, and what it spent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from holdpay.core.model import Order

What = Literal["reserve", "release", "spend"]


def entries(
    before: Order | None, after: Order, booked_at_ms: Callable[[], int | None], now_ms: int
) -> Iterator[tuple[What, int, int, int]]:
    """What, how much (msat), how much of a spend is routing fee (msat), and when. ``before`` None: it was recorded just
    now. ``booked_at_ms``: when the order's latest spend was, as the ledger has it.

    The sum of an order's reserves less its releases is its ``reserved_msat``; its spends add up to its ``spent_msat``.
    A spend that turns out to be another is corrected by a row, perhaps a negative one, as of the spend itself: within
    any time span it and its correction stand together.
    """
    more_msat = after.reserved_msat - (0 if before is None else before.reserved_msat)
    if more_msat:
        yield "reserve" if more_msat > 0 else "release", abs(more_msat), 0, now_ms
    earlier_msat = 0 if before is None else before.spent_msat
    if spent_msat := after.spent_msat - earlier_msat:
        # What the order says of its times is no help here: they move with a wall clock that is set back.
        at_ms = booked_at_ms() if earlier_msat else None
        fee_msat = after.spent_fee_msat - (0 if before is None else before.spent_fee_msat)
        yield "spend", spent_msat, fee_msat, _spent_at_ms(after, now_ms) if at_ms is None else at_ms


def _spent_at_ms(order: Order, now_ms: int) -> int:
    if order.charge is not None:
        return order.charge.intended_at_ms
    return order.payment.htlc_since_ms if order.payment is not None else now_ms
