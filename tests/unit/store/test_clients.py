"""What is whose, and what counts in whose budget: in the transaction that records a request, and by index."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdpay.core import events as ev
from holdpay.core.budget import DAY_MS, HOUR_MS, MINUTE_MS, Budget, Period, Renewal
from holdpay.core.charge import Charge, ChargeState
from holdpay.core.model import OPERATOR, Order
from holdpay.core.outstanding import outstanding
from holdpay.core.states import End, HtlcState, OrderState
from holdpay.core.step import Step
from holdpay.errors import KeyTaken, LimitExceeded, OrderNotFound
from holdpay.ports import BudgetEntry, Limits, OrderFilter
from holdpay.store import budgets, journal, listing, reading
from holdpay.store.store import OF_CLIENT_TOO, REQUEST_OF_ORDER, REQUESTS_BY_PREFIX, SqliteStore
from tests.dumps import as_it_was, as_sealed, restore
from tests.unit.build import NOW_MS, changed, order, pair
from tests.unit.store.test_plans import BOUND, FILTERS, plan

RESERVED_MSAT, SPENT_MSAT, FEE_MSAT = 2_060_000, 2_001_002, 1_002
"""Of ``build``'s order, and of its payment when it is settled."""
FIXTURE = Path(__file__).parents[2] / "fixtures" / "database-0009.sql"


def limits(*found: Budget) -> Limits:
    return Limits(
        max_open_orders=100,
        max_pending_sat=10**6,
        max_spend_per_day_sat=10**6,
        budgets={budget.client: budget for budget in found},
    )


@pytest.fixture
def db(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "holdpay.db")
    yield opened
    opened.close()


def make(db: SqliteStore, number: int, client: str, at_ms: int = NOW_MS, *budget: Budget, **changes: Any) -> Order:
    named = {"id": f"order{number:05d}", "key": f"key-{number}", "client": client, "created_at_ms": at_ms, **changes}
    return db.create(order(**named), limits(*budget), at_ms)


def settle(db: SqliteStore, before: Order, at_ms: int, **payment: Any) -> Order:
    """It is paid for, and over."""
    paid = pair(OrderState.DELIVERED, HtlcState.SETTLED, htlc_since_ms=at_ms, **payment)
    assert paid.payment is not None
    own = replace(paid.payment, payment_hash=before.id.encode().hex().rjust(64, "0"))
    return commit(
        db, before, replace(before, state=paid.state, payment=own, closed_at_ms=at_ms, end=End.FULFILLED), at_ms
    )


def commit(db: SqliteStore, before: Order, after: Order, at_ms: int) -> Order:
    db.commit(before, ev.TimePassed(), Step(after, is_change=True), None, at_ms)
    return after


# --- what is whose --------------------------------------------------------------------------------------------------


def test_a_client_finds_its_own_by_id_by_its_beginning_and_by_key_and_nobody_elses(db: SqliteStore) -> None:
    anns, bobs, own = (make(db, number, client) for number, client in enumerate(("ann", "bob", OPERATOR)))
    assert db.request_id(anns.id, "ann") == anns.id
    assert db.request_id("order", "bob") == bobs.id, "one that begins so is bob's"
    for theirs in (bobs, own):
        with pytest.raises(OrderNotFound):
            db.request_id(theirs.id, "ann")
        assert db.find_key(theirs.request.key, "ann") is None
        assert db.get(theirs.id) == theirs
    assert db.find_key(own.request.key) == own
    assert db.find_key(bobs.request.key) is None


def test_a_key_is_one_clients_own(db: SqliteStore) -> None:
    first = make(db, 1, "ann", key="the-same")
    assert make(db, 2, "bob", key="the-same").id == "order00002"
    assert make(db, 3, OPERATOR, key="the-same").id == "order00003"
    assert make(db, 4, "ann", key="the-same") == first
    with pytest.raises(KeyTaken):
        make(db, 5, "ann", key="the-same", fingerprint="0" * 64)


def test_lists_and_updates_of_a_client_have_its_own_only(db: SqliteStore) -> None:
    for number in range(6):
        make(db, number, ("ann", "bob", OPERATOR)[number % 3], NOW_MS + number)
    assert [found.id for found in db.list_orders(OrderFilter(client="bob"))] == ["order00004", "order00001"]
    assert len(db.list_orders(OrderFilter())) == 6
    told = db.updates(0, None, 100, "bob")
    assert [update.order.id for update in told] == ["order00001", "order00004"]
    assert [update.order.id for update in db.updates(told[0].cursor, None, 100, "bob")] == ["order00004"]
    assert len(db.updates(0, None, 100)) == 6


# --- what counts ----------------------------------------------------------------------------------------------------


def line(db: SqliteStore, budget: Budget, at_ms: int = NOW_MS) -> tuple[int, int]:
    """What is spent and reserved of the first line."""
    (used, *_) = db.budget_usage(budget, at_ms).used
    return used.spent_msat, used.reserved_msat


ANN = Budget(client="ann", max_spend_per_day_sat=5_000)


def test_an_order_is_reserved_and_then_spent_and_never_both(db: SqliteStore) -> None:
    assert line(db, ANN) == (0, 0)
    now = make(db, 1, "ann")
    make(db, 2, "bob")
    make(db, 3, OPERATOR)
    assert line(db, ANN) == (0, RESERVED_MSAT)
    settle(db, now, NOW_MS)
    assert line(db, ANN) == (SPENT_MSAT, 0)


def test_an_order_that_failed_counts_nothing(db: SqliteStore) -> None:
    now = make(db, 1, "ann")
    commit(db, now, replace(now, closed_at_ms=NOW_MS, end=End.PAYMENT_FAILED), NOW_MS)
    assert line(db, ANN) == (0, 0)


@pytest.mark.parametrize(
    ("state", "htlc"), [(OrderState.PAID, HtlcState.SETTLED), (OrderState.DELIVERED, HtlcState.GONE)]
)
def test_an_order_that_is_spent_and_still_open_counts_once(db: SqliteStore, state: OrderState, htlc: HtlcState) -> None:
    """A rental is open for as long as it runs, also where lnd has no record of its payment any more."""
    now = make(db, 1, "ann")
    paid = pair(state, htlc, htlc_since_ms=NOW_MS)
    after = commit(db, now, replace(now, state=paid.state, payment=paid.payment), NOW_MS)
    assert line(db, ANN) == (SPENT_MSAT, 0)
    assert outstanding(after).pending_msat == db.totals(NOW_MS).pending_msat == 0


def test_an_order_that_is_settled_and_still_open_takes_no_place(db: SqliteStore) -> None:
    now = make(db, 1, "ann")
    paid = pair(OrderState.PAID, HtlcState.SETTLED, htlc_since_ms=NOW_MS)
    commit(db, now, replace(now, state=paid.state, payment=paid.payment), NOW_MS)
    assert db.budget_usage(ANN, NOW_MS).open_orders == 0


@pytest.mark.parametrize("state", [ChargeState.INTENDED, ChargeState.UNKNOWN, ChargeState.CHARGED])
def test_a_charge_to_the_account_is_spent_also_where_it_is_only_perhaps(db: SqliteStore, state: ChargeState) -> None:
    now = make(db, 1, "ann", is_prepaid=True, max_fee_sat=0)
    assert line(db, ANN) == (0, 2_040_000)
    charge = Charge(state=state, since_ms=NOW_MS, amount_sat=2_000, intended_at_ms=NOW_MS)
    commit(db, now, replace(now, charge=charge), NOW_MS)
    assert line(db, ANN) == (2_000_000, 0)


def test_of_a_fee_limit_the_fee_of_what_is_spent_and_the_limit_of_what_is_reserved_count(db: SqliteStore) -> None:
    fees = Budget(client="ann", max_fee_per_day_sat=100)
    now = make(db, 1, "ann")
    assert line(db, fees) == (0, 20_000)
    settle(db, now, NOW_MS, fee_msat=FEE_MSAT)
    assert line(db, fees) == (FEE_MSAT, 0)
    make(db, 2, "ann", is_prepaid=True, max_fee_sat=0)
    assert line(db, fees) == (FEE_MSAT, 0)


def test_what_was_spent_leaves_a_rolling_window_after_its_length_and_a_calendars_at_its_end(db: SqliteStore) -> None:
    calendar = replace(ANN, renewal=Renewal.CALENDAR)
    settle(db, make(db, 1, "ann"), NOW_MS)
    midnight_ms = NOW_MS - NOW_MS % DAY_MS + DAY_MS
    assert (line(db, ANN, NOW_MS + DAY_MS - 1), line(db, ANN, NOW_MS + DAY_MS)) == ((SPENT_MSAT, 0), (0, 0))
    assert (line(db, calendar, midnight_ms - 1), line(db, calendar, midnight_ms)) == ((SPENT_MSAT, 0), (0, 0))


def test_what_is_reserved_counts_whenever_it_was_made(db: SqliteStore) -> None:
    make(db, 1, "ann")
    assert line(db, ANN, NOW_MS + 9 * DAY_MS) == (0, RESERVED_MSAT)


# --- the transaction that records a request -------------------------------------------------------------------------


def test_a_request_over_the_budget_leaves_nothing_behind(db: SqliteStore) -> None:
    budget = replace(ANN, max_spend_per_day_sat=2 * RESERVED_MSAT // 1000)
    for number in (1, 2):
        make(db, number, "ann", NOW_MS, budget)
    with pytest.raises(LimitExceeded) as error:
        make(db, 3, "ann", NOW_MS, budget)
    assert error.value.metadata == {
        "limit": "client.ann.max_spend_per_day_sat",
        "limit_sat": "4120",
        "wanted_sat": "6180",
    }
    assert len(db.list_orders(OrderFilter())) == 2
    assert db._one("SELECT count(*) FROM requests") == 2
    assert make(db, 1, "ann", NOW_MS, budget).id == "order00001", "the same request again is no new one"
    make(db, 4, "bob", NOW_MS, budget)
    make(db, 5, OPERATOR, NOW_MS, budget)


def test_of_two_processes_that_ask_at_once_one_is_refused(db: SqliteStore) -> None:
    """The other one's commit comes between the look-up and the transaction: what counts is read inside."""
    budget = replace(ANN, max_spend_per_day_sat=RESERVED_MSAT // 1000)
    other = SqliteStore(db._path)
    begin = db._conn
    statements: list[str] = []

    def meanwhile(statement: str) -> None:
        if statement.startswith("BEGIN") and not statements:
            statements.append(statement)
            make(other, 1, "ann", NOW_MS, budget)

    begin.set_trace_callback(meanwhile)
    with pytest.raises(LimitExceeded):
        make(db, 2, "ann", NOW_MS, budget)
    begin.set_trace_callback(None)
    assert statements
    other.close()


@pytest.mark.parametrize("gap_ms", [0, MINUTE_MS - 1])
def test_orders_of_the_last_minute_are_counted(db: SqliteStore, gap_ms: int) -> None:
    budget = Budget(client="ann", max_orders_per_minute=2)
    for number in (1, 2):
        make(db, number, "ann", NOW_MS + number, budget)
    with pytest.raises(LimitExceeded) as error:
        make(db, 3, "ann", NOW_MS + 1 + gap_ms, budget)
    assert error.value.metadata["renews_at_ms"] == str(NOW_MS + 1 + MINUTE_MS)
    make(db, 4, "ann", NOW_MS + 1 + MINUTE_MS, budget)


def test_a_refusal_names_the_moment_at_which_enough_has_left_a_rolling_window(db: SqliteStore) -> None:
    for number in range(3):
        settle(db, make(db, number, "ann"), NOW_MS + number * HOUR_MS)
    now_ms = NOW_MS + 3 * HOUR_MS
    spent_sat = -(-3 * SPENT_MSAT // 1000)
    for room_sat, leaves in ((spent_sat, 1), (spent_sat - 1_000, 1), (spent_sat - 3_000, 2), (2_060, 2)):
        with pytest.raises(LimitExceeded) as error:
            make(db, 9, "ann", now_ms, replace(ANN, max_spend_per_day_sat=room_sat))
        over_msat = 3 * SPENT_MSAT + RESERVED_MSAT - room_sat * 1000
        gone = -(-over_msat // SPENT_MSAT)
        assert error.value.metadata["renews_at_ms"] == str(NOW_MS + (gone - 1) * HOUR_MS + DAY_MS), leaves
    with pytest.raises(LimitExceeded) as error:
        make(db, 9, "ann", now_ms, replace(ANN, max_spend_per_day_sat=2_000))
    assert "renews_at_ms" not in error.value.metadata, "the order alone is over it"


def test_a_spend_that_leaves_a_millisatoshi_too_much_is_not_the_one_that_makes_room(db: SqliteStore) -> None:
    for number, fee_msat in enumerate((1_001, 1)):
        settle(db, make(db, number, "ann"), NOW_MS + number * HOUR_MS, fee_msat=fee_msat)
    with pytest.raises(LimitExceeded) as error:
        make(db, 9, "ann", NOW_MS + 2 * HOUR_MS, replace(ANN, max_spend_per_day_sat=4_060))
    assert error.value.metadata["renews_at_ms"] == str(NOW_MS + HOUR_MS + DAY_MS)


def test_a_client_hears_of_its_own_limit_before_the_one_of_all(db: SqliteStore) -> None:
    both = replace(limits(Budget(client="ann", max_open_orders=1)), max_open_orders=1)
    db.create(order(id="order00001", client="ann"), both, NOW_MS)
    with pytest.raises(LimitExceeded) as error:
        db.create(order(id="order00002", client="ann", key="another"), both, NOW_MS)
    assert error.value.metadata["limit"] == "client.ann.max_open_orders"
    with pytest.raises(LimitExceeded) as error:
        db.create(order(id="order00003", client="bob"), both, NOW_MS)
    assert error.value.metadata == {"limit": "limits.max_open_orders"}, "what the others do is not bob's business"
    with pytest.raises(LimitExceeded) as error:
        db.create(order(id="order00004"), both, NOW_MS)
    assert error.value.metadata["open_orders"] == "1"


# --- the orders behind the sums -------------------------------------------------------------------------------------


def test_the_orders_behind_the_sums_add_up_to_them(db: SqliteStore) -> None:
    week = replace(ANN, max_spend_per_week_sat=50_000)
    settle(db, make(db, 1, "ann"), NOW_MS - 2 * DAY_MS)
    settle(db, make(db, 2, "ann"), NOW_MS - HOUR_MS)
    settle(db, make(db, 3, "bob"), NOW_MS)
    reserved = make(db, 4, "ann")
    found = db.budget_entries(week, NOW_MS, 10)
    assert found == [
        BudgetEntry(request_id=reserved.id, at_ms=NOW_MS, reserved_msat=RESERVED_MSAT),
        BudgetEntry(request_id="order00002", at_ms=NOW_MS - HOUR_MS, spent_msat=SPENT_MSAT, fee_msat=FEE_MSAT),
        BudgetEntry(request_id="order00001", at_ms=NOW_MS - 2 * DAY_MS, spent_msat=SPENT_MSAT, fee_msat=FEE_MSAT),
    ]
    used = {used.line.period: used for used in db.budget_usage(week, NOW_MS).used}[Period.WEEK]
    assert used.spent_msat == sum(entry.spent_msat for entry in found)
    assert used.reserved_msat == sum(entry.reserved_msat for entry in found)
    assert db.budget_entries(week, NOW_MS, 2) == found[:2]
    assert db.budget_entries(Budget(client="ann", max_open_orders=3), NOW_MS, 10) == found[:1], (
        "nothing counts as spent"
    )


# --- by index -------------------------------------------------------------------------------------------------------

OF_ANN = {**BOUND, "client": "ann", "from_ms": 1, "before_ms": 9, "minute_ms": 1, "limit": 9}
ORDERS = reading.SELECT_ORDERS
SUMS = {
    "what is spent": (budgets.SPENT_BY_CLIENT, "COVERING INDEX ledger_client "),
    "spends in turn": (budgets.SPENDS_IN_TURN, "COVERING INDEX ledger_client "),
    "spends with their orders": (budgets.SPENDS, "COVERING INDEX ledger_client "),
    "reserves in turn": (budgets.RESERVES, "INDEX orders_client_open "),
    "orders of the last minute": (budgets.RECENT, "COVERING INDEX orders_client "),
}


@pytest.mark.parametrize("name", SUMS)
def test_each_sum_of_a_client_is_read_off_an_index_of_its_own(db: SqliteStore, name: str) -> None:
    sql, index = SUMS[name]
    details = plan(db._conn, sql, OF_ANN)
    assert f"{index}(client=?" in details[0], details
    assert not any("TEMP B-TREE" in detail for detail in details), details
    assert not any(detail.startswith("SCAN") for detail in details), details


@pytest.mark.parametrize(
    ("sql", "values", "index"),
    [
        (journal.SELECT_OF_CLIENT, ("ann", 5, 10), "INDEX journal_client (client=? AND rowid>?)"),
        (f"{REQUEST_OF_ORDER}{OF_CLIENT_TOO}", ("x", "ann"), "sqlite_autoindex_orders_1 (id=?)"),
        (f"{REQUESTS_BY_PREFIX}{OF_CLIENT_TOO} LIMIT 2", ("x", "y", "ann"), "sqlite_autoindex_requests_1 (id>?"),
    ],
)
def test_what_a_client_looks_up_is_found_by_an_index(db: SqliteStore, sql: str, values: Any, index: str) -> None:
    details = plan(db._conn, sql, values)
    assert index in details[0], details
    assert not any(detail.startswith("SCAN") or "TEMP B-TREE" in detail for detail in details), details


@pytest.mark.parametrize("wanted", FILTERS, ids=repr)
def test_every_list_of_a_client_is_read_off_an_index_of_its_own(db: SqliteStore, wanted: OrderFilter) -> None:
    text, values = listing.where(replace(wanted, client="ann"))
    details = plan(db._conn, text, values)
    standing = "_open" if wanted.open_only else "_closed" if wanted.closed_only else ""
    kind, end = "_kind" if wanted.kind else "", "_end" if wanted.end is not None else standing
    assert f"INDEX requests_client{kind}{end} (client=?" in details[0], details
    assert not any("TEMP B-TREE" in detail for detail in details), details


# --- what was there before ------------------------------------------------------------------------------------------


def test_what_was_there_before_is_the_operators(tmp_path: Path) -> None:
    store = SqliteStore(restore(FIXTURE, tmp_path / "holdpay.db"))
    with as_it_was(FIXTURE) as before:
        requests = before.execute("SELECT * FROM requests ORDER BY rowid").fetchall()
    rows = store._rows("SELECT * FROM requests ORDER BY rowid")
    names = (*requests[0].keys(), "client")
    then = [{**as_sealed(dict(row)), "client": ""} for row in requests]
    assert then == [{name: row[name] for name in names} for row in rows]
    assert all(store.find_key(row["key"]) is not None for row in rows)
    assert store._rows("PRAGMA foreign_key_check") == []
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        store._conn.execute("DELETE FROM requests WHERE id = (SELECT request_id FROM orders LIMIT 1)")
    assert {update.order.request.client for update in store.updates(0, None, 10_000)} == {OPERATOR}
    assert store.budget_usage(ANN, NOW_MS).used[0].spent_msat == 0
    store.close()


def test_orders_of_build_are_the_operators() -> None:
    assert changed(order(), client="ann").request.client == "ann"
    assert order().request.client == OPERATOR
