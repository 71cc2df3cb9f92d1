"""Which orders have a place among the holds, and what an order that waits for one does and does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdpay.core import events as ev
from holdpay.core.duties import duties
from holdpay.core.events import event_name
from holdpay.core.explain import explain
from holdpay.core.holds import ordinal, takes_place
from holdpay.core.machine import decide
from holdpay.core.model import Order
from holdpay.core.states import End, HtlcState, OrderState
from holdpay.core.tables import phase
from holdpay.errors import InvariantViolation
from tests.unit.build import EVENTS, NOW_MS, POLICY, S, order, pair, prepaid, quarantined

WAITING = order(waiting_since_ms=NOW_MS)
WAIT_MS = POLICY.hold_max_wait_s * S


@pytest.mark.parametrize(
    ("of", "wanted"),
    [
        (order(), True),
        (WAITING, False),
        (order(is_prepaid=True), False),
        (prepaid(OrderState.REQUESTED), False),
        (pair(OrderState.AWAITING_PAYMENT, HtlcState.NONE), True),
        (pair(OrderState.AWAITING_PAYMENT, HtlcState.DISPATCHING), True),
        (pair(OrderState.AWAITING_PAYMENT, HtlcState.UNKNOWN), True),
        (pair(OrderState.AWAITING_PAYMENT, HtlcState.FAILED), True),
        (pair(OrderState.AWAITING_PAYMENT, HtlcState.FAILED, giving_up="no route"), False),
        (pair(OrderState.AWAITING_PAYMENT, HtlcState.FAILED, cancel_wanted_at_ms=NOW_MS), False),
        (pair(OrderState.AWAITING_PAYMENT, HtlcState.SETTLED), False),
        (pair(OrderState.PAID, HtlcState.IN_FLIGHT), True),
        (pair(OrderState.PAID, HtlcState.IN_FLIGHT, cancel_wanted_at_ms=NOW_MS), True),
        (pair(OrderState.PAID, HtlcState.SETTLED), False),
        (pair(OrderState.PAID, HtlcState.FAILED), False),
        (pair(OrderState.DELIVERED, HtlcState.IN_FLIGHT), True),
        (pair(OrderState.DELIVERED, HtlcState.SETTLED), False),
        (pair(OrderState.CANCELED, HtlcState.IN_FLIGHT), True),
        (quarantined(pair(OrderState.PAID, HtlcState.IN_FLIGHT)), True),
        (quarantined(pair(OrderState.AWAITING_PAYMENT, HtlcState.FAILED)), False),
        (quarantined(order()), False),
        (replace(order(), closed_at_ms=NOW_MS, end=End.CANCELED_UNPAID), False),
    ],
)
def test_a_place_is_taken_until_the_money_is_back_or_spent_or_nothing_can_be_sent_any_more(
    of: Order, wanted: bool
) -> None:
    assert takes_place(of) is wanted


def test_an_order_that_waits_does_nothing_and_says_so() -> None:
    assert duties(WAITING) == frozenset()
    assert phase(WAITING) == "waiting for a place among the holds, nothing ordered yet"
    words = explain(WAITING, POLICY, NOW_MS + 60 * S)
    assert "If that is not within 29 min, it closes and nothing is spent." in words.next
    assert words.money == "No money was sent."


def test_its_time_to_pay_begins_when_it_gets_its_place() -> None:
    after = decide(WAITING, ev.PlaceGiven(), POLICY, NOW_MS + WAIT_MS - 1).order
    assert (after.is_waiting, after.place_at_ms) == (False, NOW_MS + WAIT_MS - 1)
    assert after.pay_by_ms == NOW_MS + WAIT_MS - 1 + POLICY.pay_within_s * S
    assert takes_place(after)


def test_it_waits_longer_than_the_time_to_pay_and_no_longer_than_its_own() -> None:
    assert not decide(WAITING, ev.TimePassed(), POLICY, NOW_MS + WAIT_MS - 1).is_change
    closed = decide(WAITING, ev.TimePassed(), POLICY, NOW_MS + WAIT_MS).order
    assert (closed.end, closed.state, closed.is_waiting) == (End.NO_PLACE, OrderState.ABANDONED, False)
    assert closed.reason == "no place among the holds became free within 1,800 s (holds.max_wait_s)"
    assert closed.reserved_msat == 0


def test_a_place_that_comes_with_the_end_of_its_time_is_too_late() -> None:
    late = decide(WAITING, ev.PlaceGiven(), POLICY, NOW_MS + WAIT_MS).order
    assert not late.is_closed, "the place was given first"
    closed = decide(WAITING, ev.TimePassed(), POLICY, NOW_MS + WAIT_MS).order
    assert not decide(closed, ev.PlaceGiven(), POLICY, NOW_MS + WAIT_MS).is_change


def test_a_cancel_ends_it_at_once_at_no_cost() -> None:
    closed = decide(WAITING, ev.CancelRequested(), POLICY, NOW_MS + S).order
    assert (closed.end, closed.is_closed, closed.spent_msat) == (End.CANCELED_UNPAID, True, 0)


def test_nothing_that_happens_to_it_has_it_placed_or_paid() -> None:
    for name, event in EVENTS.items():
        try:
            after = decide(WAITING, event, POLICY, NOW_MS + S).order
        except InvariantViolation:
            continue
        is_told = event_name(event) == "place_given"
        assert is_told or not duties(after), name
        assert is_told or after.is_closed or after.is_waiting, name


def test_in_quarantine_it_gets_no_place_and_a_cancel_closes_it() -> None:
    aside = quarantined(WAITING)
    assert not decide(aside, ev.PlaceGiven(), POLICY, NOW_MS).is_change
    assert not decide(aside, ev.TimePassed(), POLICY, NOW_MS + 2 * WAIT_MS).is_change
    assert decide(aside, ev.CancelRequested(), POLICY, NOW_MS).order.is_closed


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (1, "1st"),
        (2, "2nd"),
        (3, "3rd"),
        (4, "4th"),
        (11, "11th"),
        (101, "101st"),
        (111, "111th"),
        (113, "113th"),
        (12, "12th"),
        (13, "13th"),
        (21, "21st"),
        (112, "112th"),
    ],
)
def test_numbers_in_a_row(number: int, told: str) -> None:
    assert ordinal(number) == told
