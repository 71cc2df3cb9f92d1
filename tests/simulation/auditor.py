"""An independent judge with a model of its own: it sees what the parties really did and what the daemon wrote down.

It shares no code with ``holdpay.core``: it reads plain fields and keeps its own books.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdpay.core.events import Event, ProviderReplied
from holdpay.core.lightning import FailureReason, PaymentStatus
from holdpay.core.model import Order

if TYPE_CHECKING:
    from tests.simulation.parties import Truth

OPEN_WORDS = {"dispatching", "unknown", "in_flight"}


class Violation(AssertionError):
    """A law was broken."""


@dataclass(slots=True)
class Book:
    """What the auditor knows of one order from the daemon's own journal."""

    sends: int = 0
    """Intents to send that are on disk."""
    calls: int = 0
    """SendPaymentV2 calls that were made."""
    has_reached_payee: bool = False
    has_unpaid_word_since_send: bool = False
    code_seen: str | None = None
    closed: Order | None = None
    hashes: set[str] = field(default_factory=set)
    """Every hold invoice that was ever paid for this request, whatever the order says of it now."""


@dataclass(slots=True)
class Auditor:
    """``truths`` by payment hash: what really happened to the money."""

    truths: dict[str, Truth]
    books: dict[str, Book] = field(default_factory=dict)
    by_hash: dict[str, Book] = field(default_factory=dict)

    def committed(self, before: Order, event: Event, after: Order) -> None:
        """Called for each journal row."""
        book = self.books.setdefault(after.id, Book())
        if after.payment is not None:
            self.by_hash[after.payment.payment_hash] = book
        self._not_after_the_end(book, event)
        name = type(event).__name__
        if name == "OrderQuarantined":
            raise Violation(f"order {after.id}: the daemon contradicted itself: {after.quarantine_reason}")
        if name == "DispatchIntended":
            self._dispatch(book, after)
        self._learn(book, event)
        self._words_fit_the_truth(after)
        if after.closed_at_ms is not None:
            self._closing(book, after)
        if book.code_seen is not None and after.code != book.code_seen:
            raise Violation(f"order {after.id}: the code {book.code_seen} was received and forgotten")
        if before.payment and after.payment and before.payment.htlc == "settled" != after.payment.htlc:
            raise Violation(f"order {after.id}: settled was taken back")

    def sent(self, payment_hash: str) -> None:
        """Called for each SendPaymentV2, right before it is made."""
        book = self.by_hash.get(payment_hash, Book())
        book.calls += 1
        if book.calls > book.sends:
            raise Violation(f"payment {payment_hash[:8]}… was sent, and no intent of that is on disk")
        truth = self.truths[payment_hash]
        if truth.htlc in {"out", "held", "settled"} or truth.sends_on_the_way:
            raise Violation(
                f"payment {payment_hash[:8]}… was sent while its HTLC is {truth.htlc}"
                f" ({truth.sends_on_the_way} sends on the way)"
            )

    def _not_after_the_end(self, book: Book, event: Event) -> None:
        if book.closed is not None:
            raise Violation(f"order {book.closed.id} was closed and got {type(event).__name__}")

    def _dispatch(self, book: Book, order: Order) -> None:
        if order.cancel_wanted_at_ms is not None:
            raise Violation(f"order {order.id} was dispatched after its client had canceled it")
        assert order.payment is not None
        for other in book.hashes - {order.payment.payment_hash}:
            if self._is_live(other):
                raise Violation(
                    f"order {order.id} has a second live payment; {other[:8]}… is {self.truths[other].htlc}"
                )
        book.hashes.add(order.payment.payment_hash)
        if book.has_reached_payee:
            raise Violation(f"order {order.id} was dispatched again after it had reached the payee")
        if book.sends and not book.has_unpaid_word_since_send:
            raise Violation(f"order {order.id} was dispatched again before the provider said that it is unpaid")
        book.sends += 1
        book.has_unpaid_word_since_send = False

    def _is_live(self, payment_hash: str) -> bool:
        truth = self.truths[payment_hash]
        return truth.htlc in {"out", "held", "settled"} or truth.sends_on_the_way > 0

    def _learn(self, book: Book, event: Event) -> None:
        if isinstance(event, ProviderReplied):
            status = event.status
            if status.is_paid:
                book.has_reached_payee = True
            elif status.error is None:
                book.has_unpaid_word_since_send = True
            if status.code is not None and book.code_seen is None:
                book.code_seen = status.code
        update = getattr(event, "update", None)
        if update is not None and update.status is PaymentStatus.FAILED:
            is_back_from_payee = update.failure_reason is FailureReason.INCORRECT_PAYMENT_DETAILS
            is_on_chain = any(attempt.failure_code == 21 for attempt in update.attempts)
            if is_back_from_payee or is_on_chain:
                book.has_reached_payee = True

    def _words_fit_the_truth(self, order: Order) -> None:
        payment = order.payment
        if payment is None:
            return
        truth = self.truths[payment.payment_hash]
        if payment.htlc == "settled":
            if payment.preimage != truth.preimage:
                raise Violation(f"order {order.id} is settled with a preimage that does not fit")
            if truth.htlc != "settled":
                raise Violation(f"order {order.id} is called settled, and its HTLC is {truth.htlc}")
            if order.spent_msat != payment.amount_msat + payment.fee_msat:
                raise Violation(f"order {order.id} books {order.spent_msat} msat of what was spent for it")
            if order.spent_msat > payment.amount_msat + order.max_fee_sat * 1000:
                raise Violation(f"order {order.id} spent {order.spent_msat} msat, more than its budget")
        if payment.htlc in {"none", "failed"} and (truth.htlc in {"out", "held"} or truth.sends_on_the_way):
            raise Violation(
                f"order {order.id} is {payment.htlc}, and its HTLC is {truth.htlc}"
                f" ({truth.sends_on_the_way} sends on the way)"
            )

    def _closing(self, book: Book, order: Order) -> None:
        book.closed = order
        if order.payment is not None and order.payment.htlc in OPEN_WORDS:
            raise Violation(f"order {order.id} was closed while money may be out")
        if order.payment is None:
            return
        truth = self.truths[order.payment.payment_hash]
        if truth.htlc in {"out", "held"} or truth.sends_on_the_way:
            raise Violation(f"order {order.id} was closed with money out: its HTLC is {truth.htlc}")

    def at_the_end(self, orders: dict[str, Order], codes: dict[str, str]) -> None:
        """Once faults have stopped: everything has ended, and ended truly. ``codes``: by payment hash."""
        for order in orders.values():
            if order.closed_at_ms is None:
                raise Violation(f"order {order.id} never ended: {order.state.value}, {order.htlc.value}")
            if order.payment is None:
                continue
            truth = self.truths[order.payment.payment_hash]
            if truth.htlc in {"out", "held"}:
                raise Violation(f"order {order.id} is closed, and its HTLC is {truth.htlc}")
            if truth.settle_count > 1:
                raise Violation(f"order {order.id} was settled {truth.settle_count} times")
            if truth.htlc == "settled":
                self._charged(order, codes.get(order.payment.payment_hash))
        owners = [order.payment.payment_hash for order in orders.values() if order.payment]
        for payment_hash in self.truths:
            if payment_hash not in owners and self._is_live(payment_hash):
                raise Violation(f"payment {payment_hash[:8]}… is {self.truths[payment_hash].htlc}, and no order has it")
        if len(owners) != len(set(owners)):
            raise Violation("two orders have the same payment hash")

    def _charged(self, order: Order, code: str | None) -> None:
        is_lost = self.truths[order.payment.payment_hash].is_record_lost if order.payment else False
        if order.htlc != "settled" and not (is_lost and order.htlc == "gone"):
            raise Violation(f"order {order.id} was charged and says {order.htlc}")
        if not order.spent_msat:
            raise Violation(f"order {order.id} was charged and counts nothing as spent")
        if code is not None and order.code != code:
            raise Violation(f"order {order.id} was charged, and its code {code} is lost")
