"""The prepaid account of the simulated sms4sats: /fund, /balance and /history. There is one, and its key is a knob."""

from __future__ import annotations

from typing import Any, Final

from holdpay.sandbox.http_server import Request, Response, json_response
from holdpay.sandbox.sms4sats_knobs import Knobs
from holdpay.sandbox.sms4sats_orders import Sale, Shop, SimulatedOrder, ordered
from holdpay.sandbox.sms4sats_requests import BACKEND, KEY_MISSING, Body, KeyMissing, Malformed, check_key, error

MAX_FUND_SAT: Final = 100_000_000
WHAT: Final = "fund account"


class FundOrder(SimulatedOrder):
    """Credited, and settled then. Nothing in the reference asks for its status."""

    def __init__(self, sale: Sale, amount_sat: int, knobs: Knobs) -> None:
        super().__init__(sale)
        self.amount_sat = amount_sat
        self.is_credited = False
        self._knobs = knobs

    def unpaid(self) -> dict[str, Any]:
        return {}

    def delivered(self) -> dict[str, Any]:
        return {"credited": self.is_credited}

    def end(self, text: str) -> None:
        if self.is_credited:
            self.is_credited = False
            self._knobs.balance_sat -= self.amount_sat

    async def serve(self, shop: Shop, held_at_s: float) -> None:
        await shop.until(held_at_s, self.scenario.credited_after_s + min(self.scenario.settle_lag_s, 0))
        await shop.deliver(self, self._credit)

    def _credit(self) -> None:
        self.is_credited = True
        self._knobs.balance_sat += self.amount_sat


class Account:
    """The endpoints."""

    def __init__(self, shop: Shop) -> None:
        self.orders: dict[str, FundOrder] = {}
        self._knobs = shop.knobs
        self._shop = shop

    async def fund(self, request: Request) -> Response:
        return await ordered(self._order(request), BACKEND)

    async def balance(self, request: Request) -> Response:
        return self._told(request, {"balance": self._knobs.balance_sat})

    async def history(self, request: Request) -> Response:
        rows = [self._row(order) for order in self.orders.values() if order.is_credited]
        return self._told(request, {"totalAmount": sum(row["amount"] for row in rows), "orders": rows})

    def _told(self, request: Request, fields: dict[str, Any]) -> Response:
        try:
            check_key(request, self._knobs.api_key)
        except KeyMissing:
            return error(KEY_MISSING, 400)
        return json_response({"status": "OK", **fields})

    def _row(self, order: FundOrder) -> dict[str, Any]:
        return {
            "amount": order.amount_sat,
            "createdAt": int(order.sale.created_at_s * 1000),
            "desc": WHAT,
            "description": WHAT,
            "holdinvoice": True,
            "preimage": order.preimage.hex(),
            "preimageHash": order.payment_hash.hex(),
            "price": order.sale.price_sat,
            "userId": self._knobs.api_key,
        }

    async def _order(self, request: Request) -> FundOrder:
        check_key(request, self._knobs.api_key)
        amount_sat = int(Body(request.body).digits("amount"))
        if not 0 < amount_sat <= MAX_FUND_SAT:
            raise Malformed("amount")
        sale = await self._shop.sell(WHAT, amount_sat)
        return self._shop.begin(FundOrder(sale, amount_sat, self._knobs), self.orders)
