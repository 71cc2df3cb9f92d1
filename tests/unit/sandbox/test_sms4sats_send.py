"""SMS and e-mails that the simulated sms4sats sends, and its webhooks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from holdpay.sandbox import bolt11
from holdpay.sandbox.http_server import HttpServer, Request, Response
from holdpay.sandbox.payee import InvoiceState, Refused, Settled
from holdpay.sandbox.sms4sats_knobs import Scenario
from holdpay.sandbox.sms4sats_webhooks import Webhook, is_loopback
from tests.unit.sandbox.provider import World, example, same_shape


async def sms_status(world: World, order: dict[str, Any]) -> str:
    return str((await world.status(order))["smsStatus"])


@pytest.mark.parametrize(
    ("path", "receiver"),
    [("/createsendorder", {"phone": "19871234567"}), ("/createemailsendorder", {"address": "satoshi@example.com"})],
)
async def test_created_then_sent_and_settled_then_delivered(world: World, path: str, receiver: dict[str, str]) -> None:
    order = (await world.post(path, {"message": "hello", **receiver})).json()
    same_shape(order, example("createorder"))
    assert (await world.status(order))["paid"] is False
    await world.pay(order)
    status = await world.status(order)
    same_shape(status, example("orderstatus_send"))
    assert (status["paid"], status["smsStatus"]) == (True, "created")
    await world.clock.advance(5)
    assert await sms_status(world, order) == "sent"
    assert await world.invoice(order) is InvoiceState.ACCEPTED
    await world.clock.advance(0.5)
    assert isinstance(world.answers[0], Settled)
    await world.clock.advance(15)
    assert await sms_status(world, order) == "delivered"


async def test_sending_costs_what_the_price_says(world: World) -> None:
    world.knobs.send_sat = 1234
    assert (await world.get("/price")).json()["send"] == 1234
    terms = bolt11.decode((await world.send())["payreq"], world.payee.network_name).terms
    assert (terms.amount_msat, "hello" in terms.description) == (1_234_000, False)


async def test_an_sms_that_cannot_be_sent_fails_and_the_money_goes_back(world: World) -> None:
    world.knobs.scenario = Scenario(fails_instead_of="sent", sent_after_s=7)
    order = await world.send()
    await world.pay(order)
    await world.clock.advance(6)
    assert await sms_status(world, order) == "created"
    await world.clock.advance(1)
    assert await sms_status(world, order) == "failed"
    assert await world.invoice(order) is InvoiceState.ACCEPTED
    await world.clock.advance(100)
    assert world.answers == [Refused()]
    assert await sms_status(world, order) == "failed"


async def test_an_sms_that_was_sent_can_fail_afterwards_and_stays_paid(world: World) -> None:
    world.knobs.scenario = Scenario(fails_instead_of="delivered", delivered_after_s=60)
    order = await world.send()
    await world.pay(order)
    await world.clock.advance(59)
    assert await sms_status(world, order) == "sent"
    await world.clock.advance(1)
    assert await sms_status(world, order) == "failed"
    assert isinstance(world.answers[0], Settled)


async def test_a_negative_settle_lag_settles_before_the_sms_is_sent(world: World) -> None:
    world.knobs.scenario = Scenario(sent_after_s=10, settle_lag_s=-5)
    order = await world.send()
    await world.pay(order)
    await world.clock.advance(6)
    assert isinstance(world.answers[0], Settled)
    assert await sms_status(world, order) == "created"
    await world.clock.advance(4)
    assert await sms_status(world, order) == "sent"


async def test_an_sms_whose_invoice_nobody_paid_in_time_fails(world: World) -> None:
    world.knobs.scenario = Scenario(invoice_expiry_s=60)
    order = await world.send()
    await world.clock.advance(62)
    status = await world.status(order)
    assert (status["paid"], status["smsStatus"]) == (False, "failed")


async def test_flipping_replies_say_created_and_unpaid_every_second_time(world: World) -> None:
    world.knobs.scenario = Scenario(flips=True)
    order = await world.send()
    await world.pay(order)
    await world.clock.advance(60)
    replies = [await world.status(order) for _ in range(3)]
    assert [(reply["paid"], reply["smsStatus"]) for reply in replies] == [
        (True, "delivered"),
        (False, "created"),
        (True, "delivered"),
    ]


@pytest.mark.parametrize("message", ["x" * 140, "€" * 140])
async def test_a_message_has_at_most_140_characters(world: World, message: str) -> None:
    assert (await world.send(message=message))["status"] == "OK"
    assert await world.send(message=message + "x") == {"status": "error", "reason": "backend error"}


@pytest.mark.parametrize(
    "body",
    [
        {"message": ""},
        {"message": None},
        {"message": 5},
        {"message": "\ud800"},
        {"phone": "hello"},
        {"phone": "+1"},
        {"phone": "+1 987 1234567"},
        {"phone": 19871234567},
        {"immediate": "true"},
        {"webhookUrl": 5},
    ],
)
async def test_an_sms_that_cannot_be_one_is_a_backend_error(world: World, body: dict[str, Any]) -> None:
    reply = await world.post("/createsendorder", {"phone": "+19871234567", "message": "hello", **body})
    assert (reply.status_code, reply.json()) == (500, {"status": "error", "reason": "backend error"})


async def test_an_email_needs_an_address(world: World) -> None:
    reply = await world.post("/createemailsendorder", {"address": "nobody", "message": "hello"})
    assert (reply.status_code, reply.json()["reason"]) == (500, "backend error")


async def test_only_what_createorder_made_can_be_canceled(world: World) -> None:
    order = await world.send()
    await world.clock.advance(121)
    assert await world.cancel(order) == example("error_500")


# --- webhooks -------------------------------------------------------------------------------------------------------


class Hook:
    """A client's webhook: what it got. ``status`` is what it answers, as long as ``is_awake`` is set."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.status = 200
        self.is_awake = asyncio.Event()
        self.is_awake.set()
        self.http = HttpServer(self._answer)

    async def next(self) -> Any:
        async with asyncio.timeout(60):
            method, body = await self.got.get()
        assert method == "POST"
        return body

    async def _answer(self, request: Request) -> Response:
        self.got.put_nowait((request.method, json.loads(request.body)))
        await self.is_awake.wait()
        return Response(b"", self.status)


@pytest_asyncio.fixture
async def hook() -> AsyncIterator[Hook]:
    hook = Hook()
    await hook.http.start()
    yield hook
    await hook.http.stop()


@pytest.mark.parametrize("answer", [200, 500])
async def test_each_change_is_told_to_the_webhook_in_the_words_of_orderstatus(
    world: World, hook: Hook, answer: int
) -> None:
    hook.status = answer
    order = await world.send(webhookUrl=hook.http.url)
    await world.pay(order)
    for advance_s, step in ((5, "sent"), (15, "delivered")):
        await world.clock.advance(advance_s)
        told = await hook.next()
        assert told == await world.status(order)
        assert told["smsStatus"] == step
    assert hook.got.empty()


async def test_a_change_is_told_when_the_webhook_has_answered_to_the_one_before(world: World, hook: Hook) -> None:
    hook.is_awake.clear()
    order = await world.send(webhookUrl=hook.http.url)
    await world.pay(order)
    await world.clock.advance(60)
    assert await sms_status(world, order) == "delivered"
    assert (await hook.next())["smsStatus"] == "sent"
    await world.get("/")
    assert hook.got.empty()
    hook.is_awake.set()
    assert (await hook.next())["smsStatus"] == "delivered"


async def test_webhooks_tell_what_is_so_when_replies_flip(world: World, hook: Hook) -> None:
    world.knobs.scenario = Scenario(flips=True)
    order = await world.send(webhookUrl=hook.http.url)
    await world.pay(order)
    await world.clock.advance(60)
    told = [await hook.next() for _ in range(2)]
    assert [(each["paid"], each["smsStatus"]) for each in told] == [(True, "sent"), (True, "delivered")]
    assert (await world.status(order))["paid"] is True


async def test_a_failure_is_told_to_the_webhook_of_an_email_too(world: World, hook: Hook) -> None:
    world.knobs.scenario = Scenario(fails_instead_of="sent")
    body = {"address": "satoshi@example.com", "message": "hello", "webhookUrl": hook.http.url}
    order = (await world.post("/createemailsendorder", body)).json()
    await world.pay(order)
    await world.clock.advance(60)
    assert (await hook.next())["smsStatus"] == "failed"


async def test_a_webhook_that_is_away_changes_nothing(world: World, hook: Hook) -> None:
    url = hook.http.url
    await hook.http.stop()
    order = await world.send(webhookUrl=url)
    await world.pay(order)
    await world.clock.advance(60)
    assert await sms_status(world, order) == "delivered"


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/x", "http://localhost/", "http://[::1]:1/"])
def test_webhooks_on_the_loopback_are_called(url: str) -> None:
    assert is_loopback(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://192.0.2.1/",
        "http://example.com",
        "http://127.0.0.1.example.com",
        "http://127.0.0.1@example.com",
        "https://127.0.0.1",
        "ftp://127.0.0.1",
        "http://[",
        "127.0.0.1",
    ],
)
async def test_webhooks_elsewhere_are_never_called(world: World, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert (await world.send(webhookUrl=url))["status"] == "OK"
    called: list[str] = []

    async def post(client: httpx.AsyncClient, url: str, **_: object) -> None:
        called.append(url)

    monkeypatch.setattr(httpx.AsyncClient, "post", post)
    await Webhook(url).call({})
    assert called == []
    await Webhook("http://127.0.0.1").call({})
    assert called == ["http://127.0.0.1"]
