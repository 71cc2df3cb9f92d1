"""The fee ladder: which fee limit comes next, and how soon."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdpay.core.ladder import GiveUp, RetryAt, first_fee_limit_msat, retry_decision, rungs_msat
from holdpay.core.states import FailureClass
from tests.unit.build import NOW_MS, POLICY, S, failure, order, payment

ORDER = order()
"""The usual fee limit and the whole one are 20 sat."""
GENEROUS = order(max_fee_sat=50)


# --- the rungs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_fee_sat", "percents", "rungs_sat"),
    [
        (20, (50.0, 100.0), [10, 20]),
        (50, (50.0, 100.0), [10, 20, 50]),
        (15, (50.0, 100.0), [10, 15]),
        (10, (50.0, 100.0), [10]),
        (4, (50.0, 100.0), [4]),
        (0, (50.0, 100.0), [0]),
        (20, (), [20]),
        (50, (100.0, 25.0, 25.0), [5, 20, 50]),
        (50, (0.0,), [0, 50]),
    ],
)
def test_the_rungs_are_parts_of_the_usual_limit_and_at_last_the_whole_one(
    max_fee_sat: int, percents: tuple[float, ...], rungs_sat: list[int]
) -> None:
    policy = replace(POLICY, fee_rungs_percent=percents)
    wanted = order(max_fee_sat=max_fee_sat)
    assert list(rungs_msat(wanted, policy)) == [rung * 1000 for rung in rungs_sat]
    assert first_fee_limit_msat(wanted, policy) == rungs_sat[0] * 1000


def test_the_usual_limit_is_never_over_the_bound_of_the_configuration() -> None:
    assert rungs_msat(order(max_fee_sat=7), replace(POLICY, max_fee_sat=7)) == (3_500, 7_000)


def test_a_climb_takes_rung_after_rung_at_once_while_nothing_is_tried() -> None:
    policy, climbed, now = POLICY, [first_fee_limit_msat(GENEROUS, POLICY)], 0
    for dispatches in (1, 2):
        found = payment(dispatch_count=dispatches, fee_limit_msat=climbed[-1], failure=failure(FailureClass.NO_ATTEMPT))
        decided = retry_decision(GENEROUS, found, policy, NOW_MS)
        assert isinstance(decided, RetryAt)
        climbed.append(decided.fee_limit_msat)
        now = max(now, decided.at_ms)
    assert (climbed, now) == ([10_000, 20_000, 50_000], NOW_MS)


def test_a_route_that_was_tried_lifts_the_limit_by_one_rung_too() -> None:
    found = payment(dispatch_count=1, fee_limit_msat=10_000, failure=failure(FailureClass.ROUTING))
    assert retry_decision(GENEROUS, found, POLICY, NOW_MS) == RetryAt(NOW_MS, 20_000)


def test_an_order_goes_on_at_the_rung_of_its_latest_dispatch_whatever_the_rungs_are_by_then() -> None:
    others = replace(POLICY, fee_rungs_percent=(5.0, 90.0))
    found = payment(dispatch_count=2, fee_limit_msat=10_000, failure=failure(FailureClass.NO_ATTEMPT))
    assert retry_decision(GENEROUS, found, others, NOW_MS) == RetryAt(NOW_MS, 18_000)


def test_a_limit_that_was_lowered_meanwhile_is_not_climbed_over() -> None:
    found = payment(dispatch_count=2, fee_limit_msat=50_000, failure=failure(FailureClass.ROUTING))
    decided = retry_decision(ORDER, found, POLICY, NOW_MS)
    assert isinstance(decided, RetryAt)
    assert decided.fee_limit_msat == 20_000


# --- how soon -------------------------------------------------------------------------------------------------------


def _retry(failure_class: FailureClass, *, dispatches: int, fee_limit_msat: int = 20_000, at_s: int = 0) -> object:
    found = payment(dispatch_count=dispatches, fee_limit_msat=fee_limit_msat, failure=failure(failure_class))
    return retry_decision(ORDER, found, POLICY, NOW_MS + at_s * S)


def test_nothing_found_within_the_first_rung_is_followed_at_once_by_the_last_rung() -> None:
    assert _retry(FailureClass.NO_ATTEMPT, dispatches=1, fee_limit_msat=10_000) == RetryAt(NOW_MS, 20_000)


def test_a_failed_attempt_within_the_first_rung_waits_as_one_within_the_last() -> None:
    patient = replace(POLICY, retry_delays_s=(60,))
    for failure_class, wait_s in ((FailureClass.ROUTING, 60), (FailureClass.NO_ATTEMPT, 0)):
        found = payment(dispatch_count=1, fee_limit_msat=10_000, failure=failure(failure_class))
        assert retry_decision(ORDER, found, patient, NOW_MS) == RetryAt(NOW_MS + wait_s * S, 20_000)


def test_nothing_found_within_the_last_rung_waits_until_lnd_may_have_learnt_something() -> None:
    assert _retry(FailureClass.NO_ATTEMPT, dispatches=2) == RetryAt(NOW_MS + 60 * S, 20_000)


@pytest.mark.parametrize(("dispatches", "wait_s"), [(1, 0), (2, 60), (3, 120), (4, 180), (5, 180)])
def test_after_a_failed_attempt_one_retry_comes_at_once_and_the_others_are_far_apart(
    dispatches: int, wait_s: int
) -> None:
    """lnd itself avoids a failed hop for about three minutes."""
    for failure_class in (FailureClass.ROUTING, FailureClass.READ_LATER):
        assert _retry(failure_class, dispatches=dispatches) == RetryAt(NOW_MS + wait_s * S, 20_000)


def test_no_dispatch_is_planned_behind_pay_by() -> None:
    assert isinstance(_retry(FailureClass.ROUTING, dispatches=2, at_s=540), GiveUp)
    assert _retry(FailureClass.ROUTING, dispatches=2, at_s=539) == RetryAt(NOW_MS + 599 * S, 20_000)


def test_the_number_of_dispatches_is_bounded() -> None:
    given_up = _retry(FailureClass.ROUTING, dispatches=6)
    assert isinstance(given_up, GiveUp)
    assert given_up.reason == "6 payments failed"


def test_of_two_dispatches_the_first_takes_the_lowest_rung() -> None:
    assert first_fee_limit_msat(GENEROUS, replace(POLICY, max_dispatches=2)) == 10_000


# --- the whole limit is tried before it is given up -----------------------------------------------------------------


@pytest.mark.parametrize("failed", [FailureClass.NO_ATTEMPT, FailureClass.ROUTING])
def test_the_last_dispatch_that_may_be_takes_the_whole_limit(failed: FailureClass) -> None:
    found = payment(dispatch_count=1, fee_limit_msat=10_000, failure=failure(failed))
    assert retry_decision(GENEROUS, found, replace(POLICY, max_dispatches=2), NOW_MS) == RetryAt(NOW_MS, 50_000)
    assert retry_decision(GENEROUS, found, replace(POLICY, max_dispatches=3), NOW_MS) == RetryAt(NOW_MS, 20_000)


def test_the_only_dispatch_takes_the_whole_limit() -> None:
    assert first_fee_limit_msat(GENEROUS, replace(POLICY, max_dispatches=1)) == 50_000


def test_where_no_time_is_left_for_the_wait_the_whole_limit_is_tried_at_once() -> None:
    late_ms = GENEROUS.pay_by_ms - 30 * S
    found = payment(dispatch_count=2, fee_limit_msat=20_000, failure=failure(FailureClass.ROUTING))
    assert retry_decision(GENEROUS, found, POLICY, late_ms) == RetryAt(late_ms, 50_000)
    whole = replace(found, fee_limit_msat=50_000)
    assert isinstance(retry_decision(GENEROUS, whole, POLICY, late_ms), GiveUp)
    assert isinstance(retry_decision(GENEROUS, found, POLICY, GENEROUS.pay_by_ms), GiveUp)
