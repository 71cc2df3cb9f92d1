"""Orders that channels or an operator ended: check replays their journals, knows their laws, and takes no word back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdpay.audit.against_lnd import against_lnd
from holdpay.audit.findings import Severity
from holdpay.audit.journal import journal_findings
from holdpay.audit.laws import law_findings
from holdpay.core.duties import Duty, duties
from holdpay.core.events import HtlcLookedFor, PaymentNotFound, Resolution, Resolved, TimePassed
from holdpay.core.lightning import LndMessage, NotKnown, PaymentStatus, Reported
from holdpay.core.model import Order
from holdpay.core.states import End, HtlcState, OrderState
from tests.unit.audit.books import FULFILLED, HELD, IN_FLIGHT, Timed, book, changed, with_change
from tests.unit.build import NOW_MS, POLICY, PREIMAGE, S, attempt, looked, replied, update

LATE = 900_000
"""A block height past the expiry height of every HTLC here."""
LOST: tuple[Timed, ...] = (*HELD, (30, PaymentNotFound()))
LOOKS: tuple[Timed, ...] = ((60, looked(LATE)), (90, looked(LATE)))
OVER: Timed = (40, replied(NOW_MS + 40 * S, paid=True, error="No available number"))
CODE: Timed = (40, replied(NOW_MS + 40 * S, paid=True, number="15551234567", code="012345"))
LATE_CODE: Timed = (120, replied(NOW_MS + 120 * S, paid=True, number="15551234567", code="012345"))


def word(resolution: Resolution) -> Timed:
    preimage = PREIMAGE if resolution is Resolution.SETTLED else None
    return (60, Resolved(resolution, by="ann", why="node sold", preimage=preimage))


SETTLED = (*LOST, word(Resolution.SETTLED))
UNSIGNED = (*IN_FLIGHT, *LOOKS, (3600, TimePassed()))
LIVES: dict[str, tuple[tuple[Timed, ...], HtlcState, End | None]] = {
    "gone, no code": ((*LOST, *LOOKS), HtlcState.GONE, End.OUTCOME_UNKNOWN),
    "gone, canceled": ((*LOST, OVER, *LOOKS), HtlcState.GONE, End.OUTCOME_UNKNOWN),
    "gone, with its code": ((*LOST, CODE, *LOOKS), HtlcState.GONE, End.FULFILLED),
    "never ended by lnd": ((*HELD, *LOOKS), HtlcState.GONE, End.OUTCOME_UNKNOWN),
    "never signed": (UNSIGNED, HtlcState.FAILED, End.PAYMENT_FAILED),
    "looked at once": ((*LOST, *LOOKS[:1]), HtlcState.IN_FLIGHT, None),
    "settled by an operator": (SETTLED, HtlcState.SETTLED, None),
    "settled by an operator, then its code": ((*SETTLED, LATE_CODE), HtlcState.SETTLED, End.FULFILLED),
    "written off": ((*LOST, word(Resolution.WRITTEN_OFF)), HtlcState.GONE, End.OUTCOME_UNKNOWN),
    "resolved as failed": ((*LOST, word(Resolution.FAILED)), HtlcState.FAILED, End.REFUNDED),
    "resolved as failed, with its code": ((*LOST, CODE, word(Resolution.FAILED)), HtlcState.FAILED, End.FULFILLED_FREE),
}
EVERY = pytest.mark.parametrize(("life", "htlc", "end"), LIVES.values(), ids=LIVES)


@EVERY
def test_check_finds_nothing_wrong_with_it(life: tuple[Timed, ...], htlc: HtlcState, end: End | None) -> None:
    healthy = book(*life)
    assert (healthy.order.htlc, healthy.order.end) == (htlc, end)
    assert law_findings(healthy.order) == []
    assert journal_findings(healthy, POLICY) == []


@EVERY
def test_a_row_of_its_end_that_was_changed_is_found(life: tuple[Timed, ...], htlc: HtlcState, end: End | None) -> None:
    """So the journal's last word is really decided anew."""
    healthy = book(*life)
    cursor = next(row.cursor for row in healthy.journal if isinstance(row.event, HtlcLookedFor | Resolved))
    spoilt = with_change(healthy, cursor, fee_msat=1)
    assert "journal-broken" in {finding.code for finding in journal_findings(spoilt, POLICY)}


@pytest.mark.parametrize("then", [{"prove_absent_s": 600}, {"prove_absent_s": 5}])
@pytest.mark.parametrize(
    "life", [life for life, *_ in LIVES.values() if any(isinstance(event, HtlcLookedFor) for _, event in life)]
)
def test_an_end_that_was_proven_under_another_configuration_is_no_damage(
    life: tuple[Timed, ...], then: dict[str, int]
) -> None:
    findings = journal_findings(book(*life), replace(POLICY, **then))  # type: ignore[arg-type]
    assert {(finding.severity, finding.code) for finding in findings} <= {(Severity.NOTE, "other-policy")}


def test_a_longest_life_that_was_counted_under_another_configuration_is_no_damage() -> None:
    unnamed = (*IN_FLIGHT[:3], (2, replied(NOW_MS + 2 * S, paid=True)))
    first = replace(book(*unnamed).order, id="x")
    assert first.payment is not None
    lost = changed(first, is_known_to_lnd=True, htlc=HtlcState.IN_FLIGHT, gone_since_ms=NOW_MS)
    life = ((60, looked(800_000)), (600, looked(800_476)), (700, looked(800_476)))
    gone = book(*life, request=lost)
    assert gone.order.htlc is HtlcState.GONE
    findings = journal_findings(gone, replace(POLICY, route_cltv_delta=1008))
    assert {(finding.severity, finding.code) for finding in findings} == {(Severity.NOTE, "other-policy")}


# --- an operator's word for settled -------------------------------------------------------------------------------


def test_what_an_operator_called_settled_is_watched_for_its_code() -> None:
    settled = book(*SETTLED).order
    assert (settled.state, settled.is_closed) == (OrderState.NUMBER_ASSIGNED, False)
    assert duties(settled) == {Duty.POLL}


def codes(order: Order, said: LndMessage) -> list[tuple[Severity, str]]:
    assert order.payment is not None
    return [(finding.severity, finding.code) for finding in against_lnd(order, order.payment, said)]


IN_LND = Reported(update(PaymentStatus.IN_FLIGHT, attempt()), live=False)
PAID_IN_LND = Reported(update(PaymentStatus.SUCCEEDED), live=False)
FAILED_IN_LND = Reported(update(PaymentStatus.FAILED), live=False)


def test_what_an_operator_called_settled_is_held_against_lnd() -> None:
    settled = book(*SETTLED).order
    assert codes(settled, PAID_IN_LND) == []
    assert codes(settled, NotKnown()) == [(Severity.NOTE, "lnd-record-deleted")]
    assert codes(settled, IN_LND) == [(Severity.WARNING, "lnd-behind")]
    assert codes(settled, FAILED_IN_LND) == [(Severity.ERROR, "not-settled")]
    assert codes(book(*FULFILLED).order, IN_LND) == [(Severity.WARNING, "lnd-behind")]


def test_what_an_operator_ended_otherwise_is_held_against_lnd() -> None:
    failed = book(*LOST, word(Resolution.FAILED)).order
    assert codes(failed, NotKnown()) == codes(failed, FAILED_IN_LND) == []
    assert codes(failed, IN_LND) == [(Severity.WARNING, "resolved-in-flight")]
    assert codes(failed, PAID_IN_LND) == [(Severity.ERROR, "charged-unrecorded")]
    written_off = book(*LOST, word(Resolution.WRITTEN_OFF)).order
    assert codes(written_off, NotKnown()) == []
    assert codes(written_off, IN_LND) == [(Severity.WARNING, "resolved-in-flight")]
    assert codes(written_off, PAID_IN_LND) == [(Severity.NOTE, "known-again")]


def test_what_was_never_signed_may_stay_in_flight_in_lnd_for_ever() -> None:
    unsigned = book(*UNSIGNED).order
    assert codes(unsigned, IN_LND) == [(Severity.NOTE, "never-ends-in-lnd")]
    assert codes(unsigned, PAID_IN_LND) == [(Severity.ERROR, "charged-unrecorded")]
