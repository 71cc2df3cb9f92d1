"""Prices and fees, what a failure means, and what one SendPaymentV2 says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdpay.core.lightning import Attempt, AttemptStatus, FailureReason, PaymentStatus
from holdpay.core.policy import (
    classify,
    dispatch_spec,
)
from holdpay.core.states import FailureClass
from tests.unit.build import (
    FAILED_AT_PAYEE,
    FAILED_ON_THE_WAY,
    HASH,
    NOW_MS,
    POLICY,
    attempt,
    payment,
    update,
)

# --- prices and fees ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quote_sat", "max_price_sat", "cap_sat"),
    [
        (2_000, None, 2_040),
        (2_000, 2_010, 2_010),
        (2_000, 9_000, 2_040),
        (None, 9_000, 9_000),
        (None, 90_000, 10_000),
        (9_900, None, 10_000),
        (9_500, None, 9_690),
        (None, None, None),
        (0, None, 0),
    ],
)
def test_the_price_cap_is_the_least_of_quote_client_and_daemon(
    quote_sat: int | None, max_price_sat: int | None, cap_sat: int | None
) -> None:
    assert POLICY.price_cap_sat(quote_sat, max_price_sat) == cap_sat


@pytest.mark.parametrize(("amount_sat", "cap_sat"), [(0, 10), (500, 10), (1_000, 10), (2_000, 20), (9_999, 99)])
def test_the_fee_cap_is_a_percentage_with_a_floor(amount_sat: int, cap_sat: int) -> None:
    assert POLICY.fee_cap_sat(amount_sat) == cap_sat


@pytest.mark.parametrize(
    ("amount_sat", "max_fee_sat", "bound_sat"),
    [(0, None, 50), (1_000, None, 50), (1_019, None, 50), (2_000, None, 100), (10_000, None, 500), (2_000, 7, 7)],
)
def test_a_fee_limit_is_bounded_by_the_key_or_by_5_percent_and_50_sat_at_least(
    amount_sat: int, max_fee_sat: int | None, bound_sat: int
) -> None:
    assert replace(POLICY, max_fee_sat=max_fee_sat).fee_bound_sat(amount_sat) == bound_sat


def test_the_daemons_own_fee_limit_is_never_over_its_bound() -> None:
    assert replace(POLICY, max_fee_sat=7).fee_cap_sat(2_000) == 7
    assert replace(POLICY, fee_limit_percent=20.0).fee_cap_sat(2_000) == 100
    assert replace(POLICY, fee_limit_floor_sat=80).fee_cap_sat(1_000) == 50


# --- what a failure means -------------------------------------------------------------------------------------------


def _class(*attempts: Attempt, reason: FailureReason = FailureReason.NO_ROUTE, live: bool = True) -> FailureClass:
    return classify(update(PaymentStatus.FAILED, *attempts, failure_reason=reason), live)


ON_CHAIN_AT_FIRST_HOP = attempt(AttemptStatus.FAILED, failure_code=21, failure_source_index=0)
ON_CHAIN_AT_SECOND_HOP = attempt(AttemptStatus.FAILED, failure_code=21, failure_source_index=1)
MPP_TIMEOUT_AT_PAYEE = attempt(AttemptStatus.FAILED, failure_code=23, failure_source_index=2)


@pytest.mark.parametrize("live", [True, False])
def test_the_payees_refusal_is_one_whenever_it_is_read(live: bool) -> None:
    assert _class(FAILED_AT_PAYEE, live=live) is FailureClass.PAYEE_REFUSED
    assert _class(MPP_TIMEOUT_AT_PAYEE, live=live) is FailureClass.PAYEE_REFUSED
    reason = FailureReason.INCORRECT_PAYMENT_DETAILS
    assert _class(reason=reason, live=live) is FailureClass.PAYEE_REFUSED
    assert _class(FAILED_ON_THE_WAY, reason=reason, live=live) is FailureClass.PAYEE_REFUSED


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("reason", [FailureReason.NO_ROUTE, FailureReason.INSUFFICIENT_BALANCE])
@pytest.mark.parametrize("found", [ON_CHAIN_AT_FIRST_HOP, ON_CHAIN_AT_SECOND_HOP])
def test_a_channel_closed_on_chain_is_seen_through_the_retryable_reason(
    found: Attempt, reason: FailureReason, live: bool
) -> None:
    assert _class(found, FAILED_ON_THE_WAY, reason=reason, live=live) is FailureClass.ON_CHAIN


def test_only_a_failure_seen_live_is_a_routing_failure() -> None:
    assert _class(FAILED_ON_THE_WAY) is FailureClass.ROUTING
    assert _class(FAILED_ON_THE_WAY, live=False) is FailureClass.READ_LATER
    assert _class() is FailureClass.NO_ATTEMPT
    for reason in set(FailureReason) - {FailureReason.INCORRECT_PAYMENT_DETAILS}:
        assert _class(reason=reason, live=False) is FailureClass.READ_LATER


# --- one SendPaymentV2 ----------------------------------------------------------------------------------------------


def test_a_dispatch_says_every_option() -> None:
    spec = dispatch_spec(payment(fee_limit_msat=7_000, final_cltv_delta=40), NOW_MS + 598_900, POLICY, NOW_MS)
    assert (spec.payreq, spec.payment_hash) == ("lnsb20u1...", HASH)
    assert (spec.fee_limit_msat, spec.timeout_s, spec.max_parts) == (7_000, 598, 1)
    assert spec.cltv_limit == 40 + 3 + 432


@pytest.mark.parametrize(("amount_msat", "parts"), [(20_000_000, 1), (20_000_001, 4)])
def test_only_a_large_sum_is_split(amount_msat: int, parts: int) -> None:
    assert dispatch_spec(payment(amount_msat=amount_msat), NOW_MS + 1, POLICY, NOW_MS).max_parts == parts


@pytest.mark.parametrize(("left_ms", "timeout_s"), [(600_000, 600), (1_999, 1), (1, 1)])
def test_lnd_may_start_attempts_for_as_long_as_is_left_to_pay_and_is_always_told_for_how_long(
    left_ms: int, timeout_s: int
) -> None:
    """A time-out of 0 would be lnd's own default."""
    assert dispatch_spec(payment(), NOW_MS + left_ms, POLICY, NOW_MS).timeout_s == timeout_s
