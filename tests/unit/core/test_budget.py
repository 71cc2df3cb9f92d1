"""Windows at their bounds, and which limit of a client leaves no room for an order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdpay.core.budget import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    WEEK_MS,
    Budget,
    Line,
    Period,
    Renewal,
    Usage,
    Used,
    window,
)
from holdpay.errors import LimitExceeded, NotAllowed
from tests.unit.build import NOW_MS

LENGTHS_MS = {Period.HOUR: HOUR_MS, Period.DAY: DAY_MS, Period.WEEK: WEEK_MS, Period.MONTH: 30 * DAY_MS}
DAY_SAT = 10


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def counts(period: Period, renewal: Renewal, spent_at_ms: int, now_ms: int) -> bool:
    found = window(period, renewal, now_ms)
    return found.from_ms <= spent_at_ms < found.before_ms


# --- windows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("period", Period)
def test_a_rolling_window_is_left_to_the_millisecond(period: Period) -> None:
    length_ms = LENGTHS_MS[period]
    assert counts(period, Renewal.ROLLING, NOW_MS, NOW_MS + length_ms - 1)
    assert not counts(period, Renewal.ROLLING, NOW_MS, NOW_MS + length_ms)


@pytest.mark.parametrize(
    ("period", "begins", "ends"),
    [
        (Period.HOUR, "2026-11-26 09:00", "2026-11-26 10:00"),
        (Period.DAY, "2026-11-26", "2026-11-27"),
        (Period.DAY, "2024-02-29", "2024-03-01"),
        (Period.WEEK, "2026-11-23", "2026-11-30"),
        (Period.WEEK, "2026-12-28", "2027-01-04"),
        (Period.MONTH, "2026-11-01", "2026-12-01"),
        (Period.MONTH, "2026-12-01", "2027-01-01"),
        (Period.MONTH, "2026-02-01", "2026-03-01"),
        (Period.MONTH, "2024-02-01", "2024-03-01"),
        (Period.MONTH, "2026-01-01", "2026-02-01"),
    ],
)
def test_a_calendars_window_begins_and_ends_with_its_first_and_last_millisecond(
    period: Period, begins: str, ends: str
) -> None:
    for now_ms in (ms(begins), (ms(begins) + ms(ends)) // 2, ms(ends) - 1):
        found = window(period, Renewal.CALENDAR, now_ms)
        assert (found.from_ms, found.ends_at_ms) == (ms(begins), ms(ends))
    assert window(period, Renewal.CALENDAR, ms(ends)).from_ms == ms(ends)


@pytest.fixture
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_berlin")
@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_a_day_of_the_calendar_has_24_hours_where_clocks_change_to_summer_time_and_back(day: str) -> None:
    found = window(Period.DAY, Renewal.CALENDAR, ms(f"{day} 12:00"))
    assert (found.from_ms, found.ends_at_ms) == (ms(day), ms(day) + DAY_MS)


@given(st.sampled_from(Period), st.integers(min_value=0, max_value=4_102_444_800_000))
def test_windows_of_the_calendar_leave_no_gap_and_do_not_overlap(period: Period, now_ms: int) -> None:
    found = window(period, Renewal.CALENDAR, now_ms)
    assert found.ends_at_ms is not None
    assert found.from_ms <= now_ms < found.ends_at_ms == found.from_ms + found.length_ms
    assert window(period, Renewal.CALENDAR, found.ends_at_ms).from_ms == found.ends_at_ms
    assert window(period, Renewal.CALENDAR, found.from_ms - 1).ends_at_ms == found.from_ms


@pytest.mark.parametrize("renewal", Renewal)
@pytest.mark.parametrize("period", Period)
def test_what_was_spent_under_a_fast_clock_that_was_set_back_counts(period: Period, renewal: Renewal) -> None:
    """By however much it was fast: two hours are no less than a budget of an hour has to bear."""
    for ahead_ms in (HOUR_MS, 2 * HOUR_MS, 2 * DAY_MS, 31 * DAY_MS - 1):
        assert counts(period, renewal, NOW_MS + ahead_ms, NOW_MS)
    assert not counts(period, renewal, NOW_MS + 31 * DAY_MS, NOW_MS), "a year ahead would count for a year"


# --- which limit leaves no room -------------------------------------------------------------------------------------


def used(line: Line, *, spent_msat: int = 0, reserved_msat: int = 0, renewal: Renewal = Renewal.ROLLING) -> Used:
    return Used(
        line=line,
        window=window(line.period, renewal, NOW_MS),
        spent_msat=spent_msat,
        reserved_msat=reserved_msat,
        oldest_ms=NOW_MS - HOUR_MS if spent_msat else None,
    )


def usage(budget: Budget, *, open_orders: int = 0, recent_orders: int = 0, **spent: Any) -> Usage:
    return Usage(
        budget=budget,
        used=tuple(used(line, **spent) for line in budget.lines()),
        open_orders=open_orders,
        recent_orders=recent_orders,
        recent_since_ms=NOW_MS - 7 if recent_orders else None,
    )


def reached(found: Usage, order_msat: int, fee_msat: int = 0) -> LimitExceeded | None:
    return found.reached_by(order_msat, fee_msat, lambda _used, _over: None)


@pytest.mark.parametrize("name", ["hour", "day", "week", "month"])
def test_spent_and_reserved_and_the_order_may_be_the_limit_and_not_a_millisatoshi_more(name: str) -> None:
    limits: Any = {f"max_spend_per_{name}_sat": DAY_SAT}
    found = usage(Budget(client="ann", **limits), spent_msat=3_000, reserved_msat=4_000)
    assert reached(found, 3_000) is None
    over = reached(found, 3_001)
    assert over is not None
    assert over.metadata == {"limit": f"client.ann.max_spend_per_{name}_sat", "limit_sat": "10", "wanted_sat": "11"}


def test_of_a_fee_limit_only_fees_count() -> None:
    found = usage(Budget(client="ann", max_fee_per_day_sat=DAY_SAT), spent_msat=3_000, reserved_msat=4_000)
    assert reached(found, 1_000_000, fee_msat=3_000) is None
    over = reached(found, 1, fee_msat=3_001)
    assert over is not None
    assert over.metadata["limit"] == "client.ann.max_fee_per_day_sat"


def test_open_orders_and_orders_a_minute_are_counted() -> None:
    budget = Budget(client="ann", max_open_orders=2, max_orders_per_minute=3)
    assert reached(usage(budget, open_orders=1, recent_orders=2), 1) is None
    too_many_open = reached(usage(budget, open_orders=2, recent_orders=2), 1)
    assert too_many_open is not None
    assert "ann has 2 open orders and" in too_many_open.message
    assert too_many_open.metadata == {"limit": "client.ann.max_open_orders", "limit_orders": "2", "open_orders": "2"}
    too_fast = reached(usage(budget, open_orders=1, recent_orders=3), 1)
    assert too_fast is not None
    assert too_fast.metadata == {
        "limit": "client.ann.max_orders_per_minute",
        "limit_orders": "3",
        "recent_orders": "3",
        "renews_at_ms": str(NOW_MS - 7 + MINUTE_MS),
    }


def test_one_order_is_not_counted_as_several() -> None:
    budget = Budget(client="ann", max_open_orders=1, max_orders_per_minute=1)
    one_open, one_made = (reached(usage(budget, **used), 1) for used in ({"open_orders": 1}, {"recent_orders": 1}))
    assert one_open is not None
    assert "ann has 1 open order and" in one_open.message
    assert one_made is not None
    assert "ann made 1 order in the last minute" in one_made.message


def test_a_client_without_limits_has_none() -> None:
    assert reached(usage(Budget(client="ann"), open_orders=99, recent_orders=99), 10**12, 10**12) is None


def test_a_refusal_says_when_there_is_room_and_how_much_has_to_go() -> None:
    found = usage(Budget(client="ann", max_spend_per_day_sat=DAY_SAT), spent_msat=9_000)
    asked: list[int] = []

    def room_at_ms(_used: Used, over_msat: int) -> int:
        asked.append(over_msat)
        return ms("2026-11-26 12:30")

    over = found.reached_by(3_000, 0, room_at_ms)
    assert over is not None
    assert asked == [2_000]
    assert over.metadata["renews_at_ms"] == str(ms("2026-11-26 12:30"))
    assert "There is room from 2026-11-26T12:30:00Z on" in over.message


def test_only_a_client_that_may_fund_does() -> None:
    Budget(client="ann", may_fund=True).check_may_fund()
    with pytest.raises(NotAllowed, match=r"Ask the operator .*client\.ann\.may_fund"):
        Budget(client="ann").check_may_fund()


def test_a_refusal_says_of_what_over_which_time_and_rounds_up() -> None:
    spent = usage(Budget(client="ann", max_spend_per_week_sat=DAY_SAT), spent_msat=7_000_000)
    over = reached(spent, 1)
    assert over is not None
    assert "ann's total of this week would be up to 7,001 sat" in over.message
    fees = reached(usage(Budget(client="ann", max_fee_per_day_sat=DAY_SAT), spent_msat=9_001), 0, fee_msat=1_000)
    assert fees is not None
    assert "ann's fees of this day would be up to 11 sat" in fees.message


# --- warnings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("used_msat", "is_told"), [(7_999, False), (8_000, True), (10_000, True)])
def test_four_fifths_are_warned_of(used_msat: int, is_told: bool) -> None:
    found = usage(
        Budget(client="ann", max_spend_per_day_sat=DAY_SAT), spent_msat=1_000, reserved_msat=used_msat - 1_000
    )
    assert bool(found.warnings()) == is_told


def test_a_warning_says_how_much_of_which_limit_is_used() -> None:
    found = usage(Budget(client="ann", max_spend_per_day_sat=7_000), spent_msat=6_000_001, reserved_msat=1_000)
    assert found.warnings() == (
        "client.ann.max_spend_per_day_sat: 6,002 of 7,000 sat are spent or reserved, 80 % or more.",
    )


def test_a_limit_of_no_fee_at_all_is_warned_of_without_a_division_by_it() -> None:
    assert len(usage(Budget(client="ann", max_fee_per_day_sat=0)).warnings()) == 1


def test_a_window_renews_at_its_end_or_when_its_oldest_spend_leaves() -> None:
    (line,) = Budget(client="ann", max_spend_per_day_sat=DAY_SAT).lines()
    assert used(line, spent_msat=1).renews_at_ms == NOW_MS - HOUR_MS + DAY_MS
    assert used(line).renews_at_ms is None
    calendar = used(line, renewal=Renewal.CALENDAR)
    assert calendar.renews_at_ms == calendar.window.ends_at_ms
