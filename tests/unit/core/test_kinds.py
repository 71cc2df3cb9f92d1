"""What each kind of order delivers, when it is fulfilled, and what comes after."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdpay.core import events as ev
from holdpay.core.asking import Learned, next_question
from holdpay.core.duties import Duty, duties
from holdpay.core.events import SendStatus
from holdpay.core.explain import explain
from holdpay.core.guard import alarms
from holdpay.core.items import MAX_MESSAGES, MAX_OTHERS, ItemKind, Keeper, texts
from holdpay.core.kinds import AnySpec, CodeSpec, RentalSpec
from holdpay.core.kinds.message import FOLLOW_S
from holdpay.core.kinds.rental import LONGER_S, WEEK_S
from holdpay.core.machine import decide
from holdpay.core.model import Order
from holdpay.core.states import End, HtlcState, OrderState
from tests.unit.build import (
    EMAIL,
    FUND,
    HOUR,
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
    for each in events:
        at_s, event = each if isinstance(each, tuple) else (0, each)
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
    late_ms = NOW_MS + (POLICY.promise_s + POLICY.guard_refund_s + 1) * S
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


def test_the_whole_sms_of_a_code_that_is_known_is_no_other_code_and_is_kept_beside_it() -> None:
    found = run(of(SPEC, NUMBER), replied(paid=True, code="048010"))
    text = replied(paid=True, messages=("Your code is 048010. https://example.com/x",))
    found = run(found, text, replied(paid=True, code="048010"), text)
    assert (found.code, found.later_codes) == ("048010", ())
    assert texts(found.items, ItemKind.MESSAGE) == ("Your code is 048010. https://example.com/x",)


def test_the_code_of_an_sms_that_is_handed_over_already_is_no_other_code() -> None:
    found = run(of(SPEC, NUMBER), replied(paid=True, messages=("Your code is 048010.",)))
    again = decide(found, replied(paid=True, code="048010"), POLICY, NOW_MS)
    assert (again.order.later_codes, again.notes) == ((), ())
    another = run(found, replied(paid=True, code="48010"))
    assert another.later_codes == ("48010",)
    number = run(found, replied(paid=True, code="48010", code_may_lack_zeros=True))
    assert number.later_codes == ()


def test_another_sms_beside_a_code_is_another_code() -> None:
    found = run(of(SPEC, NUMBER), replied(paid=True, code="4801", messages=("Code: 4801", "New code: 9999")))
    assert (found.code, found.later_codes) == ("4801", ("New code: 9999",))


def test_so_many_whole_messages_of_one_code_are_kept_and_no_more() -> None:
    found = run(of(SPEC, NUMBER), *(replied(paid=True, code="4801", messages=(f"4801 {n}",)) for n in range(50)))
    assert len(texts(found.items, ItemKind.MESSAGE)) == MAX_OTHERS + 1


@pytest.mark.parametrize("said", ["pending", "no SMS yet"])
def test_a_word_in_place_of_the_sms_is_no_code_and_is_shown_to_the_buyer(said: str) -> None:
    found = run(of(SPEC, NUMBER), replied(paid=True, number="15551234567", messages=(said,)))
    assert (found.state, found.code, found.unread) == (NUMBER, None, (said,))
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


def test_a_list_that_has_its_last_messages_only_and_the_same_text_again_loses_and_repeats_none() -> None:
    """Codes repeat, and so do "hello" and "OK"."""
    said = ["a 1", "b 2", "c 3", "a 1", "b 2", "b 2", "d 4", "c 3", "a 1", "a 1"]
    for is_newest_first in (False, True):
        found = rented()
        for end in range(1, len(said) + 1):
            window = said[max(0, end - 4) : end]
            told = replied(paid=True, messages=tuple(window[::-1] if is_newest_first else window))
            found = run(found, told, told)
        assert texts(found.items, ItemKind.MESSAGE) == tuple(said)


@given(st.data(), st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f"]), max_size=12), st.booleans())
def test_of_a_whole_list_none_is_lost_and_none_kept_twice_however_late_and_stale_its_replies_are(
    data: st.DataObject, said: list[str], is_newest_first: bool
) -> None:
    # Of the same text twice in a list with its newest first nobody knows which came when.
    said = list(dict.fromkeys(said)) if is_newest_first else said
    found, latest = rented(), 0
    for _ in range(data.draw(st.integers(1, 6))):
        end = data.draw(st.integers(0, len(said)))
        latest = max(latest, end)
        found = run(found, replied(paid=True, messages=tuple(said[:end][::-1] if is_newest_first else said[:end])))
    assert Counter(texts(found.items, ItemKind.MESSAGE)) == Counter(said[:latest])


@given(st.lists(st.integers(1, 3), max_size=8), st.integers(4, 6))
def test_of_a_list_that_shows_its_last_messages_none_is_lost_or_kept_twice_if_they_differ(
    arrivals: list[int], width: int
) -> None:
    """With up to three new ones between two replies."""
    found, count = rented(), 0
    for new in arrivals:
        count += new
        found = run(found, replied(paid=True, messages=tuple(f"n {n}" for n in range(max(0, count - width), count))))
    assert texts(found.items, ItemKind.MESSAGE) == tuple(f"n {n}" for n in range(count))


def test_two_new_messages_at_the_head_of_a_list_are_kept_in_the_order_in_which_they_came() -> None:
    found = run(rented(), replied(paid=True, messages=("one",)), replied(paid=True, messages=("three", "two", "one")))
    assert texts(found.items, ItemKind.MESSAGE) == ("one", "two", "three")


def test_a_code_and_the_whole_text_that_comes_later_are_one_message() -> None:
    found = run(rented(), replied(paid=True, code="123456"), replied(paid=True, code="7777"))
    whole = replied(paid=True, messages=("Your code is 123456.", "Hello"))
    found = run(found, whole, whole, replied(paid=True, code="123456"))
    assert texts(found.items, ItemKind.MESSAGE) == ("Your code is 123456.", "7777", "Hello")


def test_a_code_that_came_as_a_number_and_the_text_with_its_zeros_are_one_message() -> None:
    number = replied(paid=True, code="48010", code_may_lack_zeros=True)
    text = replied(paid=True, messages=("048010 is your code",))
    for events in ((number, text), (text, number), (number, text, number)):
        assert texts(run(rented(), *events).items, ItemKind.MESSAGE) == ("048010 is your code",)


@pytest.mark.parametrize(
    ("first", "second"), [("Hello", "Hello again"), ("8", "See you at 8"), ("Be there at 8", "Be there at 8 or 9")]
)
def test_a_message_that_begins_another_is_one_of_its_own(first: str, second: str) -> None:
    found = run(rented(), replied(paid=True, messages=(first,)), replied(paid=True, messages=(second,)))
    assert texts(found.items, ItemKind.MESSAGE) == (first, second)


def test_a_code_that_the_list_has_by_itself_is_another_message_than_the_text_with_it() -> None:
    found = run(rented(), replied(paid=True, code="1234"), replied(paid=True, messages=("1234", "Not 1234 but 5678")))
    assert texts(found.items, ItemKind.MESSAGE) == ("1234", "Not 1234 but 5678")


def test_each_message_that_cannot_be_read_is_kept() -> None:
    found = run(rented(), replied(paid=True, unread=("{1}",)), replied(paid=True, unread=("{1}", "{2}", "{3}")))
    assert found.unread == ("{1}", "{2}", "{3}")


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
    assert run(found, confused).unread == ("<sms>two</sms>",)


def test_after_its_end_a_rental_is_asked_for_a_day_longer_and_less_often() -> None:
    found = rented()
    late_ms = NOW_MS + (2 * WEEK_S + 60) * S
    assert found.spec.is_followed(found, POLICY, late_ms)
    assert found.spec.follow_poll_s(found, POLICY, late_ms) == 900


def test_the_providers_word_on_the_end_of_a_rental_is_shown_and_makes_it_longer_but_never_shorter() -> None:
    later, sooner = NOW_MS + 13 * 24 * HOUR + 26 * HOUR, NOW_MS + HOUR
    for end_ms, closes_ms in ((later, later), (sooner, NOW_MS + 2 * WEEK_S * S)):
        found = run(rented(), replied(paid=True, number="447700900123", ends_at_ms=end_ms))
        assert isinstance(found.spec, RentalSpec)
        assert found.spec.ends_at_ms(found) == end_ms
        closes_s = (closes_ms - NOW_MS) // S + LONGER_S
        assert not run(found, (closes_s - 1, ev.TimePassed())).is_closed
        assert run(found, (closes_s, ev.TimePassed())).is_closed


@pytest.mark.parametrize("end_ms", [NOW_MS, NOW_MS - HOUR, NOW_MS + 2 * WEEK_S * S + 25 * HOUR, 2**53])
def test_an_end_of_a_rental_that_cannot_be_is_none(end_ms: int) -> None:
    found = run(rented(), replied(paid=True, number="447700900123", ends_at_ms=end_ms))
    assert found.items == rented().items


def test_an_end_of_a_rental_that_is_later_each_time_is_no_end() -> None:
    found = rented()
    for n in range(30):
        found = run(found, (n * 3600, replied(paid=True, ends_at_ms=NOW_MS + (n + 1) * HOUR)))
    assert texts(found.items, ItemKind.END) == (str(NOW_MS + HOUR),)


def test_a_rental_whose_number_came_under_a_clock_that_was_ahead_still_ends_in_its_time() -> None:
    year_s = 365 * 24 * 3600
    ahead = run(of(RENTAL, PAID), (year_s, replied(paid=True, number="447700900123")), (year_s, settled()))
    found = run(ahead, (60, ev.DaemonRestarted()))
    assert run(found, (60 + 2 * WEEK_S + LONGER_S, ev.TimePassed())).is_closed
    assert not run(found, (2 * WEEK_S + LONGER_S - 60, ev.TimePassed())).is_closed


def test_a_rental_whose_number_came_under_a_clock_that_was_a_day_behind_is_asked_for_until_its_end() -> None:
    day_s = 24 * 3600
    found = run(rented(), (day_s, ev.DaemonRestarted()))
    really_ends_s = day_s + 2 * WEEK_S
    assert not run(found, (really_ends_s - 1, ev.TimePassed())).is_closed


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
