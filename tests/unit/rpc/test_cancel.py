"""When a wish to cancel is said to be too late."""

from __future__ import annotations

import pytest

from holdpay.core.model import Order
from holdpay.core.states import HtlcState, OrderState
from holdpay.rpc.service import _is_too_late
from tests.unit.build import NOW_MS, pair

WAITING = (OrderState.NUMBER_ASSIGNED, HtlcState.IN_FLIGHT)
DELIVERED = (OrderState.DELIVERED, HtlcState.IN_FLIGHT)


@pytest.mark.parametrize(
    ("order", "is_too_late"),
    [
        (pair(*WAITING, cancel_wanted_at_ms=NOW_MS), False),
        (pair(*WAITING), True),
        (pair(*DELIVERED), True),
        (pair(*DELIVERED, cancel_wanted_at_ms=NOW_MS), True),
        (pair(*DELIVERED, cancel_wanted_at_ms=NOW_MS, moved_on="no SMS came in 300 s"), True),
    ],
    ids=[
        "it is recorded",
        "it could not be",
        "the code is here",
        "the code was sooner",
        "the next order was to come, and the code was sooner",
    ],
)
def test_a_wish_that_changes_nothing_is_too_late(order: Order, is_too_late: bool) -> None:
    assert _is_too_late(order) is is_too_late
