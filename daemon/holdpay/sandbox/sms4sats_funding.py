"""How an order at the simulated sms4sats is paid for: by a hold invoice, or from the prepaid balance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from holdpay.sandbox.bolt11 import payment_hash_of
from holdpay.sandbox.payee import HoldInvoices, InvoiceState
from holdpay.sandbox.sms4sats_knobs import Knobs


class Funding(Protocol):
    """The price of one order, which is held until it is taken or given back.

    Every call may raise HoldInvoiceError.
    """

    async def held(self) -> bool:
        """Returns when the price is held; False: it will never be."""
        ...

    async def take(self) -> None: ...

    async def give_back(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ByHoldInvoice:
    invoices: HoldInvoices
    preimage: bytes

    async def held(self) -> bool:
        states = (InvoiceState.ACCEPTED, InvoiceState.CANCELED)
        return await self.invoices.wait_state(payment_hash_of(self.preimage), *states) is InvoiceState.ACCEPTED

    async def take(self) -> None:
        await self.invoices.settle(self.preimage)

    async def give_back(self) -> None:
        await self.invoices.cancel(payment_hash_of(self.preimage))


@dataclass(slots=True)
class FromBalance:
    """Charged when the order is made. Like an invoice it is given back once, however often that is asked."""

    knobs: Knobs
    price_sat: int
    is_given_back: bool = False

    async def held(self) -> bool:
        return True

    async def take(self) -> None:
        """It was charged already."""

    async def give_back(self) -> None:
        if not self.is_given_back:
            self.is_given_back = True
            self.knobs.balance_sat += self.price_sat
