"""The real net itself: that it carries hold invoices, and comes back after a fall. Other tests build on this."""

import asyncio
import hashlib
import secrets

import pytest

from tests.regtest.net import Net
from tests.regtest.rest import NodeError

pytestmark = pytest.mark.real

VALUE_SAT = 2_000
BOBS_FEE_MSAT = 1_002  # lnd's defaults: 1,000 msat and one millionth


def new_preimage() -> tuple[bytes, bytes]:
    preimage = secrets.token_bytes(32)
    return preimage, hashlib.sha256(preimage).digest()


async def test_a_held_payment_succeeds_when_the_payee_settles(healthy_net: Net) -> None:
    alice, carol = healthy_net["alice"], healthy_net["carol"]
    preimage, payment_hash = new_preimage()
    paying = asyncio.create_task(alice.pay(await carol.add_hold_invoice(payment_hash, VALUE_SAT)))
    await carol.wait_invoice_state(payment_hash, "ACCEPTED")
    assert not paying.done()

    await carol.settle(preimage)

    payment = await paying
    assert (payment.status, payment.preimage, payment.fee_msat) == ("SUCCEEDED", preimage, BOBS_FEE_MSAT)
    await carol.wait_invoice_state(payment_hash, "SETTLED")


async def test_a_held_payment_fails_when_the_payee_cancels(healthy_net: Net) -> None:
    alice, carol = healthy_net["alice"], healthy_net["carol"]
    _, payment_hash = new_preimage()
    paying = asyncio.create_task(alice.pay(await carol.add_hold_invoice(payment_hash, VALUE_SAT)))
    await carol.wait_invoice_state(payment_hash, "ACCEPTED")

    await carol.cancel(payment_hash)

    payment = await paying
    assert (payment.status, payment.failure_reason) == ("FAILED", "FAILURE_REASON_INCORRECT_PAYMENT_DETAILS")
    assert await carol.invoice_state(payment_hash) == "CANCELED"


async def test_an_open_hold_invoice_cannot_be_settled(healthy_net: Net) -> None:
    carol = healthy_net["carol"]
    preimage, payment_hash = new_preimage()
    await carol.add_hold_invoice(payment_hash, VALUE_SAT)

    with pytest.raises(NodeError, match="invoice still open"):
        await carol.settle(preimage)

    assert await carol.invoice_state(payment_hash) == "OPEN"


async def test_a_held_payment_outlives_kills_on_its_way(healthy_net: Net) -> None:
    alice, bob, carol = healthy_net.nodes.values()
    preimage, payment_hash = new_preimage()
    paying = asyncio.create_task(alice.pay(await carol.add_hold_invoice(payment_hash, VALUE_SAT)))
    await carol.wait_invoice_state(payment_hash, "ACCEPTED")

    await bob.kill()
    await carol.settle(preimage)
    await bob.start()

    assert (await paying).preimage == preimage


async def test_another_node_takes_over_an_address(healthy_net: Net) -> None:
    bob = healthy_net["bob"]
    macaroon = await bob.bake_macaroon(["/lnrpc.Lightning/GetInfo"])
    await bob.stop()

    mallory = await healthy_net.add_node("mallory", behind=bob)

    assert mallory.rpc_address == bob.rpc_address
    assert (await mallory.rest_with(macaroon).get("/v1/getinfo"))["identity_pubkey"] == mallory.pubkey != bob.pubkey
    await healthy_net.remove_node(mallory)
