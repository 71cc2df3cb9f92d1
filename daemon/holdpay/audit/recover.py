"""`holdpayd recover`: what LND and the provider still know of orders whose database was lost, and a new database."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from holdpay.app import DATABASE, lnd_settings, provider_settings
from holdpay.audit.check import read_stored
from holdpay.audit.database import DatabaseUnreadable, StoredBooks
from holdpay.audit.findings import Severity, worst
from holdpay.audit.paid_nodes import paid_nodes
from holdpay.audit.placing import log_of, move_aside, remove, remove_log
from holdpay.audit.rebuild import Found, Rebuilt, Unusable, names, rebuild
from holdpay.clock import SystemClock
from holdpay.config import Settings
from holdpay.core.events import ProviderReplied, ProviderStatus
from holdpay.core.lightning import Invoice, NodeIdentity, StoredPayment
from holdpay.core.policy import Policy
from holdpay.errors import (
    ConfigError,
    HoldpayError,
    InvalidRequest,
    LndRefused,
    ProviderError,
    ProviderRefused,
    ProviderUnavailable,
    StoreError,
)
from holdpay.lnd.ledger import LndLedger
from holdpay.ports import Lane, Limits, Reply
from holdpay.sms4sats.catalog import bundled
from holdpay.sms4sats.client import Sms4Sats
from holdpay.store.newest import newest_of, sync_folder
from holdpay.store.store import SqliteStore

_NO_LIMITS: Final = Limits(max_open_orders=2**31, max_pending_sat=2**50, max_spend_per_day_sat=2**50)
"""What is recorded has happened already."""


ASK_AGAIN_S: Final = (2, 5, 10)
"""So long after each answer in a row that was none."""
AWAY_AFTER: Final = 2
"""Payments in a row of which the provider gave no word: of a single one it may never have any."""


class RecoverRefused(HoldpayError):
    """There is a database already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What could be recorded, oldest first. ``provider_problem``: why not all was asked of the provider; or empty."""

    node: NodeIdentity
    rebuilt: list[Rebuilt] = field(default_factory=list)
    unusable: list[Unusable] = field(default_factory=list)
    provider_problem: str = ""


# --- looking --------------------------------------------------------------------------------------------------------


async def survey(settings: Settings, clock: SystemClock, tell: Callable[[str], None]) -> Survey:
    """Reads LND's payments to the provider's nodes and asks the provider about each; ``tell`` gets the progress.

    Raises LndError's children and ConfigError. A provider that does not answer is no error: its word is left out.
    """
    nodes = paid_nodes(settings, database_path(settings))
    if not nodes.all:
        raise ConfigError(
            ["provider.payee_pubkeys is empty: name the provider's node there, so that its payments can be found."]
        )
    unusable: list[Unusable] = []
    async with LndLedger(lnd_settings(settings), clock) as ledger:
        node = await ledger.identity()
        tell(f"Reading the payments of node {node.pubkey[:16]}….")
        paid = await _payments_to(ledger, nodes.all, unusable)
    tell(f"{len(paid):,} went to the provider's node. Asking the provider about each.")
    if not nodes.are_known:
        tell("If holdpayd paid another node, add that to provider.payee_pubkeys and run this again.")
    found, problem = await _ask_provider(settings, clock, paid, tell)
    rebuilt = _rebuilt(found, node, settings.policy(), clock.now_ms(), unusable)
    return Survey(node=node, rebuilt=rebuilt, unusable=unusable, provider_problem=problem)


async def _payments_to(
    ledger: LndLedger, payees: frozenset[str], unusable: list[Unusable]
) -> list[tuple[StoredPayment, Invoice]]:
    paid = []
    async for payment in ledger.payments():
        # A failed payment has no attempts left, so that only its invoice tells where it went.
        if not (payment.last_node in payees or (payment.last_node is None and payment.payreq)):
            continue
        try:
            invoice = await ledger.decode(payment.payreq)
        except LndRefused as error:
            if payment.last_node in payees:
                unusable.append(Unusable(payment, f"lnd cannot read its invoice ({error.message})"))
            continue
        if invoice.payee in payees:
            paid.append((payment, invoice))
    return paid


async def _ask_provider(
    settings: Settings, clock: SystemClock, paid: Iterable[tuple[StoredPayment, Invoice]], tell: Callable[[str], None]
) -> tuple[list[Found], str]:
    """Stops asking once the provider stays away; then also the reason, as where it could not be understood."""
    provider = Sms4Sats(provider_settings(settings), clock, Random())  # noqa: S311 - jitter
    found, problem, unanswered = [], "", 0
    try:
        for payment, invoice in paid:
            word: ProviderReplied | None = None
            raw: str | None = None
            asked_at_ms = clock.now_ms()
            try:
                if unanswered < AWAY_AFTER:
                    reply = await _patiently(provider, clock, payment.payment_hash, tell)
                    word, raw, unanswered = ProviderReplied(asked_at_ms, reply.value), reply.raw, 0
            except ProviderUnavailable as error:
                unanswered, problem = unanswered + 1, error.message
            except ProviderRefused:
                unanswered = 0  # it knows no such order
            except ProviderError as error:
                unanswered, problem = 0, error.message
            found.append(Found(payment=payment, invoice=invoice, word=word, raw=raw))
    finally:
        await provider.aclose()
    return found, problem


async def _patiently(
    provider: Sms4Sats, clock: SystemClock, payment_hash: str, tell: Callable[[str], None]
) -> Reply[ProviderStatus]:
    """Asks again where the provider has a bad moment: without its word an order may close as if nothing had come.

    A pause that it wants is waited for before the next slot. Raises ProviderError.
    """
    for retry_s in ASK_AGAIN_S:
        try:
            return await _asked(provider, payment_hash)
        except ProviderUnavailable as error:
            tell(f"{error.message.partition('. ')[0]}. It is asked again.")
            await clock.sleep(retry_s)
    return await _asked(provider, payment_hash)


async def _asked(provider: Sms4Sats, payment_hash: str) -> Reply[ProviderStatus]:
    """The provider's order id is the payment hash, as far as anybody has seen. Raises ProviderError."""
    with await provider.slot(Lane.LOOK):
        return await provider.order_status(payment_hash)


def _rebuilt(
    found: list[Found], node: NodeIdentity, policy: Policy, now_ms: int, unusable: list[Unusable]
) -> list[Rebuilt]:
    rebuilt = []
    for each, name in zip(found, names([each.payment for each in found]), strict=True):
        result = rebuild(each, name, node, _country, policy, now_ms)
        if isinstance(result, Rebuilt):
            rebuilt.append(result)
        else:
            unusable.append(result)
    return sorted(rebuilt, key=lambda each: (each.request.created_at_ms, each.request.id))


def _country(name: str) -> tuple[int, str] | None:
    try:
        country = bundled().resolve(name)
    except InvalidRequest:
        return None
    return country.code, country.name


# --- the database ---------------------------------------------------------------------------------------------------


def refuse_if_used(path: Path) -> None:
    """Raises RecoverRefused, unless there is no database or one without orders; DatabaseForbidden."""
    try:
        with StoredBooks(path) as books:
            count = 0 if books.is_blank else len(books.order_ids())
    except FileNotFoundError:
        return
    except (DatabaseUnreadable, sqlite3.Error) as error:
        raise RecoverRefused(
            f"{path} is there and cannot be read ({error}). Move it and the files beside it that begin with its name"
            " to another folder, and keep them; then run this again."
        ) from error
    if count:
        raise RecoverRefused(
            f"{path} already holds {count:,} {'order' if count == 1 else 'orders'}; recover writes only where there are"
            " none. `holdpayd check` holds it against lnd. If it is beyond repair, move it and the files beside it that"
            " begin with its name to another folder, and keep them; then run this again."
        )


def database_path(settings: Settings) -> Path:
    """Where the daemon has its database."""
    return settings.daemon.state_dir / DATABASE


def write(path: Path, found: Survey, policy: Policy, now_ms: int) -> None:
    """Records the orders in a new database beside ``path`` and puts it there whole, in one rename.

    Hold the state lock. What is there already, an empty database or the log of a lost one, is kept under another name.
    Raises RecoverRefused, StoreError.
    """
    refuse_if_used(path)
    new = path.with_name(f"{path.name}.recovering")
    try:
        remove(new)
        _record(new, found.rebuilt)
        if worst(read_stored(new, policy, now_ms).findings) is Severity.ERROR:
            raise StoreError("The new database does not read back as it was written. Please report this.")
        remove_log(new)
        move_aside(path, "recover", now_ms)
        newest_of(new).replace(newest_of(path))
        new.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(
            f"{path} could not be written ({error.strerror}). Check the disk and run this again."
        ) from error


def _record(path: Path, orders: Iterable[Rebuilt]) -> None:
    store = SqliteStore(path)
    try:
        for rebuilt in orders:
            order = store.create(rebuilt.request, _NO_LIMITS, rebuilt.request.created_at_ms)
            for entry in rebuilt.entries:
                store.commit(order, entry.event, entry.step, entry.raw, entry.at_ms)
                order = entry.step.order
    finally:
        store.close()
    if log_of(path).exists():
        raise StoreError(f"The log of {path} could not be taken into it. Check the disk and run this again.")
