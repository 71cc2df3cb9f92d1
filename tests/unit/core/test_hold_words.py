"""What a word about the payment changes, and that it changes nothing else: whole payments are compared here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdpay.core import events as ev
from holdpay.core.duties import wants_look
from holdpay.core.hold import end_without_money, is_unpaid_for_sure, misfit, note_unpaid, was_never_sent
from holdpay.core.lightning import AttemptStatus, FailureReason, PaymentStatus
from holdpay.core.machine import decide
from holdpay.core.model import Order, Payment
from holdpay.core.states import End, FailureClass, HtlcState, OrderState
from holdpay.core.step import Context
from tests.unit.build import (
    ALICE,
    FAILED_AT_PAYEE,
    FAILED_ON_THE_WAY,
    FUND,
    HASH,
    HOUR,
    NOW_MS,
    POLICY,
    PREIMAGE,
    RENTAL,
    SMS,
    S,
    attempt,
    failed,
    failure,
    in_flight,
    invoice,
    looked,
    order,
    pair,
    payment,
    prepaid,
    proven_absent,
    quarantined,
    replied,
    settled,
    update,
)

NONE, DISPATCHING, UNKNOWN, IN_FLIGHT, SETTLED, FAILED, GONE = HtlcState
REQUESTED, AWAITING, PAID, NUMBER, DELIVERED, CANCELED, ABANDONED = OrderState
LATER_MS = NOW_MS + 7 * S


def step(found: Order, event: ev.Event, at_ms: int = LATER_MS) -> Order:
    return decide(found, event, POLICY, at_ms).order


def paying(found: Order) -> Payment:
    assert found.payment is not None
    return found.payment


# --- the invoice ----------------------------------------------------------------------------------------------------


def test_what_is_to_be_paid_is_made_of_the_invoice_and_of_the_node_that_read_it() -> None:
    placed = order(state=AWAITING, provider_order_id=HASH, payreq="lnsb20u1...")
    vetted = step(placed, ev.InvoiceDecoded(invoice(), ALICE, seen_before=False))
    assert vetted == replace(placed, payment=payment(htlc_since_ms=LATER_MS, dispatch_at_ms=LATER_MS))


def test_a_clock_that_is_behind_the_providers_shortens_the_time_to_pay_by_as_much() -> None:
    """``wall_ahead_ms``: by so much the wall clock is ahead of ours, which may have been set back."""
    placed = order(state=AWAITING, provider_order_id=HASH, payreq="lnsb20u1...")
    short = invoice(expiry_s=400)
    for ahead_s, pay_by_s in ((0, 340), (100, 240)):
        event = ev.InvoiceDecoded(short, ALICE, seen_before=False, wall_ahead_ms=ahead_s * S)
        assert step(placed, event, NOW_MS).pay_by_ms == NOW_MS + pay_by_s * S
    late = ev.InvoiceDecoded(short, ALICE, seen_before=False, wall_ahead_ms=341 * S)
    assert step(placed, late, NOW_MS).end is End.INVOICE_REJECTED


def test_what_is_odd_about_an_invoice_that_is_paid_all_the_same_is_noted() -> None:
    placed = order(state=AWAITING, provider_order_id="22" * 32, payreq="lnsb20u1...")
    done = decide(placed, ev.InvoiceDecoded(invoice(), ALICE, seen_before=False), POLICY, NOW_MS)
    assert done.order.payment is not None
    assert len(done.notes) == 1
    assert "order id" in done.notes[0]


def test_an_invoice_that_lnd_cannot_read_is_refused_with_its_words() -> None:
    placed = order(state=AWAITING, provider_order_id=HASH, payreq="lnsb20u1...")
    after = step(placed, ev.InvoiceUndecodable("checksum failed"))
    assert (after.end, after.closed_at_ms) == (End.INVOICE_REJECTED, LATER_MS)
    assert after.reason == "the hold invoice was refused: lnd cannot read it (checksum failed)"
    for too_late in (order(), pair(AWAITING, IN_FLIGHT)):
        assert step(too_late, ev.InvoiceUndecodable("checksum failed")) == too_late


@pytest.mark.parametrize(
    ("amount_msat", "max_fee_sat"), [(20_000_000, 1_000), (20_000_001, 1_000), (20_020_000, 1_001)]
)
def test_a_fee_limit_is_bound_by_five_percent_of_what_the_invoice_asks(amount_msat: int, max_fee_sat: int) -> None:
    placed = order(
        state=AWAITING, provider_order_id=HASH, payreq="lnsb20u1...", max_price_sat=30_000, max_fee_sat=5_000
    )
    vetted = step(placed, ev.InvoiceDecoded(invoice(amount_msat=amount_msat), ALICE, seen_before=False))
    assert vetted.max_fee_sat == max_fee_sat


# --- dispatching ----------------------------------------------------------------------------------------------------


def test_another_dispatch_begins_with_nothing_of_the_one_before_it() -> None:
    worn = payment(
        FAILED,
        dispatch_count=2,
        attempt_count=3,
        refusal="busy",
        was_there_before=True,
        fee_msat=1_002,
        expiry_height=800_163,
        unpaid_since_ms=NOW_MS,
        unpaid_again_at_ms=NOW_MS,
        absent_since_ms=NOW_MS,
        gone_since_ms=NOW_MS,
        first_look_height=800_000,
        uncarried_since_ms=NOW_MS,
    )
    sent = paying(step(replace(pair(AWAITING, FAILED), payment=worn), ev.DispatchIntended(ALICE)))
    assert sent == replace(
        payment(DISPATCHING, htlc_since_ms=LATER_MS, money_out_since_ms=LATER_MS, failure=worn.failure),
        dispatch_count=3,
        attempt_count=3,
        was_there_before=True,
    )


# --- lnd's words ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_spoken", [False, True])
def test_any_word_of_lnd_s_shows_that_it_has_the_payment_and_takes_back_that_it_had_not(has_spoken: bool) -> None:
    doubted = pair(AWAITING, UNKNOWN, absent_since_ms=NOW_MS, is_known_to_lnd=has_spoken)
    heard = paying(step(doubted, ev.PaymentReported(update(PaymentStatus.IN_FLIGHT), live=True)))
    assert heard == replace(
        paying(doubted), htlc=IN_FLIGHT, htlc_since_ms=LATER_MS, absent_since_ms=None, is_known_to_lnd=True
    )


def test_the_attempts_are_stored_until_the_payment_is_settled_and_then_kept() -> None:
    tries = (attempt(), FAILED_ON_THE_WAY)
    assert decide(pair(AWAITING, IN_FLIGHT), in_flight(*tries), POLICY, NOW_MS).attempts == tries
    assert decide(pair(PAID, SETTLED), in_flight(*tries), POLICY, NOW_MS).attempts == ()


def test_what_is_in_flight_is_what_has_not_failed() -> None:
    tries = (FAILED_ON_THE_WAY, attempt(fee_msat=300, expiry_height=800_100), attempt(fee_msat=200))
    heard = paying(step(pair(AWAITING, DISPATCHING), in_flight(*tries)))
    assert (heard.attempt_count, heard.fee_msat, heard.expiry_height) == (3, 500, 800_163)
    fewer = paying(step(replace(pair(AWAITING, IN_FLIGHT), payment=heard), in_flight()))
    assert (fewer.attempt_count, fewer.fee_msat) == (3, 1_002)


def test_a_settlement_is_booked_whole_and_ends_what_was_planned() -> None:
    found = pair(
        NUMBER,
        IN_FLIGHT,
        reached_payee=False,
        dispatch_at_ms=NOW_MS,
        cancel_wanted_at_ms=NOW_MS,
        cancel_at_ms=NOW_MS + HOUR,
    )
    parts = (attempt(AttemptStatus.SUCCEEDED), attempt(AttemptStatus.SUCCEEDED))
    after = step(found, ev.PaymentReported(update(PaymentStatus.SUCCEEDED, *parts, fee_msat=2_004), live=True))
    assert paying(after) == replace(
        paying(found),
        htlc=SETTLED,
        htlc_since_ms=LATER_MS,
        preimage=PREIMAGE,
        fee_msat=2_004,
        attempt_count=2,
        reached_payee=True,
        dispatch_at_ms=None,
    )
    assert after.cancel_at_ms is None


def test_only_the_first_dispatch_can_meet_a_payment_that_was_there_before() -> None:
    early_ms = NOW_MS - HOUR
    found = pair(PAID, IN_FLIGHT, was_there_before=True)
    assert paying(step(found, settled(created_at_ms=early_ms))).is_paid_before
    second = replace(found, payment=replace(paying(found), dispatch_count=2))
    assert not paying(step(second, settled(created_at_ms=early_ms))).is_paid_before


def test_a_failure_is_recorded_whole_and_needs_words_that_come_after_it() -> None:
    found = pair(
        AWAITING,
        IN_FLIGHT,
        attempt_count=1,
        unpaid_since_ms=NOW_MS,
        unpaid_again_at_ms=NOW_MS,
        cancel_at_ms=NOW_MS + HOUR,
    )
    event = failed(FAILED_ON_THE_WAY, FAILED_ON_THE_WAY, payment_index=9)
    after = step(found, event)
    assert after.cancel_at_ms is None
    told = paying(after)
    assert told.failure == failure(attempt_count=2, payment_index=9, at_ms=LATER_MS)
    assert (told.attempt_count, told.fee_msat) == (2, 0)
    assert (told.unpaid_since_ms, told.unpaid_again_at_ms) == (None, None)
    assert (told.dispatch_at_ms, told.fee_limit_msat) == (LATER_MS, 20_000)


def test_that_the_payee_refused_it_is_believed_before_lnd_says_that_it_failed_and_counts_when_read_later() -> None:
    early = in_flight(FAILED_AT_PAYEE, failure_reason=FailureReason.INCORRECT_PAYMENT_DETAILS)
    assert paying(step(pair(AWAITING, IN_FLIGHT), early)).reached_payee
    assert not paying(step(pair(AWAITING, IN_FLIGHT), in_flight(FAILED_ON_THE_WAY))).reached_payee


def test_what_lnd_refuses_is_noted_only_while_it_is_sent() -> None:
    sending = pair(AWAITING, DISPATCHING)
    assert paying(step(sending, ev.SendRefused("busy"))).refusal == "busy"
    for found in (order(), pair(AWAITING, UNKNOWN), pair(AWAITING, IN_FLIGHT)):
        assert step(found, ev.SendRefused("busy")) == found


def test_a_lost_stream_is_a_doubt_and_takes_back_what_the_channels_showed() -> None:
    sending = pair(AWAITING, DISPATCHING, uncarried_since_ms=NOW_MS)
    assert paying(step(sending, ev.TrackingLost("gone"))) == replace(
        paying(sending), htlc=UNKNOWN, htlc_since_ms=LATER_MS, uncarried_since_ms=None
    )
    assert step(order(), ev.TrackingLost("gone")) == order()


def test_a_restart_forgets_what_was_said_once_and_keeps_what_was_said_twice() -> None:
    once = pair(AWAITING, FAILED, unpaid_since_ms=NOW_MS, absent_since_ms=NOW_MS, uncarried_since_ms=NOW_MS)
    assert paying(step(once, ev.DaemonRestarted())) == replace(
        paying(once), unpaid_since_ms=None, absent_since_ms=None, uncarried_since_ms=None
    )
    twice = pair(AWAITING, FAILED, unpaid_since_ms=NOW_MS, unpaid_again_at_ms=NOW_MS)
    assert step(twice, ev.DaemonRestarted()) == twice


# --- what nobody has any more ---------------------------------------------------------------------------------------


def test_a_record_that_lnd_lost_is_noted_once() -> None:
    done = decide(pair(PAID, IN_FLIGHT), ev.PaymentNotFound(), POLICY, LATER_MS)
    assert paying(done.order).gone_since_ms == LATER_MS
    assert len(done.notes) == 1
    again = decide(done.order, ev.PaymentNotFound(), POLICY, LATER_MS + S)
    assert (again.order, again.notes) == (done.order, ())


def test_where_no_money_is_out_a_payment_that_is_not_found_or_looked_for_changes_nothing() -> None:
    for found in (order(), pair(AWAITING, NONE), pair(PAID, SETTLED), pair(CANCELED, FAILED)):
        assert step(found, ev.PaymentNotFound()).payment == found.payment
        assert step(found, looked(900_000)).payment == found.payment


def test_the_channels_are_not_looked_at_for_what_is_over() -> None:
    assert not wants_look(pair(CANCELED, GONE, gone_since_ms=NOW_MS), POLICY, 900_000, NOW_MS + 9 * HOUR)


def test_a_dispatch_that_never_arrived_is_taken_back_whole() -> None:
    sent = pair(AWAITING, UNKNOWN, cancel_at_ms=NOW_MS + HOUR, cancel_wanted_at_ms=NOW_MS)
    once = step(sent, ev.PaymentNotFound(), NOW_MS)
    assert step(once, ev.PaymentNotFound(), NOW_MS + 30 * S - 1) == once
    wished = replace(once, cancel_wanted_at_ms=None)
    twice = step(wished, ev.PaymentNotFound(), NOW_MS + 30 * S)
    at_ms = NOW_MS + 30 * S
    assert paying(twice) == replace(paying(sent), htlc=NONE, htlc_since_ms=at_ms, dispatch_at_ms=at_ms)
    assert (twice.cancel_at_ms, twice.giving_up) == (None, None)


def test_the_dispatch_before_one_that_never_arrived_is_the_truth_again() -> None:
    sent = pair(AWAITING, UNKNOWN, failure=failure(), dispatch_count=2, absent_since_ms=NOW_MS)
    at_ms = NOW_MS + 30 * S
    after = paying(step(sent, ev.PaymentNotFound(), at_ms))
    assert after == replace(paying(sent), htlc=FAILED, htlc_since_ms=at_ms, absent_since_ms=None, dispatch_at_ms=at_ms)


def test_dispatches_that_never_arrive_are_given_up_after_the_last_of_them() -> None:
    for count, is_given_up in ((5, False), (6, True)):
        sent = pair(AWAITING, UNKNOWN, dispatch_count=count, absent_since_ms=NOW_MS)
        after = step(sent, ev.PaymentNotFound(), NOW_MS + 30 * S)
        assert (after.giving_up == "6 dispatches did not reach lnd") is is_given_up


def test_that_the_provider_was_paid_and_lnd_knows_nothing_of_it_is_noted() -> None:
    for reached_payee, count in ((True, 1), (False, 0)):
        sent = pair(AWAITING, UNKNOWN, absent_since_ms=NOW_MS, reached_payee=reached_payee)
        assert len(decide(sent, ev.PaymentNotFound(), POLICY, NOW_MS + 30 * S).notes) == count


def test_what_was_never_signed_is_failed_by_our_own_word() -> None:
    stuck = pair(AWAITING, IN_FLIGHT, uncarried_since_ms=NOW_MS, cancel_at_ms=NOW_MS + HOUR)
    at_ms = NOW_MS + 30 * S
    after = step(stuck, looked(900_000), at_ms)
    assert after.cancel_at_ms is None
    assert after.giving_up == "lnd never gave its HTLC to a channel"
    told = paying(after)
    ours = failure(FailureClass.READ_LATER, reason=FailureReason.NEVER_SENT, payment_index=0, at_ms=at_ms)
    assert (told.htlc, told.fee_msat, told.failure) == (FAILED, 0, ours)


@pytest.mark.parametrize(("seen_msat", "counted_msat"), [(1_002, 1_002), (0, 10_000)])
def test_what_is_gone_counts_with_the_fee_that_was_seen_or_else_the_whole_limit(
    seen_msat: int, counted_msat: int
) -> None:
    lost = pair(PAID, IN_FLIGHT, gone_since_ms=NOW_MS, uncarried_since_ms=NOW_MS, fee_msat=seen_msat)
    assert not step(lost, looked(900_000), NOW_MS + 30 * S - 1).is_closed
    after = step(lost, looked(900_000), NOW_MS + 30 * S)
    assert (after.htlc, paying(after).fee_msat, after.end) == (GONE, counted_msat, End.OUTCOME_UNKNOWN)
    assert after.reason.startswith("lnd has no record of the payment any more, and no channel carries its HTLC")
    endless = pair(PAID, IN_FLIGHT, uncarried_since_ms=NOW_MS)
    assert step(endless, looked(900_000), NOW_MS + 30 * S).reason.startswith("lnd never ends the payment, and no")


def test_the_first_look_at_the_tip_of_the_chain_tells_the_height_also_between_two_that_prove_something() -> None:
    stuck = pair(PAID, IN_FLIGHT, uncarried_since_ms=NOW_MS)
    unsynced = step(stuck, looked(900_000, synced=False), NOW_MS + S)
    assert paying(unsynced).first_look_height is None
    synced = step(stuck, looked(900_000), NOW_MS + S)
    assert (paying(synced).first_look_height, paying(synced).uncarried_since_ms) == (900_000, NOW_MS)


# --- the provider's license -----------------------------------------------------------------------------------------


def _noted(found: Order, asked_at_ms: int, at_ms: int) -> Order:
    return note_unpaid(found, asked_at_ms, Context(POLICY, at_ms, may_close=True))


def test_only_a_reply_that_was_asked_for_after_the_failure_licenses_anything() -> None:
    found = pair(AWAITING, FAILED)
    assert _noted(found, NOW_MS, NOW_MS + 1) == found
    assert paying(_noted(found, NOW_MS + 1, NOW_MS + 2)).unpaid_since_ms == NOW_MS + 2


@pytest.mark.parametrize("found", [pair(AWAITING, IN_FLIGHT), pair(AWAITING, SETTLED), pair(AWAITING, NONE)])
def test_nothing_is_licensed_where_nothing_failed(found: Order) -> None:
    assert _noted(found, NOW_MS + 1, NOW_MS + 2) == found


def test_a_second_word_counts_ten_seconds_after_the_first_and_the_first_such_is_kept() -> None:
    found = pair(AWAITING, FAILED, unpaid_since_ms=NOW_MS + 1)
    assert _noted(found, NOW_MS + 1, NOW_MS + 1) == found
    assert _noted(found, NOW_MS + 1, NOW_MS + 10_000) == found
    twice = _noted(found, NOW_MS + 1, NOW_MS + 10_001)
    assert paying(twice).unpaid_again_at_ms == NOW_MS + 10_001
    assert _noted(twice, NOW_MS + 1, NOW_MS + 60_000) == twice


def test_a_first_word_that_lies_ahead_is_of_a_clock_that_was_set_back() -> None:
    found = pair(AWAITING, FAILED, unpaid_since_ms=NOW_MS + HOUR)
    assert paying(_noted(found, NOW_MS + 1, NOW_MS + 2)).unpaid_since_ms == NOW_MS + 2


@pytest.mark.parametrize(
    ("failed_by", "once", "twice"),
    [
        (None, True, True),
        (FailureClass.ROUTING, True, True),
        (FailureClass.NO_ATTEMPT, True, True),
        (FailureClass.READ_LATER, False, True),
        (FailureClass.PAYEE_REFUSED, False, True),
        (FailureClass.ON_CHAIN, False, True),
    ],
)
def test_how_often_the_provider_must_say_unpaid_depends_on_how_the_payment_failed(
    failed_by: FailureClass | None, once: bool, twice: bool
) -> None:
    told = payment(FAILED, failure=None if failed_by is None else failure(failed_by))
    assert not is_unpaid_for_sure(told)
    assert is_unpaid_for_sure(replace(told, unpaid_since_ms=NOW_MS)) is once
    assert is_unpaid_for_sure(replace(told, unpaid_since_ms=NOW_MS, unpaid_again_at_ms=NOW_MS)) is twice


# --- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "end"),
    [
        (order(), End.CANCELED_UNPAID),
        (pair(AWAITING, NONE), End.CANCELED_UNPAID),
        (pair(CANCELED, FAILED, reached_payee=True), End.REFUNDED),
        (pair(CANCELED, FAILED), End.PAYMENT_FAILED),
        (pair(CANCELED, FAILED, cancel_wanted_at_ms=NOW_MS), End.CANCELED_UNPAID),
        (replace(pair(CANCELED, NONE), payment=proven_absent(reached_payee=True)), End.PAYMENT_FAILED),
    ],
)
def test_an_end_without_money_is_called_what_it_is(found: Order, end: End) -> None:
    assert end_without_money(found) is end


def test_what_was_never_sent_is_told_from_what_may_have_been() -> None:
    assert was_never_sent(order())
    assert was_never_sent(pair(AWAITING, NONE))
    assert was_never_sent(prepaid(REQUESTED))
    assert not was_never_sent(replace(pair(AWAITING, NONE), payment=proven_absent()))
    assert not was_never_sent(pair(AWAITING, FAILED, dispatch_count=0))


# --- an operator's word ---------------------------------------------------------------------------------------------


def said(resolution: ev.Resolution, preimage: str | None = None) -> ev.Resolved:
    return ev.Resolved(resolution, by="ann", why="node sold", preimage=preimage)


FAILED_BY = "ann resolved the payment as failed: node sold"


def test_an_operator_s_failed_gives_the_money_back_and_is_the_reason() -> None:
    after = step(pair(PAID, IN_FLIGHT), said(ev.Resolution.FAILED))
    told = paying(after)
    ours = failure(FailureClass.READ_LATER, reason=FailureReason.BY_OPERATOR, payment_index=0, at_ms=LATER_MS)
    assert (told.htlc, told.fee_msat, told.failure) == (FAILED, 0, ours)
    assert (after.end, after.reason, after.giving_up) == (End.REFUNDED, FAILED_BY, FAILED_BY)
    free = step(pair(DELIVERED, IN_FLIGHT), said(ev.Resolution.FAILED))
    assert free.end is End.FULFILLED_FREE


@pytest.mark.parametrize(
    ("found", "resolution", "state", "end"),
    [
        (pair(CANCELED, IN_FLIGHT), ev.Resolution.WRITTEN_OFF, CANCELED, End.OUTCOME_UNKNOWN),
        (pair(CANCELED, IN_FLIGHT, reached_payee=True), ev.Resolution.FAILED, CANCELED, End.REFUNDED),
        (pair(DELIVERED, IN_FLIGHT), ev.Resolution.WRITTEN_OFF, DELIVERED, End.FULFILLED),
        (pair(NUMBER, IN_FLIGHT, spec=RENTAL), ev.Resolution.FAILED, ABANDONED, End.REFUNDED),
        (pair(PAID, IN_FLIGHT, spec=SMS), ev.Resolution.FAILED, ABANDONED, End.REFUNDED),
        (pair(PAID, IN_FLIGHT, spec=SMS), ev.Resolution.WRITTEN_OFF, ABANDONED, End.OUTCOME_UNKNOWN),
        (pair(PAID, IN_FLIGHT, spec=FUND), ev.Resolution.WRITTEN_OFF, ABANDONED, End.OUTCOME_UNKNOWN),
        (pair(PAID, IN_FLIGHT, spec=FUND), ev.Resolution.FAILED, ABANDONED, End.REFUNDED),
        (pair(PAID, IN_FLIGHT), ev.Resolution.WRITTEN_OFF, ABANDONED, End.OUTCOME_UNKNOWN),
    ],
)
def test_the_provider_s_last_word_stays_beside_the_operator_s(
    found: Order, resolution: ev.Resolution, state: OrderState, end: End
) -> None:
    after = step(found, said(resolution))
    assert (after.state, after.end) == (state, end)


def test_a_rented_number_whose_payment_is_written_off_is_followed_all_the_same() -> None:
    after = step(pair(NUMBER, IN_FLIGHT, spec=RENTAL), said(ev.Resolution.WRITTEN_OFF))
    assert (after.state, after.htlc, after.is_closed) == (DELIVERED, GONE, False)


@pytest.mark.parametrize(("seen_msat", "counted_msat"), [(1_002, 1_002), (0, 10_000)])
def test_an_operator_s_settled_books_the_fee_that_was_seen_or_else_the_whole_limit(
    seen_msat: int, counted_msat: int
) -> None:
    found = pair(
        NUMBER, IN_FLIGHT, fee_msat=seen_msat, dispatch_at_ms=NOW_MS, reached_payee=False, cancel_at_ms=NOW_MS + HOUR
    )
    done = decide(found, said(ev.Resolution.SETTLED, PREIMAGE), POLICY, LATER_MS)
    told = paying(done.order)
    assert told == replace(
        paying(found),
        htlc=SETTLED,
        htlc_since_ms=LATER_MS,
        preimage=PREIMAGE,
        fee_msat=counted_msat,
        reached_payee=True,
        dispatch_at_ms=None,
    )
    assert done.order.cancel_at_ms is None
    assert done.notes == ("ann resolved the payment as settled: node sold",)


def test_an_operator_s_preimage_that_does_not_fit_is_not_believed_and_that_is_noted() -> None:
    for preimage in (None, "22" * 32):
        done = decide(pair(NUMBER, IN_FLIGHT), said(ev.Resolution.SETTLED, preimage), POLICY, LATER_MS)
        assert done.order.htlc is IN_FLIGHT
        assert len(done.notes) == 1


@pytest.mark.parametrize(
    ("found", "event", "why"),
    [
        (order(), said(ev.Resolution.FAILED), ""),
        (order(), said(ev.Resolution.WRITTEN_OFF), "It has no payment, so nothing can have been spent."),
        (order(), said(ev.Resolution.SETTLED, PREIMAGE), "It has no payment, so nothing can have been spent."),
        (pair(PAID, IN_FLIGHT), said(ev.Resolution.FAILED), ""),
        (pair(PAID, IN_FLIGHT), said(ev.Resolution.SETTLED, PREIMAGE), ""),
        (pair(PAID, SETTLED), said(ev.Resolution.SETTLED, PREIMAGE), ""),
        (
            pair(PAID, IN_FLIGHT),
            said(ev.Resolution.SETTLED, "22" * 32),
            "The preimage does not fit the payment hash of the order.",
        ),
        (
            pair(PAID, IN_FLIGHT),
            said(ev.Resolution.SETTLED),
            "The preimage does not fit the payment hash of the order.",
        ),
        (pair(PAID, SETTLED), said(ev.Resolution.FAILED), "Its stored preimage proves that it is spent."),
        (pair(PAID, SETTLED, preimage="22" * 32), said(ev.Resolution.FAILED), ""),
    ],
)
def test_why_an_operator_s_word_cannot_end_an_order_in_quarantine(found: Order, event: ev.Resolved, why: str) -> None:
    assert misfit(quarantined(found), event) == why
    assert step(quarantined(found), event).is_closed is (why == "")


@pytest.mark.parametrize(
    ("found", "event", "state", "htlc", "end", "fee_msat"),
    [
        (pair(PAID, IN_FLIGHT), said(ev.Resolution.FAILED), ABANDONED, FAILED, End.REFUNDED, 0),
        (pair(CANCELED, IN_FLIGHT), said(ev.Resolution.FAILED), CANCELED, FAILED, End.PAYMENT_FAILED, 0),
        (pair(CANCELED, IN_FLIGHT), said(ev.Resolution.WRITTEN_OFF), CANCELED, GONE, End.OUTCOME_UNKNOWN, 1_002),
        (
            pair(CANCELED, IN_FLIGHT),
            said(ev.Resolution.SETTLED, PREIMAGE),
            ABANDONED,
            SETTLED,
            End.CHARGED_UNFULFILLED,
            1_002,
        ),
        (pair(PAID, UNKNOWN), said(ev.Resolution.WRITTEN_OFF), ABANDONED, GONE, End.OUTCOME_UNKNOWN, 10_000),
        (pair(DELIVERED, IN_FLIGHT), said(ev.Resolution.FAILED), DELIVERED, FAILED, End.FULFILLED_FREE, 0),
        (pair(DELIVERED, UNKNOWN), said(ev.Resolution.SETTLED, PREIMAGE), DELIVERED, SETTLED, End.FULFILLED, 10_000),
        (pair(DELIVERED, IN_FLIGHT), said(ev.Resolution.WRITTEN_OFF), DELIVERED, GONE, End.FULFILLED, 1_002),
        (pair(AWAITING, NONE), said(ev.Resolution.FAILED), ABANDONED, NONE, End.CANCELED_UNPAID, 0),
        (
            pair(AWAITING, FAILED, dispatch_count=0),
            said(ev.Resolution.FAILED),
            ABANDONED,
            FAILED,
            End.CANCELED_UNPAID,
            0,
        ),
    ],
)
def test_an_operator_s_word_ends_an_order_in_quarantine_whatever_its_halves_say(
    found: Order, event: ev.Resolved, state: OrderState, htlc: HtlcState, end: End, fee_msat: int
) -> None:
    done = decide(quarantined(found), event, POLICY, LATER_MS)
    after, told = done.order, paying(done.order)
    reason = f"ann resolved the payment as {event.resolution.value.replace('_', ' ')}: node sold"
    assert (after.state, after.htlc, after.end, told.fee_msat) == (state, htlc, end, fee_msat)
    assert (after.reason, after.giving_up, done.notes) == (reason, reason, (reason,))
    assert (after.state_since_ms, after.closed_at_ms, told.dispatch_at_ms) == (LATER_MS, LATER_MS, None)
    assert told.htlc_since_ms == (NOW_MS if htlc is NONE else LATER_MS)
    assert told.preimage == (PREIMAGE if htlc is SETTLED else None)
    if htlc in {FAILED, GONE}:
        assert told.failure is not None
        assert told.failure.reason is FailureReason.BY_OPERATOR
    assert told.reached_payee is (htlc is SETTLED or paying(found).reached_payee)


def test_a_preimage_that_is_stored_and_fits_nothing_does_not_outlive_the_operator_s_word() -> None:
    odd = quarantined(pair(PAID, IN_FLIGHT, preimage="22" * 32))
    assert paying(step(odd, said(ev.Resolution.FAILED))).preimage is None


def test_a_word_that_cannot_be_believed_leaves_the_order_in_quarantine_and_is_noted() -> None:
    found = quarantined(pair(PAID, SETTLED))
    done = decide(found, said(ev.Resolution.FAILED), POLICY, LATER_MS)
    assert done.order == replace(found, anomaly_count=done.order.anomaly_count)
    assert len(done.notes) == 1
    assert "not believed" in done.notes[0]


def test_a_free_reply_is_not_a_license() -> None:
    """An error, or a word that it is paid, is no word that it is unpaid."""
    found = pair(AWAITING, FAILED)
    for reply in (replied(NOW_MS + 1, error="No available number"), replied(NOW_MS + 1, paid=True)):
        assert paying(step(found, reply)).unpaid_since_ms is None
