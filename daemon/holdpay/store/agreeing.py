"""Whether the tables say of each open order what its journal says last.

Both are of one commit, so they do: but for a file that lies beside the log of another one, as where a copy was put in
place by hand and the log stayed. SQLite plays it in, and some pages are of then and some of now. An order that was paid
and is over may be one that is still to be placed, and nothing else tells: the journal ends where it should.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from holdpay.core.charge import ChargeState
from holdpay.core.states import HtlcState, OrderState
from holdpay.store.integrity import damaged
from holdpay.store.journal import written
from holdpay.store.reading import BAD_ROW
from holdpay.store.rows import Row

SELECT_OPEN: Final = """
    SELECT o.no, o.id, o.state, o.closed_at_ms, p.htlc AS "payment.htlc", c.state AS "charge.state"
    FROM orders o INDEXED BY orders_open
    LEFT JOIN payments p ON p.order_no = o.no LEFT JOIN charges c ON c.order_no = o.no
    WHERE o.closed_at_ms IS NULL
"""
LATEST: Final = 200
"""Rows of an order that are read at most: a number that is rented for a year has tens of thousands."""
SELECT_LATEST: Final = f"SELECT at_ms, entry FROM journal WHERE order_no = ? ORDER BY cursor DESC LIMIT {LATEST}"  # noqa: S608
_WORDS: Final = {"state": OrderState, "payment.htlc": HtlcState, "charge.state": ChargeState}
_PAID_BY: Final = frozenset({"payment.htlc", "charge.state"})
_COLUMNS: Final = (*_WORDS, "closed_at_ms")


def refuse_another_log(conn: sqlite3.Connection) -> None:
    """``conn``: its rows are sqlite3.Row. An order whose rows make no sense is not judged. Raises sqlite3.Error."""
    for row in conn.execute(SELECT_OPEN):
        try:
            _check(row)
            told = _told(conn, row["no"])
        except BAD_ROW:
            continue
        if any(row[column] is not None for column in _PAID_BY):
            told.pop("state", None)  # one that does not fit its payment breaks a law, which quarantine is for
        if any(row[column] != value for column, value in told.items()):
            raise damaged(
                f"order {row['id']} is not what its journal says last, as where a copy was put beside the log of"
                " another file"
            )


def _check(row: sqlite3.Row) -> None:
    """Raises one of BAD_ROW."""
    for column, word in _WORDS.items():
        if row[column] is not None:
            word(row[column])


def _told(conn: sqlite3.Connection, order_no: int) -> Row:
    """What the journal has last of the columns, as far as that is known with how it is paid. Raises one of BAD_ROW."""
    told: Row = {}
    for row in conn.execute(SELECT_LATEST, (order_no,)):  # mostly the last few are enough
        change = written(row).change
        told = {**{column: change[column] for column in _COLUMNS if column in change}, **told}
        if "state" in told and not _PAID_BY.isdisjoint(told):
            break
    return told
