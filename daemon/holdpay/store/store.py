"""OrderStore on SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import structlog

from holdpay.core.budget import Budget, Usage
from holdpay.core.dispatches import Dispatched
from holdpay.core.events import Event, OrderQuarantined
from holdpay.core.items import Item, ItemKind
from holdpay.core.kinds.spec import KindName
from holdpay.core.lightning import Attempt
from holdpay.core.model import OPERATOR, Order, Request
from holdpay.core.payees import Standing, Trust
from holdpay.core.stats import Outcome
from holdpay.core.step import Step
from holdpay.errors import (
    InvalidRequest,
    KeyTaken,
    LimitExceeded,
    NotReady,
    OrderNotFound,
    OrderUnreadable,
    StoreError,
)
from holdpay.ports import BudgetEntry, Change, Limits, MoneyTotals, OrderFilter, Update
from holdpay.store import budgets
from holdpay.store.agreeing import refuse_another_log
from holdpay.store.aside import checkpoint
from holdpay.store.changes import Changed, change
from holdpay.store.database import (
    BUSY_TIMEOUT_S,
    check_space,
    open_database,
    transaction,
    unusable,
)
from holdpay.store.dispatching import dispatches_of, note_dispatch
from holdpay.store.erasing import ERASED_AT_ONCE, erase, erase_in_copies, to_erase
from holdpay.store.hook_tables import FORGET
from holdpay.store.journal import REQUESTED, Entry, Journal, entry_of
from holdpay.store.ledger import entries
from holdpay.store.listing import where
from holdpay.store.newest import Newest
from holdpay.store.outcomes import read_outcomes
from holdpay.store.outstanding import OutstandingOf
from holdpay.store.payees import note_payee, standing_of, trusted_payees
from holdpay.store.place import Place
from holdpay.store.reading import (
    ITEM_COLUMNS,
    REQUEST_COLUMNS,
    SEALED_FINGERPRINT,
    SEALED_SPEC,
    SELECT_ORDERS,
    SPEC,
    STRATEGY,
    lenient,
    name_of_item,
    reading,
    rows,
    to_order,
)
from holdpay.store.recent import Recent
from holdpay.store.rows import Row, column_names, to_row
from holdpay.store.sealing import NO_KEY, new_key, seal
from holdpay.store.spent import SpentDay

MIN_ID_PREFIX = 4
_LAST_CHARACTER = "\U0010ffff"

log = structlog.get_logger(__name__)

_ATTEMPT_COLUMNS = column_names(Attempt)


def _insert_sql(table: str, columns: Iterable[str], verb: str = "INSERT") -> str:
    names = ", ".join(f'"{c}"' for c in columns)
    values = ", ".join(f":{c}" for c in columns)
    return f"{verb} INTO {table} ({names}) VALUES ({values})"


def _update_sql(table: str, changed: Row, key: str) -> str:
    changes = ", ".join(f'"{column}" = :{column}' for column in changed)
    return f"UPDATE {table} SET {changes} WHERE {key} = :key"  # noqa: S608 - names of our own columns only


_INSERT_REQUEST = _insert_sql("requests", REQUEST_COLUMNS)
_END_REQUEST = 'UPDATE requests SET closed_at_ms = :closed_at_ms, "end" = :end WHERE id = :id'
_INSERT_KEY = "INSERT INTO keys (order_no, key) VALUES (?, ?)"
_INSERT_SECRETS = "INSERT INTO secrets (request_id, spec, fingerprint) VALUES (?, ?, ?)"
# One that gives way to another is deleted whole, and so overwritten.
_REPLACE_ITEM = _insert_sql("items", ["order_no", "seq", "cursor", *ITEM_COLUMNS], "REPLACE")
_INSERT_LEDGER = "INSERT INTO ledger (order_no, client, what, msat, fee_msat, at_ms) VALUES (?, ?, ?, ?, ?, ?)"
_CHANGING = [c for c in ["dispatch", *_ATTEMPT_COLUMNS] if c != "attempt_id"]
# lnd tells of each attempt again and again; what is there already costs no write.
_UPSERT_ATTEMPT = (
    _insert_sql("htlc_attempts", ["order_no", "dispatch", *_ATTEMPT_COLUMNS])
    + " ON CONFLICT (order_no, attempt_id) DO UPDATE SET "
    + ", ".join(f"{c} = excluded.{c}" for c in _CHANGING)
    + f" WHERE ({', '.join(_CHANGING)}) IS NOT ({', '.join(f'excluded.{c}' for c in _CHANGING)})"
)
_UNREADABLE = "its row in the database makes no sense"
_QUARANTINE_ROW = """
    UPDATE orders SET quarantined_at_ms = :now_ms, quarantine_reason = :reason
    WHERE id = :id AND quarantined_at_ms IS NULL RETURNING no, client
"""
LAST_ROW = "SELECT max(cursor) FROM journal WHERE order_no = ?"

OPEN = "WHERE o.closed_at_ms IS NULL ORDER BY o.created_at_ms, o.id"
GOING_ON = "WHERE o.succession = 'going_on'"
BY_ID = "WHERE o.id = ?"
OF_REQUEST = "WHERE o.request_id = ? ORDER BY o.no"
LAST_OF_REQUEST = "WHERE o.request_id = ? ORDER BY o.no DESC LIMIT 1"
LAST_OF_EACH = """
    WHERE o.no IN (SELECT (SELECT max(no) FROM orders WHERE request_id = wanted.id) FROM ({requests}) wanted)
    ORDER BY r.created_at_ms DESC, r.id DESC
"""
EARLIER = "WHERE o.request_id = ? AND o.no < (SELECT no FROM orders WHERE id = ?) ORDER BY o.no"
REQUEST_BY_KEY = "SELECT id FROM requests WHERE client = ? AND key = ?"
REQUESTS_BY_PREFIX = "SELECT id FROM requests WHERE id >= ? AND id < ?"
ORDERS_OF_REQUEST = "SELECT id FROM orders WHERE request_id = ? ORDER BY no"
REQUEST_OF_ORDER = "SELECT request_id FROM orders WHERE id = ?"
OF_CLIENT_TOO = " AND +client = ?"
"""Of few that an id has found: the plus keeps SQLite from reading all that the client has in their place."""
HAS_OPEN = "SELECT EXISTS (SELECT 1 FROM requests WHERE kind = ? AND closed_at_ms IS NULL)"
HAS_RECENT = (
    "SELECT EXISTS (SELECT 1 FROM requests"
    " WHERE kind = ? AND created_at_ms >= ? AND client = '' AND substr(key, 1, ?) = ?)"
)
HAS_PROVIDER_ORDER = (
    "SELECT EXISTS (SELECT 1 FROM orders o JOIN payments p ON p.order_no = o.no"
    " WHERE o.provider_order_id = ? AND o.id <> ?)"
)
# If the balance is still what it was before the earliest of those that were asked for at this same balance, none of
# them was charged: two replies that were lost do not keep each other from being proven.
_MOVES = """
    NOT (c.state IN ('unknown', 'refused')
      AND c.balance_before_sat IS (SELECT balance_before_sat FROM charges WHERE order_no = :besides))
"""
# Nothing else may have moved it since that earliest one either.
SINCE_THE_EARLIEST = """
    SELECT :at_ms - coalesce(max(0, max(own.intended_at_ms - c.intended_at_ms)), 0)
    FROM orders o CROSS JOIN charges c ON c.order_no = o.no CROSS JOIN charges own ON own.order_no = :besides
    WHERE o.closed_at_ms IS NULL AND c.state = 'unknown' AND c.balance_before_sat = own.balance_before_sat
"""
# What was sent may fail after all until it is said to have arrived: then its price goes back.
_MAY_COME_BACK = """
    o.kind IN ('sms', 'email') AND (
      SELECT text FROM items WHERE order_no = o.no AND kind = 'sending' ORDER BY seq DESC LIMIT 1
    ) IS NOT 'delivered'
"""
HAS_MOVED_BALANCE = f"""
    SELECT EXISTS (SELECT 1 FROM charges c WHERE c.since_ms >= :at_ms AND c.order_no <> :besides AND {_MOVES})
      OR EXISTS (SELECT 1 FROM orders WHERE kind = 'fund' AND closed_at_ms IS NULL AND no <> :besides)
      OR EXISTS (SELECT 1 FROM orders WHERE kind = 'fund' AND closed_at_ms >= :at_ms AND no <> :besides)
      OR EXISTS (
        SELECT 1 FROM orders o CROSS JOIN charges c ON c.order_no = o.no
        WHERE {_MAY_COME_BACK} AND o.closed_at_ms >= :at_ms AND o.no <> :besides AND {_MOVES}
      )
"""  # noqa: S608 - our own words only
# Its price may go back to the account before anybody says so.
MAY_MOVE_BALANCE = f"""
    SELECT 1 FROM orders o CROSS JOIN charges c ON c.order_no = o.no
    WHERE o.closed_at_ms IS NULL AND (o.state <> 'delivered' OR {_MAY_COME_BACK}) AND o.no <> :besides AND {_MOVES}
    LIMIT 1
"""  # noqa: S608 - our own words only

SELECT_ROW = "SELECT o.no, k.key FROM orders o JOIN keys k ON k.order_no = o.no WHERE o.id = ?"
SPENT_AT = "SELECT at_ms FROM ledger WHERE order_no = ? AND what = 'spend' ORDER BY id DESC LIMIT 1"


@dataclass(frozen=True, slots=True)
class _Row:
    """Where an order lies, and what seals it."""

    no: int
    key: bytes


class SqliteStore:
    """One connection, for one thread. ``on_commit`` is called after each commit with its cursor and order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._newest = Newest(path)
        self._db = open_database(path, self._newest)
        self._conn = self._db.conn
        self._place = Place(path, self._newest)
        self._conn.row_factory = sqlite3.Row
        self._conn.text_factory = lenient
        try:
            refuse_another_log(self._conn)
        except sqlite3.Error as error:
            raise unusable(path, error) from error
        self._journal = Journal(self._conn)
        self._recent = Recent()
        self._spent_day = SpentDay(self._conn)
        self._outstanding = OutstandingOf(self._conn)
        self._row_of: dict[str, _Row] = {}
        """Of open orders, as far as they were written to."""
        self._erased_in_copies_before_ms = 0
        self.commit_count = 0
        """Transactions about orders that this process has made durable."""
        self.on_commit: Callable[[int, Order], None] = lambda cursor, order: None

    def close(self) -> None:
        self._newest.close()
        self._conn.close()

    # --- writing ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._outstanding.carried(), transaction(self._conn):
            yield
            self.check_place()

    def check_place(self) -> None:
        """Raises StoreError if the database's files are not any more where they were opened."""
        self._place.check()

    def checked_path(self) -> Path:
        """Of the database, for whoever opens it once more in this process. Raises StoreError if another file has taken
        its place: SQLite would play the open one's log into that, and delete it."""
        self.check_place()
        return self._path

    def check_space(self) -> None:
        """See OrderStore."""
        check_space(self._path)

    def create(self, order: Order, limits: Limits, now_ms: int) -> Order:
        """See OrderStore."""
        self._carry_on_spent(now_ms)
        with self._transaction():
            first = self.find_key(order.request.key, order.request.client)
            if first is not None:
                if first.request.fingerprint != order.request.fingerprint:
                    raise KeyTaken
                return first
            self._check_limits(order, limits, now_ms)
            self._conn.execute(_INSERT_REQUEST, _request_row(order.request))
            cursor = self._record(order, now_ms)
        self.commit_count += 1
        self._newest.keep(cursor)
        self._recent.began(Update(cursor=cursor, at_ms=now_ms, event=REQUESTED.event, order=order, notes=()))
        self.on_commit(cursor, order)
        return order

    def create_next(self, before: Change, order: Order, limits: Limits, now_ms: int) -> None:
        """See OrderStore."""
        self._carry_on_spent(now_ms)
        with self._transaction():
            self._check_limits(order, limits, now_ms)
            followed = self._write_change(before, now_ms)
            cursor = self._record(order, now_ms)
        self.commit_count += 1
        self._newest.keep(cursor)
        self._row_of.pop(before.before.id, None)
        self._recent.forget(order.request.id)
        self.on_commit(followed.cursor, followed.order)
        self.on_commit(cursor, order)

    def _carry_on_spent(self, now_ms: int) -> None:
        """Before a transaction that looks at the limits: within one nothing is kept, and each would add up the day."""
        self.spent_day_msat(now_ms)

    def _check_limits(self, order: Order, limits: Limits, now_ms: int) -> None:
        """Within the caller's transaction. Raises LimitExceeded. A client hears of its own limits first."""
        budget = limits.budgets.get(order.request.client)
        reached = None
        if budget is not None:
            reached = self.over_budget(budget, now_ms, order.reserved_msat, order.max_fee_sat * 1000)
        reached = reached or limits.reached_by(self.totals(now_ms), order.reserved_msat, order.request.client)
        if reached is not None:
            raise reached

    def _record(self, order: Order, now_ms: int) -> int:
        """A new order of a request, within the caller's transaction."""
        changed = change(None, order)
        row = self._insert(order, changed.order)
        cursor = self._write(row, None, order, REQUESTED, changed, (), now_ms)
        self._row_of[order.id] = row
        return cursor

    def commit(self, before: Order, event: Event, step: Step, raw: str | None, now_ms: int) -> int:
        """``commit_all`` of one change."""
        return self.commit_all((Change(before, event, step, raw),), now_ms)[0]

    def commit_all(self, changes: Iterable[Change], now_ms: int) -> list[int]:
        """See OrderStore."""
        changes = iter(changes)
        first = next(changes, None)
        if first is None:
            return []
        with self._transaction():
            done = [self._write_change(each, now_ms) for each in chain((first,), changes)]
        self._newest.keep(done[-1].cursor)
        self.commit_count += 1
        for update in done:
            order = update.order
            if order.is_closed and not order.is_going_on:
                self._row_of.pop(order.id, None)
            self._recent.came(update)
            self.on_commit(update.cursor, order)
        return [update.cursor for update in done]

    def _write_change(self, made: Change, now_ms: int) -> Update:
        before, step = made.before, made.step
        entry = entry_of(made.event, step.notes, made.raw)
        changed = change(before, step.order)
        row = self._row(before.id)
        self._update(row, before, step.order, changed.order)
        if step.order.ends_request:
            self._conn.execute(_END_REQUEST, _end_of(step.order))
        cursor = self._write(row, before, step.order, entry, changed, step.attempts, now_ms, step.trust)
        return Update(cursor=cursor, at_ms=now_ms, event=entry.event, order=step.order, notes=step.notes)

    def _insert(self, order: Order, columns: Row) -> _Row:
        request = order.request
        given: Row = {
            "request_id": request.id,
            "client": request.client,
            "kind": order.spec.kind,
            "reserved_msat": order.reserved_msat,
        }
        row = _Row(self._add("orders", {**given, **columns}), new_key())
        self._conn.execute(_INSERT_KEY, (row.no, row.key))
        if order.nth == 1 and _has_secrets(request):
            spec = seal(row.key, SEALED_SPEC, _spec_json(request.spec).encode())
            fingerprint = seal(row.key, SEALED_FINGERPRINT, request.fingerprint.encode())
            self._conn.execute(_INSERT_SECRETS, (request.id, spec, fingerprint))
        return row

    def _row(self, order_id: str) -> _Row:
        row = self._row_of.get(order_id)
        if row is None:
            found = self._conn.execute(SELECT_ROW, (order_id,)).fetchone()
            if found is None:
                raise StoreError(f"Order {order_id} is not in the database. Restart holdpayd, and report this.")
            row = self._row_of[order_id] = _Row(*found)
        return row

    def _update(self, row: _Row, before: Order, after: Order, columns: Row) -> None:
        if after.reserved_msat != before.reserved_msat:
            columns = {**columns, "reserved_msat": after.reserved_msat}
        self._change("orders", "no", row, columns)

    def _add(self, table: str, columns: Row) -> int:
        """What is not given is NULL, or has its column's default. Returns the rowid."""
        no = self._conn.execute(_insert_sql(table, columns), columns).lastrowid
        assert no is not None
        return no

    def _change(self, table: str, key: str, row: _Row, columns: Row) -> None:
        if columns:
            self._conn.execute(_update_sql(table, columns, key), {**columns, "key": row.no})

    def _write(
        self,
        row: _Row,
        before: Order | None,
        after: Order,
        entry: Entry,
        changed: Changed,
        attempts: Iterable[Attempt],
        now_ms: int,
        trust: Trust | None = None,
    ) -> int:
        """All but the order's own row. Returns the journal's cursor."""
        client = after.request.client
        cursor = self._journal.append(row.no, client, entry, changed.columns(), row.key, now_ms)
        self._write_payment(row, before, after, changed.payment, attempts)
        if after.payment is not None and (before is None or before.payment is None):
            note_payee(self._conn, after.payment.payee, trust, row.no, now_ms)
        self._write_charge(row, before, after, changed.charge)
        self._write_items(row, () if before is None else before.items, after, cursor)
        for what, msat, fee_msat, at_ms in entries(before, after, lambda: self._spent_at_ms(row), now_ms):
            self._conn.execute(_INSERT_LEDGER, (row.no, client, what, msat, fee_msat, at_ms))
        self._outstanding.changed(before, after)
        return cursor

    def _spent_at_ms(self, row: _Row) -> int | None:
        found = self._conn.execute(SPENT_AT, (row.no,)).fetchone()
        return None if found is None else found[0]

    def _write_payment(
        self, row: _Row, before: Order | None, after: Order, columns: Row, attempts: Iterable[Attempt]
    ) -> None:
        payment = after.payment
        if payment is None:
            return
        if before is None or before.payment is None:
            self._add("payments", {"order_no": row.no, **columns})
        else:
            self._change("payments", "order_no", row, columns)
        note_dispatch(self._conn, row.no, before.payment if before is not None else None, payment)
        for attempt in attempts:
            given: Row = {"order_no": row.no, "dispatch": payment.dispatch_count}
            self._conn.execute(_UPSERT_ATTEMPT, {**given, **to_row(attempt)})

    def _write_charge(self, row: _Row, before: Order | None, after: Order, columns: Row) -> None:
        if after.charge is None:
            return
        if before is None or before.charge is None:
            self._add("charges", {"order_no": row.no, **columns})
        else:
            self._change("charges", "order_no", row, columns)

    def _write_items(self, row: _Row, before: tuple[Item, ...], after: Order, cursor: int) -> None:
        """Those that are new, and those that took another's place."""
        for seq, item in enumerate(after.items):
            if seq >= len(before) or item != before[seq]:
                values: dict[str, Any] = {"order_no": row.no, "seq": seq, "cursor": cursor, **to_row(item)}
                if item.kind is not ItemKind.SENDING:
                    values["text"] = seal(row.key, name_of_item(cursor, seq), item.text.encode())
                self._conn.execute(_REPLACE_ITEM, values)

    def quarantine_unreadable(self, now_ms: int) -> list[str]:
        """See OrderStore."""
        found = (*self._found(OPEN), *self._found(GOING_ON))
        ids = [row["id"] for row in found if self._read(row) is None]
        if ids:
            with self._transaction():
                for order_id in ids:
                    self._quarantine_row(order_id, now_ms)
        return ids

    def _quarantine_row(self, order_id: str, now_ms: int) -> None:
        given = {"id": order_id, "now_ms": now_ms, "reason": _UNREADABLE}
        marked = self._conn.execute(_QUARANTINE_ROW, given).fetchall()
        if not marked or not self._is_told(order_id, marked[0]["no"]):
            return
        entry = entry_of(OrderQuarantined(_UNREADABLE), (f"put into quarantine: {_UNREADABLE}",), None)
        changed: Row = {"quarantined_at_ms": now_ms, "quarantine_reason": _UNREADABLE}
        self._journal.append(marked[0]["no"], marked[0]["client"], entry, changed, NO_KEY, now_ms)

    def _is_told(self, order_id: str, no: int) -> bool:
        """Whether its journal makes sense: a row more in one that does not would end the streams that come to it."""
        last = self._one(LAST_ROW, no)
        try:
            return last is not None and bool(self._journal.updates(last - 1, order_id, 1))
        except OrderUnreadable:
            return False

    def keep_hooks(self, names: Iterable[str]) -> None:
        """Where other hooks were is forgotten: one that has such a name later begins anew."""
        with self._transaction():
            self._conn.execute(FORGET, (json.dumps(list(names)),))

    def checkpoint(self, *, least_bytes: int = 0) -> None:
        """See OrderStore. ``least_bytes``: a log that is not longer is left."""
        checkpoint(self.checked_path(), least_bytes=least_bytes)

    def erase_in_copies(self, closed_before_ms: int, now_ms: int) -> None:
        """See OrderStore."""
        erase_in_copies(self.checked_path(), closed_before_ms, now_ms, is_first=not self._erased_in_copies_before_ms)
        self._erased_in_copies_before_ms = closed_before_ms

    def erase_codes(self, closed_before_ms: int, now_ms: int) -> Iterator[int]:
        """See OrderStore."""
        if self._erased_in_copies_before_ms < closed_before_ms:
            # The copies first: the database says what is still to do after a crash.
            self.erase_in_copies(closed_before_ms, now_ms)
        while ids := to_erase(self._conn, closed_before_ms, ERASED_AT_ONCE):
            self._recent.forget_all()
            erase(self._conn, ids, now_ms)
            yield len(ids)
        yield 0
        self._empty_log()

    def _empty_log(self) -> None:
        """The write-ahead log still has what was erased. One that a reader holds open is left to the next time."""
        self._rows("PRAGMA busy_timeout = 0")
        try:
            self._conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            log.warning("the database's log could not be emptied after erasing", error=str(error))
        self._rows(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")

    # --- reading ----------------------------------------------------------------------------------------------------

    def find_key(self, key: str, client: str = OPERATOR) -> Order | None:
        """The order of a client's idempotency key. Raises OrderUnreadable."""
        found = self._rows(REQUEST_BY_KEY, client, key)
        orders = self._found(LAST_OF_REQUEST, found[0]["id"]) if found else []
        return to_order(self._conn, orders[0]) if orders else None

    def get(self, order_id: str) -> Order:
        """See OrderStore."""
        found = self._found(BY_ID, order_id) or self._found(LAST_OF_REQUEST, self.request_id(order_id))
        return to_order(self._conn, found[0])

    def request_id(self, named: str, client: str | None = None) -> str:
        """See OrderStore."""
        if len(named) < MIN_ID_PREFIX:
            raise InvalidRequest(
                f"An order is named by at least {MIN_ID_PREFIX} characters of its id. Give more of it.",
                field="order_id",
            )
        whose, of = ("", ()) if client is None else (OF_CLIENT_TOO, (client,))
        found = self._rows(REQUEST_OF_ORDER + whose, named, *of)
        found = found or self._rows(f"{REQUESTS_BY_PREFIX}{whose} LIMIT 2", named, named + _LAST_CHARACTER, *of)
        if not found:
            raise OrderNotFound
        if len(found) > 1:
            raise OrderNotFound(f"More than one order begins with {named}. Give more of its id.")
        return str(found[0][0])

    def orders_of(self, request_id: str) -> list[Order]:
        """See OrderStore."""
        return [to_order(self._conn, row) for row in self._found(OF_REQUEST, request_id)]

    def dispatches(self, order_id: str) -> list[Dispatched]:
        """See OrderStore."""
        found = self._rows(SELECT_ROW, order_id)
        return dispatches_of(self._conn, found[0]["no"]) if found else []

    def open_orders(self) -> list[Order]:
        """See OrderStore."""
        return self._select(OPEN) + self._select(GOING_ON)

    def has_open(self, kind: KindName) -> bool:
        """See OrderStore."""
        return bool(self._one(HAS_OPEN, kind.value))

    def has_recent(self, kind: KindName, since_ms: int, key_prefix: str) -> bool:
        """See OrderStore."""
        return bool(self._one(HAS_RECENT, kind.value, since_ms, len(key_prefix), key_prefix))

    def list_orders(self, wanted: OrderFilter) -> list[Order]:
        """See OrderStore."""
        text, values = where(wanted)
        return self._select(LAST_OF_EACH.format(requests=text), *values)

    def has_payment_hash(self, payment_hash: str) -> bool:
        """Whether any order, also a closed one, has it."""
        return bool(self._one("SELECT EXISTS (SELECT 1 FROM payments WHERE payment_hash = ?)", payment_hash))

    def has_provider_order(self, provider_order_id: str, besides: str) -> bool:
        """Whether an order, also a closed one, has this id at the provider and a vetted invoice; not counting the order
        ``besides``."""
        return bool(self._one(HAS_PROVIDER_ORDER, provider_order_id, besides))

    def outcomes(self, since_ms: int, client: str | None) -> list[Outcome]:
        """See OrderStore."""
        try:
            return read_outcomes(self._path, since_ms, client)
        except sqlite3.Error as error:
            raise NotReady(f"The database cannot be read now ({error}). Ask again.", cause="database") from error

    def standing_of(self, payee: str) -> Standing:
        """What the record of payees says of one."""
        return standing_of(self._conn, payee)

    def trusted_payees(self) -> list[str]:
        """The one that was paid last comes first."""
        return trusted_payees(self._conn)

    def has_moved_balance_since(self, at_ms: int, besides: str) -> bool:
        """See OrderStore."""
        own = self._rows(SELECT_ROW, besides)
        values: Row = {"at_ms": at_ms, "besides": own[0]["no"] if own else 0}
        if self._conn.execute(MAY_MOVE_BALANCE, values).fetchone() is not None:
            return True
        values["at_ms"] = self._conn.execute(SINCE_THE_EARLIEST, values).fetchone()[0]
        return bool(self._conn.execute(HAS_MOVED_BALANCE, values).fetchone()[0])

    def updates(self, after_cursor: int, order_id: str | None, limit: int, client: str | None = None) -> list[Update]:
        """Journal rows after a cursor, oldest first, of one order, of all, or of all of a client's."""
        updates = self._journal.updates(after_cursor, order_id, limit, client)
        return [update if update.order.nth == 1 else self._with_earlier(update) for update in updates]

    def _with_earlier(self, update: Update) -> Update:
        """Those before it had closed by then, and are as they were."""
        earlier = self._found(EARLIER, update.order.request.id, update.order.id)
        return replace(update, earlier=tuple(to_order(self._conn, row) for row in earlier))

    def request_updates(self, after_cursor: int, request_id: str, limit: int) -> list[Update]:
        """See OrderStore."""
        recent = self._recent.after(after_cursor, request_id)
        if recent is not None:
            return recent[:limit]
        found: list[Update] = []
        for row in self._rows(ORDERS_OF_REQUEST, request_id):
            # Nothing is told of an order any more once there is a next one.
            found += self.updates(after_cursor, row["id"], limit - len(found))
            if len(found) == limit:
                break
        return found

    def last_cursor(self) -> int:
        """0 before the first order."""
        return int(self._one("SELECT coalesce(max(cursor), 0) FROM journal"))

    def totals(self, now_ms: int) -> MoneyTotals:
        """See MoneyTotals."""
        with reading():
            is_open = self._outstanding.all()
        return MoneyTotals(
            open_orders=is_open.open_orders,
            settled_orders=is_open.settled_orders,
            pending_msat=is_open.pending_msat,
            spent_day_msat=self.spent_day_msat(now_ms),
        )

    def budget_usage(self, budget: Budget, now_ms: int) -> Usage:
        """See OrderStore."""
        with reading():
            return budgets.usage(self._conn, budget, self._outstanding.client(budget.client), now_ms)

    def over_budget(self, budget: Budget, now_ms: int, order_msat: int = 1, fee_msat: int = 0) -> LimitExceeded | None:
        """See OrderStore."""
        is_open = self._outstanding.client(budget.client)
        return budgets.over_budget(self._conn, budget, is_open, order_msat, fee_msat, now_ms)

    def budget_entries(self, budget: Budget, now_ms: int, limit: int) -> list[BudgetEntry]:
        """See OrderStore."""
        return budgets.entries(self._conn, budget, now_ms, limit)

    def spent_day_msat(self, now_ms: int) -> int:
        """See MoneyTotals."""
        return self._spent_day.msat(now_ms)

    def _select(self, text: str, *values: Any) -> list[Order]:
        """What can be read of what is found: one order that makes no sense hides no other."""
        return [order for row in self._found(text, *values) if (order := self._read(row)) is not None]

    def _read(self, row: sqlite3.Row) -> Order | None:
        try:
            return to_order(self._conn, row)
        except OrderUnreadable:
            return None

    def _found(self, text: str, *values: Any) -> list[sqlite3.Row]:
        return self._rows(SELECT_ORDERS + text, *values)

    def _one(self, sql: str, *values: Any) -> Any:
        return self._rows(sql, *values)[0][0]

    def _rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        return rows(self._conn, sql, *values)


def _request_row(request: Request) -> Row:
    return {
        "id": request.id,
        "client": request.client,
        "key": request.key,
        # What it was made of is in plain columns, else whoever guesses a text could see whether it is the one.
        "fingerprint": "" if _has_secrets(request) else request.fingerprint,
        "kind": request.spec.kind,
        "spec": _spec_json(request.spec.without_secrets()),
        "is_prepaid": int(request.is_prepaid),
        "created_at_ms": request.created_at_ms,
        "strategy": None if request.strategy is None else STRATEGY.dump_json(request.strategy).decode(),
    }


def _has_secrets(request: Request) -> bool:
    return request.spec.without_secrets() != request.spec


def _end_of(order: Order) -> Row:
    """What its request's row has of it. ``closed_at_ms``: of its last order."""
    assert order.end is not None
    return {"id": order.request.id, "closed_at_ms": order.closed_at_ms, "end": order.end.value}


def _spec_json(spec: Any) -> str:
    return SPEC.dump_json(spec).decode()
