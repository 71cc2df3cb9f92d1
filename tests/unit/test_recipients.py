"""What is sent to whom is checked before anything is ordered, and never repeated in a message."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdpay import recipients
from holdpay.errors import InvalidRequest

CHECKS: list[Callable[[str], str]] = [
    recipients.phone_number,
    recipients.email_address,
    recipients.message_text,
    recipients.lightning_address,
    recipients.webhook_url,
]


def refused(check: Callable[[], object], field: str) -> str:
    with pytest.raises(InvalidRequest) as caught:
        check()
    assert caught.value.metadata["field"] == field
    return caught.value.message


# --- phones ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["+19871234567", " +1 (987) 123-4567 ", "+1.987.123.4567"])
def test_a_phone_number_of_the_whole_world_needs_no_country(text: str) -> None:
    assert recipients.phone_number(text) == "+19871234567"


@pytest.mark.parametrize(
    ("text", "region", "e164"),
    [
        ("030 123456", "DE", "+4930123456"),
        ("0151 23456789", "de", "+4915123456789"),
        ("(987) 123-4567", "US", "+19871234567"),
        ("06 12 34 56 78", "FR", "+33612345678"),
        ("0039 06 12345678", "DE", "+390612345678"),
        ("+33 6 12 34 56 78", "US", "+33612345678"),
    ],
)
def test_a_national_number_is_read_as_people_of_the_country_write_it(text: str, region: str, e164: str) -> None:
    assert recipients.phone_number(text, region) == e164


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0151 23456789", "does not say its country"),
        ("19871234567", "does not say its country"),
        ("+1987", "too short"),
        ("+980000", "too short"),
        ("+49123456789012345", "too long"),
        ("+198712345678901", "too long"),
        ("+999 123456789", "no phone number"),
        ("+", "characters"),
        ("", "characters"),
        ("+1800FLOWERS", "characters"),
        ("+1 987 123 4567 ext. 5", "characters"),
        ("+1987123٤٥٦٧", "characters"),
        ("+19871234567\n+19871234568", "characters"),
        ("+1" + " " * 50, "no phone number"),
        ("123-4567", "does not say its country"),
    ],
)
def test_what_is_no_phone_number_is_refused_with_the_reason(text: str, words: str) -> None:
    assert words in refused(lambda: recipients.phone_number(text), "phone")


def test_a_number_without_its_area_code_is_refused() -> None:
    assert "lacks the area code" in refused(lambda: recipients.phone_number("123-4567", "US"), "phone")


def test_a_region_without_phones_is_refused() -> None:
    assert "+ and the country's code" in refused(lambda: recipients.phone_number("123", "XX"), "country")


# --- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("satoshi@example.com", "satoshi@example.com"),
        (" Satoshi+sms@EXAMPLE.com ", "Satoshi+sms@example.com"),
        ("s@bücher.example.org", "s@xn--bcher-kva.example.org"),
    ],
)
def test_an_email_address_is_taken_without_a_look_up(text: str, address: str) -> None:
    assert recipients.email_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nobody",
        "a@b",
        "a@b..com",
        "a b@example.com",
        "<a@example.com>",
        "Ann <a@example.com>",
        "ä@example.com",
        "a@example.com,b@example.com",
        "a@example.com\nbcc: b@example.com",
        "a" * 65 + "@example.com",
        "a@[127.0.0.1]",
    ],
)
def test_what_is_not_one_email_address_is_refused(text: str) -> None:
    assert "no e-mail address" in refused(lambda: recipients.email_address(text), "address")


@pytest.mark.parametrize("text", ["satoshi@example.com", "a_b.c-d+tag@pay.example.co.uk", "Me@Example.COM"])
def test_a_lightning_address_is_a_name_at_a_host(text: str) -> None:
    assert recipients.lightning_address(text) == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "satoshi",
        "@example.com",
        "a@",
        "a@localhost",
        "a@exa mple.com",
        "a@b@example.com",
        "lnurl1dp68gurn8ghj7",
        "a@example.com/x",
        "a@-x.com",
        "a@x..com",
        "ä@example.com",
        "a@example.com\n",
        "a" * 65 + "@example.com",
        "a@" + "b" * 63 + ".c" * 100 + ".com",
    ],
)
def test_what_is_no_lightning_address_is_refused(text: str) -> None:
    if text.endswith("\n"):
        text += "x"
    assert "no Lightning Address" in refused(lambda: recipients.lightning_address(text), "ref")


# --- messages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["x", "x" * 140, "ä" * 140, "😀" * 140, " hello ", "Ünïcode 👩‍👩‍👧 is fine"])
def test_a_message_of_up_to_140_characters_is_taken_as_it_is(text: str) -> None:
    assert recipients.message_text(text) == text


@pytest.mark.parametrize("length", [141, 5000])
def test_a_longer_message_is_refused_with_its_length(length: int) -> None:
    text = refused(lambda: recipients.message_text("x" * length), "message")
    assert f"{length:,} characters" in text
    assert "140" in text


@pytest.mark.parametrize("text", ["", " ", "\n", "\u2003"])
def test_an_empty_message_is_refused(text: str) -> None:
    assert "empty" in refused(lambda: recipients.message_text(text), "message")


@pytest.mark.parametrize("char", ["\0", "\n", "\r", "\t", "\x1b", "\x7f", "\x85", "\u2028", "\u2029", "\ud800"])
def test_a_control_character_in_a_message_is_refused(char: str) -> None:
    assert "control character" in refused(lambda: recipients.message_text(f"a{char}b"), "message")


# --- webhooks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["https://example.com", "https://example.com:8443/a/b?c=d&e=%20", "https://[2001:db8::1]/x"]
)
def test_a_webhook_is_an_https_url(url: str) -> None:
    assert recipients.webhook_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "http://example.com",
        "ftp://example.com",
        "https://",
        "https:///x",
        "https://u@example.com",
        "https://u:p@example.com",
        "https://example.com/#x",
        "https://example.com/a b",
        "https://exämple.com",
        "https://example.com:99999",
        "https://[::1",
        "https://example.com/\n",
        "https://example.com/" + "x" * 2048,
    ],
)
def test_another_url_is_no_webhook(url: str) -> None:
    refused(lambda: recipients.webhook_url(url), "webhook_url")


# --- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS)
@given(text=st.text(max_size=300) | st.text(alphabet="+0123456789 ()@.:/#htps", max_size=60))
def test_whatever_is_given_it_is_taken_or_refused_without_being_repeated(
    check: Callable[[str], str], text: str
) -> None:
    try:
        check(f"{text}§")
    except InvalidRequest as error:
        message = error.message
    else:
        message = "taken"
    assert len(text) < 10 or text not in message
    assert message.isprintable()


@given(st.text(alphabet="0123456789 ()-", min_size=5, max_size=20))
@example("980000")
@example("49123456789012345")
def test_a_number_that_is_taken_is_e164(text: str) -> None:
    try:
        number = recipients.phone_number("+" + text)
    except InvalidRequest:
        return
    assert number[0] == "+"
    assert number[1:].isascii()
    assert number[1:].isdigit()
    assert 7 <= len(number[1:]) <= 15
