"""How much of its budget a client has used. Sums by index."""

from __future__ import annotations

import sqlite3
from typing import Final

from holdpay.core.budget import MINUTE_MS, Budget, Usage, Used, Window, window
from holdpay.core.outstanding import Outstanding
from holdpay.errors import LimitExceeded
from holdpay.ports import BudgetEntry
from holdpay.store.outstanding import IS_SPENT, OPEN, WORDS
from holdpay.store.rows import Row

_OPEN_OF_CLIENT: Final = " AND o.client <> '' AND o.client = :client"
_SPENDS: Final = "what = 'spend' AND l.client <> '' AND l.client = :client AND at_ms >= :from_ms AND at_ms < :before_ms"
SPENT_BY_CLIENT: Final = f"""
    SELECT coalesce(sum(msat), 0) AS msat, coalesce(sum(fee_msat), 0) AS fee_msat, min(at_ms) AS oldest_ms
    FROM ledger l WHERE {_SPENDS}
"""  # noqa: S608 - our own words only
SPENDS_IN_TURN: Final = f"SELECT at_ms, msat, fee_msat FROM ledger l WHERE {_SPENDS} ORDER BY at_ms"  # noqa: S608
# A minute under a fast clock counts for no longer than a minute: it bounds how fast a loop is, and no money.
RECENT: Final = """
    SELECT count(*) AS orders, min(created_at_ms) AS since_ms FROM orders
    WHERE client <> '' AND client = :client AND created_at_ms > :now_ms - :minute_ms
      AND created_at_ms < :now_ms + :minute_ms
"""
RESERVES: Final = f"""
    SELECT o.request_id AS id, o.created_at_ms AS at_ms, o.reserved_msat AS msat {OPEN} {_OPEN_OF_CLIENT}
      AND o.reserved_msat AND NOT coalesce({IS_SPENT}, 0)
    ORDER BY o.created_at_ms DESC, o.id DESC LIMIT :limit
"""
SPENDS: Final = f"""
    SELECT o.request_id AS id, at_ms, msat, fee_msat FROM ledger l JOIN orders o ON o.no = l.order_no WHERE {_SPENDS}
    ORDER BY at_ms DESC LIMIT :limit
"""  # noqa: S608 - our own words only


def usage(conn: sqlite3.Connection, budget: Budget, is_open: Outstanding, now_ms: int) -> Usage:
    """What the client has used. Within the transaction that records its next request, or any other. ``is_open``: of its
    open orders."""
    recent = conn.execute(RECENT, {"client": budget.client, "now_ms": now_ms, "minute_ms": MINUTE_MS}).fetchone()
    used = []
    for line in budget.lines():
        found = window(line.period, budget.renewal, now_ms)
        spent = conn.execute(SPENT_BY_CLIENT, _bounds(budget, found)).fetchone()
        one = Used(
            line=line,
            window=found,
            spent_msat=spent["fee_msat" if line.is_of_fees else "msat"],
            reserved_msat=is_open.pending_fee_msat if line.is_of_fees else is_open.pending_msat,
            oldest_ms=spent["oldest_ms"],
        )
        used.append(one)
    return Usage(
        budget=budget,
        used=tuple(used),
        open_orders=is_open.open_orders,
        recent_orders=recent["orders"],
        recent_since_ms=recent["since_ms"],
    )


def over_budget(
    conn: sqlite3.Connection, budget: Budget, is_open: Outstanding, order_msat: int, fee_msat: int, now_ms: int
) -> LimitExceeded | None:
    """The limit of the client that leaves no room for an order of ``order_msat``, of which ``fee_msat`` may go for
    routing; None: there is room."""
    return usage(conn, budget, is_open, now_ms).reached_by(
        order_msat, fee_msat, lambda used, over_msat: _room_at_ms(conn, budget, used, over_msat)
    )


def _room_at_ms(conn: sqlite3.Connection, budget: Budget, used: Used, over_msat: int) -> int | None:
    """See RoomAt."""
    if used.spent_msat < over_msat:
        return None
    if used.window.ends_at_ms is not None:
        return used.window.ends_at_ms
    for row in conn.execute(SPENDS_IN_TURN, _bounds(budget, used.window)):
        over_msat -= row["fee_msat" if used.line.is_of_fees else "msat"]
        if over_msat <= 0:
            return int(row["at_ms"]) + used.window.length_ms
    return None


def entries(conn: sqlite3.Connection, budget: Budget, now_ms: int, limit: int) -> list[BudgetEntry]:
    """The orders behind the sums, newest first: those that reserve something, then what was spent within the longest
    window."""
    windows = [window(line.period, budget.renewal, now_ms) for line in budget.lines()]
    of_client: Row = {**WORDS, "client": budget.client, "limit": limit}
    found = [
        BudgetEntry(request_id=row["id"], at_ms=row["at_ms"], reserved_msat=row["msat"])
        for row in conn.execute(RESERVES, of_client)
    ]
    if windows and len(found) < limit:
        longest = min(windows, key=lambda each: each.from_ms)
        for row in conn.execute(SPENDS, {**_bounds(budget, longest), "limit": limit - len(found)}):
            spent = BudgetEntry(
                request_id=row["id"], at_ms=row["at_ms"], spent_msat=row["msat"], fee_msat=row["fee_msat"]
            )
            found.append(spent)
    return found


def _bounds(budget: Budget, within: Window) -> Row:
    return {"client": budget.client, "from_ms": within.from_ms, "before_ms": within.before_ms}
