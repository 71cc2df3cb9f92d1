"""The receive orders of the simulated sms4sats: each lives from its hold invoice to a code or a cancel."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from holdpay.sandbox.bolt11 import payment_hash_of
from holdpay.sandbox.clock import Clock, scaled_s
from holdpay.sandbox.payee import HoldInvoiceError, HoldInvoices, InvoiceState
from holdpay.sandbox.sms4sats_knobs import Knobs, Scenario

NO_NUMBER_TEXT = (
    "No available number, payment request is canceled. Your funds are returned to your wallet automatically."
)
CANCELED_TEXT = "Order canceled, payment request is canceled. Your funds are returned to your wallet automatically."
NODE_RETRY_S = 1.0

T = TypeVar("T")


class OrderRefused(Exception):
    """The answer is an error, with this reason."""


@dataclass(slots=True, kw_only=True)
class SimulatedOrder:
    """As the provider sees it; the client sees ``body``."""

    order_id: str
    preimage: bytes
    payment_hash: bytes
    payreq: str
    country: str
    service: str
    scenario: Scenario
    created_at_s: float
    paid_at_s: float | None = None
    number: str = ""
    code: str = ""
    error: str = ""
    is_delivering: bool = False
    """From here on no cancel is taken: the code is here, or the HTLC is being settled."""
    reply_count: int = 0
    life: asyncio.Task[None] | None = None

    def body(self) -> dict[str, Any]:
        """One ``/orderstatus`` reply."""
        self.reply_count += 1
        is_flipped = self.scenario.flips and self.reply_count % 2 == 0
        is_paid = self.paid_at_s is not None and not is_flipped
        if self.error and not is_flipped:
            return {"status": "OK", "paid": is_paid, "error": self.error}
        code, number = ("", "") if is_flipped else (self.code, self.number)
        as_numbers = self.scenario.as_numbers
        return {
            "status": "OK",
            "paid": is_paid,
            "code": int(code or 0) if as_numbers else code,
            "id": int.from_bytes(self.payment_hash[:4], "big"),
            "number": int(number or 0) if as_numbers else number,
            "timestamp": int(self.created_at_s * 1000),
            "country": self.country,
            "service": self.service,
        }


class Orders:
    """All orders, by order id. Their tasks end with ``stop``; what the node holds then stays held."""

    def __init__(self, invoices: HoldInvoices, clock: Clock, knobs: Knobs, rng: random.Random) -> None:
        self.by_id: dict[str, SimulatedOrder] = {}
        self._invoices = invoices
        self._clock = clock
        self._knobs = knobs
        self._rng = rng
        self._tasks: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def create(self, country: str, service: str, price_sat: int) -> SimulatedOrder:
        """Raises HoldInvoiceError if the node gives no invoice."""
        scenario = self._knobs.queue.popleft() if self._knobs.queue else self._knobs.scenario
        preimage = secrets.token_bytes(32)
        payment_hash = payment_hash_of(preimage)
        payreq = await self._invoices.add(
            payment_hash=payment_hash,
            value_sat=round(price_sat * (1 + scenario.overprice_percent / 100)),
            memo=f"sms4sats payment {country} {service}",
            expiry_s=scenario.invoice_expiry_s,
            cltv_delta=scenario.invoice_cltv_delta,
        )
        order = SimulatedOrder(
            order_id=secrets.token_hex(32) if scenario.other_order_id else payment_hash.hex(),
            preimage=preimage,
            payment_hash=payment_hash,
            payreq=payreq,
            country=country,
            service=service,
            scenario=scenario,
            created_at_s=self._clock.now_s(),
        )
        self.by_id[order.order_id] = order
        order.life = self._spawn(self._live(order))
        return order

    def cancel(self, order: SimulatedOrder) -> None:
        """The client's cancel. Raises OrderRefused: too early, or too late."""
        since_s = order.created_at_s if order.paid_at_s is None else order.paid_at_s
        if order.is_delivering:
            raise OrderRefused("the code was already received")
        if self._clock.now_s() < since_s + scaled_s(self._clock, self._knobs.cancel_from_s):
            raise OrderRefused("an order can be canceled after 2 minutes")
        if not order.error:
            assert order.life is not None
            order.life.cancel()
            order.life = self._spawn(self._give_back(order, CANCELED_TEXT))

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _live(self, order: SimulatedOrder) -> None:
        state = await self._patiently(
            lambda: self._invoices.wait_state(order.payment_hash, InvoiceState.ACCEPTED, InvoiceState.CANCELED)
        )
        if state is InvoiceState.CANCELED:
            order.error = CANCELED_TEXT
            return
        accepted_at_s = self._clock.now_s()
        scenario = order.scenario
        await self._until(accepted_at_s, scenario.paid_lag_s)
        order.paid_at_s = self._clock.now_s()
        if not scenario.no_number:
            await self._until(accepted_at_s, scenario.number_after_s)
            order.number = f"1{self._rng.randrange(10**10):010}"
        if scenario.no_number or scenario.no_code:
            await self._until(accepted_at_s, scenario.gives_up_after_s)
            await self._give_back(order, NO_NUMBER_TEXT)
            return
        await self._until(accepted_at_s, scenario.code_after_s + min(scenario.settle_lag_s, 0))
        await self._deliver(order)

    async def _deliver(self, order: SimulatedOrder) -> None:
        order.is_delivering = True
        lag_s = order.scenario.settle_lag_s
        code = order.scenario.code or f"{self._rng.randrange(10**6):06}"
        if lag_s >= 0:
            order.code = code
        await self._until(self._clock.now_s(), lag_s)
        try:
            await self._patiently(lambda: self._invoices.settle(order.preimage))
        except HoldInvoiceError:
            # The node had to give the money back, an HTLC near its expiry for example.
            order.error = CANCELED_TEXT
            return
        await self._until(self._clock.now_s(), -lag_s)
        order.code = code

    async def _give_back(self, order: SimulatedOrder, text: str) -> None:
        lag_s = order.scenario.cancel_lag_s
        if lag_s >= 0:
            order.error = text
        await self._until(self._clock.now_s(), lag_s)
        await self._patiently(lambda: self._invoices.cancel(order.payment_hash))
        await self._until(self._clock.now_s(), -lag_s)
        order.error = text

    async def _until(self, from_s: float, after_s: float) -> None:
        left_s = from_s + scaled_s(self._clock, after_s) - self._clock.now_s()
        if left_s > 0:
            await self._clock.sleep_s(left_s)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeats until the node answers; raises HoldInvoiceError if it never will otherwise."""
        while True:
            try:
                return await call()
            except HoldInvoiceError as error:
                if "already" in str(error):
                    raise
                await self._clock.sleep_s(NODE_RETRY_S)
