"""Steps and words that the contract tests share."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

import grpc

from holdpay._pb.lnd import lightning_pb2
from holdpay.sandbox.bolt11 import payment_hash_of
from holdpay.sandbox.payee import InvoiceState
from tests.contract.client import PATIENCE_S, Client, Payment, Watch
from tests.contract.worlds import World

VALUE_SAT = 2_000
VALUE_MSAT = VALUE_SAT * 1000
PEER_FEE_MSAT = 1_002  # LND's defaults: 1,000 msat and one millionth
HOP_DELTA = 80  # LND's default for forwarding
PADDING = 3  # blocks that LND adds to the final delta
SOON_S = 3  # a time-out that is to pass while the payment is held; before that a busy machine must get it there

UNKNOWN = grpc.StatusCode.UNKNOWN
ALREADY_EXISTS = grpc.StatusCode.ALREADY_EXISTS
NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NOT_INITIATED = (NOT_FOUND, "payment isn't initiated")

NONE = lightning_pb2.FAILURE_REASON_NONE
TIMEOUT = lightning_pb2.FAILURE_REASON_TIMEOUT
NO_ROUTE = lightning_pb2.FAILURE_REASON_NO_ROUTE
INCORRECT_DETAILS = lightning_pb2.FAILURE_REASON_INCORRECT_PAYMENT_DETAILS
INSUFFICIENT_BALANCE = lightning_pb2.FAILURE_REASON_INSUFFICIENT_BALANCE
CANCELED = lightning_pb2.FAILURE_REASON_CANCELED


@dataclass(frozen=True, slots=True)
class Order:
    """A hold invoice of the payee."""

    payreq: str
    preimage: bytes

    @property
    def payment_hash(self) -> bytes:
        return payment_hash_of(self.preimage)


async def order(world: World, *, value_sat: int = VALUE_SAT, expiry_s: int = 600, cltv_delta: int = 80) -> Order:
    preimage = secrets.token_bytes(32)
    payreq = await world.invoices.add(
        payment_hash=payment_hash_of(preimage),
        value_sat=value_sat,
        memo="a code",
        expiry_s=expiry_s,
        cltv_delta=cltv_delta,
    )
    return Order(payreq, preimage)


async def hold(world: World, lnd: Client, held: Order, **options: object) -> Watch:
    """Pay, and return when the payee holds it and the payer says so."""
    stream = lnd.send(held.payreq, **options)
    await stream.out()
    await world.invoices.wait_state(held.payment_hash, InvoiceState.ACCEPTED)
    return stream


async def settle(world: World, held: Order) -> None:
    await world.invoices.settle(held.preimage)


async def cancel(world: World, held: Order) -> None:
    await world.invoices.cancel(held.payment_hash)


async def later(lnd: Client, payment_hash: bytes) -> Payment:
    """What somebody who was away is told of a payment that has ended."""
    return await lnd.track(payment_hash).end()


async def rewritten(lnd: Client, payment_hash: bytes, reason: int) -> Payment:
    """The same once LND has put this reason over that of the stream's last message: a moment after it. Fails if LND
    never does."""
    async with asyncio.timeout(PATIENCE_S):
        while (record := await later(lnd, payment_hash)).failure_reason != reason:
            await asyncio.sleep(0.05)
    return record


async def tidied(lnd: Client, payment_hash: bytes) -> Payment:
    """The same of a payment that failed: LND deletes its attempts, sooner or later. Fails if it never does."""
    async with asyncio.timeout(PATIENCE_S):
        while (record := await later(lnd, payment_hash)).htlcs:
            await asyncio.sleep(0.05)
    return record


async def quiet(lnd: Client) -> None:
    """Returns when no channel has an HTLC: those of the test before leave a moment after its payments have ended."""
    async with asyncio.timeout(PATIENCE_S):
        while any(channel.pending_htlcs for channel in await lnd.channels()):
            await asyncio.sleep(0.05)


def outcome(payment: Payment) -> tuple[int, int]:
    return payment.status, payment.failure_reason


def failures(payment: Payment) -> list[tuple[int, int]]:
    return [(htlc.failure.code, htlc.failure.failure_source_index) for htlc in payment.htlcs if htlc.status == 2]


async def cancel_when_held(world: World, held: Order) -> None:
    await world.invoices.wait_state(held.payment_hash, InvoiceState.ACCEPTED)
    await cancel(world, held)
