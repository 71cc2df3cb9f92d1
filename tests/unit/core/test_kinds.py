"""What each kind of order delivers, when it is fulfilled, and what comes after."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdpay.core import events as ev
from holdpay.core.asking import Learned, next_question
from holdpay.core.duties import Duty, duties
from holdpay.core.events import SendStatus
from holdpay.core.explain import alarms, explain
from holdpay.core.items import MAX_MESSAGES, ItemKind, Keeper, texts
from holdpay.core.kinds import AnySpec, CodeSpec
from holdpay.core.kinds.message import FOLLOW_S
from holdpay.core.kinds.rental import LONGER_S, WEEK_S
from holdpay.core.machine import decide
from holdpay.core.model import Order
from holdpay.core.states import End, HtlcState, OrderState
from tests.unit.build import (
    EMAIL,
    FUND,
    NOW_MS,
    POLICY,
    RENTAL,
    SMS,
    SPEC,
    S,
    failed,
    looked,
    pair,
    refunded,
    replied,
    settled,
)

AWAITING, PAID, NUMBER, DELIVERED = (
    OrderState.AWAITING_PAYMENT,
    OrderState.PAID,
    OrderState.NUMBER_ASSIGNED,
    OrderState.DELIVERED,
)
IN_FLIGHT, SETTLED = HtlcState.IN_FLIGHT, HtlcState.SETTLED


def run(found: Order, *events: ev.Event | tuple[int, ev.Event]) -> Order:
    """Each event at NOW_MS, or so many seconds after it."""
    for given in events:
        at_s, event = given if isinstance(given, tuple) else (0, given)
        found = decide(found, event, POLICY, NOW_MS + at_s * S).order
    return found


def of(spec: AnySpec, state: OrderState = AWAITING, htlc: HtlcState = IN_FLIGHT, **changes: object) -> Order:
    """An order of this kind; nothing was delivered yet."""
    return pair(state, htlc, spec=spec, **{"number": None, "code": None, **changes})


def said(status: SendStatus, *, paid: bool = True) -> ev.ProviderReplied:
    return replied(paid=paid, send_status=status)


# --- SMS and e-mail -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [SMS, EMAIL], ids=["SMS", "e-mail"])
def test_a_message_is_fulfilled_when_it_is_sent_and_followed_until_it_is_delivered(spec: AnySpec) -> None:
    created = run(of(spec), said(SendStatus.CREATED))
    assert (created.state, created.is_closed) == (PAID, False)
    sent = run(created, said(SendStatus.SENT), settled())
    assert (sent.state, sent.htlc, sent.is_closed) == (DELIVERED, SETTLED, False)
    assert duties(sent) == {Duty.POLL}
    delivered = run(sent, said(SendStatus.DELIVERED))
    assert delivered.end is End.FULFILLED
    assert texts(delivered.items, ItemKind.SENDING) == ("created", "sent", "delivered")


def test_a_message_that_is_never_called_delivered_is_followed_for_an_hour_and_was_fulfilled_all_the_same() -> None:
    sent = run(of(SMS), said(SendStatus.SENT), settled())
    assert not run(sent, (FOLLOW_S - 1, ev.TimePassed())).is_closed
    assert run(sent, (FOLLOW_S, ev.TimePassed())).end is End.FULFILLED


def test_the_settlement_of_a_message_that_was_delivered_ends_it_with_the_next_pass() -> None:
    found = run(of(SMS), said(SendStatus.DELIVERED), settled(), (1, ev.TimePassed()))
    assert found.end is End.FULFILLED


def test_a_message_that_failed_is_over_and_its_money_comes_back() -> None:
    failed_to_send = run(of(SMS), said(SendStatus.FAILED))
    assert failed_to_send.state is OrderState.CANCELED
    assert run(failed_to_send, refunded()).end is End.REFUNDED


def test_a_message_that_failed_after_it_was_sent_stays_charged_and_says_so() -> None:
    found = run(of(SMS), said(SendStatus.SENT), settled(), said(SendStatus.FAILED))
    assert (found.end, found.spent_msat) == (End.FULFILLED, 2_001_002)
    assert texts(found.items, ItemKind.SENDING)[-1] == "failed"


def test_a_message_that_was_sent_and_failed_and_whose_money_came_back_is_refunded() -> None:
    found = run(of(SMS), said(SendStatus.SENT), said(SendStatus.FAILED), refunded())
    assert (found.end, found.spent_msat) == (End.REFUNDED, 0)


def test_a_paid_message_cannot_be_canceled_and_one_that_is_not_paid_can() -> None:
    paid = of(SMS, PAID)
    assert run(paid, ev.CancelRequested()) == paid
    unpaid = of(SMS, AWAITING, HtlcState.NONE)
    assert run(unpaid, ev.CancelRequested()).end is End.CANCELED_UNPAID


def test_the_alarm_about_a_slow_message_says_that_the_measure_is_ours() -> None:
    late_ms = NOW_MS + (POLICY.promise_s + POLICY.alarm_refund_s + 1) * S
    (alarm,) = alarms(of(SMS, PAID), POLICY, late_ms)
    assert "our own measure" in alarm
    assert "promise" not in alarm
    assert "promises no time" in explain(of(SMS, PAID), POLICY, NOW_MS).next


def test_a_sending_that_goes_back_and_forth_does_not_fill_the_disk() -> None:
    found = of(SMS, PAID)
    for _ in range(50):
        found = run(found, said(SendStatus.CREATED), said(SendStatus.SENT))
    assert len(found.items) <= 10


def test_a_message_that_is_sent_after_much_back_and_forth_is_known_as_sent() -> None:
    found = of(SMS, PAID)
    for _ in range(50):
        found = run(found, said(SendStatus.CREATED), said(SendStatus.FAILED))
    found = run(found, said(SendStatus.SENT))
    assert (found.state, found.spec.is_delivered(found.items)) == (DELIVERED, True)


def test_the_message_and_its_recipient_are_no_part_of_what_is_kept_for_ever() -> None:
    assert (SMS.without_secrets().phone, SMS.without_secrets().message) == ("", "")
    assert replace(SMS, webhook_url="https://a.example").without_secrets().webhook_url is None
    assert (EMAIL.without_secrets().address, EMAIL.without_secrets().message) == ("", "")
    assert "+1987" not in SMS.without_secrets().what


# --- codes ----------------------------------------------------------------------------------------------------------


def test_a_code_order_that_is_answered_with_the_sms_itself_hands_it_over() -> None:
    found = run(of(SPEC, NUMBER), replied(paid=True, messages=("Your code is 048010.", "again 7")), settled())
    assert (found.end, found.code, found.later_codes) == (End.FULFILLED, "Your code is 048010.", ("again 7",))
    both = run(of(SPEC, NUMBER), replied(paid=True, code="048010", messages=("Your code is 048010.",)))
    assert (both.code, both.later_codes) == ("048010", ())


@pytest.mark.parametrize("said", ["pending", "no SMS yet"])
def test_a_word_in_place_of_the_sms_is_no_code_and_is_shown_to_the_buyer(said: str) -> None:
    found = run(of(SPEC, NUMBER), replied(paid=True, number="15551234567", messages=(said,)))
    assert (found.state, found.code, found.unread) == (NUMBER, None, said)
    assert run(found, replied(paid=True, messages=("Your code is 048010.",))).code == "Your code is 048010."


# --- rentals --------------------------------------------------------------------------------------------------------


def rented(**changes: object) -> Order:
    """Paid for, with its number."""
    return run(of(RENTAL, NUMBER, IN_FLIGHT, number="447700900123", **changes), settled())


def test_a_rental_is_fulfilled_when_it_is_settled_and_stays_open_until_it_ends() -> None:
    found = rented()
    assert (found.state, found.is_closed, found.number) == (DELIVERED, False, "447700900123")
    end_s = 2 * WEEK_S + LONGER_S
    assert not run(found, (end_s - 1, ev.TimePassed())).is_closed
    assert run(found, (end_s, ev.TimePassed())).end is End.FULFILLED


def test_a_rental_that_settles_before_its_number_comes_waits_for_it() -> None:
    found = run(of(RENTAL, PAID), settled())
    assert (found.state, found.is_closed) == (PAID, False)
    found = run(found, replied(paid=True, number="447700900123"))
    assert (found.state, found.is_closed) == (DELIVERED, False)


def test_a_rental_is_not_closed_by_its_first_message() -> None:
    found = run(rented(), replied(paid=True, number="447700900123", messages=("one",)))
    assert not found.is_closed
    assert duties(found) == {Duty.POLL}


def test_a_message_before_the_settlement_fulfils_a_rental_and_the_settlement_is_waited_for() -> None:
    found = run(of(RENTAL, NUMBER, number="447700900123"), replied(paid=True, messages=("one",)))
    assert (found.state, found.htlc, found.is_closed) == (DELIVERED, IN_FLIGHT, False)
    assert not run(found, settled()).is_closed


def test_each_message_of_a_list_is_an_item_once_whatever_order_the_replies_come_in() -> None:
    found = run(
        rented(),
        replied(paid=True, messages=("one",)),
        replied(paid=True, messages=("one", "two", "two")),
        replied(paid=True, messages=("one",)),
        replied(paid=True, messages=("two", "one", "two", "three")),
    )
    assert texts(found.items, ItemKind.MESSAGE) == ("one", "two", "two", "three")


def test_a_code_that_changes_is_a_message_each_time() -> None:
    found = run(rented(), *(replied(paid=True, number="447700900123", code=code) for code in ("11", "22", "11", "33")))
    assert texts(found.items, ItemKind.MESSAGE) == ("11", "22", "33")


def test_a_code_that_is_in_the_list_is_no_message_of_its_own() -> None:
    found = run(rented(), replied(paid=True, code="123456", messages=("Your code is 123456.",)))
    assert texts(found.items, ItemKind.MESSAGE) == ("Your code is 123456.",)


@pytest.mark.parametrize(
    ("code", "message", "is_one"),
    [
        ("1234", "Call 0712345678 now", False),
        ("1234", "1234567", False),
        ("1234", "5551234", False),
        ("1234", "5551234 is not 1234", True),
        ("1234", "G-1234.", True),
        ("G-1234", "G-1234.", True),
        ("123 456", "Your code is 123 456", True),
        ("123-456", "Your code: 123-456!", True),
        ("123 456", "1123 456", False),
        ("1234", "您的验证码1234请勿泄露", True),
        ("AB12", "xAB123", False),
        ("AB12", "(AB12)", True),
        ("a+b", "a+b", True),
    ],
)
def test_a_code_is_that_of_a_message_if_it_is_a_word_of_it(code: str, message: str, is_one: bool) -> None:
    found = run(rented(), replied(paid=True, code=code, messages=(message,)))
    assert texts(found.items, ItemKind.MESSAGE) == ((message,) if is_one else (message, code))


def test_a_list_that_has_its_last_messages_only_loses_and_repeats_none() -> None:
    said = [f"message {number}" for number in range(9)]
    found = run(rented(), *(replied(paid=True, messages=tuple(said[max(0, end - 3) : end])) for end in range(1, 10)))
    assert texts(found.items, ItemKind.MESSAGE) == tuple(said)


def test_the_number_of_messages_has_a_bound_which_is_noted() -> None:
    keeper = Keeper((), NOW_MS)
    keeper.messages(str(n) for n in range(MAX_MESSAGES + 5))
    assert len(keeper.items) == MAX_MESSAGES
    assert "no more are kept" in keeper.notes[0]


def test_a_rental_whose_record_lnd_lost_goes_on_to_its_end() -> None:
    gone = run(of(RENTAL, NUMBER, number="447700900123"), ev.PaymentNotFound())
    found = run(gone, *((at_s, looked(900_000)) for at_s in (1, 2, 2 + POLICY.prove_absent_s)))
    assert (found.state, found.htlc, found.is_closed) == (DELIVERED, HtlcState.GONE, False)
    assert found.spent_msat > 0
    assert run(found, (2 * WEEK_S + LONGER_S, ev.TimePassed())).end is End.FULFILLED


def test_an_error_does_not_end_a_rental_that_is_paid_for() -> None:
    found = run(rented(), replied(paid=True, error="internal error"))
    assert (found.state, found.is_closed) == (DELIVERED, False)


def test_a_rental_that_comes_back_before_it_has_a_number_is_refunded() -> None:
    assert run(of(RENTAL, PAID), replied(paid=True, error="No available number"), refunded()).end is End.REFUNDED


def test_a_rental_is_asked_for_minutes_apart_and_sooner_after_a_message() -> None:
    hour_ms = NOW_MS + 3600 * S
    quiet = rented()
    assert next_question(quiet, hour_ms, POLICY, hour_ms, learned=Learned()).at_ms == hour_ms + 300 * S
    lively = run(quiet, (3600, replied(paid=True, messages=("one",))))
    assert next_question(lively, hour_ms, POLICY, hour_ms, learned=Learned()).at_ms == hour_ms + 15 * S


def test_a_rental_whose_message_came_without_its_number_stays_open_all_the_same() -> None:
    found = run(of(RENTAL, PAID, SETTLED), replied(paid=True, messages=("one",)))
    assert (found.state, found.is_closed) == (DELIVERED, False)
    ends_s = 2 * WEEK_S + LONGER_S
    assert not run(found, (ends_s - 1, ev.TimePassed())).is_closed
    assert run(found, (ends_s, ev.TimePassed())).end is End.FULFILLED


def test_a_reply_that_makes_no_sense_is_kept_of_a_rental_that_has_a_message_already() -> None:
    found = run(of(RENTAL, PAID, SETTLED), replied(paid=True, number="1555", messages=("one",)))
    confused = ev.ProviderConfused("not JSON", unread="<sms>two</sms>")
    assert run(found, confused).unread == "<sms>two</sms>"


def test_a_rental_that_a_client_follows_is_asked_for_every_few_seconds() -> None:
    hour_ms = NOW_MS + 3600 * S
    assert (
        next_question(rented(), hour_ms, POLICY, hour_ms, is_watched=True, learned=Learned()).at_ms == hour_ms + 5 * S
    )


# --- money for the account ------------------------------------------------------------------------------------------


def test_money_for_the_account_is_there_when_the_hold_invoice_settles() -> None:
    assert run(of(FUND, AWAITING), settled()).end is End.FULFILLED
    assert run(of(FUND, PAID), settled()).end is End.FULFILLED
    assert run(of(FUND, PAID), failed(live=False), refunded()).state is not DELIVERED


def test_an_error_in_the_status_of_money_for_the_account_is_no_word_about_it() -> None:
    held = run(of(FUND, PAID), replied(paid=True, error="not found"))
    assert held.state is PAID
    assert run(held, settled()).end is End.FULFILLED


# --- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [SPEC, RENTAL, SMS, EMAIL, FUND], ids=lambda spec: spec.kind.value)
def test_every_kind_says_what_it_is_and_what_comes_next(spec: AnySpec) -> None:
    found = of(spec, PAID)
    told = explain(found, POLICY, NOW_MS)
    assert spec.what in told.summary
    assert told.next.startswith(spec.comes_next(found))
    code_words = [] if isinstance(spec, CodeSpec) else ["code"]
    assert not any(word in f"{told.summary} {told.next}" for word in code_words)


@pytest.mark.parametrize("spec", [SPEC, RENTAL, SMS, EMAIL], ids=lambda spec: spec.kind.value)
def test_only_an_order_from_the_account_asks_for_its_money_at_once(spec: AnySpec) -> None:
    on_invoice, on_account = spec.placing(is_prepaid=False), spec.placing(is_prepaid=True)
    assert not on_invoice.needs_key
    assert "immediate" not in on_invoice.body
    assert on_account.needs_key
    assert on_account.body == {**on_invoice.body, "immediate": True}
