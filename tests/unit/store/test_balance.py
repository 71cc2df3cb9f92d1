"""What may have moved the prepaid account's balance: asked before a balance is taken as proof."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from holdpay.core import events as ev
from holdpay.core.charge import Charge, ChargeState
from holdpay.core.kinds import FundSpec
from holdpay.core.kinds.message import MessageSpec
from holdpay.core.model import Order
from holdpay.core.states import End, OrderState
from holdpay.core.step import Step
from holdpay.ports import Limits
from holdpay.store.store import SqliteStore
from tests.unit.build import EMAIL, NOW_MS, SMS, changed, order

LIMITS = Limits(max_open_orders=9, max_pending_sat=10**6, max_spend_per_day_sat=10**6)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "holdpay.db")
    yield opened
    opened.close()


def commit(db: SqliteStore, before: Order, after: Order) -> None:
    db.commit(before, ev.TimePassed(), Step(after, is_change=True), None, NOW_MS)


def spends(db: SqliteStore, since_ms: int) -> Order:
    """One that got what it paid for: its price goes back no more."""
    asked = db.create(order(is_prepaid=True), LIMITS, NOW_MS)
    spend = Charge(
        state=ChargeState.CHARGED, since_ms=since_ms, amount_sat=9, balance_before_sat=99, intended_at_ms=NOW_MS
    )
    commit(db, asked, replace(asked, state=OrderState.DELIVERED, charge=spend))
    return asked


@pytest.mark.parametrize(("since_ms", "is_moved"), [(NOW_MS + 4, False), (NOW_MS + 5, True), (NOW_MS + 6, True)])
def test_another_orders_charge_since_then_may_have(db: SqliteStore, since_ms: int, is_moved: bool) -> None:
    spending = spends(db, since_ms)
    assert db.has_moved_balance_since(NOW_MS + 5, besides="another234") == is_moved
    assert not db.has_moved_balance_since(NOW_MS + 5, besides=spending.id)


@pytest.mark.parametrize(("closed_at_ms", "is_moved"), [(None, True), (NOW_MS + 4, False), (NOW_MS + 5, True)])
def test_money_for_the_account_that_is_on_its_way_or_came_since_may_have(
    db: SqliteStore, closed_at_ms: int | None, is_moved: bool
) -> None:
    asked = db.create(order(spec=FundSpec(amount_sat=1_000)), LIMITS, NOW_MS)
    if closed_at_ms is not None:
        commit(db, asked, replace(asked, closed_at_ms=closed_at_ms, end=End.FULFILLED))
    assert db.has_moved_balance_since(NOW_MS + 5, besides="another234") == is_moved
    assert not db.has_moved_balance_since(NOW_MS + 5, besides=asked.id)


def asked_for_at(db: SqliteStore, balance_sat: int | None, state: ChargeState, n: int) -> Order:
    """An order from the account; before it was asked for, this was the balance."""
    asked = db.create(order(id=f"order{n:05d}", key=f"key-{n}", is_prepaid=True), LIMITS, NOW_MS)
    spend = Charge(state=state, since_ms=NOW_MS, amount_sat=9, balance_before_sat=balance_sat, intended_at_ms=NOW_MS)
    commit(db, asked, replace(asked, charge=spend))
    return asked


@pytest.mark.parametrize(
    ("balance_sat", "state", "is_moved"),
    [
        (99, ChargeState.UNKNOWN, False),
        (99, ChargeState.REFUSED, False),
        (99, ChargeState.INTENDED, True),
        (99, ChargeState.CHARGED, True),
        (99, ChargeState.RETURNED, True),
        (98, ChargeState.UNKNOWN, True),
        (98, ChargeState.REFUSED, True),
        (None, ChargeState.UNKNOWN, True),
    ],
)
def test_two_lost_replies_at_the_same_balance_do_not_keep_each_other_from_being_proven(
    db: SqliteStore, balance_sat: int | None, state: ChargeState, is_moved: bool
) -> None:
    first = asked_for_at(db, 99, ChargeState.UNKNOWN, 1)
    asked_for_at(db, balance_sat, state, 2)
    assert db.has_moved_balance_since(NOW_MS, besides=first.id) == is_moved
    assert db.has_moved_balance_since(NOW_MS + 1, besides=first.id) == is_moved, "it is open still"


@pytest.mark.parametrize(("earlier_by_ms", "is_moved"), [(3, False), (5, True), (6, True)])
def test_money_that_came_since_the_earliest_of_them_makes_the_same_balance_no_proof(
    db: SqliteStore, earlier_by_ms: int, is_moved: bool
) -> None:
    """The earlier one may have been charged before it came, and may get its price back now."""
    earlier = asked_for_at(db, 99, ChargeState.UNKNOWN, 1)
    fund = db.create(order(key="money", spec=FundSpec(amount_sat=1_000)), LIMITS, NOW_MS)
    commit(db, fund, replace(fund, closed_at_ms=NOW_MS - 5, end=End.FULFILLED))
    own = asked_for_at(db, 99, ChargeState.UNKNOWN, 2)
    db._conn.execute(
        "UPDATE charges SET intended_at_ms = ? WHERE order_no = (SELECT no FROM orders WHERE id = ?)",
        (NOW_MS - earlier_by_ms, earlier.id),
    )
    assert db.has_moved_balance_since(NOW_MS, besides=own.id) == is_moved


@pytest.mark.parametrize("closed_at_ms", [None, NOW_MS + 4, NOW_MS + 5], ids=["open", "closed before", "closed since"])
@pytest.mark.parametrize("said", [("sent",), ("sent", "delivered"), ("delivered", "failed")], ids="-".join)
@pytest.mark.parametrize("spec", [SMS, EMAIL], ids=lambda spec: spec.kind)
def test_what_was_sent_may_fail_and_give_its_price_back_until_it_is_said_to_have_arrived(
    db: SqliteStore, spec: MessageSpec, said: tuple[str, ...], closed_at_ms: int | None
) -> None:
    asked = db.create(order(is_prepaid=True, spec=spec), LIMITS, NOW_MS)
    spend = Charge(
        state=ChargeState.CHARGED, since_ms=NOW_MS, amount_sat=9, balance_before_sat=99, intended_at_ms=NOW_MS
    )
    sent = changed(asked, state=OrderState.DELIVERED, charge=spend, sending=said)
    commit(db, asked, replace(sent, closed_at_ms=closed_at_ms, end=None if closed_at_ms is None else End.FULFILLED))
    may_have = said[-1] != "delivered" and closed_at_ms != NOW_MS + 4
    assert db.has_moved_balance_since(NOW_MS + 5, besides="another234") == may_have
    assert not db.has_moved_balance_since(NOW_MS + 5, besides=asked.id)


def test_what_a_hold_invoice_paid_to_send_moves_no_balance(db: SqliteStore) -> None:
    asked = db.create(order(spec=SMS), LIMITS, NOW_MS)
    commit(db, asked, changed(asked, state=OrderState.DELIVERED, sending="sent"))
    assert not db.has_moved_balance_since(NOW_MS, besides="another234")


def test_an_order_that_a_hold_invoice_pays_has_not(db: SqliteStore) -> None:
    db.create(order(), LIMITS, NOW_MS)
    assert not db.has_moved_balance_since(NOW_MS, besides="another234")
