"""The journal: what each event changed, and the order as it was right after it, folded from the changes."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from pydantic import TypeAdapter

from holdpay.core.events import Event, ProviderConfused, ProviderReplied, event_name
from holdpay.core.items import Item
from holdpay.core.model import Order, Request
from holdpay.ports import Update
from holdpay.store.changes import order_of
from holdpay.store.reading import (
    BAD_ROW,
    SELECT_ITEMS,
    SELECT_REQUEST,
    all_text,
    item_of,
    request_of,
    rows,
    unreadable,
)
from holdpay.store.rows import Row

RAW_LIMIT_BYTES = 16 * 1024
STATES_KEPT: Final = 1_000
"""Orders as of a cursor, so that a feed goes on from there: some 5 KB each."""

_INSERT = "INSERT INTO journal (order_id, at_ms, event, change, data, notes) VALUES (?, ?, ?, ?, ?, ?)"
_INSERT_REPLY = "INSERT INTO replies (cursor, data, raw, raw_sha256) VALUES (?, ?, ?, ?)"
SELECT_ALL: Final = "SELECT * FROM journal WHERE cursor > ? ORDER BY cursor LIMIT ?"
SELECT_OF_ORDER: Final = "SELECT * FROM journal WHERE order_id = ? AND cursor > ? ORDER BY cursor LIMIT ?"
SELECT_PREVIOUS: Final = "SELECT max(cursor) FROM journal WHERE order_id = ? AND cursor < ?"
SELECT_CHANGES: Final = "SELECT change FROM journal WHERE order_id = ? AND cursor <= ? ORDER BY cursor"

_MAY_HOLD_GOODS = (ProviderReplied, ProviderConfused)
"""Their data has numbers, codes and messages."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a journal row says besides the change. ``is_reply``: ``data`` goes the day the order is erased."""

    event: str
    data: str
    notes: tuple[str, ...] = ()
    raw: str | None = None
    is_reply: bool = False


REQUESTED: Final = Entry("order_requested", "{}")
"""The first of each order."""


def entry_of(event: Event, notes: tuple[str, ...], raw: str | None) -> Entry:
    """``raw``: the reply behind the event."""
    kind: Any = type(event)
    # What is at its default is left out: most of a reply's fields are.
    data = _event_adapter(kind).dump_json(event, exclude_defaults=True).decode()
    is_reply = raw is not None or isinstance(event, _MAY_HOLD_GOODS)
    return Entry(event_name(event), data, notes, raw, is_reply)


@cache
def _event_adapter(kind: Any) -> TypeAdapter[Any]:
    # Making one takes longer than a durable commit.
    return TypeAdapter(kind)


@dataclass(frozen=True, slots=True)
class _Known:
    """Of an order, what its journal rows do not have."""

    request: Request
    erased_at_ms: int | None
    items: tuple[tuple[int, Item], ...]
    """Each with the cursor of the row that brought it."""

    def order(self, columns: Row, cursor: int) -> Order:
        """Raises one of BAD_ROW."""
        items = tuple(item for since, item in self.items if since <= cursor)
        return order_of({**columns, "erased_at_ms": self.erased_at_ms}, self.request, items)


class Journal:
    """Appends within the caller's transaction."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self._states: OrderedDict[int, Row] = OrderedDict()
        """Cursor → the columns of its order right after it, of the latest that were asked for."""

    def append(self, order_id: str, entry: Entry, changed: Row, now_ms: int) -> int:
        """Returns the cursor."""
        data = None if entry.is_reply else entry.data
        changes = json.dumps(changed, separators=(",", ":"))
        values = (order_id, now_ms, entry.event, changes, data, json.dumps(entry.notes))
        cursor = self._conn.execute(_INSERT, values).lastrowid
        assert cursor is not None
        if entry.is_reply:
            self._append_reply(cursor, entry.data, entry.raw)
        return cursor

    def _append_reply(self, cursor: int, data: str, raw: str | None) -> None:
        cut = raw and raw.encode()[:RAW_LIMIT_BYTES].decode(errors="ignore")
        sha256 = None if raw is None else hashlib.sha256(raw.encode()).hexdigest()
        self._conn.execute(_INSERT_REPLY, (cursor, data, cut, sha256))

    def updates(self, after_cursor: int, order_id: str | None, limit: int) -> list[Update]:
        """Rows after a cursor, oldest first, of one order or of all. Raises OrderUnreadable."""
        if order_id is None:
            found = rows(self._conn, SELECT_ALL, after_cursor, limit)
        else:
            found = rows(self._conn, SELECT_OF_ORDER, order_id, after_cursor, limit)
        known: dict[str, _Known] = {}
        latest: dict[str, tuple[int, Row]] = {}
        updates = []
        for row in found:
            subject, cursor = row["order_id"], row["cursor"]
            try:
                if subject not in known:
                    known[subject] = self._known(subject)
                    latest[subject] = (0, self._before(subject, cursor))
                columns = {**latest[subject][1], **json.loads(all_text(row)["change"])}
                latest[subject] = (cursor, columns)
                order = known[subject].order(columns, cursor)
                notes = tuple(json.loads(row["notes"]))
            except BAD_ROW as error:
                raise unreadable(subject) from error
            updates.append(Update(cursor=cursor, at_ms=row["at_ms"], event=row["event"], order=order, notes=notes))
        for cursor, columns in latest.values():
            self._keep(cursor, columns)
        return updates

    def _known(self, order_id: str) -> _Known:
        (row,) = rows(self._conn, SELECT_REQUEST, order_id)
        items = ((found["cursor"], item_of(found)) for found in rows(self._conn, SELECT_ITEMS, order_id))
        return _Known(request_of(all_text(row)), row["erased_at_ms"], tuple(items))

    def _before(self, order_id: str, cursor: int) -> Row:
        """The columns of an order right before a row of its journal."""
        ((previous,),) = rows(self._conn, SELECT_PREVIOUS, order_id, cursor)
        if previous is None:
            return {}
        if previous in self._states:
            self._states.move_to_end(previous)
            return self._states[previous]
        columns: Row = {}
        for row in rows(self._conn, SELECT_CHANGES, order_id, previous):
            columns.update(json.loads(row["change"]))
        return columns

    def _keep(self, cursor: int, columns: Row) -> None:
        self._states[cursor] = columns
        self._states.move_to_end(cursor)
        while len(self._states) > STATES_KEPT:
            self._states.popitem(last=False)
