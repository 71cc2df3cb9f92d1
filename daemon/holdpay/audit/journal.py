"""Pure: an order's journal, its changes added up, against its tables, and each of its rows against the machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from holdpay import manual
from holdpay.audit.books import JournalRow, OrderBook, StoredAttempt, differing, named
from holdpay.audit.findings import Finding, Severity, about
from holdpay.core.amounts import sat
from holdpay.core.charge import ChargeState
from holdpay.core.dispatches import DispatchRecord, recorded
from holdpay.core.events import (
    BalanceSeen,
    Event,
    HtlcLookedFor,
    InvoiceDecoded,
    PaymentNotFound,
    PaymentReported,
    TimePassed,
)
from holdpay.core.items import Item, ItemKind
from holdpay.core.machine import decide
from holdpay.core.model import Order
from holdpay.core.policy import Policy
from holdpay.core.states import MONEY_MAY_BE_OUT, HtlcState, OrderState
from holdpay.core.step import Step
from holdpay.errors import InvariantViolation

MEND = (
    "Stop holdpayd and copy its state directory before anything else; then see"
    f" {manual.page('operations.md', 'Damaged database')}."
)
"""What to do about a database that contradicts itself."""

_SHOWN = 5
_UNREAD = frozenset({ItemKind.UNREAD, ItemKind.UNREAD_MAYBE})


def journal_findings(book: OrderBook, policy: Policy) -> list[Finding]:
    """All that is wrong with one order's journal. ``policy`` is that of today; the rows were decided under theirs."""
    fold = [] if book.order.erased_at_ms is not None else _fold_findings(book, policy)  # its events lack what was said
    return [*_readability(book), *_ends(book), *_table_against_journal(book), *fold]


def gap_findings(gaps: Sequence[tuple[int, int]], last_cursor: int, next_to_give: int) -> list[Finding]:
    """Cursors are handed out without gaps, also by transactions that fail.

    ``gaps``: the first and the last missing cursor each; ``next_to_give`` - 1 is the highest one that was ever given.
    """
    if next_to_give - 1 > last_cursor:
        gaps = [*gaps, (last_cursor + 1, next_to_give - 1)]
    return [
        Finding(
            severity=Severity.ERROR,
            code="journal-gap",
            text=f"{_rows(range(first, last + 1))} of the journal {'is' if first == last else 'are'} missing.",
            todo=MEND,
        )
        for first, last in gaps
    ]


# --- the rows themselves --------------------------------------------------------------------------------------------


def _readability(book: OrderBook) -> Iterator[Finding]:
    if book.unreadable:
        text = f"{_rows(book.unreadable)} of its journal cannot be read."
        yield about(book.order, Severity.ERROR, "journal-unreadable", text, MEND)
    changed = [row.cursor for row in book.journal if not row.is_raw_intact]
    if changed:
        text = f"{_rows(changed)} of its journal: the raw reply is not the one that was stored."
        yield about(book.order, Severity.ERROR, "raw-changed", text, MEND)


def _ends(book: OrderBook) -> Iterator[Finding]:
    if not book.journal:
        if not book.unreadable:
            yield about(book.order, Severity.ERROR, "no-journal", "It has no journal.", MEND)
        return
    first = book.journal[0]
    if first.event is not None:
        text = f"Its journal begins with row {first.cursor}, which is not the request."
        yield about(book.order, Severity.ERROR, "journal-beginning", text, MEND)
    after_end = [row.cursor for before, row in pairwise(book.journal) if _is_over(before.after)]
    if after_end:
        text = f"{_rows(after_end)} of its journal came after it was closed."
        yield about(book.order, Severity.ERROR, "journal-after-end", text, MEND)


def _is_over(order: Order) -> bool:
    """Nothing happens to it any more."""
    return order.is_closed and not order.is_going_on


def _table_against_journal(book: OrderBook) -> Iterator[Finding]:
    if book.reserved_msat != book.order.reserved_msat:
        text = f"The limits count {sat(book.reserved_msat)} for it, and it should be {sat(book.order.reserved_msat)}."
        yield about(book.order, Severity.ERROR, "reserved-differs", text, MEND)
    for what, booked_msat, is_msat in (
        ("reserved", book.booked.reserved_msat, book.order.reserved_msat),
        ("spent", book.booked.spent_msat, book.order.spent_msat),
    ):
        if booked_msat != is_msat:
            text = f"The ledger has {sat(booked_msat)} {what} for it, and it should be {sat(is_msat)}."
            yield about(book.order, Severity.ERROR, "ledger-differs", text, MEND)
    if not book.journal or book.unreadable:
        return
    names = differing(replace(book.order, items=()), book.journal[-1].after)
    if _dispatches_by(book) != dict(book.dispatches):
        text = "Its dispatches differ from those in its journal."
        yield about(book.order, Severity.ERROR, "dispatches-differ", text, MEND)
    if names:
        text = f"Its tables and what the changes in its journal add up to differ in {named(names)}."
        yield about(book.order, Severity.ERROR, "tables-differ", text, MEND)


def _dispatches_by(book: OrderBook) -> dict[int, DispatchRecord]:
    """As the journal has them."""
    found: dict[int, DispatchRecord] = {}
    before = None
    for row in book.journal:
        after = row.after.payment
        record = after and recorded(before, after, found.get(after.dispatch_count))
        if record:
            found[record.n] = record
        before = after
    return found


# --- the fold -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Fold:
    """What comes of following the journal with the machine. ``items``: all that was delivered so far."""

    items: tuple[Item, ...] = ()
    broken: list[int] = field(default_factory=list)
    broken_names: frozenset[str] = frozenset()
    by_policy: list[int] = field(default_factory=list)
    by_policy_names: frozenset[str] = frozenset()
    attempts: dict[int, StoredAttempt] = field(default_factory=dict)


def _is_last_unread_kept(told: tuple[Item, ...], kept: tuple[Item, ...]) -> bool:
    """Before migration 0008 an order had room for one, and a later one took its place."""
    unread = [item for item in told if item.kind in _UNREAD]
    return len(unread) > 1 and kept == tuple(item for item in told if item not in unread[:-1])


def _fold_findings(book: OrderBook, policy: Policy) -> Iterator[Finding]:
    fold = _Fold()
    for before, row in pairwise(book.journal):
        if not _is_over(before.after):
            _follow(before.after, row, policy, fold)
    if fold.broken:
        differ = f" ({named(fold.broken_names)})" if fold.broken_names else ""
        text = f"{_rows(fold.broken)} of its journal cannot follow from the rows before{differ}."
        yield about(book.order, Severity.ERROR, "journal-broken", text, MEND)
    if fold.by_policy:
        text = (
            f"{_rows(fold.by_policy)} of its journal would be decided otherwise today"
            f" ({named(fold.by_policy_names)}): the configuration, or holdpay, was another one then."
        )
        yield about(book.order, Severity.NOTE, "other-policy", text)
    if fold.broken or book.unreadable or not book.journal:
        return
    if _is_last_unread_kept(fold.items, book.order.items):
        text = "Only the last of its replies that could not be read was kept by the holdpay of then."
        yield about(book.order, Severity.NOTE, "other-policy", text)
    elif fold.items != book.order.items:
        text = "What it delivered differs from what its journal says."
        yield about(book.order, Severity.ERROR, "items-differ", text, MEND)
    if fold.attempts != dict(book.attempts):
        text = "Its HTLC attempts differ from those in its journal."
        yield about(book.order, Severity.ERROR, "attempts-differ", text, MEND)


def _follow(before: Order, row: JournalRow, policy: Policy, fold: _Fold) -> None:
    step = _step(replace(before, items=fold.items), row, policy)
    if step is None:
        fold.broken.append(row.cursor)
        return
    fold.items = step.order.items
    names = differing(replace(step.order, items=()), row.after)
    if not names:
        pass
    elif row.event is not None and names <= _by_policy(row.event, step.order, row.after):
        fold.by_policy.append(row.cursor)
        fold.by_policy_names |= names
    else:
        fold.broken.append(row.cursor)
        fold.broken_names |= names
    if row.after.payment is not None:
        dispatch = row.after.payment.dispatch_count
        fold.attempts.update({a.attempt_id: StoredAttempt(dispatch, a) for a in step.attempts})


def _step(before: Order, row: JournalRow, policy: Policy) -> Step | None:
    """None: the machine cannot take this event here, or a value before it is none at all."""
    if row.event is None:
        return None
    try:
        return decide(before, row.event, policy, row.at_ms)
    except (InvariantViolation, AssertionError, ValueError, KeyError, TypeError):
        return None


_POLICY_FIELDS = frozenset(
    {
        "pay_by_ms",
        "place_at_ms",
        "cancel_at_ms",
        "giving_up",
        "reason",
        "payment.diagnosis",
        "payment.dispatch_at_ms",
        "payment.fee_limit_msat",
        "payment.unpaid_again_at_ms",
    }
)
"""Times and limits that the configuration decides, and the words that holdpay had then: another value is no
contradiction."""
_CLOSING_FIELDS = frozenset({"state", "state_since_ms", "closed_at_ms", "end", "reason", "payment"})
_ABSENCE_FIELDS = frozenset({"anomaly_count", "payment.htlc", "payment.htlc_since_ms", "payment.absent_since_ms"})
_CHARGE_FIELDS = frozenset({"charge.state", "charge.since_ms", "charge.unmoved_since_ms"})
_LOOK_FIELDS = frozenset({"payment.htlc", "payment.htlc_since_ms", "payment.fee_msat", "payment.failure"})


def _by_policy(event: Event, today: Order, stored: Order) -> frozenset[str]:
    """The fields in which a row may differ because the configuration differed; facts never do."""
    names = _POLICY_FIELDS
    if OrderState.ABANDONED in {today.state, stored.state}:
        # When to stop asking, and which invoice is refused, is the configuration's.
        names |= _CLOSING_FIELDS
    if isinstance(event, TimePassed):
        # So is how long a request waits for its next order.
        names |= {"succession"}
    if isinstance(event, InvoiceDecoded):
        names |= {"anomaly_count", "max_fee_sat"}
    if isinstance(event, PaymentNotFound | PaymentReported) and _is_proof(today, stored, HtlcState.NONE):
        names |= _ABSENCE_FIELDS | _CLOSING_FIELDS
    if isinstance(event, BalanceSeen) and _is_charge_proof(today, stored):
        names |= _CHARGE_FIELDS | _CLOSING_FIELDS
    if isinstance(event, HtlcLookedFor):
        # So is the longest life of an HTLC whose expiry height lnd never named (``route_cltv_delta``).
        names |= {"payment.uncarried_since_ms"}
        if _is_proof(today, stored, HtlcState.GONE):
            names |= _LOOK_FIELDS | _CLOSING_FIELDS
    return names


def _is_proof(today: Order, stored: Order, proven: HtlcState) -> bool:
    """How long a proof takes (``prove_absent_s``) decides between still asking and ``proven``, or failed."""
    words = {today.htlc, stored.htlc}
    return len(words & MONEY_MAY_BE_OUT) == 1 and bool(words & {proven, HtlcState.FAILED})


def _is_charge_proof(today: Order, stored: Order) -> bool:
    """The same of a balance that did not move: between not knowing and ``refused``."""
    states = {order.charge.state for order in (today, stored) if order.charge is not None}
    return states == {ChargeState.UNKNOWN, ChargeState.REFUSED}


def _rows(cursors: Sequence[int]) -> str:
    if len(cursors) == 1:
        return f"Row {cursors[0]}"
    shown = ", ".join(str(cursor) for cursor in cursors[:_SHOWN])
    return f"Rows {shown}{' …' if len(cursors) > _SHOWN else ''}"
