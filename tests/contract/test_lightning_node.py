"""The LightningNode port over gRPC: `LndNode` on the sandbox's lnd, and on a real one."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from holdpay.core.lightning import (
    AttemptStatus,
    DispatchSpec,
    FailureReason,
    Lost,
    NodeIdentity,
    NotKnown,
    PaymentStatus,
    Refused,
    Reported,
    preimage_fits,
)
from holdpay.errors import LndDenied, LndRefused, LndUnavailable, LndWrongNode
from holdpay.lnd.macaroon import missing_methods
from holdpay.lnd.node import LndNode
from holdpay.ports import NodeState
from holdpay.sandbox.bolt11 import payment_hash_of
from holdpay.sandbox.payee import InvoiceState
from tests.contract.adapter import (
    Stream,
    another_node_behind,
    lnd_node,
    locked_node,
    payer,
    renew_certificate,
    until_state,
)
from tests.contract.client import PATIENCE_S
from tests.contract.worlds import World

VALUE_SAT = 2_000
FINAL_CLTV_DELTA = 80
# What `lncli bakemacaroon` is told for holdpay, as far as this port goes.
URIS = (
    "/lnrpc.Lightning/GetInfo",
    "/lnrpc.Lightning/DecodePayReq",
    "/lnrpc.Lightning/ChannelBalance",
    "/routerrpc.Router/SendPaymentV2",
    "/routerrpc.Router/TrackPaymentV2",
    "/routerrpc.Router/TrackPayments",
)


@pytest_asyncio.fixture
async def node(world: World) -> AsyncIterator[LndNode]:
    async with lnd_node(world) as node:
        await payer(node)
        yield node


@dataclass(frozen=True, slots=True)
class Order:
    """A hold invoice of the payee."""

    payreq: str
    preimage: bytes

    @property
    def payment_hash(self) -> str:
        return payment_hash_of(self.preimage).hex()

    def spec(self, fee_limit_msat: int = 10_000) -> DispatchSpec:
        return DispatchSpec(
            payreq=self.payreq,
            payment_hash=self.payment_hash,
            fee_limit_msat=fee_limit_msat,
            timeout_s=1_500,
            max_parts=1,
            cltv_limit=FINAL_CLTV_DELTA + 3 + 432,
        )


async def order(world: World) -> Order:
    preimage = secrets.token_bytes(32)
    payreq = await world.invoices.add(
        payment_hash=payment_hash_of(preimage),
        value_sat=VALUE_SAT,
        memo="a code",
        expiry_s=600,
        cltv_delta=FINAL_CLTV_DELTA,
    )
    return Order(payreq, preimage)


async def hold(world: World, node: LndNode, held: Order) -> Stream:
    """Sends, and returns when the payee holds it and the payer says so."""
    stream = Stream(node.send(held.spec(), await payer(node)))
    await stream.out()
    await world.invoices.wait_state(payment_hash_of(held.preimage), InvoiceState.ACCEPTED)
    return stream


# --- a payment's life ---


async def test_a_plain_hold_is_reported_live_until_it_settles(world: World, node: LndNode) -> None:
    bought = await order(world)
    stream = await hold(world, node, bought)
    await world.invoices.settle(bought.preimage)
    last = await stream.last()
    assert isinstance(last, Reported)
    assert last.update.status is PaymentStatus.SUCCEEDED
    assert last.update.preimage is not None
    assert preimage_fits(last.update.preimage, bought.payment_hash)
    (attempt,) = last.update.attempts
    assert (attempt.status, attempt.amount_msat, attempt.hop_count) == (AttemptStatus.SUCCEEDED, VALUE_SAT * 1000, 2)
    assert attempt.fee_msat == last.update.fee_msat > 0
    assert attempt.expiry_height > node.status.block_height
    assert all(isinstance(m, Reported) and m.live for m in stream.messages)
    first = stream.messages[0]
    assert isinstance(first, Reported)
    assert (first.update.status, first.update.preimage) == (PaymentStatus.IN_FLIGHT, None)


async def test_a_cancel_reads_as_a_failure_at_the_payee(world: World, node: LndNode) -> None:
    bought = await order(world)
    stream = await hold(world, node, bought)
    await world.invoices.cancel(payment_hash_of(bought.preimage))
    last = await stream.last()
    assert isinstance(last, Reported)
    assert last.update.status is PaymentStatus.FAILED
    assert last.update.failure_reason is FailureReason.INCORRECT_PAYMENT_DETAILS
    assert [attempt.failed_at_payee for attempt in last.update.attempts] == [True]
    assert [type(message) for message in stream.messages[:-1]] == [Reported] * (len(stream.messages) - 1)


async def test_a_fee_limit_of_zero_finds_no_route_and_makes_no_attempt(world: World, node: LndNode) -> None:
    last = await Stream(node.send((await order(world)).spec(fee_limit_msat=0), await payer(node))).last()
    assert isinstance(last, Reported)
    update = last.update
    assert (update.status, update.failure_reason) == (PaymentStatus.FAILED, FailureReason.NO_ROUTE)
    assert update.attempts == ()


async def test_sending_again_while_it_is_held_is_refused(world: World, node: LndNode) -> None:
    bought = await order(world)
    stream = await hold(world, node, bought)
    again = Stream(node.send(bought.spec(), await payer(node)))
    assert await again.last() == Refused("payment is in transition", has_hash=True)
    assert len(again.messages) == 1
    await world.invoices.settle(bought.preimage)
    await stream.last()
    assert await Stream(node.send(bought.spec(), await payer(node))).last() == Refused(
        "invoice is already paid", has_hash=True
    )


async def test_a_payment_that_was_never_sent_is_not_known(node: LndNode) -> None:
    stream = Stream(node.track(secrets.token_hex(32), await payer(node)))
    assert await stream.last() == NotKnown()
    assert len(stream.messages) == 1


async def test_a_track_of_a_held_payment_is_live_from_its_second_message_on(world: World, node: LndNode) -> None:
    bought = await order(world)
    sending = await hold(world, node, bought)
    tracking = Stream(node.track(bought.payment_hash, await payer(node)))
    assert (await tracking.out()).live is False
    await world.invoices.settle(bought.preimage)
    last = await tracking.last()
    assert isinstance(last, Reported)
    assert (last.update.status, last.live) == (PaymentStatus.SUCCEEDED, True)
    await sending.last()


async def test_leaving_a_stream_leaves_the_payment(world: World, node: LndNode) -> None:
    bought = await order(world)
    await (await hold(world, node, bought)).leave()
    tracking = Stream(node.track(bought.payment_hash, await payer(node)))
    await tracking.out()
    await world.invoices.settle(bought.preimage)
    last = await tracking.last()
    assert isinstance(last, Reported)
    assert last.update.status is PaymentStatus.SUCCEEDED


# --- lnd goes away ---


async def test_a_kill_while_held_is_a_lost_stream_and_a_track_goes_on(world: World, node: LndNode) -> None:
    bought = await order(world)
    who = await payer(node)
    stream = await hold(world, node, bought)
    await world.kill_payer()
    assert isinstance(await stream.last(), Lost)
    assert isinstance(await Stream(node.track(bought.payment_hash, who)).last(), Lost)
    assert isinstance(await Stream(node.send(bought.spec(), who)).last(), Lost)
    await until_state(node, NodeState.UNREACHABLE)
    assert node.identity is None
    with pytest.raises(LndUnavailable):
        await node.decode(bought.payreq)
    await world.start_payer()
    await until_state(node, NodeState.READY)
    await node.until_back(who)
    tracking = Stream(node.track(bought.payment_hash, who))
    await tracking.out()
    await world.invoices.settle(bought.preimage)
    last = await tracking.last()
    assert isinstance(last, Reported)
    assert (last.update.status, last.live) == (PaymentStatus.SUCCEEDED, True)


async def test_what_happened_while_lnd_was_down_is_told_by_the_first_track(world: World, node: LndNode) -> None:
    bought = await order(world)
    who = await payer(node)
    stream = await hold(world, node, bought)
    await world.stop_payer()
    assert isinstance(await stream.last(), Lost)
    await world.invoices.cancel(payment_hash_of(bought.preimage))
    await world.start_payer()
    await until_state(node, NodeState.READY)
    await node.until_back(who)
    last = await Stream(node.track(bought.payment_hash, who)).last()
    assert isinstance(last, Reported)
    assert last.update.status is PaymentStatus.FAILED
    assert last.update.failure_reason is FailureReason.INCORRECT_PAYMENT_DETAILS


async def test_a_new_certificate_is_picked_up(world: World, node: LndNode) -> None:
    who = await payer(node)
    bought = await order(world)
    await renew_certificate(world)
    assert await payer(node) == who  # as soon as gRPC tries again: seconds after its last vain try
    assert (await node.decode(bought.payreq))[1] == who


async def test_another_node_behind_the_address_is_neither_paid_from_nor_asked(world: World, node: LndNode) -> None:
    bought = await order(world)
    who = await payer(node)
    async with another_node_behind(world):
        async with asyncio.timeout(PATIENCE_S):
            while (other := await payer(node)) == who:  # the break may not have been noticed yet
                await asyncio.sleep(0.02)
        assert (other.pubkey != who.pubkey, other.network) == (True, who.network)
        with pytest.raises(LndWrongNode):
            await Stream(node.send(bought.spec(), who)).last()
        assert isinstance(await Stream(node.track(bought.payment_hash, who)).last(), Lost)
        assert await Stream(node.track(bought.payment_hash, other)).last() == NotKnown()


async def test_a_locked_wallet_is_told_apart_from_a_node_that_is_down(world: World) -> None:
    who = NodeIdentity("02" + "00" * 32, "simnet")
    async with locked_node(world) as node:
        await until_state(node, NodeState.LOCKED)
        assert "lncli unlock" in node.status.detail
        with pytest.raises(LndUnavailable, match="locked"):
            await node.decode((await order(world)).payreq)
        assert isinstance(await Stream(node.send((await order(world)).spec(), who)).last(), Lost)
        assert isinstance(await Stream(node.track("ab" * 32, who)).last(), Lost)


# --- what it says of itself, of invoices, and to a macaroon ---


async def test_a_ready_lnd_tells_who_it_is(world: World, node: LndNode) -> None:
    async with world.connect() as client:
        info = await client.info()
    status = node.status
    assert (status.state, status.detail) == (NodeState.READY, "")
    assert status.identity == node.identity == NodeIdentity(info.identity_pubkey, "simnet")
    assert (status.version, status.alias, status.block_height) == (info.version, "alice", info.block_height)
    assert status.local_balance_sat is not None
    assert status.local_balance_sat > VALUE_SAT


async def test_an_invoice_is_decoded_with_the_node_that_did_it(world: World, node: LndNode) -> None:
    bought = await order(world)
    invoice, decoder = await node.decode(bought.payreq)
    assert decoder == node.identity
    assert (invoice.payment_hash, invoice.payee) == (bought.payment_hash, await world.invoices.pubkey())
    assert (invoice.amount_msat, invoice.expiry_s, invoice.final_cltv_delta) == (VALUE_SAT * 1000, 600, 80)
    assert (invoice.memo, invoice.has_payment_address) == ("a code", True)


@pytest.mark.parametrize("damage", [lambda payreq: payreq[:-6] + "qqqqqq", lambda _payreq: "hello"])
async def test_what_is_no_invoice_is_refused(world: World, node: LndNode, damage: object) -> None:
    assert callable(damage)
    with pytest.raises(LndRefused):
        await node.decode(damage((await order(world)).payreq))


async def test_the_documented_macaroon_is_enough_and_a_revoked_one_is_denied(world: World) -> None:
    macaroon_hex = await world.bake(URIS)
    async with lnd_node(world, macaroon_hex) as node:
        bought = await order(world)
        who = (await node.decode(bought.payreq))[1]
        stream = await hold(world, node, bought)
        assert node.status.local_balance_sat is not None
        await world.revoke(macaroon_hex)
        await until_state(node, NodeState.DENIED)
        with pytest.raises(LndDenied):
            await node.decode(bought.payreq)
        assert isinstance(await Stream(node.track(bought.payment_hash, who)).last(), Lost)
        await world.invoices.settle(bought.preimage)
        last = await stream.last()
        assert isinstance(last, Reported)
        assert last.update.status is PaymentStatus.SUCCEEDED


async def test_a_macaroon_that_may_not_pay_is_refused_without_a_payment(world: World, node: LndNode) -> None:
    bought = await order(world)
    narrow = await world.bake([*URIS[:3], "/routerrpc.Router/TrackPayments"])
    assert missing_methods(bytes.fromhex(narrow)) == ("SendPaymentV2", "TrackPaymentV2")
    assert missing_methods(bytes.fromhex(await world.bake(URIS))) == ()
    async with lnd_node(world, narrow) as poor:
        assert await Stream(poor.send(bought.spec(), await payer(poor))).last() == Refused("permission denied")
        assert poor.status.state is NodeState.DENIED
    assert await Stream(node.track(bought.payment_hash, await payer(node))).last() == NotKnown()


async def test_a_macaroon_that_may_not_follow_all_payments_is_told_and_pays_nothing(
    world: World, node: LndNode
) -> None:
    bought = await order(world)
    narrow = await world.bake(URIS[:5])
    assert missing_methods(bytes.fromhex(narrow)) == ("TrackPayments",)
    async with lnd_node(world, narrow, state=NodeState.DENIED) as poor:
        assert "uri:/routerrpc.Router/TrackPayments" in poor.status.detail
        assert poor.identity is None
        assert isinstance(await Stream(poor.send(bought.spec(), await payer(node))).last(), Lost)
    assert await Stream(node.track(bought.payment_hash, await payer(node))).last() == NotKnown()
