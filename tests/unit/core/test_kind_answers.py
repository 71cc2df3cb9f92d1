"""What each kind answers for itself, word for word: what it orders, what it is called, when it is asked about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdpay.core.charge import ChargeState
from holdpay.core.events import ProviderStatus, SendStatus
from holdpay.core.items import MAX_OTHERS, MAX_STATES, Item, ItemKind, Keeper, texts, words
from holdpay.core.kinds import AnySpec
from holdpay.core.kinds.spec import Placing
from holdpay.core.lightning import AttemptStatus, HtlcLook, PaymentStatus
from holdpay.core.model import Order
from holdpay.core.states import HtlcState, OrderSignal, OrderState
from tests.unit.build import (
    EMAIL,
    FAILED_AT_PAYEE,
    FUND,
    HOUR,
    NOW_MS,
    POLICY,
    RENTAL,
    SMS,
    SPEC,
    S,
    attempt,
    items,
    order,
    pair,
    prepaid,
    update,
)

SETTLED = HtlcState.SETTLED
DELIVERED, PAID = OrderState.DELIVERED, OrderState.PAID
REF = "satoshi@example.com"
URL = "https://example.com/hook"


def status(**said: Any) -> ProviderStatus:
    return ProviderStatus(**{"is_paid": False, **said})


# --- how it is ordered ----------------------------------------------------------------------------------------------

CODE_BODY = {"country": 187, "service": "oi"}
RENTAL_BODY = {"country": 16, "service": "full", "isRental": True}
SMS_BODY = {"message": "See you at eight.", "phone": "+19871234567"}
EMAIL_BODY = {"message": "See you at eight.", "address": "satoshi@example.com"}


@pytest.mark.parametrize(
    ("spec", "path", "body"),
    [
        (SPEC, "/createorder", CODE_BODY),
        (replace(SPEC, country=0), "/createorder", {**CODE_BODY, "country": 0}),
        (replace(SPEC, is_real_phone=True, ref=REF), "/createorder", {**CODE_BODY, "realphone": True, "ref": REF}),
        (RENTAL, "/createorder", RENTAL_BODY),
        (replace(RENTAL, ref=REF), "/createorder", {**RENTAL_BODY, "ref": REF}),
        (SMS, "/createsendorder", SMS_BODY),
        (replace(SMS, webhook_url=URL), "/createsendorder", {**SMS_BODY, "webhookUrl": URL}),
        (EMAIL, "/createemailsendorder", EMAIL_BODY),
    ],
)
def test_an_order_is_placed_as_the_provider_documents_it(spec: AnySpec, path: str, body: dict[str, Any]) -> None:
    assert spec.placing(is_prepaid=False) == Placing(path=path, body=body, needs_key=False, is_prepaid=False)
    now = {**body, "immediate": True}
    assert spec.placing(is_prepaid=True) == Placing(path=path, body=now, needs_key=True, is_prepaid=True)


def test_money_for_the_account_is_ordered_with_its_key_and_never_from_the_account() -> None:
    assert FUND.placing(is_prepaid=False) == Placing(path="/fund", body={"amount": 2_000}, needs_key=True)


def test_only_what_is_sent_tells_by_a_webhook_and_a_url_of_the_client_stays() -> None:
    for spec in (SMS, EMAIL):
        assert spec.with_webhook(lambda: URL) == replace(spec, webhook_url=URL)
        assert replace(spec, webhook_url=REF).with_webhook(lambda: URL).webhook_url == REF
    for other in (SPEC, RENTAL, FUND):
        assert other.with_webhook(lambda: URL) == other
        assert other.webhook_url is None


def test_long_after_the_end_nothing_says_to_whom_what_was_sent() -> None:
    assert replace(SMS, webhook_url=URL).without_secrets() == replace(SMS, message="", phone="")
    assert replace(EMAIL, webhook_url=URL).without_secrets() == replace(EMAIL, message="", address="")
    for other in (SPEC, RENTAL, FUND):
        assert other.without_secrets() == other


# --- what it is called ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        (replace(SPEC, is_real_phone=True), "an activation code on a real phone for OpenAI in United States"),
        (RENTAL, "a number rented in England for 2 weeks"),
        (replace(RENTAL, weeks=1), "a number rented in England for 1 week"),
        (replace(RENTAL, weeks=None), "a number rented in England"),
        (
            replace(RENTAL, service="oi", service_name="OpenAI"),
            "a number rented in England for 2 weeks, for OpenAI",
        ),
        (replace(RENTAL, service="oi", service_name=""), "a number rented in England for 2 weeks, for oi"),
        (replace(RENTAL, country=None), "a rented number, nobody knows any more of which service and country"),
        (SMS, "an SMS to +19871234567"),
        (SMS.without_secrets(), "an SMS"),
        (EMAIL, "an e-mail to satoshi@example.com"),
        (EMAIL.without_secrets(), "an e-mail"),
        (FUND, "2,000 sat for the prepaid account"),
    ],
)
def test_what_is_bought_is_said_in_words(spec: AnySpec, what: str) -> None:
    assert spec.what == what


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (order(), "A number comes next, then the code."),
        (order(number="1555"), "Have the SMS sent to +1555: the code is handed over when it arrives."),
        (
            order(number=("1555", "1556", "1557")),
            "Have the SMS sent to +1557, no longer to +1556: the code is handed over when it arrives.",
        ),
        (order(spec=RENTAL), "A number comes next; messages to it are handed over as they come."),
        (order(spec=RENTAL, number="1555"), "The number is +1555: messages to it are handed over as they come."),
        (order(spec=SMS), "It is sent next, and charged only then."),
        (order(spec=FUND), "The provider credits the account and settles the hold invoice."),
    ],
)
def test_what_comes_while_the_money_is_held_is_said(found: Order, told: str) -> None:
    assert found.spec.comes_next(found) == told


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (order(), "The order closes now."),
        (order(spec=RENTAL), "Messages to the number are handed over as they come."),
        (
            order(spec=RENTAL, number="1555"),
            "Messages to +1555 are handed over as they come, until the rental ends.",
        ),
        (
            order(spec=SMS),
            "The provider is asked for up to 60 min whether it was delivered; then the order closes.",
        ),
    ],
)
def test_what_comes_after_the_delivery_is_said(found: Order, told: str) -> None:
    assert found.spec.after_delivery(found) == told


# --- what a reply means ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "said", "signal"),
    [
        (FUND, {"is_paid": True}, OrderSignal.PAID),
        (FUND, {}, OrderSignal.UNPAID),
        (FUND, {"is_paid": True, "error": "odd"}, OrderSignal.PAID),
        (SMS, {"send_status": SendStatus.SENT}, OrderSignal.FULFILLED),
        (SMS, {"send_status": SendStatus.DELIVERED}, OrderSignal.FULFILLED),
        (SMS, {"send_status": SendStatus.FAILED, "is_paid": True}, OrderSignal.OVER),
        (SMS, {"is_paid": True}, OrderSignal.PAID),
        (RENTAL, {"number": "1555", "is_paid": True}, OrderSignal.NUMBER),
        (RENTAL, {"number": "1555", "error": "odd"}, OrderSignal.OVER),
        (RENTAL, {"messages": ("hello",)}, OrderSignal.FULFILLED),
        (RENTAL, {"code": "123"}, OrderSignal.FULFILLED),
    ],
)
def test_a_reply_means_what_its_kind_says(spec: AnySpec, said: dict[str, Any], signal: OrderSignal) -> None:
    assert spec.signal(status(**said)) is signal


def test_what_is_bought_is_here_when_its_own_item_is() -> None:
    assert RENTAL.is_delivered(items(number="1555", messages=("hello",))) is True
    assert RENTAL.is_delivered(items(number="1555")) is False
    assert FUND.is_delivered(items(number="1555", code="1", messages=("2",), sending=("sent",))) is False
    assert SPEC.is_delivered(items(number="1555")) is False
    assert SPEC.is_delivered(items(code="1")) is True


def test_what_was_sent_is_taken_back_by_the_latest_word_only() -> None:
    assert SMS.is_taken_back(items(sending=("sent", "failed"))) is True
    assert SMS.is_taken_back(items(sending=("failed",))) is True
    assert SMS.is_taken_back(items(sending=("created", "failed", "sent"))) is False
    assert SPEC.is_taken_back(items(code="1")) is False


# --- what is followed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after_s", "wait_s"), [(0, 5), (20, 5), (24, 6), (100, 25), (1_200, 300), (1_204, 300), (3_600, 300)]
)
def test_what_was_sent_is_asked_about_less_and_less_often(after_s: int, wait_s: float) -> None:
    sent = pair(DELIVERED, SETTLED, spec=SMS)
    assert SMS.follow_poll_s(sent, POLICY, NOW_MS + after_s * S) == wait_s


def test_a_kind_that_is_over_with_its_delivery_is_not_followed() -> None:
    assert SPEC.is_followed(pair(DELIVERED, SETTLED), POLICY, NOW_MS) is False
    with pytest.raises(NotImplementedError):
        SPEC.follow_poll_s(pair(DELIVERED, SETTLED), POLICY, NOW_MS)


@pytest.mark.parametrize(
    ("after_ms", "wait_s"), [(-1, 300), (0, 15), (1, 15), (600 * S - 1, 15), (600 * S, 300), (HOUR, 300)]
)
def test_a_rental_is_asked_about_soon_for_ten_minutes_after_what_came_last(after_ms: int, wait_s: float) -> None:
    rented = pair(DELIVERED, SETTLED, spec=RENTAL, number="1555", code=None)
    assert RENTAL.follow_poll_s(rented, POLICY, NOW_MS + after_ms) == wait_s
    from_account = prepaid(DELIVERED, ChargeState.CHARGED, spec=RENTAL, number="1555", code=None)
    assert RENTAL.follow_poll_s(from_account, POLICY, NOW_MS + after_ms) == wait_s
    assert RENTAL.follow_poll_s(pair(PAID, HtlcState.IN_FLIGHT, spec=RENTAL, number="1555"), POLICY, NOW_MS) == 300


def test_a_rental_of_which_nothing_came_is_asked_about_seldom() -> None:
    assert RENTAL.follow_poll_s(pair(PAID, SETTLED, spec=RENTAL), POLICY, NOW_MS) == 300


# --- items ----------------------------------------------------------------------------------------------------------


def kept(keeper: Keeper, kind: ItemKind) -> tuple[str, ...]:
    return texts(keeper.items, kind)


def test_a_message_itself_may_be_a_code() -> None:
    assert "Ünïcode 7!" in words("Ünïcode 7!")
    assert "" not in words("7")


def test_one_number_too_many_is_not_followed_and_that_is_noted() -> None:
    keeper = Keeper((), NOW_MS)
    for number in range(MAX_OTHERS + 2):
        keeper.notes.clear()
        keeper.number(str(number))
    assert kept(keeper, ItemKind.NUMBER) == tuple(map(str, range(MAX_OTHERS + 1)))
    assert len(keeper.notes) == 1


def test_codes_that_differ_from_the_first_are_noted_and_the_first_is_not() -> None:
    keeper = Keeper((), NOW_MS)
    for code, count in (("1", 0), ("2", 1), ("2", 2), ("1", 2)):
        keeper.code(code, may_lack_zeros=False)
        assert len(keeper.notes) == count
    assert kept(keeper, ItemKind.CODE) == ("1", "2")


def test_a_message_in_place_of_a_code_is_one_if_it_has_a_digit_and_is_else_for_a_person_to_read() -> None:
    keeper = Keeper((), NOW_MS)
    SPEC.keep(keeper, status(messages=("Your code is 0123", "Wait for it")))
    assert keeper.items == (
        Item(kind=ItemKind.CODE, text="Your code is 0123", seen_at_ms=NOW_MS),
        Item(kind=ItemKind.UNREAD, text="Wait for it", seen_at_ms=NOW_MS),
    )


def test_a_sending_that_goes_back_and_forth_is_kept_up_to_a_bound() -> None:
    keeper = Keeper((), NOW_MS)
    for _ in range(2):
        keeper.sending("created")
        keeper.sending("created")
        keeper.sending("sent")
    assert kept(keeper, ItemKind.SENDING) == ("created", "sent", "created", "sent")
    for _ in range(MAX_STATES):
        keeper.sending("created")
        keeper.sending("sent")
    assert len(kept(keeper, ItemKind.SENDING)) == MAX_STATES
    keeper.sending("delivered")
    assert kept(keeper, ItemKind.SENDING)[-1] == "delivered"


def test_a_text_that_takes_the_place_of_its_code_leaves_what_stands_around_it() -> None:
    keeper = Keeper(items(number="1555", messages="4801"), NOW_MS + 1)
    keeper.unread("odd", has_value=True)
    keeper.messages(("Your code is 4801.",))
    assert [item.text for item in keeper.items] == ["1555", "Your code is 4801.", "odd"]
    assert keeper.items[1] == Item(kind=ItemKind.MESSAGE, text="Your code is 4801.", seen_at_ms=NOW_MS)


# --- lnd's values ---------------------------------------------------------------------------------------------------


def test_an_attempt_failed_at_the_payee_if_it_came_that_far_and_failed() -> None:
    assert FAILED_AT_PAYEE.failed_at_payee
    one_hop = attempt(AttemptStatus.FAILED, hop_count=1, failure_source_index=1)
    assert one_hop.failed_at_payee
    assert not attempt(AttemptStatus.FAILED, hop_count=2, failure_source_index=1).failed_at_payee
    assert not attempt(AttemptStatus.FAILED, hop_count=0, failure_source_index=0).failed_at_payee
    assert not attempt(hop_count=2, failure_source_index=2).failed_at_payee


def test_a_payment_is_over_when_it_is_in_flight_no_longer() -> None:
    assert [update(each).is_terminal for each in (PaymentStatus.IN_FLIGHT, PaymentStatus.FAILED)] == [False, True]


@pytest.mark.parametrize(
    ("carried", "closing", "told"),
    [
        (True, True, "a channel carries its HTLC"),
        (True, False, "a channel carries its HTLC"),
        (False, True, "a channel is being closed that may carry its HTLC"),
        (False, False, ""),
    ],
)
def test_what_is_in_the_way_of_calling_an_htlc_gone_is_said(carried: bool, closing: bool, told: str) -> None:
    look = HtlcLook(block_height=1, is_synced=True, is_in_channel=carried, is_maybe_closing=closing)
    assert (look.holds_up, look.is_carried) == (told, bool(told))
