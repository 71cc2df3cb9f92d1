"""`holdpayd payees`: the record of the nodes that were paid, and which of them a person trusts.

Works beside a running daemon, which looks the record up anew for every invoice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from holdpay.audit.database import is_there
from holdpay.audit.recover import database_path
from holdpay.config import Settings
from holdpay.core.payees import Payee, PayeeCheck, Trust
from holdpay.errors import HoldpayError
from holdpay.store.database import open_beside, transaction
from holdpay.store.payees import add_payee, all_payees, remove_payee

_PUBKEY: Final = re.compile("0[23][0-9a-f]{64}")
_TRUSTED: Final = {
    Trust.LIST: "yes, by provider.payee_pubkeys",
    Trust.FIRST_USE: "yes, since its first use",
    Trust.BY_HAND: "yes, by hand",
    None: "no",
}


class PayeesRefused(HoldpayError):
    """The record cannot be read or changed so."""


def listed(settings: Settings) -> list[Payee]:
    """Oldest first. Raises PayeesRefused without a database, StoreError."""
    with open_beside(_path(settings)) as conn:
        return all_payees(conn)


def add(settings: Settings, pubkey: str, now_ms: int) -> str:
    """Trusts a node. Returns what was done, in a sentence. Raises PayeesRefused, StoreError."""
    pubkey = _checked(pubkey)
    with open_beside(_path(settings)) as conn, transaction(conn):
        is_new = add_payee(conn, pubkey, now_ms)
    return f"{pubkey} is trusted from now on." if is_new else f"{pubkey} is trusted already."


def remove(settings: Settings, pubkey: str) -> str:
    """Forgets a node; without one that is trusted, the next first use counts. Raises PayeesRefused, StoreError."""
    pubkey = _checked(pubkey)
    with open_beside(_path(settings)) as conn, transaction(conn):
        if not remove_payee(conn, pubkey):
            raise PayeesRefused(f"{pubkey} is not in the record. `holdpayd payees` shows it.")
        is_last = not any(payee.trust for payee in all_payees(conn))
    after = " No node is trusted now: on first use, the next invoice's payee will be." if is_last else ""
    return f"{pubkey} is forgotten.{after}"


def lines(payees: Sequence[Payee]) -> Iterator[str]:
    """A few lines for each node."""
    if not payees:
        yield "No node was paid yet, and none was added."
    for payee in payees:
        yield payee.pubkey
        yield f"    trusted     {_TRUSTED[payee.trust]}"
        if payee.last_seen_at_ms is None:
            yield f"    added       {_time(payee.added_at_ms)}; no invoice of it was taken yet"
            continue
        first = f", order {payee.first_order}" if payee.first_order else ""
        yield f"    first seen  {_time(payee.added_at_ms)}{first}"
        invoices = "invoice" if payee.times == 1 else "invoices"
        yield f"    last seen   {_time(payee.last_seen_at_ms)}; {payee.times:,} {invoices} taken"


def remark(settings: Settings) -> str:
    """What the record is worth under this configuration; empty: it decides."""
    check = settings.provider.payee_check
    if check is PayeeCheck.FIRST_USE:
        return ""
    return (
        f'provider.payee_check is "{check}", so this record decides nothing;'
        f" provider.payee_pubkeys does{' not either' if check is PayeeCheck.OFF else ''}."
    )


def _path(settings: Settings) -> Path:
    path = database_path(settings)
    if not is_there(path):
        raise PayeesRefused(f"There is no database {path}. See that --config names the daemon's configuration.")
    return path


def _checked(pubkey: str) -> str:
    text = pubkey.strip().lower()
    if not _PUBKEY.fullmatch(text):
        raise PayeesRefused("A node's id has 66 hex digits and begins with 02 or 03. Give the whole of it.")
    return text


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
