"""What a client may ask of a request that goes on, at each bound, and what is recorded of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdpay.core.strategy import Country, Strategy
from holdpay.engine.next_orders import MAX_STRATEGY, check_strategy, strategy_of
from holdpay.engine.objections import Draft, within_total
from holdpay.engine.quoting import Quoted
from holdpay.engine.wanted import Asked, CodeWanted, StrategyWanted
from holdpay.errors import InvalidRequest, PriceTooHigh
from tests.unit.build import POLICY, SPEC

COUNTRIES = (Country(187, "United States"), Country(16, "England"))
ASKED = Asked(key="k", max_price_sat=2_500, max_fee_sat=30, force=True)
SEVERAL = CodeWanted(countries=("usa", "england"), service="openai")
ONE = CodeWanted(countries=("usa",), service="openai")
ANY = CodeWanted(countries=("any",), service="openai")


def check(**said: int) -> None:
    check_strategy(ASKED, replace(SEVERAL, strategy=StrategyWanted(**said)), POLICY)


# --- what is recorded -------------------------------------------------------------------------------------------------


def test_what_is_recorded_is_what_was_asked_for() -> None:
    said = StrategyWanted(attempts=4, max_total_sat=9_000, within_s=900, number_within_s=300, sms_within_s=400)
    assert strategy_of(ASKED, replace(SEVERAL, strategy=said), COUNTRIES, POLICY) == Strategy(
        countries=COUNTRIES,
        attempts=4,
        max_total_sat=9_000,
        within_s=900,
        number_within_s=300,
        sms_within_s=400,
        max_price_sat=2_500,
        max_fee_sat=30,
        force=True,
    )


@pytest.mark.parametrize(
    ("wanted", "attempts"), [(SEVERAL, 2), (replace(ONE, strategy=StrategyWanted(within_s=900)), 3), (ANY, 3)]
)
def test_who_says_nothing_of_attempts_gets_one_in_each_country_or_three_where_none_were_named(
    wanted: CodeWanted, attempts: int
) -> None:
    assert strategy_of(ASKED, wanted, COUNTRIES, POLICY).attempts == attempts
    assert strategy_of(ASKED, wanted, COUNTRIES, replace(POLICY, max_attempts=1)).attempts == 1


# --- what may be asked ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("attempts", 1, POLICY.max_attempts),
        ("max_total_sat", 1, 100_000_000),
        ("within_s", 1, 7 * 24 * 3600),
        ("number_within_s", POLICY.cancel_after_s, 24 * 3600),
        ("sms_within_s", POLICY.cancel_after_s, 24 * 3600),
    ],
)
def test_each_number_of_a_strategy_has_its_bounds(name: str, least: int, most: int) -> None:
    for value in (least, most):
        check(**{name: value})
    for value in (least - 1, most + 1):
        with pytest.raises(InvalidRequest) as refused:
            check(**{name: value})
        assert refused.value.metadata["field"] == name
        assert f"{most:,}" in refused.value.message


def test_what_the_provider_would_not_cancel_so_early_is_told_so() -> None:
    with pytest.raises(InvalidRequest, match=r"number_within_s is 1, and may be 120 .* takes no cancel earlier"):
        check(number_within_s=1)
    with pytest.raises(InvalidRequest) as refused:
        check(within_s=0)
    assert "takes no cancel" not in refused.value.message


def test_too_many_attempts_name_the_key_that_bounds_them() -> None:
    with pytest.raises(InvalidRequest) as refused:
        check(attempts=99)
    assert refused.value.metadata == {"field": "attempts", "limit": "requests.max_attempts"}


@pytest.mark.parametrize("wanted", [SEVERAL, ANY, replace(ONE, strategy=StrategyWanted(attempts=2))])
def test_from_the_account_only_a_single_order_is_paid(wanted: CodeWanted) -> None:
    prepaid = Asked(key="k", is_prepaid=True)
    with pytest.raises(InvalidRequest) as refused:
        check_strategy(prepaid, wanted, POLICY)
    assert refused.value.metadata == {"field": "prepaid"}
    check_strategy(prepaid, ONE, POLICY)


def test_bounds_are_set_for_every_number_but_the_attempts() -> None:
    assert set(MAX_STRATEGY) | {"attempts"} == set(StrategyWanted.__slots__)


# --- the total --------------------------------------------------------------------------------------------------------


def _cap(max_total_sat: int, quote_sat: int | None = 2_000) -> int:
    draft = Draft(quoted=Quoted(spec=SPEC, quote_sat=quote_sat), cap_sat=2_040, max_fee_sat=20)
    error = within_total(draft, max_total_sat).error
    if error is not None:
        raise error
    return draft.cap_sat


def test_with_its_fee_an_order_takes_no_more_than_all_together_may_cost() -> None:
    assert [_cap(total_sat) for total_sat in (3_000, 2_060, 2_059, 2_020)] == [2_040, 2_040, 2_039, 2_000]
    with pytest.raises(PriceTooHigh) as refused:
        _cap(2_019)
    assert refused.value.metadata == {"price_sat": "2000", "limit": "max_total_sat", "limit_sat": "2019"}
    assert "The price is 2,000 sat, with a fee of up to 20 sat, and the request allows 2,019 in all." in (
        refused.value.message
    )


def test_where_no_price_is_known_a_satoshi_has_to_be_left() -> None:
    assert _cap(21, quote_sat=None) == 1
    with pytest.raises(PriceTooHigh):
        _cap(20, quote_sat=None)
