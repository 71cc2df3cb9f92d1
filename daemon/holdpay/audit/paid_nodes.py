"""Which nodes count as the provider's when lnd's payments are held against the books: those that are configured, and
those that any database at hand has paid or trusts. Only ``PayeeCheck.PIN`` keeps the daemon to the configured ones.
"""

from __future__ import annotations

import contextlib
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdpay.audit.database import DatabaseForbidden, DatabaseUnreadable, open_read_only
from holdpay.config import Settings
from holdpay.core.payees import PayeeCheck

_RECORDED: Final = ("SELECT pubkey FROM payees", "SELECT DISTINCT payee FROM payments")
"""Each by itself: an older database lacks the first, and damage may spare one of them."""


@dataclass(frozen=True, slots=True)
class PaidNodes:
    """``listed``: ``provider.payee_pubkeys``; ``recorded``: of the databases. Pubkeys, in hex."""

    listed: frozenset[str]
    recorded: frozenset[str]
    check: PayeeCheck

    @property
    def all(self) -> frozenset[str]:
        return self.listed | self.recorded

    @property
    def unlisted(self) -> list[str]:
        """Those that are known by a database only, which may be lost."""
        return sorted(self.recorded - self.listed)

    @property
    def are_known(self) -> bool:
        """False: the daemon may pay nodes that are not listed, and no database says which ones it did."""
        return bool(self.recorded or (self.listed and self.check is PayeeCheck.PIN))


def paid_nodes(settings: Settings, *databases: Path) -> PaidNodes:
    """A database that is missing, or cannot be read, adds none."""
    provider = settings.provider
    recorded = frozenset[str]().union(*(_recorded(path) for path in databases))
    return PaidNodes(frozenset(provider.payee_pubkeys), recorded, provider.payee_check)


def _recorded(path: Path) -> set[str]:
    found: set[str] = set()
    with (
        contextlib.suppress(FileNotFoundError, DatabaseForbidden, DatabaseUnreadable),
        closing(open_read_only(path, is_glance=True)) as db,
    ):
        for sql in _RECORDED:
            with contextlib.suppress(sqlite3.Error):
                found.update(pubkey for (pubkey,) in db.execute(sql))
    return found
