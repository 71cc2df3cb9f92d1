"""What one message, one dispatch and one process leave to the next, and what they must not."""

from __future__ import annotations

import pytest

from holdpay.core import events as ev
from holdpay.core.hold import is_dispatch_planned, may_dispatch
from holdpay.core.lightning import AttemptStatus
from holdpay.core.machine import decide
from holdpay.core.model import Order, Payment
from holdpay.core.states import HtlcState, OrderState
from holdpay.core.step import Step
from tests.unit.build import (
    ALICE,
    FAILED_ON_THE_WAY,
    NOW_MS,
    POLICY,
    S,
    attempt,
    failed,
    in_flight,
    pair,
    replied,
    settled,
)

AWAITING = OrderState.AWAITING_PAYMENT
NONE, DISPATCHING = HtlcState.NONE, HtlcState.DISPATCHING
IN_FLIGHT = HtlcState.IN_FLIGHT
PROOF_S, CONFIRM_S = POLICY.prove_absent_s, POLICY.confirm_unpaid_s
INTENT = ev.DispatchIntended(ALICE)


def step(found: Order, event: ev.Event, at_s: int = 0) -> Step:
    return decide(found, event, POLICY, NOW_MS + at_s * S)


def run(found: Order, *events: tuple[int, ev.Event]) -> Order:
    """Events in a row, each with its seconds after NOW_MS."""
    for at_s, event in events:
        found = step(found, event, at_s).order
    return found


def unpaid(at_s: int) -> tuple[int, ev.Event]:
    """The provider says so when asked at this very time."""
    return at_s, replied(asked_at_ms=NOW_MS + at_s * S)


def paid_with(order: Order) -> Payment:
    assert order.payment is not None
    return order.payment


# --- from one dispatch to the next ----------------------------------------------------------------------------------


def test_a_refusal_of_an_earlier_dispatch_does_not_end_a_later_one() -> None:
    refused = step(pair(AWAITING, DISPATCHING), ev.SendRefused("payment is in transition"), 1).order
    again = run(refused, (2, failed(FAILED_ON_THE_WAY)), unpaid(4), (5, INTENT))
    assert again.htlc is DISPATCHING
    absent = run(again, (6, ev.PaymentNotFound()), (6 + PROOF_S, ev.PaymentNotFound()))
    assert not absent.is_money_out
    assert absent.giving_up is None
    assert is_dispatch_planned(absent)


def test_an_absence_that_was_proven_proves_nothing_about_the_next_dispatch() -> None:
    lost = run(pair(AWAITING, DISPATCHING), (1, ev.PaymentNotFound()), (1 + PROOF_S, ev.PaymentNotFound()))
    assert lost.htlc is NONE
    again = run(lost, unpaid(PROOF_S + 3), (PROOF_S + 4, INTENT), (PROOF_S + 5, ev.PaymentNotFound()))
    assert again.is_money_out
    assert step(again, ev.PaymentNotFound(), 2 * PROOF_S + 5).order.htlc is NONE


def test_an_absence_that_lnd_then_contradicted_proves_nothing_about_the_next_dispatch() -> None:
    heard = run(pair(AWAITING, DISPATCHING), (1, ev.PaymentNotFound()), (2, failed(FAILED_ON_THE_WAY)))
    again = run(heard, unpaid(4), (5, INTENT), (6 + PROOF_S, failed(FAILED_ON_THE_WAY)))
    assert again.is_money_out, "lnd's only word on it was the failure of the dispatch before"


# --- from one process to the next -----------------------------------------------------------------------------------


def test_an_absence_that_was_seen_before_a_restart_is_not_half_a_proof() -> None:
    """The wall clock may have been set meanwhile, and the send may still be on its way."""
    before = run(pair(AWAITING, DISPATCHING), (1, ev.PaymentNotFound()))
    after = run(before, (2 * PROOF_S, ev.DaemonRestarted()), (2 * PROOF_S, ev.PaymentNotFound()))
    assert after.is_money_out
    assert step(after, ev.PaymentNotFound(), 3 * PROOF_S).order.htlc is NONE


@pytest.mark.parametrize("is_live", [True, False], ids=["seen live", "read later"])
def test_a_license_that_was_confirmed_survives_a_restart(is_live: bool) -> None:
    failed_at = (0, failed(FAILED_ON_THE_WAY, live=is_live))
    licensed = run(pair(AWAITING, IN_FLIGHT), failed_at, unpaid(1), unpaid(1 + CONFIRM_S))
    restarted = run(licensed, (2 + CONFIRM_S, ev.DaemonRestarted()))
    assert may_dispatch(restarted, POLICY, NOW_MS + (3 + CONFIRM_S) * S)


def test_a_license_that_was_not_confirmed_does_not_survive_a_restart() -> None:
    """A failure that was read later needs two unpaid replies, some seconds apart on one clock."""
    asked_once = run(pair(AWAITING, IN_FLIGHT), (0, failed(live=False)), unpaid(1))
    restarted = run(asked_once, (2 * CONFIRM_S, ev.DaemonRestarted()), unpaid(1 + 2 * CONFIRM_S))
    assert not may_dispatch(restarted, POLICY, NOW_MS + (2 + 2 * CONFIRM_S) * S)
    asked_twice = run(restarted, unpaid(1 + 3 * CONFIRM_S))
    assert may_dispatch(asked_twice, POLICY, NOW_MS + (2 + 3 * CONFIRM_S) * S)


# --- from one message to the next -----------------------------------------------------------------------------------


def test_money_is_out_until_the_highest_expiry_height_of_its_attempts() -> None:
    short, long = attempt(attempt_id=1, expiry_height=800_100), attempt(attempt_id=2, expiry_height=800_300)
    for attempts in ((short, long), (long, short)):
        assert paid_with(step(pair(AWAITING, DISPATCHING), in_flight(*attempts)).order).expiry_height == 800_300


def test_an_attempt_that_failed_counts_neither_as_fee_nor_for_the_expiry_height() -> None:
    dear = attempt(AttemptStatus.FAILED, attempt_id=1, fee_msat=9_000, expiry_height=800_300, failure_code=18)
    out = attempt(attempt_id=2, fee_msat=1_002, expiry_height=800_163)
    order = step(pair(AWAITING, DISPATCHING), in_flight(dear, out)).order
    payment = paid_with(order)
    assert (payment.fee_msat, payment.expiry_height, payment.attempt_count) == (1_002, 800_163, 2)
    assert order.locked_msat == 2_001_002


def test_the_fees_of_all_attempts_that_are_out_are_added() -> None:
    parts = (attempt(attempt_id=1, fee_msat=400), attempt(attempt_id=2, fee_msat=500))
    assert paid_with(step(pair(AWAITING, DISPATCHING), in_flight(*parts)).order).fee_msat == 900


LATE_WORDS = {
    "in flight": in_flight(attempt(fee_msat=77, expiry_height=900_000), attempt(attempt_id=2, fee_msat=5_000)),
    "failed on the way": failed(FAILED_ON_THE_WAY),
    "failed, its attempts gone": failed(live=False),
    "settled for another fee": settled(fee_msat=77),
}


@pytest.mark.parametrize("name", LATE_WORDS)
@pytest.mark.parametrize("state", [AWAITING, OrderState.PAID, OrderState.NUMBER_ASSIGNED])
def test_what_lnd_says_after_a_payment_was_settled_changes_nothing_of_it(state: OrderState, name: str) -> None:
    charged = step(pair(state, IN_FLIGHT), settled()).order
    late = step(charged, LATE_WORDS[name], 1)
    assert late.order.payment == charged.payment
    assert late.order.spent_msat == charged.spent_msat == 2_001_002
    assert late.attempts == (), "the attempts that settled it are what it cost"
    assert bool(late.notes) == (name != "settled for another fee")
