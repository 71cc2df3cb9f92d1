"""Whatever comes back over HTTP, the client understands it or raises a ProviderError, soon and in little memory."""

from __future__ import annotations

import asyncio
import gzip
import random
import re
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings

from holdpay.core.events import ProviderStatus
from holdpay.errors import ProviderError, ProviderProtocolError, ProviderRefused, ProviderUnavailable
from holdpay.ports import Placed, Prices, Reply, ServiceInfo, Urgency
from holdpay.sms4sats.client import GET_TRIES, MAX_LIST_BYTES, MAX_ORDER_BYTES, Sms4Sats, Sms4SatsSettings
from holdpay.sms4sats.parse import MAX_CODE_CHARS, MAX_NUMBER_DIGITS, MAX_PRICE_SAT, MAX_SERVICES
from tests.contract import hostile
from tests.contract.hostile import ORDER_ID
from tests.contract.provider_servers import RawServer, http, raw_server
from tests.unit.sms4sats.clock import SkippingClock

TIMEOUT_S: Final = 0.25
SLACK_S: Final = 2.0
"""A machine with other things to do is no fault of the client's."""
MAX_MESSAGE_CHARS: Final = 600

Call = Callable[[Sms4Sats], Awaitable[object]]

CALLS: Final[dict[str, Call]] = {
    "place": lambda client: client.place("code", {"country": "187", "service": "dr"}),
    "order_status": lambda client: client.order_status(ORDER_ID, Urgency.HELD_WITHOUT_NUMBER),
    "cancel": lambda client: client.cancel(ORDER_ID),
    "services": lambda client: client.services(187),
    "prices": lambda client: client.prices(187, "dr"),
}


class Gauntlet:
    """One client and one server for many replies, on an event loop of its own: hypothesis calls from outside."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._reply = b""
        self._is_kept_open = False
        self._clock = SkippingClock()
        self._serving = raw_server(self._answer)
        self.server: RawServer = self._runner.run(self._serving.__aenter__())
        self.client: Sms4Sats = self._runner.run(self._connect())

    async def _connect(self) -> Sms4Sats:
        given = Sms4SatsSettings(
            url=self.server.url, proxy=None, ca_file=None, ref=None, timeout_s=TIMEOUT_S, requests_per_s=0, burst=1
        )
        return Sms4Sats(given, self._clock, random.Random(1))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._reply)
        await writer.drain()
        if not self._is_kept_open:
            raise OSError

    def close(self) -> None:
        self._runner.run(self.client.aclose())
        self._runner.run(self._serving.__aexit__(None, None, None))
        self._runner.close()

    def ask(self, call: Call, reply: bytes, *, is_kept_open: bool = False) -> object:
        """What the client makes of ``reply``: its value, or the ProviderError. Anything else goes on."""
        self._reply, self._is_kept_open = reply, is_kept_open
        return self._runner.run(self._ask(call))

    async def _ask(self, call: Call) -> object:
        await self._clock.advance(4000)  # no pause, and no answer of before
        began_s = time.monotonic()
        try:
            return await call(self.client)
        except ProviderError as error:
            return error
        finally:
            took_s = time.monotonic() - began_s
            assert took_s < GET_TRIES * TIMEOUT_S + SLACK_S


@pytest.fixture(scope="module")
def gauntlet() -> Iterator[Gauntlet]:
    running = Gauntlet()
    yield running
    running.close()


# --- what may come out ----------------------------------------------------------------------------------------------


def check_outcome(outcome: object, max_raw_bytes: int) -> None:
    """A value within its bounds, or an error that can be shown, journaled and logged."""
    if isinstance(outcome, ProviderError):
        assert type(outcome) in {ProviderUnavailable, ProviderRefused, ProviderProtocolError}
        check_message(outcome.message)
        check_raw(getattr(outcome, "raw", None), max_raw_bytes)
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
            assert re.fullmatch(r"[lL][nN][A-Za-z0-9]{1,7087}", value.payreq)
        case ProviderStatus():
            check_status(value)
        case Prices():
            for name in ("receive_sat", "send_sat", "rent_from_sat", "real_phone_sat", "exact_sat"):
                sat = getattr(value, name)
                assert sat is None or 1 <= sat <= MAX_PRICE_SAT
        case tuple():
            assert len(value) <= MAX_SERVICES
            assert all(is_sane_service(service) for service in value)
        case _:
            pytest.fail(f"a {type(value).__name__} is none of the port's values")


def check_status(status: ProviderStatus) -> None:
    assert isinstance(status.is_paid, bool)
    assert status.number is None or re.fullmatch(rf"[0-9]{{1,{MAX_NUMBER_DIGITS}}}", status.number)
    assert status.code is None or (status.code.isprintable() and 1 <= len(status.code) <= MAX_CODE_CHARS)
    assert status.error is None or (status.error and status.error.isprintable() and len(status.error) <= 300)


def is_sane_service(service: Any) -> bool:
    is_named = isinstance(service, ServiceInfo) and service.name.isprintable() and 1 <= len(service.name) <= 100
    return is_named and (service.stock is None or service.stock >= 0)


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reply=hostile.replies())
def test_any_reply_is_understood_or_an_error_of_the_provider(gauntlet: Gauntlet, name: str, reply: bytes) -> None:
    outcome = gauntlet.ask(CALLS[name], reply)

    check_outcome(outcome, MAX_LIST_BYTES if name == "services" else MAX_ORDER_BYTES)
    check_message(gauntlet.client.health.last_error)


def test_after_all_that_a_plain_answer_is_still_understood(gauntlet: Gauntlet) -> None:
    gauntlet.ask(CALLS["prices"], b"\xff" * 200_000)

    outcome = gauntlet.ask(CALLS["order_status"], http('{"status":"OK","paid":true,"code":"001"}'))

    assert isinstance(outcome, Reply)
    assert outcome.value == ProviderStatus(is_paid=True, code="001")
    assert gauntlet.client.health.last_error == ""
