"""Of every kind: whatever oddity stands beside it, what an honest reply delivers is read, and nothing is made up."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holdpay.core.events import ProviderStatus, SendStatus
from holdpay.core.items import ItemKind, Keeper, texts
from holdpay.core.states import OrderSignal
from holdpay.errors import ProviderError
from holdpay.sms4sats import fields, parse
from holdpay.sms4sats.parse import Answer
from tests.unit.build import EMAIL, FUND, NOW_MS, RENTAL, SMS, SPEC
from tests.unit.sms4sats.test_odd_replies import BESIDE, HTTP, INVISIBLE, MORE, ODD

ALL = [SPEC, RENTAL, SMS, EMAIL, FUND]
MARKS = INVISIBLE | st.sampled_from(["\x1b[31m", "\ufff9"])
TEXT = st.from_regex(r"[A-Z][a-z]{2,9} [0-9]{4,6}", fullmatch=True) | st.from_regex(r"[A-Z][a-z]{4,9}", fullmatch=True)
WRAPS = st.integers(0, 3)
NO_ITEM = st.one_of(
    BESIDE.filter(lambda name: name not in fields.DELIVERED_NAMES),
    st.sampled_from(
        ["message", "messageId", "smsId", "smsCount", "statusCode", "sent", "delivered", "smsstatus", "data"]
    ),
)
"""Names of fields that deliver nothing."""


def wrapped(value: object, times: int) -> object:
    for _ in range(times):
        value = [value]
    return value


def marked(text: str, mark: str) -> str:
    return f"{mark}{text[:2]}{mark}{text[2:]}{mark}"


@st.composite
def replies(draw: st.DrawFn, honest: dict[str, Any], without: frozenset[str] = frozenset()) -> Answer:
    """An honest reply with oddities beside what it has to say; none under the names in ``without``."""
    beside = draw(st.dictionaries(NO_ITEM.filter(lambda name: name not in {*honest, *without}), ODD, max_size=4))
    members = {**beside, **honest} if draw(st.booleans()) else {**honest, **beside}
    written = json.dumps(members, ensure_ascii=draw(st.booleans())) + draw(MORE.filter(lambda more: "code" not in more))
    bom = b"\xef\xbb\xbf" if draw(st.booleans()) else b""
    return Answer(draw(HTTP), bom + written.encode("utf-8", "replace"))


def read(answer: Answer) -> ProviderStatus:
    return parse.order_status(answer, "ab" * 32)


def kept(spec: Any, status: ProviderStatus, kind: ItemKind) -> tuple[str, ...]:
    keeper = Keeper((), NOW_MS)
    spec.keep(keeper, status)
    return texts(keeper.items, kind)


def says_nothing(odd: object, flag: object = True) -> bool:
    """Whether a value of the body is as good as none, or a mere flag."""
    value = fields.strict_json(
        json.dumps(odd).replace("NaN", "null").replace("-Infinity", "null").replace("Infinity", "null").encode()
    )
    return fields.is_absent(value) or (flag is not None and fields.single(value) is flag)


# --- what is sent ---------------------------------------------------------------------------------------------------


@given(st.data(), st.sampled_from(fields.SENDING_NAMES), st.sampled_from(["sent", "delivered"]), MARKS, WRAPS)
def test_whatever_stands_beside_the_word_that_it_was_sent_it_is_delivered(
    data: st.DataObject, name: str, word: str, mark: str, wraps: int
) -> None:
    spelled = data.draw(st.sampled_from([word, word.upper(), word.capitalize()]))
    got = read(data.draw(replies({name: wrapped(marked(spelled, mark), wraps)})))
    assert (got.send_status, got.is_paid) == (SendStatus(word), True)
    for spec in (SMS, EMAIL):
        assert (spec.signal(got), kept(spec, got, ItemKind.SENDING)) == (OrderSignal.FULFILLED, (word,))


@given(st.data(), st.sampled_from(["created", "failed"]), st.booleans(), MARKS, WRAPS)
def test_a_word_about_the_sending_is_kept_whatever_stands_beside_it_and_is_no_proof_of_payment(
    data: st.DataObject, word: str, is_paid: bool, mark: str, wraps: int
) -> None:
    honest = {"paid": is_paid, "smsStatus": wrapped(marked(word, mark), wraps)}
    answer = data.draw(replies(honest, without=frozenset({"number"})))
    try:
        got = read(answer)
    except ProviderError:
        assert not is_paid, "what was paid for is read"
        return
    assert (got.send_status, got.is_paid) == (SendStatus(word), is_paid)
    assert SMS.signal(got) is not OrderSignal.FULFILLED


@given(st.data(), ODD | st.sampled_from(["not sent", "undelivered", "sent: false", "resent", "sentfailed", "queued"]))
def test_no_odd_word_about_the_sending_is_one_that_it_was_sent(data: st.DataObject, word: object) -> None:
    try:
        got = read(data.draw(replies({"paid": True, "smsStatus": word})))
    except ProviderError:
        return
    assert got.send_status is None
    assert SMS.signal(got) is not OrderSignal.FULFILLED
    assert (got.unread is None) is says_nothing(word, flag=None)


# --- rented numbers -------------------------------------------------------------------------------------------------


@given(
    st.data(),
    st.sampled_from(fields.MESSAGES_NAMES),
    st.lists(TEXT, min_size=1, max_size=5),
    MARKS,
    st.none() | st.sampled_from(["text", "message", "body", "content", "sms", "code"]),
)
def test_whatever_stands_beside_a_rented_numbers_messages_each_is_delivered(
    data: st.DataObject, name: str, said: list[str], mark: str, text_name: str | None
) -> None:
    written = [marked(text, mark) for text in said]
    rows = [wrapped(text if text_name is None else {"id": 7, text_name: text}, data.draw(WRAPS)) for text in written]
    honest = {"paid": True, "number": 447700900123, name: wrapped(rows, data.draw(WRAPS))}
    answer = data.draw(replies(honest))
    got = read(answer)
    assert (got.messages, got.number, got.is_paid) == (tuple(said), "447700900123", True)
    assert not (got.unread or got.unread_messages) or not fields.body(answer.body).is_whole
    assert RENTAL.signal(got) is OrderSignal.FULFILLED
    assert kept(RENTAL, got, ItemKind.MESSAGE) == tuple(said)


@given(st.data(), TEXT, st.booleans())
def test_whatever_stands_beside_a_rented_numbers_one_code_it_is_a_message(
    data: st.DataObject, code: str, has_number: bool
) -> None:
    honest = {"paid": True, "code": code, **({"number": "+44 7700 900123"} if has_number else {})}
    got = read(data.draw(replies(honest, without=frozenset({"number"}))))
    assert kept(RENTAL, got, ItemKind.MESSAGE) == (code,)
    assert kept(RENTAL, got, ItemKind.NUMBER) == (("447700900123",) if has_number else ())


@given(st.data(), TEXT, ODD, TEXT)
def test_a_message_that_cannot_be_read_hides_no_other(
    data: st.DataObject, first: str, odd: object, second: str
) -> None:
    got = read(data.draw(replies({"paid": True, "messages": [first, odd, second]})))
    assert (got.messages[0], got.messages[-1]) == (first, second)
    assert len(got.messages) == 3 or got.unread or got.unread_messages or says_nothing(odd)


# --- money for the account ------------------------------------------------------------------------------------------


@given(st.data())
def test_money_for_the_account_reads_as_paid_whatever_stands_beside_it_or_does_not_read(data: st.DataObject) -> None:
    answer = data.draw(replies({"paid": True}))
    try:
        got = read(answer)
    except ProviderError:
        assert answer.http_status >= 300 or b"status" in answer.body or b"reason" in answer.body
        return
    assert (got.is_paid, FUND.signal(got)) == (True, OrderSignal.PAID)


# --- nothing is made up ---------------------------------------------------------------------------------------------


@given(st.data(), st.sampled_from([True, False, None]))
def test_nothing_is_delivered_by_a_reply_that_has_none_of_the_fields_that_deliver(
    data: st.DataObject, is_paid: bool | None
) -> None:
    honest = {} if is_paid is None else {"paid": is_paid}
    try:
        got = read(data.draw(replies(honest, without=frozenset({"paid", "number"}))))
    except ProviderError:
        return
    assert (got.number, got.code, got.messages, got.send_status, got.unread) == (None, None, (), None, None)
    assert got.is_paid is bool(is_paid)
    for spec in ALL:
        assert spec.signal(got) in {OrderSignal.PAID, OrderSignal.UNPAID, OrderSignal.OVER}
