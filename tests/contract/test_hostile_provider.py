"""Whatever comes back over HTTP, the client understands it or raises a ProviderError, soon and in little memory."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import json
import random
import re
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdpay.core.events import ProviderStatus
from holdpay.core.kinds.spec import Placing
from holdpay.errors import ProviderError, ProviderProtocolError, ProviderRefused, ProviderUnavailable
from holdpay.ports import CodeProvider, ListedCountry, Placed, Prices, RentalOffer, Reply, ServiceInfo
from holdpay.sms4sats import parse
from holdpay.sms4sats.client import (
    GET_TRIES,
    LOOK_UP_TRIES,
    MAX_LIST_BYTES,
    MAX_ORDER_BYTES,
    Sms4Sats,
    Sms4SatsSettings,
)
from holdpay.sms4sats.fields import MAX_CODE_CHARS, MAX_KEPT_RAW_CHARS, MAX_NUMBER_DIGITS
from holdpay.sms4sats.parse import MAX_PRICE_SAT, MAX_ROWS, Answer
from tests.contract import hostile
from tests.contract.hostile import ORDER_ID
from tests.contract.provider_servers import Answerer, RawServer, dribble, flood, http, never, raw_server
from tests.unit.sms4sats.clock import SkippingClock

TIMEOUT_S: Final = 0.25
PATIENT_S: Final = 60.0
"""For what is answered at once: a machine with other things to do is no fault of the client's."""
MAX_MESSAGE_CHARS: Final = 600

Call = Callable[[Sms4Sats], Awaitable[object]]

CODE: Final = Placing(path="/createorder", body={"country": 187, "service": "dr"})
CALLS: Final[dict[str, Call]] = {
    "place": lambda client: client.place(CODE),
    "order_status": lambda client: client.order_status(ORDER_ID),
    "cancel": lambda client: client.cancel(ORDER_ID),
    "countries": lambda client: client.countries(),
    "services": lambda client: client.services(187),
    "rentals": lambda client: client.rentals("dr"),
    "prices": lambda client: client.prices(187, "dr"),
}

EXAMPLES: Final = {
    "place": "createorder*",
    "order_status": "orderstatus*",
    "cancel": "cancelorder",
    "countries": "getCountries",
    "services": "getnumbersstatus",
    "rentals": "getRentalCountries",
    "prices": "price*",
}
"""Files with an honest reply to each, as patterns."""

MAX_TRIES: Final = {
    "place": 1,
    "order_status": GET_TRIES,
    "cancel": 1,
    **dict.fromkeys(("countries", "services", "rentals", "prices"), LOOK_UP_TRIES * GET_TRIES),
}
"""Requests that one call may become, each of them within the client's time limit: so its time is bounded without being
measured."""

LISTS: Final = frozenset({"order_status", "countries", "services", "rentals"})
"""Calls whose answers may be long."""


def max_bytes(name: str) -> int:
    return MAX_LIST_BYTES if name in LISTS else MAX_ORDER_BYTES


class Gauntlet:
    """One client and one server for many replies, on an event loop of its own: hypothesis calls from outside."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._runner = asyncio.Runner()
        self._reply: bytes | Answerer = b""
        self._clock = SkippingClock()
        self.tries = 0
        self._serving = raw_server(self._answer)
        self.server: RawServer = self._runner.run(self._serving.__aenter__())
        self.client: Sms4Sats = self._runner.run(self._connect())

    async def _connect(self) -> Sms4Sats:
        given = Sms4SatsSettings(
            url=self.server.url, proxy=None, ca_file=None, api_key=None, timeout_s=self._timeout_s, max_requests_per_s=0
        )
        return Sms4Sats(given, self._clock, random.Random(1))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(self._reply, bytes):
            writer.write(self._reply)
            await writer.drain()
        else:
            await self._reply(reader, writer)
        raise OSError  # hangs up

    def close(self) -> None:
        self._runner.run(self.client.aclose())
        self._runner.run(self._serving.__aexit__(None, None, None))
        self._runner.close()

    def ask(self, name: str, reply: bytes | Answerer) -> object:
        """What the client makes of ``reply`` to a call: its value, or the ProviderError. Anything else is raised.

        Fails if it asks more often than it may; ``self.tries`` is how often.
        """
        self._reply = reply
        before = self.client.health.request_count
        outcome = self._runner.run(self._ask(CALLS[name]))
        self.tries = self.client.health.request_count - before
        assert 1 <= self.tries <= MAX_TRIES[name]
        return outcome

    async def _ask(self, call: Call) -> object:
        await self._clock.advance(4000)  # no pause, and no answer of before
        try:
            return await call(self.client)
        except ProviderError as error:
            return error


@pytest.fixture(scope="module")
def gauntlet() -> Iterator[Gauntlet]:
    running = Gauntlet(TIMEOUT_S)
    yield running
    running.close()


@pytest.fixture(scope="module")
def patient() -> Iterator[Gauntlet]:
    """For what is answered at once, and whose answer counts."""
    running = Gauntlet(PATIENT_S)
    yield running
    running.close()


# --- what may come out ----------------------------------------------------------------------------------------------


def check_outcome(outcome: object, max_raw_bytes: int) -> None:
    """A value within its bounds, or an error that can be shown, journaled and logged."""
    if isinstance(outcome, ProviderError):
        assert type(outcome) in {ProviderUnavailable, ProviderRefused, ProviderProtocolError}
        check_message(outcome.message)
        check_raw(getattr(outcome, "raw", None), max_raw_bytes)
        check_raw(getattr(outcome, "unread", None), MAX_KEPT_RAW_CHARS)
        return
    if isinstance(outcome, Reply):
        check_raw(outcome.raw, max_raw_bytes)
        outcome = outcome.value
    check_value(outcome)


def check_message(text: str) -> None:
    assert text.isprintable()
    assert len(text) <= MAX_MESSAGE_CHARS
    assert ORDER_ID[:32] not in text.lower()


def check_raw(raw: str | None, max_bytes: int) -> None:
    if raw is not None:
        raw.encode()  # a lone surrogate could not be stored
        assert len(raw) <= max_bytes


def check_value(value: object) -> None:
    match value:
        case None:  # a cancel was accepted
            pass
        case Placed():
            assert re.fullmatch(r"[A-Za-z0-9_-]{1,128}", value.provider_order_id)
            assert value.payreq is not None
            assert re.fullmatch(r"[lL][nN][A-Za-z0-9]{1,7087}", value.payreq)
        case ProviderStatus():
            check_status(value)
        case Prices():
            for name in ("receive_sat", "send_sat", "rent_from_sat", "real_phone_sat", "exact_sat"):
                sat = getattr(value, name)
                assert sat is None or 1 <= sat <= MAX_PRICE_SAT
        case tuple():
            assert len(value) <= MAX_ROWS
            assert all(is_sane_row(row) for row in value)
        case _:
            pytest.fail(f"a {type(value).__name__} is none of the port's values")


def check_status(status: ProviderStatus) -> None:
    assert isinstance(status.is_paid, bool)
    assert status.number is None or re.fullmatch(rf"[0-9]{{1,{MAX_NUMBER_DIGITS}}}", status.number)
    assert status.code is None or (status.code.isprintable() and 1 <= len(status.code) <= MAX_CODE_CHARS)
    assert status.error is None or (status.error and status.error.isprintable() and len(status.error) <= 300)
    for raw in (status.unread, *status.unread_messages):
        check_raw(raw, MAX_KEPT_RAW_CHARS)


def is_sane_row(row: object) -> bool:
    if isinstance(row, ListedCountry):
        return 0 <= row.code < 10**6 and row.name.isprintable() and 1 <= len(row.name) <= 100
    return is_sane_rental(row) if isinstance(row, RentalOffer) else is_sane_service(row)


def is_sane_service(service: Any) -> bool:
    is_named = isinstance(service, ServiceInfo) and service.name.isprintable() and 1 <= len(service.name) <= 100
    return is_named and (service.stock is None or service.stock >= 0)


def is_sane_rental(offer: RentalOffer) -> bool:
    is_named = offer.country.isprintable() and len(offer.country) <= 100
    is_known = offer.country_code is not None or offer.country != ""
    is_counted = offer.weeks is None or 1 <= offer.weeks <= 999
    return is_named and is_known and is_counted and (offer.price_sat is None or 1 <= offer.price_sat <= MAX_PRICE_SAT)


def test_no_call_of_the_port_is_left_out() -> None:
    calls = {name for name, member in vars(CodeProvider).items() if inspect.iscoroutinefunction(member)}
    # A slot is taken before anything is sent.
    assert set(CALLS) == set(EXAMPLES) == calls - {"slot"}


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_reply_is_understood_or_an_error_of_the_provider(
    gauntlet: Gauntlet, name: str, data: st.DataObject
) -> None:
    reply = data.draw(hostile.replies(EXAMPLES[name]))

    outcome = gauntlet.ask(name, reply)

    check_outcome(outcome, max_bytes(name))
    check_message(gauntlet.client.health.last_error)


READERS: Final[dict[str, Callable[[Answer], object]]] = {
    "place": parse.placed,
    "order_status": parse.order_status,
    "cancel": parse.cancel_accepted,
    "countries": parse.countries,
    "services": parse.services,
    "rentals": parse.rentals,
    "prices": lambda answer: parse.prices(answer, asked_at_ms=0),
}


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=400)
@given(data=st.data())
def test_any_body_is_made_sense_of_within_bounds_or_is_an_error(name: str, data: st.DataObject) -> None:
    text = data.draw(hostile.mutated_text(EXAMPLES[name]))
    answer = Answer(data.draw(st.sampled_from([200, 200, 200, 500])), text.encode("utf-8", "surrogatepass"))
    try:
        outcome = READERS[name](answer)
    except ProviderError as error:
        check_outcome(error, len(answer.body))
    else:
        check_value(outcome)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("address", hostile.ADDRESSES, ids=range(len(hostile.ADDRESSES)))
def test_the_address_of_a_redirect_is_not_even_read(patient: Gauntlet, name: str, address: str) -> None:
    outcome = patient.ask(name, http("", "302 Found", f"Location: {address}"))

    assert isinstance(outcome, ProviderProtocolError)
    assert "a redirect (HTTP 302), which is not followed" in outcome.message


@pytest.mark.parametrize("cookie", hostile.COOKIES, ids=range(len(hostile.COOKIES)))
@pytest.mark.filterwarnings("error")
def test_a_cookie_is_not_even_read(patient: Gauntlet, cookie: str) -> None:
    outcome = patient.ask("prices", http('{"receive":1}', "200 OK", f"Set-Cookie: {cookie}"))

    assert isinstance(outcome, Prices)


# --- bombs ----------------------------------------------------------------------------------------------------------


def endless(head: bytes, more: bytes) -> Answerer:
    """``head`` once, then ``more`` without end, as fast as it is read."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(more)
            await writer.drain()

    return answer


OK: Final = b"HTTP/1.1 200 OK\r\n"
CHUNKED: Final = OK + b"Transfer-Encoding: chunked\r\n\r\n"
BOMBS: Final[dict[str, bytes | Answerer]] = {
    "silence": never,
    "a body, a little at a time": dribble,
    "a body without end": flood,
    "headers without end": endless(OK, b"X: y\r\n" * 500),
    "one header without end": endless(OK + b"X: ", b"y" * 4096),
    "a status line without end": endless(b"HTTP/1.1 ", b"2" * 4096),
    "interim responses without end": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "empty lines without end": endless(b"", b"\r\n" * 1000),
    "a chunk extension without end": endless(CHUNKED + b"1;", b"x" * 4096),
    "chunks of one byte": endless(CHUNKED, b"1\r\n \r\n" * 500),
    "trailers without end": endless(CHUNKED + b"0\r\n", b"X: y\r\n" * 500),
    "a length that nobody has": endless(OK + b"Content-Length: 99999999999999\r\n\r\n", b" " * 4096),
    "gzip": http(gzip.compress(b" " * 50_000_000), "200 OK", "Content-Encoding: gzip"),
    "deep": http("[" * MAX_ORDER_BYTES),
    "deep and closed": http('{"error":' + "[" * 900 + "]" * 900 + "}"),
    "wide": http("[" + "0," * (MAX_ORDER_BYTES // 2 - 2) + "0]"),
    "wider": http("[" + "0," * (MAX_LIST_BYTES // 2 - 2) + "0]"),
    "many services": http("[" + '{"value":"a"},' * (MAX_LIST_BYTES // 15) + "{}]"),
    "many messages, each perhaps one of the others": http(
        '{"paid":true,"messages":' + json.dumps(["1" * 700] * 1000) + ',"codes":' + json.dumps(["1" * 200] * 1000) + "}"
    ),
    "a number of a million digits": http('{"receive":' + "9" * (MAX_LIST_BYTES - 20) + "}"),
}
MAX_PEAK_BYTES: Final = {"place": 16 * 2**20, "order_status": 80 * 2**20, "services": 80 * 2**20}
"""While one reply is read. Python's objects for the JSON text "0," take some 50 times its bytes."""


@pytest.mark.parametrize("name", ["place", "order_status", "services"])  # sent once, sent again, and a long answer
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_takes_neither_long_nor_much_memory(gauntlet: Gauntlet, name: str, bomb: str) -> None:
    tracemalloc.start()
    try:
        outcome = gauntlet.ask(name, BOMBS[bomb])
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    check_outcome(outcome, max_bytes(name))
    assert peak_bytes < MAX_PEAK_BYTES[name]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("bomb", ["silence", "a body, a little at a time"])
def test_what_has_no_end_ends_with_the_time_limit_of_one_request(gauntlet: Gauntlet, name: str, bomb: str) -> None:
    outcome = gauntlet.ask(name, BOMBS[bomb])
    assert isinstance(outcome, ProviderUnavailable)
    assert outcome.message.startswith(f"sms4sats did not answer within {TIMEOUT_S:g} s.")
    assert gauntlet.tries == 1, "an answer that is late is not asked for again at once"


def test_after_all_that_a_plain_answer_is_still_understood(gauntlet: Gauntlet) -> None:
    gauntlet.ask("prices", b"\xff" * 200_000)

    outcome = gauntlet.ask("order_status", http('{"status":"OK","paid":true,"code":"001"}'))

    assert isinstance(outcome, Reply)
    assert outcome.value == ProviderStatus(is_paid=True, code="001")
    assert gauntlet.client.health.last_error == ""
