"""The journal against its snapshot and against the machine: a healthy one is fine, each spoilt one is found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdpay.audit.books import OrderBook
from holdpay.audit.findings import Finding, Severity
from holdpay.audit.journal import gap_findings, journal_findings
from holdpay.audit.laws import law_findings
from holdpay.core.charge import ChargeState
from holdpay.core.events import CancelRequested, PaymentNotFound, ProviderConfused, TimePassed
from holdpay.core.model import Order
from holdpay.core.states import HtlcState, OrderState
from tests.unit.audit.books import (
    FULFILLED,
    HELD,
    IN_FLIGHT,
    KINDS,
    PREPAID,
    REFUNDED,
    SENT,
    Timed,
    book,
    changed,
    prepaid,
    with_change,
)
from tests.unit.build import FAILED_ON_THE_WAY, NOW_MS, POLICY, S, failed, replied

ABSENT: tuple[Timed, ...] = (*SENT, (10, PaymentNotFound()), (45, PaymentNotFound()))


def found(spoilt: OrderBook) -> list[Finding]:
    return journal_findings(spoilt, POLICY)


def codes(spoilt: OrderBook) -> set[str]:
    return {finding.code for finding in found(spoilt) if finding.severity is Severity.ERROR}


@pytest.mark.parametrize(
    "life",
    [(), SENT, IN_FLIGHT, HELD, FULFILLED, REFUNDED, ABSENT, (*HELD, (20, CancelRequested()))],
    ids=["requested", "sent", "in flight", "held", "code received", "refunded", "proven absent", "cancel wanted"],
)
def test_a_healthy_journal_has_no_findings(life: tuple[Timed, ...]) -> None:
    assert found(book(*life)) == []


@pytest.mark.parametrize("life", PREPAID.values(), ids=PREPAID)
def test_a_healthy_life_that_the_account_paid_has_no_findings_and_breaks_no_law(life: tuple[Timed, ...]) -> None:
    healthy = book(*life, request=prepaid())
    assert found(healthy) == []
    assert law_findings(healthy.order) == []


@pytest.mark.parametrize(("request_", "life"), KINDS.values(), ids=KINDS)
def test_a_healthy_life_of_another_kind_has_no_findings_and_breaks_no_law(
    request_: Order, life: tuple[Timed, ...]
) -> None:
    healthy = book(*life, request=request_)
    assert healthy.order.state is OrderState.DELIVERED
    assert found(healthy) == []
    assert law_findings(healthy.order) == []


def test_a_message_that_was_lost_or_forged_is_found() -> None:
    request, life = KINDS["rental, settled"]
    healthy = book(*life, request=request)
    for spoilt in ((), ("one",), ("one", "two", "three"), ("two", "one")):
        assert codes(replace(healthy, order=changed(healthy.order, messages=spoilt))) == {"items-differ"}


# --- planted ---


def test_an_order_without_any_journal_is_found() -> None:
    assert codes(replace(book(*HELD), journal=())) == {"no-journal"}


def test_a_journal_that_does_not_begin_with_the_request_is_found() -> None:
    healthy = book(*HELD)
    first = replace(healthy.journal[0], event=TimePassed())
    assert "journal-beginning" in codes(replace(healthy, journal=(first, *healthy.journal[1:])))


def test_a_deleted_last_row_is_found() -> None:
    healthy = book(*HELD)
    assert codes(replace(healthy, journal=healthy.journal[:-1])) == {"tables-differ", "items-differ"}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"provider_text": "999999"}, "provider_text"),
        ({"state": OrderState.PAID}, "state"),
        ({"end": None}, "end"),
        ({"htlc": HtlcState.FAILED}, "payment.htlc"),
        ({"amount_msat": 1}, "payment.amount_msat"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_changed_table_row_is_found_and_no_value_of_it_told(changes: dict[str, object], name: str) -> None:
    healthy = book(*FULFILLED)
    spoilt = replace(healthy, order=changed(healthy.order, **changes))
    assert "tables-differ" in codes(spoilt)
    (told,) = [finding for finding in found(spoilt) if finding.code == "tables-differ"]
    assert f" in {name}." in told.text
    assert not any(secret in told.text for secret in ("999999", "012345"))


def test_a_payment_that_vanished_from_its_table_is_found() -> None:
    healthy = book(*HELD)
    spoilt = replace(healthy, order=replace(healthy.order, payment=None), attempts={})
    assert "tables-differ" in codes(spoilt)


@pytest.mark.parametrize(
    "changes",
    [
        {"provider_text": "999999"},
        {"state": OrderState.DELIVERED},
        {"htlc": HtlcState.SETTLED},
        {"dispatch_count": 2},
        {"reached_payee": True},
        {"payment_hash": "ab" * 32},
        {"payment": None},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_change_in_the_middle_that_was_spoilt_does_not_follow_from_the_rows_before(
    changes: dict[str, object],
) -> None:
    assert "journal-broken" in codes(with_change(book(*HELD), 5, **changes))


@pytest.mark.parametrize("changes", [{"code": "999999"}, {"number": None}, {"later_codes": "999999"}])
def test_items_that_do_not_follow_from_the_events_are_found(changes: dict[str, Any]) -> None:
    healthy = book(*FULFILLED)
    spoilt = replace(healthy, order=changed(healthy.order, **changes))
    assert codes(spoilt) == {"items-differ"}
    assert not any(secret in f.text for f in found(spoilt) for secret in ("999999", "012345"))


def test_a_reply_that_was_changed_is_found_by_what_it_delivered() -> None:
    healthy = book(*FULFILLED)
    reply = replied(NOW_MS + 60 * S, paid=True, number="15551234567", code="999999")
    rows = tuple(replace(row, event=reply) if row.cursor == 8 else row for row in healthy.journal)
    assert codes(replace(healthy, journal=rows)) == {"items-differ"}


def test_an_event_that_the_machine_cannot_take_there_is_found() -> None:
    healthy = book(*HELD)
    twice = replace(healthy.journal[3], cursor=5)
    assert codes(replace(healthy, journal=(*healthy.journal[:4], twice))) >= {"journal-broken"}


def test_a_second_request_in_one_journal_is_found() -> None:
    healthy = book(*HELD)
    rows = [replace(row, event=None) if row.cursor == 6 else row for row in healthy.journal]
    assert codes(replace(healthy, journal=tuple(rows))) == {"journal-broken"}


def test_a_row_after_the_end_is_found() -> None:
    healthy = book(*FULFILLED)
    after = replace(healthy.journal[-1], cursor=10, event=TimePassed())
    assert codes(replace(healthy, journal=(*healthy.journal, after))) == {"journal-after-end"}


def test_an_unreadable_row_is_found_and_those_after_it_are_not_blamed() -> None:
    healthy = book(*HELD)
    assert codes(replace(healthy, journal=healthy.journal[:3], unreadable=(4,))) == {"journal-unreadable"}
    assert codes(replace(healthy, journal=healthy.journal[:-1], unreadable=(7,))) == {"journal-unreadable"}


def test_a_changed_raw_reply_is_found() -> None:
    healthy = book(*HELD)
    rows = tuple(replace(row, is_raw_intact=row.cursor != 6) for row in healthy.journal)
    assert codes(replace(healthy, journal=rows)) == {"raw-changed"}


def test_a_reserve_that_the_limits_count_wrongly_is_found() -> None:
    assert codes(replace(book(*HELD), reserved_msat=0)) == {"reserved-differs"}


@pytest.mark.parametrize("wrong", [{"reserved_msat": 1}, {"spent_msat": -1}, {"spent_msat": 2_001_003}])
def test_a_ledger_that_books_other_sums_is_found(wrong: dict[str, int]) -> None:
    healthy = book(*FULFILLED)
    assert codes(replace(healthy, booked=replace(healthy.booked, **wrong))) == {"ledger-differs"}


def test_a_missing_attempt_is_found() -> None:
    assert codes(replace(book(*HELD), attempts={})) == {"attempts-differ"}


def test_a_changed_attempt_is_found() -> None:
    healthy = book(*HELD)
    spoilt = {n: replace(a, attempt=replace(a.attempt, expiry_height=1)) for n, a in healthy.attempts.items()}
    assert codes(replace(healthy, attempts=spoilt)) == {"attempts-differ"}


# --- another configuration is no damage ---


@pytest.mark.parametrize(
    ("life", "then"),
    [
        (SENT, {"fee_rungs_percent": (10.0,)}),
        (SENT, {"max_final_cltv_delta": 18}),
        (SENT, {"max_fee_sat": 5}),
        (SENT, {"payee_pubkeys": frozenset({"02" + "dd" * 32})}),
        ((*SENT, (2, failed(FAILED_ON_THE_WAY))), {"retry_delays_s": (30,)}),
        ((*SENT, (2, failed())), {"max_dispatches": 1}),
        (ABSENT, {"prove_absent_s": 600}),
        ((*HELD, (20, CancelRequested())), {"cancel_after_s": 300}),
        ((*ABSENT, (46, replied(NOW_MS + 46 * S, error="over"))), {"prove_absent_s": 600}),
    ],
)
def test_a_row_decided_under_another_configuration_is_noted_and_not_called_broken(
    life: tuple[Timed, ...], then: dict[str, object]
) -> None:
    findings = journal_findings(book(*life), replace(POLICY, **then))  # type: ignore[arg-type]
    assert [(finding.severity, finding.code) for finding in findings] == [(Severity.NOTE, "other-policy")]


@pytest.mark.parametrize("then", [{"prove_absent_s": 600}, {"prove_absent_s": 0}])
def test_a_charge_that_the_balance_disproved_under_another_configuration_is_no_damage(then: dict[str, int]) -> None:
    life = book(*PREPAID["not charged, says the balance"], request=prepaid())
    findings = journal_findings(life, replace(POLICY, **then))  # type: ignore[arg-type]
    assert {(finding.severity, finding.code) for finding in findings} <= {(Severity.NOTE, "other-policy")}
    assert findings or then == {"prove_absent_s": 0}


def test_a_charge_that_was_called_refused_without_proof_is_found() -> None:
    healthy = book(*PREPAID["reply lost"], request=prepaid())
    assert healthy.order.charge is not None
    refused = replace(healthy.order, charge=replace(healthy.order.charge, state=ChargeState.REFUSED))
    assert "journal-broken" in codes(with_change(healthy, 3, charge=refused.charge))
    disproved = book(*PREPAID["not charged, says the balance"], request=prepaid())
    charged = replace(healthy.order.charge, state=ChargeState.CHARGED)
    assert "journal-broken" in codes(with_change(disproved, disproved.journal[-1].cursor, charge=charged))
    assert "tables-differ" in codes(replace(healthy, order=refused))


def test_a_closed_order_that_would_be_open_under_todays_configuration_is_only_noted() -> None:
    lapsed = (*SENT[:2], (700, TimePassed()))
    findings = journal_findings(book(*lapsed), replace(POLICY, pay_within_s=60, min_expiry_left_s=86_400))
    assert {finding.severity for finding in findings} == {Severity.NOTE}


# --- the cursors of the whole journal ---


def test_a_gap_in_the_cursors_is_a_missing_row() -> None:
    (finding,) = gap_findings([(7, 7)], last_cursor=9, next_to_give=10)
    assert (finding.code, finding.text) == ("journal-gap", "Row 7 of the journal is missing.")


def test_rows_missing_at_the_end_are_seen_by_the_next_cursor() -> None:
    (finding,) = gap_findings([], last_cursor=9, next_to_give=12)
    assert finding.text == "Rows 10, 11 of the journal are missing."


def test_an_unbroken_journal_has_no_gap() -> None:
    assert gap_findings([], last_cursor=9, next_to_give=10) == []


def test_of_replies_that_could_not_be_read_an_earlier_release_kept_the_last() -> None:
    first, last = (ProviderConfused("not JSON", f"Your code is {code}") for code in ("48010", "48011"))
    healthy = book(*HELD, (30, first), (31, last))
    *_, unread, later = healthy.order.items
    older = replace(healthy, order=replace(healthy.order, items=(*healthy.order.items[:-2], later)))
    (note,) = found(older)
    assert (note.severity, note.code, "48010" in note.text) == (Severity.NOTE, "other-policy", False)
    newer = replace(healthy, order=replace(healthy.order, items=(*healthy.order.items[:-2], unread)))
    assert codes(newer) == {"items-differ"}
