"""The simulated sms4sats against the reference: what a client sees, and what becomes of the hold invoice."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from holdpay.sandbox import bolt11
from holdpay.sandbox.payee import HoldInvoiceError, InvoiceState, Refused, Settled
from holdpay.sandbox.sms4sats_knobs import Knobs, Scenario, change_knobs
from holdpay.sandbox.sms4sats_orders import CANCELED_TEXT, NO_NUMBER_TEXT
from tests.unit.sandbox.provider import World, example, running, same_shape
from tests.unit.sms4sats.clock import settle

# --- shapes ---------------------------------------------------------------------------------------------------------


async def test_every_reply_has_the_shape_of_the_reference(world: World) -> None:
    same_shape((await world.get("/getnumbersstatus", country=187)).json(), example("getnumbersstatus"))
    same_shape((await world.get("/getRentalCountries")).json(), example("getRentalCountries"))
    same_shape((await world.get("/price")).json(), example("price"))
    order = await world.order()
    same_shape(order, example("createorder"))
    await world.pay(order)
    await world.clock.advance(41)
    same_shape(await world.status(order), example("orderstatus_receive"))
    same_shape((await world.get("/orderstatus", orderId="0")).json(), example("error_500"))


async def test_a_quote_has_the_exact_price_and_mixes_numbers_with_strings(world: World) -> None:
    quote = (await world.get("/price", country=0, service="dr")).json()
    assert quote["computed"] == {"price": 3000, "country": 0, "description": "sms4sats payment Russia dr"}
    assert (quote["receive"], quote["send"]) == ("3000", 1000)


async def test_all_countries_are_listed_once(world: World) -> None:
    rows = (await world.get("/getCountries")).json()
    assert len(rows) == 185
    assert {"id": 0, "eng": "Russia", "visible": 1} in rows


async def test_the_root_says_that_the_service_is_up(world: World) -> None:
    assert (await world.get("/")).status_code == 200


async def test_an_unknown_path_is_an_html_404(world: World) -> None:
    reply = await world.get("/nothing")
    assert (reply.status_code, reply.text[:5]) == (404, "<!DOC")


async def test_an_order_has_a_genuine_hold_invoice_like_the_references(world: World) -> None:
    order = await world.order(country=43, service="twitter")
    invoice = bolt11.decode(order["payreq"], world.payee.network_name)
    terms = invoice.terms
    assert terms.payment_hash.hex() == order["orderId"]
    assert (terms.amount_msat, terms.expiry_s, terms.min_final_cltv_delta) == (3_000_000, 86_400, 40)
    assert terms.description == "sms4sats payment Germany twitter"
    assert invoice.payee_pubkey.hex() == await world.payee.pubkey()


@pytest.mark.parametrize("body", [{"country": 17}, {"country": "germany"}, {"country": None}, {"service": ""}])
async def test_an_order_without_a_known_country_or_a_service_is_a_500(world: World, body: dict[str, Any]) -> None:
    assert await world.order(**body) == {"status": "error", "reason": "unable to save data"}


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 60_000, b'{"country": 187, "service": "\\ud800"}'])
async def test_a_body_that_cannot_be_read_is_a_500(world: World, content: bytes) -> None:
    reply = await world.http.post(world.provider.url + "/createorder", content=content)
    assert (reply.status_code, reply.json()) == (500, example("error_500"))


async def test_where_there_is_no_such_country_there_is_nothing_to_tell(world: World) -> None:
    assert (await world.get("/getnumbersstatus", country="nowhere")).json() == []
    quote = (await world.get("/price", country=17, service="dr")).json()
    assert (quote["query"], "computed" in quote) == ({"country": "17", "service": "dr"}, False)
    assert (await world.get("/getRentalCountries", service="nothing")).json() == []


async def test_countries_that_rent_numbers_out_say_so(world: World) -> None:
    renting = [row["id"] for row in (await world.get("/getCountries")).json() if row.get("rent")]
    assert renting == [row["cc"] for row in (await world.get("/getRentalCountries")).json()]


async def test_a_real_phone_has_its_own_price(world: World) -> None:
    world.knobs.realphone_sat = 6000
    order = await world.order(realphone=True)
    assert bolt11.decode(order["payreq"], world.payee.network_name).terms.amount_msat == 6_000_000
    assert (await world.get("/price")).json()["s4s"] == 6000


async def test_who_earns_a_share_is_remembered(world: World) -> None:
    await world.order(ref="me@example.com")
    await world.order()
    assert [order.ref for order in world.provider.orders.values()] == ["me@example.com", ""]


async def test_russia_is_country_zero(world: World) -> None:
    assert (await world.order(country=0))["status"] == "OK"


async def test_paying_from_a_balance_needs_a_key(world: World) -> None:
    assert (await world.order(immediate=True))["reason"] == "X-API-Key header is missing."


# --- the life of an order -------------------------------------------------------------------------------------------


async def test_an_unpaid_order_says_so_with_absent_values(world: World) -> None:
    status = await world.status(await world.order())
    assert (status["paid"], status["number"], status["code"]) == (False, 0, 0)


async def test_paid_then_number_then_code_then_settled(world: World) -> None:
    order = await world.order()
    await world.pay(order)
    status = await world.status(order)
    assert (status["paid"], status["number"], status["code"]) == (True, 0, 0)
    await world.clock.advance(12)
    status = await world.status(order)
    assert (len(str(status["number"])), status["code"]) == (11, 0)
    await world.clock.advance(28)
    assert (await world.status(order))["code"] > 0
    assert await world.invoice(order) is InvoiceState.ACCEPTED
    await world.clock.advance(0.5)
    assert isinstance(world.answers[0], Settled)
    assert bolt11.payment_hash_of(world.answers[0].preimage).hex() == order["orderId"]


async def test_a_negative_settle_lag_settles_first(world: World) -> None:
    world.knobs.scenario = Scenario(settle_lag_s=-5)
    order = await world.order()
    await world.pay(order)
    await world.clock.advance(35)
    assert (await world.status(order))["code"] == 0
    assert await world.invoice(order) is InvoiceState.SETTLED
    await world.clock.advance(5)
    assert (await world.status(order))["code"] > 0


async def test_a_code_as_a_string_keeps_its_zeros_and_as_a_number_loses_them(world: World) -> None:
    world.knobs.queue.extend([Scenario(code="004801", as_numbers=False), Scenario(code="004801")])
    orders = [await world.order(), await world.order()]
    for order in orders:
        await world.pay(order)
    await world.clock.advance(60)
    statuses = [await world.status(order) for order in orders]
    assert [status["code"] for status in statuses] == ["004801", 4801]
    assert isinstance(statuses[0]["number"], str)


@pytest.mark.parametrize("scenario", [Scenario(no_number=True), Scenario(no_code=True)])
async def test_without_a_code_the_order_is_over_at_the_promise_and_the_money_goes_back(
    world: World, scenario: Scenario
) -> None:
    world.knobs.scenario = scenario
    order = await world.order()
    await world.pay(order)
    await world.clock.advance(1259)
    status = await world.status(order)
    assert ("error" in status, status["number"] == 0) == (False, scenario.no_number)
    await world.clock.advance(1)
    assert await world.status(order) == example("orderstatus_no_number")
    assert await world.invoice(order) is InvoiceState.ACCEPTED
    await world.clock.advance(0.5)
    assert world.answers == [Refused()]


async def test_a_negative_cancel_lag_gives_the_money_back_first(world: World) -> None:
    world.knobs.scenario = Scenario(no_number=True, gives_up_after_s=10, cancel_lag_s=-5)
    order = await world.order()
    await world.pay(order)
    await world.clock.advance(10)
    assert world.answers == [Refused()]
    assert "error" not in await world.status(order)
    await world.clock.advance(5)
    assert (await world.status(order))["error"] == NO_NUMBER_TEXT


async def test_the_pace_makes_its_world_faster(world: World) -> None:
    async with running(World(pace=60)) as fast:
        order = await fast.order()
        await fast.pay(order)
        await fast.clock.advance(0.5)
        assert (await fast.status(order))["code"] > 0


async def test_a_cancel_is_taken_from_two_minutes_on_and_ends_the_order(world: World) -> None:
    world.knobs.scenario = Scenario(no_code=True)
    order = await world.order()
    await world.pay(order)
    await world.clock.advance(119)
    assert (await world.cancel(order))["status"] == "error"
    await world.clock.advance(1.1)
    assert await world.cancel(order) == {"status": "OK"}
    assert await world.status(order) == {"status": "OK", "paid": True, "error": CANCELED_TEXT}
    await world.clock.advance(0.5)
    assert world.answers == [Refused()]
    assert await world.cancel(order) == {"status": "OK"}


async def test_after_a_cancel_no_number_and_no_code_comes_any_more(world: World) -> None:
    world.knobs.scenario = Scenario(number_after_s=125, code_after_s=130)
    order = await world.order()
    await world.pay(order)
    await world.clock.advance(121)
    await world.cancel(order)
    await world.clock.advance(60)
    assert await world.status(order) == {"status": "OK", "paid": True, "error": CANCELED_TEXT}
    assert (world.provider.orders[order["orderId"]].number, world.answers) == ("", [Refused()])


async def test_a_cancel_after_the_code_is_refused(world: World) -> None:
    world.knobs.scenario = Scenario(code_after_s=130)
    order = await world.order()
    await world.pay(order)
    await world.clock.advance(131)
    assert (await world.cancel(order))["status"] == "error"
    assert isinstance(world.answers[0], Settled)


async def test_an_unpaid_order_can_be_canceled_and_not_paid_any_more(world: World) -> None:
    order = await world.order()
    await world.clock.advance(121)
    assert await world.cancel(order) == {"status": "OK"}
    await world.clock.advance(1)
    await world.pay(order)
    assert world.answers == [Refused()]
    assert (await world.status(order))["paid"] is False


async def test_an_invoice_that_nobody_paid_in_time_ends_the_order(world: World) -> None:
    world.knobs.scenario = Scenario(invoice_expiry_s=60)
    order = await world.order()
    await world.clock.advance(62)
    assert (await world.status(order))["error"] == CANCELED_TEXT


async def test_a_code_whose_money_had_to_be_given_back_is_still_shown(world: World) -> None:
    world.knobs.scenario = Scenario(settle_lag_s=20)
    order = await world.order()
    await world.pay(order)
    await world.clock.advance(41)
    await world.payee.cancel(bytes.fromhex(order["orderId"]))
    await world.clock.advance(20)
    assert (await world.status(order))["error"] == CANCELED_TEXT


async def test_a_node_that_is_away_is_asked_again_until_it_settles(world: World) -> None:
    order = await world.order()
    await world.pay(order)
    settle_at_node, calls = world.payee.settle, 0

    async def away(preimage: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise HoldInvoiceError("the node does not answer")
        await settle_at_node(preimage)

    world.payee.settle = away  # type: ignore[method-assign]
    await world.clock.advance(60)
    assert calls == 4
    assert isinstance(world.answers[0], Settled)


async def test_flipping_replies_say_unpaid_every_second_time(world: World) -> None:
    world.knobs.scenario = Scenario(flips=True)
    order = await world.order()
    await world.pay(order)
    await world.clock.advance(60)
    replies = [await world.status(order) for _ in range(4)]
    assert [reply["paid"] for reply in replies] == [True, False, True, False]
    assert [bool(reply["code"]) for reply in replies] == [True, False, True, False]


async def test_an_overpriced_invoice_with_another_id_can_be_made(world: World) -> None:
    world.knobs.scenario = Scenario(overprice_percent=50, other_order_id=True)
    order = await world.order()
    terms = bolt11.decode(order["payreq"], world.payee.network_name).terms
    assert terms.amount_msat == 4_500_000
    assert terms.payment_hash.hex() != order["orderId"]


async def test_stopping_leaves_what_is_held(world: World) -> None:
    order = await world.order()
    await world.pay(order)
    await world.provider.stop()
    await world.clock.advance(5000)
    assert world.answers == []


# --- faults ---------------------------------------------------------------------------------------------------------


async def test_faults_come_as_often_as_asked_and_on_the_path_asked(world: World) -> None:
    world.knobs.only_path = "/price"
    world.knobs.http_429, world.knobs.retry_after_s = 2, 7
    world.knobs.http_500 = world.knobs.garbage = 1
    assert (await world.get("/")).status_code == 200
    replies = [await world.get("/price") for _ in range(5)]
    assert [reply.status_code for reply in replies] == [429, 429, 500, 200, 200]
    assert replies[0].headers["Retry-After"] == "7"
    assert replies[2].json() == example("error_500")
    assert replies[3].text.startswith("<html>")
    assert replies[4].json()["receive"] == 3000


async def test_a_500_has_the_words_of_its_endpoint(world: World) -> None:
    world.knobs.http_500 = 2
    assert (await world.send())["reason"] == "backend error"
    assert (await world.order())["reason"] == "unable to save data"


async def test_lost_replies_are_those_to_requests_that_changed_something(world: World) -> None:
    world.knobs.lost_replies = 2
    assert (await world.get("/price")).status_code == 200
    with pytest.raises(httpx.RemoteProtocolError):
        await world.order()
    (order,) = world.provider.orders.values()
    assert (await world.get("/orderstatus", orderId=order.order_id)).status_code == 200
    await world.clock.advance(121)
    with pytest.raises(httpx.RemoteProtocolError):
        await world.cancel({"orderId": order.order_id})
    assert order.error == CANCELED_TEXT
    assert await world.cancel({"orderId": order.order_id}) == {"status": "OK"}


async def test_replies_are_lost_on_the_path_asked(world: World) -> None:
    world.knobs.only_path, world.knobs.lost_replies = "/fund", 1
    assert (await world.order())["status"] == "OK"
    with pytest.raises(httpx.RemoteProtocolError):
        await world.fund(1000)
    assert (len(world.provider.funds), world.knobs.lost_replies) == (1, 0)


async def test_orders_are_refused_with_http_200(world: World) -> None:
    world.knobs.refuse_orders = 1
    assert (await world.order())["status"] == "error"
    assert (await world.order())["status"] == "OK"


async def test_stock_and_price_can_be_set(world: World) -> None:
    world.knobs.stock, world.knobs.price_sat = 0, 1234
    assert {row["count"] for row in (await world.get("/getnumbersstatus", country=0)).json()} == {"0"}
    assert (await world.get("/price")).json()["receive"] == 1234


async def test_a_slow_server_answers_late(world: World) -> None:
    world.knobs.slow_s = 3
    request = asyncio.create_task(world.get("/"))
    while not world.clock._sleepers:
        await asyncio.sleep(0)
    await settle()
    assert not request.done()
    await world.clock.advance(3)
    assert (await request).status_code == 200


async def test_requests_are_counted_by_path_with_their_times(world: World) -> None:
    for _ in range(3):
        await world.get("/price")
        await world.clock.advance(2)
    await world.get("/")
    assert world.provider.requests == {"/price": 3, "/": 1}
    times_s = [at_s for at_s, request in world.provider.request_log if request.path == "/price"]
    assert times_s[2] - times_s[0] == pytest.approx(4)


async def test_the_provider_can_be_away_for_a_while_and_its_orders_go_on(world: World) -> None:
    order = await world.order()
    await world.pay(order)
    url = world.provider.url
    await world.provider.http.stop()
    with pytest.raises(httpx.TransportError):
        await world.status(order)
    await world.clock.advance(60)
    await world.provider.http.start()
    assert world.provider.url == url
    assert (await world.status(order))["code"] > 0


# --- knobs over HTTP ------------------------------------------------------------------------------------------------


async def test_knobs_can_be_turned_over_http(world: World) -> None:
    changes = {"stock": 0, "scenario": {"no_code": True}, "queue": [{"code": "123"}]}
    reply = await world.http.post(world.provider.url + "/sandbox", json=changes)
    assert reply.status_code == 200
    assert world.knobs.stock == 0
    assert world.knobs.scenario == Scenario(no_code=True)
    assert list(world.knobs.queue) == [Scenario(no_code=True, code="123")]
    await world.order()
    told = (await world.get("/sandbox")).json()
    assert (told["requests"], len(told["orders"])) == ({"/createorder": 1}, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"nothing": 1},
        {"stock": "0"},
        {"stock": True},
        {"slow_s": None},
        {"scenario": {"no_cod": True}},
        {"scenario": 5},
        {"scenario": {"no_code": 1}, "stock": 0},
        {"scenario": {"messages_after_s": 5}},
        {"scenario": {"messages_after_s": ["5"]}},
        {"scenario": {"fails_instead_of": "created"}},
        {"queue": {}},
        {"queue": [5]},
        [],
    ],
)
async def test_a_knob_that_is_not_there_or_of_another_type_changes_nothing(world: World, changes: object) -> None:
    reply = await world.http.post(world.provider.url + "/sandbox", json=changes)
    assert reply.status_code == 400
    assert world.knobs == Knobs()


async def test_orders_of_every_kind_are_told(world: World) -> None:
    await world.order()
    await world.send()
    await world.fund(1000)
    orders = (await world.get("/sandbox")).json()["orders"]
    assert [("code" in each, "smsStatus" in each, "credited" in each) for each in orders] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]


def test_a_list_is_taken_for_the_times_of_messages() -> None:
    knobs = Knobs()
    change_knobs(knobs, {"scenario": {"messages_after_s": [1, 2.5]}})
    assert knobs.scenario == Scenario(messages_after_s=(1, 2.5))


def test_a_whole_number_fits_a_fractional_knob() -> None:
    knobs = Knobs()
    change_knobs(knobs, {"slow_s": 1})
    assert knobs.slow_s == 1


# --- the HTTP server ------------------------------------------------------------------------------------------------


LAST_REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def exchange(world: World, sent: bytes) -> bytes:
    host, port = world.provider.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    received = await reader.read()
    writer.close()
    return received


async def test_a_connection_is_kept_for_further_requests(world: World) -> None:
    received = await exchange(world, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + LAST_REQUEST)
    assert received.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /?" + b"a=1&" * 60 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 100_000 + b"\r\n\r\n", b"431"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70_000, b"413"),
    ],
)
async def test_a_request_out_of_bounds_ends_its_connection_only(world: World, sent: bytes, status: bytes) -> None:
    assert (await exchange(world, sent)).startswith(b"HTTP/1.1 " + status)
    assert (await world.get("/")).status_code == 200


async def test_a_client_that_breaks_off_harms_nobody(world: World) -> None:
    host, port = world.provider.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /createorder HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    writer.close()
    assert (await world.get("/")).status_code == 200
