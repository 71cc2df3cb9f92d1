"""How far each hook is in the journal, and the notices, which are in no journal.

It has a connection of its own, used in the engine's thread between its transactions: what is written here is no
business of theirs. A hook's position may be lost with the machine's power, and never before what it stands for: it is
told again then. A notice is on disk before anybody is told.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

from holdpay.core.hooks import HookState, News, Notice, Position, Topic
from holdpay.errors import OrderUnreadable, StoreError
from holdpay.store import database
from holdpay.store.database import connect_beside, overwrite_what_is_freed, transaction, unusable
from holdpay.store.journal import SELECT_ALL, Journal, written
from holdpay.store.reading import BAD_ROW, lenient, rows
from holdpay.store.store import SqliteStore

NOTICES_KEPT: Final = 10_000
"""Older ones go, told or not."""
BUSY_TIMEOUT_S: Final = 0.1
"""Who waits for another program here holds up the engine, too; what could not be written is done again."""
CACHE_KIB: Final = 256
STATES_KEPT: Final = 100
"""Of orders, so that the next row of one need not be folded from its first: some 5 KB each."""

_SELECT_HOOK: Final = "SELECT * FROM hooks WHERE name = ?"
_COLUMNS: Final = (
    *("cursor", "part", "notice", "delivered_at_ms", "failing_since_ms", "attempt_count", "next_try_at_ms"),
    *("dead_at_ms", "trouble"),
)
_INSERT_HOOK: Final = (
    f"INSERT OR IGNORE INTO hooks (name, {', '.join(_COLUMNS)})"  # noqa: S608 - our own words only
    f" VALUES (:name, {', '.join(f':{column}' for column in _COLUMNS)})"
)
_UPDATE_HOOK: Final = (
    f"UPDATE hooks SET {', '.join(f'{column} = :{column}' for column in _COLUMNS)}"  # noqa: S608 - our own words only
    " WHERE name = :name AND (cursor, part, notice) = (:was_cursor, :was_part, :was_notice)"
)
_INSERT_NOTICE: Final = "INSERT INTO notices (after_cursor, at_ms, topic, data) VALUES (?, ?, ?, ?)"
_PRUNE: Final = "DELETE FROM notices WHERE number <= (SELECT max(number) FROM notices) - ?"
NEXT_NOTICE: Final = "SELECT * FROM notices WHERE number > ? ORDER BY number LIMIT 1"
LAST_OF_TOPICS: Final = """
    SELECT * FROM notices WHERE topic IN (SELECT value FROM json_each(?)) ORDER BY number DESC LIMIT 1
"""
LAST_NOTICE: Final = "SELECT coalesce(max(number), 0) FROM notices"
NOTICES_UP_TO: Final = "SELECT coalesce(max(number), 0) FROM notices WHERE after_cursor < ?"
LAST_ROW: Final = "SELECT coalesce(max(cursor), 0) FROM journal"
FIRST_ROW_FROM: Final = "SELECT cursor, at_ms FROM journal WHERE cursor >= ? ORDER BY cursor LIMIT 1"
BROUGHT: Final = "SELECT seq FROM items WHERE order_no = ? AND cursor = ? ORDER BY seq"


class SqliteHookStore:
    """``HookStore`` beside the open store of the orders, in the same file. Raises StoreError."""

    def __init__(self, store: SqliteStore) -> None:
        path = store.checked_path()
        try:
            self._conn = conn = connect_beside(path, timeout_s=BUSY_TIMEOUT_S)
            conn.row_factory = sqlite3.Row
            conn.text_factory = lenient
            conn.execute("PRAGMA foreign_keys = ON")
            conn.execute("PRAGMA trusted_schema = OFF")
            conn.execute("PRAGMA wal_autocheckpoint = 0")
            overwrite_what_is_freed(conn)
            conn.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            self._sync("NORMAL")
        except sqlite3.Error as error:
            raise unusable(path, error) from error
        self._journal = Journal(conn, STATES_KEPT)

    def close(self) -> None:
        self._conn.close()

    def _wait_for_others(self, timeout_s: float) -> None:
        self._conn.execute(f"PRAGMA busy_timeout = {int(timeout_s * 1000)}")

    def _sync(self, level: str) -> None:
        self._conn.execute(f"PRAGMA synchronous = {level}")

    # --- hooks --------------------------------------------------------------------------------------------------------

    def begin(self, name: str) -> None:
        """See HookStore."""
        state = HookState(name=name, position=Position(cursor=self.last_cursor(), notice=self._one(LAST_NOTICE)))
        # Nothing tries it again, and meanwhile no order can be written down either.
        self._wait_for_others(database.BUSY_TIMEOUT_S)
        try:
            with transaction(self._conn):
                self._conn.execute(_INSERT_HOOK, _row_of(state))
        finally:
            self._wait_for_others(BUSY_TIMEOUT_S)

    def state(self, name: str) -> HookState:
        """See HookStore."""
        found = rows(self._conn, _SELECT_HOOK, name)
        if not found:
            raise StoreError(f"The hook {name} is not in the database. Restart holdpayd, and please report this.")
        return _state_of(found[0])

    def change(self, before: HookState, after: HookState) -> bool:
        """See HookStore."""
        was = {f"was_{name}": getattr(before.position, name) for name in ("cursor", "part", "notice")}
        with transaction(self._conn):
            return self._conn.execute(_UPDATE_HOOK, {**_row_of(after), **was}).rowcount == 1

    def position_at(self, cursor: int) -> Position:
        """See HookStore."""
        return Position(cursor=cursor, notice=self._one(NOTICES_UP_TO, cursor))

    def cursor_before(self, at_ms: int) -> int:
        """See HookStore."""
        low, high = 0, self.last_cursor()
        while low < high:
            middle = (low + high) // 2
            row = rows(self._conn, FIRST_ROW_FROM, middle + 1)[0]
            if row["at_ms"] < at_ms:
                low = row["cursor"]
            else:
                high = middle
        return low

    # --- what they are told -------------------------------------------------------------------------------------------

    def last_cursor(self) -> int:
        """See HookStore."""
        return int(self._one(LAST_ROW))

    def news(self, after_cursor: int, limit: int) -> tuple[News | None, int]:
        """See HookStore."""
        cursor = after_cursor
        for row in rows(self._conn, SELECT_ALL, after_cursor, limit):
            news = self._news_of(row)
            if news is not None:
                return news, cursor
            cursor = row["cursor"]
        return None, cursor

    def _news_of(self, row: sqlite3.Row) -> News | None:
        """None: it is none, or makes no sense. Of that others tell, and the hook goes on."""
        cursor = row["cursor"]
        try:
            change = written(row).change
            is_end = change.get("closed_at_ms") is not None
            # A request goes on when an order closes: that it does no more is a later row.
            is_end_after_all = not is_end and change.get("succession", "") is None
            seqs = [found["seq"] for found in rows(self._conn, BROUGHT, row["order_no"], cursor)]
            if not is_end and not is_end_after_all and not seqs:
                return None
            (update,) = self._journal.updates(cursor - 1, row["id"], 1)
        except (*BAD_ROW, OrderUnreadable):
            return None
        items = update.order.items
        return News(
            cursor=cursor,
            at_ms=row["at_ms"],
            order=update.order,
            brought={seq: items[seq] for seq in seqs if seq < len(items)},
            is_end=is_end,
            is_end_after_all=is_end_after_all,
        )

    def add_notices(self, notices: Sequence[Notice]) -> None:
        """See HookStore."""
        self._sync("FULL")
        try:
            with transaction(self._conn):
                after = self.last_cursor()
                for notice in notices:
                    data = json.dumps(dict(notice.data))
                    self._conn.execute(_INSERT_NOTICE, (after, notice.at_ms, notice.topic.value, data))
                self._conn.execute(_PRUNE, (NOTICES_KEPT,))
        finally:
            self._sync("NORMAL")

    def next_notice(self, after: int) -> Notice | None:
        """See HookStore."""
        return _notice_of(rows(self._conn, NEXT_NOTICE, after))

    def last_notice(self, topics: Iterable[Topic]) -> Notice | None:
        """See HookStore."""
        return _notice_of(rows(self._conn, LAST_OF_TOPICS, json.dumps([topic.value for topic in topics])))

    def _one(self, sql: str, *values: Any) -> Any:
        return rows(self._conn, sql, *values)[0][0]


def _row_of(state: HookState) -> dict[str, Any]:
    of_position = ("cursor", "part", "notice")
    values = {name: getattr(state.position, name) for name in of_position}
    return {"name": state.name, **values, **{name: getattr(state, name) for name in _COLUMNS if name not in values}}


def _state_of(row: sqlite3.Row) -> HookState:
    values = dict(row)
    position = Position(**{name: values.pop(name) for name in ("cursor", "part", "notice")})
    return HookState(position=position, **values)


def _notice_of(found: Sequence[sqlite3.Row]) -> Notice | None:
    if not found:
        return None
    values = dict(found[0])
    return Notice(topic=Topic(values.pop("topic")), data=json.loads(values.pop("data")), **values)
