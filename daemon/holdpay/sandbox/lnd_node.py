"""The node of the sandbox LND: it runs payments as LND's payment loop does (lnd: routing/payment_lifecycle.go).

No gRPC here. The payments, what mission control has learnt and the node's key outlast `stop` and `start`, as LND's
database does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from coincurve import PrivateKey

from holdpay.sandbox.bolt11 import Invoice, decode
from holdpay.sandbox.clock import Clock, scaled_s
from holdpay.sandbox.lnd_model import Attempt, Failure, FailureReason, Payment, PaymentDb, Step, next_step
from holdpay.sandbox.lnd_network import Knobs, Network, Result
from holdpay.sandbox.lnd_routing import (
    BLOCK_PADDING,
    MISSION_CONTROL_S,
    Intent,
    MissionControl,
    NoRoute,
    RouteQuery,
    SendRequest,
    find_route,
    vet,
)
from holdpay.sandbox.payee import Settled


class ShuttingDown(Exception):
    """The node stopped while somebody sent or followed a payment."""

    def __init__(self) -> None:
        super().__init__("routerrpc server shutting down")


class Subscription:
    """The snapshots of one payment, from the present one to the terminal one; or those of all payments, without end."""

    def __init__(self, *, is_endless: bool = False) -> None:
        self._is_endless = is_endless
        self._queue: asyncio.Queue[Payment | None] = asyncio.Queue()

    def put(self, payment: Payment) -> None:
        self._queue.put_nowait(payment)

    def shut_down(self) -> None:
        self._queue.put_nowait(None)

    async def snapshots(self) -> AsyncIterator[Payment]:
        """Raises ShuttingDown."""
        while True:
            payment = await self._queue.get()
            if payment is None:
                raise ShuttingDown
            yield payment
            if payment.is_terminal and not self._is_endless:
                return


@dataclass(slots=True)
class _Run:
    """One pass of the payment loop. `intent` is None after a restart: LND then makes no new attempts."""

    payment_hash: bytes
    intent: Intent | None
    deadline_s: float | None
    is_canceled: bool = False
    results: asyncio.Queue[tuple[Attempt, Result]] = field(default_factory=asyncio.Queue)


class LndNode:
    def __init__(
        self, clock: Clock, network: Network, knobs: Knobs, db: PaymentDb, *, network_name: str = "simnet"
    ) -> None:
        self._clock = clock
        self._knobs = knobs
        self.key = PrivateKey()
        self._mission_control = MissionControl(scaled_s(clock, MISSION_CONTROL_S))
        self._subscriptions: dict[bytes, list[Subscription]] = {}
        self._subscriptions_to_all: set[Subscription] = set()
        self._runs: dict[bytes, _Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_up = False
        self.network = network
        self.network_name = network_name
        self.db = db

    @property
    def pubkey(self) -> str:
        """66 hex digits."""
        return self.key.public_key.format().hex()

    def decode(self, payreq: str) -> Invoice:
        """Raises InvoiceError."""
        return decode(payreq, self.network_name)

    def start(self) -> None:
        """Go on with the payments that were out: wait for their HTLCs, try nothing new."""
        self._is_up = True
        for payment in self.db.all():
            if not payment.is_terminal:
                run = self._begin(_Run(payment.payment_hash, None, None))
                for attempt in payment.in_flight:
                    self._collect(run, attempt)

    def stop(self) -> None:
        self._is_up = False
        for task in self._tasks:
            task.cancel()
        self._runs.clear()
        subscriptions, self._subscriptions = self._subscriptions, {}
        to_all, self._subscriptions_to_all = self._subscriptions_to_all, set()
        for subscription in (*to_all, *(one for several in subscriptions.values() for one in several)):
            subscription.shut_down()

    def send(self, request: SendRequest) -> Subscription:
        """Store a payment and start it. Raises Refusal, InvoiceError, AlreadyExists, ShuttingDown."""
        if not self._is_up:
            raise ShuttingDown
        now_s = self._clock.now_s()
        intent = vet(request, self.decode, self.key.public_key.format(), now_s)
        self.db.init(intent.payment_hash, intent.amount_msat, intent.payment_request, self._now_ns())
        subscription = self.track(intent.payment_hash)
        self._publish_to_all(self.db.fetch(intent.payment_hash))
        self._begin(_Run(intent.payment_hash, intent, now_s + intent.timeout_s))
        return subscription

    def track(self, payment_hash: bytes) -> Subscription:
        """Raises NotInitiated."""
        payment = self.db.fetch(payment_hash)
        subscription = Subscription()
        subscription.put(payment)
        if not payment.is_terminal:
            self._subscriptions.setdefault(payment_hash, []).append(subscription)
        return subscription

    def track_all(self) -> Subscription:
        """The payments that are not over, then every change of any. Raises ShuttingDown."""
        if not self._is_up:
            raise ShuttingDown
        subscription = Subscription(is_endless=True)
        for payment in self.db.all():
            if not payment.is_terminal:
                subscription.put(payment)
        self._subscriptions_to_all.add(subscription)
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """Whoever followed all payments has gone."""
        self._subscriptions_to_all.discard(subscription)

    def hang_streams(self) -> None:
        """Whoever follows payments now hears nothing more, not even that the node stops; who asks anew does."""
        self._subscriptions.clear()
        self._subscriptions_to_all.clear()

    def sender_left(self, payment_hash: bytes) -> None:
        """The stream of a cancelable payment has ended."""
        if run := self._runs.get(payment_hash):
            run.is_canceled = True

    def avoids(self, pair: tuple[str, str]) -> bool:
        """Whether mission control leaves out this pair of nodes now."""
        return self._mission_control.avoids(pair, self._clock.now_s())

    def _begin(self, run: _Run) -> _Run:
        self._runs[run.payment_hash] = run
        task = asyncio.create_task(self._pay(run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return run

    async def _pay(self, run: _Run) -> None:
        while True:
            self._check_context(run)
            payment = self.db.fetch(run.payment_hash)
            step = next_step(payment)
            if step is Step.EXIT:
                break
            if step is Step.WAIT:
                self._take_result(run, *await run.results.get())
            else:
                await self._clock.sleep_s(self._knobs.attempt_delay_s)
                self._send_shard(run, payment)
        self.db.delete_failed_attempts(run.payment_hash)
        self._runs.pop(run.payment_hash, None)

    def _check_context(self, run: _Run) -> None:
        """LND writes TIMEOUT or CANCELED here without a look at the status, so over any other reason."""
        if run.is_canceled:
            self._publish(self.db.fail_payment(run.payment_hash, FailureReason.CANCELED))
        elif run.deadline_s is not None and self._clock.now_s() >= run.deadline_s:
            self._publish(self.db.fail_payment(run.payment_hash, FailureReason.TIMEOUT))

    def _send_shard(self, run: _Run, payment: Payment) -> None:
        intent = run.intent
        if intent is None:
            self._publish(self.db.fail_payment(run.payment_hash, FailureReason.NO_ROUTE))
            return
        try:
            route = find_route(self.network.graph(self.pubkey), _query(intent, payment), self.avoids)
        except NoRoute as error:
            self._publish(self.db.fail_payment(run.payment_hash, error.reason))
            return
        payment, attempt = self.db.register(run.payment_hash, route, self._now_ns())
        self._publish(payment)
        self.network.offer(
            attempt.attempt_id,
            route,
            payment_hash=run.payment_hash,
            payment_secret=intent.payment_secret,
            total_msat=intent.amount_msat,
        )
        self._collect(run, attempt)

    def _collect(self, run: _Run, attempt: Attempt) -> None:
        result = self.network.htlcs[attempt.attempt_id].result
        result.add_done_callback(lambda done: run.results.put_nowait((attempt, done.result())))

    def _take_result(self, run: _Run, attempt: Attempt, result: Result) -> None:
        if isinstance(result, Settled):
            self._mission_control.succeeded(attempt.route, self.pubkey)
            self._publish(self.db.settle_attempt(run.payment_hash, attempt.attempt_id, result.preimage, self._now_ns()))
            return
        self._take_failure(run, attempt, result)

    def _take_failure(self, run: _Run, attempt: Attempt, failure: Failure) -> None:
        reason = self._mission_control.failed(
            attempt.route, self.pubkey, failure.code, failure.source_index, self._clock.now_s()
        )
        if reason is not None:
            # LND marks the payment before the attempt, so that no other shard starts in between.
            self._publish(self.db.fail_payment(run.payment_hash, reason))
        self._publish(self.db.fail_attempt(run.payment_hash, attempt.attempt_id, failure, self._now_ns()))

    def _publish(self, payment: Payment) -> None:
        for subscription in self._subscriptions.get(payment.payment_hash, ()):
            subscription.put(payment)
        if payment.is_terminal:
            self._subscriptions.pop(payment.payment_hash, None)
        self._publish_to_all(payment)

    def _publish_to_all(self, payment: Payment) -> None:
        for subscription in self._subscriptions_to_all:
            subscription.put(payment)

    def _now_ns(self) -> int:
        return int(self._clock.now_s() * 1_000_000_000)


def _query(intent: Intent, payment: Payment) -> RouteQuery:
    terms = intent.invoice.terms
    return RouteQuery(
        payee_pubkey=intent.invoice.payee_pubkey.hex(),
        amount_msat=min(payment.remaining_msat, intent.max_shard_msat or payment.remaining_msat),
        fee_limit_msat=max(intent.fee_limit_msat - payment.sent_fee_msat, 0),
        final_cltv_delta=terms.min_final_cltv_delta + BLOCK_PADDING,
        cltv_limit=intent.cltv_limit,
        outgoing_chan_ids=intent.outgoing_chan_ids,
        last_hop_pubkey=intent.last_hop_pubkey,
        further_shards=intent.max_parts - len(payment.in_flight) - 1,
    )
