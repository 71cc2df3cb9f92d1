"""A reply that is odd never hides what was paid for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdpay.core.events import ProviderStatus
from holdpay.errors import ProviderError, ProviderProtocolError, ProviderRefused, ProviderUnavailable
from holdpay.sms4sats import fields, parse
from holdpay.sms4sats.parse import Answer

CASES = Path(__file__).parents[2] / "fixtures" / "odd_orderstatus.jsonl"
OURS = "7dc6e6b61d8c54dff6b8d6ea2e3f08b018e57963df81d493a6f9728c4dc83318"


def read(body: str | bytes | dict[str, Any], http_status: int = 200) -> ProviderStatus:
    if isinstance(body, dict):
        body = json.dumps(body)
    return parse.order_status(Answer(http_status, body if isinstance(body, bytes) else body.encode()), OURS)


def status(**members: object) -> ProviderStatus:
    return read({"status": "OK", "paid": True, **members})


# --- what was seen --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [json.loads(line) for line in CASES.read_text().splitlines()], ids=lambda c: c["name"])
def test_a_reply_that_was_seen_is_understood(case: dict[str, Any]) -> None:
    got = read((b"\xef\xbb\xbf" if case["bom"] else b"") + case["body"].encode(), case["http_status"])
    want = case["want"]
    known = {"paid": got.is_paid, "number": got.number, "code": got.code, "may_lack_zeros": got.code_may_lack_zeros}
    assert {name: known[name] for name in want if name in known} == {n: want[n] for n in want if n in known}
    if want.get("cut"):
        assert got.code is not None
        assert got.code.startswith(want["code_begins"])
        assert got.code.endswith("…")
        assert got.unread


@pytest.mark.parametrize("written", ["004512", "123-456", "G-123456", "7f3a21", "45", "48010 48011", "12.34.56"])
def test_a_value_without_quotes_is_never_cut_to_what_it_begins_with(written: str) -> None:
    """0 of 004512 would be no code at all, and 123 of 123-456 a wrong one."""
    end = "" if written == "45" else "}"
    got = read(f'{{"status":"OK","paid":true,"code":{written}{end}')
    assert got.code in {None, written}
    assert got.code or got.unread


@pytest.mark.parametrize(
    ("http_status", "body"),
    [
        (500, {"statusCode": 500, "code": "ECONNREFUSED", "message": "connect"}),
        (429, {"code": 429, "message": "Too Many Requests"}),
        (404, {"status": "error", "code": 404, "reason": "not found"}),
        (200, {"status": "error", "code": "rate_limited"}),
        (200, {"status": "error", "code": "rate_limited", "paid": "no"}),
        (200, {"status": "error", "code": 404, "paid": False}),
        (500, {"paid": None, "code": 500, "messages": ["internal error"]}),
    ],
)
def test_the_code_of_an_error_is_not_what_an_sms_brought(http_status: int, body: dict[str, Any]) -> None:
    with pytest.raises(ProviderError):
        read(body, http_status)


@pytest.mark.parametrize(
    ("beside", "code"),
    [
        ({"paid": True}, "ABCDE"),
        ({"paid": "settled"}, "ABCDE"),
        ({"number": "12025550101"}, "ABCDE"),
        ({}, "1234"),
        ({"paid": False}, "G-1234"),
    ],
)
def test_a_no_hides_no_code_that_came_with_a_payment_or_a_number_or_may_be_one(
    beside: dict[str, Any], code: str
) -> None:
    got = read({"status": "error", "reason": "timeout", "error": "x", "code": code, **beside})
    assert (got.code, got.is_paid, got.error) == (code, True, None)


def test_the_words_of_an_error_are_kept_without_what_could_be_a_number_or_a_code() -> None:
    assert status(error="No SMS for +1 202 555 0101").error == "No SMS for +…"


# --- the property ---------------------------------------------------------------------------------------------------

CODES = st.from_regex(r"[0-9]{4,8}", fullmatch=True) | st.from_regex(r"[A-Z]-[0-9]{6}", fullmatch=True)
ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["null", "undefined", "FINISHED", "error", "yes", "no", "-5", "tel:+1", "0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
BESIDE = st.sampled_from(["status", "paid", "number", "error", "reason", "timestamp", "country", "id", "sms", "", "x"])
INVISIBLE = st.text("\u200b\u200e\u2060\ufeff\u00ad\ufe0f\x00\x07\u202e", max_size=3)
HTTP = st.sampled_from([200, 200, 201, 301, 400, 404, 418, 429, 500, 503])
MORE = st.sampled_from(["", "\n", "}", "<br>", "\x00", '{"code": "666666"}'])


@given(CODES, st.dictionaries(BESIDE, ODD), st.booleans(), INVISIBLE, HTTP, st.booleans(), MORE, st.booleans())
def test_whatever_stands_beside_a_code_it_is_delivered(
    code: str,
    beside: dict[str, Any],
    comes_last: bool,
    mark: str,
    http_status: int,
    has_bom: bool,
    more: str,
    listed: bool,
) -> None:
    written = f"{code[:2]}{mark}{code[2:]}{mark}"
    said: dict[str, Any] = {"code": [written] if listed else written}
    body = json.dumps({**beside, **said} if comes_last else {**said, **beside}, ensure_ascii=False)
    raw = (b"\xef\xbb\xbf" if has_bom else b"") + (body + more).encode("utf-8", "replace")

    got = read(raw, http_status)

    assert (got.code, got.is_paid) == (code, True)


@given(CODES, st.dictionaries(BESIDE.filter(lambda name: name != "code"), ODD))
def test_a_number_is_delivered_whatever_stands_beside_it(number: str, beside: dict[str, Any]) -> None:
    digits = "1202555" + "".join(filter(str.isdecimal, number))
    got = read({**beside, "number": digits})
    assert got.number == digits


@given(st.dictionaries(st.sampled_from(["status", "paid", "code", "number", "error"]), ODD), HTTP)
def test_a_reply_reads_as_unpaid_only_if_it_says_so_and_nothing_else_stands_against_it(
    said: dict[str, Any], http_status: int
) -> None:
    try:
        got = read(said, http_status)
    except ProviderError:
        return
    if not got.is_paid and got.error is None and got.number is None:
        assert fields.truth(json.loads(json.dumps(said), parse_int=fields.JsonNumber).get("paid")) is False
        assert not got.unread
        assert http_status < 300


# --- bodies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":"a raw\nnewline","code":"48010"}',
        b'{"country":"C\xf4te d\'Ivoire","paid":true,"code":"48010"}',
        b'{"paid":true,"error":undefined,"code":"48010"}',
        b'{"paid":True,"error":None,"code":"48010"}',
        b'{"paid":true,"code":\'48010\'}',
        b'{"paid":true,"reason":"he said "no" to it","code":"48010"}',
        b'{"paid":true,"code":"48010","code":null}',
        b'{"paid":true,"code":"48010",}',
        b'{"paid":true,"code":"48010"',
        b'<br />Notice: x<br />{"paid":true,"code":"48010"}',
        b'[{"paid":true,"code":"48010"}]',
        '{"paid":true,"code":"48010"}'.encode("utf-16"),
    ],
)
def test_a_body_that_is_only_nearly_json_gives_up_its_code(body: bytes) -> None:
    assert read(body).code == "48010"


@pytest.mark.parametrize(
    "body", [b'{"error":{"code":404},"paid":true}', b'{"paid":true,"error":{"x":undefined,"code":404}}']
)
def test_a_code_inside_of_something_else_is_no_code(body: bytes) -> None:
    got = read(body)
    assert got.code is None


def test_a_broken_body_never_reads_as_unpaid() -> None:
    with pytest.raises(ProviderProtocolError, match="whether it was paid"):
        read(b'{"paid":false,"error":"x')
    with pytest.raises(ProviderProtocolError, match="whether it was paid"):
        read('{"paid":false,"cod')


# --- codes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("48\u200b010", "48010"),
        ("480\u00ad10", "48010"),
        ("\u2068480\u206910", "48010"),
        ("\x1b[31m48010\x1b[0m", "48010"),
        ("4\ufe0f\u20e38\ufe0f\u20e3", "48"),
        ("480\u00a010", "480 10"),
        ("\N{FIRE} 48010", "\N{FIRE} 48010"),
        (["48010"], "48010"),
        ([["48010"]], "48010"),
        ("004801", "004801"),
    ],
)
def test_a_text_is_delivered_without_what_nobody_sees(said: object, code: str) -> None:
    got = status(code=said)
    assert (got.code, got.code_may_lack_zeros, got.unread) == (code, False, None)


@pytest.mark.parametrize(
    ("said", "code"), [("48010", "48010"), ("48010.0", "48010"), ("4.801e4", "48010"), ("-5", "-5"), ("1.5", "1.5")]
)
def test_a_code_that_came_as_a_number_may_lack_zeros(said: str, code: str) -> None:
    got = read(f'{{"paid":true,"code":{said}}}')
    assert (got.code, got.code_may_lack_zeros) == (code, True)


@pytest.mark.parametrize(
    "absent", [None, False, 0, 0.0, "", " ", "0", "null", "None", "undefined", "FALSE", [], {}, [None]]
)
def test_what_means_absent_is_absent_in_every_field(absent: object) -> None:
    got = status(code=absent, number=absent, error=absent)
    assert got == ProviderStatus(is_paid=True)


@pytest.mark.parametrize("said", [{"value": "48010"}, ["1", "2"], True, {"a": ["1"]}])
def test_a_code_that_cannot_be_read_leaves_the_reply_for_a_persons_eyes(said: object) -> None:
    got = status(code=said, number=12025550101)
    assert (got.code, got.number, got.is_paid) == (None, "12025550101", True)
    assert got.unread == json.dumps({"status": "OK", "paid": True, "code": said, "number": 12025550101})


def test_a_code_that_cannot_be_read_never_reads_as_unpaid() -> None:
    with pytest.raises(ProviderProtocolError, match="whether it was paid"):
        read({"status": "OK", "paid": False, "code": {"value": "1"}})


# --- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        *(12025550101, 12025550101.0, "+1 (202) 555-0101", "(1) 202 555 0101", "1.202.555.0101", "1/202/5550101"),
        *(
            "tel:+1-202-555-0101",
            "1\u00a0202\u00a0555\u00a00101",
            "1\u2013202\u2011555\u22120101",
            "\u200e+12025550101",
        ),
        *(["12025550101"], "\uff0b\uff11\uff12\uff10\uff12\uff15\uff15\uff15\uff10\uff11\uff10\uff11", -12025550101),
    ],
)
def test_a_number_is_digits_whatever_it_was_written_with(said: object) -> None:
    assert status(number=said).number == "12025550101"


@pytest.mark.parametrize("said", ["1" * 33, "abc", "1 or 2", {"a": 1}, ["1", "2"], True, "+"])
def test_a_number_that_cannot_be_read_leaves_the_reply_for_a_persons_eyes(said: object) -> None:
    got = status(number=said)
    assert (got.number, got.is_paid) == (None, True)
    assert got.unread
    assert not status(number=said, code="1234").unread


# --- paid, status, HTTP ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "is_paid"),
    [
        *((s, True) for s in (True, 1, 1.0, "1", "yes", "Yes", "True", [True])),
        *((s, False) for s in (False, 0, "no", "False")),
    ],
)
def test_paid_is_read_in_every_spelling(said: object, is_paid: bool) -> None:
    assert read({"status": "OK", "paid": said}).is_paid is is_paid


@pytest.mark.parametrize("word", ["FINISHED", 200, "200", "error", {"a": 1}, None, "Success"])
@pytest.mark.parametrize("http_status", [200, 302, 400, 404, 429, 500, 503])
def test_a_code_is_delivered_whatever_status_and_http_say(word: object, http_status: int) -> None:
    assert read({"status": word, "reason": "x", "error": "y", "code": "48010"}, http_status).code == "48010"


def test_a_status_that_nobody_knows_never_reads_as_unpaid() -> None:
    assert read({"status": "FINISHED", "paid": True}).is_paid
    with pytest.raises(ProviderProtocolError):
        read({"status": "FINISHED", "paid": False})
    with pytest.raises(ProviderRefused):
        read({"paid": False, "reason": "not found"})


@pytest.mark.parametrize("word", ["OK", "ok", True, "success", 200, "", None])
def test_a_yes_in_any_word_has_unpaid_read_as_unpaid(word: object) -> None:
    assert not read({"status": word, "paid": False}).is_paid
    assert not read({"status": "OK", "paid": False, "reason": "waiting"}).is_paid
    assert read({"error": "No available number"}) == ProviderStatus(is_paid=False, error="No available number")


def test_without_anything_to_deliver_an_error_is_an_error() -> None:
    with pytest.raises(ProviderRefused):
        read({"status": "error", "reason": "x", "paid": False})
    with pytest.raises(ProviderUnavailable):
        read({"status": "error", "reason": "x", "paid": True}, 503)


# --- whose it is ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["orderId", "id"])
def test_the_code_of_another_order_is_not_ours(name: str) -> None:
    with pytest.raises(ProviderProtocolError, match="another order") as caught:
        status(**{name: "ab" * 32, "code": "48010"})
    assert "48010" not in caught.value.message


@pytest.mark.parametrize("said", [1125699791, "SMfa2b", OURS, OURS.upper(), None, {}, "x" * 64])
def test_an_id_of_another_kind_hides_no_code(said: object) -> None:
    assert status(id=said, orderId=said, code="48010").code == "48010"


# --- messages, which get into the log -------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["code 48010 sent", "code 480-010 to +1 202 555 0101", {"sms": "48010"}])
def test_a_message_quotes_no_run_of_digits(reason: object) -> None:
    for http_status in (200, 500):
        with pytest.raises(ProviderError) as caught:
            read({"status": "error", "reason": reason}, http_status)
        assert not any(part in caught.value.message for part in ("48010", "480-010", "5550101", "555 0101"))


# --- what a person may still read -----------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["Your code is 48010", "[]", '{"status":"OK"}', '{"text":"48010"}', '{"paid":'])
def test_a_reply_that_makes_no_sense_comes_along_for_a_person_to_read(body: str) -> None:
    with pytest.raises(ProviderProtocolError) as error:
        read(body)
    assert error.value.unread == body
    assert body not in error.value.message


def test_a_long_reply_that_makes_no_sense_comes_along_cut() -> None:
    with pytest.raises(ProviderProtocolError) as error:
        read("x" * 60_000)
    assert error.value.unread == "x" * (fields.MAX_KEPT_RAW_CHARS - 1) + "…"


@pytest.mark.parametrize(
    ("body", "http_status"),
    [
        (" ", 200),
        ("<html>log in</html>", 200),
        ("moved", 302),
        (json.dumps({"status": "OK", "paid": True, "code": "48010", "orderId": "ab" * 32}), 200),
    ],
    ids=["nothing", "a web page", "a redirect", "the status of another order"],
)
def test_a_reply_that_holds_nothing_of_the_order_is_not_given_to_a_person(body: str, http_status: int) -> None:
    with pytest.raises(ProviderProtocolError) as error:
        read(body, http_status)
    assert error.value.unread is None
