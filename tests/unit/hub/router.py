"""An lnd as the hub sees it, on virtual time: it drops, hangs, restarts and reorders as lnd and its network can.

What it does of itself is lnd's: routing/control_tower.go. A subscriber is registered at first; then the payments in
flight are read, which takes a while; what happens meanwhile is told before what was read.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay.core.lightning import LndMessage, Lost, NodeIdentity, NotKnown, PaymentUpdate, Reported
from holdpay.errors import LndUnavailable
from holdpay.lnd.convert import to_update

ALICE = NodeIdentity("02" + "aa" * 32, "simnet")
OUT, SETTLED, FAILED = lnrpc.HTLCAttempt.IN_FLIGHT, lnrpc.HTLCAttempt.SUCCEEDED, lnrpc.HTLCAttempt.FAILED


def hash_of(number: int) -> str:
    return f"{number:064x}"


@dataclass
class Record:
    """One payment in lnd's database: its present state, and all it ever was."""

    payment: lnrpc.Payment
    history: list[PaymentUpdate] = field(default_factory=list)
    ended_at_s: float | None = None

    @property
    def is_over(self) -> bool:
        return self.payment.status != lnrpc.Payment.IN_FLIGHT


class Call:
    """One TrackPayments."""

    def __init__(self) -> None:
        self.node = ALICE
        self.is_hung = False
        self.is_canceled = False
        self._queue: asyncio.Queue[lnrpc.Payment | Lost] = asyncio.Queue()

    def put(self, payment: lnrpc.Payment) -> None:
        if not self.is_hung:
            copy = lnrpc.Payment()
            copy.CopyFrom(payment)
            self._queue.put_nowait(copy)

    def cut(self) -> None:
        self._queue.put_nowait(Lost("the connection broke"))

    async def read(self) -> lnrpc.Payment | Lost:
        return await self._queue.get()

    def cancel(self) -> None:
        self.is_canceled = True
        self.cut()


class ScriptedLnd:
    """``lag_s``: the longest way of a question or an answer. ``read_s``: how long the payments in flight are read."""

    def __init__(self, rng: random.Random, *, lag_s: float = 0.05, read_s: float = 0.2, losing: float = 0.0) -> None:
        self.register_after_s = 0.0
        self.answer_after_s = 0.0
        """TrackPaymentV2, after it has read the record."""
        self.rng = rng
        self.records: dict[str, Record] = {}
        self.is_down = False
        self.call: Call | None = None
        self.opened = self.tries = 0
        self.asked: list[str] = []
        """Each TrackPaymentV2."""
        self.most_at_once = 0
        self._at_once = 0
        self._lag_s, self._read_s, self._losing = lag_s, read_s, losing
        self._index = 0
        self._registered: set[Call] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- what the hub asks

    async def open(self) -> Call:
        self.tries += 1
        await self._lag()
        if self.is_down:
            raise LndUnavailable("lnd is down")
        assert self.call is None or self.call.is_canceled, "two streams at once"
        self.opened += 1
        self.call = call = Call()
        self._later(self._subscribe(call))
        await self._lag()
        return call

    async def first_word(self, payment_hash: str, payer: NodeIdentity) -> LndMessage:
        assert payer == ALICE
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        self.asked.append(payment_hash)
        try:
            await self._lag()
            if self.is_down or self.rng.random() < self._losing:
                return Lost("no answer")
            record = self.records.get(payment_hash)
            said: LndMessage = NotKnown() if record is None else Reported(to_update(record.payment), live=False)
            await asyncio.sleep(self.answer_after_s)
            await self._lag()
            return said
        finally:
            self._at_once -= 1

    async def send(self, payment_hash: str) -> LndMessage:
        """SendPaymentV2 up to its first word."""
        await self._lag()
        if self.is_down:
            return Lost("lnd is down")
        self.begin(payment_hash)
        said = Reported(to_update(self.records[payment_hash].payment), live=True)
        await self._lag()
        return Lost("the connection broke") if self.rng.random() < self._losing else said

    # --- what happens to it

    def begin(self, payment_hash: str) -> None:
        self._index += 1
        payment = lnrpc.Payment(payment_hash=payment_hash, status=lnrpc.Payment.IN_FLIGHT, payment_index=self._index)
        before = self.records.get(payment_hash)
        self.records[payment_hash] = Record(payment, [] if before is None else before.history)
        self._publish(payment_hash)

    def attempt(self, payment_hash: str) -> None:
        """A new HTLC goes out."""
        payment = self.records[payment_hash].payment
        payment.htlcs.append(lnrpc.HTLCAttempt(attempt_id=len(payment.htlcs) + 1, status=OUT))
        self._publish(payment_hash)

    def resolve(self, payment_hash: str, *, is_settled: bool) -> None:
        """The HTLC that is out ends, and does not end the payment unless it settled."""
        payment = self.records[payment_hash].payment
        payment.htlcs[-1].status = SETTLED if is_settled else FAILED
        if is_settled:
            payment.status, payment.payment_preimage = lnrpc.Payment.SUCCEEDED, "cd" * 32
        self._publish(payment_hash)

    def refuse(self, payment_hash: str) -> None:
        """The payee cancels: the reason comes first, then the end; then the attempts are forgotten."""
        record = self.records[payment_hash]
        record.payment.failure_reason = lnrpc.FAILURE_REASON_INCORRECT_PAYMENT_DETAILS
        self._publish(payment_hash)
        record.payment.htlcs[-1].status = FAILED
        record.payment.status = lnrpc.Payment.FAILED
        self._publish(payment_hash)
        del record.payment.htlcs[:]

    def overwrite(self, payment_hash: str) -> None:
        """lnd's time-out is noticed at last, and written over the end."""
        record = self.records[payment_hash]
        record.payment.failure_reason = lnrpc.FAILURE_REASON_TIMEOUT
        self._publish(payment_hash)

    def cut(self) -> None:
        if self.call is not None:
            self._registered.discard(self.call)
            self.call.cut()

    def hang(self) -> None:
        if self.call is not None:
            self.call.is_hung = True

    def go_down(self) -> None:
        self.is_down = True
        self._registered.clear()
        self.cut()

    def come_up(self) -> None:
        self.is_down = False

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    # ---

    def _publish(self, payment_hash: str) -> None:
        record = self.records[payment_hash]
        record.history.append(to_update(record.payment))
        if record.is_over and record.ended_at_s is None:
            record.ended_at_s = asyncio.get_running_loop().time()
        for call in self._registered:
            call.put(record.payment)

    async def _subscribe(self, call: Call) -> None:
        await asyncio.sleep(self.register_after_s)
        await self._lag()
        if self.is_down:
            return
        self._registered.add(call)
        read = []
        for record in [*self.records.values()]:
            await asyncio.sleep(self.rng.uniform(0, self._read_s) / (1 + len(self.records)))
            if not record.is_over:
                copy = lnrpc.Payment()
                copy.CopyFrom(record.payment)
                read.append(copy)
        await self._lag()
        for payment in read:
            call.put(payment)

    async def _lag(self) -> None:
        await asyncio.sleep(self.rng.uniform(0, self._lag_s))

    def _later(self, what: object) -> None:
        task = asyncio.ensure_future(what)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
