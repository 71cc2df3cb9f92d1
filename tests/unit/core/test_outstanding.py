"""What the limits count of an open order: what it may still cost, and never what was spent already."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from holdpay.core.charge import ChargeState
from holdpay.core.explain import beside
from holdpay.core.model import Order
from holdpay.core.outstanding import NOTHING, outstanding
from holdpay.core.states import End, HtlcState, OrderState
from tests.unit import build
from tests.unit.build import NOW_MS, pair, prepaid

PLAIN = pair(OrderState.AWAITING_PAYMENT, HtlcState.NONE)
OUT = pair(OrderState.PAID, HtlcState.IN_FLIGHT)
SETTLED = pair(OrderState.PAID, HtlcState.SETTLED)
GONE = pair(OrderState.DELIVERED, HtlcState.GONE)
CHARGED = prepaid(OrderState.PAID, ChargeState.CHARGED)
RETURNED = prepaid(OrderState.CANCELED, ChargeState.RETURNED)
REFUSED = prepaid(OrderState.REQUESTED, ChargeState.REFUSED)
UNCHARGED = prepaid(OrderState.REQUESTED)
UNKNOWN = prepaid(OrderState.REQUESTED, ChargeState.UNKNOWN)
RENTAL = pair(OrderState.DELIVERED, HtlcState.SETTLED, spec=build.RENTAL)
ALL = (PLAIN, OUT, SETTLED, GONE, CHARGED, RETURNED, REFUSED, UNCHARGED, UNKNOWN, RENTAL)
PENDING = (PLAIN, OUT, REFUSED, UNCHARGED)


@pytest.mark.parametrize("order", ALL)
def test_what_is_spent_is_not_pending_too(order: Order) -> None:
    is_pending = order in PENDING
    found = outstanding(order)
    assert order.reserved_msat > 0
    assert found.pending_msat == (order.reserved_msat if is_pending else 0)
    assert found.pending_fee_msat == (order.max_fee_sat * 1000 if is_pending else 0)


@pytest.mark.parametrize("order", ALL)
def test_an_order_takes_a_place_among_the_open_ones_or_is_open_beside_them(order: Order) -> None:
    found = outstanding(order)
    assert (found.open_orders, found.settled_orders) == ((1, 0) if beside(order) is None else (0, 1))


def test_an_order_that_is_over_counts_nothing() -> None:
    for order in ALL:
        assert outstanding(replace(order, closed_at_ms=NOW_MS, end=End.REFUNDED)) == NOTHING
    assert outstanding(None) == NOTHING


def test_the_whole_is_the_sum_of_its_parts() -> None:
    for one, other in permutations(ALL, 2):
        assert outstanding(one) + outstanding(other) - outstanding(one) == outstanding(other)
        assert outstanding(one) - outstanding(one) == NOTHING
