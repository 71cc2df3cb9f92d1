"""The HoldInvoices port: the sandbox's payee, and a real carol over REST."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pytest
import pytest_asyncio

from holdpay.sandbox import bolt11
from holdpay.sandbox.bolt11 import payment_hash_of
from holdpay.sandbox.carol import Carol
from holdpay.sandbox.clock import WallClock
from holdpay.sandbox.payee import Answer, HoldInvoiceError, HoldInvoices, IncomingHtlc, InvoiceState, Payee, Settled
from holdpay.sandbox.tls import write_certificate
from tests.regtest.net import Net
from tests.regtest.node import Node

OPEN, ACCEPTED, SETTLED, CANCELED = (
    InvoiceState.OPEN,
    InvoiceState.ACCEPTED,
    InvoiceState.SETTLED,
    InvoiceState.CANCELED,
)


class Counter(Protocol):
    """Where hold invoices are sold, and a payer of them."""

    @property
    def invoices(self) -> HoldInvoices: ...

    async def pay(self, payreq: str) -> asyncio.Future[bytes]:
        """Sends the payment. The future becomes its preimage, or b"" if the money came back."""
        ...


class SandboxCounter:
    def __init__(self) -> None:
        self._payee = Payee(WallClock())

    @property
    def invoices(self) -> HoldInvoices:
        return self._payee

    async def pay(self, payreq: str) -> asyncio.Future[bytes]:
        terms = bolt11.decode(payreq, self._payee.network_name).terms
        assert terms.payment_secret is not None
        assert terms.amount_msat is not None
        paid = asyncio.get_running_loop().create_future()

        def answer(answer: Answer) -> None:
            paid.set_result(answer.preimage if isinstance(answer, Settled) else b"")

        height = 100
        htlc = IncomingHtlc(
            terms.payment_hash,
            terms.payment_secret,
            terms.amount_msat,
            terms.amount_msat,
            height + terms.min_final_cltv_delta,
            answer,
        )
        self._payee.receive(htlc, height)
        return paid


class RealCounter:
    def __init__(self, carol: Carol, payer: Node) -> None:
        self.invoices: HoldInvoices = carol
        self._payer = payer

    async def pay(self, payreq: str) -> asyncio.Future[bytes]:
        return asyncio.create_task(self._pay(payreq))

    async def _pay(self, payreq: str) -> bytes:
        payment = await self._payer.pay(payreq)
        return payment.preimage if payment.status == "SUCCEEDED" else b""


@pytest.fixture
def at_sandbox() -> SandboxCounter:
    return SandboxCounter()


@pytest_asyncio.fixture
async def at_carol(healthy_net: Net) -> AsyncIterator[RealCounter]:
    node = healthy_net["carol"]
    carol = Carol(f"https://{node.rest_address}", node.tls_cert_path, node.admin_macaroon_path)
    yield RealCounter(carol, healthy_net["alice"])
    await carol.aclose()


@pytest.fixture(params=["at_sandbox", pytest.param("at_carol", marks=pytest.mark.real)])
def counter(request: pytest.FixtureRequest) -> Counter:
    chosen: Counter = request.getfixturevalue(request.param)
    return chosen


async def new(counter: Counter) -> tuple[bytes, bytes, str]:
    """Preimage, payment hash and invoice of a new hold invoice."""
    preimage = secrets.token_bytes(32)
    payment_hash = payment_hash_of(preimage)
    payreq = await counter.invoices.add(
        payment_hash=payment_hash, value_sat=2001, memo="sms4sats payment USA OpenAI", expiry_s=600, cltv_delta=40
    )
    return preimage, payment_hash, payreq


async def test_an_invoice_says_what_was_asked_for_and_who_sells_it(counter: Counter) -> None:
    _, payment_hash, payreq = await new(counter)
    invoice = bolt11.decode(payreq, "simnet")
    assert invoice.payee_pubkey.hex() == await counter.invoices.pubkey()
    terms = invoice.terms
    assert (terms.payment_hash, terms.amount_msat, terms.expiry_s) == (payment_hash, 2_001_000, 600)
    assert terms.description == "sms4sats payment USA OpenAI"
    assert terms.min_final_cltv_delta in {40, 43}, "lnd adds its padding of 3 blocks"
    assert await counter.invoices.state(payment_hash) is OPEN


async def test_a_payment_is_held_until_it_is_settled(counter: Counter) -> None:
    preimage, payment_hash, payreq = await new(counter)
    waiting = asyncio.create_task(counter.invoices.wait_state(payment_hash, ACCEPTED, CANCELED))
    paid = await counter.pay(payreq)
    assert await waiting is ACCEPTED
    assert not paid.done()
    await counter.invoices.settle(preimage)
    assert await paid == preimage
    assert await counter.invoices.state(payment_hash) is SETTLED


async def test_a_canceled_invoice_gives_the_money_back(counter: Counter) -> None:
    _, payment_hash, payreq = await new(counter)
    paid = await counter.pay(payreq)
    await counter.invoices.wait_state(payment_hash, ACCEPTED)
    await counter.invoices.cancel(payment_hash)
    assert await paid == b""
    assert await counter.invoices.wait_state(payment_hash, SETTLED, CANCELED) is CANCELED


async def test_settle_and_cancel_may_be_repeated(counter: Counter) -> None:
    preimage, payment_hash, payreq = await new(counter)
    paid = await counter.pay(payreq)
    await counter.invoices.wait_state(payment_hash, ACCEPTED)
    for _ in range(2):
        await counter.invoices.settle(preimage)
    await paid
    _, other_hash, _ = await new(counter)
    for _ in range(2):
        await counter.invoices.cancel(other_hash)
    assert await counter.invoices.state(other_hash) is CANCELED


async def test_what_cannot_be_is_refused_in_lnds_words(counter: Counter) -> None:
    preimage, payment_hash, payreq = await new(counter)
    with pytest.raises(HoldInvoiceError, match="invoice still open"):
        await counter.invoices.settle(preimage)
    await counter.invoices.cancel(payment_hash)
    with pytest.raises(HoldInvoiceError, match="invoice already canceled"):
        await counter.invoices.settle(preimage)
    settled, settled_hash, payreq = await new(counter)
    paid = await counter.pay(payreq)
    await counter.invoices.wait_state(settled_hash, ACCEPTED)
    await counter.invoices.settle(settled)
    await paid
    with pytest.raises(HoldInvoiceError, match="invoice already settled"):
        await counter.invoices.cancel(settled_hash)
    with pytest.raises(HoldInvoiceError, match="already exists"):
        await counter.invoices.add(payment_hash=settled_hash, value_sat=1, memo="", expiry_s=60, cltv_delta=40)
    with pytest.raises(HoldInvoiceError, match="unable to locate invoice"):
        await counter.invoices.state(secrets.token_bytes(32))


@pytest.mark.real
async def test_a_carol_that_goes_away_is_an_error_to_whoever_waits(healthy_net: Net, at_carol: RealCounter) -> None:
    _, payment_hash, _ = await new(at_carol)
    waiting = asyncio.create_task(at_carol.invoices.wait_state(payment_hash, ACCEPTED))
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 1)
    await healthy_net["carol"].stop()
    with pytest.raises(HoldInvoiceError):
        await waiting
    with pytest.raises(HoldInvoiceError, match="does not answer"):
        await at_carol.invoices.state(payment_hash)


async def test_a_carol_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    (tmp_path / "macaroon").write_bytes(b"m")
    carol = Carol("https://127.0.0.1:1", tmp_path / "tls.cert", tmp_path / "macaroon")
    with pytest.raises(HoldInvoiceError, match="does not answer"):
        await carol.pubkey()
    with pytest.raises(HoldInvoiceError, match="went away"):
        await carol.wait_state(bytes(32), ACCEPTED)
    await carol.aclose()
