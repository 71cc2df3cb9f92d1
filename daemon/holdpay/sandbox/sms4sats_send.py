"""/createsendorder and /createemailsendorder of the simulated sms4sats: a message that is sent for the client."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from holdpay.sandbox.http_server import Request, Response
from holdpay.sandbox.sms4sats_orders import Sale, Shop, SimulatedOrder, ordered
from holdpay.sandbox.sms4sats_requests import BACKEND, Body, Malformed, check_key
from holdpay.sandbox.sms4sats_webhooks import Webhook

MAX_MESSAGE_CHARS: Final = 140
MAX_ADDRESS_CHARS: Final = 320
MAX_URL_CHARS: Final = 2000
PHONE: Final = re.compile(r"\+?[1-9][0-9]{6,14}", re.ASCII)
"""E.164; a public wallet leaves the plus out."""
EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+")


@dataclass(frozen=True, slots=True)
class Letter:
    """``receiver``: a phone number or an e-mail address. ``prefix``: how the provider's ids of its kind begin."""

    receiver: str
    message: str
    prefix: str


class SendOrder(SimulatedOrder):
    """``sms_status``: created, then sent and delivered, or failed. Settled when it is sent."""

    def __init__(self, sale: Sale, shop: Shop, letter: Letter, webhook: Webhook) -> None:
        super().__init__(sale)
        self.letter = letter
        self.sms_status = "created"
        self._shop = shop
        self._webhook = webhook

    def unpaid(self) -> dict[str, Any]:
        return self._reply("created")

    def delivered(self) -> dict[str, Any]:
        return self._reply(self.sms_status)

    def end(self, text: str) -> None:
        self._change("failed")

    async def serve(self, shop: Shop, held_at_s: float) -> None:
        scenario = self.scenario
        if scenario.fails_instead_of == "sent":
            await shop.until(held_at_s, scenario.sent_after_s)
            await shop.give_back(self, self._changes("failed"))
            return
        await shop.until(held_at_s, scenario.sent_after_s + min(scenario.settle_lag_s, 0))
        if await shop.deliver(self, self._changes("sent")):
            await shop.until(held_at_s, scenario.delivered_after_s)
            self._change("failed" if scenario.fails_instead_of == "delivered" else "delivered")

    def _changes(self, sms_status: str) -> Callable[[], None]:
        return lambda: self._change(sms_status)

    def _change(self, sms_status: str) -> None:
        self.sms_status = sms_status
        self._shop.spawn(self._webhook.call(self.status()))

    def _reply(self, sms_status: str) -> dict[str, Any]:
        return {
            "id": self.letter.prefix + self.payment_hash[:16].hex(),
            "smsStatus": sms_status,
            "timestamp": int(self.sale.created_at_s * 1000),
        }


class Sending:
    """The endpoints."""

    def __init__(self, shop: Shop) -> None:
        self.orders: dict[str, SendOrder] = {}
        self._shop = shop

    async def create_send_order(self, request: Request) -> Response:
        return await ordered(self._order(request, "phone", PHONE, "SM"), BACKEND)

    async def create_email_send_order(self, request: Request) -> Response:
        return await ordered(self._order(request, "address", EMAIL, "EM"), BACKEND)

    async def _order(self, request: Request, receiver_field: str, form: re.Pattern[str], prefix: str) -> SendOrder:
        body, knobs = Body(request.body), self._shop.knobs
        receiver = body.text(receiver_field, max_chars=MAX_ADDRESS_CHARS)
        if not form.fullmatch(receiver):
            raise Malformed(receiver_field)
        letter = Letter(receiver, body.text("message", max_chars=MAX_MESSAGE_CHARS), prefix)
        webhook = Webhook(body.optional_text("webhookUrl", max_chars=MAX_URL_CHARS))
        is_prepaid = body.flag("immediate")
        if is_prepaid:
            check_key(request, knobs.api_key)
        sale = await self._shop.sell("send", knobs.send_sat, is_prepaid=is_prepaid)
        return self._shop.begin(SendOrder(sale, self._shop, letter, webhook), self.orders)
