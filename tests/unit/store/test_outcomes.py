"""What statistics read of orders that ended: the same as the order itself says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from holdpay.core import events as ev
from holdpay.core.machine import decide
from holdpay.core.model import Order
from holdpay.core.states import End
from holdpay.errors import NotReady
from holdpay.ports import Limits
from holdpay.store import outcomes
from holdpay.store.store import SqliteStore
from tests.unit.build import ALICE, EMAIL, HASH, NOW_MS, POLICY, S, in_flight, invoice, order, replied, settled
from tests.unit.store.test_plans import plan

LIMITS = Limits(max_open_orders=1_000, max_pending_sat=10**9, max_spend_per_day_sat=10**9)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path / "holdpay.db")) as opened:
        yield opened


def run(db: SqliteStore, made: Order, *events: tuple[int, ev.Event]) -> Order:
    found = db.create(made, LIMITS, made.created_at_ms)
    for after_s, event in events:
        at_ms = made.created_at_ms + after_s * S
        step = decide(found, event, POLICY, at_ms)
        db.commit(found, event, step, None, at_ms)
        found = step.order
    return found


def named(number: int, *, client: str = "", **changes: object) -> Order:
    order_id = f"order{number:05d}"
    made = order(id=order_id, **changes)
    return replace(made, request=replace(made.request, id=order_id, key=order_id, client=client))


def bought(db: SqliteStore) -> Order:
    return run(
        db,
        named(1),
        (1, ev.OrderPlaced(HASH, "lnsb1")),
        (2, ev.InvoiceDecoded(invoice(), ALICE, seen_before=False)),
        (3, ev.DispatchIntended(ALICE)),
        (4, in_flight()),
        (20, replied(NOW_MS + 20 * S, paid=True, number="+1882650")),
        (45, replied(NOW_MS + 45 * S, paid=True, number="+1882650", code="1234")),
        (63, settled()),
    )


def test_an_order_is_told_with_times_sums_and_how_long_its_money_was_locked(db: SqliteStore) -> None:
    done = bought(db)
    assert done.end is End.FULFILLED
    assert done.payment is not None
    (found,) = db.outcomes(0, None)
    assert (found.kind, found.country_code, found.country) == ("code", 187, "United States")
    assert (found.service_code, found.service, found.created_at_ms) == ("oi", "OpenAI", NOW_MS)
    assert (found.end, found.number_after_ms, found.code_after_ms) == (End.FULFILLED, 20 * S, 45 * S)
    assert (found.spent_msat, found.fee_msat) == (done.spent_msat, done.payment.fee_msat)
    assert found.spent_msat > found.amount_msat == done.payment.amount_msat
    assert found.locked_ms == 60 * S


def test_an_order_that_is_open_is_none_and_one_that_cost_nothing_has_no_fee(db: SqliteStore) -> None:
    run(db, named(1))
    run(db, named(2), (1, ev.CancelRequested()))
    (found,) = db.outcomes(0, None)
    assert (found.end, found.spent_msat, found.fee_msat, found.locked_ms) == (End.CANCELED_UNPAID, 0, 0, 0)
    assert (found.number_after_ms, found.code_after_ms) == (None, None)


def test_what_is_of_no_country_and_no_service_has_none(db: SqliteStore) -> None:
    mail = named(1)
    run(db, replace(mail, request=replace(mail.request, spec=EMAIL)), (1, ev.CancelRequested()))
    (found,) = db.outcomes(0, None)
    assert (found.kind, found.country_code, found.country, found.service) == ("email", None, "", "")


def test_an_order_in_another_country_than_its_request_is_told_of_its_own(db: SqliteStore) -> None:
    run(db, named(1, country=16, country_name="England"), (1, ev.CancelRequested()))
    (found,) = db.outcomes(0, None)
    assert (found.country_code, found.country) == (16, "England")


def test_a_number_that_came_before_its_order_by_a_clock_that_was_set_back_came_at_once(db: SqliteStore) -> None:
    made = named(1)
    early = replied(NOW_MS - 60 * S, paid=True, number="+1882650")
    bought_at = (
        (1, ev.OrderPlaced(HASH, "lnsb1")),
        (2, ev.InvoiceDecoded(invoice(), ALICE, seen_before=False)),
        (3, ev.DispatchIntended(ALICE)),
        (4, in_flight()),
    )
    run(db, made, *bought_at, (-60, early), (63, settled()), (2_000, ev.CancelRequested()))
    db._conn.execute("UPDATE orders SET closed_at_ms = 1, end = 'refunded'")
    (found,) = db.outcomes(0, None)
    assert found.number_after_ms == 0


def test_older_requests_and_other_clients_are_left_out(db: SqliteStore) -> None:
    run(db, named(1, created_at_ms=NOW_MS), (1, ev.CancelRequested()))
    run(db, named(2, client="ann", created_at_ms=NOW_MS + 9), (1, ev.CancelRequested()))
    assert [each.created_at_ms for each in db.outcomes(0, None)] == [NOW_MS + 9, NOW_MS]
    assert [each.created_at_ms for each in db.outcomes(NOW_MS + 1, None)] == [NOW_MS + 9]
    assert [each.created_at_ms for each in db.outcomes(0, "ann")] == [NOW_MS + 9]
    assert db.outcomes(0, "bob") == []


def test_only_the_latest_are_read(db: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "MOST_OUTCOMES", 2)
    for number in range(4):
        run(db, named(number, created_at_ms=NOW_MS + number), (1, ev.CancelRequested()))
    assert [each.created_at_ms for each in db.outcomes(0, None)] == [NOW_MS + 3, NOW_MS + 2]


def test_a_database_that_cannot_be_read_now_is_said(db: SqliteStore, tmp_path: Path) -> None:
    (tmp_path / "holdpay.db").rename(tmp_path / "elsewhere.db")
    with pytest.raises(NotReady, match="Ask again"):
        db.outcomes(0, None)


@pytest.mark.parametrize(("is_of_client", "index"), [(False, "requests_created"), (True, "requests_client")])
def test_the_requests_are_read_off_an_index_newest_first(db: SqliteStore, is_of_client: bool, index: str) -> None:
    sql = outcomes.select_outcomes(is_of_client=is_of_client)
    details = plan(db._conn, sql, {"since_ms": NOW_MS, "client": "ann", "most": 5})
    assert f"INDEX {index} " in f"{details[0]} ", details
    assert not any("TEMP B-TREE" in detail or detail.startswith("SCAN") for detail in details), details
