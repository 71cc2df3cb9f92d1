"""Between two deadlines time makes nothing of an order, and no alarm begins: whatever the order's state."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from holdpay.core.charge import ChargeState
from holdpay.core.deadlines import next_deadline_ms
from holdpay.core.events import TimePassed
from holdpay.core.guard import alarms
from holdpay.core.machine import decide
from holdpay.core.model import Order
from holdpay.core.states import HtlcState, OrderState
from holdpay.core.tables import IMPOSSIBLE, cell
from holdpay.errors import InvariantViolation
from tests.unit import build
from tests.unit.build import FUND, HOUR, NOW_MS, POLICY, RENTAL, SMS, S

OPEN_STATES = [state for state in OrderState if state is not OrderState.ABANDONED]


def _orders() -> Iterator[Order]:
    pairs = (build.pair(state, htlc) for state, htlc in itertools.product(OPEN_STATES, HtlcState))
    charged = (build.prepaid(state, charge) for state, charge in itertools.product(OPEN_STATES, ChargeState))
    for plain in itertools.chain(pairs, charged):
        if cell(plain) == IMPOSSIBLE:
            continue
        for spec in (plain.spec, RENTAL, SMS, FUND):
            order = replace(plain, request=replace(plain.request, spec=spec))
            yield order
            yield replace(order, giving_up="no route")
            yield replace(order, giving_up="no route", pay_by_ms=NOW_MS + 3 * HOUR)
            yield replace(order, created_at_ms=NOW_MS - 7 * HOUR, pay_by_ms=NOW_MS - HOUR)
            yield replace(order, cancel_at_ms=NOW_MS + 60 * S, cancel_wanted_at_ms=NOW_MS)
            yield build.quarantined(order)
            if order.payment is not None:
                # Paid by somebody else, or failed late.
                yield replace(order, payment=replace(order.payment, money_out_since_ms=None))
                yield replace(order, payment=replace(order.payment, htlc_since_ms=NOW_MS + 2 * HOUR))
                # Given up and confirmed: it waits for lnd's word about what was in the way.
                confirmed = replace(order.payment, unpaid_since_ms=NOW_MS, failure=build.failure(at_ms=NOW_MS))
                yield replace(order, giving_up="no route", payment=confirmed)


def _seen(order: Order, now_ms: int) -> tuple[bool, tuple[str, ...]]:
    try:
        is_change = decide(order, TimePassed(), POLICY, now_ms).is_change
    except InvariantViolation:
        # It is put aside then, which is a change, too.
        is_change = True
    return is_change, alarms(order, POLICY, now_ms)


def test_what_time_makes_of_an_order_it_makes_at_one_of_its_deadlines() -> None:
    count = 0
    for order in _orders():
        at_ms: int | None = NOW_MS
        while at_ms is not None:
            next_ms = next_deadline_ms(order, POLICY, at_ms)
            assert next_ms is None or next_ms > at_ms
            before_ms = at_ms + 400 * 24 * HOUR if next_ms is None else next_ms - 1
            assert _seen(order, at_ms) == _seen(order, before_ms), (order, at_ms, next_ms)
            at_ms, count = next_ms, count + 1
    assert count > 3_000, "the orders have deadlines"


@pytest.mark.parametrize("at_ms", [NOW_MS, NOW_MS + 3 * HOUR])
def test_an_order_that_is_over_has_no_deadline(at_ms: int) -> None:
    order = replace(build.order(), closed_at_ms=NOW_MS)
    assert next_deadline_ms(order, POLICY, at_ms) is None
