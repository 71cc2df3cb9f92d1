"""A simulated sms4sats for tests: its node, its clock moved by hand, and a client."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import httpx

from holdpay.sandbox import bolt11
from holdpay.sandbox.payee import Answer, IncomingHtlc, InvoiceState, Payee
from holdpay.sandbox.sms4sats import SimulatedSms4Sats
from holdpay.sandbox.sms4sats_knobs import Knobs
from tests.unit.sms4sats.clock import ManualClock

EXAMPLES = Path(__file__).parents[2] / "fixtures" / "sms4sats"
HEIGHT = 100
KEY = Knobs().api_key
NO_ROOTS = ssl.create_default_context()
"""Made once, because it is slow; nothing here speaks TLS."""


class World:
    """A simulated provider, its node, and a client."""

    def __init__(self, pace: float = 1.0) -> None:
        self.clock = ManualClock()
        self.clock.pace = pace
        self.payee = Payee(self.clock)
        self.provider = SimulatedSms4Sats(self.payee, self.clock)
        self.http = httpx.AsyncClient(trust_env=False, verify=NO_ROOTS)
        self.answers: list[Answer] = []

    @property
    def knobs(self) -> Knobs:
        return self.provider.knobs

    async def get(self, path: str, **query: str | int) -> httpx.Response:
        return await self.http.get(self.provider.url + path, params=query)

    async def post(self, path: str, body: object, key: str | None = None) -> httpx.Response:
        headers = {} if key is None else {"X-API-Key": key}
        return await self.http.post(self.provider.url + path, content=json.dumps(body), headers=headers)

    async def order(self, key: str | None = None, **body: Any) -> dict[str, Any]:
        reply: dict[str, Any] = (await self.post("/createorder", {"country": 187, "service": "dr", **body}, key)).json()
        return reply

    async def send(self, key: str | None = None, **body: Any) -> dict[str, Any]:
        body = {"phone": "+19871234567", "message": "hello", **body}
        reply: dict[str, Any] = (await self.post("/createsendorder", body, key)).json()
        return reply

    async def fund(self, amount: object, key: str | None = KEY) -> httpx.Response:
        return await self.post("/fund", {"amount": amount}, key)

    async def account(self, path: str, key: str | None = KEY) -> dict[str, Any]:
        """/balance or /history."""
        headers = {} if key is None else {"X-API-Key": key}
        reply: dict[str, Any] = (await self.http.get(self.provider.url + path, headers=headers)).json()
        return reply

    async def balance_sat(self) -> int:
        return int((await self.account("/balance"))["balance"])

    async def status(self, order: dict[str, Any]) -> dict[str, Any]:
        reply: dict[str, Any] = (await self.get("/orderstatus", orderId=order["orderId"])).json()
        return reply

    async def cancel(self, order: dict[str, Any]) -> dict[str, Any]:
        reply: dict[str, Any] = (await self.get("/cancelorder", orderId=order["orderId"])).json()
        return reply

    async def pay(self, order: dict[str, Any]) -> None:
        """The HTLC reaches the payee, and the provider says so."""
        terms = bolt11.decode(order["payreq"], self.payee.network_name).terms
        assert terms.payment_secret is not None
        assert terms.amount_msat is not None
        amount_msat, expiry_height = terms.amount_msat, HEIGHT + terms.min_final_cltv_delta
        self.payee.receive(
            IncomingHtlc(
                terms.payment_hash, terms.payment_secret, amount_msat, amount_msat, expiry_height, self.answers.append
            ),
            HEIGHT,
        )
        await self.clock.advance(0.3)

    async def invoice(self, order: dict[str, Any]) -> InvoiceState:
        return await self.payee.state(bolt11.decode(order["payreq"], self.payee.network_name).terms.payment_hash)


class running:  # noqa: N801 - reads like a function
    def __init__(self, world: World) -> None:
        self.world = world

    async def __aenter__(self) -> World:
        await self.world.provider.start()
        return self.world

    async def __aexit__(self, *_: object) -> None:
        await self.world.http.aclose()
        await self.world.provider.stop()


def same_shape(ours: object, example: object) -> None:
    """The same fields with the same types, all the way down."""
    assert type(ours) is type(example)
    if isinstance(ours, dict) and isinstance(example, dict):
        assert ours.keys() == example.keys()
        for name, value in ours.items():
            same_shape(value, example[name])
    if isinstance(ours, list) and isinstance(example, list):
        same_shape(ours[0], example[0])


def example(name: str) -> Any:
    return json.loads((EXAMPLES / f"{name}.json").read_text())
