"""An independent judge with a model of its own: it sees what the parties really did and what the daemon wrote down.

It shares no code with ``holdpay.core``: it reads plain fields and keeps its own books.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdpay.core.events import CancelAnswered, Event, ProviderReplied, ProviderStatus, Resolved, SendStatus
from holdpay.core.lightning import FailureReason, PaymentStatus
from holdpay.core.model import Order

if TYPE_CHECKING:
    from tests.simulation.parties import Truth
    from tests.simulation.provider import Message, Sale, SimProvider, Spend

OPEN_WORDS = {"dispatching", "unknown", "in_flight"}
PERHAPS = {"intended", "unknown"}
SENT = {"sent", "delivered"}
SEEN_WITHIN_MS = 3 * 3_600_000
"""A message that is told for so long while nothing fails is asked for: see ``SimDaemon`` for how often it asks."""


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
    charge_intents: int = 0
    """Intents to spend from the account that are on disk."""
    placings: int = 0
    """Placings from the account that were made."""
    is_over: bool = False
    """The provider said so before it had delivered: what it took it gives back."""
    was_sent: bool = False
    """The provider called the SMS or e-mail sent."""
    told: Counter[str] = field(default_factory=Counter)
    """Messages to the rented number, each as often as the reply has it that has it most often."""
    has_unread: bool = False
    is_resolved: bool = False
    """An operator had a word in it."""


def _word(order: Order) -> str | None:
    """What follows it, by the word on disk."""
    return None if order.succession is None else order.succession.value


def has_place(order: Order) -> bool:
    """By the words on disk: a hold of it is out, or may come to be."""
    if order.closed_at_ms is not None or order.request.is_prepaid or order.waiting_since_ms is not None:
        return False
    word = "none" if order.payment is None else order.payment.htlc.value
    if word in OPEN_WORDS:
        return True
    is_given_up = order.giving_up is not None or order.cancel_wanted_at_ms is not None
    may_come = word in {"none", "failed"} and order.state.value in {"requested", "awaiting_payment"}
    return may_come and not is_given_up and order.quarantined_at_ms is None


@dataclass(slots=True)
class Auditor:
    """``truths`` by payment hash: what really happened to the money. ``clock_off_ms``: the most that the daemon's clock
    may be off."""

    truths: dict[str, Truth]
    provider: SimProvider
    now_ms: Callable[[], int]
    clock_off_ms: int = 0
    max_holds: int | None = None
    """That may be out at once. None: any number."""
    max_places: int | None = None
    """Orders that may have a place at once. None: any number."""
    calm_since_ms: int | None = None
    """Since when nothing fails any more."""
    books: dict[str, Book] = field(default_factory=dict)
    by_hash: dict[str, Book] = field(default_factory=dict)
    unwanted: set[str] = field(default_factory=set)
    """Requests that their client has canceled."""

    def committed(self, before: Order, event: Event, after: Order) -> None:
        """Called for each journal row."""
        book = self.books.setdefault(after.id, Book())
        if after.payment is not None and after.request.is_prepaid:
            raise Violation(f"order {after.id} is paid from the account, and has a payment besides")
        if after.payment is not None:
            self.by_hash[after.payment.payment_hash] = book
        self._not_after_the_end(book, event)
        name = type(event).__name__
        if name == "OrderQuarantined":
            raise Violation(f"order {after.id}: the daemon contradicted itself: {after.quarantine_reason}")
        if name == "DispatchIntended":
            self._dispatch(book, after)
        if name == "ChargeIntended":
            self._charge(book, after)
        if name == "PaymentNotFound":
            self._not_found(after)
        self._learn(book, event, before)
        self._words_fit_the_truth(after)
        self._absence_is_true(before, after)
        self._charge_fits_the_truth(book, after)
        self._delivered_is_true(book, after)
        self._messages_are_kept(book, after)
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

    def placing_for_a_hold(self, order: Order) -> None:
        """Called right before an order is placed that a hold invoice pays. ``order``: as it is on disk."""
        if order.waiting_since_ms is not None:
            raise Violation(f"order {order.id} was placed, and on disk it waits for a place among the holds")

    def holds(self, orders: Iterable[Order]) -> None:
        """Called whenever something was written: at no instant more are out, or may come to be, than is allowed."""
        out = [of for of, truth in self.truths.items() if truth.htlc in {"out", "held"} or truth.sends_on_the_way]
        if self.max_holds is not None and len(out) > self.max_holds:
            raise Violation(f"{len(out)} holds are out, and {self.max_holds} are allowed")
        having = [order.id for order in orders if has_place(order)]
        if self.max_places is not None and len(having) > self.max_places:
            raise Violation(f"{', '.join(having)} have a place, and {self.max_places} may have one")

    def place_given(self, given: Order, orders: Iterable[Order]) -> None:
        """Called when an order has left the queue: nobody may have waited longer."""
        for other in orders:
            waits = other.waiting_since_ms is not None and not other.closed_at_ms and not other.quarantined_at_ms
            if waits and (other.created_at_ms, other.id) < (given.created_at_ms, given.id):
                raise Violation(f"order {given.id} overtook {other.id} in the queue")

    def _not_after_the_end(self, book: Book, event: Event) -> None:
        if book.closed is not None and _word(book.closed) != "going_on":
            raise Violation(f"order {book.closed.id} was closed and got {type(event).__name__}")

    # --- requests that go on ------------------------------------------------------------------------------------------

    def wished(self, request_id: str) -> None:
        """A client was told that its request is being canceled, or over."""
        self.unwanted.add(request_id)

    def next_made(self, after: Order, orders: Iterable[Order]) -> None:
        """Called right before the next order of a request is recorded. ``orders``: all that are on disk, in which the
        one before it is still as it was."""
        request = after.request
        if request.id in self.unwanted:
            raise Violation(f"order {after.id} was made after its client had canceled the request")
        spent_msat = 0
        for before in (order for order in orders if order.request.id == request.id):
            book = self.books.get(before.id, Book())
            if before.id == after.id or before.closed_at_ms is None:
                raise Violation(f"order {after.id} was made beside {before.id}, which is live")
            for payment_hash in book.hashes:
                if self._is_live(payment_hash):
                    raise Violation(f"order {after.id} was made while {before.id} is {self.truths[payment_hash].htlc}")
            if book.code_seen is not None or before.code is not None:
                raise Violation(f"order {after.id} was made although {before.id} brought a code")
            if book.is_resolved:
                raise Violation(f"order {after.id} was made after an operator had ended {before.id}")
            spent_msat += before.spent_msat
        if request.strategy is None or after.nth > request.strategy.attempts:
            raise Violation(f"order {after.id} is one more than its request may make")
        most_sat = request.strategy.max_total_sat
        if most_sat is not None and spent_msat + after.reserved_msat > most_sat * 1000:
            raise Violation(f"order {after.id} may cost more than is left of its request's {most_sat} sat")

    def _goes_on(self, order: Order) -> None:
        """What came back from the payee, and nobody ends, goes on as long as its strategy has room."""
        strategy, failure = order.request.strategy, None if order.payment is None else order.payment.failure
        if strategy is None or failure is None or order.end is None or order.end.value != "refunded":
            return
        is_back = failure.reason is FailureReason.INCORRECT_PAYMENT_DETAILS
        has_room = order.nth < strategy.attempts and strategy.within_s is None
        is_wished = order.cancel_wanted_at_ms is not None and order.moved_on is None
        is_ended = is_wished or order.quarantined_at_ms is not None or order.code is not None
        if is_back and has_room and not is_ended and _word(order) is None:
            raise Violation(f"order {order.id} came back, and its request does not go on")

    def placing(self, order: Order) -> None:
        """Called right before an order is placed that the account pays."""
        book = self.books.setdefault(order.id, Book())
        book.placings += 1
        if book.placings > book.charge_intents:
            raise Violation(f"order {order.id} was placed from the account, and no intent of that is on disk")
        for spend in self._spends(order):
            if spend.state in {"taken", "on the way"}:
                raise Violation(f"order {order.id} was placed again, and the money for it is {spend.state}")

    def _spends(self, order: Order) -> list[Spend]:
        return self.provider.spends.get(order.id, [])

    def _charge(self, book: Book, order: Order) -> None:
        if order.cancel_wanted_at_ms is not None:
            raise Violation(f"order {order.id} was placed after its client had canceled it")
        book.charge_intents += 1

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

    def _not_found(self, order: Order) -> None:
        assert order.payment is not None
        if not self.truths[order.payment.payment_hash].is_called_unknown:
            raise Violation(f"order {order.id}: its payment is written down as not found, and lnd never said that")

    def _is_live(self, payment_hash: str) -> bool:
        truth = self.truths[payment_hash]
        return truth.htlc in {"out", "held", "settled"} or truth.sends_on_the_way > 0

    def _learn(self, book: Book, event: Event, before: Order) -> None:
        is_delivered = before.state.value == "delivered"
        if isinstance(event, Resolved):
            book.is_resolved = True
        if isinstance(event, CancelAnswered) and event.accepted:
            book.is_over = True
        if isinstance(event, ProviderReplied):
            status = event.status
            self._learn_of_things(book, status, is_delivered=is_delivered)
            if status.is_paid:
                book.has_reached_payee = True
            elif status.error is None:
                book.has_unpaid_word_since_send = True
            if before.spec.kind.value == "code" and status.code is not None and book.code_seen is None:
                book.code_seen = status.code
        update = getattr(event, "update", None)
        if update is not None and update.status is PaymentStatus.FAILED:
            is_back_from_payee = update.failure_reason is FailureReason.INCORRECT_PAYMENT_DETAILS
            is_on_chain = any(attempt.failure_code == 21 for attempt in update.attempts)
            if is_back_from_payee or is_on_chain:
                book.has_reached_payee = True

    def _learn_of_things(self, book: Book, status: ProviderStatus, *, is_delivered: bool) -> None:
        book.was_sent |= status.send_status is not None and status.send_status.value in SENT
        has_failed = status.send_status is not None and status.send_status.value == "failed"
        has_thing = status.code is not None or bool(status.messages) or book.was_sent
        book.is_over |= (status.error is not None or has_failed) and not (is_delivered or has_thing)
        book.has_unread |= status.unread is not None
        said = Counter(status.messages)
        if status.code is not None:
            said[status.code] += 1
        book.told |= said

    def _delivered_is_true(self, book: Book, order: Order) -> None:
        if order.state.value != "delivered" or book.is_resolved:
            return
        kind = order.spec.kind.value
        if kind in {"sms", "email"} and not book.was_sent:
            raise Violation(f"order {order.id} is called delivered, and the provider never said that it was sent")
        is_charged = order.htlc.value == "settled" or (
            order.charge is not None and order.charge.state.value == "charged"
        )
        if kind == "fund" and not is_charged:
            raise Violation(f"order {order.id} is called delivered, and nothing was put into the account")

    def _messages_are_kept(self, book: Book, order: Order) -> None:
        """Exactly what was told: none lost, none twice."""
        if order.spec.kind.value != "rental":
            return
        kept = Counter(item.text for item in order.items if item.kind.value == "message")
        if kept != book.told:
            raise Violation(f"order {order.id}: the messages {dict(book.told)} were told, and {dict(kept)} are kept")
        if book.has_unread and not any(item.kind.value == "unread" for item in order.items):
            raise Violation(f"order {order.id}: a message that cannot be read was told, and is not kept")

    def _charge_fits_the_truth(self, book: Book, order: Order) -> None:
        if not order.request.is_prepaid:
            return
        spends = self._spends(order)
        taken_sat = sum(spend.price_sat for spend in spends if spend.state in {"taken", "on the way"})
        word = None if order.charge is None else order.charge.state.value
        if order.reserved_msat < taken_sat * 1000 and not book.is_over:
            raise Violation(
                f"order {order.id} counts {order.reserved_msat} msat, and {taken_sat} sat were taken for it"
            )
        if book.is_resolved:
            return
        if word == "charged" and (not spends or spends[-1].state not in {"taken", "returned"}):
            raise Violation(f"order {order.id} is called charged, and the provider took nothing")
        if word == "returned" and not book.is_over:
            raise Violation(f"order {order.id} is called returned, and the provider never said that it is over")
        if word == "charged" and book.is_over:
            raise Violation(f"order {order.id} is called charged, and the provider said that it is over")

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

    def _absence_is_true(self, before: Order, after: Order) -> None:
        """A dispatch of which nothing is left but what was known before it: it is called never arrived."""
        was, now = before.payment, after.payment
        if was is None or now is None or was.htlc not in OPEN_WORDS or now.htlc not in {"none", "failed"}:
            return
        if now.failure == was.failure and self.truths[now.payment_hash].times_out >= now.dispatch_count:
            raise Violation(f"order {after.id}: dispatch {now.dispatch_count} is called never arrived, and lnd took it")

    def _closing(self, book: Book, order: Order) -> None:
        if book.closed is None:
            self._goes_on(order)
        book.closed = order
        if order.payment is not None and order.payment.htlc in OPEN_WORDS:
            raise Violation(f"order {order.id} was closed while money may be out")
        if order.charge is not None and order.charge.state.value in PERHAPS and not book.is_resolved:
            raise Violation(f"order {order.id} was closed, and nobody knows whether the account was charged")
        self._not_before_its_end(book, order)
        if order.payment is None:
            return
        truth = self.truths[order.payment.payment_hash]
        if truth.htlc in {"out", "held"} or truth.sends_on_the_way:
            raise Violation(f"order {order.id} was closed with money out: its HTLC is {truth.htlc}")

    def _sale(self, order: Order) -> Sale | None:
        return None if order.provider_order_id is None else self.provider.sales.get(order.provider_order_id)

    def _not_before_its_end(self, book: Book, order: Order) -> None:
        """A rental that is paid for stays open until the number is given up."""
        sale = self._sale(order)
        if sale is None or sale.rental_ends_at_ms is None or not sale.is_charged or book.is_resolved:
            return
        if order.htlc.value == "gone" or book.is_over:
            return
        if self.now_ms() < sale.rental_ends_at_ms - self.clock_off_ms:
            raise Violation(f"order {order.id} was closed before its rental had ended")

    def at_the_end(self, orders: dict[str, Order]) -> None:
        """Once faults have stopped: everything has ended, and ended truly."""
        for order in orders.values():
            if order.closed_at_ms is None or _word(order) == "going_on":
                raise Violation(f"order {order.id} never ended: {order.state.value}, {order.htlc.value}")
            self._all_is_told(order)
            self._account_is_counted(order)
            if order.payment is None:
                continue
            truth = self.truths[order.payment.payment_hash]
            if truth.htlc in {"out", "held"}:
                raise Violation(f"order {order.id} is closed, and its HTLC is {truth.htlc}")
            if truth.settle_count > 1:
                raise Violation(f"order {order.id} was settled {truth.settle_count} times")
            if truth.htlc == "settled":
                self._charged(order)
        owners = [order.payment.payment_hash for order in orders.values() if order.payment]
        for payment_hash in self.truths:
            if payment_hash not in owners and self._is_live(payment_hash):
                raise Violation(f"payment {payment_hash[:8]}… is {self.truths[payment_hash].htlc}, and no order has it")
        if len(owners) != len(set(owners)):
            raise Violation("two orders have the same payment hash")

    def _account_is_counted(self, order: Order) -> None:
        """What the limits count for ever is what the provider kept."""
        if not order.request.is_prepaid or self.books[order.id].is_resolved or self._is_misled(order):
            return
        kept_sat = sum(spend.price_sat for spend in self._spends(order) if spend.state == "taken")
        if order.spent_msat != kept_sat * 1000:
            raise Violation(
                f"order {order.id} counts {order.spent_msat} msat as spent, and the provider kept {kept_sat} sat"
            )

    def _is_misled(self, order: Order) -> bool:
        """It was sent, and failed on the way, between two questions. "failed" is all that was ever told of it, which
        means that the price comes back (the provider's page): nobody could know that it does not."""
        sale = self._sale(order)
        told = {item.text for item in order.items if item.kind.value == "sending"}
        return sale is not None and sale.was_sent and SendStatus.FAILED in told and told <= {"created", "failed"}

    def _all_is_told(self, order: Order) -> None:
        """Of a rental each message that could be asked for is kept, exactly once."""
        sale, book = self._sale(order), self.books.get(order.id, Book())
        if sale is None or sale.rental_ends_at_ms is None or book.is_resolved:
            return
        if not sale.is_charged or order.htlc.value == "gone":
            return
        until_ms = sale.rental_ends_at_ms - self.clock_off_ms
        due = Counter(m.text for m in sale.messages if not m.is_garbled and self._could_be_asked_for(sale, m, until_ms))
        kept = Counter(item.text for item in order.items if item.kind.value == "message")
        if due - kept:
            raise Violation(f"order {order.id}: the messages {dict(due - kept)} came to its number and were not told")

    def _could_be_asked_for(self, sale: Sale, message: Message, until_ms: int) -> bool:
        gone_ms = min(until_ms, message.until_ms or until_ms)
        from_ms = max(message.at_ms, self.calm_since_ms or gone_ms)
        return gone_ms - from_ms > SEEN_WITHIN_MS or (sale.is_list and message.at_ms < until_ms)

    def _charged(self, order: Order) -> None:
        is_lost = self.truths[order.payment.payment_hash].is_record_lost if order.payment else False
        if order.htlc != "settled" and not (is_lost and order.htlc == "gone"):
            raise Violation(f"order {order.id} was charged and says {order.htlc}")
        if not order.spent_msat:
            raise Violation(f"order {order.id} was charged and counts nothing as spent")
        sale = self._sale(order)
        code = None if sale is None or sale.kind != "code" else sale.code
        if code is not None and order.code != code:
            raise Violation(f"order {order.id} was charged, and its code {code} is lost")
