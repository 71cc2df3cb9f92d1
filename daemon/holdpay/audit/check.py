"""`holdpayd check`: reads the database beside a running daemon, holds it against itself and against LND, and tells."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from holdpay import manual
from holdpay.app import DATABASE, lnd_settings
from holdpay.audit.against_lnd import (
    against_lnd,
    foreign_findings,
    is_of_node,
    missing_htlc_findings,
    stranger_findings,
)
from holdpay.audit.database import AS_THE_DAEMON, DatabaseForbidden, DatabaseUnreadable, StoredBooks
from holdpay.audit.findings import Finding, Severity
from holdpay.audit.journal import MEND, journal_findings
from holdpay.audit.laws import is_hash, law_findings, shared_findings, turn_findings
from holdpay.audit.paid_nodes import paid_nodes
from holdpay.audit.report import Report, sorted_findings
from holdpay.audit.unresolved import RECENT_MS, is_relevant, unresolved_findings, unwatched_finding
from holdpay.clock import SystemClock
from holdpay.config import Settings
from holdpay.core.lightning import LndMessage, NodeIdentity, OpenChannel, StoredPayment
from holdpay.core.model import Order
from holdpay.core.policy import Policy
from holdpay.core.states import HtlcState
from holdpay.errors import LndDenied, LndError
from holdpay.lnd.ledger import LndLedger
from holdpay.lnd.macaroon import BAKE_ANEW, missing_methods

CONNECT_TIMEOUT_S: Final = 1.0


@dataclass(slots=True)
class Stored:
    """What the database had to say. ``relevant``: open orders and those closed not long ago; ``are_hashes_known``: so
    far all could be read that lnd's payments are held against."""

    findings: list[Finding] = field(default_factory=list)
    relevant: list[Order] = field(default_factory=list)
    hashes: set[str] = field(default_factory=set)
    are_hashes_known: bool = False
    order_count: int = 0
    journal_row_count: int = 0


async def check(settings: Settings, clock: SystemClock, database: Path | None = None, *, is_offline: bool) -> Report:
    """One look at everything; ``database``: a copy in place of the daemon's. Raises ConfigError for lnd's certificate;
    all else is a finding."""
    path = database or settings.daemon.state_dir / DATABASE
    now_ms = clock.now_ms()
    policy = settings.policy()
    stored = read_stored(path, policy, now_ms)
    stored.findings += macaroon_findings(lnd_settings(settings).macaroon)
    lnd = _Compared("not asked (--offline)" if is_offline else "not asked: the database could not be read")
    if not is_offline and stored.are_hashes_known:
        lnd = await _against_lnd(settings, clock, path, stored, now_ms)
        stored.findings += lnd.findings
    for order in stored.relevant:
        stored.findings += unresolved_findings(order, policy, now_ms, lnd.block_height)
    open_count = sum(not order.is_closed for order in stored.relevant)
    if open_count and not _answers(settings.daemon.socket):
        is_to_be_started = all(finding.todo != MEND for finding in stored.findings)
        stored.findings.append(unwatched_finding(open_count, is_to_be_started=is_to_be_started))
    return Report(
        database=str(path),
        order_count=stored.order_count,
        journal_row_count=stored.journal_row_count,
        lnd=lnd.head,
        findings=sorted_findings(stored.findings),
    )


# --- the database ---------------------------------------------------------------------------------------------------


def read_stored(path: Path, policy: Policy, now_ms: int) -> Stored:
    """The whole database against itself."""
    stored = Stored()
    try:
        with StoredBooks(path) as books:
            if books.is_blank:
                raise FileNotFoundError
            stored.findings += books.file_findings()
            _read_orders(books, stored, policy, now_ms)
    except FileNotFoundError:
        stored.are_hashes_known = True
        stored.findings.append(_missing(path))
    except DatabaseForbidden:
        stored.findings.append(_forbidden(path))
    except DatabaseUnreadable as error:
        stored.findings.append(_unreadable(str(error)))
    except sqlite3.Error as error:
        stored.findings.append(_unreadable(f"{path} cannot be read whole ({error})"))
    return stored


def _read_orders(books: StoredBooks, stored: Stored, policy: Policy, now_ms: int) -> None:
    orders: list[Order] = []
    stored.hashes = books.payment_hashes()
    stored.are_hashes_known = True
    for order_id in books.order_ids():
        stored.order_count += 1
        book = books.book(order_id)
        if isinstance(book, Finding):
            stored.findings.append(book)
            continue
        stored.journal_row_count += len(book.journal) + len(book.unreadable)
        stored.findings += [*journal_findings(book, policy), *law_findings(book.order)]
        orders.append(book.order)
    stored.findings += [*books.request_findings(), *books.client_findings()]
    stored.findings += [*shared_findings(orders), *turn_findings(orders)]
    stored.relevant = [order for order in orders if is_relevant(order, now_ms)]


def _missing(path: Path) -> Finding:
    return Finding(
        severity=Severity.WARNING,
        code="no-database",
        text=f"There is no database {path}, or nothing in it: holdpayd never ran here, or it was lost.",
        todo="If holdpayd ran before, run `holdpayd recover` before you start it again.",
    )


def _forbidden(path: Path) -> Finding:
    text = f"{path} may not be read by this user, so nothing of it was looked at."
    return Finding(severity=Severity.WARNING, code="database-forbidden", text=text, todo=AS_THE_DAEMON)


def _unreadable(text: str) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        code="database-unreadable",
        text=f"{text}.",
        todo="Run this as the daemon's user (`sudo -u holdpay`); if it is, see "
        f"{manual.page('operations.md', 'Damaged database')}.",
    )


# --- lnd ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Compared:
    """``head``: a sentence for the report's head. ``block_height`` 0: lnd was not asked."""

    head: str
    findings: list[Finding] = field(default_factory=list)
    block_height: int = 0


@dataclass(frozen=True, slots=True)
class LndSays:
    """``payments`` are those to the provider's nodes; None: the macaroon keeps them to itself."""

    node: NodeIdentity
    block_height: int
    channels: tuple[OpenChannel, ...]
    said: Mapping[str, LndMessage]
    payments: list[StoredPayment] | None
    troubles: list[Finding]


async def _against_lnd(settings: Settings, clock: SystemClock, path: Path, stored: Stored, now_ms: int) -> _Compared:
    candidates = [o for o in stored.relevant if o.payment is not None and is_hash(o.payment.payment_hash)]
    nodes = paid_nodes(settings, path, settings.daemon.state_dir / DATABASE)
    try:
        from_ms = min([now_ms - RECENT_MS, *(order.created_at_ms for order in candidates)])
        lnd = await ask_lnd(settings, clock, nodes.all, candidates, from_ms)
    except LndError as error:
        text = "lnd could not be asked, so nothing was held against its payments."
        unusable = Finding(severity=Severity.WARNING, code="lnd-unusable", text=text, todo=error.message)
        return _Compared("not compared", [unusable])
    at_rest, hashes = _second_look(path, candidates, stored)
    found = [*lnd.troubles, *foreign_findings(candidates, lnd.node)]
    for order in at_rest:
        if order.payment is not None and order.id in lnd.said:
            found += against_lnd(order, order.payment, lnd.said[order.id])
    if lnd.payments is not None:
        since_ms = now_ms - settings.guard.in_transit_s * 1000
        found += missing_htlc_findings(at_rest, lnd.payments, lnd.channels, since_ms)
        found += stranger_findings(lnd.payments, hashes, nodes.all, is_book_empty=not stored.order_count)
        if not nodes.are_known:
            found.append(_PAYEES_UNKNOWN)
    head = f"node {lnd.node.pubkey[:16]}… on {lnd.node.network}: {len(lnd.said):,} payments compared"
    return _Compared(head, found, lnd.block_height)


async def ask_lnd(
    settings: Settings, clock: SystemClock, payees: Set[str], candidates: Iterable[Order], from_ms: int
) -> LndSays:
    """About these orders, and all payments to these nodes since then. Raises LndError's children."""
    async with LndLedger(lnd_settings(settings), clock) as ledger:
        node = await ledger.identity()
        troubles: list[Finding] = []
        is_any_in_flight = any(order.htlc is HtlcState.IN_FLIGHT for order in candidates)
        channels = await _channels(ledger, troubles) if is_any_in_flight else ()
        said = {
            order.id: await ledger.payment(order.payment.payment_hash)
            for order in candidates
            if order.payment is not None and is_of_node(order.payment, node)
        }
        payments = await _payments_to(payees, ledger, from_ms, troubles)
        return LndSays(node, await ledger.block_height(), channels, said, payments, troubles)


async def _channels(ledger: LndLedger, troubles: list[Finding]) -> tuple[OpenChannel, ...]:
    """Without them all else can still be compared."""
    try:
        return await ledger.channels()
    except LndDenied:
        troubles.append(_denied("ListChannels", "an HTLC that lnd lost stays unseen"))
    except LndError as error:
        text = "lnd did not list its channels, so an HTLC that lnd lost stays unseen."
        troubles.append(Finding(severity=Severity.WARNING, code="lnd-silent", text=text, todo=error.message))
    return ()


async def _payments_to(
    payees: Set[str], ledger: LndLedger, from_ms: int, troubles: list[Finding]
) -> list[StoredPayment] | None:
    try:
        return [payment async for payment in ledger.payments(from_ms) if payment.last_node in payees]
    except LndDenied:
        text = "payments that the journal misses, and HTLCs that lnd lost, stay unseen"
        troubles.append(_denied("ListPayments", text))
        return None


def _second_look(path: Path, candidates: Iterable[Order], stored: Stored) -> tuple[list[Order], set[str]]:
    """The orders that did not move while lnd was asked, which alone can be judged; and every known payment hash.

    An intent is on disk before lnd hears of it: what lnd has shown before this look is in the hashes.
    """
    try:
        with StoredBooks(path) as books:
            at_rest = [order for order in candidates if books.order(order.id) == order]
            return at_rest, stored.hashes | books.payment_hashes()
    except (FileNotFoundError, DatabaseForbidden, DatabaseUnreadable, sqlite3.Error):
        return [], stored.hashes


def macaroon_findings(macaroon: bytes) -> list[Finding]:
    """What it surely does not allow although paying needs it. A look at the macaroon itself: nothing is asked."""
    missing = missing_methods(macaroon)
    if not missing:
        return []
    text = f"The macaroon does not allow {_listed(missing)}, so no order can be paid."
    return [Finding(severity=Severity.WARNING, code="cannot-pay", text=text, todo=BAKE_ANEW)]


_PAYEES_UNKNOWN: Final = Finding(
    severity=Severity.NOTE,
    code="payees-unknown",
    text="provider.payee_check lets other nodes than the listed ones be paid, and no payment is recorded that tells"
    " which; payments to them that the journal misses stay unseen.",
    todo="If nothing was paid yet, all is well. Else list the node in provider.payee_pubkeys and run this again.",
)


def _denied(method: str, what_follows: str) -> Finding:
    return Finding(
        severity=Severity.WARNING,
        code="list-denied",
        text=f"The macaroon does not allow {method}, so {what_follows}.",
        todo="`holdpayd bake-macaroon` bakes it anew, or prints the line for it.",
    )


def _answers(path: Path) -> bool:
    """Whether a daemon listens there. The state lock is left alone: taking it could stop one from starting."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(CONNECT_TIMEOUT_S)
        try:
            sock.connect(str(path))
        except OSError as error:
            # Not allowed to ask: nobody to call it unwatched.
            return isinstance(error, PermissionError)
    return True


def _listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
