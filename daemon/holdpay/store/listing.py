"""Which orders a client asks for, as SQL in the words of the indexes."""

from __future__ import annotations

from typing import Any, Final

from holdpay.ports import OrderFilter

OF_CLIENT: Final = "o.client <> '' AND o.client = ?"
"""In the words of the indexes of clients."""


def where(wanted: OrderFilter) -> tuple[str, list[Any]]:
    """What follows on SELECT_ORDERS, with its values. Newest first."""
    texts = ["1"]
    values: list[Any] = []

    def add(text: str, *given: Any) -> None:
        texts.append(text)
        values.extend(given)

    if wanted.client is not None:
        add(OF_CLIENT, wanted.client)
    if wanted.open_only:
        add("o.closed_at_ms IS NULL")
    if wanted.closed_only and wanted.end is None:  # what has an end is closed
        add("o.closed_at_ms IS NOT NULL")
    if wanted.kind:
        add("o.kind = ?", wanted.kind)
    if wanted.end is not None:
        add('o."end" = ?', wanted.end.value)
    if wanted.created_from_ms is not None:
        add("o.created_at_ms >= ?", wanted.created_from_ms)
    # One upper bound, the lower of the two: SQLite looks up one and would walk over what the other leaves out.
    before_ms = wanted.created_before_ms
    if wanted.before is not None and (before_ms is None or wanted.before[0] < before_ms):
        add("(o.created_at_ms, o.id) < (?, ?)", *wanted.before)
    elif before_ms is not None:
        add("o.created_at_ms < ?", before_ms)
    return f"WHERE {' AND '.join(texts)} ORDER BY o.created_at_ms DESC, o.id DESC LIMIT ?", [*values, wanted.limit]
