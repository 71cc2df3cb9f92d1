"""/createorder of the simulated sms4sats: a number for one activation code, or a number that is rented."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Final

from holdpay.sandbox.http_server import Request, Response, json_response
from holdpay.sandbox.sms4sats_catalog import RENTALS, SERVICES, countries, country_code
from holdpay.sandbox.sms4sats_orders import NO_NUMBER_TEXT, OrderRefused, Sale, Shop, SimulatedOrder, ordered
from holdpay.sandbox.sms4sats_requests import UNABLE, Body, Malformed, check_key, error

MAX_SERVICE_CHARS: Final = 64
MAX_REF_CHARS: Final = 320
GARBLED: Final = {"type": "Buffer", "data": [27, 255, 0, 159]}
"""A text that was meant to be decoded: the way Node.js writes bytes in JSON."""


class NumberOrder(SimulatedOrder):
    """``number``, ``code`` and ``error`` are empty until there is one. ``ref``: who earns a share."""

    def __init__(self, sale: Sale, country: str, service: str, ref: str) -> None:
        super().__init__(sale)
        self.country = country
        self.service = service
        self.ref = ref
        self.number = ""
        self.code = ""
        self.error = ""

    def unpaid(self) -> dict[str, Any]:
        return self._reply("", "")

    def delivered(self) -> dict[str, Any]:
        return {"error": self.error} if self.error else self._reply(self.number, self.code)

    def end(self, text: str) -> None:
        self.error = text

    def shown(self, digits: str) -> int | str:
        """0 and empty mean absent."""
        return int(digits or 0) if self.scenario.as_numbers else digits

    def find_number(self, rng: random.Random) -> None:
        self.number = f"1{rng.randrange(10**10):010}"

    async def give_up(self, shop: Shop, held_at_s: float) -> None:
        """What was promised does not come."""
        await shop.until(held_at_s, self.scenario.gives_up_after_s)
        await shop.give_back(self, lambda: self.end(NO_NUMBER_TEXT))

    def _reply(self, number: str, code: str) -> dict[str, Any]:
        return {
            "code": self.shown(code),
            "id": int.from_bytes(self.payment_hash[:4], "big"),
            "number": self.shown(number),
            "timestamp": int(self.sale.created_at_s * 1000),
            "country": self.country,
            "service": self.service,
        }


class ReceiveOrder(NumberOrder):
    """One activation code."""

    async def serve(self, shop: Shop, held_at_s: float) -> None:
        scenario = self.scenario
        if not scenario.no_number:
            await shop.until(held_at_s, scenario.number_after_s)
            self.find_number(shop.rng)
        if scenario.no_number or scenario.no_code:
            await self.give_up(shop, held_at_s)
            return
        await shop.until(held_at_s, scenario.code_after_s + min(scenario.settle_lag_s, 0))
        await shop.deliver(self, lambda: self._show_code(scenario.code or random_code(shop.rng)))

    def _show_code(self, code: str) -> None:
        self.code = code


@dataclass(frozen=True, slots=True)
class Message:
    code: str
    at_s: float
    is_garbled: bool


class Rental(NumberOrder):
    """Settled when the number is there; then messages come. ``code`` is the latest that can be read."""

    def __init__(self, sale: Sale, country: str, service: str, ref: str) -> None:
        super().__init__(sale, country, service, ref)
        self.messages: list[Message] = []

    def delivered(self) -> dict[str, Any]:
        reply = super().delivered()
        if self.error or not self.messages:
            return reply
        rows = [
            {
                "code": GARBLED if message.is_garbled else self.shown(message.code),
                "timestamp": int(message.at_s * 1000),
            }
            for message in self.messages
        ]
        name = self.scenario.messages_as
        return {**reply, "code": rows[-1]["code"]} if name == "code" else {**reply, "code": self.shown(""), name: rows}

    async def serve(self, shop: Shop, held_at_s: float) -> None:
        scenario = self.scenario
        if scenario.no_number:
            await self.give_up(shop, held_at_s)
        elif await shop.deliver(self, lambda: self.find_number(shop.rng)):
            await self._receive(shop, held_at_s)

    async def _receive(self, shop: Shop, held_at_s: float) -> None:
        scenario = self.scenario
        times_s = sorted(after_s for after_s in scenario.messages_after_s if after_s <= scenario.rental_ends_after_s)
        for count, after_s in enumerate(times_s, start=1):
            await shop.until(held_at_s, after_s)
            message = Message(random_code(shop.rng), shop.now_s(), count == scenario.garbled_message)
            self.messages.append(message)
            if not message.is_garbled:
                self.code = message.code


def random_code(rng: random.Random) -> str:
    return f"{rng.randrange(10**6):06}"


class Numbers:
    """The endpoints."""

    def __init__(self, shop: Shop) -> None:
        self.orders: dict[str, NumberOrder] = {}
        self._shop = shop

    async def create_order(self, request: Request) -> Response:
        return await ordered(self._order(request), UNABLE)

    async def cancel_order(self, request: Request) -> Response:
        order = self.orders.get(request.query.get("orderId", ""))
        if order is None:
            return error(UNABLE, 500)
        try:
            if not order.error:
                self._shop.cancel(order)
        except OrderRefused as refusal:
            return error(str(refusal), 200)
        return json_response({"status": "OK"})

    async def _order(self, request: Request) -> NumberOrder:
        body, knobs = Body(request.body), self._shop.knobs
        country = country_code(body.digits("country"))
        service = body.text("service", max_chars=MAX_SERVICE_CHARS)
        ref = body.optional_text("ref", max_chars=MAX_REF_CHARS)
        is_rental, is_real_phone = body.flag("isRental"), body.flag("realphone")
        is_prepaid = body.flag("immediate")
        if country is None:
            raise Malformed("country")
        if is_prepaid:
            check_key(request, knobs.api_key)
        kind: type[NumberOrder] = Rental if is_rental else ReceiveOrder
        price_sat = self._price_sat(country, is_rental=is_rental, is_real_phone=is_real_phone)
        names = (countries()[country], SERVICES.get(service, service))
        sale = await self._shop.sell(" ".join(names), price_sat, is_prepaid=is_prepaid)
        return self._shop.begin(kind(sale, *names, ref), self.orders)

    def _price_sat(self, country: int, *, is_rental: bool, is_real_phone: bool) -> int:
        knobs = self._shop.knobs
        if not is_rental:
            return knobs.realphone_sat if is_real_phone else knobs.price_sat
        if country not in RENTALS:
            raise OrderRefused("no numbers to rent in this country")
        return RENTALS[country].price_sat
