"""Each law on stored data: kept by every healthy order, and its breach found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdpay.audit.findings import Severity
from holdpay.audit.laws import law_findings, shared_findings
from holdpay.core.model import Order
from holdpay.core.states import End, HtlcState, OrderState
from tests.unit.audit.books import FULFILLED, HELD, IN_FLIGHT, REFUNDED, SENT, Timed, book, changed
from tests.unit.build import HASH, NOW_MS, POLICY, order, pair, replied, settled


def ended(*life: Timed) -> Order:
    return book(*life).order


CHARGED = ended(*HELD, (60, settled()), (60 + POLICY.settled_grace_s + 1, replied(NOW_MS, paid=True, error="over")))


@pytest.mark.parametrize("life", [(), SENT, IN_FLIGHT, HELD, FULFILLED, REFUNDED])
def test_a_healthy_order_breaks_no_law(life: tuple[Timed, ...]) -> None:
    assert law_findings(ended(*life)) == []


def test_an_order_charged_without_a_code_breaks_no_law() -> None:
    assert CHARGED.end is End.CHARGED_UNFULFILLED
    assert law_findings(CHARGED) == []


@pytest.mark.parametrize("life", [FULFILLED, REFUNDED])
def test_an_order_whose_code_was_erased_breaks_no_law(life: tuple[Timed, ...]) -> None:
    assert law_findings(replace(ended(*life), number=None, code=None, erased_at_ms=NOW_MS)) == []


def test_a_free_code_breaks_no_law() -> None:
    free = replace(
        pair(OrderState.DELIVERED, HtlcState.FAILED),
        closed_at_ms=NOW_MS,
        end=End.FULFILLED_FREE,
        provider_order_id=HASH,
    )
    assert law_findings(free) == []


ERASED: dict[str, Any] = {"erased_at_ms": NOW_MS, "number": None, "code": None}

BREACHES: list[tuple[str, Order, dict[str, Any]]] = [
    ("impossible-pair", ended(*HELD), {"state": OrderState.REQUESTED}),
    ("closed-with-money-out", ended(*REFUNDED), {"htlc": HtlcState.IN_FLIGHT}),
    ("closed-with-money-out", ended(*REFUNDED), {"htlc": HtlcState.UNKNOWN}),
    ("half-closed", ended(*REFUNDED), {"closed_at_ms": None}),
    ("half-closed", ended(*REFUNDED), {"end": None}),
    ("end-contradicts", ended(*FULFILLED), {"end": End.REFUNDED}),
    ("end-contradicts", ended(*FULFILLED), {"end": End.PAYMENT_FAILED}),
    ("end-contradicts", ended(*FULFILLED), {"code": None}),
    ("end-contradicts", ended(*REFUNDED), {"end": End.FULFILLED}),
    ("end-contradicts", ended(*REFUNDED), {"end": End.CHARGED_UNFULFILLED}),
    ("code-lost", ended(*FULFILLED), {"code": None}),
    ("code-lost", ended(*HELD), {"code": "012345"}),
    ("erased-in-part", ended(*FULFILLED), {"erased_at_ms": NOW_MS}),
    ("erased-in-part", ended(*HELD), {"erased_at_ms": NOW_MS, "number": None}),
    ("erased-in-part", ended(*FULFILLED), {"earlier_numbers": ("1",), **ERASED}),
    ("erased-in-part", ended(*FULFILLED), {"later_codes": ("1",), **ERASED}),
    ("erased-in-part", ended(*FULFILLED), {"unread": "{", **ERASED}),
    ("number-lost", ended(*HELD), {"number": None}),
    ("bad-hash", ended(*HELD), {"payment_hash": "no hash"}),
    ("other-invoice", ended(*HELD), {"payreq": "lnsb1..."}),
    ("preimage-missing", ended(*FULFILLED), {"preimage": None}),
    ("preimage-missing", ended(*HELD), {"preimage": "11" * 32}),
    ("preimage-unfit", ended(*FULFILLED), {"preimage": "22" * 32}),
    ("preimage-unfit", ended(*FULFILLED), {"preimage": "zz"}),
    ("never-sent", ended(*HELD), {"dispatch_count": 0}),
    ("over-price", ended(*HELD), {"amount_msat": 2_041_000}),
]


@pytest.mark.parametrize(("code", "healthy", "changes"), BREACHES, ids=[f"{b[0]} {next(iter(b[2]))}" for b in BREACHES])
def test_a_breach_is_found(code: str, healthy: Order, changes: dict[str, Any]) -> None:
    assert law_findings(healthy) == []
    breaches = law_findings(changed(healthy, **changes))
    assert code in {finding.code for finding in breaches}
    assert all(finding.severity is Severity.ERROR and finding.todo for finding in breaches)
    told = " ".join(finding.text for finding in breaches)
    assert not any(secret in told for secret in ("012345", "15551234567", HASH, "11" * 32, "22" * 32))


def test_a_fee_over_the_limit_is_noted_since_a_person_may_have_paid() -> None:
    (finding,) = law_findings(changed(ended(*FULFILLED), fee_msat=20_001))
    assert (finding.severity, finding.code) == (Severity.NOTE, "over-fee")


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (replace(ended(*HELD), id="zyxwvutsrq", key="key-2", provider_order_id="another"), "payment hash"),
        (
            changed(replace(ended(*HELD), id="zyxwvutsrq", key="key-2"), payment_hash="ff" * 32),
            "order at the provider",
        ),
        (order(id="zyxwvutsrq"), "idempotency key"),
    ],
)
def test_what_only_one_order_may_have_is_found_at_two(other: Order, what: str) -> None:
    (finding,) = shared_findings([ended(*HELD), other])
    assert finding.code == "shared"
    assert finding.text == f"It shares its {what} with order zyxwvutsrq."


def test_a_duplicate_that_was_refused_has_no_payment_and_shares_nothing() -> None:
    refused = order(id="zyxwvutsrq", key="key-2", provider_order_id=HASH, payreq="lnsb20u1...")
    assert shared_findings([ended(*HELD), refused]) == []


def test_orders_with_nothing_in_common_share_nothing() -> None:
    assert shared_findings([ended(*HELD), order(id="zyxwvutsrq", key="key-2"), order(id="k", key="key-3")]) == []
