"""`holdpayd restore`: a copy of the database takes its place, if lnd knows of nothing that was paid since.

What was open in the copy is marked as restored, each order in its journal: nothing is placed or paid for it any more,
it is only looked up (``core.hold.after_copy``). So it makes no difference to the money how old the copy is.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from holdpay.audit.against_lnd import against_lnd, stranger_findings
from holdpay.audit.check import Stored, ask_lnd, read_stored
from holdpay.audit.database import DatabaseForbidden, is_there
from holdpay.audit.findings import Finding, Severity
from holdpay.audit.laws import is_hash
from holdpay.audit.paid_nodes import PaidNodes, paid_nodes
from holdpay.audit.placing import log_of, move_aside, remove, remove_log
from holdpay.audit.recover import database_path
from holdpay.clock import SystemClock
from holdpay.config import Settings
from holdpay.core.events import CopyRestored
from holdpay.core.machine import decide
from holdpay.core.policy import Policy
from holdpay.errors import HoldpayError, LndError, StoreError
from holdpay.lock import StateLock
from holdpay.redact import hash8
from holdpay.store.copying import check_room, copy_into
from holdpay.store.database import is_damage
from holdpay.store.integrity import raise_unless_sound
from holdpay.store.newest import allow, newest_of, sync_folder
from holdpay.store.note import Note, moment, note_of, take_out_note
from holdpay.store.store import SqliteStore

CLOCKS_DIFFER_MS: Final = 60_000
SHOWN: Final = 5


class RestoreRefused(HoldpayError):
    """The copy is not put in place; the message says why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """``kept``: what was there before; None: nothing. ``note``: of the copy; None: it has none."""

    note: Note | None
    order_count: int
    open_orders: list[str] = field(default_factory=list)
    kept: Path | None


def restore(settings: Settings, clock: SystemClock, file: Path, *, is_without_lnd: bool) -> Restored:
    """Puts the copy in the place of the database, whole, in one rename.

    Raises RestoreRefused, AlreadyRunning while a holdpayd runs, ConfigError, StoreError.
    """
    path = database_path(settings)
    new = path.with_name(f"{path.name}.restoring")
    with StateLock(settings.daemon.state_dir):
        try:
            remove(new)
            try:
                return _restore(settings, clock, file, new, path, is_without_lnd=is_without_lnd)
            finally:
                remove(new)
        except OSError as error:
            raise StoreError(
                f"{path} could not be written ({error.strerror}). Check the disk and run this again."
            ) from error


def _restore(
    settings: Settings, clock: SystemClock, file: Path, new: Path, path: Path, *, is_without_lnd: bool
) -> Restored:
    now_ms, policy = clock.now_ms(), settings.policy()
    note, since_ms = _take(file, new)
    _bring_up_to_date(file, new)
    stored = read_stored(new, policy, now_ms)
    _refuse_damaged(file, stored)
    if not is_without_lnd:
        _refuse_older_than_lnd(settings, clock, file, paid_nodes(settings, new, path), stored, since_ms)
    opened = _mark(new, policy, now_ms)
    remove_log(new)
    kept = move_aside(path, "restore", now_ms)
    newest_of(new).replace(newest_of(path))
    new.replace(path)
    sync_folder(path.parent)
    return Restored(note=note, order_count=stored.order_count, open_orders=opened, kept=kept if kept.exists() else None)


def _take(file: Path, new: Path) -> tuple[Note | None, int]:
    """A copy of the copy, with all of its log; its note, and until when all is in it."""
    _refuse_no_file(file)
    try:
        check_room(file, new.parent)
        new.touch(mode=0o600)
        copy_into(file, new)
        with closing(sqlite3.connect(new, isolation_level=None)) as conn:
            raise_unless_sound(conn)
            if not conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'journal'").fetchone():
                raise RestoreRefused(f"{file} is no database of holdpayd's. Name a copy of one.")
            cursor, last_ms = conn.execute("SELECT coalesce(max(cursor), 0), max(at_ms) FROM journal").fetchone()
            note = note_of(conn)
            if note is not None:
                take_out_note(conn)
        allow(new, cursor)
    except sqlite3.Error as error:
        raise _unusable(file, error) from error
    return note, (last_ms or 0) if note is None else note.made_at_ms


def _bring_up_to_date(file: Path, new: Path) -> None:
    try:
        SqliteStore(new).close()
    except StoreError as error:
        cause = error.__cause__
        if isinstance(cause, sqlite3.Error) and is_damage(cause):
            raise _unusable(file, cause) from error
        raise


def _unusable(file: Path, error: sqlite3.Error) -> RestoreRefused:
    return RestoreRefused(
        f"{file} cannot be restored: {error}. Take another copy, or rebuild the orders from lnd (`holdpayd recover`)."
    )


def _refuse_no_file(file: Path) -> None:
    try:
        if not is_there(file):
            raise RestoreRefused(f"There is no file {file}. Name a copy of the database.")
        if not file.is_file():
            raise RestoreRefused(f"{file} is no file. Name a copy of the database.")
    except DatabaseForbidden:
        raise RestoreRefused(f"{file} may not be read by this user. Let the daemon's user read it.") from None


def _refuse_damaged(file: Path, stored: Stored) -> None:
    wrong = [finding for finding in stored.findings if finding.severity is Severity.ERROR]
    if wrong:
        more = f" ({len(wrong) - 1:,} more findings)" if len(wrong) > 1 else ""
        raise RestoreRefused(
            f"{file} contradicts itself: {wrong[0].text}{more} `holdpayd check --database {file}` says all of it. Take"
            " another copy, or rebuild the orders from lnd (`holdpayd recover`)."
        )


# --- lnd ------------------------------------------------------------------------------------------------------------


def _refuse_older_than_lnd(
    settings: Settings, clock: SystemClock, file: Path, nodes: PaidNodes, stored: Stored, since_ms: int
) -> None:
    orders = [o for o in stored.relevant if not o.is_closed and o.payment and is_hash(o.payment.payment_hash)]
    try:
        lnd = asyncio.run(ask_lnd(settings, clock, nodes.all, orders, since_ms - CLOCKS_DIFFER_MS))
    except LndError as error:
        raise RestoreRefused(_unasked(error.message)) from error
    if lnd.payments is None:
        raise RestoreRefused(_unasked("The macaroon does not allow ListPayments."))
    strangers = stranger_findings(lnd.payments, stored.hashes, nodes.all, is_book_empty=False)
    ahead = [
        finding
        for order in orders
        if order.payment is not None and order.id in lnd.said
        for finding in against_lnd(order, order.payment, lnd.said[order.id])
        if finding.severity is Severity.ERROR or finding.code == "lnd-silent"
    ]
    if strangers or ahead:
        raise RestoreRefused(_too_old(file, nodes, strangers, ahead))
    if not nodes.are_known:
        raise RestoreRefused(_payees_unknown(nodes))


def _unasked(why: str) -> str:
    return (
        f"lnd could not be asked whether anything was paid after the copy: {why} Run this again when it can be;"
        " --without-lnd goes without, and what was paid since is then missing, also in the limits."
    )


def _payees_unknown(nodes: PaidNodes) -> str:
    return (
        f'Nobody knows to which nodes anything was paid after the copy: provider.payee_check is "{nodes.check}", which'
        " lets other nodes than the listed ones be paid, and neither the copy nor the database in whose place it would"
        " come has a payment or a trusted node. Nothing was changed. `holdpayd recover` rebuilds the orders of what was"
        " paid to the nodes in provider.payee_pubkeys. --without-lnd goes without, and what was paid since is then"
        " missing, also in the limits."
    )


def _too_old(file: Path, nodes: PaidNodes, strangers: Sequence[Finding], ahead: Sequence[Finding]) -> str:
    parts = []
    if strangers:
        hashes = _listed([f"{finding.hash8}…" for finding in strangers])
        parts.append(f"lnd has {_count(strangers, 'payment')} to the provider's node that it does not know ({hashes})")
    if ahead:
        ids = _listed([finding.order_id or "" for finding in ahead])
        parts.append(f"{_count(ahead, 'order')} of it went on at lnd ({ids})")
    return (
        f"{file} is too old: {' and '.join(parts)}. Nothing was changed. `holdpayd recover` rebuilds the orders of all"
        f" payments from lnd{_to_be_listed(nodes)}; or take a newer copy."
    )


def _to_be_listed(nodes: PaidNodes) -> str:
    """What recover cannot know any more once the databases are out of its way."""
    if not nodes.unlisted:
        return ""
    shown = _listed([f"{hash8(node)}…" for node in nodes.unlisted])
    return f" (first add to provider.payee_pubkeys {shown}; `lncli listpayments` has it whole, as a payment's last hop)"


def _count(found: Sequence[Finding], what: str) -> str:
    return f"{len(found):,} {what}{'' if len(found) == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")


# --- the open orders ------------------------------------------------------------------------------------------------


def _mark(new: Path, policy: Policy, now_ms: int) -> list[str]:
    with closing(SqliteStore(new)) as store:
        orders = store.open_orders()
        for order in orders:
            event = CopyRestored()
            store.commit(order, event, decide(order, event, policy, now_ms), None, now_ms)
    if log_of(new).exists():
        raise StoreError(f"The log of {new} could not be taken into it. Check the disk and run this again.")
    return [order.id for order in orders]


def lines(done: Restored, *, is_without_lnd: bool) -> Iterator[str]:
    """For people."""
    made = "" if done.note is None else f", as it was at {moment(done.note.made_at_ms)}"
    yield f"The database is restored{made}: {done.order_count:,} {_orders(done.order_count)}."
    if done.kept is not None:
        yield f"What was there before is kept as {done.kept}."
    if is_without_lnd:
        yield "lnd was not asked: `holdpayd check` shows what it paid after the copy, and the limits do not count it."
    if done.open_orders:
        yield (
            f"Open in the copy: {len(done.open_orders):,} ({_listed(done.open_orders)}). Nothing is placed or paid for"
            " them any more; holdpayd follows them to their end."
        )
    yield "Start holdpayd, then run `holdpayd check`."


def _orders(count: int) -> str:
    return "order" if count == 1 else "orders"
