"""An order as columns, and what an event changed of it, as the journal has it.

Columns have the names of the tables; a payment's begin with ``payment.``, a charge's with ``charge.``. What is NULL
from the beginning is left out, and what was not there yet when a row was written has its field's default. The request
and the items are not in it: they stand in tables of their own. A payment's payreq is its order's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from holdpay.core.charge import Charge
from holdpay.core.items import Item
from holdpay.core.model import Order, Payment, Request
from holdpay.store.rows import Row, changed, column_names, defaults, from_row, to_row

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


def columns_of(order: Order) -> Row:
    """All columns of an order, its payment and its charge."""
    return {
        **to_row(order, without=ELSEWHERE),
        **_nested(_PAYMENT, order.payment),
        **_nested(_CHARGE, order.charge),
    }


def change(before: Order, after: Order) -> Row:
    """The columns that differ; of a payment or a charge that is new, those that are not NULL. One that is there once
    stays."""
    return {
        **changed(before, after, without=ELSEWHERE),
        **_changed_in(_PAYMENT, before.payment, after.payment),
        **_changed_in(_CHARGE, before.charge, after.charge),
    }


def _changed_in(prefix: str, before: Payment | Charge | None, after: Payment | Charge | None) -> Row:
    if after is None or before is after:
        return {}
    if before is None:
        return {column: value for column, value in _nested(prefix, after).items() if value is not None}
    return {prefix + column: value for column, value in changed(before, after, without=OF_THE_ORDER).items()}


def own(columns: Row) -> Row:
    """The order's own columns."""
    return {column: value for column, value in columns.items() if "." not in column}


def of_payment(columns: Row) -> Row:
    return _under(_PAYMENT, columns)


def of_charge(columns: Row) -> Row:
    return _under(_CHARGE, columns)


def order_of(columns: Row, request: Request, items: tuple[Item, ...]) -> Order:
    """The inverse of ``columns_of``. Raises ValueError, KeyError or TypeError if the columns make no sense."""
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


def _nested(prefix: str, value: Payment | Charge | None) -> Row:
    if value is None:
        return {}
    return {prefix + column: found for column, found in to_row(value, without=OF_THE_ORDER).items()}


def _under(prefix: str, columns: Row) -> Row:
    return {column.removeprefix(prefix): found for column, found in columns.items() if column.startswith(prefix)}
