"""Each law on stored data: kept by every healthy order, and its breach found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdpay.audit.findings import Severity
from holdpay.audit.laws import law_findings, shared_findings
from holdpay.core.charge import Charge, ChargeState
from holdpay.core.kinds import AnySpec
from holdpay.core.model import Order
from holdpay.core.states import End, HtlcState, OrderState
from tests.unit.audit.books import FULFILLED, HELD, IN_FLIGHT, REFUNDED, SENT, Timed, book, changed
from tests.unit.build import FUND, HASH, NOW_MS, POLICY, RENTAL, SMS, SPEC, order, pair, replied, settled


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
    assert law_findings(replace(ended(*life), items=(), erased_at_ms=NOW_MS)) == []


def test_a_free_code_breaks_no_law() -> None:
    free = replace(
        pair(OrderState.DELIVERED, HtlcState.FAILED),
        closed_at_ms=NOW_MS,
        end=End.FULFILLED_FREE,
        provider_order_id=HASH,
    )
    assert law_findings(free) == []


def of_kind(spec: AnySpec, state: OrderState, htlc: HtlcState, end: End | None = None, **changes: Any) -> Order:
    """An order of this kind with nothing delivered but what ``changes`` name."""
    plain = changed(pair(state, htlc), spec=spec, number=None, code=None)
    closed = {} if end is None else {"closed_at_ms": NOW_MS, "end": end}
    return changed(plain, **closed, **changes)


DELIVERED, SETTLED = OrderState.DELIVERED, HtlcState.SETTLED
FUNDED = of_kind(FUND, DELIVERED, SETTLED, End.FULFILLED)
SMS_SENT = of_kind(SMS, DELIVERED, SETTLED, End.FULFILLED, sending=("created", "sent"))
RENTED = of_kind(RENTAL, DELIVERED, SETTLED, number="15551234567")
RENTED_TO_ITS_END = of_kind(RENTAL, DELIVERED, SETTLED, End.FULFILLED, number="15551234567", messages=("your code: 1",))
RENTAL_HELD_WITH_A_MESSAGE = of_kind(RENTAL, DELIVERED, HtlcState.IN_FLIGHT, number="1", messages=("hello",))
ERASED_SMS = replace(SMS_SENT, request=replace(SMS_SENT.request, spec=SMS.without_secrets()), items=(), erased_at_ms=1)


def prepaid(
    state: OrderState, charge: ChargeState | None, end: End | None = None, spec: AnySpec = SPEC, **changes: Any
) -> Order:
    """An order paid from the balance, of which as much is known as its state says."""
    made = None
    if charge is not None:
        made = Charge(state=charge, since_ms=NOW_MS, amount_sat=2_000, balance_before_sat=9_000, intended_at_ms=NOW_MS)
    plain = changed(replace(pair(state, HtlcState.NONE), payment=None, charge=made), spec=spec, is_prepaid=True)
    closed = {} if end is None else {"closed_at_ms": NOW_MS, "end": end}
    return changed(plain, **closed, **changes)


PREPAID = {
    "not placed yet": prepaid(OrderState.REQUESTED, None),
    "being placed": prepaid(OrderState.REQUESTED, ChargeState.INTENDED),
    "reply lost": prepaid(OrderState.REQUESTED, ChargeState.UNKNOWN),
    "with a number": prepaid(OrderState.NUMBER_ASSIGNED, ChargeState.CHARGED),
    "fulfilled": prepaid(DELIVERED, ChargeState.CHARGED, End.FULFILLED),
    "fulfilled for free": prepaid(DELIVERED, ChargeState.REFUSED, End.FULFILLED_FREE),
    "rented": prepaid(DELIVERED, ChargeState.CHARGED, spec=RENTAL, code=None),
    "refused": prepaid(OrderState.ABANDONED, ChargeState.REFUSED, End.PROVIDER_REFUSED),
    "never placed": prepaid(OrderState.ABANDONED, None, End.CANCELED_UNPAID),
    "refunded": prepaid(OrderState.CANCELED, ChargeState.RETURNED, End.REFUNDED),
    "charged for nothing": prepaid(OrderState.ABANDONED, ChargeState.CHARGED, End.CHARGED_UNFULFILLED),
    "fulfilled, written off": prepaid(DELIVERED, ChargeState.UNKNOWN, End.FULFILLED),
    "written off": prepaid(OrderState.ABANDONED, ChargeState.UNKNOWN, End.OUTCOME_UNKNOWN),
}


@pytest.mark.parametrize(
    "healthy",
    [FUNDED, SMS_SENT, RENTED, RENTED_TO_ITS_END, RENTAL_HELD_WITH_A_MESSAGE, ERASED_SMS],
    ids=["funded", "sms sent", "rented", "rented to its end", "held, with a message", "erased"],
)
def test_a_healthy_order_of_another_kind_breaks_no_law(healthy: Order) -> None:
    assert law_findings(healthy) == []


@pytest.mark.parametrize("name", PREPAID)
def test_a_healthy_prepaid_order_breaks_no_law(name: str) -> None:
    assert law_findings(PREPAID[name]) == []


ERASED: dict[str, Any] = {"erased_at_ms": NOW_MS, "items": ()}


def charge(of: Order, **changes: Any) -> dict[str, Any]:
    assert of.charge is not None
    return {"charge": replace(of.charge, **changes)}


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
    ("delivery-lost", ended(*FULFILLED), {"code": None}),
    ("delivery-lost", ended(*HELD), {"code": "012345"}),
    ("delivery-lost", SMS_SENT, {"sending": "created"}),
    ("delivery-lost", RENTED, {"number": None}),
    ("delivery-lost", RENTAL_HELD_WITH_A_MESSAGE, {"messages": None}),
    ("delivery-lost", FUNDED, {"htlc": HtlcState.IN_FLIGHT, "preimage": None}),
    ("delivery-lost", FUNDED, {"htlc": HtlcState.GONE, "preimage": None}),
    ("delivery-lost", PREPAID["rented"], {"number": None}),
    ("delivery-lost", PREPAID["rented"], charge(PREPAID["rented"], state=ChargeState.REFUSED)),
    ("erased-in-part", ended(*FULFILLED), {"erased_at_ms": NOW_MS}),
    ("erased-in-part", ended(*HELD), ERASED),
    ("erased-in-part", SMS_SENT, ERASED),
    ("erased-in-part", ERASED_SMS, {"sending": "sent"}),
    ("number-lost", ended(*HELD), {"number": None}),
    ("bad-hash", ended(*HELD), {"payment_hash": "no hash"}),
    ("other-invoice", ended(*HELD), {"payreq": "lnsb1..."}),
    ("preimage-missing", ended(*FULFILLED), {"preimage": None}),
    ("preimage-missing", ended(*HELD), {"preimage": "11" * 32}),
    ("preimage-unfit", ended(*FULFILLED), {"preimage": "22" * 32}),
    ("preimage-unfit", ended(*FULFILLED), {"preimage": "zz"}),
    ("never-sent", ended(*HELD), {"dispatch_count": 0}),
    ("over-price", ended(*HELD), {"amount_msat": 2_041_000}),
    ("over-price", PREPAID["with a number"], charge(PREPAID["with a number"], amount_sat=2_041)),
    ("other-funding", ended(*HELD), {"is_prepaid": True}),
    ("other-funding", PREPAID["with a number"], {"is_prepaid": False}),
    ("other-funding", PREPAID["fulfilled"], {"payment": ended(*FULFILLED).payment}),
    ("impossible-pair", PREPAID["with a number"], {"charge": None}),
    ("impossible-pair", PREPAID["with a number"], charge(PREPAID["with a number"], state=ChargeState.UNKNOWN)),
    ("impossible-pair", PREPAID["with a number"], charge(PREPAID["with a number"], state=ChargeState.REFUSED)),
    ("impossible-pair", PREPAID["reply lost"], {"state": OrderState.AWAITING_PAYMENT}),
    ("impossible-pair", PREPAID["being placed"], charge(PREPAID["being placed"], state=ChargeState.CHARGED)),
    ("closed-with-money-out", PREPAID["written off"], charge(PREPAID["written off"], state=ChargeState.INTENDED)),
    ("end-contradicts", PREPAID["refused"], charge(PREPAID["refused"], state=ChargeState.UNKNOWN)),
    ("end-contradicts", PREPAID["fulfilled"], charge(PREPAID["fulfilled"], state=ChargeState.REFUSED)),
    ("end-contradicts", PREPAID["fulfilled for free"], charge(PREPAID["fulfilled"])),
    ("end-contradicts", PREPAID["refunded"], charge(PREPAID["refunded"], state=ChargeState.CHARGED)),
    ("end-contradicts", PREPAID["charged for nothing"], charge(PREPAID["refunded"])),
    ("end-contradicts", PREPAID["written off"], charge(PREPAID["charged for nothing"])),
]


@pytest.mark.parametrize(("code", "healthy", "changes"), BREACHES, ids=[f"{b[0]} {n}" for n, b in enumerate(BREACHES)])
def test_a_breach_is_found(code: str, healthy: Order, changes: dict[str, Any]) -> None:
    assert law_findings(healthy) == []
    breaches = law_findings(changed(healthy, **changes))
    assert code in {finding.code for finding in breaches}
    assert all(finding.severity is Severity.ERROR and finding.todo for finding in breaches)
    told = " ".join(finding.text for finding in breaches)
    assert not any(
        secret in told
        for secret in ("012345", "15551234567", "your code", SMS.phone, SMS.message, HASH, "11" * 32, "22" * 32)
    )


def test_a_fee_over_the_limit_is_noted_since_a_person_may_have_paid() -> None:
    (finding,) = law_findings(changed(ended(*FULFILLED), fee_msat=20_001))
    assert (finding.severity, finding.code) == (Severity.NOTE, "over-fee")


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (changed(ended(*HELD), id="zyxwvutsrq", key="key-2", provider_order_id="another"), "payment hash"),
        (
            changed(ended(*HELD), id="zyxwvutsrq", key="key-2", payment_hash="ff" * 32),
            "order at the provider",
        ),
        (prepaid(OrderState.PAID, ChargeState.CHARGED, id="zyxwvutsrq", key="key-2"), "order at the provider"),
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
