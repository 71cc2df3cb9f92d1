"""What the open orders may still cost: added up once, and from then on carried from one change to the next."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Final

from holdpay.core.charge import ChargeState
from holdpay.core.model import Order
from holdpay.core.outstanding import NOTHING, Outstanding, outstanding
from holdpay.core.states import HtlcState
from holdpay.store.rows import Row

# An open order that is settled or charged, or may be charged, holds no HTLC. What counts as spent is not pending too.
IS_SPENT: Final = "p.htlc IN (:settled, :gone) OR c.state <> :refused"
OPEN: Final = """
    FROM orders o LEFT JOIN payments p ON p.order_no = o.no LEFT JOIN charges c ON c.order_no = o.no
    WHERE o.closed_at_ms IS NULL
"""
WORDS: Final[Row] = {
    "settled": HtlcState.SETTLED.value,
    "gone": HtlcState.GONE.value,
    "charged": ChargeState.CHARGED.value,
    "unknown": ChargeState.UNKNOWN.value,
    "returned": ChargeState.RETURNED.value,
    "refused": ChargeState.REFUSED.value,
}
ADDED_UP: Final = f"""
    SELECT o.client, count(*) AS all_orders,
      coalesce(sum(p.htlc IS :settled OR c.state IN (:charged, :unknown, :returned)), 0) AS settled_orders,
      coalesce(sum(iif({IS_SPENT}, 0, o.reserved_msat)), 0) AS pending_msat,
      coalesce(sum(iif({IS_SPENT} OR NOT o.reserved_msat, 0, o.max_fee_sat * 1000)), 0) AS pending_fee_msat
    {OPEN} GROUP BY o.client
"""


def added_up(conn: sqlite3.Connection) -> dict[str, Outstanding]:
    """Of each client that has an open order, also of those whose row makes no sense. Reads every open order."""
    return {
        row["client"]: Outstanding(
            open_orders=row["all_orders"] - row["settled_orders"],
            settled_orders=row["settled_orders"],
            pending_msat=row["pending_msat"],
            pending_fee_msat=row["pending_fee_msat"],
        )
        for row in conn.execute(ADDED_UP, WORDS)
    }


class OutstandingOf:
    """Of a connection's database, to which nobody else writes orders meanwhile: what ``added_up`` would say, also in a
    transaction, at any moment."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self._known: Mapping[str, Outstanding] | None = None

    def client(self, client: str) -> Outstanding:
        return self._by_client().get(client, NOTHING)

    def all(self) -> Outstanding:
        return sum(self._by_client().values(), NOTHING)

    def changed(self, before: Order | None, after: Order) -> None:
        """To be called in the transaction that writes it, when it is written. ``before`` None: it was not there."""
        more = outstanding(after) - outstanding(before)
        if self._known is not None and more != NOTHING:
            client = after.request.client
            self._known = {**self._known, client: self._known.get(client, NOTHING) + more}

    @contextlib.contextmanager
    def carried(self) -> Iterator[None]:
        """Around a transaction: of one that fails only the database knows what it has left."""
        known = self._known
        try:
            yield
        except BaseException:
            if self._known is not known:
                self._known = None
            raise

    def _by_client(self) -> Mapping[str, Outstanding]:
        if self._known is None:
            self._known = added_up(self._conn)
        return self._known
