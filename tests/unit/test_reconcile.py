"""The reconciliation finds each kind of discrepancy in books that were cooked, and nothing in honest ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.books import Books, Goods, JournalOrder, JournalPayment, JournalRow, LndPayment, ProviderOrder
from tests.reconcile import Law, reconcile

AMOUNT_MSAT, FEE_MSAT = 3_000_000, 1_003
PREIMAGES = {
    name: f"{number:064x}" for number, name in enumerate(("bought", "unlucky", "refunded", "orphan", "foreign"))
}
HASHES = {name: hashlib.sha256(bytes.fromhex(preimage)).hexdigest() for name, preimage in PREIMAGES.items()}


def row(cursor: int, event: str, state: str, htlc: str, **changes: Any) -> JournalRow:
    plain = JournalRow(cursor=cursor, event=event, says_paid=False, state=state, htlc=htlc, code=None, end=None)
    return replace(plain, **changes)


def order(name: str, state: str, end: str, payment: JournalPayment | None, code: str | None = None) -> JournalOrder:
    """A closed order with the journal that it needs."""
    rows = [row(1, "order_requested", "requested", "none")]
    if payment is not None:
        rows.append(row(2, "dispatch_intended", "awaiting_payment", "dispatching"))
        rows.append(row(3, "provider_replied", "paid", "in_flight", says_paid=True))
    rows.append(row(4, "payment_reported", state, payment.htlc if payment else "none", code=code, end=end))
    return JournalOrder(
        id=name,
        goods=goods(name),
        state=state,
        end=end,
        code=code,
        code_may_lack_zeros=False,
        provider_order_id=HASHES.get(name),
        max_price_sat=3060,
        max_fee_sat=30,
        payment=payment,
        rows=tuple(rows),
    )


def goods(name: str) -> Goods:
    return (f"land of {name}", "OpenAI")


def payment(name: str, htlc: str) -> JournalPayment:
    is_settled = htlc == "settled"
    return JournalPayment(
        payment_hash=HASHES[name],
        amount_msat=AMOUNT_MSAT,
        fee_msat=FEE_MSAT if is_settled else 0,
        htlc=htlc,
        dispatch_count=1,
        preimage=PREIMAGES[name] if is_settled else None,
    )


def paid(name: str) -> LndPayment:
    return LndPayment(
        payment_hash=HASHES[name],
        status="SUCCEEDED",
        value_msat=AMOUNT_MSAT,
        fee_msat=FEE_MSAT,
        settled_htlcs_msat=(AMOUNT_MSAT + FEE_MSAT,),
    )


def at_provider(name: str, invoice: str, code: str = "", of: str = "") -> ProviderOrder:
    return ProviderOrder(
        order_id=HASHES[name],
        payment_hash=HASHES[name],
        goods=goods(of or name),
        amount_msat=AMOUNT_MSAT,
        invoice=invoice,
        code=code,
    )


HONEST = Books(
    journal=(
        order("bought", "delivered", "fulfilled", payment("bought", "settled"), "012345"),
        order("unlucky", "abandoned", "charged_unfulfilled", payment("unlucky", "settled")),
        order("refunded", "canceled", "refunded", payment("refunded", "failed")),
        order("refused", "abandoned", "provider_refused", None),
    ),
    lnd=(
        paid("bought"),
        paid("unlucky"),
        replace(paid("refunded"), status="FAILED", fee_msat=0, settled_htlcs_msat=()),
    ),
    provider=(
        at_provider("bought", "settled", "012345"),
        at_provider("unlucky", "settled"),
        at_provider("refunded", "canceled"),
        at_provider("orphan", "open", of="bought"),
    ),
    gone_msat=2 * (AMOUNT_MSAT + FEE_MSAT),
)

BOUGHT, UNLUCKY, REFUNDED, REFUSED = range(4)
ORPHAN = 3


def test_honest_books_agree() -> None:
    assert reconcile(HONEST, is_over=True) == []


# --- how to cook books ----------------------------------------------------------------------------------------------


def journal(index: int, **changes: Any) -> Books:
    """The order, and its last row with it."""
    last: dict[str, Any] = {name: changes[name] for name in ("state", "code", "end") if name in changes}
    if "payment" in changes:
        last["htlc"] = changes["payment"].htlc
    rows = HONEST.journal[index].rows
    changed = replace(HONEST.journal[index], rows=(*rows[:-1], replace(rows[-1], **last)), **changes)
    return replace(HONEST, journal=_with(HONEST.journal, index, changed))


def journal_payment(index: int, **changes: Any) -> Books:
    before = HONEST.journal[index].payment
    assert before is not None
    return journal(index, payment=replace(before, **changes))


def rows(index: int, *given: JournalRow) -> Books:
    return replace(HONEST, journal=_with(HONEST.journal, index, replace(HONEST.journal[index], rows=given)))


def lnd(index: int, **changes: Any) -> Books:
    return replace(HONEST, lnd=_with(HONEST.lnd, index, replace(HONEST.lnd[index], **changes)))


def lnd_also(extra: LndPayment) -> Books:
    return replace(HONEST, lnd=(*HONEST.lnd, extra))


def provider(index: int, **changes: Any) -> Books:
    return replace(HONEST, provider=_with(HONEST.provider, index, replace(HONEST.provider[index], **changes)))


def _with(items: tuple[Any, ...], index: int, item: Any) -> tuple[Any, ...]:
    return (*items[:index], item, *items[index + 1 :])


def reordered(index: int, *order_of_rows: int) -> Books:
    return rows(index, *(HONEST.journal[index].rows[number] for number in order_of_rows))


def opened(index: int, **changes: Any) -> Books:
    return journal(index, end=None, **changes)


COOKED: dict[str, tuple[Callable[[], Books], set[Law]]] = {
    # the journal by itself
    "its first row is missing": (lambda: reordered(BOUGHT, 1, 2, 3), {Law.JOURNAL_TORN}),
    "its last row is missing": (lambda: reordered(BOUGHT, 0, 1, 2), {Law.JOURNAL_TORN}),
    "all its rows are missing": (lambda: rows(BOUGHT), {Law.JOURNAL_TORN}),
    "it goes on after the end": (lambda: reordered(BOUGHT, 0, 1, 2, 3, 3), {Law.JOURNAL_GOES_ON}),
    "a code vanished": (
        lambda: rows(
            UNLUCKY,
            HONEST.journal[UNLUCKY].rows[0],
            row(2, "provider_replied", "delivered", "in_flight", code="012345"),
            HONEST.journal[UNLUCKY].rows[-1],
        ),
        {Law.CODE_FORGOTTEN},
    ),
    "sent again after it was called paid": (lambda: reordered(REFUNDED, 0, 1, 2, 1, 3), {Law.SENT_AFTER_PAID}),
    # the journal against lnd
    "a payment that nobody recorded": (
        lambda: lnd_also(replace(paid("foreign"), status="FAILED", fee_msat=0, settled_htlcs_msat=())),
        {Law.PAYMENT_UNKNOWN},
    ),
    "a payment without an intent": (lambda: journal_payment(REFUNDED, dispatch_count=0), {Law.SENT_WITHOUT_INTENT}),
    "a hash settled twice": (
        lambda: lnd(BOUGHT, settled_htlcs_msat=(AMOUNT_MSAT + FEE_MSAT,) * 2),
        {Law.SETTLED_TWICE, Law.SUM_DIFFERS},
    ),
    "a hash settled twice before lnd books it": (
        lambda: lnd(BOUGHT, status="IN_FLIGHT", fee_msat=0, settled_htlcs_msat=(AMOUNT_MSAT + FEE_MSAT,) * 2),
        {Law.SETTLED_TWICE, Law.CLOSED_WITH_MONEY_OUT, Law.BOOKED_NOT_CHARGED, Law.SUM_DIFFERS, Law.MONEY_STILL_OUT},
    ),
    "closed while lnd has it in flight": (
        lambda: lnd(REFUNDED, status="IN_FLIGHT"),
        {Law.CLOSED_WITH_MONEY_OUT, Law.MONEY_STILL_OUT},
    ),
    "closed while the payee holds it": (
        lambda: provider(REFUNDED, invoice="accepted"),
        {Law.CLOSED_WITH_MONEY_OUT, Law.MONEY_STILL_OUT},
    ),
    "closed while the journal itself does not know": (
        lambda: journal_payment(REFUNDED, htlc="unknown"),
        {Law.CLOSED_WITH_MONEY_OUT},
    ),
    "open, and believed back while lnd has it in flight": (
        lambda: replace(opened(REFUNDED, state="paid"), lnd=lnd(REFUNDED, status="IN_FLIGHT").lnd),
        {Law.BELIEVED_BACK, Law.NEVER_ENDED, Law.MONEY_STILL_OUT},
    ),
    "a charge closed as refunded": (
        lambda: journal(UNLUCKY, end="refunded", payment=payment("unlucky", "failed")),
        {Law.CHARGE_NOT_BOOKED, Law.SUM_DIFFERS},
    ),
    "a charge closed as refunded though it says settled": (
        lambda: journal(UNLUCKY, end="refunded"),
        {Law.CHARGE_NOT_BOOKED},
    ),
    "a refund booked as a charge": (
        lambda: journal(REFUNDED, end="charged_unfulfilled", payment=payment("refunded", "settled")),
        {Law.BOOKED_NOT_CHARGED, Law.SUM_DIFFERS},
    ),
    "a charge that lnd lost": (
        lambda: replace(HONEST, lnd=HONEST.lnd[1:]),
        {Law.BOOKED_NOT_CHARGED, Law.SUM_DIFFERS},
    ),
    "a preimage of something else": (
        lambda: journal_payment(BOUGHT, preimage=PREIMAGES["orphan"]),
        {Law.PREIMAGE_WRONG},
    ),
    "no preimage": (lambda: journal_payment(BOUGHT, preimage=None), {Law.PREIMAGE_WRONG}),
    "a fee that is 1 msat off": (lambda: journal_payment(BOUGHT, fee_msat=FEE_MSAT + 1), {Law.SUM_DIFFERS}),
    "an amount that is 1 msat off": (lambda: journal_payment(BOUGHT, amount_msat=AMOUNT_MSAT - 1), {Law.SUM_DIFFERS}),
    "1 msat more left the channels": (
        lambda: replace(HONEST, gone_msat=2 * (AMOUNT_MSAT + FEE_MSAT) + 1),
        {Law.SUM_DIFFERS},
    ),
    "a price over the limit": (lambda: journal(BOUGHT, max_price_sat=2999), {Law.OVER_BUDGET}),
    "a fee over the limit": (lambda: journal(BOUGHT, max_fee_sat=1), {Law.OVER_BUDGET}),
    # the journal against the provider
    "two payments for one request": (
        lambda: replace(
            HONEST,
            lnd=(*HONEST.lnd, replace(paid("orphan"), status="FAILED", fee_msat=0, settled_htlcs_msat=())),
        ),
        {Law.TWO_PAYMENTS, Law.PAYMENT_UNKNOWN},
    ),
    "an orphan that was paid too": (
        lambda: provider(ORPHAN, invoice="settled"),
        {Law.ORPHAN_PAID, Law.TWO_PAYMENTS, Law.SUM_DIFFERS},
    ),
    "an orphan that is held": (
        lambda: provider(ORPHAN, invoice="accepted"),
        {Law.ORPHAN_PAID, Law.TWO_PAYMENTS, Law.MONEY_STILL_OUT},
    ),
    "a code that did not arrive": (lambda: provider(UNLUCKY, code="999999"), {Law.CODE_LOST}),
    "code received, and there is none": (lambda: journal(BOUGHT, code=None), {Law.CODE_LOST}),
    "another code": (lambda: journal(BOUGHT, code="543210"), {Law.CODE_WRONG}),
    "a code without its zero": (lambda: journal(BOUGHT, code="12345"), {Law.CODE_WRONG}),
    "a code out of nowhere": (lambda: provider(BOUGHT, code=""), {Law.CODE_WRONG}),
    # the end
    "an order that never ended": (lambda: opened(REFUNDED), {Law.NEVER_ENDED}),
    "a request that never ended": (lambda: opened(REFUSED), {Law.NEVER_ENDED}),
}


@pytest.mark.parametrize("name", COOKED)
def test_cooked_books_are_found_out(name: str) -> None:
    cook, laws = COOKED[name]
    found = reconcile(cook(), is_over=True)
    assert {discrepancy.law for discrepancy in found} == laws
    assert all(str(discrepancy) for discrepancy in found)


def test_each_law_is_broken_by_some_cooked_books() -> None:
    assert set.union(*(laws for _, laws in COOKED.values())) == set(Law)


def test_a_code_without_its_zero_is_the_same_code_where_it_is_marked() -> None:
    books = journal(BOUGHT, code="12345", code_may_lack_zeros=True)
    assert reconcile(books, is_over=True) == []


def test_money_that_is_out_is_fine_while_the_order_is_open() -> None:
    held = opened(REFUNDED, state="paid", payment=payment("refunded", "in_flight"))
    held = replace(
        held,
        lnd=_with(held.lnd, REFUNDED, replace(held.lnd[REFUNDED], status="IN_FLIGHT")),
        provider=_with(held.provider, REFUNDED, replace(held.provider[REFUNDED], invoice="accepted")),
    )
    assert reconcile(held, is_over=False) == []
    settled = replace(held.lnd[REFUNDED], settled_htlcs_msat=(AMOUNT_MSAT + FEE_MSAT,))
    assert reconcile(replace(held, lnd=_with(held.lnd, REFUNDED, settled)), is_over=False) == []
    assert {found.law for found in reconcile(held, is_over=True)} == {Law.NEVER_ENDED, Law.MONEY_STILL_OUT}


def test_a_payment_that_lnd_never_sent_need_not_end_and_the_order_may_not_be_closed() -> None:
    stuck = opened(REFUNDED, payment=payment("refunded", "in_flight"))
    stuck = replace(
        stuck,
        lnd=_with(stuck.lnd, REFUNDED, replace(stuck.lnd[REFUNDED], status="IN_FLIGHT")),
        never_sent=frozenset({HASHES["refunded"]}),
    )
    assert reconcile(stuck, is_over=True) == []
    closed = replace(stuck, journal=journal(REFUNDED, payment=payment("refunded", "in_flight")).journal)
    assert {found.law for found in reconcile(closed, is_over=True)} == {Law.CLOSED_WITH_MONEY_OUT}
