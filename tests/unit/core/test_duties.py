"""What runs when: the next action of PAY, when a silent stream is given up, and how often the provider is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdpay.core.charge import ChargeState
from holdpay.core.duties import (
    Dispatch,
    Duty,
    Place,
    Track,
    Vet,
    Wait,
    duties,
    next_payment_action,
    retrack_at_ms,
    spec_of,
    wants_look,
)
from holdpay.core.model import Order
from holdpay.core.states import End, HtlcState, OrderState
from tests.unit.build import HASH, HOUR, NOW_MS, POLICY, S, order, pair, prepaid, proven_absent, quarantined

NONE, DISPATCHING, UNKNOWN, IN_FLIGHT, SETTLED, FAILED, GONE = HtlcState
REQUESTED, AWAITING, PAID, NUMBER, DELIVERED, CANCELED, ABANDONED = OrderState


# --- which --------------------------------------------------------------------------------------------------------


def test_an_order_is_placed_then_decoded_then_paid() -> None:
    assert duties(order()) == {Duty.PAY}
    assert duties(order(state=AWAITING, provider_order_id=HASH, payreq="lnsb1...")) == {Duty.PAY}
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


def _action(found: Order, at_s: float = 0) -> Place | Vet | Dispatch | Track | Wait:
    return next_payment_action(found, POLICY, NOW_MS + int(at_s * S))


def test_a_hold_invoice_that_was_not_vetted_yet_is_read_first() -> None:
    assert _action(order(state=AWAITING, provider_order_id=HASH, payreq="lnsb1...")) == Vet("lnsb1...")


def test_an_order_is_placed_when_its_time_has_come() -> None:
    assert _action(order(state=REQUESTED, place_at_ms=NOW_MS + 5 * S)) == Place(NOW_MS + 5 * S)


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
