"""The payments of an order, one after the other, for people: which fee limit each had, and where it failed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from holdpay.cli import render

if TYPE_CHECKING:
    from holdpay._pb.v1 import holdpay_pb2 as pb


def lines(order: pb.Order) -> Iterator[str]:
    """None if nothing was ever sent, or the daemon does not tell."""
    for each in order.tries:
        limit = render.msat(each.fee_limit_msat)
        yield f"{each.n}  {render.date_time(each.at_ms)}  fee up to {limit}: {_outcome(each)}"
        for attempt in each.attempts:
            by = f"channel {attempt.first_channel}" if attempt.first_channel else "a channel that lnd did not name"
            said = attempt.failure or attempt.status.replace("_", " ")
            yield f"   {render.date_time(attempt.attempted_at_ms)}  HTLC by {by}: {said}"
        if each.diagnosis:
            yield f"   {each.diagnosis}"


def _outcome(each: pb.Dispatch) -> str:
    if not each.failure_reason:
        return "in flight" if any(attempt.status == "in_flight" for attempt in each.attempts) else _word(each)
    if each.failure_reason == "by_operator":
        return "an operator said how it ended"
    reason = each.failure_reason.replace("_", " ")
    return f"nothing to try ({reason})" if each.failure_class == "no_attempt" else f"failed ({reason})"


def _word(each: pb.Dispatch) -> str:
    is_settled = any(attempt.status == "succeeded" for attempt in each.attempts)
    return "settled" if is_settled else "lnd has not said how it ended"
