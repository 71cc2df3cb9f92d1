"""LND's payment database as a payer meets it. Pure: no I/O, no clock, no gRPC.

The rules are LND's own (lnd: payments/db/payment_status.go, payments/db/payment.go, payments/db/errors.go): a status is
never stored but follows from the attempts and the failure reason, and a reason may be overwritten at any time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, IntEnum, auto

NO_PREIMAGE = bytes(32)
# Seen on a real node: numbers are handed out in blocks, and a kill loses the rest of one.
INDEXES_LOST_BY_A_KILL = 1000


class PaymentStatus(IntEnum):
    """LND's numbers."""

    IN_FLIGHT = 1
    SUCCEEDED = 2
    FAILED = 3
    INITIATED = 4  # no attempt yet; LND tells its clients IN_FLIGHT


class FailureReason(IntEnum):
    """LND's numbers."""

    NONE = 0
    TIMEOUT = 1
    NO_ROUTE = 2
    ERROR = 3
    INCORRECT_PAYMENT_DETAILS = 4
    INSUFFICIENT_BALANCE = 5
    CANCELED = 6


class FailureCode(IntEnum):
    """LND's numbers for the BOLT4 failures that the sandbox can show."""

    INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS = 1
    FEE_INSUFFICIENT = 12
    TEMPORARY_CHANNEL_FAILURE = 15
    UNKNOWN_NEXT_PEER = 18
    TEMPORARY_NODE_FAILURE = 19
    PERMANENT_CHANNEL_FAILURE = 21
    MPP_TIMEOUT = 23


class AttemptStatus(IntEnum):
    """LND's numbers."""

    IN_FLIGHT = 0
    SUCCEEDED = 1
    FAILED = 2


class AlreadyExists(Exception):
    """The hash may not be sent again now; the text is LND's."""


class NotInitiated(Exception):
    """LND has no record of the hash."""

    def __init__(self) -> None:
        super().__init__("payment isn't initiated")


class InTransition(Exception):
    """A payment that is out cannot be deleted."""

    def __init__(self) -> None:
        super().__init__("payment is in transition")


@dataclass(frozen=True, slots=True)
class Hop:
    chan_id: int
    pubkey: str  # 66 hex digits
    amt_to_forward_msat: int
    fee_msat: int
    expiry_height: int


@dataclass(frozen=True, slots=True)
class Route:
    total_time_lock_height: int  # when our own outgoing HTLC expires
    total_amt_msat: int
    hops: tuple[Hop, ...]

    @property
    def receiver_amt_msat(self) -> int:
        return self.hops[-1].amt_to_forward_msat

    @property
    def total_fees_msat(self) -> int:
        return self.total_amt_msat - self.receiver_amt_msat


@dataclass(frozen=True, slots=True)
class Failure:
    code: FailureCode
    source_index: int  # 0: ourselves; the number of hops: the payee
    height: int = 0  # block height that the failing node named; 0: none


@dataclass(frozen=True, slots=True)
class Attempt:
    attempt_id: int
    route: Route
    attempt_time_ns: int
    resolve_time_ns: int = 0  # 0: out
    preimage: bytes | None = None
    failure: Failure | None = None

    @property
    def status(self) -> AttemptStatus:
        if self.failure is not None:
            return AttemptStatus.FAILED
        return AttemptStatus.IN_FLIGHT if self.preimage is None else AttemptStatus.SUCCEEDED


@dataclass(frozen=True, slots=True)
class Payment:
    payment_hash: bytes
    value_msat: int
    payment_request: str
    creation_time_ns: int
    payment_index: int
    attempts: tuple[Attempt, ...] = ()
    failure_reason: FailureReason = FailureReason.NONE

    def attempts_in(self, status: AttemptStatus) -> tuple[Attempt, ...]:
        return tuple(attempt for attempt in self.attempts if attempt.status is status)

    @property
    def in_flight(self) -> tuple[Attempt, ...]:
        return self.attempts_in(AttemptStatus.IN_FLIGHT)

    @property
    def settled(self) -> tuple[Attempt, ...]:
        return self.attempts_in(AttemptStatus.SUCCEEDED)

    @property
    def status(self) -> PaymentStatus:
        """lnd: payments/db/payment_status.go, decidePaymentStatus."""
        if self.in_flight:
            return PaymentStatus.IN_FLIGHT
        if self.settled:
            return PaymentStatus.SUCCEEDED
        if self.failure_reason is not FailureReason.NONE:
            return PaymentStatus.FAILED
        return PaymentStatus.IN_FLIGHT if self.attempts else PaymentStatus.INITIATED

    @property
    def is_terminal(self) -> bool:
        return self.status in (PaymentStatus.SUCCEEDED, PaymentStatus.FAILED)

    @property
    def preimage(self) -> bytes:
        """All zeros until a shard is settled; known before the status says so when other shards are still out."""
        return next((attempt.preimage for attempt in self.settled if attempt.preimage is not None), NO_PREIMAGE)

    @property
    def fee_msat(self) -> int:
        """Of the settled shards only."""
        return sum(attempt.route.total_fees_msat for attempt in self.settled)

    @property
    def sent_fee_msat(self) -> int:
        """Of the shards that are out or settled."""
        return sum(attempt.route.total_fees_msat for attempt in (*self.in_flight, *self.settled))

    @property
    def remaining_msat(self) -> int:
        sent = sum(attempt.route.receiver_amt_msat for attempt in (*self.in_flight, *self.settled))
        return self.value_msat - sent


class Step(Enum):
    """What LND's payment loop does next (lnd: routing/payment_lifecycle.go, decideNextStep)."""

    SEND = auto()  # look for a route for what remains
    WAIT = auto()  # for the result of an attempt that is out
    EXIT = auto()


def next_step(payment: Payment) -> Step:
    if payment.is_terminal:
        return Step.EXIT
    is_closing = bool(payment.settled) or payment.failure_reason is not FailureReason.NONE
    return Step.WAIT if payment.remaining_msat == 0 or is_closing else Step.SEND


class PaymentDb:
    """All payments of one node by hash. Every change returns the new state of the payment."""

    def __init__(self) -> None:
        self._payments: dict[bytes, Payment] = {}
        self._last_index = 0
        self._last_attempt_id = 0

    def init(self, payment_hash: bytes, value_msat: int, payment_request: str, now_ns: int) -> Payment:
        """Start a payment, or start a failed one anew. A refusal uses up a payment_index too.

        Raises AlreadyExists while it is out, before its first attempt, and after it succeeded.
        """
        self._last_index += 1
        self._refuse_if_there(payment_hash)
        return self._store(Payment(payment_hash, value_msat, payment_request, now_ns, self._last_index))

    def _refuse_if_there(self, payment_hash: bytes) -> None:
        refusals = {
            PaymentStatus.INITIATED: "payment already exists",
            PaymentStatus.IN_FLIGHT: "payment is in transition",
            PaymentStatus.SUCCEEDED: "invoice is already paid",
        }
        present = self._payments.get(payment_hash)
        if present is not None and present.status in refusals:
            raise AlreadyExists(refusals[present.status])

    def fetch(self, payment_hash: bytes) -> Payment:
        """Raises NotInitiated."""
        if payment_hash not in self._payments:
            raise NotInitiated
        return self._payments[payment_hash]

    def all(self) -> list[Payment]:
        """In the order of payment_index."""
        return sorted(self._payments.values(), key=lambda payment: payment.payment_index)

    def register(self, payment_hash: bytes, route: Route, now_ns: int) -> tuple[Payment, Attempt]:
        self._last_attempt_id += 1
        attempt = Attempt(self._last_attempt_id, route, now_ns)
        payment = self.fetch(payment_hash)
        return self._store(replace(payment, attempts=(*payment.attempts, attempt))), attempt

    def settle_attempt(self, payment_hash: bytes, attempt_id: int, preimage: bytes, now_ns: int) -> Payment:
        attempt = self._attempt(payment_hash, attempt_id)
        return self._replace_attempt(payment_hash, replace(attempt, preimage=preimage, resolve_time_ns=now_ns))

    def fail_attempt(self, payment_hash: bytes, attempt_id: int, failure: Failure, now_ns: int) -> Payment:
        attempt = self._attempt(payment_hash, attempt_id)
        return self._replace_attempt(payment_hash, replace(attempt, failure=failure, resolve_time_ns=now_ns))

    def fail_payment(self, payment_hash: bytes, reason: FailureReason) -> Payment:
        """Store a reason, over any other and whatever the status is, as LND does (issue #8884)."""
        return self._store(replace(self.fetch(payment_hash), failure_reason=reason))

    def delete_failed_attempts(self, payment_hash: bytes) -> Payment:
        """What LND does when a payment has ended, unless it keeps failed attempts."""
        payment = self.fetch(payment_hash)
        kept = tuple(attempt for attempt in payment.attempts if attempt.status is not AttemptStatus.FAILED)
        return self._store(replace(payment, attempts=kept))

    def delete(self, payment_hash: bytes) -> None:
        """Forget a payment, and with it the guard against paying twice. Raises NotInitiated, InTransition."""
        if self.fetch(payment_hash).status is PaymentStatus.IN_FLIGHT:
            raise InTransition
        del self._payments[payment_hash]

    def lose_indexes(self) -> None:
        """What a kill does to payment_index."""
        self._last_index += INDEXES_LOST_BY_A_KILL

    def _attempt(self, payment_hash: bytes, attempt_id: int) -> Attempt:
        return next(a for a in self.fetch(payment_hash).attempts if a.attempt_id == attempt_id)

    def _replace_attempt(self, payment_hash: bytes, changed: Attempt) -> Payment:
        payment = self.fetch(payment_hash)
        attempts = tuple(changed if a.attempt_id == changed.attempt_id else a for a in payment.attempts)
        return self._store(replace(payment, attempts=attempts))

    def _store(self, payment: Payment) -> Payment:
        self._payments[payment.payment_hash] = payment
        return payment


class SqlitePaymentDb(PaymentDb):
    """Payments in tables of their own of SQLite (lnd: db.backend=sqlite, db.use-native-sql, since 0.21)."""

    def init(self, payment_hash: bytes, value_msat: int, payment_request: str, now_ns: int) -> Payment:
        """The number is the next one after the highest that is left when the failed try is gone. A refusal uses up
        none."""
        try:
            self._refuse_if_there(payment_hash)
        except AlreadyExists as error:
            raise AlreadyExists(f"failed to initialize payment: payment is not initializable: {error}") from None
        self._payments.pop(payment_hash, None)
        index = 1 + max((payment.payment_index for payment in self._payments.values()), default=0)
        return self._store(Payment(payment_hash, value_msat, payment_request, now_ns, index))

    def lose_indexes(self) -> None:
        """A kill does not touch them."""
