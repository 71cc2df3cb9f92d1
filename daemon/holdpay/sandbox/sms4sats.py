"""A simulated sms4sats: a real HTTP server that sells real hold invoices of whatever node it is given.

It speaks as the provider's reference and public clients show, and can be made to misbehave by ``Knobs``: in the same
process, or by HTTP (``POST /sandbox`` with the knobs to change; ``GET /sandbox`` tells what was asked and ordered).
``GET /openapi.json`` describes the provider's API (data/sms4sats.openapi.json).
"""

from __future__ import annotations

import json
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Final

from holdpay.sandbox.clock import Clock
from holdpay.sandbox.http_server import HangUp, HttpServer, Request, Response, json_response
from holdpay.sandbox.payee import HoldInvoices
from holdpay.sandbox.sms4sats_account import Account, FundOrder
from holdpay.sandbox.sms4sats_catalog import Catalog
from holdpay.sandbox.sms4sats_knobs import Knobs, change_knobs
from holdpay.sandbox.sms4sats_numbers import NumberOrder, Numbers
from holdpay.sandbox.sms4sats_orders import Shop
from holdpay.sandbox.sms4sats_requests import BACKEND, UNABLE, error
from holdpay.sandbox.sms4sats_send import Sending, SendOrder

LOGGED_REQUESTS: Final = 10_000
BACKEND_PATHS: Final = {"/createsendorder", "/createemailsendorder", "/fund"}
"""Their HTTP 500 has another reason than that of the others."""

Endpoint = Callable[[Request], Awaitable[Response]]


class SimulatedSms4Sats:
    """Runs from ``start`` to ``stop``. ``knobs`` may be changed at any time.

    ``requests`` counts by path, ``request_log`` holds the latest with their times (seconds since 1970): they show
    whether a client is polite. ``http`` can be stopped and started by itself: the provider is away, its orders go on.
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
        self.request_log: deque[tuple[float, Request]] = deque(maxlen=LOGGED_REQUESTS)
        self.http = HttpServer(self._answer, host, port)
        self._clock = clock
        self._shop = Shop(invoices, clock, self.knobs, rng or random.Random())  # noqa: S311 - codes of a simulation
        self._numbers = Numbers(self._shop)
        self._sending = Sending(self._shop)
        self._account = Account(self._shop)
        catalog = Catalog(self.knobs)
        self._endpoints: Mapping[tuple[str, str], Endpoint] = {
            ("GET", "/"): self._root,
            ("GET", "/getCountries"): catalog.get_countries,
            ("GET", "/getnumbersstatus"): catalog.get_numbers_status,
            ("GET", "/getRentalCountries"): catalog.get_rental_countries,
            ("GET", "/price"): catalog.price,
            ("POST", "/createorder"): self._numbers.create_order,
            ("GET", "/cancelorder"): self._numbers.cancel_order,
            ("POST", "/createsendorder"): self._sending.create_send_order,
            ("POST", "/createemailsendorder"): self._sending.create_email_send_order,
            ("GET", "/orderstatus"): self._order_status,
            ("POST", "/fund"): self._account.fund,
            ("GET", "/balance"): self._account.balance,
            ("GET", "/history"): self._account.history,
        }

    @property
    def url(self) -> str:
        """Known once started."""
        return self.http.url

    @property
    def orders(self) -> Mapping[str, NumberOrder]:
        """What /createorder made, by the provider's order id: numbers for a code, and rentals."""
        return self._numbers.orders

    @property
    def sendings(self) -> Mapping[str, SendOrder]:
        """SMS and e-mails, likewise."""
        return self._sending.orders

    @property
    def funds(self) -> Mapping[str, FundOrder]:
        """What /fund made, likewise."""
        return self._account.orders

    async def start(self) -> None:
        """Raises OSError if the port is taken."""
        await self.http.start()

    async def stop(self) -> None:
        """Leaves what the node holds as it is."""
        await self.http.stop()
        await self._shop.stop()

    async def _answer(self, request: Request) -> Response:
        if request.path == "/sandbox":
            return self._control(request)
        if request.path == "/openapi.json":
            return self._description()
        self.requests[request.path] += 1
        self.request_log.append((self._clock.now_s(), request))
        if self.knobs.slow_s:
            await self._clock.sleep_s(self.knobs.slow_s)
        endpoint = self._endpoints.get((request.method, request.path))
        if endpoint is None:
            return Response(b"<!DOCTYPE html><pre>Cannot find it</pre>", 404, {"Content-Type": "text/html"})
        return self._fault(request.path) or self._unless_lost(request, await endpoint(request))

    def _unless_lost(self, request: Request, response: Response) -> Response:
        knobs = self.knobs
        changes_something = request.method == "POST" or request.path == "/cancelorder"
        if knobs.lost_replies and changes_something and knobs.only_path in {"", request.path}:
            knobs.lost_replies -= 1
            raise HangUp
        return response

    def _fault(self, path: str) -> Response | None:
        knobs = self.knobs
        if knobs.only_path not in {"", path}:
            return None
        if knobs.http_429:
            knobs.http_429 -= 1
            return Response(b"Too Many Requests", 429, {"Retry-After": str(knobs.retry_after_s)})
        if knobs.http_500:
            knobs.http_500 -= 1
            return error(BACKEND if path in BACKEND_PATHS else UNABLE, 500)
        if knobs.garbage:
            knobs.garbage -= 1
            return Response(b"<html>\x00\xff<h1>Welcome to nginx!", 200, {"Content-Type": "application/json"})
        return None

    def _control(self, request: Request) -> Response:
        if request.method == "POST":
            try:
                change_knobs(self.knobs, json.loads(request.body))
            except ValueError as problem:
                return error(str(problem), 400)
        kinds = (self.orders, self.sendings, self.funds)
        orders = [{"order_id": order_id, **order.status()} for kind in kinds for order_id, order in kind.items()]
        return json_response({"requests": self.requests, "orders": orders})

    def _description(self) -> Response:
        """Of the real API; whoever follows it must not get to the real provider from here."""
        description = json.loads(files("holdpay").joinpath("data", "sms4sats.openapi.json").read_text("utf-8"))
        return json_response({**description, "servers": [{"url": self.url}]})

    async def _root(self, request: Request) -> Response:
        return Response(b"OK", headers={"Content-Type": "text/plain"})

    async def _order_status(self, request: Request) -> Response:
        order_id = request.query.get("orderId", "")
        order = self.orders.get(order_id) or self.sendings.get(order_id)
        return error(UNABLE, 500) if order is None else json_response(order.body())
