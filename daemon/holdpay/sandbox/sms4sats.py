"""A simulated sms4sats: a real HTTP server that sells real hold invoices of whatever node it is given.

It speaks as the provider's reference and public clients show, and can be made to misbehave by ``Knobs``: in the same
process, or by HTTP (``POST /sandbox`` with the knobs to change; ``GET /sandbox`` tells what was asked and ordered).
"""

from __future__ import annotations

import json
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Any

from holdpay.sandbox.clock import Clock
from holdpay.sandbox.http_server import HttpServer, Request, Response, json_response
from holdpay.sandbox.payee import HoldInvoiceError, HoldInvoices
from holdpay.sandbox.sms4sats_knobs import Knobs, change_knobs
from holdpay.sandbox.sms4sats_orders import OrderRefused, Orders, SimulatedOrder

LOGGED_REQUESTS = 10_000
UNABLE = "unable to save data"
SERVICES = {
    "go": "Google,youtube,Gmail",
    "tg": "Telegram",
    "wa": "Whatsapp",
    "dr": "OpenAI",
    "tw": "Twitter",
    "vk": "vk.com",
    "ot": "Any other",
}
"""Short code → text."""
RENTALS = [
    {"cc": 6, "country": "Indonesia", "duration": "2", "price": 1368},
    {"cc": 16, "country": "England", "duration": "2", "price": 4815},
]

Endpoint = Callable[[Request], Awaitable[Response]]


class SimulatedSms4Sats:
    """Runs from ``start`` to ``stop``. ``knobs`` may be changed at any time.

    ``requests`` counts by path, ``request_log`` holds (seconds since 1970, path) of the latest: they show whether a
    client is polite. ``http`` can be stopped and started by itself: the provider is away, its orders go on.
    """

    def __init__(
        self,
        invoices: HoldInvoices,
        clock: Clock,
        knobs: Knobs | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        rng: random.Random | None = None,
    ) -> None:
        self.knobs = knobs or Knobs()
        self.requests: Counter[str] = Counter()
        self.request_log: deque[tuple[float, str]] = deque(maxlen=LOGGED_REQUESTS)
        self.http = HttpServer(self._answer, host, port)
        self._clock = clock
        self._orders = Orders(invoices, clock, self.knobs, rng or random.Random())  # noqa: S311 - codes of a simulation
        self._countries = _countries()
        self._endpoints: Mapping[tuple[str, str], Endpoint] = {
            ("GET", "/"): self._root,
            ("GET", "/getCountries"): self._get_countries,
            ("GET", "/getnumbersstatus"): self._get_numbers_status,
            ("GET", "/getRentalCountries"): self._get_rental_countries,
            ("GET", "/price"): self._price,
            ("POST", "/createorder"): self._create_order,
            ("GET", "/orderstatus"): self._order_status,
            ("GET", "/cancelorder"): self._cancel_order,
        }

    @property
    def url(self) -> str:
        """Known once started."""
        return self.http.url

    @property
    def orders(self) -> Mapping[str, SimulatedOrder]:
        """By the provider's order id."""
        return self._orders.by_id

    async def start(self) -> None:
        """Raises OSError if the port is taken."""
        await self.http.start()

    async def stop(self) -> None:
        """Leaves what the node holds as it is."""
        await self.http.stop()
        await self._orders.stop()

    async def _answer(self, request: Request) -> Response:
        if request.path == "/sandbox":
            return self._control(request)
        self.requests[request.path] += 1
        self.request_log.append((self._clock.now_s(), request.path))
        if self.knobs.slow_s:
            await self._clock.sleep_s(self.knobs.slow_s)
        endpoint = self._endpoints.get((request.method, request.path))
        if endpoint is None:
            return Response(b"<!DOCTYPE html><pre>Cannot find it</pre>", 404, {"Content-Type": "text/html"})
        return self._fault(request.path) or await endpoint(request)

    def _fault(self, path: str) -> Response | None:
        knobs = self.knobs
        if knobs.only_path not in {"", path}:
            return None
        if knobs.http_429:
            knobs.http_429 -= 1
            return Response(b"Too Many Requests", 429, {"Retry-After": str(knobs.retry_after_s)})
        if knobs.http_500:
            knobs.http_500 -= 1
            return _error(UNABLE, 500)
        if knobs.garbage:
            knobs.garbage -= 1
            return Response(b"<html>\x00\xff<h1>Welcome to nginx!", 200, {"Content-Type": "application/json"})
        return None

    def _control(self, request: Request) -> Response:
        if request.method == "POST":
            try:
                change_knobs(self.knobs, json.loads(request.body))
            except ValueError as error:
                return _error(str(error), 400)
        orders = [
            {"order_id": order.order_id, "error": order.error, "code": order.code} for order in self.orders.values()
        ]
        return json_response({"requests": self.requests, "orders": orders})

    # --- the provider's endpoints -----------------------------------------------------------------------------------

    async def _root(self, request: Request) -> Response:
        return Response(b"OK", headers={"Content-Type": "text/plain"})

    async def _get_countries(self, request: Request) -> Response:
        return json_response([{"id": cc, "eng": name, "visible": 1} for cc, name in self._countries.items()])

    async def _get_numbers_status(self, request: Request) -> Response:
        if self._country(request.query.get("country", "")) is None:
            return _error(UNABLE, 500)
        count = str(self.knobs.stock)
        image = {"avatar": True, "src": "/assets/none.png"}
        rows = [{"key": c, "text": text, "value": c, "count": count, "image": image} for c, text in SERVICES.items()]
        return json_response(rows)

    async def _get_rental_countries(self, request: Request) -> Response:
        return json_response(RENTALS)

    async def _price(self, request: Request) -> Response:
        price_sat = self.knobs.price_sat
        if not request.query:
            return json_response({"receive": price_sat, "send": 1000, "rent": 15_000, "s4s": 5000})
        country = self._country(request.query.get("country", ""))
        service = request.query.get("service", "")
        if country is None:
            return _error(UNABLE, 500)
        computed = {
            "price": price_sat,
            "country": country,
            "description": f"sms4sats payment {self._countries[country]} {service}",
        }
        # A public client shows numbers and strings mixed like this.
        prices = {"receive": str(price_sat), "send": 1000, "rent": 15_000, "s4s": "5000"}
        return json_response({**prices, "query": dict(request.query), "computed": computed})

    async def _create_order(self, request: Request) -> Response:
        wanted = _object(request.body)
        country = self._country(str(wanted.get("country", "")))
        service = wanted.get("service")
        if country is None or not isinstance(service, str) or not service:
            return _error(UNABLE, 500)
        if wanted.get("immediate"):
            return _error("X-API-Key header is missing.", 400)
        if self.knobs.refuse_orders:
            self.knobs.refuse_orders -= 1
            return _error("no numbers for this service", 200)
        try:
            order = await self._orders.create(
                self._countries[country], SERVICES.get(service, service), self.knobs.price_sat
            )
        except HoldInvoiceError:
            return _error(UNABLE, 500)
        return json_response({"status": "OK", "orderId": order.order_id, "payreq": order.payreq})

    async def _order_status(self, request: Request) -> Response:
        order = self.orders.get(request.query.get("orderId", ""))
        return _error(UNABLE, 500) if order is None else json_response(order.body())

    async def _cancel_order(self, request: Request) -> Response:
        order = self.orders.get(request.query.get("orderId", ""))
        if order is None:
            return _error(UNABLE, 500)
        try:
            self._orders.cancel(order)
        except OrderRefused as refusal:
            return _error(str(refusal), 200)
        return json_response({"status": "OK"})

    def _country(self, text: str) -> int | None:
        code = int(text) if text.isascii() and text.isdecimal() and len(text) < 5 else None
        return code if code in self._countries else None


def _countries() -> dict[int, str]:
    rows = json.loads(files("holdpay").joinpath("data", "countries.json").read_text("utf-8"))
    names: dict[int, str] = {}
    for row in rows:
        names.setdefault(row["cc"], row["country"])
    return names


def _error(reason: str, http_status: int) -> Response:
    return json_response({"status": "error", "reason": reason}, http_status)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
