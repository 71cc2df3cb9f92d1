"""What was spent within the last day: added up once, and from then on carried from one look to the next."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from holdpay.store.reading import rows

DAY_MS: Final = 24 * 3600 * 1000
_SUM: Final = "SELECT coalesce(sum(msat), 0) FROM ledger WHERE what = 'spend'"
# The ledger only ever grows, also by other programs: what is new in it, what the day has reached since (it lay ahead,
# under a wall clock that was wrong), less what the day has left behind. The plus keeps SQLite from reading the whole
# day for the few that are new.
# ?1: the last row that is known; ?2, ?3: the bounds that are known; ?4, ?5: those of now.
SPENT_SINCE: Final = f"""
    SELECT ({_SUM} AND id > ?1 AND +at_ms > ?4 AND +at_ms < ?5)
      + ({_SUM} AND id <= ?1 AND at_ms >= ?3 AND at_ms < ?5)
      - ({_SUM} AND id <= ?1 AND at_ms > ?2 AND at_ms <= ?4),
      (SELECT coalesce(max(id), 0) FROM ledger)
"""  # noqa: S608 - our own words only
LAST_ID: Final = "SELECT coalesce(max(id), 0) FROM ledger"


@dataclass(frozen=True, slots=True)
class _Sum:
    """Of what was spent after ``from_ms`` and before ``before_ms``, in the ledger's rows up to ``last_id``."""

    msat: int
    from_ms: int
    before_ms: int
    last_id: int


class SpentDay:
    """Of a connection's database."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self._known: _Sum | None = None

    def msat(self, now_ms: int) -> int:
        """What lies more than a day ahead was spent under a wall clock that was wrong, and does not count. Raises
        StoreError."""
        from_ms, before_ms = now_ms - DAY_MS, now_ms + DAY_MS
        known = self._known
        if known is None or from_ms < known.from_ms:  # the wall clock was set back
            ((last_id,),) = rows(self._conn, LAST_ID)
            known = _Sum(0, from_ms, from_ms + 1, last_id)
        since = rows(self._conn, SPENT_SINCE, known.last_id, known.from_ms, known.before_ms, from_ms, before_ms)
        ((change_msat, last_id),) = since
        found = _Sum(known.msat + change_msat, from_ms, before_ms, last_id)
        if not self._conn.in_transaction:  # one may be taken back
            self._known = found
        return found.msat
