"""What the orders of the simulated sms4sats have in common, whatever they buy: they are sold, paid, and then served.

A kind of order is a ``SimulatedOrder`` of its own (``sms4sats_numbers``, ``sms4sats_send``, ``sms4sats_account``).
"""

from __future__ import annotations

import asyncio
import random
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from holdpay.sandbox.bolt11 import payment_hash_of
from holdpay.sandbox.clock import Clock, scaled_s
from holdpay.sandbox.http_server import Response, json_response
from holdpay.sandbox.payee import HoldInvoiceError, HoldInvoices
from holdpay.sandbox.sms4sats_catalog import memo
from holdpay.sandbox.sms4sats_funding import ByHoldInvoice, FromBalance, Funding
from holdpay.sandbox.sms4sats_knobs import Knobs, Scenario
from holdpay.sandbox.sms4sats_requests import KEY_MISSING, KeyMissing, Malformed, error

NO_NUMBER_TEXT: Final = (
    "No available number, payment request is canceled. Your funds are returned to your wallet automatically."
)
CANCELED_TEXT: Final = (
    "Order canceled, payment request is canceled. Your funds are returned to your wallet automatically."
)
PREPAID: Final = "paid"
"""In the place of an invoice."""
NODE_RETRY_S: Final = 1.0

T = TypeVar("T")


class OrderRefused(Exception):
    """The answer is an error, with this reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale:
    """What is agreed when an order is made. Without an invoice (prepaid) the preimage opens nothing."""

    order_id: str
    preimage: bytes
    payreq: str
    price_sat: int
    funding: Funding
    scenario: Scenario
    created_at_s: float


class SimulatedOrder(ABC):
    """As the provider sees it; the client sees ``body``."""

    def __init__(self, sale: Sale) -> None:
        self.sale = sale
        self.paid_at_s: float | None = None
        self.is_delivering = False
        """From here on no cancel is taken: what was ordered is here, or the HTLC is being settled."""
        self.life: asyncio.Task[None] | None = None
        self._reply_count = 0

    @property
    def order_id(self) -> str:
        return self.sale.order_id

    @property
    def preimage(self) -> bytes:
        return self.sale.preimage

    @property
    def payment_hash(self) -> bytes:
        return payment_hash_of(self.sale.preimage)

    @property
    def payreq(self) -> str:
        return self.sale.payreq

    @property
    def scenario(self) -> Scenario:
        return self.sale.scenario

    def body(self) -> dict[str, Any]:
        """One ``/orderstatus`` reply."""
        self._reply_count += 1
        is_flipped = self.scenario.flips and self._reply_count % 2 == 0
        return {"status": "OK", "paid": False, **self.unpaid()} if is_flipped else self.status()

    def status(self) -> dict[str, Any]:
        """What is so, without the scenario's lies."""
        return {"status": "OK", "paid": self.paid_at_s is not None, **self.delivered()}

    @abstractmethod
    def unpaid(self) -> dict[str, Any]:
        """What a reply says beside ``status`` and ``paid`` before anything came."""

    @abstractmethod
    def delivered(self) -> dict[str, Any]:
        """Likewise, with what has come by now."""

    @abstractmethod
    def end(self, text: str) -> None:
        """The order is over without what was ordered; what the provider says to that."""

    @abstractmethod
    async def serve(self, shop: Shop, held_at_s: float) -> None:
        """The order's life from when it was paid. ``held_at_s``: when the price was held."""


OrderT = TypeVar("OrderT", bound=SimulatedOrder)


class Shop:
    """Sells orders, and lives them. The lives end with ``stop``; what the node holds then stays held."""

    def __init__(self, invoices: HoldInvoices, clock: Clock, knobs: Knobs, rng: random.Random) -> None:
        self.knobs = knobs
        self.rng = rng
        self._clock = clock
        self._invoices = invoices
        self._tasks: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def sell(self, what: str, price_sat: int, *, is_prepaid: bool = False) -> Sale:
        """Makes the invoice, or charges the balance.

        Raises OrderRefused, and HoldInvoiceError if the node gives no invoice.
        """
        knobs = self.knobs
        if knobs.refuse_orders:
            knobs.refuse_orders -= 1
            raise OrderRefused("no numbers for this service")
        scenario = knobs.queue.popleft() if knobs.queue else knobs.scenario
        price_sat = round(price_sat * (1 + scenario.overprice_percent / 100))
        preimage = secrets.token_bytes(32)
        payment_hash = payment_hash_of(preimage)
        funding: Funding
        if is_prepaid:
            if knobs.balance_sat < price_sat:
                raise OrderRefused("the balance is too low")
            knobs.balance_sat -= price_sat
            payreq, funding = PREPAID, FromBalance(knobs, price_sat)
        else:
            payreq = await self._invoices.add(
                payment_hash=payment_hash,
                value_sat=price_sat,
                memo=memo(what),
                expiry_s=scenario.invoice_expiry_s,
                cltv_delta=scenario.invoice_cltv_delta,
            )
            funding = ByHoldInvoice(self._invoices, preimage)
        return Sale(
            order_id=secrets.token_hex(32) if scenario.other_order_id else payment_hash.hex(),
            preimage=preimage,
            payreq=payreq,
            price_sat=price_sat,
            funding=funding,
            scenario=scenario,
            created_at_s=self._clock.now_s(),
        )

    def begin(self, order: OrderT, orders: dict[str, OrderT]) -> OrderT:
        """Its life begins, among the ``orders`` of its kind."""
        orders[order.order_id] = order
        order.life = self.spawn(self._live(order))
        return order

    def cancel(self, order: SimulatedOrder) -> None:
        """The client's cancel. Raises OrderRefused: too early, or too late. Repeating it changes nothing."""
        since_s = order.sale.created_at_s if order.paid_at_s is None else order.paid_at_s
        if order.is_delivering:
            raise OrderRefused("the order was already delivered")
        if self._clock.now_s() < since_s + scaled_s(self._clock, self.knobs.cancel_from_s):
            raise OrderRefused("an order can be canceled after 2 minutes")
        assert order.life is not None
        order.life.cancel()
        order.life = self.spawn(self.give_back(order, lambda: order.end(CANCELED_TEXT)))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs it until its end, or ``stop``."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def deliver(self, order: SimulatedOrder, show: Callable[[], None]) -> bool:
        """Shows what is paid for, and takes the money. False: there was none any more, and the order is over."""
        order.is_delivering = True
        try:
            await self._beside(order.scenario.settle_lag_s, show, order.sale.funding.take)
        except HoldInvoiceError:
            # The node had to give the money back, an HTLC near its expiry for example.
            order.end(CANCELED_TEXT)
            return False
        return True

    async def give_back(self, order: SimulatedOrder, show: Callable[[], None]) -> None:
        """Shows that the order is over, and gives the money back."""
        await self._beside(order.scenario.cancel_lag_s, show, order.sale.funding.give_back)

    async def until(self, from_s: float, after_s: float) -> None:
        """``from_s`` is ordinary time, ``after_s`` of the simulated world."""
        left_s = from_s + scaled_s(self._clock, after_s) - self._clock.now_s()
        if left_s > 0:
            await self._clock.sleep_s(left_s)

    def now_s(self) -> float:
        return self._clock.now_s()

    async def _live(self, order: SimulatedOrder) -> None:
        if not await self._patiently(order.sale.funding.held):
            order.end(CANCELED_TEXT)
            return
        held_at_s = self._clock.now_s()
        await self.until(held_at_s, order.scenario.paid_lag_s)
        order.paid_at_s = self._clock.now_s()
        await order.serve(self, held_at_s)

    async def _beside(self, lag_s: float, show: Callable[[], None], act: Callable[[], Awaitable[None]]) -> None:
        """Shows it, and acts so much later; negative: acts first."""
        if lag_s >= 0:
            show()
        await self.until(self._clock.now_s(), lag_s)
        await self._patiently(act)
        if lag_s < 0:
            await self.until(self._clock.now_s(), -lag_s)
            show()

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeats until the node answers; raises HoldInvoiceError if it never will otherwise."""
        while True:
            try:
                return await call()
            except HoldInvoiceError as refusal:
                if "already" in str(refusal):
                    raise
                await self._clock.sleep_s(NODE_RETRY_S)


async def ordered(make: Awaitable[SimulatedOrder], problem: str) -> Response:
    """The answer to every endpoint that makes an order. ``problem``: the reference's word for what it cannot do."""
    try:
        order = await make
    except KeyMissing:
        return error(KEY_MISSING, 400)
    except OrderRefused as refusal:
        # One public client shows such a reason with HTTP 200.
        return error(str(refusal), 200)
    except (Malformed, HoldInvoiceError):
        return error(problem, 500)
    return json_response({"status": "OK", "orderId": order.order_id, "payreq": order.payreq})
