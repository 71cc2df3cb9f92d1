"""The journal has changes: folded from any cursor on they give the order as it was; a commit writes no more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, replace
from pathlib import Path
from random import Random

import pytest

from holdpay.core import events as ev
from holdpay.core.charge import Charge
from holdpay.core.machine import decide
from holdpay.core.model import Order, Payment
from holdpay.core.states import HtlcState, OrderState
from holdpay.core.step import Step
from holdpay.ports import Update
from holdpay.store.changes import ELSEWHERE, change, order_of
from holdpay.store.store import SqliteStore
from tests.spoiling import look
from tests.unit.build import ALICE, EVENTS, NOW_MS, POLICY, S, attempt, changed, in_flight, order, pair
from tests.unit.store.test_store import FULL_ORDER, LIMITS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "holdpay.db"


@pytest.fixture
def db(path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(path)
    yield opened
    opened.close()


def _commit(db: SqliteStore, before: Order, after: Order, event: ev.Event | None = None, **step: object) -> Order:
    given = Step(after, is_change=True, **step)  # type: ignore[arg-type]
    db.commit(before, event or ev.TimePassed(), given, None, NOW_MS)
    return after


def _lives(db: SqliteStore, count: int, length: int = 12) -> list[Order]:
    """So many orders side by side; returned is each as it was after each journal row, in the journal's order."""
    rng = Random(7)
    told = []
    now: dict[int, Order] = {}
    for n in range(count):
        now[n] = db.create(order(id=f"order{n:05d}", key=f"key-{n}", created_at_ms=NOW_MS + n), LIMITS, NOW_MS)
        told.append(now[n])
    for at in range(count * length):
        n = rng.randrange(count)
        # A restored order has no long life any more.
        events = [*(e for e in EVENTS.values() if e != ev.CopyRestored()), ev.DispatchIntended(ALICE)]
        for event in rng.sample(events, len(events)):
            try:
                step = decide(now[n], event, POLICY, NOW_MS + at * S)
            except Exception:  # noqa: BLE001 - an event that fits in nowhere here
                continue
            payment = step.order.payment
            if payment is not None:
                step = replace(step, order=replace(step.order, payment=replace(payment, payment_hash=f"{n:064x}")))
            if step.is_change:
                db.commit(now[n], event, step, None, NOW_MS + at * S)
                now[n] = step.order
                told.append(now[n])
                break
    return told


def _without_unread(update: Order) -> Order:
    """What could not be read gives way to a later one, and earlier rows have none then."""
    return replace(update, items=tuple(item for item in update.items if not item.kind.startswith("unread")))


def test_each_row_tells_the_order_as_it_was_then(path: Path) -> None:
    written = SqliteStore(path)
    told = _lives(written, 8)
    written.close()
    read = SqliteStore(path)
    updates = read.updates(0, None, 1_000)
    assert len(updates) > 25
    assert [_without_unread(update.order) for update in updates] == [_without_unread(order) for order in told]
    for update in {update.order.id: update for update in updates}.values():
        assert update.order == read.get(update.order.id)
    read.close()


@pytest.mark.parametrize("kept", [0, 1, 3, 1_000])
@pytest.mark.parametrize("page", [1, 2, 5])
def test_a_feed_is_the_same_from_any_cursor_in_pages_of_any_size_by_several_readers(
    db: SqliteStore, monkeypatch: pytest.MonkeyPatch, kept: int, page: int
) -> None:
    monkeypatch.setattr(db._journal, "_states_kept", kept)
    _lives(db, 4)
    every = db.updates(0, None, 1_000)

    def reads(after: int, order_id: str | None) -> Iterator[Update]:
        while found := db.updates(after, order_id, page):
            yield from found
            after = found[-1].cursor

    readers: dict[tuple[int, str | None], Iterator[Update]]
    readers = {(after, None): reads(after, None) for after in (0, 7, 20)}
    readers |= {(0, f"order{n:05d}"): reads(0, f"order{n:05d}") for n in range(2)}
    got: dict[tuple[int, str | None], list[Update]] = {key: [] for key in readers}
    waiting = dict(readers)
    while waiting:
        for key, reader in list(waiting.items()):
            update = next(reader, None)
            if update is None:
                del waiting[key]
            else:
                got[key].append(update)
    for key, updates in got.items():
        after, order_id = key
        assert updates == [u for u in every if u.cursor > after and order_id in {None, u.order.id}]


def test_a_feed_that_goes_on_folds_nothing_anew(db: SqliteStore) -> None:
    _lives(db, 3)
    cursor = 0
    asked: list[str] = []
    db._conn.set_trace_callback(asked.append)
    while found := db.updates(cursor, None, 4):
        cursor = found[-1].cursor
    folded = [sql for sql in asked if sql.startswith("SELECT at_ms, entry FROM journal")]
    assert folded == []


def test_what_is_kept_for_feeds_is_bounded(db: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db._journal, "_states_kept", 5)
    _lives(db, 8, 2)
    db.updates(0, None, 1_000)
    assert len(db._journal._states) == 5


def test_a_row_has_what_changed_and_nothing_else(db: SqliteStore) -> None:
    first = db.create(order(), LIMITS, NOW_MS)
    held = pair(OrderState.PAID, HtlcState.IN_FLIGHT)
    assert held.payment is not None
    now = _commit(db, first, held)
    seen = replace(now, payment=replace(held.payment, expiry_height=800_200, attempt_count=2))
    _commit(db, now, changed(replace(seen, state_since_ms=NOW_MS + 5), number="15551234567"))
    changes = [json.loads(row["change"]) for row in look(db._conn, "SELECT change FROM journal ORDER BY cursor")]
    assert changes[0]["max_price_sat"] == 2_040
    assert changes[1]["payment.htlc"] == "in_flight"
    assert changes[2] == {"state_since_ms": NOW_MS + 5, "payment.expiry_height": 800_200, "payment.attempt_count": 2}


def test_a_change_is_what_differs_between_the_columns_before_and_after(db: SqliteStore) -> None:
    seen: dict[str, Order] = {}
    names: set[str] = set()
    for after in [*_lives(db, 6), replace(FULL_ORDER, payment=None), FULL_ORDER]:
        before = seen.get(after.id)
        if before is not None:
            then, now = change(None, before).columns(), change(None, after).columns()
            expected = {name: now.get(name) for name in {*then, *now} if then.get(name) != now.get(name)}
            assert change(before, after).columns() == expected
            names |= expected.keys()
        seen[after.id] = after
    assert {"state", "payment.htlc", "payment.failure_reason", "payment.failure_at_ms"} <= names


def test_what_becomes_null_is_a_change(db: SqliteStore) -> None:
    first = db.create(order(), LIMITS, NOW_MS)
    now = _commit(db, first, replace(first, giving_up="no time"))
    _commit(db, now, replace(now, giving_up=None))
    assert [update.order.giving_up for update in db.updates(0, None, 9)] == [None, "no time", None]


@pytest.mark.parametrize("field", [f for f in fields(Order) if f.default is not MISSING and f.name not in ELSEWHERE])
def test_a_field_that_a_later_release_adds_has_its_default_in_older_rows(field: Field[object]) -> None:
    columns = {name: value for name, value in change(None, FULL_ORDER).columns().items() if name != field.name}
    read = order_of(columns, FULL_ORDER.request, FULL_ORDER.items)
    expected = replace(FULL_ORDER, **{field.name: field.default})  # type: ignore[arg-type]
    if field.name == "payreq":
        assert expected.payment is not None
        expected = replace(expected, payment=replace(expected.payment, payreq=field.default))  # type: ignore[arg-type]
    assert read == expected


@pytest.mark.parametrize("cls", [Order, Payment, Charge])
def test_a_column_that_is_left_out_since_it_is_null_is_read_as_null(cls: type) -> None:
    """What may be None has no other default, or none at all and is not None when the first row is written."""
    for field in fields(cls):
        if "None" in str(field.type) and field.name != "balance_before_sat":
            assert field.default is None, field.name


def _written(db: SqliteStore, before: Order, after: Order, event: ev.Event | None = None, **step: object) -> set[str]:
    """The tables that a commit writes."""
    said: list[str] = []
    db._conn.set_trace_callback(said.append)
    _commit(db, before, after, event, **step)
    db._conn.set_trace_callback(None)
    words = [sql.split() for sql in said]
    return {w[1] if w[0] == "UPDATE" else w[2] for w in words if w[0] in {"INSERT", "UPDATE", "REPLACE", "DELETE"}}


def test_a_commit_writes_the_tables_that_changed_and_no_other(db: SqliteStore) -> None:
    now = db.create(order(), LIMITS, NOW_MS)
    held = pair(OrderState.PAID, HtlcState.IN_FLIGHT)
    assert _written(db, now, held) == {"orders", "payments", "payees", "dispatches", "journal", "ledger"}
    assert held.payment is not None
    known = replace(held, payment=replace(held.payment, fee_msat=7))
    assert _written(db, held, known) == {"payments", "journal"}
    numbered = changed(known, number="15551234567")
    assert _written(db, known, numbered) == {"items", "journal"}
    told = replace(numbered, anomaly_count=1)
    reply = ev.ProviderReplied(NOW_MS, ev.ProviderStatus(is_paid=True))
    assert _written(db, numbered, told, reply) == {"orders", "journal", "replies"}


def test_an_attempt_that_is_told_again_is_not_written_again(db: SqliteStore) -> None:
    now = db.create(order(), LIMITS, NOW_MS)
    held = _commit(db, now, pair(OrderState.PAID, HtlcState.IN_FLIGHT), in_flight(), attempts=(attempt(),))
    before = db._conn.total_changes
    after = replace(held, anomaly_count=1)
    _commit(db, held, after, in_flight(), attempts=(attempt(), attempt(attempt_id=2)))
    assert db._conn.total_changes - before == 3, "the order, the journal and the new attempt"


def test_a_thousandth_message_costs_one_row(db: SqliteStore) -> None:
    now = db.create(order(), LIMITS, NOW_MS)
    many = _commit(db, now, changed(now, messages=tuple(f"message {n}" for n in range(1_000))))
    before = db._conn.total_changes
    _commit(db, many, changed(many, messages=tuple(f"message {n}" for n in range(1_001))))
    assert db._conn.total_changes - before == 2
    assert len(db.get(now.id).items) == 1_001


def test_what_could_not_be_read_gives_way_in_its_place(db: SqliteStore) -> None:
    now = db.create(order(), LIMITS, NOW_MS)
    first = _commit(db, now, changed(now, number="15551234567", unread="long " * 50))
    then = _commit(db, first, changed(first, unread="short"))
    assert db.get(now.id) == then
    assert [item.text for item in then.items] == ["15551234567", "short"]
    assert db.updates(0, None, 9)[-1].order == then
    assert db._one("SELECT count(*) FROM items") == 2


def test_an_order_has_as_of_a_cursor_what_had_been_delivered_by_then(db: SqliteStore) -> None:
    now = db.create(order(), LIMITS, NOW_MS)
    numbered = _commit(db, now, changed(now, number="15551234567"))
    _commit(db, numbered, changed(numbered, number="15551234567", code="012345"))
    assert [(u.order.number, u.order.code) for u in db.updates(0, None, 9)] == [
        (None, None),
        ("15551234567", None),
        ("15551234567", "012345"),
    ]


def test_a_charge_whose_balance_is_not_known_comes_back_from_the_journal(db: SqliteStore) -> None:
    first = db.create(order(is_prepaid=True), LIMITS, NOW_MS)
    intended = decide(first, ev.ChargeIntended(None), POLICY, NOW_MS)
    assert intended.order.charge is not None
    db.commit(first, ev.ChargeIntended(None), intended, None, NOW_MS)
    assert [update.order for update in db.updates(0, first.id, 10)] == [first, intended.order]
