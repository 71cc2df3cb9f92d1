"""An order that broke a law of ours: watched, never paid, never closed by itself; a person ends it in any case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdpay.audit.laws import law_findings
from holdpay.core import events as ev
from holdpay.core.explain import explain
from holdpay.core.guard import alarms
from holdpay.core.hold import may_dispatch, misfit
from holdpay.core.machine import decide
from holdpay.core.model import Order
from holdpay.core.states import End, HtlcState, OrderState
from holdpay.core.tables import IMPOSSIBLE, PAIR_TABLE
from holdpay.errors import InvariantViolation
from tests.unit.build import (
    ALICE,
    EVENTS,
    HOUR,
    MALLORY,
    NOW_MS,
    POLICY,
    PREIMAGE,
    S,
    changed,
    looked,
    order,
    pair,
    payment,
    proven_absent,
    quarantined,
)

EVERY_CELL = [pytest.param(*cell, id="/".join(part.value for part in cell)) for cell in PAIR_TABLE]
BY_A_PERSON = {"resolved as failed", "resolved as settled", "written off", "cancel requested"}
WORDS = [
    ev.Resolved(ev.Resolution.FAILED, by="ann", why="I saw it"),
    ev.Resolved(ev.Resolution.SETTLED, by="ann", why="I saw it", preimage=PREIMAGE),
    ev.Resolved(ev.Resolution.WRITTEN_OFF, by="ann", why="nobody knows"),
]
FAILED, SETTLED, WRITTEN_OFF = WORDS


def aside(state: OrderState, htlc: HtlcState) -> Order:
    return quarantined(pair(state, htlc))


def after(found: Order, event: ev.Event, at_ms: int = NOW_MS + HOUR) -> Order:
    return decide(found, event, POLICY, at_ms).order


@pytest.mark.parametrize(("state", "htlc"), EVERY_CELL)
def test_nothing_that_the_parties_or_time_say_closes_it(state: OrderState, htlc: HtlcState) -> None:
    for name, event in EVENTS.items():
        if name not in BY_A_PERSON:
            found = after(after(aside(state, htlc), event), ev.TimePassed(), NOW_MS + 1000 * HOUR)
            assert not found.is_closed, name
            assert not may_dispatch(found, POLICY, NOW_MS + 1), name


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.resolution.value)
@pytest.mark.parametrize(("state", "htlc"), EVERY_CELL)
def test_a_person_ends_it_in_every_pair_with_each_word_that_fits(
    state: OrderState, htlc: HtlcState, word: ev.Resolved
) -> None:
    before = aside(state, htlc)
    found = after(before, word)
    assert found.is_closed == (not misfit(before, word))
    if found.is_closed:
        assert {finding.code for finding in law_findings(found)} <= {"other-invoice"}, "a pair no life leads to"
        assert "ann resolved the payment" in found.reason
        assert found.spent_msat == (2_000_000 + _fee_msat(found) if word is not FAILED else 0)
    if htlc is not HtlcState.SETTLED and before.payment is not None:
        assert found.is_closed


def _fee_msat(found: Order) -> int:
    assert found.payment is not None
    return found.payment.fee_msat


def test_an_order_without_a_payment_can_only_have_failed() -> None:
    unpaid = quarantined(order())
    assert after(unpaid, FAILED).end is End.CANCELED_UNPAID
    for word in (SETTLED, WRITTEN_OFF):
        assert "no payment" in misfit(unpaid, word)
        assert not after(unpaid, word).is_closed


def test_a_stored_preimage_that_fits_is_proof_and_one_that_does_not_is_none() -> None:
    spent = aside(OrderState.PAID, HtlcState.SETTLED)
    for word in (FAILED, WRITTEN_OFF):
        assert "proves" in misfit(spent, word)
    assert spent.payment is not None
    spoilt = replace(spent, payment=replace(spent.payment, preimage="22" * 32))
    assert after(spoilt, FAILED).end is End.REFUNDED
    assert "does not fit" in misfit(spoilt, replace(SETTLED, preimage="22" * 32))


def test_a_code_that_is_here_decides_the_end_whatever_the_order_was_called() -> None:
    found = changed(aside(OrderState.REQUESTED, HtlcState.IN_FLIGHT), code="012345")
    assert after(found, FAILED).end is End.FULFILLED_FREE
    assert after(found, SETTLED).end is after(found, WRITTEN_OFF).end is End.FULFILLED


def test_what_no_channel_carries_is_left_to_a_person() -> None:
    found = aside(OrderState.PAID, HtlcState.IN_FLIGHT)
    for minute in range(5):
        found = after(found, looked(900_000), NOW_MS + minute * 60 * S)
    assert (found.htlc, found.is_closed) == (HtlcState.IN_FLIGHT, False)


def test_a_cancel_closes_it_only_if_nothing_was_ever_sent() -> None:
    assert after(aside(OrderState.AWAITING_PAYMENT, HtlcState.NONE), ev.CancelRequested()).end is End.CANCELED_UNPAID
    absent = quarantined(replace(pair(OrderState.AWAITING_PAYMENT, HtlcState.NONE), payment=proven_absent()))
    assert not after(absent, ev.CancelRequested()).is_closed
    assert not after(aside(OrderState.AWAITING_PAYMENT, HtlcState.FAILED), ev.CancelRequested()).is_closed


# --- the guard before each dispatch ---


@pytest.mark.parametrize(
    "found",
    [
        order(),
        aside(OrderState.AWAITING_PAYMENT, HtlcState.NONE),
        pair(OrderState.AWAITING_PAYMENT, HtlcState.IN_FLIGHT),
        pair(OrderState.AWAITING_PAYMENT, HtlcState.FAILED),
        pair(OrderState.PAID, HtlcState.NONE),
        pair(OrderState.CANCELED, HtlcState.FAILED),
        pair(OrderState.AWAITING_PAYMENT, HtlcState.NONE, giving_up="no time is left"),
        pair(OrderState.AWAITING_PAYMENT, HtlcState.NONE, cancel_wanted_at_ms=NOW_MS),
        pair(OrderState.AWAITING_PAYMENT, HtlcState.NONE, reached_payee=True),
        replace(pair(OrderState.AWAITING_PAYMENT, HtlcState.NONE), payment=proven_absent()),
        replace(pair(OrderState.AWAITING_PAYMENT, HtlcState.NONE), payment=payment(dispatch_at_ms=None)),
    ],
)
def test_an_intent_without_a_license_is_never_committed(found: Order) -> None:
    """The last look before SendPaymentV2, whatever made the task believe that it may."""
    if found.is_quarantined:
        assert decide(found, ev.DispatchIntended(ALICE), POLICY, NOW_MS).order == found
        return
    with pytest.raises(InvariantViolation, match="without a license"):
        decide(found, ev.DispatchIntended(ALICE), POLICY, NOW_MS)


def test_an_intent_of_another_node_is_never_committed_and_one_that_is_late_does_nothing() -> None:
    ready = pair(OrderState.AWAITING_PAYMENT, HtlcState.NONE)
    assert after(ready, ev.DispatchIntended(ALICE), NOW_MS).htlc is HtlcState.DISPATCHING
    with pytest.raises(InvariantViolation, match="another node"):
        decide(ready, ev.DispatchIntended(MALLORY), POLICY, NOW_MS)
    assert after(ready, ev.DispatchIntended(ALICE), ready.pay_by_ms).htlc is HtlcState.NONE


# --- what people are told ---


def test_its_alarm_and_its_explanation_say_why_where_the_money_is_and_what_to_do() -> None:
    found = aside(OrderState.NUMBER_ASSIGNED, HtlcState.IN_FLIGHT)
    assert alarms(found, POLICY, NOW_MS) == (
        f"order {found.id}: quarantined, since holdpayd contradicted itself: It broke a law",
    )
    words = explain(found, POLICY, NOW_MS)
    assert "It is quarantined: It broke a law." in words.summary
    assert "the other orders go on" in words.summary
    assert "block height 800,163" in words.money
    assert "never closes by itself" in words.next
    assert f"`holdpayd resolve {found.id}`" in words.next


@pytest.mark.parametrize("found", [quarantined(order()), aside(OrderState.AWAITING_PAYMENT, HtlcState.NONE)])
def test_one_that_was_never_sent_can_be_canceled_and_says_so(found: Order) -> None:
    words = explain(found, POLICY, NOW_MS)
    assert f"`holdpay orders cancel {found.id}` closes it: nothing was sent" in words.next
    assert "sent" in words.money


@pytest.mark.parametrize(("state", "htlc"), EVERY_CELL)
def test_every_pair_can_be_explained_also_an_impossible_one(state: OrderState, htlc: HtlcState) -> None:
    words = explain(aside(state, htlc), POLICY, NOW_MS)
    assert IMPOSSIBLE not in (words.summary, words.money, words.next)
