"""The part ``lag``: that it measures what it says, and that holdpay keeps within twice its goals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.bench import lag
from tests.bench.lag import GOALS, OURS, Lag, Lagging, Scenario
from tests.bench.timings import draw

SOON = Scenario(at_once=8, runs=2)


@pytest.fixture(scope="module")
def measured() -> Lagging:
    return lag.measure((SOON, Scenario(at_once=50), Scenario(at_once=8, allows_per_s=1.0)))


def _of(measured: Lagging, scenario: Scenario, contender: str = OURS) -> Lag:
    return next(lag for lag in measured.lags if lag.scenario == scenario and lag.contender == contender)


def test_a_drawn_order_is_the_same_for_everybody() -> None:
    assert draw(1, "p1t0") == draw(1, "p1t0")
    assert draw(1, "p1t0") != draw(1, "p2t0")


def test_a_poll_every_5_s_is_half_of_that_late(measured: Lagging) -> None:
    habit = _of(measured, Scenario(at_once=50), "a poll every 5 s")
    assert 2.0 < habit.number.mean_s < 3.2
    assert 2.0 < habit.code.mean_s < 3.2
    assert habit.number.count >= 40


def test_a_provider_that_allows_less_refuses_some(measured: Lagging) -> None:
    lags = [lag for lag in measured.lags if lag.scenario.allows_per_s == 1.0]
    assert all(lag.refused for lag in lags if lag.contender == "a poll every 2 s")
    assert not any(lag.refused for lag in measured.lags if lag.scenario == SOON)


def test_every_client_had_its_number_and_its_code(measured: Lagging) -> None:
    ours, theirs = (_of(measured, SOON, name) for name in (OURS, "a poll every 5 s"))
    assert (ours.orders, ours.number.count, ours.code.count) == (16, theirs.number.count, theirs.code.count)


def test_a_missed_goal_is_said(measured: Lagging) -> None:
    slow = replace(_of(measured, SOON), number=replace(_of(measured, SOON).number, mean_s=1.21))
    rows = [str(row) for row in Lagging(lags=(slow,), cancels=measured.cancels).rows()]
    assert rows[0].endswith("MISSED")


@pytest.mark.parametrize("scenario", [SOON, Scenario(at_once=50)], ids=["8", "50"])
def test_holdpay_is_never_later_than_twice_its_goals(measured: Lagging, scenario: Scenario) -> None:
    ours, goal = _of(measured, scenario), GOALS[scenario.at_once]
    assert ours.number.mean_s <= 2 * goal.number_s
    assert ours.code.mean_s <= 2 * goal.code_s
    assert goal.polls is None or ours.polls_per_order <= 2 * goal.polls


def test_a_cancel_reaches_the_provider_at_once_whatever_else_is_asked(measured: Lagging) -> None:
    assert measured.cancels.worst_s <= 2 * lag.CANCEL_GOAL_S
