"""An order as columns, and what an event changed of it, as its tables and the journal have it.

Columns have the names of the tables; in the journal a payment's begin with ``payment.``, a charge's with ``charge.``.
What is NULL from the beginning is left out, and what was not there yet when a row was written has its field's default.
The request and the items are not in it: they stand in tables of their own. A payment's payreq is its order's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from holdpay.core.charge import Charge
from holdpay.core.items import Item
from holdpay.core.model import Order, Payment, Request
from holdpay.store.rows import NOTHING, Row, changed, column_names, defaults, from_row, to_row

T = TypeVar("T")

ELSEWHERE: Final = frozenset({"request", "items", "payment", "charge"})
"""Fields of an order that its own table does not have."""
OF_THE_ORDER: Final = frozenset({"payreq"})
"""Fields of a payment that are its order's."""
_PAYMENT: Final = "payment."
_CHARGE: Final = "charge."
_PAYMENT_COLUMNS: Final = [_PAYMENT + column for column in column_names(Payment, without=OF_THE_ORDER)]
_CHARGE_COLUMNS: Final = [_CHARGE + column for column in column_names(Charge)]
_DEFAULTS: Final[Row] = {
    **defaults(Order, without=ELSEWHERE),
    **{_PAYMENT + column: value for column, value in defaults(Payment).items()},
    **{_CHARGE + column: value for column, value in defaults(Charge).items()},
}


@dataclass(frozen=True, slots=True)
class Changed:
    """What is written of an order, its payment and its charge, by the names of each table's own columns."""

    order: Row
    payment: Row
    charge: Row

    def columns(self) -> Row:
        """All of them, by the journal's names."""
        return {**self.order, **_under(_PAYMENT, self.payment), **_under(_CHARGE, self.charge)}


def change(before: Order | None, after: Order) -> Changed:
    """The columns that differ; of an order, a payment or a charge that is new, those that are not NULL. One that is
    there once stays."""
    return Changed(
        _difference(before, after, ELSEWHERE),
        _difference(before and before.payment, after.payment, OF_THE_ORDER),
        _difference(before and before.charge, after.charge, NOTHING),
    )


def _difference(before: T | None, after: T | None, without: frozenset[str]) -> Row:
    if after is None or before is after:
        return {}
    if before is None:
        return {column: value for column, value in to_row(after, without=without).items() if value is not None}
    return changed(before, after, without=without)


def order_of(columns: Row, request: Request, items: tuple[Item, ...]) -> Order:
    """Of columns by the journal's names. Raises ValueError, KeyError or TypeError if the columns make no sense."""
    all_columns = {**_DEFAULTS, **columns}
    return from_row(
        Order,
        all_columns,
        request=request,
        items=items,
        payment=from_row(Payment, all_columns, prefix=_PAYMENT, payreq=columns.get("payreq"))
        if _is_any(columns, _PAYMENT_COLUMNS)
        else None,
        charge=from_row(Charge, all_columns, prefix=_CHARGE) if _is_any(columns, _CHARGE_COLUMNS) else None,
    )


def _is_any(columns: Row, names: Sequence[str]) -> bool:
    return any(columns.get(name) is not None for name in names)


def _under(prefix: str, columns: Row) -> Row:
    return {prefix + column: value for column, value in columns.items()}
