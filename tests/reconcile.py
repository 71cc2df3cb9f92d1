"""Three books about the same money, compared: the daemon's journal, lnd's payments, the provider's orders.

The laws are written here once more, in plain words of their own: nothing of ``holdpay.core`` is used. Two kinds of
them. Those of every moment hold whenever the daemon is dead, also right after a SIGKILL; those of the end hold once
all orders have ended. ``tests.books`` says what is in the books, ``tests.ledgers`` reads them.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from tests.books import Books, Goods, JournalOrder

MONEY_OUT = frozenset({"dispatching", "unknown", "in_flight"})
"""The journal's words for an HTLC that may be out."""
CHARGED_ENDS = frozenset({"fulfilled", "charged_unfulfilled"})


class Law(StrEnum):
    """What can be broken."""

    JOURNAL_TORN = "the journal's last row and the tables disagree, or rows are missing"
    JOURNAL_GOES_ON = "the journal goes on after the order was closed"
    CODE_FORGOTTEN = "a code that the journal had once is gone"
    SENT_AFTER_PAID = "the payment was sent again after the provider had called it paid"
    PAYMENT_UNKNOWN = "lnd has a payment to the payee that the journal does not know"
    SENT_WITHOUT_INTENT = "lnd has a payment that the journal never meant to send"
    TWO_PAYMENTS = "one request has more than one payment"
    SETTLED_TWICE = "more was settled for a payment hash than its one payment"
    CLOSED_WITH_MONEY_OUT = "the order is closed and its money is out"
    BELIEVED_BACK = "the journal says that no money is out, and lnd has not failed the payment"
    CHARGE_NOT_BOOKED = "lnd settled the payment and the closed order does not say so"
    BOOKED_NOT_CHARGED = "the journal says settled and lnd does not"
    CODE_LOST = "it was charged, the provider has its code, and the closed order has none"
    CODE_WRONG = "the order's code is not the provider's"
    PREIMAGE_WRONG = "the stored preimage does not fit the payment hash"
    SUM_DIFFERS = "the sums of the books differ"
    OVER_BUDGET = "more was spent than the request allowed"
    ORPHAN_PAID = "a provider order that the journal does not know was paid"
    NEVER_ENDED = "the order never ended"
    MONEY_STILL_OUT = "all is over and money is still out"


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One broken law. ``subject`` is an order id or a payment hash, or says which sum."""

    law: Law
    subject: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.subject}: {self.law.value}" + (f" ({self.detail})" if self.detail else "")


def reconcile(books: Books, *, is_over: bool) -> list[Discrepancy]:
    """All that does not fit. ``is_over``: every order is said to have ended and nothing is on its way any more."""
    laws = [*LAWS_OF_EVERY_MOMENT, *(LAWS_OF_THE_END if is_over else ())]
    return [found for law in laws for found in law(books)]


# --- the journal by itself ------------------------------------------------------------------------------------------


def _the_journal_is_whole(books: Books) -> Iterator[Discrepancy]:
    for order in books.journal:
        if not order.rows or order.rows[0].event != "order_requested":
            yield Discrepancy(Law.JOURNAL_TORN, order.id, "it does not begin with the request")
            continue
        last = order.rows[-1]
        if (last.state, last.htlc, last.code, last.end) != (order.state, order.htlc, order.code, order.end):
            yield Discrepancy(Law.JOURNAL_TORN, order.id, f"the last row has {last.state} × {last.htlc}")
        if any(row.end is not None for row in order.rows[:-1]):
            yield Discrepancy(Law.JOURNAL_GOES_ON, order.id)


def _a_code_is_never_forgotten(books: Books) -> Iterator[Discrepancy]:
    for order in books.journal:
        codes = [row.code for row in order.rows]
        first = next((code for code in codes if code is not None), None)
        if first is not None and any(code != first for code in codes[codes.index(first) :]):
            yield Discrepancy(Law.CODE_FORGOTTEN, order.id)


def _nothing_is_sent_once_it_was_paid(books: Books) -> Iterator[Discrepancy]:
    for order in books.journal:
        events = [("dispatch_intended" if row.event == "dispatch_intended" else row.says_paid) for row in order.rows]
        if True in events and "dispatch_intended" in events[events.index(True) :]:
            yield Discrepancy(Law.SENT_AFTER_PAID, order.id)


# --- the journal against lnd ----------------------------------------------------------------------------------------


def _lnd_pays_only_what_the_journal_meant(books: Books) -> Iterator[Discrepancy]:
    known = books.by_hash
    for payment_hash in books.sent:
        if payment_hash not in known:
            yield Discrepancy(Law.PAYMENT_UNKNOWN, payment_hash)
        elif known[payment_hash][1].dispatch_count == 0:
            yield Discrepancy(Law.SENT_WITHOUT_INTENT, known[payment_hash][0].id)


def _a_hash_is_settled_once(books: Books) -> Iterator[Discrepancy]:
    for payment in books.lnd:
        settled_msat = sum(payment.settled_htlcs_msat)
        # lnd books an HTLC and its fee a moment after it is settled.
        is_booked = payment.status == "SUCCEEDED"
        once_msat = payment.value_msat + payment.fee_msat if is_booked else 2 * payment.value_msat - 1
        if settled_msat > once_msat:
            yield Discrepancy(Law.SETTLED_TWICE, payment.payment_hash, f"{payment.settled_htlcs_msat} msat")


def _a_closed_order_has_no_money_out(books: Books) -> Iterator[Discrepancy]:
    accepted = {order.payment_hash for order in books.provider if order.invoice == "accepted"}
    out = {payment.payment_hash for payment in books.lnd if payment.status == "IN_FLIGHT"}
    for payment_hash, (order, payment) in books.by_hash.items():
        is_out = payment_hash in accepted | out or payment.htlc in MONEY_OUT
        if order.end is not None and is_out:
            yield Discrepancy(Law.CLOSED_WITH_MONEY_OUT, order.id, order.end)


def _money_is_back_when_lnd_says_so(books: Books) -> Iterator[Discrepancy]:
    sent = books.sent
    for payment_hash, (order, payment) in books.by_hash.items():
        is_back = payment.dispatch_count > 0 and payment.htlc in {"none", "failed"}
        if order.end is None and is_back and payment_hash in sent and sent[payment_hash].status != "FAILED":
            yield Discrepancy(Law.BELIEVED_BACK, order.id, f"{payment.htlc}, {sent[payment_hash].status}")


def _what_was_charged_is_booked(books: Books) -> Iterator[Discrepancy]:
    sent = books.sent
    for payment_hash, (order, payment) in books.by_hash.items():
        is_charged = payment_hash in sent and sent[payment_hash].status == "SUCCEEDED"
        if is_charged and order.end is not None and (order.end not in CHARGED_ENDS or payment.htlc != "settled"):
            yield Discrepancy(Law.CHARGE_NOT_BOOKED, order.id, f"{order.end}, {payment.htlc}")
        if not is_charged and (payment.htlc == "settled" or order.end in CHARGED_ENDS):
            yield Discrepancy(Law.BOOKED_NOT_CHARGED, order.id, f"{order.end}, {payment.htlc}")


def _the_proof_is_kept(books: Books) -> Iterator[Discrepancy]:
    for payment_hash, (order, payment) in books.by_hash.items():
        if payment.htlc == "settled" and _hash_of(payment.preimage or "") != payment_hash:
            yield Discrepancy(Law.PREIMAGE_WRONG, order.id)


def _hash_of(preimage: str) -> str:
    return hashlib.sha256(bytes.fromhex(preimage)).hexdigest()


def _a_payment_costs_the_same_in_both(books: Books) -> Iterator[Discrepancy]:
    sent = books.sent
    for payment_hash, (order, payment) in books.by_hash.items():
        if payment.htlc != "settled" or payment_hash not in sent:
            continue
        ours, theirs = (payment.amount_msat, payment.fee_msat), sent[payment_hash]
        if ours != (theirs.value_msat, theirs.fee_msat):
            yield Discrepancy(Law.SUM_DIFFERS, order.id, f"{ours} and {theirs.value_msat, theirs.fee_msat} msat")
        if ours[0] > order.max_price_sat * 1000 or ours[1] > order.max_fee_sat * 1000:
            yield Discrepancy(Law.OVER_BUDGET, order.id, f"{ours} msat of {order.max_price_sat, order.max_fee_sat} sat")


# --- the journal against the provider -------------------------------------------------------------------------------


def _one_request_is_paid_once(books: Books) -> Iterator[Discrepancy]:
    requests: defaultdict[Goods, int] = defaultdict(int)
    hashes: defaultdict[Goods, set[str]] = defaultdict(set)
    sent = books.sent
    for order in books.journal:
        requests[order.goods] += 1
        if order.payment is not None and order.payment.payment_hash in sent:
            hashes[order.goods].add(order.payment.payment_hash)
    for at_provider in books.provider:
        if at_provider.is_paid or at_provider.payment_hash in sent:
            hashes[at_provider.goods].add(at_provider.payment_hash)
    for goods, found in hashes.items():
        if len(found) > requests[goods]:
            yield Discrepancy(Law.TWO_PAYMENTS, " × ".join(goods), ", ".join(sorted(found)))


def _a_code_that_was_charged_arrives(books: Books) -> Iterator[Discrepancy]:
    known = books.by_hash
    for at_provider in books.provider:
        if not at_provider.code or at_provider.payment_hash not in known:
            continue
        order, _ = known[at_provider.payment_hash]
        if order.code is None:
            if order.end is not None and at_provider.invoice == "settled":
                yield Discrepancy(Law.CODE_LOST, order.id, order.end)
        elif not _is_same_code(order, at_provider.code):
            yield Discrepancy(Law.CODE_WRONG, order.id)


def _is_same_code(order: JournalOrder, code: str) -> bool:
    """A code that came as a JSON number has lost its leading zeros, and is marked."""
    assert order.code is not None
    return order.code == code or (order.code_may_lack_zeros and order.code == (code.lstrip("0") or "0"))


def _a_code_received_is_the_providers(books: Books) -> Iterator[Discrepancy]:
    codes = {order.payment_hash: order.code for order in books.provider}
    for payment_hash, (order, _) in books.by_hash.items():
        if order.code is not None and not codes.get(payment_hash):
            yield Discrepancy(Law.CODE_WRONG, order.id, "the provider never had one")
        if order.end == "fulfilled" and order.code is None:
            yield Discrepancy(Law.CODE_LOST, order.id, order.end)


def _no_orphan_is_paid(books: Books) -> Iterator[Discrepancy]:
    """A reply that was lost leaves an order at the provider that nobody may ever pay."""
    known = books.by_hash
    for at_provider in books.provider:
        if at_provider.payment_hash not in known and at_provider.is_paid:
            yield Discrepancy(Law.ORPHAN_PAID, at_provider.order_id, at_provider.invoice)


# --- the end --------------------------------------------------------------------------------------------------------


def _everything_ends(books: Books) -> Iterator[Discrepancy]:
    for order in books.journal:
        if order.end is None and not (order.payment and order.payment.payment_hash in books.never_sent):
            yield Discrepancy(Law.NEVER_ENDED, order.id, f"{order.state} × {order.htlc}")
    for payment in books.lnd:
        if payment.status == "IN_FLIGHT" and payment.payment_hash not in books.never_sent:
            yield Discrepancy(Law.MONEY_STILL_OUT, payment.payment_hash, "lnd has it in flight")
    for at_provider in books.provider:
        if at_provider.invoice == "accepted":
            yield Discrepancy(Law.MONEY_STILL_OUT, at_provider.payment_hash, "the payee holds it")


def _the_totals_agree(books: Books) -> Iterator[Discrepancy]:
    """Msat by msat: what the journal says was spent, what lnd paid, what left the channels, what the payee took."""
    booked = [order.payment for order in books.journal if order.payment and order.payment.htlc == "settled"]
    paid = [payment for payment in books.lnd if payment.status == "SUCCEEDED"]
    spent_msat = sum(payment.amount_msat + payment.fee_msat for payment in booked)
    sums = {
        "lnd's payments": sum(payment.value_msat + payment.fee_msat for payment in paid),
        "lnd's settled HTLCs": sum(sum(payment.settled_htlcs_msat) for payment in paid),
        "the payee's invoices and lnd's fees": sum(
            order.amount_msat for order in books.provider if order.invoice == "settled"
        )
        + sum(payment.fee_msat for payment in paid),
    }
    if books.gone_msat is not None:
        sums["what left the channels"] = books.gone_msat
    for name, sum_msat in sums.items():
        if sum_msat != spent_msat:
            yield Discrepancy(Law.SUM_DIFFERS, name, f"{sum_msat} msat, and the journal spent {spent_msat}")


LAWS_OF_EVERY_MOMENT: tuple[Callable[[Books], Iterator[Discrepancy]], ...] = (
    _the_journal_is_whole,
    _a_code_is_never_forgotten,
    _nothing_is_sent_once_it_was_paid,
    _lnd_pays_only_what_the_journal_meant,
    _a_hash_is_settled_once,
    _a_closed_order_has_no_money_out,
    _money_is_back_when_lnd_says_so,
    _what_was_charged_is_booked,
    _the_proof_is_kept,
    _a_payment_costs_the_same_in_both,
    _one_request_is_paid_once,
    _a_code_that_was_charged_arrives,
    _a_code_received_is_the_providers,
    _no_orphan_is_paid,
)
LAWS_OF_THE_END: tuple[Callable[[Books], Iterator[Discrepancy]], ...] = (_everything_ends, _the_totals_agree)
