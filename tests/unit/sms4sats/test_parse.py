"""Every reply of the reference, every variant of the public clients, and what nobody should ever send."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdpay.core.events import ProviderStatus, SendStatus
from holdpay.errors import ProviderError, ProviderProtocolError, ProviderRefused, ProviderUnavailable
from holdpay.ports import Balance, Funding, FundingEntry, ListedCountry, Placed, Prices, RentalOffer, ServiceInfo
from holdpay.sms4sats import parse
from holdpay.sms4sats.parse import Answer

EXAMPLES = Path(__file__).parents[2] / "fixtures" / "sms4sats"
NOW_MS = 1_790_000_000_000


def example(name: str, http_status: int = 200) -> Answer:
    return Answer(http_status, (EXAMPLES / f"{name}.json").read_bytes())


def answer(body: object, http_status: int = 200) -> Answer:
    return Answer(http_status, body.encode() if isinstance(body, str) else json.dumps(body).encode())


def status(**fields: object) -> Answer:
    return answer({"status": "OK", "paid": True, **fields})


def prices(given: Answer) -> Prices:
    return parse.prices(given, NOW_MS)


def balance(given: Answer) -> Balance:
    return parse.balance(given, NOW_MS)


ALL: list[Callable[[Answer], object]] = [
    parse.placed,
    parse.placed_prepaid,
    parse.order_status,
    parse.cancel_accepted,
    parse.countries,
    parse.services,
    parse.rentals,
    prices,
    balance,
    parse.funding,
]


# --- placing --------------------------------------------------------------------------------------------------------


def test_the_reference_order_has_its_id_and_invoice() -> None:
    placed = parse.placed(example("createorder"))
    assert placed.provider_order_id == "7dc6e6b61d8c54dff6b8d6ea2e3f08b018e57963df81d493a6f9728c4dc83318"
    assert (placed.payreq or "").startswith("lnbc30u1p34yef6pp5")


def test_an_order_paid_from_a_prepaid_account_is_not_an_order_for_an_invoice() -> None:
    with pytest.raises(ProviderProtocolError, match="without an invoice"):
        parse.placed(example("createorder_immediate"))


def test_a_prepaid_order_is_paid_and_has_no_invoice() -> None:
    order_id = "7dc6e6b61d8c54dff6b8d6ea2e3f08b018e57963df81d493a6f9728c4dc83318"
    assert parse.placed_prepaid(example("createorder_immediate")) == Placed(order_id, None)


@pytest.mark.parametrize(
    "beside",
    [{}, {"payreq": None}, {"payreq": "", "error": "x"}, {"payreq": "PAID"}],
    ids=["none", "null", "empty", "paid"],
)
def test_a_prepaid_order_that_has_an_id_and_no_invoice_was_placed(beside: dict[str, object]) -> None:
    assert parse.placed_prepaid(answer({"status": "OK", "orderId": "abc123", **beside})) == Placed("abc123", None)


@pytest.mark.parametrize("http_status", [200, 400, 429])
@pytest.mark.parametrize("order_id", ["abc123", "not usable!"])
def test_a_no_that_names_a_prepaid_order_is_no_sure_one(http_status: int, order_id: str) -> None:
    with pytest.raises(ProviderProtocolError, match="a no that names an order"):
        parse.placed_prepaid(answer({"status": "error", "reason": "failed", "orderId": order_id}, http_status))


@pytest.mark.parametrize("payreq", ["lnbc1abc", "unpaid", True])
def test_a_prepaid_order_that_is_not_paid_is_refused(payreq: object) -> None:
    with pytest.raises(ProviderProtocolError, match="not paid from the account"):
        parse.placed_prepaid(answer({"status": "OK", "orderId": "abc", "payreq": payreq}))


def test_a_prepaid_order_needs_an_id_and_a_no_is_a_no() -> None:
    with pytest.raises(ProviderProtocolError, match="without a usable id"):
        parse.placed_prepaid(answer({"status": "OK", "orderId": "", "payreq": "paid"}))
    with pytest.raises(ProviderRefused, match="balance too low"):
        parse.placed_prepaid(answer({"status": "error", "reason": "balance too low"}, 400))


@pytest.mark.parametrize(
    "body",
    [
        {"status": "error", "reason": "no numbers"},
        {"reason": "no numbers"},
        {"status": "OK", "reason": "no numbers"},
        {"status": "OK", "error": "no numbers", "payreq": ""},
    ],
)
@pytest.mark.parametrize("read", [parse.placed, parse.placed_prepaid])
def test_a_no_with_http_200_and_no_invoice_is_a_refusal(read: Callable[[Answer], object], body: dict[str, str]) -> None:
    with pytest.raises(ProviderRefused, match="no numbers") as caught:
        read(answer(body))
    assert caught.value.raw == json.dumps(body)


@pytest.mark.parametrize("order_id", [None, "", 0, "../x", "a b", "x" * 129, ["a", "b"], "ä"])
def test_an_order_id_that_could_break_a_url_is_refused(order_id: object) -> None:
    with pytest.raises(ProviderProtocolError, match="without a usable id"):
        parse.placed(answer({"status": "OK", "orderId": order_id, "payreq": "lnbc1abc"}))


@pytest.mark.parametrize("payreq", [None, "", "paid", 5, "lnbc1 abc", "ln" + "q" * parse.MAX_PAYREQ_CHARS, {"a": 1}])
def test_what_is_not_an_invoice_is_refused(payreq: object) -> None:
    with pytest.raises(ProviderProtocolError, match="without an invoice"):
        parse.placed(answer({"status": "OK", "orderId": "abc", "payreq": payreq}))


def test_an_order_id_may_be_a_number() -> None:
    assert parse.placed(answer({"orderId": 17, "payreq": "LNBC1ABC"})).provider_order_id == "17"


# --- order status ---------------------------------------------------------------------------------------------------


def test_the_reference_status_has_number_and_code_that_may_lack_zeros() -> None:
    got = parse.order_status(example("orderstatus_receive"))
    assert (got.is_paid, got.number, got.code, got.code_may_lack_zeros, got.error) == (
        True,
        "12345678901",
        "48010",
        True,
        None,
    )


def test_no_number_is_an_error_of_a_paid_order() -> None:
    got = parse.order_status(example("orderstatus_no_number"))
    assert got.is_paid
    assert got.error is not None
    assert got.error.startswith("No available number")
    assert got.code is None
    assert got.number is None


def test_the_status_of_a_sent_message_reads_as_paid_without_a_number() -> None:
    got = parse.order_status(example("orderstatus_send"))
    assert got == ProviderStatus(is_paid=True, send_status=SendStatus.CREATED)


@pytest.mark.parametrize("absent", [0, "0", "", None, False])
def test_zero_empty_and_null_mean_absent(absent: object) -> None:
    got = parse.order_status(status(code=absent, number=absent, error=absent))
    assert (got.number, got.code, got.code_may_lack_zeros, got.error) == (None, None, False, None)


def test_a_code_that_is_a_string_keeps_its_zeros() -> None:
    got = parse.order_status(status(code="004801"))
    assert (got.code, got.code_may_lack_zeros) == ("004801", False)


@pytest.mark.parametrize("code", ["G-482 103", "abc", "000000"])
def test_a_code_need_not_be_digits(code: str) -> None:
    assert parse.order_status(status(code=code)).code == code


def test_no_digit_of_a_long_number_is_lost() -> None:
    digits = "12345678901234567890123456789012"
    got = parse.order_status(answer(f'{{"status":"OK","paid":true,"number":{digits},"code":{digits}}}'))
    assert (got.number, got.code) == (digits, digits)


def test_a_number_is_digits_whatever_it_was_written_with() -> None:
    assert parse.order_status(status(number="+1 (234) 567-8901")).number == "12345678901"


def test_a_code_may_be_a_sentence_of_several_lines() -> None:
    text = "Your code is\n 123-456.\u00a0 Do not share it with anybody, whoever asks for it by whatever means!"
    assert parse.order_status(status(code=text)).code == " ".join(text.split())


def test_a_broken_number_does_not_hide_a_code() -> None:
    got = parse.order_status(status(number="abc", code="1234"))
    assert (got.number, got.code) == (None, "1234")


@pytest.mark.parametrize("body", [{}, {"status": "OK"}, {"status": "OK", "paid": None}, {"status": "OK", "paid": "x"}])
def test_a_reply_that_does_not_say_whether_it_was_paid_never_reads_as_unpaid(body: dict[str, object]) -> None:
    with pytest.raises(ProviderProtocolError, match="whether it was paid"):
        parse.order_status(answer(body))


@pytest.mark.parametrize("paid", ["yes", "settled", 2, [], None])
def test_a_word_about_payment_that_cannot_be_read_does_not_hide_a_code(paid: object) -> None:
    got = parse.order_status(status(paid=paid, code="1234"))
    assert (got.code, got.is_paid) == ("1234", True)


def test_a_code_without_a_word_about_payment_was_paid_for() -> None:
    assert parse.order_status(answer({"status": "OK", "code": "1234"})).is_paid


def test_any_other_error_text_is_taken_the_same_way_and_shortened() -> None:
    got = parse.order_status(status(error="sorry\n" + "x" * 1000))
    assert got.error is not None
    assert got.error.startswith("sorry xxx")
    assert len(got.error) == parse.MAX_TEXT_CHARS


def test_an_error_that_is_not_text_is_still_an_error() -> None:
    assert parse.order_status(status(error={"why": 5})).error == '{"why": "5"}'


def test_the_order_id_is_cut_out_of_texts() -> None:
    with pytest.raises(ProviderRefused) as caught:
        parse.order_status(answer({"status": "error", "reason": f"order {'ab' * 32} not found"}))
    assert "order abababab… not found" in caught.value.message


def test_unknown_fields_are_normal() -> None:
    assert parse.order_status(status(number=1, somethingNew={"a": [1]}, id=None)).number == "1"


# --- cancel, services, prices ---------------------------------------------------------------------------------------


def test_a_cancel_is_accepted_by_ok_only() -> None:
    parse.cancel_accepted(example("cancelorder"))
    for neither in ({}, {"paid": True}, {"status": None}):
        with pytest.raises(ProviderProtocolError):
            parse.cancel_accepted(answer(neither))
    for no in ({"status": "error", "reason": "too early"}, {"status": "OK", "error": "too early"}):
        with pytest.raises(ProviderRefused, match="too early"):
            parse.cancel_accepted(answer(no))


def test_the_reference_services_have_a_stock() -> None:
    assert parse.services(example("getnumbersstatus")) == (ServiceInfo("vk", "vk.com", 28),)


def test_services_are_known_by_value_or_key_with_any_kind_of_count() -> None:
    rows = [
        {"key": "go", "text": "Google", "count": 5},
        {"key": "x", "value": "wa", "count": "many"},
        {"value": "tg", "text": "Tele\ngram", "count": "0"},
        {"text": "no code"},
        "no row",
        {"value": "a/b"},
    ]
    assert parse.services(answer(rows)) == (
        ServiceInfo("go", "Google", 5),
        ServiceInfo("wa", "wa", None),
        ServiceInfo("tg", "Tele gram", 0),
    )


def test_no_services_are_an_empty_list_and_nonsense_is_not() -> None:
    assert parse.services(answer([])) == ()
    for body in ([1, 2], {"a": 1}, "null", "5"):
        with pytest.raises(ProviderProtocolError):
            parse.services(answer(body))


def country(code: int, name: str, is_shown: bool | None = None, has_rentals: bool | None = None) -> ListedCountry:
    return ListedCountry(code=code, name=name, is_shown=is_shown, has_rentals=has_rentals)


def test_countries_are_read_with_numbers_and_texts_for_each_other() -> None:
    rows = [
        {"id": 0, "eng": "Russia", "visible": 1, "rent": "0", "rus": "?"},
        {"id": "187", "eng": "US\nA", "visible": "false", "rent": True},
        {"id": 43.0, "eng": "Germany", "rent": None},
        {"id": 16, "eng": ""},
        {"eng": "Nowhere"},
        {"id": -1, "eng": "Nowhere"},
        7,
    ]
    assert parse.countries(answer(rows)) == (
        country(0, "Russia", True, False),
        country(187, "US A", False, True),
        country(43, "Germany"),
    )


@pytest.mark.parametrize("body", [[], [{"id": 5}], [7], {"a": 1}, [{"id": 1, "eng": "x"}] * (parse.MAX_ROWS + 1)])
def test_a_list_of_countries_without_any_is_nonsense(body: object) -> None:
    with pytest.raises(ProviderProtocolError):
        parse.countries(answer(body))


def test_the_reference_rentals_have_weeks_and_a_price() -> None:
    assert parse.rentals(example("getRentalCountries")) == (
        RentalOffer(6, "Indonesia", 2, 1368),
        RentalOffer(16, "England", 2, 4815),
    )


def test_a_rental_in_country_zero_is_one() -> None:
    for zero in (0, "0", 0.0, [0]):
        rows = [{"cc": zero, "country": "Russia", "duration": "1", "price": 5}]
        assert parse.rentals(answer(rows)) == (RentalOffer(0, "Russia", 1, 5),)
        assert parse.rentals(answer([{"cc": zero}])) == (RentalOffer(0, "", None, None),)


def test_rentals_are_read_with_numbers_and_texts_for_each_other() -> None:
    rows = [
        {"cc": "6", "country": "Indo\nnesia", "duration": 2, "price": "1368"},
        {"cc": 16.0, "duration": " 4 ", "price": 4815.2, "new": {}},
        {"country": "Somewhere", "duration": "4 hours", "price": "dear"},
        {"cc": 6, "country": ["x"], "duration": 0, "price": 0},
    ]
    assert parse.rentals(answer(rows)) == (
        RentalOffer(6, "Indo nesia", 2, 1368),
        RentalOffer(16, "", 4, 4816),
        RentalOffer(None, "Somewhere", None, None),
        RentalOffer(6, "", None, None),
    )


@pytest.mark.parametrize(
    "country", [{}, {"cc": None}, {"cc": True}, {"cc": -1}, {"cc": 6.5}, {"cc": "9" * 7}, {"cc": ""}]
)
def test_a_rental_that_names_no_country_is_left_out(country: dict[str, object]) -> None:
    row = {"duration": "2", "price": 1368}
    assert parse.rentals(answer([{**row, **country}, {**row, "cc": 6}, "no row"])) == (RentalOffer(6, "", 2, 1368),)


def test_no_rentals_are_an_empty_list_and_nonsense_is_not() -> None:
    assert parse.rentals(answer([])) == ()
    for body in ([1, 2], [{"price": 5}], {"a": 1}, "null", "5", [{"cc": 6}] * (parse.MAX_ROWS + 1)):
        with pytest.raises(ProviderProtocolError):
            parse.rentals(answer(body))


def test_prices_are_read_with_and_without_a_query() -> None:
    assert prices(example("price")) == Prices(
        receive_sat=3000, send_sat=1000, rent_from_sat=15_000, real_phone_sat=5000, asked_at_ms=NOW_MS
    )
    assert prices(example("price_query")) == Prices(
        receive_sat=1500,
        send_sat=3000,
        rent_from_sat=15_000,
        real_phone_sat=4000,
        exact_sat=1500,
        asked_at_ms=NOW_MS,
    )


@pytest.mark.parametrize("price", ["", None, 0, "0", "0.00"])
def test_a_price_that_is_not_said_is_unknown(price: object) -> None:
    assert prices(answer({"receive": price, "computed": {"price": price}})) == Prices(asked_at_ms=NOW_MS)


@pytest.mark.parametrize("price", [-1, "abc", "9" * 11, "9" * 400, [1, 2], True, {"a": 1}, "1e9999"])
def test_a_price_that_cannot_be_read_is_as_good_as_none_and_hides_no_other(price: object) -> None:
    got = prices(answer({"receive": price, "send": price, "rent": price, "computed": {"price": 1500}}))
    assert got == Prices(exact_sat=1500, asked_at_ms=NOW_MS)


@pytest.mark.parametrize(
    ("said", "price_sat"), [(1499.01, 1500), ("1500.0", 1500), ([1500], 1500), (0.2, 1), ("1.5e3", 1500)]
)
def test_a_price_is_rounded_up_to_whole_sats(said: object, price_sat: int) -> None:
    assert prices(answer({"computed": {"price": said}})).exact_sat == price_sat


# --- the prepaid account --------------------------------------------------------------------------------------------


def test_the_reference_balance_is_in_sat() -> None:
    assert balance(example("balance")) == Balance(10_000, NOW_MS)


@pytest.mark.parametrize(
    ("said", "balance_sat"), [(0, 0), ("0", 0), ("10000", 10_000), (12.9, 12), ([5], 5), ("1e4", 10_000)]
)
def test_a_balance_may_be_nothing_and_is_rounded_down(said: object, balance_sat: int) -> None:
    assert balance(answer({"status": "OK", "balance": said})).balance_sat == balance_sat


@pytest.mark.parametrize("said", [None, "", "many", -5, True, {}, [], [1, 2], "9" * 13])
def test_a_balance_that_cannot_be_read_is_never_guessed(said: object) -> None:
    with pytest.raises(ProviderProtocolError, match="no number of sat"):
        balance(answer({"status": "OK", "balance": said}))


def test_without_a_key_the_account_is_refused() -> None:
    for read in (balance, parse.funding):
        with pytest.raises(ProviderRefused, match="X-API-Key header is missing"):
            read(example("balance_no_key", 400))


def test_the_reference_history_is_read_without_the_key_in_it() -> None:
    got = parse.funding(example("history"))
    assert got == Funding(
        349_500,
        (
            FundingEntry(
                amount_sat=9500,
                price_sat=9500,
                created_at_ms=1_668_612_831_730,
                description="fund account",
                payment_hash="",
                preimage="",
            ),
        ),
    )
    assert "APIKEY" not in repr(got)


def test_history_is_newest_first_and_each_field_is_judged_by_itself() -> None:
    rows: list[object] = [
        {"amount": "5", "createdAt": "1000", "preimage": "AB" * 32, "preimageHash": "cd" * 32, "desc": "a\x1bb"},
        {"amount": {}, "createdAt": "soon", "price": 7},
        {"amount": 6, "createdAt": 2000},
        "no row",
    ]
    got = parse.funding(answer({"orders": rows}))
    assert [(entry.amount_sat, entry.created_at_ms, entry.price_sat) for entry in got.entries] == [
        (6, 2000, None),
        (5, 1000, None),
        (None, None, 7),
    ]
    assert got.total_sat is None
    assert (got.entries[1].preimage, got.entries[1].payment_hash) == ("ab" * 32, "cd" * 32)
    assert got.entries[1].description.isprintable()


def test_no_history_is_empty_and_nonsense_is_not() -> None:
    assert parse.funding(answer({"status": "OK", "totalAmount": 0, "orders": []})) == Funding(0, ())
    odd: list[object] = [None, {}, "none", ["a", 1], [{}] * (parse.MAX_ENTRIES + 1)]
    for orders in odd:
        with pytest.raises(ProviderProtocolError):
            parse.funding(answer({"status": "OK", "orders": orders}))


# --- the answer as a whole ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", ALL)
def test_a_server_error_is_a_passing_problem_with_the_providers_words(read: Callable[[Answer], object]) -> None:
    with pytest.raises(ProviderUnavailable, match="unable to save data") as caught:
        read(example("error_500", 500))
    assert caught.value.retryable
    assert caught.value.retry_after_s is None


@pytest.mark.parametrize("read", ALL)
def test_the_same_words_with_http_200_or_400_are_a_refusal(read: Callable[[Answer], object]) -> None:
    for http_status in (200, 400):
        with pytest.raises(ProviderRefused, match="unable to save data"):
            read(example("error_500", http_status))


def test_a_no_by_http_status_alone_is_a_refusal() -> None:
    with pytest.raises(ProviderRefused, match="HTTP 404"):
        parse.order_status(answer({"paid": False}, 404))


@pytest.mark.parametrize(
    "given", [answer("Log in", 401), answer("denied", 403), answer("proxy", 407), answer(" <!doctype html>")]
)
@pytest.mark.parametrize("read", ALL)
def test_a_page_of_somebody_in_between_is_not_called_a_change_of_the_api(
    read: Callable[[Answer], object], given: Answer
) -> None:
    with pytest.raises(ProviderProtocolError, match="web page came in place of sms4sats's answer") as caught:
        read(given)
    assert "log in to the network" in caught.value.message
    assert "API has changed" not in caught.value.message


@pytest.mark.parametrize("http_status", [400, 500])
def test_an_e_mail_address_is_in_no_message(http_status: int) -> None:
    body = {"status": "error", "reason": "invalid address Satoshi.N@mail.example.com, sorry"}
    with pytest.raises((ProviderRefused, ProviderUnavailable), match='"invalid address …@… sorry"'):
        parse.placed(answer(body, http_status))


def test_an_e_mail_address_is_in_no_error_of_an_order() -> None:
    assert parse.order_status(status(error="no mailbox satoshi@example.com")).error == "no mailbox …@…"


def test_a_missing_key_is_a_refusal() -> None:
    with pytest.raises(ProviderRefused, match="X-API-Key"):
        parse.order_status(example("balance_no_key", 400))


@pytest.mark.parametrize("read", ALL)
def test_a_429_says_when_to_come_back(read: Callable[[Answer], object]) -> None:
    for said_s, meant_s in ((None, parse.DEFAULT_PAUSE_S), (17.0, 17.0), (0.0, 0.0)):
        with pytest.raises(ProviderUnavailable) as caught:
            read(Answer(429, b"<html>", said_s))
        assert caught.value.retry_after_s == meant_s
        assert caught.value.is_turned_away


def test_a_failure_inside_the_provider_that_names_a_pause_does_not_say_that_nothing_was_done() -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        parse.order_status(Answer(503, b"<html>", 17.0))
    assert (caught.value.retry_after_s, caught.value.is_turned_away) == (17.0, False)


@pytest.mark.parametrize("read", ALL)
@pytest.mark.parametrize(
    "given",
    [
        answer(""),
        answer("<html>Welcome"),
        Answer(200, b"\xff\xfe{}"),
        answer("NaN"),
        answer('{"status": "OK", "price": Infinity}'),
        answer("[" * 100_000),
        answer('"OK"'),
        answer({"status": "maybe", "paid": False}),
        answer("moved", 302),
        answer("not here", 404),
        Answer(204, b""),
    ],
)
def test_garbage_is_a_protocol_error_that_keeps_the_body(read: Callable[[Answer], object], given: Answer) -> None:
    with pytest.raises(ProviderProtocolError) as caught:
        read(given)
    assert caught.value.raw == given.raw


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ["status", "paid", "code", "number", "error", "reason", "orderId", "payreq", "computed", "receive", "value"]
FIELDS += [
    "smsStatus",
    "messages",
    "sms",
    "balance",
    "orders",
    "cc",
    "country",
    "duration",
    "price",
    "id",
    "eng",
    "visible",
    "rent",
]


@given(
    st.sampled_from([200, 400, 404, 429, 500, 302]),
    st.dictionaries(st.sampled_from(FIELDS), JSON) | st.lists(JSON) | st.binary(max_size=50),
)
def test_whatever_comes_is_understood_or_an_error_of_the_provider(http_status: int, body: object) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    messages = []
    for read in ALL:
        try:
            read(Answer(http_status, raw))
        except ProviderError as error:
            messages.append(error.message)
    assert all(message.isprintable() and len(message) < 600 for message in messages)
