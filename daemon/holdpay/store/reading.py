"""Rows → orders: the one way in which requests, orders and what was delivered are read back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter

from holdpay.core.charge import Charge
from holdpay.core.items import Item
from holdpay.core.kinds import AnySpec
from holdpay.core.model import Order, Payment, Request
from holdpay.core.strategy import Strategy
from holdpay.errors import OrderUnreadable, StoreError
from holdpay.store.changes import ELSEWHERE, OF_THE_ORDER, order_of
from holdpay.store.database import remedy
from holdpay.store.rows import column_names, from_row
from holdpay.store.sealing import unseal

STRATEGY: Final[TypeAdapter[Strategy]] = TypeAdapter(Strategy)
SPEC: Final[TypeAdapter[AnySpec]] = TypeAdapter(Annotated[AnySpec, Field(discriminator="kind")])

ORDER_COLUMNS: Final = column_names(Order, without=ELSEWHERE)
PAYMENT_COLUMNS: Final = column_names(Payment, without=OF_THE_ORDER)
CHARGE_COLUMNS: Final = column_names(Charge)
ITEM_COLUMNS: Final = column_names(Item)
REQUEST_COLUMNS: Final = [
    *("id", "client", "key", "fingerprint", "kind", "spec", "is_prepaid", "created_at_ms", "strategy")
]

_OF_A_REQUEST: Final = {
    "r.no": "o.no",
    "r.seal": "k.key",
    "r.sealed_spec": "s.spec",
    "r.sealed_fingerprint": "s.fingerprint",
    **{f"r.{column}": f'r."{column}"' for column in REQUEST_COLUMNS},
}
_WITH_REQUEST = (
    " LEFT JOIN requests r ON r.id = o.request_id LEFT JOIN secrets s ON s.request_id = o.request_id"
    " LEFT JOIN keys k ON k.order_no = o.no "
)
_OF_AN_ORDER: Final = {
    **{column: f'o."{column}"' for column in ORDER_COLUMNS},
    **{f"payment.{column}": f'p."{column}"' for column in PAYMENT_COLUMNS},
    **{f"charge.{column}": f'c."{column}"' for column in CHARGE_COLUMNS},
}
_COLUMNS: Final = (*_OF_AN_ORDER, *_OF_A_REQUEST)


def _named(places: Mapping[str, str]) -> str:
    return ", ".join(f'{place} AS "{column}"' for column, place in places.items())


SELECT_ORDERS: Final = (
    f"SELECT {_named(_OF_AN_ORDER)}, {_named(_OF_A_REQUEST)}"  # noqa: S608 - names of our own columns only
    " FROM orders o LEFT JOIN payments p ON p.order_no = o.no LEFT JOIN charges c ON c.order_no = o.no" + _WITH_REQUEST
)
SELECT_REQUEST: Final = (
    f"SELECT o.id, o.erased_at_ms, {_named(_OF_A_REQUEST)} FROM orders o {_WITH_REQUEST} WHERE o.no = ?"  # noqa: S608
)
SELECT_ITEMS: Final = f"SELECT {', '.join(ITEM_COLUMNS)}, seq, cursor FROM items WHERE order_no = ? ORDER BY seq"  # noqa: S608

SEALED_SPEC: Final = "spec"
"""What a request's whole spec is sealed as."""
SEALED_FINGERPRINT: Final = "fingerprint"
"""What the fingerprint of a request is sealed as, if what the buyer wrote can be found from it by guessing."""

BAD_ROW: Final = (ValueError, KeyError, TypeError, AttributeError)
"""What reading a row that makes no sense raises."""


def rows(conn: sqlite3.Connection, sql: str, *values: Any) -> list[sqlite3.Row]:
    """Raises StoreError."""
    with reading():
        return conn.execute(sql, values).fetchall()


@contextmanager
def reading() -> Iterator[None]:
    """Raises StoreError for what SQLite raises within."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"The database could not be read: {error}. {remedy(error)}.") from error


def request_of(row: Mapping[str, Any] | sqlite3.Row) -> Request:
    """Of the columns that begin with ``r.``. Raises one of BAD_ROW."""
    # What is the buyer's own business comes first, as long as it is there.
    sealed, key = row["r.sealed_spec"], row["r.seal"]
    return Request(
        id=row["r.id"],
        client=row["r.client"],
        key=row["r.key"],
        fingerprint=row["r.fingerprint"]
        if sealed is None
        else unseal(key, SEALED_FINGERPRINT, row["r.sealed_fingerprint"]).decode(),
        spec=_plain(row["r.spec"]) if sealed is None else SPEC.validate_json(unseal(key, SEALED_SPEC, sealed)),
        is_prepaid=bool(row["r.is_prepaid"]),
        created_at_ms=row["r.created_at_ms"],
        strategy=None if row["r.strategy"] is None else STRATEGY.validate_json(row["r.strategy"]),
    )


@lru_cache(maxsize=1_000)
def _plain(spec: str) -> AnySpec:
    """Many ask for the same; what is the buyer's own business is not in it."""
    return SPEC.validate_json(spec)


def items_of(conn: sqlite3.Connection, row: Mapping[str, Any] | sqlite3.Row) -> Iterator[tuple[int, Item]]:
    """Of a row's order, each with the cursor of the journal row that brought it. Raises one of BAD_ROW."""
    for found in rows(conn, SELECT_ITEMS, row["r.no"]):
        values = dict(all_text(found))
        if isinstance(values["text"], bytes):
            name = name_of_item(found["cursor"], found["seq"])
            values["text"] = unseal(row["r.seal"], name, values["text"]).decode()
        yield found["cursor"], from_row(Item, values)


def name_of_item(cursor: int, seq: int) -> str:
    """What an item is sealed as."""
    return f"item {cursor} {seq}"


def lenient(data: bytes) -> str:
    """The text_factory of a connection that reads orders: text that is none (a flipped bit) makes one order unreadable,
    not the query that meets it."""
    return data.decode(errors="surrogateescape")


def all_text(row: sqlite3.Row) -> sqlite3.Row:
    """The row. Raises ValueError if it has text that is none (a flipped bit)."""
    for value in row:
        if isinstance(value, str):
            value.encode()
    return row


def to_order(conn: sqlite3.Connection, row: sqlite3.Row) -> Order:
    """A row of SELECT_ORDERS, with its items. Raises OrderUnreadable."""
    try:
        # A dict: sqlite3.Row compares each name with those of all columns before it.
        columns = dict(zip(_COLUMNS, all_text(row), strict=True))
        return order_of(columns, request_of(columns), tuple(item for _, item in items_of(conn, columns)))
    except BAD_ROW as error:
        raise unreadable(row["id"]) from error


def unreadable(order_id: str) -> OrderUnreadable:
    return OrderUnreadable(
        f"Order {order_id.encode(errors='replace').decode()} is in the database, and its row makes no sense."
        " See what `holdpayd check` says of it; the other orders go on."
    )
