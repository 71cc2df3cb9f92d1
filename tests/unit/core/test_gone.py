"""Payments that lnd's own word would never end: its record is gone, or it was killed before it signed the HTLC.

What ends them is the block height, and the node's channels; or an operator.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdpay.core import events as ev
from holdpay.core.duties import Duty, duties, wants_look
from holdpay.core.explain import explain
from holdpay.core.guard import alarms
from holdpay.core.lightning import PaymentStatus
from holdpay.core.machine import decide
from holdpay.core.model import Order
from holdpay.core.states import End, HtlcState, OrderState
from holdpay.core.step import Step
from holdpay.errors import InvariantViolation
from tests.unit.build import (
    ALICE,
    HOUR,
    NOW_MS,
    POLICY,
    PREIMAGE,
    S,
    attempt,
    failure,
    in_flight,
    looked,
    pair,
    refunded,
    replied,
    settled,
    update,
)

EXPIRY_HEIGHT = 800_163
"""Of the HTLC that the builders make."""
LONG_LIFE_DELTA = 40 + 3 + 432
"""How long one can live: their final CLTV delta, LND's padding, payment.route_cltv_delta."""
AWAITING, PAID, NUMBER = OrderState.AWAITING_PAYMENT, OrderState.PAID, OrderState.NUMBER_ASSIGNED
OUT = (AWAITING, PAID, NUMBER, OrderState.DELIVERED, OrderState.CANCELED)


def after(found: Order, event: ev.Event, at_s: int = 0) -> Order:
    return step(found, event, at_s).order


def step(found: Order, event: ev.Event, at_s: int = 0) -> Step:
    return decide(found, event, POLICY, NOW_MS + at_s * S)


def lost_record(state: OrderState = PAID, **changes: object) -> Order:
    return after(pair(state, HtlcState.IN_FLIGHT, **changes), ev.PaymentNotFound())


def looked_twice(found: Order, height: int, apart_s: int = 30) -> Order:
    return after(after(found, looked(height)), looked(height), apart_s)


# --- when the channels must be looked at --------------------------------------------------------------------------


def test_a_payment_in_flight_is_looked_for_only_after_its_expiry_height() -> None:
    held = pair(PAID, HtlcState.IN_FLIGHT)
    assert not wants_look(held, POLICY, EXPIRY_HEIGHT, NOW_MS)
    assert wants_look(held, POLICY, EXPIRY_HEIGHT + 1, NOW_MS)


def test_a_lost_record_is_looked_for_only_after_the_expiry_height() -> None:
    assert not wants_look(lost_record(), POLICY, EXPIRY_HEIGHT, NOW_MS)
    assert wants_look(lost_record(), POLICY, EXPIRY_HEIGHT + 1, NOW_MS)


def test_a_lost_record_whose_expiry_height_lnd_never_named_is_looked_for_once_and_after_the_longest_life() -> None:
    lost = lost_record(expiry_height=None)
    assert wants_look(lost, POLICY, 800_000, NOW_MS)
    lost = after(lost, looked(800_000))
    assert not wants_look(lost, POLICY, 800_000 + LONG_LIFE_DELTA, NOW_MS)
    assert wants_look(lost, POLICY, 800_000 + LONG_LIFE_DELTA + 1, NOW_MS)


@pytest.mark.parametrize("htlc", [h for h in HtlcState if h is not HtlcState.IN_FLIGHT])
def test_nothing_else_is_ever_looked_for(htlc: HtlcState) -> None:
    assert not wants_look(pair(PAID, htlc), POLICY, 2**31, NOW_MS + 9999 * HOUR)


# --- what a look proves -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", OUT)
@pytest.mark.parametrize("height", [EXPIRY_HEIGHT - 1, EXPIRY_HEIGHT])
def test_no_look_proves_anything_up_to_the_expiry_height(state: OrderState, height: int) -> None:
    assert not looked_twice(lost_record(state), height, apart_s=9 * 3600).is_closed
    assert not looked_twice(pair(state, HtlcState.IN_FLIGHT), height, apart_s=9 * 3600).is_closed


@pytest.mark.parametrize("state", OUT)
def test_one_look_proves_nothing_nor_do_two_at_once(state: OrderState) -> None:
    lost = lost_record(state)
    assert not after(lost, looked(900_000)).is_closed
    assert not looked_twice(lost, 900_000, apart_s=29).is_closed
    assert looked_twice(lost, 900_000, apart_s=30).is_closed


def test_a_channel_that_carries_the_htlc_meanwhile_takes_back_what_one_look_had_shown() -> None:
    lost = after(lost_record(), looked(900_000))
    lost = after(lost, looked(900_000, carried=True), 30)
    assert not after(lost, looked(900_000), 60).is_closed


def test_a_restart_takes_back_what_one_look_had_shown_because_the_clock_may_have_been_set() -> None:
    lost = after(after(lost_record(), looked(900_000)), ev.DaemonRestarted(), 1)
    assert not after(lost, looked(900_000), 3600).is_closed


def test_an_htlc_whose_expiry_height_is_not_known_is_waited_for_as_long_as_one_can_live() -> None:
    lost = after(lost_record(expiry_height=None), looked(800_000))
    assert not looked_twice(lost, 800_000 + LONG_LIFE_DELTA).is_closed
    assert looked_twice(lost, 800_000 + LONG_LIFE_DELTA + 1).is_closed


def test_lnd_finding_its_record_again_ends_the_doubt() -> None:
    lost = after(after(lost_record(), looked(900_000)), in_flight(), 1)
    assert lost.payment is not None
    assert (lost.payment.gone_since_ms, lost.is_closed) == (None, False)
    assert after(lost, settled(), 2).htlc is HtlcState.SETTLED


def test_once_lnd_has_spoken_again_a_second_loss_is_waited_for_from_anew() -> None:
    lost = after(lost_record(expiry_height=None), looked(800_000))
    spoken = after(lost, ev.PaymentReported(update(PaymentStatus.IN_FLIGHT), live=False), 1)
    again = after(after(spoken, ev.PaymentNotFound(), 2), looked(800_400), 3)
    assert again.payment is not None
    assert again.payment.first_look_height == 800_400
    until_height = 800_400 + LONG_LIFE_DELTA
    assert not after(after(again, looked(until_height), 60), looked(until_height), 120).is_closed
    assert after(after(again, looked(until_height + 1), 60), looked(until_height + 1), 120).htlc is HtlcState.GONE


def test_once_lnd_has_spoken_again_what_one_look_had_shown_counts_no_more() -> None:
    once = after(lost_record(), looked(900_000))
    again = after(after(once, in_flight(), 1), ev.PaymentNotFound(), 2)
    assert not after(again, looked(900_000), 60).is_closed
    assert after(after(again, looked(900_000), 60), looked(900_000), 90).is_closed


def test_what_was_seen_of_one_dispatch_says_nothing_of_the_next() -> None:
    once = after(lost_record(AWAITING, first_look_height=800_000), looked(900_000))
    assert once.payment is not None
    assert once.payment.uncarried_since_ms is not None
    payment = replace(once.payment, htlc=HtlcState.FAILED, failure=failure(), dispatch_at_ms=NOW_MS)
    ended = replace(once, payment=payment)
    sent = after(after(ended, replied(NOW_MS + 1 * S), 1), ev.DispatchIntended(ALICE), 2)
    assert sent.payment is not None
    assert (sent.htlc, sent.payment.dispatch_count) == (HtlcState.DISPATCHING, 2)
    assert sent.payment.uncarried_since_ms is None
    assert sent.payment.first_look_height is None
    assert sent.payment.gone_since_ms is None


def test_a_payment_in_flight_without_any_attempt_is_looked_for_once_lnds_time_for_attempts_is_over() -> None:
    stuck = pair(AWAITING, HtlcState.IN_FLIGHT, expiry_height=None, attempt_count=0)
    over_ms = stuck.pay_by_ms + POLICY.close_unpaid_after_s * 1000
    assert not wants_look(stuck, POLICY, 800_000, over_ms)
    assert wants_look(stuck, POLICY, 800_000, over_ms + 1)
    stuck = after(stuck, looked(800_000))
    assert not wants_look(stuck, POLICY, 800_000 + LONG_LIFE_DELTA, over_ms + 1)
    stuck = after(stuck, ev.PaymentReported(update(PaymentStatus.IN_FLIGHT), live=False), 300)
    assert looked_twice(stuck, 800_000 + LONG_LIFE_DELTA + 1).htlc is HtlcState.FAILED


def test_a_height_of_the_past_tells_nothing_about_how_long_an_htlc_can_live() -> None:
    lost = after(lost_record(expiry_height=None), looked(10, synced=False))
    assert lost.payment is not None
    assert lost.payment.first_look_height is None


def test_a_channel_that_is_being_closed_is_waited_for() -> None:
    assert not after(after(lost_record(), looked(900_000)), looked(900_000, closing=True), 60).is_closed


def test_a_later_expiry_height_takes_back_what_one_look_had_shown() -> None:
    once = after(pair(AWAITING, HtlcState.IN_FLIGHT), looked(900_000))
    once = after(once, in_flight(attempt(expiry_height=900_100)), 30)
    assert after(once, looked(900_101), 60).htlc is HtlcState.IN_FLIGHT


def test_a_lost_stream_takes_back_what_one_look_had_shown() -> None:
    once = after(after(lost_record(), looked(900_000)), ev.TrackingLost("Stream removed"), 1)
    assert not after(once, looked(900_000), 60).is_closed


# --- how it ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [AWAITING, PAID, NUMBER, OrderState.CANCELED])
def test_a_lost_record_without_a_code_ends_with_an_unknown_outcome_that_counts_as_spent(state: OrderState) -> None:
    done = looked_twice(lost_record(state), 900_000)
    assert (done.htlc, done.end) == (HtlcState.GONE, End.OUTCOME_UNKNOWN)
    assert (done.spent_msat, done.reserved_msat, done.locked_msat) == (2_001_002, 2_001_002, 0)
    assert "no record" in done.reason


def test_what_lnd_never_ends_is_not_called_a_lost_record() -> None:
    done = looked_twice(pair(PAID, HtlcState.IN_FLIGHT), 900_000)
    assert "lnd never ends the payment" in done.reason
    assert "record" not in words(done, 900_000)


def test_the_whole_fee_limit_counts_as_spent_where_no_fee_is_known() -> None:
    done = looked_twice(after(lost_record(expiry_height=None, fee_msat=0), looked(800_000)), 900_000)
    assert done.spent_msat == 2_010_000


def test_a_lost_record_with_a_code_ends_well() -> None:
    done = looked_twice(lost_record(OrderState.DELIVERED), 900_000)
    assert (done.htlc, done.end, done.spent_msat) == (HtlcState.GONE, End.FULFILLED, 2_001_002)


def test_an_htlc_that_lnd_never_signed_ends_as_one_that_never_left() -> None:
    """lnd calls it in flight for ever; the provider never saw it."""
    seen = looked_twice(pair(AWAITING, HtlcState.IN_FLIGHT), 900_000)
    assert seen.htlc is HtlcState.FAILED
    done = after(seen, ev.TimePassed(), 3600)
    assert (done.end, done.spent_msat, done.state) == (End.PAYMENT_FAILED, 0, OrderState.ABANDONED)
    assert "never gave its HTLC to a channel" in done.reason


def test_an_htlc_that_lnd_never_signed_is_not_dispatched_again() -> None:
    seen = looked_twice(pair(AWAITING, HtlcState.IN_FLIGHT, pay_by_ms=NOW_MS + 9 * HOUR), 900_000)
    for at_s in (31, 60, 90):
        seen = after(seen, replied(NOW_MS + at_s * S), at_s)
    with pytest.raises(InvariantViolation):
        decide(replace(seen, closed_at_ms=None, end=None), ev.DispatchIntended(ALICE), POLICY, NOW_MS + 91 * S)


WISH = {"cancel_wanted_at_ms": NOW_MS, "cancel_at_ms": NOW_MS + 120 * S}


def test_an_htlc_that_lnd_never_signed_is_canceled_by_its_end_where_the_client_wished_it() -> None:
    done = looked_twice(pair(AWAITING, HtlcState.IN_FLIGHT, **WISH), 900_000)
    assert (done.end, done.spent_msat) == (End.CANCELED_UNPAID, 0)
    assert duties(done) == frozenset()


def test_nobody_is_asked_to_cancel_what_lnd_never_signed() -> None:
    """Nothing is out that a cancel could bring back."""
    seen = looked_twice(pair(PAID, HtlcState.IN_FLIGHT, reached_payee=False, **WISH), 900_000)
    assert (seen.htlc, seen.is_closed) == (HtlcState.FAILED, False)
    assert Duty.CANCEL not in duties(seen)
    assert "asked to cancel" not in words(seen, 900_000)


def test_what_the_provider_called_paid_was_there_once_so_its_outcome_is_unknown() -> None:
    done = looked_twice(pair(PAID, HtlcState.IN_FLIGHT), 900_000)
    assert (done.htlc, done.end) == (HtlcState.GONE, End.OUTCOME_UNKNOWN)


@pytest.mark.parametrize("state", OUT)
def test_nothing_is_taken_back_once_lnd_has_spoken(state: OrderState) -> None:
    ended = after(pair(state, HtlcState.IN_FLIGHT), refunded())
    assert after(ended, looked(900_000), 60) == ended


# --- in words -----------------------------------------------------------------------------------------------------


def words(found: Order, height: int) -> str:
    said = explain(found, POLICY, NOW_MS, block_height=height)
    return f"{said.summary} {said.money} {said.next}"


def test_nobody_is_told_to_wait_for_a_height_that_has_passed() -> None:
    held = pair(PAID, HtlcState.IN_FLIGHT)
    assert "at block height 800,163" in words(held, EXPIRY_HEIGHT)
    passed = words(held, EXPIRY_HEIGHT + 1)
    assert "has passed (the chain is at block 800,164)" in passed
    assert "locked" not in passed
    assert "channels are looked at" in passed


def test_a_lost_record_is_told_with_the_height_that_ends_it_and_the_present_one() -> None:
    assert "until block height 800,163; the chain is at 800,000" in words(lost_record(), 800_000)
    assert "800,163, which has passed (the chain is at block 800,200)" in words(lost_record(), 800_200)
    assert any("no record" in alarm for alarm in alarms(lost_record(), POLICY, NOW_MS))


def test_a_lost_record_fills_no_journal() -> None:
    lost = lost_record()
    assert not step(lost, ev.PaymentNotFound(), 300).is_change


# --- an operator's word -------------------------------------------------------------------------------------------


def resolved(resolution: ev.Resolution, preimage: str | None = None) -> ev.Resolved:
    return ev.Resolved(resolution, by="ann", why="node sold", preimage=preimage)


@pytest.mark.parametrize("htlc", [HtlcState.DISPATCHING, HtlcState.UNKNOWN, HtlcState.IN_FLIGHT])
@pytest.mark.parametrize("state", [AWAITING, PAID, NUMBER, OrderState.CANCELED])
def test_what_is_written_off_counts_as_spent(state: OrderState, htlc: HtlcState) -> None:
    done = after(pair(state, htlc), resolved(ev.Resolution.WRITTEN_OFF))
    assert (done.htlc, done.end) == (HtlcState.GONE, End.OUTCOME_UNKNOWN)
    assert done.spent_msat > 2_000_000
    assert done.reason == "ann resolved the payment as written off: node sold"
    assert "lnd reported" not in words(done, 0)


def test_a_code_whose_payment_is_written_off_is_not_called_paid_for() -> None:
    done = after(pair(OrderState.DELIVERED, HtlcState.IN_FLIGHT), resolved(ev.Resolution.WRITTEN_OFF))
    assert done.end is End.FULFILLED
    assert "Code received, and counts as paid for: nobody can say whether it is." in words(done, 0)


@pytest.mark.parametrize("htlc", [HtlcState.DISPATCHING, HtlcState.UNKNOWN, HtlcState.IN_FLIGHT])
def test_what_is_resolved_as_failed_gives_the_money_back_to_the_limits(htlc: HtlcState) -> None:
    done = after(pair(AWAITING, htlc), resolved(ev.Resolution.FAILED))
    assert (done.htlc, done.end, done.spent_msat) == (HtlcState.FAILED, End.PAYMENT_FAILED, 0)
    assert "by the word of an operator" in words(done, 0)
    assert after(pair(PAID, htlc), resolved(ev.Resolution.FAILED)).end is End.REFUNDED
    assert after(pair(OrderState.DELIVERED, htlc), resolved(ev.Resolution.FAILED)).end is End.FULFILLED_FREE


def test_what_is_resolved_as_settled_goes_on_waiting_for_its_code() -> None:
    found = step(pair(NUMBER, HtlcState.IN_FLIGHT), resolved(ev.Resolution.SETTLED, PREIMAGE))
    paid = found.order
    assert (paid.htlc, paid.is_closed, paid.spent_msat) == (HtlcState.SETTLED, False, 2_001_002)
    assert found.notes == ("ann resolved the payment as settled: node sold",)
    assert duties(paid) == {Duty.POLL}
    assert after(paid, replied(NOW_MS, paid=True, code="012345"), 60).end is End.FULFILLED


def test_a_preimage_that_does_not_fit_settles_nothing() -> None:
    for preimage in (None, "22" * 32):
        told = step(pair(NUMBER, HtlcState.IN_FLIGHT), resolved(ev.Resolution.SETTLED, preimage))
        assert told.order.htlc is HtlcState.IN_FLIGHT
        assert "does not fit" in told.notes[0]


@pytest.mark.parametrize("resolution", ev.Resolution)
@pytest.mark.parametrize("htlc", [HtlcState.NONE, HtlcState.SETTLED, HtlcState.FAILED])
def test_where_no_money_is_out_there_is_nothing_to_resolve(htlc: HtlcState, resolution: ev.Resolution) -> None:
    assert not step(pair(PAID, htlc), resolved(resolution, PREIMAGE)).is_change
