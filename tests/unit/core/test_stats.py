"""What a number of orders brought, cost and took, and which countries are best."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdpay.core.states import End
from holdpay.core.stats import Outcome, StatsBy, best_first, lines
from tests.unit.build import HOUR, NOW_MS

CAME = Outcome(
    kind="code",
    country_code=187,
    country="USA",
    service_code="oi",
    service="OpenAI",
    created_at_ms=NOW_MS,
    end=End.FULFILLED,
    number_after_ms=10_000,
    code_after_ms=30_000,
    spent_msat=2_001_002,
    fee_msat=1_002,
    amount_msat=2_000_000,
    locked_ms=HOUR // 2,
)
REFUNDED = replace(
    CAME, end=End.REFUNDED, number_after_ms=None, code_after_ms=None, spent_msat=0, fee_msat=0, locked_ms=HOUR
)


def of(country: str, code: int, **changes: Any) -> Outcome:
    return replace(CAME, country=country, country_code=code, **changes)


def test_a_line_sums_what_was_spent_and_locked_and_tells_medians_of_what_came() -> None:
    slow = replace(CAME, number_after_ms=20_000, code_after_ms=50_000)
    (line,) = lines([CAME, REFUNDED, slow], StatsBy.COUNTRY)
    assert (line.name, line.orders, line.came) == ("USA", 3, 2)
    assert (line.median_number_s, line.median_code_s) == (15.0, 40.0)
    assert (line.spent_msat, line.fee_msat) == (2 * 2_001_002, 2 * 1_002)
    assert line.locked_sat_hours == 2_000 * (0.5 + 0.5 + 1)


@pytest.mark.parametrize(
    ("codes_s", "median_s"), [((7,), 7.0), ((9, 1), 5.0), ((1, 5, 9), 5.0), ((9, 2, 4, 1), 3.0), ((1, 9, 3, 8, 4), 4.0)]
)
def test_the_median_is_in_the_middle_of_what_came(codes_s: tuple[int, ...], median_s: float) -> None:
    (line,) = lines([replace(CAME, code_after_ms=each * 1000) for each in codes_s], StatsBy.KIND)
    assert (line.name, line.median_code_s) == ("code", median_s)


def test_a_day_is_the_one_of_utc_to_its_last_second() -> None:
    midnight_ms = NOW_MS - NOW_MS % (24 * HOUR)
    days = [replace(CAME, created_at_ms=midnight_ms + ms) for ms in (-1, 0, 24 * HOUR - 1, 24 * HOUR)]
    assert [(line.name, line.orders) for line in lines(days, StatsBy.DAY)] == [
        ("2027-01-14", 1),
        ("2027-01-15", 2),
        ("2027-01-16", 1),
    ]


def test_what_never_came_has_no_median() -> None:
    (line,) = lines([REFUNDED], StatsBy.SERVICE)
    assert (line.name, line.came, line.median_number_s, line.median_code_s) == ("OpenAI", 0, None, None)


def test_a_code_that_cost_nothing_came_too() -> None:
    assert lines([replace(CAME, end=End.FULFILLED_FREE)], StatsBy.KIND)[0].came == 1
    assert lines([replace(CAME, end=End.CHARGED_UNFULFILLED)], StatsBy.KIND)[0].came == 0


def test_the_line_with_most_orders_is_first_and_days_are_in_their_order() -> None:
    some = [of("Canada", 36), CAME, CAME, of("Austria", 50)]
    assert [line.name for line in lines(some, StatsBy.COUNTRY)] == ["USA", "Austria", "Canada"]
    days = [replace(CAME, created_at_ms=NOW_MS + days * 24 * HOUR) for days in (2, 0, 0, 1)]
    found = lines(days, StatsBy.DAY)
    assert [line.orders for line in found] == [2, 1, 1]
    assert [line.name for line in found] == sorted(line.name for line in found)


def test_the_best_country_is_the_surest_and_of_equals_the_quickest() -> None:
    known = [
        *[of("Sure", 1, code_after_ms=60_000)] * 8,
        *[of("Quick", 2, code_after_ms=20_000)] * 8,
        *[of("Never", 3, end=End.REFUNDED, code_after_ms=None)] * 8,
        *[of("Half", 4), of("Half", 4, end=End.REFUNDED, code_after_ms=None)] * 4,
    ]
    assert best_first(known, [1, 2, 3, 4, 5]) == (2, 1, 4, 5, 3)


def test_one_order_that_went_well_is_less_than_many_that_nearly_all_did() -> None:
    known = [of("Once", 1), *[of("Often", 2)] * 19, of("Often", 2, end=End.REFUNDED)]
    assert best_first(known, [1, 2]) == (2, 1)


def test_one_code_of_three_is_worse_than_a_country_of_which_nothing_is_known() -> None:
    failed = of("Third", 1, end=End.REFUNDED, code_after_ms=None)
    assert best_first([of("Third", 1), failed, failed], [1, 2]) == (2, 1)


def test_where_nothing_is_known_the_order_stays() -> None:
    assert best_first([], [7, 3, 5]) == (7, 3, 5)
