"""Which requests a client asks for, as SQL in the words of the indexes."""

from __future__ import annotations

from typing import Any, Final

from holdpay.ports import OrderFilter

OF_CLIENT: Final = "r.client <> '' AND r.client = ?"
"""In the words of the indexes of clients."""


def where(wanted: OrderFilter) -> tuple[str, list[Any]]:
    """The ids of requests, with the values of the statement. Newest first."""
    texts = ["1"]
    values: list[Any] = []

    def add(text: str, *given: Any) -> None:
        texts.append(text)
        values.extend(given)

    if wanted.client is not None:
        add(OF_CLIENT, wanted.client)
    if wanted.open_only:
        add("r.closed_at_ms IS NULL")
    if wanted.closed_only and wanted.end is None:  # what has an end is closed
        add("r.closed_at_ms IS NOT NULL")
    if wanted.kind:
        add("r.kind = ?", wanted.kind)
    if wanted.end is not None:
        add('r."end" = ?', wanted.end.value)
    if wanted.created_from_ms is not None:
        add("r.created_at_ms >= ?", wanted.created_from_ms)
    # One upper bound, the lower of the two: SQLite looks up one and would walk over what the other leaves out.
    before_ms = wanted.created_before_ms
    if wanted.before is not None and (before_ms is None or wanted.before[0] < before_ms):
        add("(r.created_at_ms, r.id) < (?, ?)", *wanted.before)
    elif before_ms is not None:
        add("r.created_at_ms < ?", before_ms)
    order = "ORDER BY r.created_at_ms DESC, r.id DESC LIMIT ?"
    return f"SELECT r.id FROM requests r WHERE {' AND '.join(texts)} {order}", [*values, wanted.limit]  # noqa: S608 - our own words only
