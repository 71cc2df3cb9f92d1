"""The CodeProvider port over real HTTP: against the simulated sms4sats, and against servers that behave badly."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from holdpay.core.events import ProviderStatus
from holdpay.core.kinds.spec import Placing
from holdpay.errors import ProviderError, ProviderProtocolError, ProviderRefused, ProviderUnavailable
from holdpay.ports import Lane, ListedCountry, Placed, RentalOffer, Reply, ServiceInfo
from holdpay.sandbox import bolt11
from holdpay.sandbox.payee import Answer, IncomingHtlc, Payee, Refused, Settled
from holdpay.sandbox.sms4sats import SimulatedSms4Sats
from holdpay.sandbox.sms4sats_knobs import Knobs, Scenario
from holdpay.sandbox.tls import write_certificate
from holdpay.sms4sats.client import (
    GET_TRIES,
    MAX_LIST_BYTES,
    MAX_ORDER_BYTES,
    PATIENCE_S,
    Sms4Sats,
    Sms4SatsSettings,
    retry_after,
)
from tests.contract.provider_servers import (
    Answerer,
    RawServer,
    SocksProxy,
    TunnelProxy,
    cut_off,
    dribble,
    flood,
    hang_up,
    http,
    listening,
    never,
    raw_server,
)
from tests.unit.sms4sats.clock import ManualClock, SkippingClock, settle

USA_OPENAI = Placing(path="/createorder", body={"country": 187, "service": "dr"})
ORDER_ID = "7dc6e6b61d8c54dff6b8d6ea2e3f08b018e57963df81d493a6f9728c4dc83318"


@asynccontextmanager
async def connected(url: str, clock: ManualClock | None = None, **settings: Any) -> AsyncIterator[Sms4Sats]:
    defaults = Sms4SatsSettings(url=url, proxy=None, ca_file=None, api_key=None, timeout_s=5, max_requests_per_s=2)
    fields = {name: getattr(defaults, name) for name in Sms4SatsSettings.__slots__}
    client = Sms4Sats(Sms4SatsSettings(**{**fields, **settings}), clock or SkippingClock(), random.Random(1))
    try:
        yield client
    finally:
        await client.aclose()


def invoice_of(placed: Placed) -> str:
    assert placed.payreq is not None
    return placed.payreq


class Market:
    """The simulated sms4sats with its node, and a client of the port. Its clock and the client's go their own ways."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.payee = Payee(self.clock)
        self.server = SimulatedSms4Sats(self.payee, self.clock)
        self.client_clock = SkippingClock()
        self.client: Sms4Sats
        self.answers: list[Answer] = []

    @property
    def knobs(self) -> Knobs:
        return self.server.knobs

    async def order(self) -> Placed:
        return (await self.client.place(USA_OPENAI)).value

    async def pay(self, placed: Placed) -> None:
        terms = bolt11.decode(invoice_of(placed), self.payee.network_name).terms
        assert terms.payment_secret is not None
        assert terms.amount_msat is not None
        amount_msat = terms.amount_msat
        self.payee.receive(
            IncomingHtlc(terms.payment_hash, terms.payment_secret, amount_msat, amount_msat, 900, self.answers.append),
            100,
        )
        await self.clock.advance(1)


@pytest_asyncio.fixture
async def market() -> AsyncIterator[Market]:
    market = Market()
    await market.server.start()
    async with connected(market.server.url, market.client_clock) as market.client:
        yield market
    await market.server.stop()


# --- the simulated sms4sats -----------------------------------------------------------------------------------------


async def test_an_order_goes_from_unpaid_to_a_code_that_is_paid_for(market: Market) -> None:
    placed = await market.order()
    assert bolt11.decode(invoice_of(placed), "simnet").terms.payment_hash.hex() == placed.provider_order_id
    reply = await market.client.order_status(placed.provider_order_id)
    assert (reply.value.is_paid, reply.value.number, reply.value.code, reply.value.error) == (False, None, None, None)
    await market.pay(placed)
    assert (await market.client.order_status(placed.provider_order_id)).value.is_paid
    await market.clock.advance(12)
    status = (await market.client.order_status(placed.provider_order_id)).value
    assert status.number is not None
    assert len(status.number) == 11
    assert status.code is None
    await market.clock.advance(60)
    reply = await market.client.order_status(placed.provider_order_id)
    assert reply.value.code is not None
    assert reply.value.code_may_lack_zeros
    assert reply.value.code in reply.raw
    assert isinstance(market.answers[0], Settled)


async def test_a_code_as_a_string_keeps_its_zeros(market: Market) -> None:
    market.knobs.scenario = Scenario(as_numbers=False, code="004711")
    placed = await market.order()
    await market.pay(placed)
    await market.clock.advance(60)
    status = (await market.client.order_status(placed.provider_order_id)).value
    assert (status.code, status.code_may_lack_zeros) == ("004711", False)


async def test_an_order_without_a_number_is_over_and_refunded(market: Market) -> None:
    market.knobs.scenario = Scenario(no_number=True)
    placed = await market.order()
    await market.pay(placed)
    await market.clock.advance(1260)
    status = (await market.client.order_status(placed.provider_order_id)).value
    assert status.is_paid
    assert status.error is not None
    assert status.error.startswith("No available number")
    assert market.answers == [Refused()]


async def test_a_cancel_is_refused_before_two_minutes_and_accepted_after(market: Market) -> None:
    market.knobs.scenario = Scenario(no_code=True)
    placed = await market.order()
    await market.pay(placed)
    with pytest.raises(ProviderRefused, match="2 minutes"):
        await market.client.cancel(placed.provider_order_id)
    await market.clock.advance(121)
    reply = await market.client.cancel(placed.provider_order_id)
    assert reply == Reply(None, '{"status": "OK"}')
    assert (await market.client.order_status(placed.provider_order_id)).value.error is not None
    await market.clock.advance(1)
    assert market.answers == [Refused()]


async def test_an_order_that_the_provider_does_not_know_is_its_problem(market: Market) -> None:
    with pytest.raises(ProviderUnavailable, match="unable to save data"):
        await market.client.order_status("0" * 64)


async def test_a_refused_order_is_a_refusal_with_the_providers_words(market: Market) -> None:
    market.knobs.refuse_orders = 1
    with pytest.raises(ProviderRefused, match="no numbers for this service") as caught:
        await market.order()
    assert caught.value.raw is not None


async def test_placing_is_never_repeated_inside(market: Market) -> None:
    market.knobs.http_500 = 1
    with pytest.raises(ProviderUnavailable):
        await market.order()
    assert market.server.requests["/createorder"] == 1


async def test_services_and_prices_are_for_the_country_asked_for(market: Market) -> None:
    services = await market.client.services(0)
    assert ServiceInfo("dr", "OpenAI", 28) in services
    prices = await market.client.prices(0, "dr")
    assert (prices.exact_sat, prices.receive_sat, prices.real_phone_sat) == (3000, 3000, 5000)
    standard = await market.client.prices()
    assert (standard.exact_sat, standard.send_sat, standard.rent_from_sat) == (None, 1000, 15_000)
    assert standard.asked_at_ms == market.client_clock.now_ms()


async def test_the_countries_are_all_of_the_providers_and_say_where_numbers_are_rented(market: Market) -> None:
    countries = {country.code: country for country in await market.client.countries()}
    assert len(countries) == 185
    assert countries[0] == ListedCountry(code=0, name="Russia", is_shown=True, has_rentals=None)
    assert {code for code, country in countries.items() if country.has_rentals} == {6, 16}


async def test_who_listens_is_told_the_services_that_were_looked_up(market: Market) -> None:
    told: list[ServiceInfo] = []
    market.client.on_services = told.extend
    services = await market.client.services(187)
    assert told == list(services) != []


async def test_rentals_are_for_the_service_asked_for_and_for_all_without_one(market: Market) -> None:
    offers = await market.client.rentals()
    assert offers == (RentalOffer(6, "Indonesia", 2, 1368), RentalOffer(16, "England", 2, 4815))
    assert await market.client.rentals("dr") == offers
    assert await market.client.rentals("nosuch") == ()


async def test_many_who_ask_for_rentals_ask_once_in_ten_seconds(market: Market) -> None:
    await asyncio.gather(*(market.client.rentals("dr") for _ in range(20)))
    await market.client_clock.advance(9.9)
    await market.client.rentals("dr")
    assert market.server.requests["/getRentalCountries"] == 1
    await market.client_clock.advance(0.2)
    await market.client.rentals("dr")
    assert market.server.requests["/getRentalCountries"] == 2


async def test_many_who_ask_for_a_price_ask_once_in_ten_seconds(market: Market) -> None:
    await asyncio.gather(*(market.client.prices(187, "dr") for _ in range(20)))
    await market.client_clock.advance(9.9)
    await market.client.prices(187, "dr")
    assert market.server.requests["/price"] == 1
    await market.client_clock.advance(0.2)
    market.knobs.price_sat = 4000
    assert (await market.client.prices(187, "dr")).exact_sat == 4000


async def look(client: Sms4Sats, provider_order_id: str) -> Reply[ProviderStatus]:
    """As the scheduler asks."""
    with await client.slot(Lane.LOOK):
        return await client.order_status(provider_order_id)


async def test_all_requests_share_one_budget_in_which_what_only_looks_goes_last(market: Market) -> None:
    clock = ManualClock()
    placed = await market.order()
    async with connected(market.server.url, clock) as client:
        polls = [asyncio.create_task(look(client, placed.provider_order_id)) for _ in range(10)]
        await asyncio.wait(polls[:5])
        count = market.server.requests.total()
        others = [
            asyncio.create_task(ask())
            for ask in (
                client.prices,
                lambda: client.services(187),
                lambda: client.place(USA_OPENAI),
                lambda: client.cancel(placed.provider_order_id),
            )
        ]
        await settle()
        assert market.server.requests.total() == count
        await clock.advance(2.6)
        await asyncio.wait(others)
        assert isinstance(others[3].exception(), ProviderRefused)
        assert market.server.requests["/orderstatus"] == 6, "one by its age"
        await clock.advance(2.1)
        await asyncio.wait(polls)
        assert market.server.requests["/orderstatus"] == 10


async def test_a_429_makes_everybody_wait_as_long_as_it_asks(market: Market) -> None:
    clock = ManualClock()
    placed = await market.order()
    market.knobs.http_429, market.knobs.retry_after_s = 1, 7
    async with connected(market.server.url, clock) as client:
        with pytest.raises(ProviderUnavailable) as caught:
            await client.order_status(placed.provider_order_id)
        assert caught.value.retry_after_s == 7
        count = market.server.requests.total()
        waiting = [
            asyncio.create_task(ask())
            for ask in (
                lambda: look(client, placed.provider_order_id),
                lambda: client.cancel(placed.provider_order_id),
                lambda: client.place(USA_OPENAI),
                lambda: client.services(187),
                client.prices,
            )
        ]
        await clock.advance(6.9)
        assert market.server.requests.total() == count
        await clock.advance(0.2)
        async with asyncio.timeout(60):
            while market.server.requests.total() == count:
                await asyncio.sleep(0.01)
            while not all(task.done() for task in waiting):
                # One by one from now on: so many at once were too many.
                await clock.advance(1)
                await asyncio.sleep(0.02)
        assert market.server.requests.total() == count + 5


async def test_whoever_a_person_waits_for_fails_at_once_in_a_long_pause(market: Market) -> None:
    clock = ManualClock()
    market.knobs.http_429, market.knobs.retry_after_s = 1, 60
    async with connected(market.server.url, clock) as client:
        with pytest.raises(ProviderUnavailable):
            await client.prices()
        count = market.server.requests.total()
        await clock.advance(60 - PATIENCE_S - 1)
        asks: list[Callable[[], Awaitable[object]]] = [
            client.prices,
            client.rentals,
            lambda: client.services(187),
            lambda: client.place(USA_OPENAI),
        ]
        for ask in asks:
            with pytest.raises(ProviderUnavailable, match="no requests for the next 11 s") as caught:
                await ask()
            assert caught.value.retry_after_s == PATIENCE_S + 1
        assert market.server.requests.total() == count


async def test_garbage_is_a_protocol_error_with_the_body(market: Market) -> None:
    placed = await market.order()
    market.knobs.garbage = 1
    with pytest.raises(ProviderProtocolError) as caught:
        await market.client.order_status(placed.provider_order_id)
    assert caught.value.raw is not None
    assert "nginx" in caught.value.raw
    assert not (await market.client.order_status(placed.provider_order_id)).value.is_paid


async def test_health_tells_when_it_last_answered_and_what_went_wrong(market: Market) -> None:
    health = market.client.health
    assert (health.url, health.answered_at_ms, health.last_error, health.request_count) == (
        market.server.url,
        None,
        "",
        0,
    )
    market.knobs.http_500 = 1
    with pytest.raises(ProviderUnavailable):
        await market.client.order_status(ORDER_ID)
    assert market.client.health.last_error.startswith("2026-")
    assert "unable to save data" in market.client.health.last_error
    await market.client_clock.advance(5)
    await market.client.prices()
    health = market.client.health
    assert (health.answered_at_ms, health.last_error, health.request_count) == (market.client_clock.now_ms(), "", 2)


async def test_a_look_up_is_made_a_second_time_if_the_provider_stumbles(market: Market) -> None:
    market.knobs.http_500 = 1
    looking = asyncio.create_task(market.client.prices())
    await market.client_clock.advance(2)
    assert (await looking).receive_sat is not None
    market.knobs.http_500 = 2
    again = asyncio.create_task(market.client.services(187))
    await market.client_clock.advance(2)
    with pytest.raises(ProviderUnavailable, match="unable to save data"):
        await again
    assert market.client.health.request_count == 4


async def test_a_refusal_is_an_answer_and_no_fault(market: Market) -> None:
    market.knobs.refuse_orders = 1
    with pytest.raises(ProviderRefused):
        await market.order()
    assert market.client.health.last_error == ""
    assert market.client.health.answered_at_ms is not None


# --- what goes out --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def against(answer: Answerer | bytes, **settings: Any) -> AsyncIterator[tuple[Sms4Sats, RawServer]]:
    async with raw_server(answer) as server, connected(server.url, **settings) as client:
        yield client, server


UNPAID = http('{"status":"OK","paid":false}')
PRICES = http('{"receive":3000}')


async def test_an_order_is_the_json_of_its_placing() -> None:
    bodies: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append(await reader.readuntil(b"}"))
        writer.write(http('{"status":"OK","orderId":"a","payreq":"lnbc1a"}'))

    async with against(take) as (client, server):
        await client.place(Placing(path="/createorder", body={"country": 0, "service": "dr", "ref": "me@example.com"}))
        assert server.heads[0].startswith("POST /createorder HTTP/1.1\r\n")
        assert "content-type: application/json\r\n" in server.heads[0].lower()
        assert "x-api-key" not in server.heads[0].lower()
    assert bodies == [b'{"country":0,"service":"dr","ref":"me@example.com"}']


async def test_country_zero_is_sent_like_any_other() -> None:
    async with against(PRICES) as (client, server):
        await client.prices(0, "dr")
        assert server.heads[0].startswith("GET /price?country=0&service=dr HTTP/1.1\r\n")


async def test_nothing_compressed_is_asked_for_and_no_cookie_is_kept() -> None:
    answer = http('{"status":"OK","paid":false}', "200 OK", "Set-Cookie: a=b; Path=/; Max-Age=9999")
    async with against(answer) as (client, server):
        for _ in range(2):
            await client.order_status(ORDER_ID)
        assert "accept-encoding: identity" in server.heads[0].lower()
        assert "cookie" not in server.heads[1].lower()
        assert server.connection_count == 1


async def test_a_path_in_the_base_url_stays() -> None:
    async with raw_server(PRICES) as server, connected(server.url + "/sms/") as client:
        await client.prices()
        assert server.heads[0].startswith("GET /sms/price HTTP/1.1")


async def test_no_order_id_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore"):  # silenced by the daemon's logging; nobody else may speak
        logging.getLogger(name).setLevel(logging.WARNING)
    async with against(http('{"status":"error","reason":"no order ' + ORDER_ID + '"}')) as (client, _):
        with pytest.raises(ProviderRefused) as caught:
            await client.order_status(ORDER_ID)
        assert ORDER_ID not in caught.value.message
        assert ORDER_ID not in client.health.last_error
    assert ORDER_ID not in caplog.text


# --- what comes back ------------------------------------------------------------------------------------------------


async def test_a_redirect_is_not_followed() -> None:
    async with raw_server(UNPAID) as elsewhere:
        moved = http("", "302 Found", f"Location: {elsewhere.url}/orderstatus")
        async with against(moved) as (client, _):
            with pytest.raises(ProviderProtocolError, match="redirect"):
                await client.order_status(ORDER_ID)
        assert elsewhere.heads == []


async def test_a_body_without_end_is_cut_off() -> None:
    async with against(flood) as (client, server):
        with pytest.raises(ProviderProtocolError, match=f"more than {MAX_ORDER_BYTES} bytes") as caught:
            await client.place(USA_OPENAI)
        assert caught.value.raw is not None
        assert len(caught.value.raw) == MAX_ORDER_BYTES
        with pytest.raises(ProviderProtocolError, match=f"more than {MAX_LIST_BYTES} bytes"):
            await client.services(187)
        assert len(server.heads) == 2


async def test_the_status_of_a_rental_with_very_many_messages_is_read() -> None:
    texts = [
        f"{number:06} is your code. Do not share it with anybody: nobody of us will ask for it."
        for number in range(5000)
    ]
    body = json.dumps({"status": "OK", "paid": True, "number": "447700900123", "messages": texts})
    assert MAX_ORDER_BYTES < len(body) < MAX_LIST_BYTES
    async with against(http(body)) as (client, _):
        assert (await client.order_status(ORDER_ID)).value.messages[-1] == texts[-1]


@pytest.mark.parametrize("answer", [never, dribble])
async def test_a_server_that_is_too_slow_is_given_up_in_time(answer: Answerer) -> None:
    async with against(answer, timeout_s=0.5) as (client, server):
        with pytest.raises(ProviderUnavailable, match=r"did not answer within 0\.5 s"):
            await asyncio.wait_for(client.order_status(ORDER_ID), 30)
        assert len(server.heads) == 1


async def test_a_compressed_body_is_not_unpacked() -> None:
    async with against(http(b"\x1f\x8b" + b"\x00" * 50, "200 OK", "Content-Encoding: gzip")) as (client, _):
        with pytest.raises(ProviderProtocolError, match="not JSON"):
            await client.order_status(ORDER_ID)


@pytest.mark.parametrize("answer", [hang_up, cut_off, b"not HTTP at all\r\n\r\n"])
async def test_a_lost_get_is_repeated_a_few_times_and_then_unavailable(answer: Answerer | bytes) -> None:
    clock = SkippingClock()
    async with against(answer, clock=clock) as (client, server):
        with pytest.raises(ProviderUnavailable, match="cannot be reached"):
            await client.order_status(ORDER_ID)
        assert len(server.heads) == GET_TRIES
        assert len(clock.slept_s) == GET_TRIES - 1
        assert all(0 < slept_s < 2 for slept_s in clock.slept_s)


async def test_a_get_that_was_lost_once_succeeds() -> None:
    answers: Iterator[Answerer] = iter([hang_up])

    async def first_lost(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await answer(reader, writer)
        writer.write(UNPAID)

    async with against(first_lost) as (client, server):
        assert not (await client.order_status(ORDER_ID)).value.is_paid
        assert len(server.heads) == 2


@pytest.mark.parametrize("is_closed", [True, False])
@pytest.mark.parametrize("unasked", [b"", http("", "408 Request Timeout"), http('{"orderId":"b","payreq":"lnbc1b"}')])
async def test_an_order_is_not_placed_over_a_connection_on_which_something_happened_meanwhile(
    unasked: bytes, is_closed: bool
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(server.heads) > 1:
            writer.write(http('{"status":"OK","orderId":"a","payreq":"lnbc1a"}'))
            return
        writer.write(UNPAID)
        await is_answered.wait()
        writer.write(unasked)
        if is_closed:
            raise OSError  # hangs up

    is_answered = asyncio.Event()
    async with against(answer) as (client, server):
        await client.order_status(ORDER_ID)
        is_answered.set()
        await settle()
        assert (await client.place(USA_OPENAI)).value.provider_order_id == "a"
        assert server.connection_count == (2 if unasked or is_closed else 1)


async def test_a_lost_order_or_cancel_is_never_repeated() -> None:
    async with against(hang_up) as (client, server):
        asks: list[Callable[[], Awaitable[object]]] = [
            lambda: client.place(USA_OPENAI),
            lambda: client.cancel(ORDER_ID),
        ]
        for ask in asks:
            with pytest.raises(ProviderUnavailable):
                await ask()
        assert len(server.heads) == 2


async def test_nobody_listening_is_unavailable_and_says_what_to_look_at() -> None:
    async with raw_server(UNPAID) as server:
        url = server.url
    async with connected(url) as client:
        with pytest.raises(ProviderUnavailable, match=r"provider\.base_url") as caught:
            await client.prices()
        assert client.health.answered_at_ms is None
    assert caught.value.retry_after_s is None


async def placing_that_fails(client: Sms4Sats) -> ProviderUnavailable:
    with pytest.raises(ProviderUnavailable) as caught:
        await client.place(USA_OPENAI)
    return caught.value


async def test_an_order_that_could_not_be_sent_was_turned_away() -> None:
    async with raw_server(UNPAID) as server:
        url = server.url
    async with connected(url) as client:
        assert (await placing_that_fails(client)).is_turned_away


async def test_an_order_is_turned_away_if_the_time_runs_out_while_connecting() -> None:
    async with against(never, timeout_s=0.3) as (client, server):
        tls_url = server.url.replace("http://", "https://")
        async with connected(tls_url, timeout_s=0.3) as shaking_hands:
            assert (await placing_that_fails(shaking_hands)).is_turned_away
        assert not (await placing_that_fails(client)).is_turned_away


@pytest.mark.parametrize("answer", [hang_up, cut_off])
async def test_an_order_that_was_sent_is_not_turned_away_if_the_connection_is_lost(answer: Answerer) -> None:
    async with against(answer) as (client, _):
        assert not (await placing_that_fails(client)).is_turned_away


async def test_an_order_on_a_kept_connection_is_not_turned_away_if_the_time_runs_out() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(server.heads) > 1:
            await never(reader, writer)
        writer.write(UNPAID)

    async with against(answer, timeout_s=0.3) as (client, server):
        await client.order_status(ORDER_ID)
        assert not (await placing_that_fails(client)).is_turned_away
        assert server.connection_count == 1


async def test_a_canceled_poll_frees_its_connection() -> None:
    async with against(never) as (client, server):
        for _ in range(3):
            poll = asyncio.create_task(client.order_status(ORDER_ID))
            seen = len(server.heads)
            while len(server.heads) == seen:
                await asyncio.sleep(0)
            poll.cancel()
            with pytest.raises(asyncio.CancelledError):
                await poll
        await settle()
        assert not client._http._network._open  # type: ignore[attr-defined]


async def test_a_503_with_retry_after_is_honoured() -> None:
    clock = ManualClock()
    in_a_minute = formatdate(clock.now_s() + 60, usegmt=True)
    async with against(http("", "503 Busy", f"Retry-After: {in_a_minute}"), clock=clock) as (client, server):
        with pytest.raises(ProviderUnavailable) as caught:
            await client.order_status(ORDER_ID)
        assert caught.value.retry_after_s == pytest.approx(60, abs=1)
        poll = asyncio.create_task(look(client, ORDER_ID))
        await clock.advance(58)
        assert len(server.heads) == 1
        poll.cancel()


NOW_MS = 1_790_000_000_000


@pytest.mark.parametrize(
    ("text", "wanted_s"),
    [
        ("", None),
        ("50", 50),
        ("120", 60),
        (" 0 ", 0),
        ("9" * 5000, 60),
        ("-5", None),
        ("soon", None),
        ("1.5", None),
        ("٣", None),
        (formatdate(NOW_MS / 1000 + 40, usegmt=True), 40),
        (formatdate(NOW_MS / 1000 - 90, usegmt=True), 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 60),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_a_minute_at_most(text: str, wanted_s: float | None) -> None:
    assert retry_after(text, NOW_MS) == wanted_s


# --- ways out -------------------------------------------------------------------------------------------------------


async def test_an_unknown_certificate_is_refused_and_a_given_one_is_trusted(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "tls.cert", tmp_path / "tls.key")
    async with raw_server(PRICES, tls) as server:
        async with connected(server.url) as client:
            with pytest.raises(ProviderUnavailable, match="certificate"):
                await client.prices()
        assert server.heads == []
        async with connected(server.url, ca_file=tmp_path / "tls.cert") as client:
            assert (await client.prices()).receive_sat == 3000


async def test_the_environments_proxy_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_server(hang_up) as trap, raw_server(PRICES) as server:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, trap.url)
        monkeypatch.delenv("no_proxy", raising=False)
        async with connected(server.url) as client:
            await client.prices()
        assert trap.heads == []


def tls_server(directory: Path, *names: str) -> ssl.SSLContext:
    """With a certificate for these names, that lies in ``directory``."""
    directory.mkdir()
    write_certificate(directory, names)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(directory / "tls.cert", directory / "tls.key")
    return tls


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h"])
async def test_through_a_proxy_the_providers_certificate_counts_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    proxy_tls = tls_server(tmp_path / "proxy", "127.0.0.1") if scheme == "https" else None
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "proxy" / "tls.cert"))  # of the system: trusted for the proxy
    async with raw_server(UNPAID, tls_server(tmp_path / "provider", "sms4sats.invalid")) as server:
        proxy = SocksProxy(server.port) if scheme == "socks5h" else TunnelProxy(server.port)
        async with listening(proxy.serve, proxy_tls) as port:
            way: dict[str, Any] = {
                "proxy": f"{scheme}://127.0.0.1:{port}",
                "ca_file": tmp_path / "provider" / "tls.cert",
            }
            async with connected("https://sms4sats.invalid", **way) as client:
                for _ in range(2):
                    assert not (await client.order_status(ORDER_ID)).value.is_paid
                assert server.connection_count == 1, "it is kept"
            async with connected("https://elsewhere.invalid", **way) as client:
                with pytest.raises(ProviderUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
                    await client.order_status(ORDER_ID)
    assert len(server.heads) == 2
    if isinstance(proxy, TunnelProxy):
        assert proxy.heads[0].startswith("CONNECT sms4sats.invalid:443 HTTP/1.1\r\n")
        assert not any(ORDER_ID in head for head in proxy.heads)


async def test_a_socks_proxy_resolves_the_name_itself() -> None:
    async with raw_server(PRICES) as server:
        socks = SocksProxy(server.port)
        async with (
            listening(socks.serve) as port,
            connected("http://sms4sats.invalid", proxy=f"socks5h://127.0.0.1:{port}") as client,
        ):
            assert (await client.prices()).receive_sat == 3000
    assert socks.asked == [(b"sms4sats.invalid", 80)]


async def test_a_socks_proxy_that_is_silent_leaves_nothing_in_the_pool() -> None:
    async with (
        listening(never) as port,
        connected("http://sms4sats.invalid", proxy=f"socks5h://127.0.0.1:{port}", timeout_s=0.05) as client,
    ):
        for _ in range(3):
            with pytest.raises(ProviderUnavailable, match="did not answer"):
                await client.prices()
        assert not client._http._network._open  # type: ignore[attr-defined]


@pytest.mark.parametrize("babble", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x05\xff", b"\x05", b""])
async def test_a_proxy_that_babbles_is_unavailable(babble: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(babble)

    async with listening(answer) as port:
        for scheme in ("socks5h", "http"):
            async with connected("http://sms4sats.invalid", proxy=f"{scheme}://127.0.0.1:{port}") as client:
                with pytest.raises(ProviderError):
                    await client.prices()
