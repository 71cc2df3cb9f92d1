"""What is open, late or charged for nothing, and what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdpay.audit.findings import Severity
from holdpay.audit.unresolved import RECENT_MS, is_relevant, unresolved_findings, unwatched_finding
from holdpay.core.states import End, HtlcState, OrderState
from tests.unit.audit.books import FULFILLED, HELD, PREPAID, REFUNDED, book, prepaid
from tests.unit.build import NOW_MS, POLICY, S, pair, quarantined

HOUR_MS = 3600 * S


def test_a_held_order_is_unresolved_and_says_where_the_money_is_and_what_comes_next() -> None:
    (finding,) = unresolved_findings(book(*HELD).order, POLICY, NOW_MS + 20 * S)
    assert (finding.severity, finding.code) == (Severity.UNRESOLVED, "open")
    assert "held, waiting for the SMS" in finding.text
    assert "block height 800,163" in finding.text
    assert "Have the SMS sent" in finding.todo


def test_a_held_order_past_the_promise_raises_its_alarm() -> None:
    findings = unresolved_findings(book(*HELD).order, POLICY, NOW_MS + HOUR_MS)
    assert [(f.severity, f.code) for f in findings] == [(Severity.UNRESOLVED, "open"), (Severity.WARNING, "alarm")]
    assert findings[1].text == "The provider's promise has passed and the money is still out."
    assert "support" in findings[1].todo


def test_a_held_order_that_is_about_to_expire_raises_its_alarm() -> None:
    findings = unresolved_findings(book(*HELD).order, POLICY, NOW_MS + 20 * S, block_height=800_163 - 5)
    assert "by force at block 800,163, in 5 blocks" in findings[1].text


@pytest.mark.parametrize("life", [FULFILLED, REFUNDED])
def test_a_closed_order_is_resolved(life: tuple[tuple[int, object], ...]) -> None:
    assert unresolved_findings(book(*life).order, POLICY, NOW_MS + HOUR_MS) == []  # type: ignore[arg-type]


def test_a_charge_without_a_code_is_told_for_a_month() -> None:
    charged = replace(
        pair(OrderState.ABANDONED, HtlcState.SETTLED),
        closed_at_ms=NOW_MS,
        end=End.CHARGED_UNFULFILLED,
        reason="no code",
    )
    (finding,) = unresolved_findings(charged, POLICY, NOW_MS + HOUR_MS)
    assert (finding.severity, finding.code) == (Severity.WARNING, "charged-unfulfilled")
    assert "preimage" in finding.todo
    assert unresolved_findings(charged, POLICY, NOW_MS + RECENT_MS) == []


@pytest.mark.parametrize(
    ("life", "code"), [("charged, says an operator", "charged-unfulfilled"), ("written off", "outcome-unknown")]
)
def test_a_charge_of_the_account_for_nothing_is_told_for_a_month(life: str, code: str) -> None:
    order = book(*PREPAID[life], request=prepaid()).order
    (finding,) = unresolved_findings(order, POLICY, NOW_MS + HOUR_MS)
    assert (finding.severity, finding.code) == (Severity.WARNING, code)
    assert "preimage" not in finding.todo + finding.text
    assert unresolved_findings(order, POLICY, NOW_MS + 20 * S + RECENT_MS) == []


def test_a_charge_that_may_be_is_open_and_names_what_ends_it() -> None:
    order = book(*PREPAID["reply lost"], request=prepaid()).order
    findings = unresolved_findings(order, POLICY, NOW_MS + HOUR_MS)
    assert findings[0].code == "open"
    assert f"`holdpayd resolve {order.id}`" in " ".join(finding.todo for finding in findings)


def test_an_order_in_quarantine_is_an_error_until_a_person_has_ended_it() -> None:
    aside = quarantined(book(*HELD).order)
    (finding,) = unresolved_findings(aside, POLICY, NOW_MS + 100 * RECENT_MS)
    assert (finding.severity, finding.code) == (Severity.ERROR, "quarantined")
    assert "It broke a law" in finding.text
    assert "block height 800,163" in finding.text
    assert f"`holdpayd resolve {aside.id}`" in finding.todo
    ended = replace(aside, closed_at_ms=NOW_MS, end=End.REFUNDED)
    assert unresolved_findings(ended, POLICY, NOW_MS + HOUR_MS) == []


def test_open_orders_and_recent_ones_are_held_against_lnd() -> None:
    closed = book(*REFUNDED).order
    assert closed.closed_at_ms is not None
    assert is_relevant(book(*HELD).order, NOW_MS + 100 * RECENT_MS)
    assert is_relevant(closed, closed.closed_at_ms + RECENT_MS - 1)
    assert not is_relevant(closed, closed.closed_at_ms + RECENT_MS)


@pytest.mark.parametrize(("count", "words"), [(1, "1 open order."), (3, "3 open orders.")])
def test_open_orders_without_a_daemon_are_a_warning(count: int, words: str) -> None:
    finding = unwatched_finding(count, is_to_be_started=True)
    assert finding.severity is Severity.WARNING
    assert finding.text.endswith(words)
