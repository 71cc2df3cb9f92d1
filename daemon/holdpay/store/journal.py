"""The journal: what each event changed, and the order as it was right after it, folded from the changes.

An entry is packed text of two to four lines: the event's name; JSON of the columns that it changed, of the first one
all columns; JSON of the event, empty if it stands in the replies; JSON of the notes. A reply is packed text too, with
its entry for a context: JSON of the event, and behind a NUL the reply as it came. Times in both are how far they are
from the row's own. Whoever reads the journal reads it here.
"""

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
from holdpay.store.packing import absolute, pack, relative, unpack
from holdpay.store.reading import BAD_ROW, SELECT_REQUEST, all_text, items_of, request_of, rows, unreadable
from holdpay.store.rows import Row
from holdpay.store.sealing import seal, unseal

RAW_LIMIT_BYTES = 16 * 1024
STATES_KEPT: Final = 1_000
"""Orders as of a cursor, so that a feed goes on from there: some 5 KB each."""

_INSERT = "INSERT INTO journal (order_no, client, at_ms, entry) VALUES (?, ?, ?, ?)"
_INSERT_REPLY = "INSERT INTO replies (cursor, said, raw_sha256) VALUES (?, ?, ?)"
_SELECT: Final = "SELECT j.cursor, j.order_no, j.at_ms, j.entry, o.id FROM journal j JOIN orders o ON o.no = j.order_no"
_OF_ORDER: Final = "j.order_no = (SELECT no FROM orders WHERE id = ?)"
SELECT_ALL: Final = f"{_SELECT} WHERE j.cursor > ? ORDER BY j.cursor LIMIT ?"
SELECT_OF_CLIENT: Final = f"{_SELECT} WHERE j.client <> '' AND j.client = ? AND j.cursor > ? ORDER BY j.cursor LIMIT ?"
SELECT_OF_ORDER: Final = f"{_SELECT} WHERE {_OF_ORDER} AND j.cursor > ? ORDER BY j.cursor LIMIT ?"
SELECT_WITH_REPLIES: Final = f"""
    SELECT j.cursor, j.at_ms, j.entry, r.said, r.raw_sha256, k.key
    FROM journal j LEFT JOIN replies r ON r.cursor = j.cursor LEFT JOIN keys k ON k.order_no = j.order_no
    WHERE {_OF_ORDER} ORDER BY j.cursor
"""  # noqa: S608 - our own words only
SELECT_PREVIOUS: Final = "SELECT max(cursor) FROM journal WHERE order_no = ? AND cursor < ?"
SELECT_CHANGES: Final = "SELECT at_ms, entry FROM journal WHERE order_no = ? AND cursor <= ? ORDER BY cursor"

_compact: Final = json.JSONEncoder(separators=(",", ":")).encode

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


@dataclass(frozen=True, slots=True)
class Written:
    """A row of the journal as it is read. ``data`` None: it stands in the replies."""

    event: str
    change: Row
    data: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Said:
    """A reply as it is read: JSON of the event, the reply behind it, cut, and the hash of the whole of it."""

    data: str
    raw: str | None
    raw_sha256: str | None


def written(row: sqlite3.Row) -> Written:
    """What ``entry`` says, of a row that has ``at_ms`` too. Raises one of BAD_ROW."""
    lines = absolute(unpack(row["entry"]), row["at_ms"]).split("\n")
    event, change, data, notes = [*lines, "", "[]"][:4] if len(lines) == 2 else [*lines, "[]"][:4]
    changed: Row = json.loads(change)
    told = json.loads(notes)
    if not isinstance(changed, dict) or not isinstance(told, list) or not all(isinstance(note, str) for note in told):
        raise ValueError("entry")
    return Written(event, changed, data or None, tuple(told))


def said(row: sqlite3.Row) -> Said | None:
    """Of a row of SELECT_WITH_REPLIES; None if it has none (any more). Raises one of BAD_ROW."""
    if row["said"] is None:
        return None
    cursor, key, digest = row["cursor"], row["key"], row["raw_sha256"]
    data, nul, raw = unpack(unseal(key, name_of_reply(cursor), row["said"]), unpack(row["entry"])).partition("\0")
    return Said(
        absolute(data, row["at_ms"]),
        raw if nul else None,
        None if digest is None else unseal(key, name_of_hash(cursor), digest).hex(),
    )


def name_of_reply(cursor: int) -> str:
    return f"reply {cursor}"


def name_of_hash(cursor: int) -> str:
    return f"sha256 {cursor}"


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
        """With each item as it is now, and all that stand before one that was there: so each keeps its place, also
        where one gave way to another since. Raises one of BAD_ROW."""
        count = max((place for place, (since, _) in enumerate(self.items, start=1) if since <= cursor), default=0)
        items = tuple(item for _, item in self.items[:count])
        return order_of({**columns, "erased_at_ms": self.erased_at_ms}, self.request, items)


class Journal:
    """Appends within the caller's transaction."""

    def __init__(self, conn: sqlite3.Connection, states_kept: int = STATES_KEPT) -> None:
        self._conn = conn
        self._states_kept = states_kept
        self._states: OrderedDict[int, Row] = OrderedDict()
        """Cursor → the columns of its order right after it, of the latest that were asked for."""

    def append(self, order_no: int, client: str, entry: Entry, changed: Row, key: bytes, now_ms: int) -> int:
        """``client``: whose order it is. ``key``: what its replies are sealed with. Returns the cursor."""
        lines = [entry.event, _compact(changed)]
        if not entry.is_reply or entry.notes:
            lines.append("" if entry.is_reply else entry.data)
        if entry.notes:
            lines.append(_compact(entry.notes))
        text = relative("\n".join(lines), now_ms)
        cursor = self._conn.execute(_INSERT, (order_no, client, now_ms, pack(text))).lastrowid
        assert cursor is not None
        if entry.is_reply:
            self._append_reply(cursor, entry, text, key, now_ms)
        return cursor

    def _append_reply(self, cursor: int, entry: Entry, context: str, key: bytes, now_ms: int) -> None:
        text, digest = relative(entry.data, now_ms), None
        if entry.raw is not None:
            whole = entry.raw.encode()
            text += "\0" + whole[:RAW_LIMIT_BYTES].decode(errors="ignore")
            digest = seal(key, name_of_hash(cursor), hashlib.sha256(whole).digest())
        self._conn.execute(_INSERT_REPLY, (cursor, seal(key, name_of_reply(cursor), pack(text, context)), digest))

    def updates(self, after_cursor: int, order_id: str | None, limit: int, client: str | None = None) -> list[Update]:
        """Rows after a cursor, oldest first, of one order, of all, or of all of a client's. Raises OrderUnreadable."""
        if order_id is not None:
            found = rows(self._conn, SELECT_OF_ORDER, order_id, after_cursor, limit)
        elif client is not None:
            found = rows(self._conn, SELECT_OF_CLIENT, client, after_cursor, limit)
        else:
            found = rows(self._conn, SELECT_ALL, after_cursor, limit)
        known: dict[int, _Known] = {}
        latest: dict[int, tuple[int, Row]] = {}
        updates = []
        for row in found:
            subject, cursor = row["order_no"], row["cursor"]
            try:
                if subject not in known:
                    known[subject] = self._known(subject)
                    latest[subject] = (0, self._before(subject, cursor))
                entry = written(row)
                columns = {**latest[subject][1], **entry.change}
                latest[subject] = (cursor, columns)
                order = known[subject].order(columns, cursor)
            except BAD_ROW as error:
                raise unreadable(row["id"]) from error
            update = Update(cursor=cursor, at_ms=row["at_ms"], event=entry.event, order=order, notes=entry.notes)
            updates.append(update)
        for cursor, columns in latest.values():
            self._keep(cursor, columns)
        return updates

    def _known(self, order_no: int) -> _Known:
        (row,) = rows(self._conn, SELECT_REQUEST, order_no)
        return _Known(request_of(all_text(row)), row["erased_at_ms"], tuple(items_of(self._conn, row)))

    def _before(self, order_no: int, cursor: int) -> Row:
        """The columns of an order right before a row of its journal."""
        ((previous,),) = rows(self._conn, SELECT_PREVIOUS, order_no, cursor)
        if previous is None:
            return {}
        if previous in self._states:
            self._states.move_to_end(previous)
            return self._states[previous]
        columns: Row = {}
        for row in rows(self._conn, SELECT_CHANGES, order_no, previous):
            columns.update(written(row).change)
        return columns

    def _keep(self, cursor: int, columns: Row) -> None:
        self._states[cursor] = columns
        self._states.move_to_end(cursor)
        while len(self._states) > self._states_kept:
            self._states.popitem(last=False)
