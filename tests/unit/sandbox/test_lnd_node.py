"""The sandbox node on a clock that is moved by hand: its payment loop, its restarts, its peers and its payee."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from holdpay.sandbox.bolt11 import payment_hash_of
from holdpay.sandbox.lnd_model import (
    AttemptStatus,
    Failure,
    FailureCode,
    FailureReason,
    Payment,
    PaymentDb,
    PaymentStatus,
)
from holdpay.sandbox.lnd_network import Knobs, Network, default_channels
from holdpay.sandbox.lnd_node import LndNode, ShuttingDown, Subscription
from holdpay.sandbox.lnd_routing import SendRequest
from holdpay.sandbox.payee import InvoiceState, Payee
from tests.unit.sms4sats.clock import ManualClock, settle

PREIMAGE = b"p" * 32
HASH = payment_hash_of(PREIMAGE)
FEE_LIMIT_MSAT = 10_000_000


class Scene:
    """We - (two channels) - peer - payee, and one invoice of 2,000 sat."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.payee = Payee(self.clock)
        self.knobs = Knobs()
        channels = default_channels(2, capacity_sat=1_000_000, local_sat=500_000)
        self.network = Network(self.clock, self.payee, self.knobs, height=500, channels=channels)
        self.node = LndNode(self.clock, self.network, self.knobs, PaymentDb())
        self.payreq = ""

    async def start(self, value_sat: int = 2_000) -> None:
        self.payreq = await self.payee.add(
            payment_hash=HASH, value_sat=value_sat, memo="", expiry_s=86_400, cltv_delta=40
        )
        self.node.start()
        self.network.set_online("node", online=True)

    def send(self, *, timeout_s: int = 60, max_parts: int = 1) -> Subscription:
        return self.node.send(
            SendRequest(self.payreq, timeout_s=timeout_s, fee_limit_msat=FEE_LIMIT_MSAT, max_parts=max_parts)
        )

    async def held(self, *, timeout_s: int = 60, max_parts: int = 1) -> Subscription:
        subscription = self.send(timeout_s=timeout_s, max_parts=max_parts)
        await self.clock.advance(1)
        assert await self.payee.state(HASH) is InvoiceState.ACCEPTED
        return subscription

    async def restart(self) -> None:
        await self.stop()
        await self.come_back()

    async def stop(self) -> None:
        self.network.set_online("node", online=False)
        self.node.stop()
        await settle()

    async def come_back(self) -> None:
        self.node.start()
        self.network.set_online("node", online=True)
        await self.clock.advance(1)

    @property
    def record(self) -> Payment:
        return self.node.db.fetch(HASH)


@pytest_asyncio.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    await scene.start()
    yield scene
    scene.node.stop()
    scene.network.close()


async def told(subscription: Subscription) -> list[Payment]:
    """Every snapshot up to the terminal one."""
    async with asyncio.timeout(60):
        return [payment async for payment in subscription.snapshots()]


def outcome(payment: Payment) -> tuple[PaymentStatus, FailureReason]:
    return payment.status, payment.failure_reason


async def test_mission_control_lets_nobody_through_for_180_s_after_the_payee_was_away(scene: Scene) -> None:
    scene.network.set_online("payee", online=False)
    first = scene.send()
    await scene.clock.advance(1)
    scene.network.set_online("payee", online=True)
    again = scene.send()
    await scene.clock.advance(178)
    still = scene.send()
    await scene.clock.advance(2)

    assert [outcome(m[-1]) for m in (await told(first), await told(again), await told(still))] == [
        (PaymentStatus.FAILED, FailureReason.NO_ROUTE)
    ] * 3
    assert scene.record.attempts == ()
    await scene.held()


async def test_a_time_out_is_written_only_when_something_moves(scene: Scene) -> None:
    subscription = await scene.held(timeout_s=10)
    await scene.clock.advance(3600)
    assert outcome(scene.record) == (PaymentStatus.IN_FLIGHT, FailureReason.NONE)
    await scene.payee.settle(PREIMAGE)
    await scene.clock.advance(1)

    assert outcome((await told(subscription))[-1]) == (PaymentStatus.SUCCEEDED, FailureReason.NONE)
    assert outcome(scene.record) == (PaymentStatus.SUCCEEDED, FailureReason.TIMEOUT)


async def test_after_the_time_out_no_attempt_follows_a_failed_one(scene: Scene) -> None:
    """As in lnd's payment loop, which looks at its time before it asks for a route."""
    scene.network.fail_next(1, Failure(FailureCode.TEMPORARY_CHANNEL_FAILURE, 0))
    scene.knobs.forward_delay_s = 11.0
    subscription = scene.send(timeout_s=10)
    await scene.clock.advance(60)

    end = (await told(subscription))[-1]
    assert outcome(end) == (PaymentStatus.FAILED, FailureReason.TIMEOUT)
    assert [attempt.status for attempt in end.attempts] == [AttemptStatus.FAILED]


async def test_a_failed_attempt_that_teaches_nothing_is_followed_by_another(scene: Scene) -> None:
    scene.network.fail_next(2, Failure(FailureCode.TEMPORARY_CHANNEL_FAILURE, 0))
    await scene.held()

    assert [attempt.status for attempt in scene.record.attempts] == [
        AttemptStatus.FAILED,
        AttemptStatus.FAILED,
        AttemptStatus.IN_FLIGHT,
    ]


async def test_after_a_restart_a_held_payment_is_followed_to_its_end(scene: Scene) -> None:
    subscription = await scene.held()
    await scene.restart()
    with pytest.raises(ShuttingDown):
        await told(subscription)

    tracking = scene.node.track(HASH)
    await scene.payee.settle(PREIMAGE)
    await scene.clock.advance(1)

    assert outcome((await told(tracking))[-1]) == (PaymentStatus.SUCCEEDED, FailureReason.NONE)


async def test_after_a_restart_no_new_attempt_is_made(scene: Scene) -> None:
    await scene.held()
    await scene.stop()
    scene.network.set_online("payee", online=False)
    await scene.network.mine(40 + 3 + 56)
    await scene.come_back()

    assert outcome(scene.record) == (PaymentStatus.FAILED, FailureReason.NO_ROUTE)
    assert scene.record.attempts == ()


async def test_what_the_payee_did_while_we_were_down_arrives_when_we_are_back(scene: Scene) -> None:
    await scene.held()
    await scene.stop()
    await scene.payee.cancel(HASH)
    await scene.clock.advance(60)
    assert outcome(scene.record) == (PaymentStatus.IN_FLIGHT, FailureReason.NONE)
    await scene.come_back()

    assert outcome(scene.record) == (PaymentStatus.FAILED, FailureReason.INCORRECT_PAYMENT_DETAILS)


async def test_an_amount_that_no_channel_can_carry_goes_in_two_shards() -> None:
    scene = Scene()
    await scene.start(value_sat=900_000)
    subscription = await scene.held(max_parts=4)
    await scene.payee.settle(PREIMAGE)
    await scene.clock.advance(1)
    messages = await told(subscription)

    assert [attempt.route.receiver_amt_msat for attempt in messages[-1].attempts] == [450_000_000] * 2
    assert len({attempt.route.hops[0].chan_id for attempt in messages[-1].attempts}) == 2
    assert [(m.status, m.preimage) for m in messages[-2:]] == [
        (PaymentStatus.IN_FLIGHT, PREIMAGE),
        (PaymentStatus.SUCCEEDED, PREIMAGE),
    ]


async def test_with_one_part_allowed_that_amount_has_no_route() -> None:
    scene = Scene()
    await scene.start(value_sat=900_000)
    subscription = scene.send(max_parts=1)
    await scene.clock.advance(1)

    assert outcome((await told(subscription))[-1]) == (PaymentStatus.FAILED, FailureReason.NO_ROUTE)


async def test_the_payee_gives_an_incomplete_set_back_after_two_minutes_and_lnd_goes_on() -> None:
    scene = Scene()
    await scene.start(value_sat=900_000)
    # The first shard fails on its way; by then the second is out, and reaches the payee alone.
    scene.network.fail_next(1, Failure(FailureCode.TEMPORARY_NODE_FAILURE, 1))
    scene.send(max_parts=2, timeout_s=3600)
    await scene.clock.advance(1)
    assert outcome(scene.record) == (PaymentStatus.IN_FLIGHT, FailureReason.NO_ROUTE)
    await scene.clock.advance(118)
    assert scene.record.status is PaymentStatus.IN_FLIGHT
    await scene.clock.advance(2)

    assert outcome(scene.record) == (PaymentStatus.FAILED, FailureReason.NO_ROUTE)


async def test_the_money_comes_back_to_the_channel_after_a_cancel_and_goes_over_after_a_settle(scene: Scene) -> None:
    def balances() -> tuple[int, int, int]:
        channels = scene.network.channels.values()
        return (
            sum(channel.local_msat for channel in channels),
            sum(channel.unsettled_msat for channel in channels),
            sum(channel.remote_msat for channel in channels),
        )

    before = balances()
    await scene.held()
    assert balances() == (before[0] - 2_001_002, 2_001_002, before[2])
    await scene.payee.settle(PREIMAGE)
    await scene.clock.advance(1)

    assert balances() == (before[0] - 2_001_002, 0, before[2] + 2_001_002)


async def test_a_silent_payee_gives_the_money_back_in_time(scene: Scene) -> None:
    subscription = await scene.held()
    await scene.network.mine(40 + 3 - 18)
    await scene.clock.advance(1)

    assert outcome((await told(subscription))[-1]) == (PaymentStatus.FAILED, FailureReason.INCORRECT_PAYMENT_DETAILS)


async def test_with_the_peer_gone_for_good_the_channel_closes_at_our_expiry_height(scene: Scene) -> None:
    subscription = await scene.held()
    scene.network.set_online("peer", online=False)
    expiry_height = scene.record.attempts[0].route.total_time_lock_height
    await scene.network.mine(expiry_height - 500 - 1)
    assert len(scene.network.channels) == 2
    await scene.network.mine(1)
    assert len(scene.network.channels) == 1
    assert scene.record.status is PaymentStatus.IN_FLIGHT
    await scene.network.mine(2)
    await scene.clock.advance(1)
    last = (await told(subscription))[-1]

    assert outcome(last) == (PaymentStatus.FAILED, FailureReason.INSUFFICIENT_BALANCE)
    assert last.attempts[0].failure == Failure(FailureCode.PERMANENT_CHANNEL_FAILURE, 0)


async def test_an_unpaid_invoice_ends_at_its_expiry_and_wakes_its_waiter(scene: Scene) -> None:
    waiting = asyncio.create_task(scene.payee.wait_state(HASH, InvoiceState.CANCELED))
    await scene.clock.advance(86_399)
    assert not waiting.done()
    await scene.clock.advance(2)

    assert await waiting is InvoiceState.CANCELED


async def test_a_second_payer_of_a_held_invoice_is_turned_away(scene: Scene) -> None:
    await scene.held()
    knobs = Knobs()
    other = Network(scene.clock, scene.payee, knobs, height=500, channels=default_channels())
    other.set_online("node", online=True)
    rival = LndNode(scene.clock, other, knobs, PaymentDb())
    rival.start()
    subscription = rival.send(SendRequest(scene.payreq, fee_limit_msat=FEE_LIMIT_MSAT))
    await scene.clock.advance(1)

    assert outcome((await told(subscription))[-1]) == (PaymentStatus.FAILED, FailureReason.INCORRECT_PAYMENT_DETAILS)
    assert await scene.payee.state(HASH) is InvoiceState.ACCEPTED


async def test_a_stream_that_hangs_is_silent_for_ever_and_one_that_is_opened_later_is_not(scene: Scene) -> None:
    hung = await scene.held()
    scene.node.hang_streams()
    later = scene.node.track(HASH)

    await scene.payee.settle(PREIMAGE)
    await scene.clock.advance(1)
    assert outcome((await told(later))[-1]) == (PaymentStatus.SUCCEEDED, FailureReason.NONE)
    scene.node.stop()
    await settle()

    snapshots = hung.snapshots()
    assert [(await anext(snapshots)).is_terminal for _ in range(2)] == [False, False]
    waiting = asyncio.ensure_future(anext(snapshots))
    await settle()
    assert not waiting.done()
    waiting.cancel()
