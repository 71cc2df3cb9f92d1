"""What runs when: the next action of PAY, when a silent stream is given up, and how often the provider is asked."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from holdpay.core.charge import ChargeState
from holdpay.core.duties import (
    Dispatch,
    Duty,
    Track,
    Wait,
    duties,
    hinted_poll_at_ms,
    next_payment_action,
    next_poll_at_ms,
    retrack_at_ms,
    spec_of,
    wants_look,
)
from holdpay.core.model import Order
from holdpay.core.states import End, FailureClass, HtlcState, OrderState
from tests.unit.build import HASH, HOUR, NOW_MS, POLICY, S, failure, order, pair, prepaid, proven_absent, quarantined

NONE, DISPATCHING, UNKNOWN, IN_FLIGHT, SETTLED, FAILED, GONE = HtlcState
REQUESTED, AWAITING, PAID, NUMBER, DELIVERED, CANCELED, ABANDONED = OrderState


# --- which --------------------------------------------------------------------------------------------------------


def test_an_order_is_placed_then_decoded_then_paid() -> None:
    assert duties(order()) == {Duty.PLACE}
    assert duties(order(state=AWAITING, provider_order_id=HASH, payreq="lnsb1...")) == {Duty.DECODE}
    assert duties(pair(AWAITING, NONE)) == {Duty.PAY}


def test_a_wish_to_cancel_is_a_duty_as_long_as_it_has_a_time() -> None:
    wished = pair(PAID, IN_FLIGHT, cancel_wanted_at_ms=NOW_MS, cancel_at_ms=NOW_MS + 120 * S)
    assert duties(wished) == {Duty.PAY, Duty.POLL, Duty.CANCEL}
    assert duties(replace(wished, cancel_at_ms=None)) == {Duty.PAY, Duty.POLL}


def test_a_dispatch_that_never_arrived_keeps_the_provider_asked() -> None:
    absent = replace(pair(AWAITING, NONE), payment=proven_absent())
    assert duties(absent) == {Duty.PAY, Duty.POLL}
    assert duties(replace(absent, giving_up="no more")) == {Duty.POLL}


def test_an_order_that_is_put_aside_is_watched_if_something_was_sent_and_nothing_is_sent_for_it() -> None:
    undecoded = order(state=AWAITING, provider_order_id=HASH, payreq="lnsb1...")
    assert duties(quarantined(order())) == frozenset()
    assert duties(quarantined(undecoded)) == frozenset()
    assert duties(quarantined(pair(AWAITING, IN_FLIGHT))) == {Duty.PAY, Duty.POLL}


def test_an_order_that_is_over_has_no_duties() -> None:
    assert duties(pair(CANCELED, FAILED, end=End.REFUNDED, closed_at_ms=NOW_MS)) == frozenset()


def test_an_order_of_the_account_that_is_put_aside_is_placed_only_if_that_was_begun() -> None:
    assert duties(quarantined(prepaid(REQUESTED))) == frozenset()
    assert duties(quarantined(prepaid(REQUESTED, ChargeState.REFUSED))) == frozenset()
    assert duties(quarantined(prepaid(REQUESTED, ChargeState.INTENDED))) == {Duty.PLACE}
    assert duties(prepaid(REQUESTED)) == duties(prepaid(REQUESTED, ChargeState.INTENDED)) == {Duty.PLACE}


def test_nobody_is_asked_about_an_order_that_the_provider_never_named() -> None:
    """The operator said that the account was charged: what of, the provider alone knows."""
    charged = prepaid(PAID, ChargeState.CHARGED, provider_order_id=None)
    assert duties(charged) == frozenset()


# --- PAY ------------------------------------------------------------------------------------------------------------


def _action(found: Order, at_s: float = 0) -> Dispatch | Track | Wait:
    return next_payment_action(found, POLICY, NOW_MS + int(at_s * S))


def test_a_fresh_invoice_is_dispatched_at_once() -> None:
    assert _action(pair(AWAITING, NONE)) == Dispatch()


def test_a_planned_dispatch_waits_for_its_time_and_then_for_its_license() -> None:
    planned = pair(AWAITING, FAILED, dispatch_at_ms=NOW_MS + 60 * S)
    assert _action(planned) == Wait(NOW_MS + 60 * S)
    assert _action(planned, 60) == Wait(None)
    licensed = pair(AWAITING, FAILED, dispatch_at_ms=NOW_MS + 60 * S, unpaid_since_ms=NOW_MS + 1)
    assert _action(licensed, 59) == Wait(NOW_MS + 60 * S)
    assert _action(licensed, 60) == Dispatch()


@pytest.mark.parametrize("htlc", [DISPATCHING, UNKNOWN, IN_FLIGHT])
@pytest.mark.parametrize("state", [AWAITING, PAID, NUMBER, DELIVERED, CANCELED])
def test_money_that_may_be_out_is_tracked_at_once(state: OrderState, htlc: HtlcState) -> None:
    assert _action(pair(state, htlc)) == Track(NOW_MS)


def test_a_second_not_found_is_asked_for_when_it_can_prove_something() -> None:
    once = pair(AWAITING, UNKNOWN, absent_since_ms=NOW_MS)
    assert _action(once, 0) == Track(NOW_MS + 30 * S)
    assert _action(once, 1) == Track(NOW_MS + 30 * S)
    assert _action(once, 45) == Track(NOW_MS + 45 * S)


def test_a_first_not_found_that_lies_ahead_delays_nothing() -> None:
    assert _action(pair(AWAITING, UNKNOWN, absent_since_ms=NOW_MS + HOUR)) == Track(NOW_MS)


@pytest.mark.parametrize(("state", "htlc"), [(PAID, NONE), (PAID, FAILED), (PAID, SETTLED), (AWAITING, SETTLED)])
def test_where_nothing_is_to_be_paid_or_tracked_the_task_waits(state: OrderState, htlc: HtlcState) -> None:
    assert _action(pair(state, htlc)) == Wait(None)


def test_the_send_is_made_of_what_is_on_disk() -> None:
    assert spec_of(pair(AWAITING, DISPATCHING, fee_limit_msat=7_000), POLICY, NOW_MS).fee_limit_msat == 7_000


def test_the_channels_are_not_looked_at_before_there_is_an_invoice() -> None:
    assert not wants_look(order(), POLICY, block_height=900_000, now_ms=NOW_MS + 9 * HOUR)


# --- silence --------------------------------------------------------------------------------------------------------


def _retrack_s(found: Order, *, opened_s: float = 0, heard_s: float = 0) -> float:
    at_ms = retrack_at_ms(found, NOW_MS + int(opened_s * S), NOW_MS + int(heard_s * S), POLICY)
    return (at_ms - NOW_MS) / S


def test_a_silent_stream_is_given_up_every_five_minutes() -> None:
    assert _retrack_s(pair(PAID, IN_FLIGHT), opened_s=0, heard_s=7) == 307


@pytest.mark.parametrize("state", [DELIVERED, CANCELED])
def test_a_stream_that_says_nothing_though_the_provider_says_over_is_given_up_soon(state: OrderState) -> None:
    over = pair(state, IN_FLIGHT, state_since_ms=NOW_MS + 100 * S)
    assert _retrack_s(over, opened_s=50, heard_s=50) == 102
    assert _retrack_s(over, opened_s=100, heard_s=100) == 102
    assert _retrack_s(over, opened_s=102, heard_s=102) == 402, "the fresh stream has its time"


def test_a_send_without_a_first_word_is_given_up_soon() -> None:
    assert _retrack_s(pair(AWAITING, DISPATCHING)) == 30
    assert _retrack_s(pair(AWAITING, IN_FLIGHT)) == 300


@pytest.mark.parametrize("state", [PAID, NUMBER])
def test_a_send_without_a_first_word_that_the_provider_calls_paid_is_tracked_at_once(state: OrderState) -> None:
    assert _retrack_s(pair(state, DISPATCHING, state_since_ms=NOW_MS + 3 * S)) == 5


# --- POLL -----------------------------------------------------------------------------------------------------------


def _poll_s(found: Order, *, asked_s: float | None, at_s: float = 0) -> float:
    """When the next poll is due, in seconds after NOW_MS."""
    asked_at_ms = None if asked_s is None else NOW_MS + int(asked_s * S)
    return (next_poll_at_ms(found, asked_at_ms, POLICY, NOW_MS + int(at_s * S)) - NOW_MS) / S


@pytest.mark.parametrize("state", [AWAITING, PAID, NUMBER])
@pytest.mark.parametrize("asked_s", [None, 0, 20, 3000])
def test_an_order_of_which_the_provider_tells_is_asked_about_seldom(state: OrderState, asked_s: float | None) -> None:
    found, asked_at_ms = pair(state, IN_FLIGHT), None if asked_s is None else NOW_MS + int(asked_s * S)
    usual_ms, told_ms = (
        next_poll_at_ms(found, asked_at_ms, POLICY, NOW_MS + 3000 * S, is_told=is_told) for is_told in (False, True)
    )
    assert told_ms == max(usual_ms, (asked_at_ms or NOW_MS) + 30 * S)
    assert (told_ms > usual_ms) == (asked_s != 3000), "a late order is asked about as seldom as ever"


def test_what_only_the_provider_s_answer_can_say_is_not_waited_for_longer_when_it_tells() -> None:
    """That an order is unpaid, and why its HTLC ended, comes by no hint."""
    unpaid = pair(AWAITING, FAILED)
    ended = pair(PAID, SETTLED)
    for found in (unpaid, ended):
        asked_at_ms = NOW_MS - 10 * S
        told, usual = (next_poll_at_ms(found, asked_at_ms, POLICY, NOW_MS + S, is_told=told) for told in (True, False))
        assert told == usual <= NOW_MS + 2 * S


@pytest.mark.parametrize(("asked_s", "at_s", "due_s"), [(None, 0, 0), (0, 0, 1), (0, 0.4, 1), (0, 7, 7), (90, 0, 1)])
def test_a_hint_makes_a_question_at_once_but_a_second_after_the_one_before(
    asked_s: float | None, at_s: float, due_s: float
) -> None:
    asked_at_ms = None if asked_s is None else NOW_MS + int(asked_s * S)
    assert hinted_poll_at_ms(asked_at_ms, NOW_MS + int(at_s * S)) == NOW_MS + due_s * S


def _polls(found: Order, for_s: float) -> list[float]:
    """All polls in this time, if no reply changes anything."""
    polls: list[float] = []
    at_s = 0.0
    while at_s < for_s:
        due_s = _poll_s(found, asked_s=polls[-1] if polls else None, at_s=at_s)
        at_s = max(at_s, due_s)
        polls.append(at_s)
        assert len(polls) < 5_000, "a hot loop"
    return polls[:-1]


def test_a_held_order_is_asked_about_soon_and_then_less_and_less_often() -> None:
    polls = _polls(pair(PAID, IN_FLIGHT), 1260)
    gaps = [round(later - sooner, 1) for sooner, later in pairwise(polls)]
    assert polls[0] == 2
    assert gaps == sorted(gaps)
    assert min(gaps) == 2
    assert max(gaps) == 15
    assert len(polls) < 110


def test_what_the_provider_has_is_seen_late_by_an_eighth_of_the_wait_at_most() -> None:
    polls = _polls(pair(PAID, IN_FLIGHT), 120)
    for came_s in range(16, 120):
        seen_s = next((poll for poll in polls if poll >= came_s), None)
        if seen_s is not None:
            assert seen_s - came_s <= max(2, came_s / 8)


def test_each_step_of_the_order_begins_the_schedule_anew() -> None:
    found = pair(NUMBER, IN_FLIGHT, state_since_ms=NOW_MS + 100 * S)
    assert _poll_s(found, asked_s=100, at_s=100) == 102


@pytest.mark.parametrize("htlc", [SETTLED, FAILED])
@pytest.mark.parametrize("state", [AWAITING, PAID, NUMBER])
def test_when_the_htlc_ends_the_provider_is_asked_at_once(state: OrderState, htlc: HtlcState) -> None:
    found = pair(state, htlc, htlc_since_ms=NOW_MS + 100 * S)
    assert _poll_s(found, asked_s=90, at_s=101) == 101
    assert _poll_s(found, asked_s=None, at_s=101) == 101
    assert _poll_s(found, asked_s=90, at_s=100) == 100.001, "not in the same millisecond: it would not count as later"
    assert _poll_s(found, asked_s=100, at_s=100) == 100.5, "and never twice in the same instant"


@pytest.mark.parametrize(
    ("state", "htlc"),
    [
        (state, htlc)
        for state in (AWAITING, PAID, NUMBER, CANCELED)
        for htlc in HtlcState
        if (state, htlc) not in {(AWAITING, NONE), (CANCELED, NONE), (CANCELED, FAILED)}
    ],
)
@pytest.mark.parametrize("set_back_s", [0, 3600])
def test_no_state_is_a_hot_loop_when_replies_change_nothing(
    state: OrderState, htlc: HtlcState, set_back_s: int
) -> None:
    """Also when the order's times lie ahead, because the wall clock was set back before a restart."""
    ahead_ms = NOW_MS + set_back_s * S
    polls = _polls(pair(state, htlc, state_since_ms=ahead_ms, htlc_since_ms=ahead_ms), 300)
    assert 15 <= len(polls) <= 160


def test_a_failure_seen_live_is_confirmed_by_one_poll_and_then_watched() -> None:
    found = pair(AWAITING, FAILED)
    assert _poll_s(found, asked_s=None, at_s=1) == 1
    sure = pair(AWAITING, FAILED, unpaid_since_ms=NOW_MS + 1 * S)
    assert _poll_s(sure, asked_s=1, at_s=1) == 16


def test_a_failure_read_later_is_confirmed_by_a_second_poll_ten_seconds_later() -> None:
    once = pair(AWAITING, FAILED, failure=failure(FailureClass.READ_LATER), unpaid_since_ms=NOW_MS + 1 * S)
    assert _poll_s(once, asked_s=0.9, at_s=1) == 11
    twice = pair(
        AWAITING,
        FAILED,
        failure=failure(FailureClass.READ_LATER),
        unpaid_since_ms=NOW_MS + 1 * S,
        unpaid_again_at_ms=NOW_MS + 11 * S,
    )
    assert _poll_s(twice, asked_s=11, at_s=11) == 26


def test_a_canceled_order_is_asked_about_slowly_until_its_money_is_back() -> None:
    assert _poll_s(pair(CANCELED, IN_FLIGHT), asked_s=30, at_s=30) == 45


def test_a_poll_rate_that_was_lifted_is_kept() -> None:
    quick = replace(POLICY, poll_min_s=0.01, poll_max_s=0.05)
    found = pair(AWAITING, FAILED, htlc_since_ms=NOW_MS)
    assert next_poll_at_ms(found, NOW_MS, quick, NOW_MS) == NOW_MS + 10
