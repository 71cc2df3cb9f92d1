"""Moving an order's times back leaves none behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from holdpay.core.charge import ChargeState
from holdpay.core.lightning import FailureReason
from holdpay.core.model import PaymentFailure
from holdpay.core.set_back import ahead_ms, moved_back
from holdpay.core.states import FailureClass, OrderState
from tests.unit.build import HOUR, NOW_MS, order, payment, prepaid

STAYS = {"created_at_ms", "closed_at_ms", "erased_at_ms", "expires_at_ms"}
FAILURE = PaymentFailure(
    reason=FailureReason.NO_ROUTE,
    failure_class=FailureClass.ROUTING,
    attempt_count=1,
    payment_index=1,
    at_ms=NOW_MS,
    created_at_ms=NOW_MS,
)
FULL = order(
    cancel_wanted_at_ms=NOW_MS,
    waiting_since_ms=NOW_MS,
    cancel_at_ms=NOW_MS + 5,
    closed_at_ms=NOW_MS,
    erased_at_ms=NOW_MS,
    quarantined_at_ms=NOW_MS,
    restored_at_ms=NOW_MS,
    payment=payment(
        failure=FAILURE,
        dispatch_at_ms=NOW_MS + 9,
        money_out_since_ms=NOW_MS,
        unpaid_since_ms=NOW_MS,
        unpaid_again_at_ms=NOW_MS,
        absent_since_ms=NOW_MS,
        gone_since_ms=NOW_MS,
        uncarried_since_ms=NOW_MS,
    ),
)
CHARGED = prepaid(OrderState.REQUESTED, ChargeState.UNKNOWN, unmoved_since_ms=NOW_MS + 7)


def times(value: Any, path: str = "") -> Iterator[tuple[str, int]]:
    """Every field that holds a time, with its name."""
    for field in fields(value):
        inner = getattr(value, field.name)
        if is_dataclass(inner):
            yield from times(inner, f"{path}{field.name}.")
        elif field.name.endswith("_ms"):
            yield path + field.name, inner


def test_every_time_is_moved_but_those_that_are_not_ours() -> None:
    before, after = dict(times(FULL)), dict(times(moved_back(FULL, HOUR)))
    assert None not in before.values(), "the example is not full"
    assert {name for name in before if after[name] == before[name]} == {
        name for name in before if name.split(".")[-1] in STAYS
    }
    assert {before[name] - after[name] for name in before} == {0, HOUR}


def test_every_time_of_a_charge_is_moved_too() -> None:
    assert CHARGED.charge is not None
    before = dict(times(CHARGED.charge))
    assert set(before) == {"since_ms", "intended_at_ms", "unmoved_since_ms"}
    moved = moved_back(CHARGED, HOUR).charge
    assert moved is not None
    assert dict(times(moved)) == {name: at_ms - HOUR for name, at_ms in before.items()}


def test_times_that_are_absent_stay_so() -> None:
    assert moved_back(order(), HOUR).cancel_at_ms is None
    assert moved_back(order(), HOUR).payment is None
    assert moved_back(order(), HOUR).charge is None


def test_an_order_whose_times_have_all_been_is_not_ahead() -> None:
    assert ahead_ms(FULL, NOW_MS) == 0
    assert ahead_ms(FULL, NOW_MS + HOUR) == 0


def test_what_is_only_due_is_not_ahead_either() -> None:
    assert ahead_ms(order(pay_by_ms=NOW_MS + HOUR, place_at_ms=NOW_MS + HOUR), NOW_MS) == 0


def test_the_latest_time_that_was_tells_how_far_the_clock_went_back() -> None:
    late = order(payment=payment(htlc_since_ms=NOW_MS + HOUR))
    assert ahead_ms(late, NOW_MS) == HOUR
    assert ahead_ms(moved_back(late, HOUR), NOW_MS) == 0
    charged = prepaid(OrderState.PAID, ChargeState.CHARGED, since_ms=NOW_MS + HOUR)
    assert ahead_ms(charged, NOW_MS) == HOUR
