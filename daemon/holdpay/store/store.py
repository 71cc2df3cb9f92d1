"""OrderStore on SQLite."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import structlog
from pydantic import TypeAdapter

from holdpay.core.events import Event, event_name
from holdpay.core.lightning import Attempt
from holdpay.core.model import Order, Payment
from holdpay.core.states import HtlcState
from holdpay.core.step import Step
from holdpay.errors import InvalidRequest, KeyTaken, OrderNotFound, OrderUnreadable, StoreError
from holdpay.ports import Limits, MoneyTotals, OrderFilter, Update
from holdpay.store.database import (
    BUSY_TIMEOUT_S,
    check_space,
    copies,
    open_database,
    overwrite_what_is_freed,
    remedy,
    rewrite_if_small,
    transaction,
)
from holdpay.store.rows import Row, column_names, from_row, to_row

RAW_LIMIT_BYTES = 16 * 1024
DAY_MS = 24 * 3600 * 1000
MIN_ID_PREFIX = 4
ERASED_AT_ONCE = 5
"""Orders in one transaction, of one file: the daemon does nothing else meanwhile."""

log = structlog.get_logger()

_ORDER = TypeAdapter(Order)
_WITHOUT_PAYMENT = frozenset({"payment"})

_ORDER_COLUMNS = column_names(Order, without=_WITHOUT_PAYMENT)
_PAYMENT_COLUMNS = column_names(Payment)
_ATTEMPT_COLUMNS = column_names(Attempt)

# Under an index, and the same for ever. To write them again would put the index's pages into every commit.
_FIXED = frozenset({"id", "key", "created_at_ms", "order_id", "payment_hash", "attempt_id"})


def _insert_sql(table: str, columns: list[str]) -> str:
    names = ", ".join(f'"{c}"' for c in columns)
    values = ", ".join(f":{c}" for c in columns)
    return f"INSERT INTO {table} ({names}) VALUES ({values})"  # noqa: S608


def _upsert_sql(table: str, columns: list[str], conflict: str) -> str:
    changes = ", ".join(f'"{c}" = excluded."{c}"' for c in columns if c not in _FIXED)
    return f"{_insert_sql(table, columns)} ON CONFLICT ({conflict}) DO UPDATE SET {changes}"


_INSERT_ORDER = _insert_sql("orders", [*_ORDER_COLUMNS, "reserved_msat"])
_UPDATE_ORDER = (
    "UPDATE orders SET "  # noqa: S608 - names of our own columns only
    + ", ".join(f'"{c}" = :{c}' for c in [*_ORDER_COLUMNS, "reserved_msat"] if c not in _FIXED)
    + " WHERE id = :id"
)
_UPSERT_PAYMENT = _upsert_sql("payments", ["order_id", *_PAYMENT_COLUMNS], "order_id")
_UPSERT_ATTEMPT = _upsert_sql(
    "htlc_attempts", ["payment_hash", "dispatch", *_ATTEMPT_COLUMNS], "payment_hash, attempt_id"
)
_INSERT_JOURNAL = """
    INSERT INTO journal (order_id, at_ms, event, data, notes, snapshot, raw, raw_sha256)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_SELECT_TO_ERASE = "SELECT id FROM orders WHERE closed_at_ms < ? AND erased_at_ms IS NULL ORDER BY closed_at_ms LIMIT ?"
_UNREADABLE = "its row in the database makes no sense"
_QUARANTINE_ROW = """
    UPDATE orders SET quarantined_at_ms = :now_ms, quarantine_reason = :reason
    WHERE id = :id AND quarantined_at_ms IS NULL
"""
_ERASE_ORDER = """
    UPDATE orders SET
      number = NULL, earlier_numbers = '[]', code = NULL, later_codes = '[]', unread = NULL, erased_at_ms = :now_ms
    WHERE id = :id
"""
# json_replace leaves out what is not there: only a provider's reply has a status, or was unread as a whole. What a
# damaged disk made of a row is no reason to end the process.
_ERASE_JOURNAL = """
    UPDATE journal SET
      raw = NULL,
      data = CASE WHEN json_valid(data) THEN json_replace(
        data, '$.status.number', NULL, '$.status.code', NULL, '$.status.unread', NULL, '$.unread', NULL
      ) ELSE '{}' END,
      snapshot = CASE WHEN json_valid(snapshot) THEN json_set(
        snapshot, '$.number', NULL, '$.earlier_numbers', json('[]'), '$.code', NULL, '$.later_codes', json('[]'),
        '$.unread', NULL, '$.erased_at_ms', :now_ms
      ) ELSE '{}' END
    WHERE order_id = :id
"""
_SELECT_ORDERS = (
    "SELECT "  # noqa: S608 - names of our own columns only
    + ", ".join(f'o."{c}" AS "o.{c}"' for c in _ORDER_COLUMNS)
    + ", "
    + ", ".join(f'p."{c}" AS "p.{c}"' for c in _PAYMENT_COLUMNS)
    + " FROM orders o LEFT JOIN payments p ON p.order_id = o.id "
)


_OPEN = "WHERE o.closed_at_ms IS NULL ORDER BY o.created_at_ms, o.id"


@dataclass(frozen=True, slots=True)
class _Journaled:
    event: str
    data: str
    notes: tuple[str, ...]
    raw: str | None


@cache
def _event_adapter(kind: Any) -> TypeAdapter[Any]:
    # Making one takes longer than a durable commit.
    return TypeAdapter(kind)


class SqliteStore:
    """One connection, for one thread. ``on_commit`` is called after each commit with its cursor and order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = open_database(path)
        self._conn = self._db.conn
        self._conn.row_factory = sqlite3.Row
        # Text that is none (a flipped bit) makes one order unreadable, not the query that meets it.
        self._conn.text_factory = lambda data: data.decode(errors="surrogateescape")
        self._may_hold_remains = True
        """Something was erased since the file was written anew; at the start, by an earlier process."""
        self.on_commit: Callable[[int, Order], None] = lambda cursor, order: None

    def close(self) -> None:
        self._conn.close()

    # --- writing ----------------------------------------------------------------------------------------------------

    def check_space(self) -> None:
        """See OrderStore."""
        check_space(self._path)

    def create(self, order: Order, limits: Limits, now_ms: int) -> Order:
        """See OrderStore."""
        with transaction(self._conn):
            first = self.find_key(order.request.key)
            if first is not None:
                if first.request.fingerprint != order.request.fingerprint:
                    raise KeyTaken
                return first
            if (reached := limits.reached_by(self.totals(now_ms), order.reserved_msat)) is not None:
                raise reached
            self._conn.execute(_INSERT_ORDER, _order_row(order))
            cursor = self._write(order, (), _Journaled("order_requested", "{}", (), None), now_ms)
        self.on_commit(cursor, order)
        return order

    def commit(self, event: Event, step: Step, raw: str | None, now_ms: int) -> int:
        """See OrderStore."""
        kind: Any = type(event)
        data = _event_adapter(kind).dump_json(event).decode()
        with transaction(self._conn):
            if self._conn.execute(_UPDATE_ORDER, _order_row(step.order)).rowcount != 1:
                raise StoreError(f"Order {step.order.id} is not in the database. Restart holdpayd, and report this.")
            cursor = self._write(
                step.order, step.attempts, _Journaled(event_name(event), data, step.notes, raw), now_ms
            )
        self.on_commit(cursor, step.order)
        return cursor

    def quarantine_unreadable(self, now_ms: int) -> list[str]:
        """See OrderStore."""
        ids = [row["o.id"] for row in self._found(_OPEN) if _read(row) is None]
        if ids:
            with transaction(self._conn):
                for order_id in ids:
                    given = {"id": order_id, "now_ms": now_ms, "reason": _UNREADABLE}
                    self._conn.execute(_QUARANTINE_ROW, given)
        return ids

    def erase_codes(self, closed_before_ms: int, now_ms: int) -> Iterator[int]:
        """See OrderStore."""
        while ids := [row["id"] for row in self._rows(_SELECT_TO_ERASE, closed_before_ms, ERASED_AT_ONCE)]:
            # The copies first: the database says what is still to do after a crash.
            for copy in copies(self._path):
                _erase_in_copy(copy, ids, now_ms)
                yield 0
            _erase(self._conn, ids, now_ms)
            self._may_hold_remains = True
            yield len(ids)
        self._empty_log()
        if self._may_hold_remains:
            self._may_hold_remains = not self._is_rewritten()
            self._empty_log()

    def _is_rewritten(self) -> bool:
        """A disk without room for it is no reason to end: what is left in gaps goes the next time."""
        try:
            return rewrite_if_small(self._conn, self._path)
        except sqlite3.Error as error:
            log.warning("the database could not be written anew after erasing", error=str(error))
            return False

    def _empty_log(self) -> None:
        """The write-ahead log still has what was erased. One that a reader holds open is left to the next time."""
        self._rows("PRAGMA busy_timeout = 0")
        try:
            self._conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            log.warning("the database's log could not be emptied after erasing", error=str(error))
        self._rows(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")

    def _write(self, order: Order, attempts: Iterable[Attempt], entry: _Journaled, now_ms: int) -> int:
        if order.payment is not None:
            self._write_payment(order.id, order.payment, attempts)
        raw = entry.raw
        cursor = self._conn.execute(
            _INSERT_JOURNAL,
            (
                order.id,
                now_ms,
                entry.event,
                entry.data,
                json.dumps(entry.notes),
                _ORDER.dump_json(order).decode(),
                raw and raw.encode()[:RAW_LIMIT_BYTES].decode(errors="ignore"),
                None if raw is None else hashlib.sha256(raw.encode()).hexdigest(),
            ),
        ).lastrowid
        assert cursor is not None
        return cursor

    def _write_payment(self, order_id: str, payment: Payment, attempts: Iterable[Attempt]) -> None:
        self._conn.execute(_UPSERT_PAYMENT, {"order_id": order_id, **to_row(payment)})
        given: Row = {"payment_hash": payment.payment_hash, "dispatch": payment.dispatch_count}
        for attempt in attempts:
            self._conn.execute(_UPSERT_ATTEMPT, {**given, **to_row(attempt)})

    # --- reading ----------------------------------------------------------------------------------------------------

    def find_key(self, key: str) -> Order | None:
        """The order of an idempotency key. Raises OrderUnreadable."""
        return next((_to_order(row) for row in self._found("WHERE o.key = ?", key)), None)

    def get(self, order_id: str) -> Order:
        """See OrderStore."""
        if len(order_id) < MIN_ID_PREFIX:
            raise InvalidRequest(
                f"An order is named by at least {MIN_ID_PREFIX} characters of its id. Give more of it.",
                field="order_id",
            )
        found = self._found("WHERE o.id = ?", order_id)
        if not found:
            found = self._found("WHERE substr(o.id, 1, ?) = ? LIMIT 2", len(order_id), order_id)
        if not found:
            raise OrderNotFound
        if len(found) > 1:
            raise OrderNotFound(f"More than one order begins with {order_id}. Give more of its id.")
        return _to_order(found[0])

    def open_orders(self) -> list[Order]:
        """See OrderStore."""
        return self._select(_OPEN)

    def list_orders(self, wanted: OrderFilter) -> list[Order]:
        """Newest first."""
        conditions: list[tuple[str, tuple[Any, ...]]] = [("1", ())]
        if wanted.open_only:
            conditions.append(("o.closed_at_ms IS NULL", ()))
        if wanted.closed_only:
            conditions.append(("o.closed_at_ms IS NOT NULL", ()))
        if wanted.kind:
            conditions.append(("o.kind = ?", (wanted.kind,)))
        if wanted.end is not None:
            conditions.append(('o."end" = ?', (wanted.end.value,)))
        if wanted.created_from_ms is not None:
            conditions.append(("o.created_at_ms >= ?", (wanted.created_from_ms,)))
        if wanted.created_before_ms is not None:
            conditions.append(("o.created_at_ms < ?", (wanted.created_before_ms,)))
        if wanted.before is not None:
            conditions.append(("(o.created_at_ms, o.id) < (?, ?)", wanted.before))
        where = " AND ".join(text for text, _ in conditions)
        values = [value for _, given in conditions for value in given]
        return self._select(f"WHERE {where} ORDER BY o.created_at_ms DESC, o.id DESC LIMIT ?", *values, wanted.limit)

    def has_payment_hash(self, payment_hash: str) -> bool:
        """Whether any order, also a closed one, has it."""
        return bool(self._one("SELECT EXISTS (SELECT 1 FROM payments WHERE payment_hash = ?)", payment_hash))

    def has_provider_order(self, provider_order_id: str, besides: str) -> bool:
        """Whether an order, also a closed one, has this id at the provider and a vetted invoice; not counting the order
        ``besides``."""
        sql = (
            "SELECT EXISTS (SELECT 1 FROM orders o JOIN payments p ON p.order_id = o.id"
            " WHERE o.provider_order_id = ? AND o.id <> ?)"
        )
        return bool(self._one(sql, provider_order_id, besides))

    def updates(self, after_cursor: int, order_id: str | None, limit: int) -> list[Update]:
        """Journal rows after a cursor, oldest first, of one order or of all."""
        where, given = ("AND order_id = ?", (order_id,)) if order_id else ("", ())
        sql = f"SELECT * FROM journal WHERE cursor > ? {where} ORDER BY cursor LIMIT ?"  # noqa: S608 - fixed text
        return [
            Update(
                cursor=row["cursor"],
                at_ms=row["at_ms"],
                event=row["event"],
                order=_ORDER.validate_json(row["snapshot"]),
                notes=tuple(json.loads(row["notes"])),
            )
            for row in self._rows(sql, after_cursor, *given, limit)
        ]

    def last_cursor(self) -> int:
        """0 before the first order."""
        return int(self._one("SELECT coalesce(max(cursor), 0) FROM journal"))

    def totals(self, now_ms: int) -> MoneyTotals:
        """See MoneyTotals."""
        # An open order that is settled already counts as spent, not as pending, and holds no HTLC. One that is gone is
        # closed.
        (row,) = self._rows(
            "SELECT coalesce(sum(p.htlc IS NOT ?), 0) AS open_orders,"
            " coalesce(sum(p.htlc IS ?), 0) AS settled_orders,"
            " coalesce(sum(iif(p.htlc = ?, 0, o.reserved_msat)), 0) AS pending_msat"
            " FROM orders o LEFT JOIN payments p ON p.order_id = o.id WHERE o.closed_at_ms IS NULL",
            *[HtlcState.SETTLED.value] * 3,
        )
        # What lies more than a day ahead was settled under a wall clock that was wrong.
        spent_msat = self._one(
            "SELECT coalesce(sum(amount_msat + fee_msat), 0) FROM payments"
            " WHERE htlc IN ('settled', 'gone') AND htlc_since_ms > ? AND htlc_since_ms < ? AND NOT is_paid_before",
            now_ms - DAY_MS,
            now_ms + DAY_MS,
        )
        return MoneyTotals(
            open_orders=row["open_orders"],
            settled_orders=row["settled_orders"],
            pending_msat=row["pending_msat"],
            spent_day_msat=spent_msat,
        )

    def _select(self, where: str, *values: Any) -> list[Order]:
        """What can be read of what is found: one order that makes no sense hides no other."""
        return [order for row in self._found(where, *values) if (order := _read(row)) is not None]

    def _found(self, where: str, *values: Any) -> list[sqlite3.Row]:
        return self._rows(_SELECT_ORDERS + where, *values)

    def _one(self, sql: str, *values: Any) -> Any:
        return self._rows(sql, *values)[0][0]

    def _rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        try:
            return self._conn.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"The database could not be read: {error}. {remedy(error)}.") from error


def _erase(conn: sqlite3.Connection, ids: list[str], now_ms: int) -> None:
    with transaction(conn):
        for order_id in ids:
            given = {"id": order_id, "now_ms": now_ms}
            conn.execute(_ERASE_ORDER, given)
            conn.execute(_ERASE_JOURNAL, given)


def _erase_in_copy(copy: Path, ids: list[str], now_ms: int) -> None:
    """A copy in which nothing can be erased, as its tables are too old or it is damaged, is removed."""
    try:
        with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as conn:
            overwrite_what_is_freed(conn)
            _erase(conn, ids, now_ms)
            rewrite_if_small(conn, copy)
    except (sqlite3.Error, StoreError):
        with contextlib.suppress(FileNotFoundError):
            copy.unlink()


def _order_row(order: Order) -> Row:
    return {**to_row(order, without=_WITHOUT_PAYMENT), "reserved_msat": order.reserved_msat}


def _read(row: sqlite3.Row) -> Order | None:
    try:
        return _to_order(row)
    except OrderUnreadable:
        return None


def _to_order(row: sqlite3.Row) -> Order:
    """Raises OrderUnreadable."""
    try:
        for value in row:
            if isinstance(value, str):
                value.encode()
        return _order_of(row)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OrderUnreadable(
            f"Order {row['o.id'].encode(errors='replace').decode()} is in the database, and its row makes no sense."
            " See what `holdpayd check` says of it; the other orders go on."
        ) from error


def _order_of(row: sqlite3.Row) -> Order:
    plain = {key[2:]: row[key] for key in row.keys() if key.startswith("o.")}  # noqa: SIM118 - a Row is no dict
    payment = None
    if row["p.payment_hash"] is not None:
        columns = {key[2:]: row[key] for key in row.keys() if key.startswith("p.")}  # noqa: SIM118
        payment = from_row(Payment, columns)
    return from_row(Order, plain, payment=payment)
