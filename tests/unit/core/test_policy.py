"""Vetting, what a failure means, and what one SendPaymentV2 says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdpay.core.lightning import Attempt, AttemptStatus, FailureReason, Invoice, NodeIdentity, PaymentStatus
from holdpay.core.policy import (
    Strictness,
    Verdict,
    classify,
    dispatch_spec,
    vet,
)
from holdpay.core.states import FailureClass
from tests.unit.build import (
    ALICE,
    FAILED_AT_PAYEE,
    FAILED_ON_THE_WAY,
    HASH,
    NOW_MS,
    POLICY,
    S,
    attempt,
    invoice,
    order,
    payment,
    update,
)

PLACED = order(provider_order_id=HASH)


def _vet(found: Invoice, node: NodeIdentity = ALICE, *, seen_before: bool = False, **policy: Any) -> Verdict:
    return vet(PLACED, found, node, seen_before, replace(POLICY, **policy), NOW_MS)


# --- vetting --------------------------------------------------------------------------------------------------------


def test_the_providers_usual_invoice_passes_without_a_word() -> None:
    assert _vet(invoice()) == Verdict((), ())


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (invoice(amount_msat=0), "no amount"),
        (invoice(amount_msat=2_040_001), "it asks 2,041 sat, and at most 2,040 sat"),
        (invoice(created_at_ms=NOW_MS - 86_341 * S), "expires in 59 s"),
        (invoice(created_at_ms=NOW_MS - 90_000 * S), "expires in -3600 s"),
        (invoice(final_cltv_delta=145), "CLTV delta is 145 blocks, and at most 144"),
        (invoice(final_cltv_delta=-1), "CLTV delta is -1 blocks, and at most 144"),
        (invoice(has_payment_address=False), "no payment address"),
        (invoice(payee="02" + "dd" * 32), "not the provider's known node"),
    ],
)
def test_each_thing_that_is_wrong_with_an_invoice_refuses_it(bad: Invoice, words: str) -> None:
    verdict = _vet(bad)
    assert len(verdict.reasons) == 1
    assert words in verdict.reasons[0]


@pytest.mark.parametrize(
    "good",
    [
        invoice(amount_msat=2_040_000),
        invoice(amount_msat=1),
        invoice(created_at_ms=NOW_MS - 86_340 * S),
        invoice(final_cltv_delta=144),
        invoice(final_cltv_delta=0),
    ],
)
def test_an_invoice_right_at_a_bound_passes(good: Invoice) -> None:
    assert _vet(good).reasons == ()


def test_a_payment_hash_seen_before_is_refused() -> None:
    assert "another order" in _vet(invoice(), seen_before=True).reasons[0]


def test_an_invoice_of_another_network_than_the_configured_one_is_refused() -> None:
    assert _vet(invoice(), network="mainnet").reasons
    assert not _vet(invoice(), network=None).reasons


def test_all_that_is_wrong_is_said_at_once() -> None:
    bad = Invoice(
        payment_hash="ff" * 32,
        payee="02" + "dd" * 32,
        amount_msat=0,
        created_at_ms=NOW_MS - 90_000 * S,
        expiry_s=3600,
        final_cltv_delta=2016,
        has_payment_address=False,
        memo="",
    )
    verdict = _vet(bad, seen_before=True, network="mainnet", order_id_check=Strictness.PIN)
    assert len(verdict.reasons) == 8
    assert len(set(verdict.reasons)) == 8
    assert verdict.warnings == ()


@pytest.mark.parametrize(
    ("check", "reasons", "warnings"), [(Strictness.PIN, 1, 0), (Strictness.WARN, 0, 1), (Strictness.OFF, 0, 0)]
)
def test_payee_and_order_id_are_judged_as_strictly_as_configured(
    check: Strictness, reasons: int, warnings: int
) -> None:
    by_payee = _vet(invoice(payee="02" + "dd" * 32), payee_check=check)
    assert (len(by_payee.reasons), len(by_payee.warnings)) == (reasons, warnings)
    by_order_id = _vet(invoice(payment_hash="ff" * 32), order_id_check=check)
    assert (len(by_order_id.reasons), len(by_order_id.warnings)) == (reasons, warnings)


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
