"""The OpenAPI description of the provider's API against the reference's examples, our own client, and the simulated
provider, to which schemathesis makes requests of every kind, sound and unsound ones."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import jsonschema_rs
import pytest

from holdpay.core.kinds.spec import Placing
from holdpay.sandbox.clock import WallClock
from holdpay.sandbox.http_server import Request
from holdpay.sandbox.payee import Payee
from holdpay.sandbox.sms4sats import SimulatedSms4Sats
from holdpay.sandbox.sms4sats_knobs import Knobs
from holdpay.sms4sats.client import Sms4Sats, Sms4SatsSettings
from tests.contract.description import DESCRIPTION, check_reply, check_request
from tests.contract.hostile import EXAMPLES
from tests.unit.sms4sats.clock import SkippingClock

KEY = Knobs().api_key
PATIENCE_S = 120
MANY_SAT = 1_000_000_000
CHECKS = "status_code_conformance,content_type_conformance,response_schema_conformance,response_headers_conformance"
"""Not `not_a_server_error`: the reference answers HTTP 500 to what is wrong with a request."""
DESCRIBED: Final = {
    "balance": ("GET", "/balance", 200),
    "balance_no_key": ("GET", "/balance", 400),
    "cancelorder": ("GET", "/cancelorder", 200),
    "createorder": ("POST", "/createorder", 200),
    "createorder_immediate": ("POST", "/createorder", 200),
    "error_500": ("POST", "/createorder", 500),
    "getCountries": ("GET", "/getCountries", 200),
    "getRentalCountries": ("GET", "/getRentalCountries", 200),
    "getnumbersstatus": ("GET", "/getnumbersstatus", 200),
    "history": ("GET", "/history", 200),
    "orderstatus_no_number": ("GET", "/orderstatus", 200),
    "orderstatus_receive": ("GET", "/orderstatus", 200),
    "orderstatus_send": ("GET", "/orderstatus", 200),
    "price": ("GET", "/price", 200),
    "price_query": ("GET", "/price", 200),
}
"""Where each of the examples belongs: the reference's, and of getCountries what its clients read."""


# --- the reference --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.json")))
def test_every_example_of_the_reference_is_as_described(name: str) -> None:
    reply = json.loads((EXAMPLES / f"{name}.json").read_text())
    check_reply(*DESCRIBED[name], reply)
    check_reply(
        *DESCRIBED[name], [{**row, "new": 1} for row in reply] if isinstance(reply, list) else {**reply, "new": 1}
    )


@pytest.mark.parametrize("name", sorted(DESCRIBED))
def test_an_example_without_one_of_its_fields_is_not_as_described(name: str) -> None:
    reply = json.loads((EXAMPLES / f"{name}.json").read_text())
    fields = reply[0] if isinstance(reply, list) else reply
    spared = {"code", "number", "query", "computed", "visible", "rent"}  # these may be absent
    for field in fields.keys() - spared:
        without = {key: value for key, value in fields.items() if key != field}
        with pytest.raises(jsonschema_rs.ValidationError):
            check_reply(*DESCRIBED[name], [without] if isinstance(reply, list) else without)


# --- our own client -------------------------------------------------------------------------------------------------


async def test_every_request_of_our_client_is_as_described() -> None:
    async with simulated(Knobs(cancel_from_s=0)) as (client, provider):
        for country in (0, 187, 999):
            code = Placing(path="/createorder", body={"country": country, "service": "dr"})
            placed = (await client.place(code)).value
            await client.order_status(placed.provider_order_id)
            await client.cancel(placed.provider_order_id)
            await client.services(country)
            await client.prices(country, "dr")
        await client.prices()
        await client.countries()
        await client.rentals()
        await client.rentals("dr")
        await client.balance()
        await client.funding()

    requests = [request for _, request in provider.request_log]
    for request in requests:
        check_request(request)
    paths = {request.path for request in requests}
    assert paths == {
        "/createorder",
        "/orderstatus",
        "/cancelorder",
        "/getnumbersstatus",
        "/getCountries",
        "/getRentalCountries",
        "/price",
        "/balance",
        "/history",
    }


REF = "me@example.com"
HOOK = "https://hooks.example.com/a?b=c"
PLACINGS: Final[dict[str, tuple[str, dict[str, str | int | bool]]]] = {
    "code": ("/createorder", {"country": 0, "service": "dr", "ref": REF}),
    "real phone": ("/createorder", {"country": 187, "service": "dr", "realphone": True}),
    "rental": ("/createorder", {"country": 6, "service": "full", "isRental": True, "ref": REF}),
    "sms": ("/createsendorder", {"phone": "+19871234567", "message": "hello", "webhookUrl": HOOK, "ref": REF}),
    "email": ("/createemailsendorder", {"address": "satoshi@example.com", "message": "hello", "webhookUrl": HOOK}),
}


@asynccontextmanager
async def simulated(knobs: Knobs) -> AsyncIterator[tuple[Sms4Sats, SimulatedSms4Sats]]:
    clock = SkippingClock()
    provider = SimulatedSms4Sats(Payee(clock), clock, knobs)
    await provider.start()
    settings = Sms4SatsSettings(
        url=provider.url, proxy=None, ca_file=None, api_key=KEY, timeout_s=5, max_requests_per_s=2
    )
    client = Sms4Sats(settings, clock, provider._shop.rng)
    try:
        yield client, provider
    finally:
        await client.aclose()
        await provider.stop()


@pytest.mark.parametrize("name", PLACINGS)
async def test_every_kind_is_placed_as_described_for_an_invoice_without_the_key(name: str) -> None:
    path, body = PLACINGS[name]
    async with simulated(Knobs()) as (client, provider):
        placed = (await client.place(Placing(path=path, body=body))).value
    assert placed.payreq is not None
    assert placed.payreq.startswith("ln")
    ((_, request),) = provider.request_log
    check_request(request)
    assert json.loads(request.body) == body
    assert "x-api-key" not in request.headers


@pytest.mark.parametrize("name", PLACINGS)
async def test_every_kind_is_placed_as_described_from_the_account(name: str) -> None:
    path, body = PLACINGS[name]
    placing = Placing(path=path, body={**body, "immediate": True}, needs_key=True, is_prepaid=True)
    async with simulated(Knobs(balance_sat=MANY_SAT)) as (client, provider):
        placed = (await client.place(placing)).value
    assert placed.payreq is None
    assert provider.knobs.balance_sat < MANY_SAT
    ((_, request),) = provider.request_log
    check_request(request)
    assert request.headers["x-api-key"] == KEY


async def test_money_for_the_account_is_ordered_with_the_key_and_comes_with_an_invoice() -> None:
    async with simulated(Knobs()) as (client, provider):
        placed = (await client.place(Placing(path="/fund", body={"amount": 10_000}, needs_key=True))).value
    assert placed.payreq is not None
    ((_, request),) = provider.request_log
    check_request(request)
    assert request.headers["x-api-key"] == KEY


JSON = {"content-type": "application/json"}
ORDER = {"country": 187, "service": "dr"}


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "body"),
    [
        ("GET", "/createorder", {}, {}, None),
        ("GET", "/status", {}, {}, None),
        ("GET", "/orderstatus", {}, {}, None),
        ("GET", "/orderstatus", {"orderId": ""}, {}, None),
        ("GET", "/orderstatus", {"orderId": "a", "id": "a"}, {}, None),
        ("GET", "/balance", {}, {}, None),
        ("GET", "/price", {}, JSON, {}),
        ("POST", "/createorder", {}, {}, ORDER),
        ("POST", "/createorder", {}, JSON, {**ORDER, "country": "187"}),
        ("POST", "/createorder", {}, JSON, {**ORDER, "real_phone": True}),
        ("POST", "/createorder", {}, JSON, {**ORDER, "immediate": "true"}),
        ("POST", "/createorder", {}, JSON, {"country": 187}),
        ("POST", "/createsendorder", {}, JSON, {"phone": "+19871234567", "message": "x" * 141}),
        ("POST", "/createsendorder", {}, JSON, {"phone": "+1 987", "message": "x"}),
        ("POST", "/createemailsendorder", {}, JSON, {"address": "nobody", "message": "x"}),
        ("POST", "/fund", {}, JSON, {"amount": 1000}),
        ("POST", "/fund", {}, {**JSON, "x-api-key": KEY}, {"amount": 0}),
    ],
)
def test_a_request_that_is_not_as_described_is_noticed(
    method: str, path: str, query: dict[str, str], headers: dict[str, str], body: Any
) -> None:
    content = b"" if body is None else json.dumps(body).encode()
    with pytest.raises((AssertionError, jsonschema_rs.ValidationError)):
        check_request(Request(method, path, query, headers, content))


# --- the simulated provider -----------------------------------------------------------------------------------------


async def test_the_simulated_provider_serves_the_description_and_names_itself_as_the_server() -> None:
    provider = SimulatedSms4Sats(Payee(WallClock()), WallClock())
    await provider.start()
    async with httpx.AsyncClient(trust_env=False) as http:
        served = (await http.get(provider.url + "/openapi.json")).json()
    await provider.stop()
    assert served == {**DESCRIPTION, "servers": [{"url": provider.url}]}


async def schemathesis(knobs: Knobs, folder: Path, *arguments: str) -> tuple[int, str]:
    """Its exit code and its words, from a run against a simulated provider: examples, edge cases, random ones, and
    what follows from the links of the description."""
    clock = WallClock(pace=1000)
    provider = SimulatedSms4Sats(Payee(clock), clock, knobs)
    await provider.start()
    program = str(Path(sys.executable).with_name("schemathesis"))
    options = ("--checks", CHECKS, "--max-examples", "20", "--seed", "1", "--no-color", *arguments)
    try:
        async with asyncio.timeout(PATIENCE_S):
            process = await asyncio.create_subprocess_exec(
                *(program, "run", f"{provider.url}/openapi.json", *options),
                cwd=folder,
                env={**os.environ, "NO_PROXY": "127.0.0.1"},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            words, _ = await process.communicate()
    finally:
        await provider.stop()
    assert process.returncode is not None
    return process.returncode, words.decode()


@pytest.mark.parametrize("key", [None, KEY])
async def test_whatever_is_asked_of_the_simulated_provider_it_answers_as_described(
    tmp_path: Path, key: str | None
) -> None:
    header = () if key is None else ("--header", f"X-API-Key: {key}")
    code, words = await schemathesis(Knobs(balance_sat=MANY_SAT), tmp_path, *header)
    assert code == 0, words
    assert f"{len(operations())} selected / {len(operations())} total" in words


async def test_an_answer_that_is_not_as_described_is_found(tmp_path: Path) -> None:
    knobs = Knobs(garbage=MANY_SAT, only_path="/price")
    code, words = await schemathesis(knobs, tmp_path, "--include-path", "/price")
    assert code == 1, words


def operations() -> list[str]:
    return [f"{method} {path}" for path, methods in DESCRIPTION["paths"].items() for method in methods]


async def test_every_endpoint_of_the_simulated_provider_is_described_and_no_other() -> None:
    clock = WallClock()
    endpoints = SimulatedSms4Sats(Payee(clock), clock)._endpoints
    assert sorted(f"{method.lower()} {path}" for method, path in endpoints) == sorted(operations())
