"""One stream for all payments tells an order what a TrackPaymentV2 of its own would, in the sandbox and on real lnd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from holdpay.core.lightning import FailureReason, Lost, PaymentStatus, PaymentUpdate, Reported
from holdpay.errors import LndWrongNode
from holdpay.lnd.convert import to_update
from holdpay.lnd.node import LndNode
from holdpay.sandbox.payee import InvoiceState
from tests.contract.adapter import Stream, lnd_node, payer, relayed_node, spec
from tests.contract.client import PATIENCE_S, Client, Payment, Watch
from tests.contract.steps import INCORRECT_DETAILS, NONE, Order, order
from tests.contract.worlds import SandboxWorld, World


@pytest_asyncio.fixture
async def node(world: World) -> AsyncIterator[LndNode]:
    async with lnd_node(world) as node:
        await payer(node)
        yield node


async def held(world: World, node: LndNode) -> tuple[Order, Stream]:
    """Sent by the adapter, and held by the payee."""
    bought = await order(world)
    stream = Stream(node.send(spec(bought), await payer(node)))
    await stream.out()
    await world.invoices.wait_state(bought.payment_hash, InvoiceState.ACCEPTED)
    return bought, stream


async def ended(world: World, bought: Order, *, is_settled: bool) -> None:
    if is_settled:
        await world.invoices.settle(bought.preimage)
    else:
        await world.invoices.cancel(bought.payment_hash)


def told(stream: Stream) -> list[PaymentUpdate]:
    return [message.update for message in stream.messages if isinstance(message, Reported)]


def said(watch: Watch) -> list[PaymentUpdate]:
    return [to_update(payment) for payment in watch.messages]


# --- the stream as lnd has it ---


async def test_the_stream_of_all_begins_with_what_is_in_flight_and_goes_on_after_an_end(
    world: World, lnd: Client
) -> None:
    before, bought, later = await order(world), await order(world), await order(world)
    over = lnd.send(before.payreq)
    await over.out()
    await world.invoices.cancel(before.payment_hash)
    await over.end()
    sending = lnd.send(bought.payreq)
    await sending.out()
    watch = lnd.track_all()
    try:
        await _of(watch, bought).out()
        await world.invoices.wait_state(bought.payment_hash, InvoiceState.ACCEPTED)
        await world.invoices.settle(bought.preimage)
        settled = await _of(watch, bought).message(lambda payment: payment.status == Payment.SUCCEEDED)
        assert settled == await sending.end()
        again = lnd.send(later.payreq)
        first = await _of(watch, later).message(lambda payment: not payment.htlcs)
        assert (first.status, first.failure_reason) == (Payment.IN_FLIGHT, NONE)
        await again.out()
        await world.invoices.wait_state(later.payment_hash, InvoiceState.ACCEPTED)
        await world.invoices.cancel(later.payment_hash)
        failed = await _of(watch, later).message(lambda payment: payment.status == Payment.FAILED)
        assert failed == await again.end()
        assert (failed.failure_reason, len(failed.htlcs)) == (INCORRECT_DETAILS, 1)
        assert before.payment_hash.hex() not in {payment.payment_hash for payment in watch.messages}
    finally:
        watch.drop()


class _of:  # noqa: N801 - reads as a word
    """What a stream of all payments says of one."""

    def __init__(self, watch: Watch, bought: Order) -> None:
        self._watch, self._hash = watch, bought.payment_hash.hex()

    async def message(self, wanted: object) -> Payment:
        assert callable(wanted)
        return await self._watch.message(lambda payment: payment.payment_hash == self._hash and wanted(payment))

    async def out(self) -> Payment:
        return await self.message(lambda payment: any(htlc.status == htlc.IN_FLIGHT for htlc in payment.htlcs))


# --- the hub beside a stream of the payment's own ---


@pytest.mark.parametrize("is_settled", [True, False])
async def test_the_hub_tells_what_a_stream_of_the_payments_own_tells(
    world: World, node: LndNode, lnd: Client, is_settled: bool
) -> None:
    bought, stream = await held(world, node)
    own = lnd.track(bought.payment_hash)
    await own.out()
    tracking = Stream(node.track(bought.payment_hash.hex(), await payer(node)))
    await tracking.out()
    await ended(world, bought, is_settled=is_settled)
    await own.end()
    await stream.last()
    await tracking.last()
    assert told(tracking) == said(own)
    assert told(stream)[-len(said(own)) :] == said(own)
    assert [message.live for message in tracking.messages if isinstance(message, Reported)] == [False] + [True] * (
        len(said(own)) - 1
    )


async def test_two_payments_at_once_are_told_apart(world: World, node: LndNode) -> None:
    (first, one), (second, two) = await held(world, node), await held(world, node)
    await ended(world, second, is_settled=False)
    last = await two.last()
    assert isinstance(last, Reported)
    assert last.update.failure_reason is FailureReason.INCORRECT_PAYMENT_DETAILS
    assert all(update.status is PaymentStatus.IN_FLIGHT for update in told(one))
    await ended(world, first, is_settled=True)
    last = await one.last()
    assert isinstance(last, Reported)
    assert last.update.status is PaymentStatus.SUCCEEDED


async def test_a_payment_of_another_program_is_nobodys_here(world: World, node: LndNode, lnd: Client) -> None:
    bought, stream = await held(world, node)
    before = len(stream.messages)
    theirs = await order(world)
    sending = lnd.send(theirs.payreq)
    await sending.out()
    await world.invoices.wait_state(theirs.payment_hash, InvoiceState.ACCEPTED)
    await world.invoices.settle(theirs.preimage)
    await sending.end()
    tracking = Stream(node.track(theirs.payment_hash.hex(), await payer(node)))
    last = await tracking.last()
    assert isinstance(last, Reported)
    # Looked up, or live: the stream of all payments may be behind the one that sent it.
    assert last.update.status is PaymentStatus.SUCCEEDED
    assert len(stream.messages) == before
    await ended(world, bought, is_settled=True)
    last = await stream.last()
    assert isinstance(last, Reported)
    assert last.update.preimage == bought.preimage.hex()


# --- gaps ---


@pytest.mark.parametrize("is_settled", [True, False])
async def test_what_happened_while_a_proxy_had_cut_the_connections_is_told_by_the_next_track(
    world: World, is_settled: bool
) -> None:
    async with relayed_node(world) as (node, relay):
        bought, stream = await held(world, node)
        who = await payer(node)
        port, relay.target_port = relay.target_port, 1
        relay.drop()
        assert isinstance(await stream.last(), Lost)
        await ended(world, bought, is_settled=is_settled)
        await world.invoices.wait_state(
            bought.payment_hash, InvoiceState.SETTLED if is_settled else InvoiceState.CANCELED
        )
        relay.target_port = port
        async with asyncio.timeout(PATIENCE_S):
            await node.until_back(who)
        last = await _end(node, bought)
        assert last.update.status is (PaymentStatus.SUCCEEDED if is_settled else PaymentStatus.FAILED)
        reason = FailureReason.NONE if is_settled else FailureReason.INCORRECT_PAYMENT_DETAILS
        assert last.update.failure_reason is reason


async def _end(node: LndNode, bought: Order) -> Reported:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            last = await Stream(node.track(bought.payment_hash.hex(), await payer(node))).last()
            if isinstance(last, Reported):
                return last


async def test_after_a_cut_a_payment_that_is_still_out_is_followed_to_its_end(world: World) -> None:
    async with relayed_node(world) as (node, relay):
        bought, stream = await held(world, node)
        who = await payer(node)
        relay.drop()
        assert isinstance(await stream.last(), Lost)
        async with asyncio.timeout(PATIENCE_S):
            await node.until_back(who)
        tracking = Stream(node.track(bought.payment_hash.hex(), await payer(node)))
        assert (await tracking.out()).live is False
        await ended(world, bought, is_settled=False)
        last = await tracking.last()
        assert isinstance(last, Reported)
        assert last.live
        assert [attempt.failed_at_payee for attempt in last.update.attempts] == [True]


async def test_after_a_restart_of_lnd_the_gate_opens_and_a_held_payment_is_followed_to_its_end(
    world: World, node: LndNode
) -> None:
    bought, stream = await held(world, node)
    who = await payer(node)
    await world.stop_payer()
    assert isinstance(await stream.last(), Lost)
    waiting = asyncio.create_task(node.until_back(who))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await world.start_payer()
    async with asyncio.timeout(PATIENCE_S):
        await waiting
    tracking = Stream(node.track(bought.payment_hash.hex(), who))
    await tracking.out()
    await ended(world, bought, is_settled=True)
    last = await tracking.last()
    assert isinstance(last, Reported)
    assert (last.update.status, last.live) == (PaymentStatus.SUCCEEDED, True)


async def test_a_stream_that_hangs_is_found_out_by_the_next_payment(sandbox: SandboxWorld) -> None:
    async with lnd_node(sandbox) as node:
        bought, stream = await held(sandbox, node)
        sandbox.lnd.hang_streams()
        another = await order(sandbox)
        Stream(node.send(spec(another), await payer(node)))
        assert isinstance(await stream.last(), Lost)
        await ended(sandbox, bought, is_settled=True)
        assert (await _end(node, bought)).update.status is PaymentStatus.SUCCEEDED


async def test_another_node_that_takes_lnds_place_behind_a_connection_that_stands_pays_nothing_as_the_first_one(
    sandbox: SandboxWorld,
) -> None:
    """As behind a proxy, which keeps its connection to us: all that breaks is the stream."""
    async with lnd_node(sandbox) as node:
        bought, who = await order(sandbox), await payer(node)
        sandbox.lnd.replace_node()
        async with asyncio.timeout(PATIENCE_S):
            while node._hub.node is not None:
                await asyncio.sleep(0.001)
            while node._hub.node is None:
                await asyncio.sleep(0.001)
        assert node.identity != who
        with pytest.raises(LndWrongNode):
            await anext(node.send(spec(bought), who))
        assert sandbox.lnd.node.db.all() == []


# --- few streams ---


async def test_fifty_payments_are_followed_to_their_ends_where_five_streams_are_allowed(sandbox: SandboxWorld) -> None:
    await sandbox.lnd.stop()
    sandbox.lnd.max_streams = 5
    await sandbox.lnd.start()
    async with lnd_node(sandbox) as node:
        who = await payer(node)
        orders = [await order(sandbox, value_sat=1_000) for _ in range(50)]
        streams = [Stream(node.send(spec(bought), who)) for bought in orders]
        for bought, stream in zip(orders, streams, strict=True):
            await stream.out()
            await sandbox.invoices.wait_state(bought.payment_hash, InvoiceState.ACCEPTED)
        tracks = [Stream(node.track(bought.payment_hash.hex(), who)) for bought in orders]
        for track in tracks:
            await track.out()
        async with asyncio.timeout(PATIENCE_S):
            await node.decode(orders[0].payreq)
        for number, bought in enumerate(orders):
            await ended(sandbox, bought, is_settled=number % 2 == 0)
        wanted = [PaymentStatus.SUCCEEDED, PaymentStatus.FAILED] * 25
        for several in (streams, tracks):
            ends = [await stream.last() for stream in several]
            assert [end.update.status for end in ends if isinstance(end, Reported)] == wanted
