"""What a status reply says of messages that are sent, and of those that come to a rented number."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdpay.core.events import ProviderStatus, SendStatus
from holdpay.errors import ProviderProtocolError, ProviderRefused
from holdpay.sms4sats import fields, parse
from holdpay.sms4sats.parse import Answer


def read(body: dict[str, Any] | str, http_status: int = 200) -> ProviderStatus:
    text = body if isinstance(body, str) else json.dumps(body)
    return parse.order_status(Answer(http_status, text.encode()))


def status(**members: object) -> ProviderStatus:
    return read({"status": "OK", "paid": True, **members})


# --- sending --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", fields.SENDING_NAMES)
@pytest.mark.parametrize("word", list(SendStatus))
def test_how_the_sending_goes_is_read_under_any_likely_name(name: str, word: SendStatus) -> None:
    assert status(**{name: word.value}) == ProviderStatus(is_paid=True, send_status=word)


@pytest.mark.parametrize("said", ["Delivered", " DELIVERED ", ["delivered"]])
def test_how_a_word_about_the_sending_is_written_does_not_matter(said: object) -> None:
    assert status(smsStatus=said).send_status is SendStatus.DELIVERED


@pytest.mark.parametrize("said", ["undelivered", "not sent", "queued", 5, {"a": 1}])
def test_an_unknown_word_about_the_sending_is_none_of_ours_and_leaves_the_reply_for_a_person(said: object) -> None:
    got = status(smsStatus=said)
    assert got.send_status is None
    assert "smsStatus" in (got.unread or "")


@pytest.mark.parametrize("absent", [None, "", 0, "null", []])
def test_an_absent_word_about_the_sending_is_absent(absent: object) -> None:
    assert status(smsStatus=absent) == ProviderStatus(is_paid=True)


@pytest.mark.parametrize("word", ["sent", "delivered"])
@pytest.mark.parametrize("paid", [{}, {"paid": "?"}, {"paid": None}, {"paid": False}])
def test_what_was_sent_was_paid_for_whatever_is_said_of_payment(word: str, paid: dict[str, object]) -> None:
    assert read({"status": "OK", "smsStatus": word, **paid}).is_paid


@pytest.mark.parametrize("word", ["created", "failed", "queued"])
@pytest.mark.parametrize("paid", [{}, {"paid": "?"}, {"paid": None}])
def test_another_word_about_the_sending_never_says_whether_it_was_paid(word: str, paid: dict[str, object]) -> None:
    with pytest.raises(ProviderProtocolError, match="whether it was paid") as caught:
        read({"status": "OK", "smsStatus": word, **paid})
    assert caught.value.unread is not None


@pytest.mark.parametrize("word", ["created", "failed"])
def test_an_unpaid_sending_reads_as_unpaid_where_its_word_is_known(word: str) -> None:
    assert read({"status": "OK", "paid": False, "smsStatus": word}) == ProviderStatus(
        is_paid=False, send_status=SendStatus(word)
    )


def test_an_unpaid_sending_with_an_unknown_word_never_reads_as_unpaid() -> None:
    with pytest.raises(ProviderProtocolError, match="whether it was paid"):
        read({"status": "OK", "paid": False, "smsStatus": "routed"})


@pytest.mark.parametrize("http_status", [200, 404, 500])
def test_what_was_sent_counts_whatever_stands_beside_it(http_status: int) -> None:
    got = read({"status": "error", "reason": "unable to save data", "paid": True, "smsStatus": "sent"}, http_status)
    assert (got.is_paid, got.send_status) == (True, SendStatus.SENT)


# --- messages to a rented number ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", fields.MESSAGES_NAMES)
def test_messages_are_read_in_order_under_any_likely_name(name: str) -> None:
    assert status(number=15551234567, **{name: ["first 1111", "second", "first 1111"]}) == ProviderStatus(
        is_paid=True, number="15551234567", messages=("first 1111", "second", "first 1111")
    )


@pytest.mark.parametrize("name", ["text", "message", "body", "content", "sms", "code"])
def test_a_message_may_be_an_object_with_its_text_under_any_likely_name(name: str) -> None:
    rows = [{"id": 1, name: "Your code\nis 004801", "at": 1}, {name: 482103}]
    assert status(messages=rows).messages == ("Your code is 004801", "482103")


def test_of_a_message_with_text_and_code_the_text_counts() -> None:
    assert status(messages=[{"code": "4801", "text": "Your code is 4801"}]).messages == ("Your code is 4801",)


def test_a_single_message_need_not_be_a_list() -> None:
    assert status(sms="Your code is 4801").messages == ("Your code is 4801",)
    assert status(sms={"text": "Your code is 4801"}).messages == ("Your code is 4801",)


@pytest.mark.parametrize("absent", [None, "", [], {}, [None], [""], [{"text": ""}], [{}], True, False])
def test_no_messages_are_none(absent: object) -> None:
    assert status(messages=absent) == ProviderStatus(is_paid=True)


def test_a_code_is_no_message_unless_the_list_has_it() -> None:
    assert status(code="4801", messages=["1111"]).messages == ("1111",)
    assert status(code="4801", messages=["1111", "4801"]).messages == ("1111", "4801")


def test_what_is_in_a_message_already_is_not_read_again_under_another_name() -> None:
    got = status(messages=["Your code is 4801", "Hello"], codes=["4801", "9999"])
    assert got.messages == ("Your code is 4801", "Hello", "9999")


@pytest.mark.parametrize(
    ("odd", "raw"),
    [
        ({"when": 1, "from": "+1"}, '{"when": 1, "from": "+1"}'),
        (["a", 2], '["a", 2]'),
        ({"text": {"a": 1.50}}, '{"text": {"a": 1.5}}'),
    ],
)
def test_a_message_that_cannot_be_read_hides_no_other_and_comes_along_by_itself(odd: object, raw: str) -> None:
    got = status(messages=["1111", odd, "2222"])
    assert (got.messages, got.unread_messages, got.unread) == (("1111", "2222"), (raw,), None)


def test_a_list_with_something_that_is_no_json_leaves_the_reply_for_a_person() -> None:
    text = '{"status":"OK","paid":true,"messages":["1111",{],"2222"]}'
    assert read(text).unread == text


def test_a_long_message_that_cannot_be_read_comes_along_cut() -> None:
    (raw,) = status(messages=[{"odd": "x" * 60_000}]).unread_messages
    assert (len(raw), raw[-1]) == (fields.MAX_KEPT_RAW_CHARS, "…")


def test_a_list_of_messages_that_is_cut_off_is_noticed() -> None:
    with pytest.raises(ProviderProtocolError) as caught:
        read('{"status":"OK","messages":["1111","22')
    assert caught.value.unread is not None
    assert read('{"status":"OK","paid":true,"messages":["1111","22').unread


def test_messages_behind_what_cannot_be_read_are_noticed() -> None:
    assert read('{"status":"OK","paid":true,"extra":{"a":,"messages":["1111"]}').unread


def test_a_code_that_is_part_of_another_messages_number_is_a_message_of_its_own() -> None:
    assert status(messages=["Your code is 55512"], codes=["555", "55512"]).messages == ("Your code is 55512", "555")


def test_messages_of_all_names_together_are_bounded() -> None:
    first, second = ([f"{start + number}" for number in range(600)] for start in (10_000, 20_000))
    got = status(messages=first, texts=second)
    assert (got.messages, got.unread is None) == ((*first[-400:], *second), False)


def test_messages_are_bounded_and_what_is_cut_is_noticed() -> None:
    many = [f"{number:04}" for number in range(fields.MAX_MESSAGES)]
    assert status(messages=many) == ProviderStatus(is_paid=True, messages=tuple(many))
    more = status(messages=[*many, "last"])
    assert (more.messages, more.unread is None) == ((*many[1:], "last"), False)

    longest = "x" * fields.MAX_MESSAGE_CHARS
    assert status(messages=[longest]).messages == (longest,)
    longer = status(messages=[longest + "y"])
    assert (len(longer.messages[0]), longer.messages[0][-1]) == (fields.MAX_MESSAGE_CHARS, "…")
    assert longer.unread_messages == (f'"{longest}y"',)


@pytest.mark.parametrize("paid", [{}, {"paid": "?"}, {"paid": False}])
def test_who_gets_messages_has_paid(paid: dict[str, object]) -> None:
    assert read({"status": "OK", "messages": ["hello"], **paid}).is_paid


def test_a_message_that_cannot_be_read_never_reads_as_unpaid() -> None:
    with pytest.raises(ProviderProtocolError, match="whether it was paid"):
        read({"status": "OK", "paid": False, "messages": [{"odd": 1}]})


def test_a_message_counts_whatever_stands_beside_it() -> None:
    got = read({"status": "error", "reason": "unable to save data", "messages": ["code 004801"]}, 500)
    assert (got.is_paid, got.messages) == (True, ("code 004801",))


@pytest.mark.parametrize("name", ["messages", "codes"])
def test_the_words_of_an_error_are_no_messages(name: str) -> None:
    with pytest.raises(ProviderRefused, match="no such order"):
        read({"status": "error", "reason": "no such order", name: ["E404", "orderId is wrong"]})


# --- when a rental ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", fields.ENDS_NAMES)
@pytest.mark.parametrize(
    "said",
    [
        1_790_000_000_000,
        "1790000000000",
        1_790_000_000,
        1.79e12,
        "2026-09-21T14:13:20Z",
        "2026-09-21T16:13:20+02:00",
        "2026-09-21 14:13:20",
    ],
)
def test_when_a_rental_ends_is_read_under_any_likely_name(name: str, said: object) -> None:
    assert status(**{name: said}).ends_at_ms == 1_790_000_000_000


@pytest.mark.parametrize("said", [None, 0, -1, "soon", 14, {"at": 1}, True, "9" * 40, "2026-99-99"])
def test_what_is_no_time_is_no_end_of_a_rental(said: object) -> None:
    assert status(endsAt=said, number="15551234567") == ProviderStatus(is_paid=True, number="15551234567")
