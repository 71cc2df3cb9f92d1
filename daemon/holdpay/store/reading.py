"""Rows → orders: the one way in which requests, orders and what was delivered are read back."""

from __future__ import annotations

import sqlite3
from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter

from holdpay.core.charge import Charge
from holdpay.core.items import Item
from holdpay.core.kinds import AnySpec
from holdpay.core.model import Order, Payment, Request
from holdpay.errors import OrderUnreadable, StoreError
from holdpay.store.changes import ELSEWHERE, order_of
from holdpay.store.database import remedy
from holdpay.store.rows import column_names, from_row

SPEC: Final[TypeAdapter[AnySpec]] = TypeAdapter(Annotated[AnySpec, Field(discriminator="kind")])

ORDER_COLUMNS: Final = column_names(Order, without=ELSEWHERE)
PAYMENT_COLUMNS: Final = column_names(Payment)
CHARGE_COLUMNS: Final = column_names(Charge)
ITEM_COLUMNS: Final = column_names(Item)
REQUEST_COLUMNS: Final = ["id", "key", "fingerprint", "kind", "spec", "is_prepaid", "created_at_ms"]

# What is the buyer's own business comes first, as long as it is there.
_OF_REQUEST = (
    ", ".join(f'r."{c}" AS "r.{c}"' for c in REQUEST_COLUMNS if c != "spec") + ', coalesce(s.spec, r.spec) AS "r.spec"'
)
_WITH_REQUEST = " LEFT JOIN requests r ON r.id = o.request_id LEFT JOIN secrets s ON s.request_id = o.request_id "
SELECT_ORDERS: Final = (
    "SELECT "  # noqa: S608 - names of our own columns only
    + ", ".join(
        [f'o."{c}" AS "{c}"' for c in ORDER_COLUMNS]
        + [f'p."{c}" AS "payment.{c}"' for c in PAYMENT_COLUMNS]
        + [f'c."{c}" AS "charge.{c}"' for c in CHARGE_COLUMNS]
    )
    + f", {_OF_REQUEST}"
    + " FROM orders o LEFT JOIN payments p ON p.order_id = o.id LEFT JOIN charges c ON c.order_id = o.id"
    + _WITH_REQUEST
)
SELECT_REQUEST: Final = f"SELECT o.erased_at_ms, {_OF_REQUEST} FROM orders o {_WITH_REQUEST} WHERE o.id = ?"  # noqa: S608
SELECT_ITEMS: Final = f"SELECT {', '.join(ITEM_COLUMNS)}, cursor FROM items WHERE order_id = ? ORDER BY seq"  # noqa: S608

BAD_ROW: Final = (ValueError, KeyError, TypeError, AttributeError)
"""What reading a row that makes no sense raises."""


def rows(conn: sqlite3.Connection, sql: str, *values: Any) -> list[sqlite3.Row]:
    """Raises StoreError."""
    try:
        return conn.execute(sql, values).fetchall()
    except sqlite3.Error as error:
        raise StoreError(f"The database could not be read: {error}. {remedy(error)}.") from error


def request_of(row: sqlite3.Row) -> Request:
    """Of the columns that begin with ``r.``. Raises one of BAD_ROW."""
    return Request(
        id=row["r.id"],
        key=row["r.key"],
        fingerprint=row["r.fingerprint"],
        spec=SPEC.validate_json(row["r.spec"]),
        is_prepaid=bool(row["r.is_prepaid"]),
        created_at_ms=row["r.created_at_ms"],
    )


def item_of(row: sqlite3.Row) -> Item:
    """Raises one of BAD_ROW."""
    return from_row(Item, dict(all_text(row)))


def all_text(row: sqlite3.Row) -> sqlite3.Row:
    """The row. Raises ValueError if it has text that is none (a flipped bit)."""
    for value in row:
        if isinstance(value, str):
            value.encode()
    return row


def to_order(conn: sqlite3.Connection, row: sqlite3.Row) -> Order:
    """A row of SELECT_ORDERS, with its items. Raises OrderUnreadable."""
    try:
        all_text(row)
        columns = {key: row[key] for key in row.keys() if not key.startswith("r.")}  # noqa: SIM118 - a Row is no dict
        items = tuple(item_of(found) for found in rows(conn, SELECT_ITEMS, row["id"]))
        return order_of(columns, request_of(row), items)
    except BAD_ROW as error:
        raise unreadable(row["id"]) from error


def unreadable(order_id: str) -> OrderUnreadable:
    return OrderUnreadable(
        f"Order {order_id.encode(errors='replace').decode()} is in the database, and its row makes no sense."
        " See what `holdpayd check` says of it; the other orders go on."
    )
