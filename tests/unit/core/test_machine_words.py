"""What a word about the order changes, and that it changes nothing else: whole orders are compared here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdpay.core import events as ev
from holdpay.core.charge import Charge, ChargeState
from holdpay.core.diagnosis import Cause, Diagnosis
from holdpay.core.machine import (
    MAX_ANOMALIES,
    decide,
    half,
    paid_since_ms,
    patience_until_ms,
    promise_until_ms,
    takes_cancel,
)
from holdpay.core.model import Order
from holdpay.core.prepaid import may_charge
from holdpay.core.states import End, HtlcSignal, HtlcState, OrderState
from holdpay.core.step import Context, Step, signal_htlc
from holdpay.errors import InvariantViolation
from tests.unit.build import (
    EVENTS,
    FUND,
    HASH,
    HOUR,
    NOW_MS,
    POLICY,
    RENTAL,
    SMS,
    S,
    charge,
    in_flight,
    items,
    order,
    pair,
    payment,
    prepaid,
    quarantined,
    replied,
)

TOO_DEAR = Diagnosis(cause=Cause.FEE_LIMIT, text="a route exists at 37 sat")

NONE, DISPATCHING, UNKNOWN, IN_FLIGHT, SETTLED, FAILED, GONE = HtlcState
REQUESTED, AWAITING, PAID, NUMBER, DELIVERED, CANCELED, ABANDONED = OrderState
INTENDED, LOST, CHARGED, REFUSED, RETURNED = ChargeState
LATER_MS = NOW_MS + 7 * S


def decided(found: Order, event: ev.Event, at_ms: int = LATER_MS) -> Step:
    return decide(found, event, POLICY, at_ms)


def step(found: Order, event: ev.Event, at_ms: int = LATER_MS) -> Order:
    return decided(found, event, at_ms).order


# --- quarantine -----------------------------------------------------------------------------------------------------


def test_an_order_is_put_aside_with_the_reason_once_and_nothing_else_of_it_changes() -> None:
    found = pair(NUMBER, IN_FLIGHT)
    done = decided(found, ev.OrderQuarantined("It broke a law."))
    aside = replace(found, quarantined_at_ms=LATER_MS, quarantine_reason="It broke a law.")
    assert done == Step(aside, is_change=True, notes=("put into quarantine: It broke a law.",))
    assert decided(aside, ev.OrderQuarantined("It broke another."), LATER_MS + 1) == Step(aside, is_change=False)


@pytest.mark.parametrize("name", EVENTS)
def test_a_closed_order_has_nothing_to_store(name: str) -> None:
    over = pair(CANCELED, FAILED, closed_at_ms=NOW_MS, end=End.REFUNDED)
    assert decided(over, EVENTS[name]) == Step(over, is_change=False)


def test_an_order_in_quarantine_takes_a_code_although_its_halves_contradict_each_other() -> None:
    odd = quarantined(order(payment=payment(IN_FLIGHT)))
    assert decided(odd, EVENTS["in flight"]) == Step(odd, is_change=False)
    done = decided(quarantined(replace(pair(NUMBER, IN_FLIGHT), state=ABANDONED)), EVENTS["reply: code"])
    assert (done.is_change, done.order.code, done.order.is_closed) == (True, "012345", False)


def test_time_never_closes_an_order_in_quarantine() -> None:
    found = quarantined(pair(PAID, SETTLED))
    assert step(found, ev.TimePassed(), NOW_MS + 1000 * HOUR) == found


# --- contradictions of others ----------------------------------------------------------------------------------------


def test_what_a_party_takes_back_is_noted_in_its_words() -> None:
    assert decided(pair(NUMBER, IN_FLIGHT), replied()).notes == (
        "the provider says unpaid of an order that it had called number assigned",
    )
    assert decided(pair(PAID, SETTLED), in_flight()).notes == ("lnd says in_flight of a payment that was settled",)


# --- our own laws ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (order(payment=payment(IN_FLIGHT)), "requested with its HTLC in_flight"),
        (prepaid(PAID), "paid with no charge"),
        (prepaid(PAID, INTENDED), "paid with its charge intended"),
        (replace(prepaid(PAID, CHARGED), payment=payment()), "is paid from the account, and has a hold invoice"),
    ],
)
def test_an_order_that_contradicts_itself_is_told_with_both_halves(found: Order, told: str) -> None:
    with pytest.raises(InvariantViolation, match=told):
        step(found, ev.TimePassed())


def test_a_payment_is_never_handed_to_lnd_while_money_may_be_out() -> None:
    for htlc in (DISPATCHING, UNKNOWN, IN_FLIGHT, SETTLED, GONE):
        with pytest.raises(InvariantViolation, match=f"A payment that is {htlc.value} got send"):
            signal_htlc(payment(htlc), HtlcSignal.SEND, Context(POLICY, NOW_MS, may_close=True))


def test_the_other_half_of_an_order_is_said_in_a_word() -> None:
    assert half(pair(PAID, IN_FLIGHT)) == "its HTLC in_flight"
    assert half(prepaid(REQUESTED)) == "no charge"
    assert half(prepaid(REQUESTED, LOST)) == "its charge unknown"


# --- placing --------------------------------------------------------------------------------------------------------


def test_a_placed_order_has_the_provider_s_id_and_invoice_and_nothing_else_changes() -> None:
    found = order(place_count=1)
    placed = step(found, ev.OrderPlaced(HASH, "lnsb1..."))
    assert placed == replace(found, state=AWAITING, state_since_ms=LATER_MS, provider_order_id=HASH, payreq="lnsb1...")
    again = decided(placed, ev.OrderPlaced("22" * 32, "lnsb2..."))
    assert again.order == replace(placed, anomaly_count=1)
    assert len(again.notes) == 1


def test_a_failed_placing_is_tried_again_later_and_later_with_the_provider_s_words_kept() -> None:
    found = order()
    once = step(found, ev.PlacingFailed("busy", may_retry=True))
    assert once == replace(found, place_count=1, place_at_ms=LATER_MS + 5 * S, provider_text="busy")
    twice = step(once, ev.PlacingFailed("busier", may_retry=True, wait_s=7.5), LATER_MS + 5 * S)
    assert twice == replace(once, place_count=2, place_at_ms=LATER_MS + 15 * S, provider_text="busier")
    late = step(once, ev.PlacingFailed("busier", may_retry=True, wait_s=30.5), LATER_MS + 5 * S)
    assert late.place_at_ms == LATER_MS + 35_500


@pytest.mark.parametrize(("left_ms", "is_closed"), [(5 * S + 1, False), (5 * S, True)])
def test_a_placing_that_could_only_be_tried_again_after_the_time_to_pay_ends_the_order(
    left_ms: int, is_closed: bool
) -> None:
    found = order(pay_by_ms=LATER_MS + left_ms)
    after = step(found, ev.PlacingFailed("busy", may_retry=True))
    assert after.is_closed is is_closed
    if is_closed:
        assert (after.end, after.reason) == (End.PROVIDER_REFUSED, "the provider did not take the order: busy")


def test_a_placing_that_failed_after_all_changes_nothing_of_a_placed_order() -> None:
    found = pair(AWAITING, NONE)
    assert step(found, ev.PlacingFailed("busy", may_retry=False)) == found


def test_a_placing_that_failed_for_good_is_told_of_an_order_in_quarantine_and_closes_it_not() -> None:
    found = quarantined(order())
    assert step(found, ev.PlacingFailed("no", may_retry=False)) == replace(found, place_count=1, provider_text="no")


def test_a_charge_that_was_refused_is_not_doubted_by_a_placing_that_failed_before() -> None:
    found = prepaid(REQUESTED, REFUSED)
    assert step(found, ev.PlacingFailed("timeout", may_retry=True, is_sure=False)).charge == found.charge


# --- replies --------------------------------------------------------------------------------------------------------


def test_that_the_provider_cannot_be_asked_is_noted_with_its_words() -> None:
    assert decided(pair(PAID, IN_FLIGHT), ev.ProviderFailed("HTTP 502")).notes == ("HTTP 502",)
    assert decided(pair(PAID, IN_FLIGHT), ev.ProviderConfused("not JSON")).notes == ("not JSON",)


def test_anomalies_are_counted_up_to_a_bound_and_told_for_ever() -> None:
    found = pair(PAID, IN_FLIGHT, anomaly_count=MAX_ANOMALIES - 1)
    done = decided(found, ev.ProviderFailed("HTTP 502"))
    assert done.order.anomaly_count == MAX_ANOMALIES
    again = decided(done.order, ev.ProviderFailed("HTTP 502"))
    assert (again.order, again.is_change, again.notes) == (done.order, False, ("HTTP 502",))


UNREADABLE = ev.ProviderConfused("not JSON", unread="Your code is 48010")


@pytest.mark.parametrize(
    ("found", "is_kept"),
    [
        (pair(AWAITING, NONE), False),
        (pair(AWAITING, IN_FLIGHT), True),
        (pair(AWAITING, SETTLED), True),
        (pair(PAID, FAILED), True),
        (pair(NUMBER, FAILED), True),
        (pair(CANCELED, FAILED), False),
        (pair(DELIVERED, IN_FLIGHT), False),
        (pair(DELIVERED, SETTLED, spec=SMS, sending="sent", code=None, number=None), True),
        (prepaid(PAID, CHARGED), True),
    ],
)
def test_a_reply_that_is_no_reply_is_kept_where_something_was_paid_and_is_still_to_come(
    found: Order, is_kept: bool
) -> None:
    assert bool(step(found, UNREADABLE).unread) is is_kept


def test_a_reply_to_an_order_that_was_not_placed_changes_nothing() -> None:
    assert step(order(), EVENTS["reply: code"]) == order()


def test_a_reply_that_cannot_be_read_whole_is_kept_and_noted_once() -> None:
    found = pair(PAID, IN_FLIGHT)
    done = decided(found, replied(paid=True, unread="{odd}"))
    assert (done.order.unread, len(done.notes)) == (("{odd}",), 1)
    assert decided(done.order, replied(paid=True, unread="{odd}")).notes == ()


def test_the_first_error_of_an_order_is_kept() -> None:
    once = step(pair(PAID, IN_FLIGHT), replied(paid=True, error="No number"))
    assert (once.state, once.provider_text) == (CANCELED, "No number")
    assert step(once, replied(paid=True, error="Still none")).provider_text == "No number"
    assert step(pair(DELIVERED, IN_FLIGHT), replied(paid=True, error="odd")).provider_text is None


@pytest.mark.parametrize("reply", ["reply: code", "reply: error"])
def test_a_wish_to_cancel_has_no_time_any_more_when_the_order_is_over(reply: str) -> None:
    wished = pair(NUMBER, IN_FLIGHT, cancel_wanted_at_ms=NOW_MS, cancel_at_ms=NOW_MS + HOUR)
    assert step(wished, EVENTS[reply]).cancel_at_ms is None
    assert step(wished, EVENTS["reply: number"]).cancel_at_ms == NOW_MS + HOUR


def test_that_it_is_paid_means_that_the_payee_was_reached() -> None:
    found = pair(AWAITING, IN_FLIGHT)
    after = step(found, EVENTS["reply: paid"])
    assert after == replace(found, state=PAID, state_since_ms=LATER_MS, payment=payment(IN_FLIGHT, reached_payee=True))


# --- a wish to cancel -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "takes"),
    [
        (order(), True),
        (pair(NUMBER, IN_FLIGHT), True),
        (pair(NUMBER, IN_FLIGHT, cancel_wanted_at_ms=NOW_MS), False),
        (pair(NUMBER, SETTLED), False),
        (pair(DELIVERED, IN_FLIGHT), False),
        (pair(CANCELED, FAILED, closed_at_ms=NOW_MS), False),
        (pair(AWAITING, NONE, spec=SMS), True),
        (pair(AWAITING, IN_FLIGHT, spec=SMS), False),
        (prepaid(REQUESTED, spec=SMS), True),
        (prepaid(REQUESTED, REFUSED, spec=SMS), True),
        (prepaid(REQUESTED, INTENDED, spec=SMS), False),
        (prepaid(PAID, CHARGED), True),
    ],
)
def test_a_wish_to_cancel_is_taken_where_it_can_change_something(found: Order, takes: bool) -> None:
    assert takes_cancel(found) is takes
    assert (step(found, ev.CancelRequested()).cancel_wanted_at_ms == LATER_MS) is takes


@pytest.mark.parametrize(
    ("found", "at_ms"),
    [
        (pair(NUMBER, IN_FLIGHT), NOW_MS + 120 * S),
        (pair(NUMBER, IN_FLIGHT, money_out_since_ms=NOW_MS - 119 * S), LATER_MS),
        (pair(NUMBER, IN_FLIGHT, money_out_since_ms=NOW_MS - 100 * S), NOW_MS + 20 * S),
        (pair(CANCELED, IN_FLIGHT), None),
        (prepaid(PAID, CHARGED), NOW_MS + 120 * S),
    ],
)
def test_the_provider_is_asked_to_cancel_two_minutes_after_it_was_paid(found: Order, at_ms: int | None) -> None:
    assert step(found, ev.CancelRequested()).cancel_at_ms == at_ms


def test_an_accepted_cancel_is_the_provider_s_word_that_it_is_over() -> None:
    wished = pair(NUMBER, IN_FLIGHT, cancel_wanted_at_ms=NOW_MS, cancel_at_ms=NOW_MS)
    after = step(wished, ev.CancelAnswered(accepted=True, text=""))
    assert after == replace(
        wished, cancel_at_ms=None, state=CANCELED, state_since_ms=LATER_MS, provider_text="canceled at your request"
    )
    for over in (pair(CANCELED, IN_FLIGHT, cancel_at_ms=NOW_MS), pair(DELIVERED, IN_FLIGHT, cancel_at_ms=NOW_MS)):
        assert step(over, ev.CancelAnswered(accepted=True, text="done")) == replace(over, cancel_at_ms=None)


@pytest.mark.parametrize(("wished_before_s", "wait_s"), [(0, 30), (480, 30), (496, 31), (1_600, 100)])
def test_a_refused_cancel_is_asked_for_again_after_a_sixteenth_of_the_time_since_the_wish(
    wished_before_s: int, wait_s: int
) -> None:
    wished = pair(NUMBER, IN_FLIGHT, cancel_wanted_at_ms=LATER_MS - wished_before_s * S, cancel_at_ms=NOW_MS)
    after = step(wished, ev.CancelAnswered(accepted=False, text="too early"))
    assert after == replace(wished, provider_text="too early", cancel_at_ms=LATER_MS + wait_s * S)


def test_a_cancel_is_not_asked_for_again_where_it_can_bring_nothing_back() -> None:
    back = pair(PAID, FAILED, cancel_wanted_at_ms=NOW_MS, cancel_at_ms=NOW_MS)
    assert step(back, ev.CancelAnswered(accepted=False, text="no")) == replace(
        back, cancel_at_ms=None, provider_text="no"
    )
    rented = prepaid(NUMBER, CHARGED, spec=RENTAL, cancel_wanted_at_ms=NOW_MS, cancel_at_ms=NOW_MS)
    assert step(rented, ev.CancelAnswered(accepted=False, text="no")).cancel_at_ms is None
    lost = step(rented, ev.CancelAnswered(accepted=None, text="timeout"))
    assert lost.cancel_at_ms == LATER_MS + 30 * S
    unfound = prepaid(PAID, CHARGED, spec=RENTAL, cancel_wanted_at_ms=NOW_MS, cancel_at_ms=NOW_MS)
    assert step(unfound, ev.CancelAnswered(accepted=False, text="no")).cancel_at_ms == LATER_MS + 30 * S


# --- time -----------------------------------------------------------------------------------------------------------


def test_what_is_late_is_counted_from_the_payment_or_the_charge() -> None:
    held = pair(PAID, IN_FLIGHT, money_out_since_ms=NOW_MS + 5)
    assert paid_since_ms(held) == NOW_MS + 5
    assert patience_until_ms(held, POLICY) == promise_until_ms(held, POLICY) == NOW_MS + 5 + 1260 * S
    assert promise_until_ms(pair(PAID, IN_FLIGHT, spec=SMS), POLICY) is None
    assert patience_until_ms(pair(PAID, IN_FLIGHT, spec=SMS), POLICY) == NOW_MS + 1260 * S
    assert paid_since_ms(prepaid(PAID, CHARGED)) == NOW_MS
    for unpaid in (order(), pair(AWAITING, NONE), prepaid(REQUESTED), prepaid(REQUESTED, LOST)):
        assert paid_since_ms(unpaid) is None
        assert patience_until_ms(unpaid, POLICY) is None


@pytest.mark.parametrize(
    "found",
    [
        order(),
        order(state=AWAITING, provider_order_id=HASH, payreq="lnsb1..."),
        pair(AWAITING, NONE),
        prepaid(REQUESTED),
    ],
)
def test_what_was_not_paid_in_time_is_given_up_right_then(found: Order) -> None:
    assert not step(found, ev.TimePassed(), found.pay_by_ms - 1).is_closed
    over = step(found, ev.TimePassed(), found.pay_by_ms)
    assert (over.is_closed, over.reason) == (True, "it was not paid in time")


@pytest.mark.parametrize(
    "found",
    [
        pair(AWAITING, IN_FLIGHT),
        pair(AWAITING, SETTLED),
        quarantined(order()),
        prepaid(REQUESTED, INTENDED),
        prepaid(REQUESTED, LOST),
        pair(PAID, FAILED),
    ],
)
def test_what_may_be_paid_is_never_given_up_by_time(found: Order) -> None:
    assert step(found, ev.TimePassed(), found.pay_by_ms).giving_up is None


def test_a_dispatch_that_failed_is_confirmed_for_two_minutes_after_the_time_to_pay() -> None:
    found = pair(AWAITING, FAILED)
    until_ms = found.pay_by_ms + 120 * S
    assert not step(found, ev.TimePassed(), until_ms - 1).is_closed
    over = step(found, ev.TimePassed(), until_ms)
    reason = "it was not paid in time; no route worked within the limits for fee and time lock"
    assert (over.end, over.reason, over.state) == (End.PAYMENT_FAILED, reason, ABANDONED)
    assert not step(found, ev.DaemonRestarted(), until_ms).is_closed


def test_an_order_of_which_the_provider_says_no_more_ends_with_the_promise() -> None:
    found = pair(PAID, FAILED, htlc_since_ms=NOW_MS)
    until_ms = NOW_MS + 1260 * S
    assert not step(found, ev.TimePassed(), until_ms - 1).is_closed
    assert not step(found, ev.DaemonRestarted(), until_ms).is_closed
    over = step(replace(found, cancel_at_ms=until_ms + HOUR), ev.TimePassed(), until_ms)
    assert (over.end, over.reason) == (End.REFUNDED, "the provider never said what became of it")
    assert over.cancel_at_ms is None
    late = pair(PAID, FAILED, htlc_since_ms=until_ms - 10 * S)
    assert not step(late, ev.TimePassed(), until_ms + 110 * S - 1).is_closed
    assert step(late, ev.TimePassed(), until_ms + 110 * S).is_closed
    absent = pair(PAID, NONE, htlc_since_ms=until_ms - 10 * S)
    assert step(absent, ev.TimePassed(), until_ms).is_closed
    unsent = replace(pair(PAID, NONE), payment=payment(reached_payee=True))
    assert not step(unsent, ev.TimePassed(), until_ms - 1).is_closed
    assert step(unsent, ev.TimePassed(), until_ms).end is End.CANCELED_UNPAID


def test_a_charge_for_nothing_is_waited_for_two_days() -> None:
    for found in (pair(PAID, SETTLED), prepaid(PAID, CHARGED)):
        until_ms = NOW_MS + 48 * HOUR
        assert not step(found, ev.TimePassed(), until_ms - 1).is_closed
        assert not step(found, ev.DaemonRestarted(), until_ms).is_closed
        over = step(found, ev.TimePassed(), until_ms)
        assert over.end is End.CHARGED_UNFULFILLED
        assert over.reason == "the code did not come in the time that was left for it after it was paid for"


def test_a_price_that_goes_back_is_waited_for_two_minutes() -> None:
    found = prepaid(CANCELED, RETURNED, provider_text=None)
    assert not step(found, ev.TimePassed(), NOW_MS + 120 * S - 1).is_closed
    assert not step(found, ev.DaemonRestarted(), NOW_MS + 120 * S).is_closed
    over = step(found, ev.TimePassed(), NOW_MS + 120 * S)
    assert (over.end, over.reason) == (End.REFUNDED, "the provider canceled it")
    told = step(replace(found, provider_text="No number"), ev.TimePassed(), NOW_MS + 120 * S)
    assert told.reason == "No number"


# --- what ends at once ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "end", "reason"),
    [
        (pair(DELIVERED, SETTLED), End.FULFILLED, ""),
        (pair(DELIVERED, FAILED), End.FULFILLED_FREE, "it was fulfilled although nothing was charged"),
        (pair(CANCELED, FAILED, provider_text=None), End.PAYMENT_FAILED, "the provider canceled it"),
        (pair(CANCELED, FAILED, reached_payee=True), End.REFUNDED, "No available number"),
        (pair(CANCELED, GONE, giving_up="lost"), End.OUTCOME_UNKNOWN, "lost"),
        (pair(DELIVERED, GONE, giving_up="lost"), End.FULFILLED, "lost"),
        (pair(DELIVERED, GONE), End.FULFILLED, ""),
        (
            pair(DELIVERED, FAILED, spec=SMS, items=items(sending=("sent", "failed"))),
            End.REFUNDED,
            "the provider took it back",
        ),
        (
            pair(DELIVERED, FAILED, spec=SMS, items=items(sending=("sent", "failed")), provider_text="odd"),
            End.REFUNDED,
            "odd",
        ),
        (prepaid(DELIVERED, CHARGED), End.FULFILLED, ""),
        (prepaid(REQUESTED, REFUSED, giving_up="no stock"), End.PROVIDER_REFUSED, "no stock"),
        (
            prepaid(REQUESTED, cancel_wanted_at_ms=NOW_MS),
            End.CANCELED_UNPAID,
            "canceled at your request before it was paid",
        ),
        (
            pair(AWAITING, NONE, cancel_wanted_at_ms=NOW_MS),
            End.CANCELED_UNPAID,
            "canceled at your request before it was paid",
        ),
        (pair(AWAITING, NONE, giving_up="no time"), End.PAYMENT_FAILED, "no time"),
        (order(giving_up="no time"), End.PAYMENT_FAILED, "no time"),
        (
            pair(AWAITING, FAILED, giving_up="no time", unpaid_since_ms=NOW_MS, diagnosis=TOO_DEAR),
            End.PAYMENT_FAILED,
            "no time; a route exists at 37 sat",
        ),
        (pair(AWAITING, SETTLED, spec=FUND), End.FULFILLED, ""),
        (pair(PAID, SETTLED, spec=FUND), End.FULFILLED, ""),
    ],
)
def test_an_order_whose_halves_are_both_over_ends_with_the_next_word(found: Order, end: End, reason: str) -> None:
    after = step(found, ev.TrackingLost("gone"))
    assert (after.end, after.reason, after.closed_at_ms) == (end, reason, LATER_MS)


@pytest.mark.parametrize(
    "found",
    [
        pair(AWAITING, FAILED, giving_up="no time"),
        prepaid(REQUESTED, REFUSED),
        prepaid(REQUESTED, LOST, giving_up="no time"),
        pair(DELIVERED, SETTLED, spec=SMS, items=items(sending=("sent",))),
        pair(DELIVERED, SETTLED, spec=RENTAL, code=None),
        pair(PAID, SETTLED),
    ],
)
def test_an_order_of_which_more_is_to_be_said_stays_open(found: Order) -> None:
    assert not step(found, ev.TrackingLost("gone")).is_closed


def test_a_rented_number_that_the_account_paid_for_is_delivered_unless_a_cancel_may_come_first() -> None:
    rented = prepaid(NUMBER, CHARGED, spec=RENTAL)
    assert step(rented, ev.TimePassed()).state is DELIVERED
    wished = replace(rented, cancel_wanted_at_ms=NOW_MS, cancel_at_ms=NOW_MS + 10 * S)
    until_ms = NOW_MS + 1260 * S
    assert step(wished, ev.TimePassed(), until_ms - 1).state is NUMBER
    assert step(wished, ev.TimePassed(), until_ms).state is DELIVERED
    unfound = prepaid(PAID, CHARGED, spec=RENTAL)
    assert step(unfound, ev.TimePassed()).state is PAID


def test_a_clock_that_was_set_back_before_a_restart_moves_the_waits_and_is_noted() -> None:
    found = pair(PAID, IN_FLIGHT, state_since_ms=LATER_MS + HOUR)
    done = decided(found, ev.DaemonRestarted())
    assert done.notes == ("the wall clock was set back by 60 min or more; the waits go on as they were",)
    assert done.order.state_since_ms == LATER_MS
    assert done.order.pay_by_ms == found.pay_by_ms - HOUR
    assert decided(pair(PAID, IN_FLIGHT), ev.DaemonRestarted()).notes == ()


# --- the account ----------------------------------------------------------------------------------------------------


def test_the_intent_to_charge_is_recorded_whole() -> None:
    found = prepaid(REQUESTED)
    assert step(found, ev.ChargeIntended(10_000)) == replace(
        found, charge=charge(INTENDED, since_ms=LATER_MS, intended_at_ms=LATER_MS)
    )
    unquoted = replace(found, quote_sat=None)
    after = step(unquoted, ev.ChargeIntended(None)).charge
    assert after == Charge(since_ms=LATER_MS, amount_sat=2_040, balance_before_sat=None, intended_at_ms=LATER_MS)


@pytest.mark.parametrize(
    "found", [order(), prepaid(REQUESTED, INTENDED), prepaid(REQUESTED, LOST), prepaid(PAID, CHARGED)]
)
def test_a_charge_without_a_license_is_a_contradiction(found: Order) -> None:
    with pytest.raises(InvariantViolation):
        step(found, ev.ChargeIntended(10_000))


@pytest.mark.parametrize(
    "found",
    [
        prepaid(REQUESTED, place_at_ms=LATER_MS + 1),
        prepaid(REQUESTED, pay_by_ms=LATER_MS, giving_up="no time", quarantined_at_ms=NOW_MS),
        quarantined(prepaid(REQUESTED)),
    ],
)
def test_an_intent_that_comes_too_soon_or_too_late_charges_nothing(found: Order) -> None:
    assert step(found, ev.ChargeIntended(10_000)).charge is None


def test_the_account_is_charged_from_the_time_of_placing_until_the_time_to_pay() -> None:
    found = prepaid(REQUESTED)
    at_ms = [found.place_at_ms - 1, found.place_at_ms, found.pay_by_ms - 1, found.pay_by_ms]
    assert [may_charge(found, each) for each in at_ms] == [False, True, True, False]


def test_what_the_account_was_charged_for_goes_on_as_paid() -> None:
    for state in (INTENDED, LOST):
        found = prepaid(REQUESTED, state)
        assert step(found, ev.OrderPlaced(HASH, None)) == replace(
            found,
            state=PAID,
            state_since_ms=LATER_MS,
            provider_order_id=HASH,
            charge=charge(CHARGED, since_ms=LATER_MS),
        )
    with pytest.raises(InvariantViolation):
        step(prepaid(REQUESTED, REFUSED), ev.OrderPlaced(HASH, None))


def test_a_placing_of_which_nothing_is_sure_is_an_unknown_charge_and_is_not_tried_again() -> None:
    found = prepaid(REQUESTED, INTENDED)
    lost = step(found, ev.PlacingFailed("timeout", may_retry=True, is_sure=False))
    assert lost == replace(found, place_count=1, provider_text="timeout", charge=charge(LOST, since_ms=LATER_MS))
    said_no = step(found, ev.PlacingFailed("no", may_retry=True))
    assert said_no == replace(
        found,
        place_count=1,
        provider_text="no",
        place_at_ms=LATER_MS + 5 * S,
        charge=charge(REFUSED, since_ms=LATER_MS),
    )


def test_a_restart_makes_a_charge_that_was_begun_unknown_and_begins_every_proof_anew() -> None:
    begun = prepaid(REQUESTED, INTENDED)
    assert step(begun, ev.DaemonRestarted()).charge == charge(LOST, since_ms=LATER_MS)
    proving = prepaid(REQUESTED, LOST, unmoved_since_ms=NOW_MS)
    assert step(proving, ev.DaemonRestarted()).charge == charge(LOST)
    assert step(prepaid(REQUESTED), ev.DaemonRestarted()) == prepaid(REQUESTED)


def test_a_balance_proves_by_two_looks_half_a_minute_apart_that_nothing_was_spent() -> None:
    seen = ev.BalanceSeen(10_000, is_alone=True)
    once = step(prepaid(REQUESTED, LOST), seen, NOW_MS)
    assert once.charge == charge(LOST, unmoved_since_ms=NOW_MS)
    assert step(once, seen, NOW_MS) == once
    assert step(once, seen, NOW_MS + 30 * S - 1) == once
    twice = step(once, seen, NOW_MS + 30 * S)
    assert twice.charge == charge(REFUSED, since_ms=NOW_MS + 30 * S)
    assert twice.reason == "the order did not reach the provider: the account's balance is what it was"
    ahead = prepaid(REQUESTED, LOST, unmoved_since_ms=NOW_MS + HOUR)
    assert step(ahead, seen, NOW_MS).charge == charge(LOST, unmoved_since_ms=NOW_MS)
    for moved in (ev.BalanceSeen(9_999, is_alone=True), ev.BalanceSeen(10_000, is_alone=False)):
        assert step(once, moved, NOW_MS + 30 * S).charge == charge(LOST)


@pytest.mark.parametrize(
    "found",
    [prepaid(REQUESTED), prepaid(REQUESTED, REFUSED), prepaid(PAID, CHARGED), quarantined(prepaid(REQUESTED, LOST))],
)
def test_a_balance_says_nothing_where_no_charge_is_unknown(found: Order) -> None:
    assert step(found, ev.BalanceSeen(10_000, is_alone=True)) == found


def said(resolution: ev.Resolution) -> ev.Resolved:
    return ev.Resolved(resolution, by="ann", why="saw the page")


@pytest.mark.parametrize(
    ("found", "resolution", "state", "charged", "end"),
    [
        (prepaid(REQUESTED, LOST), ev.Resolution.FAILED, ABANDONED, REFUSED, End.PROVIDER_REFUSED),
        (prepaid(REQUESTED, LOST), ev.Resolution.SETTLED, ABANDONED, CHARGED, End.CHARGED_UNFULFILLED),
        (prepaid(REQUESTED, LOST), ev.Resolution.WRITTEN_OFF, ABANDONED, LOST, End.OUTCOME_UNKNOWN),
        (prepaid(REQUESTED, INTENDED), ev.Resolution.FAILED, ABANDONED, REFUSED, End.PROVIDER_REFUSED),
        (quarantined(prepaid(DELIVERED, CHARGED)), ev.Resolution.FAILED, DELIVERED, REFUSED, End.FULFILLED_FREE),
        (quarantined(prepaid(DELIVERED, CHARGED)), ev.Resolution.SETTLED, DELIVERED, CHARGED, End.FULFILLED),
        (quarantined(prepaid(DELIVERED, CHARGED)), ev.Resolution.WRITTEN_OFF, DELIVERED, LOST, End.FULFILLED),
        (quarantined(prepaid(REQUESTED)), ev.Resolution.SETTLED, ABANDONED, None, End.PROVIDER_REFUSED),
        (quarantined(prepaid(DELIVERED)), ev.Resolution.FAILED, DELIVERED, None, End.FULFILLED_FREE),
    ],
)
def test_an_operator_s_word_ends_an_order_of_the_account(
    found: Order, resolution: ev.Resolution, state: OrderState, charged: ChargeState | None, end: End
) -> None:
    done = decided(found, said(resolution))
    after = done.order
    reason = f"ann resolved the charge as {resolution.value.replace('_', ' ')}: saw the page"
    assert (after.state, after.state_since_ms, after.end) == (state, LATER_MS, end)
    assert (after.reason, after.giving_up, done.notes) == (reason, reason, (reason,))
    if charged is None:
        assert after.charge is None
    else:
        assert after.charge == charge(charged, since_ms=LATER_MS)


@pytest.mark.parametrize("found", [prepaid(REQUESTED), prepaid(REQUESTED, REFUSED), prepaid(PAID, CHARGED)])
def test_an_operator_has_nothing_to_say_where_all_is_known(found: Order) -> None:
    assert decided(found, said(ev.Resolution.FAILED)) == Step(found, is_change=False)


# --- sums -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "locked_msat", "spent_msat", "reserved_msat"),
    [
        (order(), 0, 0, 2_060_000),
        (pair(AWAITING, NONE), 0, 0, 2_020_000),
        (pair(AWAITING, DISPATCHING), 2_010_000, 0, 2_020_000),
        (pair(AWAITING, IN_FLIGHT), 2_001_002, 0, 2_020_000),
        (pair(PAID, SETTLED), 0, 2_001_002, 2_001_002),
        (pair(PAID, SETTLED, is_paid_before=True), 0, 0, 0),
        (pair(CANCELED, GONE), 0, 2_001_002, 2_001_002),
        (pair(CANCELED, FAILED, closed_at_ms=NOW_MS), 0, 0, 0),
        (pair(CANCELED, FAILED), 0, 0, 2_020_000),
        (prepaid(REQUESTED), 0, 0, 2_040_000),
        (prepaid(REQUESTED, INTENDED), 0, 2_000_000, 2_000_000),
        (prepaid(REQUESTED, LOST), 0, 2_000_000, 2_000_000),
        (prepaid(PAID, CHARGED), 0, 2_000_000, 2_000_000),
        (prepaid(REQUESTED, REFUSED), 0, 0, 2_040_000),
        (prepaid(REQUESTED, REFUSED, closed_at_ms=NOW_MS), 0, 0, 0),
        (prepaid(CANCELED, RETURNED), 0, 2_000_000, 2_000_000),
        (prepaid(CANCELED, RETURNED, closed_at_ms=NOW_MS), 0, 0, 0),
    ],
)
def test_every_sum_of_an_order_follows_from_where_it_stands(
    found: Order, locked_msat: int, spent_msat: int, reserved_msat: int
) -> None:
    assert (found.locked_msat, found.spent_msat, found.reserved_msat) == (locked_msat, spent_msat, reserved_msat)


def test_what_was_delivered_is_read_off_the_items() -> None:
    found = order(number=("1", "2", "3"), code=("7", "8", "9"))
    assert (found.number, found.earlier_numbers) == ("3", ("1", "2"))
    assert (found.code, found.later_codes) == ("7", ("8", "9"))
    bare = order()
    assert (bare.number, bare.earlier_numbers, bare.code, bare.later_codes, bare.unread) == (None, (), None, (), ())
    assert order(unread_maybe="maybe").unread == ("maybe",)
    assert order(unread="sure", unread_maybe="maybe").unread == ("sure", "maybe")
    code, later = items(code=("07", "8"))
    assert replace(bare, items=(replace(code, may_lack_zeros=True), later)).code_may_lack_zeros
    assert not replace(bare, items=(code, replace(later, may_lack_zeros=True))).code_may_lack_zeros
