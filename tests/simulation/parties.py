"""LND in the simulation, with a mind of its own (the provider and its node: ``provider``).

It knows nothing of holdpay's model. What is true of the money is in ``Truth``; its words lag behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from holdpay.core.lightning import (
    Attempt,
    AttemptStatus,
    DispatchSpec,
    FailureReason,
    HtlcLook,
    Invoice,
    LndMessage,
    Lost,
    NotKnown,
    OfferedHtlc,
    OpenChannel,
    PaymentStatus,
    PaymentUpdate,
    Refused,
    Reported,
    short_channel_id,
)
from tests.simulation.faults import Faults
from tests.simulation.heap import START_MS, Heap

MINUTE_MS = 60_000
EXPIRY_HEIGHT = 600
"""Of every HTLC: later than any party of this simulation holds one."""
LATE_SEND_MS = 25_000
"""The latest arrival of a send whose connection is gone; below policy.prove_absent_s."""
PAYEE = "02" + "11" * 32
CHANNEL = 1

Say = Callable[[LndMessage], None]


@dataclass(slots=True)
class Truth:
    """One hold invoice and what really happened to the money."""

    preimage: str
    payment_hash: str
    amount_msat: int
    invoice: Invoice
    htlc: str = "none"
    """none, out, held, settled, back, unsigned (lnd alone takes it for out)"""
    times_out: int = 0
    was_held: bool = False
    settle_count: int = 0
    sends_on_the_way: int = 0
    is_record_lost: bool = False
    is_called_unknown: bool = False
    """lnd has said that it has no record of it."""
    settled_at_ms: int | None = None
    fee_msat: int = 0
    """Of the HTLC that is out or settled."""


@dataclass(slots=True)
class LndPayment:
    """LND's record of a payment hash."""

    index: int
    created_at_ms: int
    status: PaymentStatus = PaymentStatus.IN_FLIGHT
    reason: FailureReason = FailureReason.NONE
    attempts: tuple[Attempt, ...] = ()
    fee_msat: int = 0
    preimage: str | None = None
    forgot: bool = False
    streams: list[Say] = field(default_factory=list)


class SimLnd:
    """One record per hash; a send of a hash that is out or settled is refused, after a failure it runs again."""

    def __init__(self, heap: Heap, faults: Faults) -> None:
        self.heap = heap
        self.faults = faults
        self.payments: dict[str, LndPayment] = {}
        self.truths: dict[str, Truth] = {}
        self.is_down = False
        self._last_index = 0
        self._next_attempt = 1
        self.on_arrival: Callable[[str], None] = lambda payment_hash: None
        """The payee's node got an HTLC for this hash."""
        self.is_known: Callable[[str], bool] = lambda payment_hash: False
        """Whether the daemon's disk knows that this payment is in flight."""

    # --- calls of the daemon ------------------------------------------------------------------------------------------

    def send(self, spec: DispatchSpec, say: Say) -> None:
        """SendPaymentV2: the first message comes when it has arrived."""
        truth = self.truths[spec.payment_hash]
        rng = self.heap.rng
        if self.is_down:
            self.heap.lagged(50, lambda: say(Lost("connection refused")))
            return
        if self.faults.hits(rng, "dropped_send"):
            self.heap.lagged(5_000, lambda: say(Lost("stream removed")))
            return
        truth.sends_on_the_way += 1
        if self.faults.hits(rng, "late_send"):
            self.heap.lagged(1_000, lambda: say(Lost("stream removed")))
            self.heap.after(rng.randrange(LATE_SEND_MS), lambda: self._arrive(spec, lambda message: None))
            return
        self.heap.lagged(20, lambda: self._arrive(spec, say))

    def track(self, payment_hash: str, say: Say) -> None:
        """TrackPaymentV2: a snapshot, then what comes."""
        if self.is_down:
            self.heap.lagged(50, lambda: say(Lost("connection refused")))
            return
        self.heap.lagged(20, lambda: self._track(payment_hash, say))

    @property
    def height(self) -> int:
        """A block a minute."""
        return 500 + (self.heap.now_ms - START_MS) // MINUTE_MS

    def look(self, payment_hash: str) -> HtlcLook:
        """What the channels carry."""
        return HtlcLook(self.height, True, self.truths[payment_hash].htlc in {"out", "held"}, is_maybe_closing=False)

    def channels(self) -> tuple[OpenChannel, ...]:
        """One, which carries whatever is out."""
        out = (of for of, truth in self.truths.items() if truth.htlc in {"out", "held"})
        return (OpenChannel(CHANNEL, is_active=True, offered=tuple(OfferedHtlc(of, EXPIRY_HEIGHT) for of in out)),)

    def _lose_record(self, payment_hash: str) -> None:
        if not self.is_known(payment_hash) or payment_hash not in self.payments:
            return
        self.heap.tell("    lnd loses its record of the payment")
        self.truths[payment_hash].is_record_lost = True
        for say in self.payments.pop(payment_hash).streams:
            say(Lost("stream removed"))

    def _track(self, payment_hash: str, say: Say) -> None:
        payment = self.payments.get(payment_hash)
        if self.is_down:
            say(Lost("server shutting down"))
        elif payment is None:
            self.truths[payment_hash].is_called_unknown = True
            say(NotKnown())
        else:
            self._subscribe(payment, say, live=False)

    def _arrive(self, spec: DispatchSpec, say: Say) -> None:
        truth = self.truths[spec.payment_hash]
        truth.sends_on_the_way -= 1
        if self.is_down:
            say(Lost("server shutting down"))
            return
        payment = self.payments.get(spec.payment_hash)
        is_expired = self.heap.now_ms > truth.invoice.expires_at_ms
        if is_expired:
            # Mostly when the HTLC is held already.
            self.heap.lagged(3_000, lambda: say(Refused("invoice expired. Valid until then")))
        elif payment is not None and payment.status is not PaymentStatus.FAILED:
            is_settled = payment.status is PaymentStatus.SUCCEEDED
            text = "invoice is already paid" if is_settled else "payment is in transition"
            say(Refused(text, has_hash=True))
        else:
            self._begin(spec, truth, say)

    def _begin(self, spec: DispatchSpec, truth: Truth, say: Say) -> None:
        payment = LndPayment(index=self._index(spec.payment_hash), created_at_ms=self.heap.now_ms)
        self.heap.tell(f"    lnd takes the payment {spec.payment_hash[:8]}, try {payment.index}")
        self.payments[spec.payment_hash] = payment
        truth.htlc = "out"
        truth.times_out += 1
        if self.faults.hits(self.heap.rng, "false_refusal"):
            say(Refused("invoice expired. Valid until then"))
        else:
            self._subscribe(payment, say, live=True)
        self.heap.lagged(200, lambda: self._route(spec, truth, payment))
        if self.faults.hits(self.heap.rng, "lost_record"):
            self.heap.after(self.heap.rng.randrange(30 * MINUTE_MS), lambda: self._lose_record(spec.payment_hash))

    def _index(self, payment_hash: str) -> int:
        """Of a new try. SQLite gives the next number after the highest that is left, as the failed try is replaced."""
        if self.faults.is_on_sqlite:
            return 1 + max((other.index for of, other in self.payments.items() if of != payment_hash), default=0)
        self._last_index += 1
        return self._last_index

    # --- the way of the HTLC ------------------------------------------------------------------------------------------

    def _route(self, spec: DispatchSpec, truth: Truth, payment: LndPayment) -> None:
        rng = self.heap.rng
        if self.is_down:
            # lnd resumes no route after a restart: the payment ends without a try.
            self.heap.after(1_000, lambda: self._route(spec, truth, payment))
            return
        if spec.fee_limit_msat < 1_002 or self.faults.hits(rng, "payee_offline"):
            self._fail(truth, payment, FailureReason.NO_ROUTE, ())
            return
        attempt = self._attempt(truth)
        if self.faults.hits(rng, "routing_failure"):
            failed = _with(attempt, AttemptStatus.FAILED, code=15, source=1)
            self._fail(truth, payment, FailureReason.NO_ROUTE, (failed,))
            return
        payment.attempts = (attempt,)
        payment.fee_msat = truth.fee_msat = attempt.fee_msat
        self._tell(payment)
        if self.faults.hits(rng, "never_signed"):
            truth.htlc = "unsigned"
            return
        self.heap.lagged(self.faults.lag_ms, lambda: self.on_arrival(truth.payment_hash))

    def _attempt(self, truth: Truth) -> Attempt:
        self._next_attempt += 1
        return Attempt(
            attempt_id=self._next_attempt,
            status=AttemptStatus.IN_FLIGHT,
            amount_msat=truth.amount_msat,
            fee_msat=1_002,
            expiry_height=EXPIRY_HEIGHT,
            hop_count=2,
            attempted_at_ms=self.heap.now_ms,
            first_channel=short_channel_id(CHANNEL),
        )

    def resolved(self, payment_hash: str, outcome: str) -> None:
        """The payee settled, canceled or refused, or the chain decided; LND hears of it now."""
        payment, truth = self.payments.get(payment_hash), self.truths[payment_hash]
        if self.is_down:
            self.heap.after(1_000, lambda: self.resolved(payment_hash, outcome))
            return
        if outcome == "settled":
            truth.settled_at_ms = self.heap.now_ms
        if payment is None:
            truth.htlc = "settled" if outcome == "settled" else "back"
            self.heap.tell(f"    the HTLC is {truth.htlc}, and lnd has no record of it")
            return
        if outcome == "settled":
            truth.htlc = "settled"
            self.heap.tell("    lnd: the HTLC is settled")
            payment.status, payment.preimage = PaymentStatus.SUCCEEDED, truth.preimage
            payment.attempts = tuple(_with(a, AttemptStatus.SUCCEEDED) for a in payment.attempts)
            self._tell(payment)
        elif outcome == "on chain":
            failed = tuple(_with(a, AttemptStatus.FAILED, code=21, source=1) for a in payment.attempts)
            self._fail(truth, payment, FailureReason.NO_ROUTE, failed)
        else:
            failed = tuple(_with(a, AttemptStatus.FAILED, code=1, source=2) for a in payment.attempts)
            self._fail(truth, payment, FailureReason.INCORRECT_PAYMENT_DETAILS, failed)

    def _fail(self, truth: Truth, payment: LndPayment, reason: FailureReason, failed: tuple[Attempt, ...]) -> None:
        truth.htlc = "back"
        self.heap.tell(f"    lnd: the HTLC is back ({reason.value})")
        payment.status, payment.reason, payment.attempts, payment.fee_msat = PaymentStatus.FAILED, reason, failed, 0
        self._tell(payment)
        # LND deletes failed attempts when the payment ends, and a time-out overwrites the reason.
        payment.attempts = ()
        if self.faults.hits(self.heap.rng, "lnd_forgets_attempts"):
            payment.reason = FailureReason.TIMEOUT

    # --- streams ------------------------------------------------------------------------------------------------------

    def _subscribe(self, payment: LndPayment, say: Say, *, live: bool) -> None:
        say(Reported(self._snapshot(payment), live))
        if payment.status is PaymentStatus.IN_FLIGHT:
            payment.streams.append(say)

    def _tell(self, payment: LndPayment) -> None:
        rng = self.heap.rng
        message = Reported(self._snapshot(payment), live=True)
        streams, payment.streams = payment.streams, []
        for say in streams:
            if self.faults.hits(rng, "cut_stream"):
                say(Lost("stream removed"))
                continue
            if self.faults.hits(rng, "hung_stream"):
                continue
            say(message)
            if self.faults.hits(rng, "duplicate_update"):
                say(message)
            if payment.status is PaymentStatus.IN_FLIGHT:
                payment.streams.append(say)

    def _snapshot(self, payment: LndPayment) -> PaymentUpdate:
        preimage = payment.preimage
        if preimage is not None and self.faults.hits(self.heap.rng, "wrong_preimage"):
            preimage = "00" * 31 + "01"
        return PaymentUpdate(
            payment.status,
            payment.reason,
            payment.attempts,
            payment.fee_msat,
            preimage,
            payment.index,
            payment.created_at_ms,
        )

    # --- its own life -------------------------------------------------------------------------------------------------

    def go_down(self) -> None:
        self.is_down = True
        for payment in self.payments.values():
            streams, payment.streams = payment.streams, []
            for say in streams:
                say(Lost("routerrpc server shutting down"))

    def come_up(self) -> None:
        self.is_down = False


def _with(attempt: Attempt, status: AttemptStatus, code: int = 0, source: int = 0) -> Attempt:
    return Attempt(
        attempt_id=attempt.attempt_id,
        status=status,
        amount_msat=attempt.amount_msat,
        fee_msat=attempt.fee_msat,
        expiry_height=attempt.expiry_height,
        hop_count=attempt.hop_count,
        attempted_at_ms=attempt.attempted_at_ms,
        first_channel=attempt.first_channel,
        failure_code=code,
        failure_source_index=source,
    )
