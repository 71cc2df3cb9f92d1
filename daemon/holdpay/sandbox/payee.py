"""The receiving side of the sandbox: hold invoices, and a node that takes HTLCs for them.

`HoldInvoices` is the part that the simulated sms4sats needs. `Payee` is that part within the sandbox; a real node
behind its REST interface can be another.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from coincurve import PrivateKey

from holdpay.sandbox.bolt11 import Terms, encode, payment_hash_of
from holdpay.sandbox.clock import Clock, scaled_s

# lnd: lncfg DefaultHoldInvoiceExpiryDelta, DefaultFinalCltvRejectDelta (0.21; up to 0.20 they were 12 and 13).
AUTO_CANCEL_BLOCKS = 18
REJECT_BLOCKS = 19
# lnd: invoices DefaultHtlcHoldDuration.
MPP_HOLD_S = 120.0


class InvoiceState(Enum):
    OPEN = "open"  # nothing has come, or not all shards of it
    ACCEPTED = "accepted"  # the whole amount is held
    SETTLED = "settled"
    CANCELED = "canceled"


class HoldInvoiceError(Exception):
    """The node refused; the text is LND's."""


class HoldInvoices(Protocol):
    """A node that issues hold invoices and waits for its owner to settle or cancel them.

    Every call may raise HoldInvoiceError.
    """

    async def pubkey(self) -> str:
        """The node's public key, 66 hex digits."""
        ...

    async def add(self, *, payment_hash: bytes, value_sat: int, memo: str, expiry_s: int, cltv_delta: int) -> str:
        """A new invoice, in BOLT11. `payment_hash` is 32 bytes; `cltv_delta` is the final CLTV delta in blocks."""
        ...

    async def state(self, payment_hash: bytes) -> InvoiceState: ...

    async def wait_state(self, payment_hash: bytes, *states: InvoiceState) -> InvoiceState:
        """Return as soon as the invoice is in one of these states, with that state."""
        ...

    async def settle(self, preimage: bytes) -> None:
        """Take the money. Repeating it changes nothing. "invoice still open": nothing is held."""
        ...

    async def cancel(self, payment_hash: bytes) -> None:
        """Give the money back, if any is held. Repeating it changes nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Settled:
    preimage: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """BOLT4 failure: "mpp timeout" if the other shards never came, else "incorrect or unknown payment details"."""

    # At which the HTLC came in; a time-out names none. Two refusals are alike whatever their height.
    height: int = field(default=0, compare=False)
    is_mpp_timeout: bool = False


Answer = Settled | Refused


@dataclass(frozen=True, slots=True)
class IncomingHtlc:
    """One HTLC that has reached the payee; `answer` is called once."""

    payment_hash: bytes
    payment_secret: bytes
    amount_msat: int
    total_msat: int  # of all shards together
    expiry_height: int
    answer: Callable[[Answer], None]


@dataclass(frozen=True, slots=True)
class _HeldHtlc:
    htlc: IncomingHtlc
    accept_height: int


@dataclass(slots=True)
class _Held:
    terms: Terms
    state: InvoiceState = InvoiceState.OPEN
    htlcs: list[_HeldHtlc] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Payee:
    """A node of the sandbox that issues genuine BOLT11 hold invoices and holds what is paid to them."""

    def __init__(self, clock: Clock, *, network: str = "simnet", key: PrivateKey | None = None) -> None:
        self._clock = clock
        self.network_name = network
        self._key = key or PrivateKey()
        self._invoices: dict[bytes, _Held] = {}
        self._set_timers: set[asyncio.Task[None]] = set()

    @property
    def pubkey_bytes(self) -> bytes:
        return self._key.public_key.format()

    async def pubkey(self) -> str:
        return self.pubkey_bytes.hex()

    async def add(self, *, payment_hash: bytes, value_sat: int, memo: str, expiry_s: int, cltv_delta: int) -> str:
        if payment_hash in self._invoices:
            raise HoldInvoiceError("invoice with payment hash already exists")
        terms = Terms(
            network=self.network_name,
            payment_hash=payment_hash,
            payment_secret=secrets.token_bytes(32),
            amount_msat=value_sat * 1000 or None,
            timestamp_s=int(self._clock.now_s()),
            description=memo,
            expiry_s=expiry_s,
            min_final_cltv_delta=cltv_delta,
        )
        self._invoices[payment_hash] = _Held(terms)
        return encode(terms, self._key)

    async def state(self, payment_hash: bytes) -> InvoiceState:
        return self._current(payment_hash).state

    async def wait_state(self, payment_hash: bytes, *states: InvoiceState) -> InvoiceState:
        while (invoice := self._current(payment_hash)).state not in states:
            await self._change_or_expiry(invoice)
        return invoice.state

    async def settle(self, preimage: bytes) -> None:
        invoice = self._current(payment_hash_of(preimage))
        if invoice.state is InvoiceState.OPEN:
            raise HoldInvoiceError("invoice still open")
        if invoice.state is InvoiceState.CANCELED:
            raise HoldInvoiceError("invoice already canceled")
        for held in self._finish(invoice, InvoiceState.SETTLED):
            held.htlc.answer(Settled(preimage))

    async def cancel(self, payment_hash: bytes) -> None:
        invoice = self._current(payment_hash)
        if invoice.state is InvoiceState.SETTLED:
            raise HoldInvoiceError("invoice already settled")
        self._cancel(invoice)

    def receive(self, htlc: IncomingHtlc, height: int) -> None:
        """Hold an HTLC, or answer it at once. Called by the network at this block height."""
        invoice = self._invoices.get(htlc.payment_hash)
        if invoice is None or not self._is_acceptable(self._current(htlc.payment_hash), htlc, height):
            htlc.answer(Refused(height))
            return
        invoice.htlcs.append(_HeldHtlc(htlc, height))
        if sum(held.htlc.amount_msat for held in invoice.htlcs) >= htlc.total_msat:
            self._change(invoice, InvoiceState.ACCEPTED)
        elif len(invoice.htlcs) == 1:
            timer = asyncio.create_task(self._drop_incomplete_set(invoice))
            self._set_timers.add(timer)
            timer.add_done_callback(self._set_timers.discard)

    def on_block(self, height: int) -> None:
        """Cancel what is held too close to its expiry, as LND does (lnd: invoices.holdexpirydelta)."""
        for invoice in self._invoices.values():
            if any(held.htlc.expiry_height - height <= AUTO_CANCEL_BLOCKS for held in invoice.htlcs):
                self._cancel(invoice)

    def _is_acceptable(self, invoice: _Held, htlc: IncomingHtlc, height: int) -> bool:
        terms = invoice.terms
        return (
            invoice.state is InvoiceState.OPEN
            and htlc.payment_secret == terms.payment_secret
            and htlc.total_msat >= (terms.amount_msat or 0)
            and htlc.expiry_height >= height + max(terms.min_final_cltv_delta, REJECT_BLOCKS)
        )

    def _current(self, payment_hash: bytes) -> _Held:
        invoice = self._invoices.get(payment_hash)
        if invoice is None:
            raise HoldInvoiceError("unable to locate invoice")
        is_unpaid = invoice.state is InvoiceState.OPEN and not invoice.htlcs
        if is_unpaid and self._clock.now_s() > invoice.terms.valid_until_s:
            self._change(invoice, InvoiceState.CANCELED)
        return invoice

    async def _change_or_expiry(self, invoice: _Held) -> None:
        waiting: list[asyncio.Task[Any]] = [asyncio.create_task(invoice.changed.wait())]
        if invoice.state is InvoiceState.OPEN and not invoice.htlcs:
            # An unpaid invoice ends by itself, so a waiter must also wake at its expiry.
            left_s = invoice.terms.valid_until_s - self._clock.now_s() + 0.01
            waiting.append(asyncio.create_task(self._clock.sleep_s(left_s)))
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    async def _drop_incomplete_set(self, invoice: _Held) -> None:
        await self._clock.sleep_s(scaled_s(self._clock, MPP_HOLD_S))
        if invoice.state is InvoiceState.OPEN:
            dropped, invoice.htlcs = invoice.htlcs, []
            for held in dropped:
                held.htlc.answer(Refused(is_mpp_timeout=True))

    def _cancel(self, invoice: _Held) -> None:
        for held in self._finish(invoice, InvoiceState.CANCELED):
            held.htlc.answer(Refused(held.accept_height))

    def _finish(self, invoice: _Held, state: InvoiceState) -> list[_HeldHtlc]:
        """The HTLCs that were held, for the caller to answer; none if it was so already."""
        htlcs, invoice.htlcs = invoice.htlcs, []
        if invoice.state is not state:
            self._change(invoice, state)
        return htlcs

    def _change(self, invoice: _Held, state: InvoiceState) -> None:
        invoice.state = state
        invoice.changed.set()
        invoice.changed = asyncio.Event()
