"""The ledger: what is reserved and what was spent, to the msat, whatever becomes of an order."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from random import Random

import pytest

from holdpay.core import events as ev
from holdpay.core.charge import Charge, ChargeState
from holdpay.core.machine import decide
from holdpay.core.model import Order
from holdpay.core.states import End, HtlcState, OrderState
from holdpay.core.step import Step
from holdpay.ports import Limits
from holdpay.store.spent import DAY_MS
from holdpay.store.store import SqliteStore
from tests.unit.build import HOUR, NOW_MS, POLICY, order, pair

LIMITS = Limits(max_open_orders=9, max_pending_sat=10**6, max_spend_per_day_sat=10**6)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "holdpay.db")
    yield opened
    opened.close()


def booked(db: SqliteStore) -> list[tuple[str, int, int]]:
    return [tuple(row) for row in db._rows("SELECT what, msat, at_ms FROM ledger ORDER BY id")]


def summed(db: SqliteStore, *signs: tuple[str, int]) -> int:
    sums = {row["what"]: row["m"] for row in db._rows("SELECT what, sum(msat) AS m FROM ledger GROUP BY what")}
    return sum(sign * sums.get(what, 0) for what, sign in signs)


def commit(db: SqliteStore, before: Order, after: Order, at_ms: int = NOW_MS) -> Order:
    db.commit(before, ev.TimePassed(), Step(after, is_change=True), None, at_ms)
    return after


STANDINGS = [
    pair(OrderState.AWAITING_PAYMENT, HtlcState.NONE),
    pair(OrderState.PAID, HtlcState.IN_FLIGHT),
    pair(OrderState.PAID, HtlcState.SETTLED),
    pair(OrderState.PAID, HtlcState.SETTLED, fee_msat=7),
    pair(OrderState.PAID, HtlcState.SETTLED, is_paid_before=True),
    replace(pair(OrderState.CANCELED, HtlcState.FAILED), closed_at_ms=NOW_MS, end=End.REFUNDED),
    replace(pair(OrderState.ABANDONED, HtlcState.GONE), closed_at_ms=NOW_MS, end=End.OUTCOME_UNKNOWN),
]


@pytest.mark.parametrize(("first", "then"), list(product(STANDINGS, STANDINGS)))
def test_it_always_adds_up_to_what_the_order_reserves_and_spent(db: SqliteStore, first: Order, then: Order) -> None:
    now = db.create(order(), LIMITS, NOW_MS)
    for after in (first, then):
        now = commit(db, now, after)
        assert summed(db, ("reserve", 1), ("release", -1)) == after.reserved_msat
        assert summed(db, ("spend", 1)) == after.spent_msat


def test_a_step_that_moves_no_money_books_nothing(db: SqliteStore) -> None:
    now = db.create(order(), LIMITS, NOW_MS)
    assert booked(db) == [("reserve", 2_060_000, NOW_MS)]
    commit(db, now, replace(now, place_count=1))
    assert booked(db) == [("reserve", 2_060_000, NOW_MS)]


def test_what_was_reserved_too_much_is_released_when_it_is_spent(db: SqliteStore) -> None:
    now = db.create(order(), LIMITS, NOW_MS)
    commit(db, now, pair(OrderState.PAID, HtlcState.SETTLED, htlc_since_ms=NOW_MS + 7), NOW_MS + 9)
    assert booked(db)[1:] == [("release", 2_060_000 - 2_001_002, NOW_MS + 9), ("spend", 2_001_002, NOW_MS + 7)]


def charge(state: ChargeState, since_ms: int) -> Charge:
    return Charge(state=state, since_ms=since_ms, amount_sat=1_500, balance_before_sat=9_000, intended_at_ms=NOW_MS)


def test_a_charge_that_is_taken_back_gives_no_room_for_more_than_a_day_may_cost(db: SqliteStore) -> None:
    """Two days later the spend itself counts no more: neither may its correction."""
    now = db.create(order(is_prepaid=True), LIMITS, NOW_MS)
    now = commit(db, now, replace(now, charge=charge(ChargeState.UNKNOWN, NOW_MS)))
    assert db.totals(NOW_MS + 1).spent_day_msat == 1_500_000
    other = db.create(order(id="another234", key="another"), LIMITS, NOW_MS + 2 * DAY_MS)
    spent = pair(OrderState.PAID, HtlcState.SETTLED, id="another234", key="another", htlc_since_ms=NOW_MS + 2 * DAY_MS)
    commit(db, other, spent, NOW_MS + 2 * DAY_MS)

    later_ms = NOW_MS + 2 * DAY_MS + HOUR
    commit(db, now, replace(now, charge=charge(ChargeState.REFUSED, later_ms)), later_ms)

    assert db.totals(later_ms).spent_day_msat == 2_001_002
    assert db.totals(NOW_MS + 1).spent_day_msat == 0
    assert ("spend", -1_500_000, NOW_MS) in booked(db)


def test_a_spend_that_is_corrected_after_the_clock_was_set_back_frees_nothing_of_todays_limit(db: SqliteStore) -> None:
    ahead_ms = NOW_MS + 2 * DAY_MS
    times = {"created_at_ms": ahead_ms, "state_since_ms": ahead_ms, "place_at_ms": ahead_ms}
    now = db.create(order(is_prepaid=True, pay_by_ms=ahead_ms + HOUR, **times), LIMITS, ahead_ms)
    events: list[tuple[ev.Event, int]] = [
        (ev.ChargeIntended(10_000), ahead_ms),
        (ev.DaemonRestarted(), NOW_MS),
        (ev.BalanceSeen(10_000, is_alone=True), NOW_MS + 1_000),
        (ev.BalanceSeen(10_000, is_alone=True), NOW_MS + 40_000),
    ]
    for event, at_ms in events:
        step = decide(now, event, POLICY, at_ms)
        db.commit(now, event, step, None, at_ms)
        now = step.order
    assert now.is_closed
    for at_ms in (NOW_MS + 50_000, ahead_ms + 1):
        assert db.totals(at_ms).spent_day_msat == 0


def test_a_second_spend_of_an_order_is_booked_when_it_was_and_corrected_there(db: SqliteStore) -> None:
    now = db.create(order(is_prepaid=True), LIMITS, NOW_MS)
    for n in range(2):
        at_ms = NOW_MS + n * DAY_MS
        intended = replace(charge(ChargeState.UNKNOWN, at_ms), intended_at_ms=at_ms)
        now = commit(db, now, replace(now, charge=intended), at_ms)
        now = commit(db, now, replace(now, charge=replace(intended, state=ChargeState.REFUSED)), at_ms + HOUR)
    spends = [(msat, at_ms) for what, msat, at_ms in booked(db) if what == "spend"]
    later_ms = NOW_MS + DAY_MS
    assert spends == [(1_500_000, NOW_MS), (-1_500_000, NOW_MS), (1_500_000, later_ms), (-1_500_000, later_ms)]


@pytest.mark.parametrize("state", ChargeState)
def test_a_charge_is_spent_or_pending_and_never_both(db: SqliteStore, state: ChargeState) -> None:
    """One that was refused may be placed again: its order reserves what it may cost still."""
    now = db.create(order(is_prepaid=True), LIMITS, NOW_MS)
    assert db.totals(NOW_MS).pending_msat == 2_040_000
    commit(db, now, replace(now, charge=charge(state, NOW_MS)))
    totals = db.totals(NOW_MS + 1)
    is_refused = state is ChargeState.REFUSED
    assert (totals.pending_msat, totals.spent_day_msat) == ((2_040_000, 0) if is_refused else (0, 1_500_000))


@pytest.mark.parametrize("state", ChargeState)
def test_a_prepaid_order_takes_a_place_among_the_open_ones_only_while_it_is_being_placed(
    db: SqliteStore, state: ChargeState
) -> None:
    """A rented number is followed for weeks; a lost reply may wait for a person as long."""
    now = db.create(order(is_prepaid=True), LIMITS, NOW_MS)
    commit(db, now, replace(now, charge=charge(state, NOW_MS)))
    takes_place = state in {ChargeState.INTENDED, ChargeState.REFUSED}
    assert (db.totals(NOW_MS).open_orders, db.totals(NOW_MS).settled_orders) == (takes_place, not takes_place)


def test_what_was_spent_under_a_clock_far_ahead_does_not_count(db: SqliteStore) -> None:
    now = db.create(order(), LIMITS, NOW_MS)
    ahead_ms = NOW_MS + 3 * DAY_MS
    commit(db, now, pair(OrderState.PAID, HtlcState.SETTLED, htlc_since_ms=ahead_ms), ahead_ms)
    assert db.totals(NOW_MS).spent_day_msat == 0
    assert db.totals(ahead_ms).spent_day_msat == 2_001_002


def test_a_booking_that_the_database_does_not_know_is_refused(db: SqliteStore) -> None:
    db.create(order(), LIMITS, NOW_MS)
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        db._conn.execute("INSERT INTO ledger (order_no, what, msat, at_ms) VALUES (1, 'gift', 1, 1)")


def added_up(db: SqliteStore, now_ms: int) -> int:
    """What the limits count as spent then, from the whole ledger."""
    sql = "SELECT coalesce(sum(msat), 0) FROM ledger WHERE what = 'spend' AND at_ms > ? AND at_ms < ?"
    (sum_msat,) = db._conn.execute(sql, (now_ms - DAY_MS, now_ms + DAY_MS)).fetchone()
    return int(sum_msat)


def book(db: SqliteStore, *spends: tuple[int, int]) -> None:
    """Of the order that is there: sums with their times."""
    sql = "INSERT INTO ledger (order_no, client, what, msat, at_ms) SELECT max(no), '', 'spend', ?, ? FROM orders"
    db._conn.executemany(sql, spends)


@pytest.mark.parametrize("seed", range(20))
def test_the_sum_of_a_day_is_that_of_the_ledger_whatever_the_clock_does(db: SqliteStore, seed: int) -> None:
    rng, now_ms = Random(seed), NOW_MS
    db.create(order(), LIMITS, NOW_MS)
    for _ in range(40):
        now_ms += rng.choice((1, HOUR, DAY_MS - 1, DAY_MS, 3 * DAY_MS, -1, -HOUR, -3 * DAY_MS))
        at_ms = now_ms + rng.choice((0, -1, -DAY_MS, -DAY_MS + 1, DAY_MS, DAY_MS - 1, 2 * DAY_MS))
        book(db, *[(rng.randrange(-5, 9), at_ms)] * rng.randrange(3))
        assert db.spent_day_msat(now_ms) == added_up(db, now_ms)


def test_what_is_taken_back_is_not_in_the_sum_of_a_day(db: SqliteStore) -> None:
    db.create(order(), LIMITS, NOW_MS)
    db._conn.execute("BEGIN")
    book(db, (7, NOW_MS))
    assert db.spent_day_msat(NOW_MS) == 7
    db._conn.execute("ROLLBACK")
    assert db.spent_day_msat(NOW_MS) == 0
    book(db, (5, NOW_MS))  # the row has the number of the one that was taken back
    assert db.spent_day_msat(NOW_MS) == 5


def test_a_second_look_at_what_a_day_cost_does_not_add_it_up_again(db: SqliteStore) -> None:
    db.create(order(), LIMITS, NOW_MS)
    book(db, *[(1, NOW_MS)] * 5_000)
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    assert db.spent_day_msat(NOW_MS) == 5_000
    db._conn.set_progress_handler(step, 1)
    assert db.spent_day_msat(NOW_MS + HOUR) == 5_000
    db._conn.set_progress_handler(None, 1)
    assert steps < 200
