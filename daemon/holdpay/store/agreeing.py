"""Whether the tables say of each order what the journal says last.

Both are of one commit, so they do: but for a file that lies beside the log of another one, as where a copy was put in
place by hand and the log stayed. SQLite plays it in, and some pages are of then and some of now. An order that was paid
and is over may be one that is still to be placed, or be missing, and nothing else tells: the journal ends where it
should. Its end is what the log brought, so that is where this begins, and nothing is looked up by an index, of which
pages may be of then, too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from holdpay.core.charge import ChargeState
from holdpay.core.states import HtlcState, OrderState
from holdpay.store.integrity import damaged
from holdpay.store.journal import written
from holdpay.store.reading import BAD_ROW
from holdpay.store.rows import Row

LATEST: Final = 5_000
"""Rows of the journal that are read: some tenths of a second, and what a day brings."""
SELECT_LATEST: Final = f"SELECT order_no, at_ms, entry FROM journal ORDER BY cursor DESC LIMIT {LATEST}"  # noqa: S608
SELECT_ORDER: Final = """
    SELECT o.id, o.state, o.closed_at_ms, p.htlc AS "payment.htlc", c.state AS "charge.state"
    FROM orders o
    LEFT JOIN payments p ON p.order_no = o.no LEFT JOIN charges c ON c.order_no = o.no
    WHERE o.no = ?
"""
_WORDS: Final = {"state": OrderState, "payment.htlc": HtlcState, "charge.state": ChargeState}
_PAID_BY: Final = frozenset({"payment.htlc", "charge.state"})
_COLUMNS: Final = (*_WORDS, "closed_at_ms")
_WHY: Final = ", as where a copy was put beside the log of another file"


def refuse_another_log(conn: sqlite3.Connection) -> None:
    """``conn``: its rows are sqlite3.Row. What makes no sense is passed over. Raises sqlite3.Error."""
    for order_no, told in _told(conn).items():
        found = conn.execute(SELECT_ORDER, (order_no,)).fetchone()
        if found is None:
            raise damaged(f"an order of its journal is missing ({order_no}){_WHY}")
        row = dict(found)
        if _makes_sense(row) and _makes_sense(told) and _differs(row, told):
            raise damaged(f"order {row['id']} is not what its journal says last{_WHY}")


def _told(conn: sqlite3.Connection) -> dict[int, Row]:
    """What the journal has last of the columns, by order, as far as its latest rows say."""
    told: dict[int, Row] = {}
    unread: set[int] = set()
    for row in conn.execute(SELECT_LATEST):
        try:
            change = written(row).change
        except BAD_ROW:
            unread.add(row["order_no"])
            continue
        of_order = told.setdefault(row["order_no"], {})
        for column in _COLUMNS:
            if column in change:
                of_order.setdefault(column, change[column])
    return {order_no: columns for order_no, columns in told.items() if order_no not in unread}


def _makes_sense(columns: Mapping[str, Any]) -> bool:
    try:
        for column, word in _WORDS.items():
            if columns.get(column) is not None:
                word(columns[column])
    except BAD_ROW:
        return False
    return True


def _differs(row: Row, told: Row) -> bool:
    """A state that does not fit its payment breaks a law, which quarantine is for; when an order was closed is of no
    weight."""
    judged = dict(told)
    if any(row[column] is not None for column in _PAID_BY):
        judged.pop("state", None)
    if "closed_at_ms" in judged and (judged.pop("closed_at_ms") is None) != (row["closed_at_ms"] is None):
        return True
    return any(row[column] != value for column, value in judged.items())
