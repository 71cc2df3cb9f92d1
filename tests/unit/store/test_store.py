"""The database: what is written comes back, and a commit that returned has happened."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from random import Random
from threading import Thread
from typing import Any

import pytest
from pydantic import TypeAdapter
from sqlite_utils import Database, Migrations

from holdpay.core import events as ev
from holdpay.core.charge import Charge, ChargeState
from holdpay.core.diagnosis import Cause, Diagnosis
from holdpay.core.dispatches import DispatchRecord
from holdpay.core.events import event_name
from holdpay.core.items import Item, ItemKind
from holdpay.core.kinds import CodeSpec, EmailSpec, FundSpec, RentalSpec, SmsSpec
from holdpay.core.kinds.spec import KindName
from holdpay.core.lightning import Attempt, AttemptStatus, FailureReason
from holdpay.core.machine import decide
from holdpay.core.model import Order, Payment, PaymentFailure, Request
from holdpay.core.states import End, FailureClass, HoldLevel, HtlcState, OrderState, Succession
from holdpay.core.step import Step
from holdpay.core.strategy import Country, Strategy
from holdpay.errors import InvalidRequest, KeyTaken, LimitExceeded, OrderNotFound, OrderUnreadable, StoreError
from holdpay.ports import Limits, MoneyTotals, OrderFilter
from holdpay.store import database
from holdpay.store.changes import ELSEWHERE, OF_THE_ORDER
from holdpay.store.database import transaction
from holdpay.store.erasing import erase
from holdpay.store.journal import RAW_LIMIT_BYTES
from holdpay.store.rows import column_names
from holdpay.store.schema import migrations
from holdpay.store.sealing import NO_KEY
from holdpay.store.store import SqliteStore
from tests.spoiling import look
from tests.unit.build import (
    ALICE,
    EVENTS,
    FAILED_ON_THE_WAY,
    HASH,
    HOUR,
    NOW_MS,
    POLICY,
    PREIMAGE,
    attempt,
    changed,
    failure,
    order,
    pair,
    payment,
    prepaid,
)

LIMITS = Limits(max_open_orders=8, max_pending_sat=50_000, max_spend_per_day_sat=100_000)

FULL_FAILURE = PaymentFailure(
    reason=FailureReason.TIMEOUT,
    failure_class=FailureClass.READ_LATER,
    attempt_count=3,
    payment_index=41,
    at_ms=NOW_MS + 17,
    created_at_ms=NOW_MS + 16,
    hop_place=2,
    hop_pubkey="02" + "bb" * 32,
    hop_channel="812x1x0",
    hop_code=15,
)
FULL_PAYMENT = Payment(
    payment_hash=HASH,
    payreq="lnsb20u1...",
    payee="02" + "cc" * 32,
    amount_msat=2_000_001,
    expires_at_ms=NOW_MS + 1,
    final_cltv_delta=41,
    node_pubkey=ALICE.pubkey,
    node_network="simnet",
    htlc=HtlcState.UNKNOWN,
    htlc_since_ms=NOW_MS + 2,
    dispatch_count=3,
    fee_limit_msat=20_001,
    dispatch_at_ms=NOW_MS + 3,
    is_known_to_lnd=True,
    reached_payee=True,
    money_out_since_ms=NOW_MS + 4,
    expiry_height=800_164,
    fee_msat=1_003,
    attempt_count=5,
    preimage=PREIMAGE,
    failure=FULL_FAILURE,
    diagnosis=Diagnosis(cause=Cause.FEE_LIMIT, text="a route exists at 37 sat"),
    unpaid_since_ms=NOW_MS + 5,
    unpaid_again_at_ms=NOW_MS + 6,
    absent_since_ms=NOW_MS + 7,
    refusal="payment is in transition",
    was_there_before=True,
    gone_since_ms=NOW_MS + 18,
    first_look_height=800_001,
    uncarried_since_ms=NOW_MS + 19,
    is_paid_before=True,
    hold_level=HoldLevel.WARNING,
    hold_why="its peer is offline",
)
FULL_CHARGE = Charge(
    state=ChargeState.RETURNED,
    since_ms=NOW_MS + 20,
    amount_sat=1_999,
    balance_before_sat=50_000,
    intended_at_ms=NOW_MS + 21,
    unmoved_since_ms=NOW_MS + 22,
)
FULL_SPEC = CodeSpec(
    country=187,
    country_name="United States",
    service="oi",
    service_name="Öl & Gas 🛢",
    is_real_phone=True,
    ref="me@example.com",
)
FULL_STRATEGY = Strategy(
    countries=(Country(0, "Russia"), Country(16, "England")),
    attempts=4,
    max_total_sat=9_000,
    within_s=3_600,
    number_within_s=121,
    sms_within_s=240,
    max_price_sat=3_000,
    max_fee_sat=30,
    force=True,
)
FULL_REQUEST = Request(
    id="fullrequest",
    client="shop",
    key="key full",
    fingerprint="e" * 64,
    spec=FULL_SPEC,
    is_prepaid=True,
    created_at_ms=NOW_MS + 8,
    strategy=FULL_STRATEGY,
)
FULL_ITEM = Item(kind=ItemKind.CODE, text="012345", seen_at_ms=NOW_MS + 23, may_lack_zeros=True)
ITEMS = (
    replace(FULL_ITEM, kind=ItemKind.NUMBER, text="15551234560", may_lack_zeros=False),
    replace(FULL_ITEM, kind=ItemKind.NUMBER, text="15551234567", may_lack_zeros=False),
    FULL_ITEM,
    replace(FULL_ITEM, kind=ItemKind.UNREAD, text='{"code":["1","2"]}', may_lack_zeros=False),
)
FULL_ORDER = Order(
    id="fullorder2",
    request=FULL_REQUEST,
    nth=2,
    country=16,
    country_name="England",
    created_at_ms=NOW_MS + 8,
    pay_by_ms=NOW_MS + 9,
    max_price_sat=2_041,
    max_fee_sat=21,
    quote_sat=2_001,
    state=OrderState.CANCELED,
    state_since_ms=NOW_MS + 10,
    place_count=2,
    place_at_ms=NOW_MS + 11,
    waiting_since_ms=NOW_MS + 20,
    provider_order_id="their-id",
    payreq="lnsb20u1...",
    items=ITEMS,
    provider_text='No "available" number',
    cancel_wanted_at_ms=NOW_MS + 12,
    cancel_at_ms=NOW_MS + 13,
    giving_up="no time is left",
    anomaly_count=4,
    closed_at_ms=NOW_MS + 14,
    end=End.REFUNDED,
    reason="the provider canceled it",
    erased_at_ms=NOW_MS + 15,
    quarantined_at_ms=NOW_MS + 16,
    quarantine_reason="It broke a law.",
    restored_at_ms=NOW_MS + 17,
    moved_on="no SMS came in 240 s",
    succession=Succession.FOLLOWED,
    payment=FULL_PAYMENT,
    charge=FULL_CHARGE,
)
SPECS = (
    FULL_SPEC,
    replace(FULL_SPEC, country=None, ref=None),
    RentalSpec(country=0, country_name="Russia", service="full", service_name="", weeks=4),
    SmsSpec(phone="+19871234567", message="hello “you”", webhook_url="https://example.com/x"),
    EmailSpec(address="you@example.com", message="hello"),
    FundSpec(amount_sat=21_000),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "holdpay.db"


@pytest.fixture
def db(path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(path)
    yield opened
    opened.close()


def _order(n: int, **changes: Any) -> Order:
    return order(**{"id": f"order{n:05d}", "key": f"key-{n}", "created_at_ms": NOW_MS + n, **changes})


def _create(db: SqliteStore, *orders: Order) -> None:
    """Whatever the limits."""
    unlimited = Limits(max_open_orders=1_000, max_pending_sat=10**9, max_spend_per_day_sat=10**9)
    for found in orders:
        db.create(found, unlimited, NOW_MS)


def _moved(n: int, state: OrderState, htlc: HtlcState, **changes: Any) -> Order:
    """The order of ``_order(n)``, gone on to this cell."""
    return changed(pair(state, htlc, **changes), id=f"order{n:05d}", key=f"key-{n}", created_at_ms=NOW_MS + n)


def _closed(found: Order, end: End) -> Order:
    return replace(found, closed_at_ms=NOW_MS, end=end)


def _commit(db: SqliteStore, found: Order, event: ev.Event | None = None, raw: str | None = None, **step: Any) -> int:
    """An event that made this of the order as it is stored."""
    before = db.get(found.id) if db._one("SELECT count(*) FROM orders WHERE id = ?", found.id) else found
    return db.commit(before, event or ev.TimePassed(), Step(found, is_change=True, **step), raw, NOW_MS + 1)


def _charged(n: int, state: OrderState, charged: ChargeState, **changes: Any) -> Order:
    """As ``_moved``, of one that the account pays."""
    return changed(prepaid(state, charged, **changes), id=f"order{n:05d}", key=f"key-{n}", created_at_ms=NOW_MS + n)


def _count(db: SqliteStore, table: str) -> int:
    return int(db._conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


# --- what is written comes back -------------------------------------------------------------------------------------


def test_the_full_examples_here_leave_no_field_at_its_default() -> None:
    examples: tuple[Any, ...] = (
        FULL_ORDER,
        FULL_REQUEST,
        FULL_STRATEGY,
        FULL_SPEC,
        FULL_PAYMENT,
        FULL_FAILURE,
        FULL_CHARGE,
        FULL_ITEM,
    )
    for example in examples:
        for field in fields(example):
            if field.name == "kind":
                continue  # a spec's tells the class
            value = getattr(example, field.name)
            assert value is not None, field.name
            assert value != field.default, field.name


@pytest.mark.parametrize(
    "found",
    [
        FULL_ORDER,
        replace(FULL_ORDER, payment=replace(FULL_PAYMENT, failure=None)),
        replace(FULL_ORDER, payment=payment()),
        replace(FULL_ORDER, payment=None, charge=None, closed_at_ms=None, end=None),
        replace(FULL_ORDER, payment=None),
        order(id=FULL_ORDER.id),
        order(id=FULL_ORDER.id, quote_sat=0, max_fee_sat=0),
        *(order(id=FULL_ORDER.id, spec=spec) for spec in SPECS),
        *(pair(state, htlc) for state in OrderState for htlc in HtlcState if state is not OrderState.REQUESTED),
    ],
    ids=lambda found: f"{found.state}-{found.htlc}",
)
def test_every_field_of_an_order_comes_back_as_it_was(path: Path, found: Order) -> None:
    written = SqliteStore(path)
    plain = order(id=found.id, created_at_ms=found.created_at_ms)
    _create(written, replace(plain, request=found.request))
    cursor = _commit(written, found)
    written.close()
    read = SqliteStore(path)
    assert read.get(found.id) == found
    (update,) = read.updates(cursor - 1, found.id, 10)
    assert (update.order, update.cursor, update.at_ms, update.event) == (found, cursor, NOW_MS + 1, "time_passed")
    read.close()


def test_every_field_of_an_attempt_is_stored_with_its_dispatch(db: SqliteStore) -> None:
    found = _moved(1, OrderState.AWAITING_PAYMENT, HtlcState.IN_FLIGHT)
    _create(db, _order(1))
    times = {"attempted_at_ms": NOW_MS + 2, "resolved_at_ms": NOW_MS + 3}
    hops = {"first_hop": "02aa", "first_channel": "1x2x3", "failed_hop": "02bb", "failed_channel": "4x5x6"}
    full = attempt(AttemptStatus.FAILED, attempt_id=9, failure_code=21, failure_source_index=1, **times, **hops)
    _commit(db, found, attempts=(attempt(), full))
    _commit(db, found, attempts=(attempt(AttemptStatus.SUCCEEDED),))
    rows = db._conn.execute("SELECT * FROM htlc_attempts ORDER BY attempt_id").fetchall()
    assert [row["status"] for row in rows] == ["succeeded", "failed"]
    for field in fields(Attempt):
        assert rows[1][field.name] == getattr(full, field.name)
    assert (rows[1]["order_no"], rows[1]["dispatch"]) == (1, 1)


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("orders", ["no", "request_id", "client", "kind", *column_names(Order, without=ELSEWHERE), "reserved_msat"]),
        ("requests", ["kind", "closed_at_ms", "end", *(field.name for field in fields(Request))]),
        ("payments", ["order_no", *column_names(Payment, without=OF_THE_ORDER)]),
        ("charges", ["order_no", *column_names(Charge)]),
        ("items", ["order_no", "seq", "cursor", *column_names(Item)]),
        ("htlc_attempts", ["order_no", "dispatch", *column_names(Attempt)]),
        ("dispatches", ["order_no", *column_names(DispatchRecord)]),
    ],
)
def test_a_table_has_exactly_the_columns_of_its_dataclass(db: SqliteStore, table: str, columns: list[str]) -> None:
    found = [row["name"] for row in db._conn.execute(f"PRAGMA table_info({table})")]
    assert sorted(found) == sorted(columns)


def test_every_table_of_ours_is_strict(db: SqliteStore) -> None:
    rows = db._conn.execute("PRAGMA table_list").fetchall()
    ours = {row["name"]: row["strict"] for row in rows if not row["name"].startswith(("sqlite_", "_sqlite"))}
    assert set(ours.values()) == {1}
    names = (
        "charges copy_note dispatches hooks htlc_attempts items journal keys ledger notices orders payees payments"
        " replies requests secrets"
    )
    assert sorted(ours) == names.split()


# --- a request ------------------------------------------------------------------------------------------------------


def test_a_request_is_recorded_with_its_first_journal_row(db: SqliteStore) -> None:
    assert db.create(_order(1), LIMITS, NOW_MS) == _order(1)
    (update,) = db.updates(0, None, 10)
    assert (update.event, update.order, update.cursor) == ("order_requested", _order(1), db.last_cursor())


def test_a_key_sent_again_returns_the_first_order_as_it_is_now(db: SqliteStore) -> None:
    _create(db, _order(1))
    moved = _order(1, state=OrderState.AWAITING_PAYMENT)
    _commit(db, moved)
    assert db.create(_order(2, key="key-1"), LIMITS, NOW_MS) == moved
    assert (_count(db, "orders"), _count(db, "journal")) == (1, 2)


def test_a_key_sent_again_is_answered_even_over_the_limits(db: SqliteStore) -> None:
    _create(db, _order(1))
    assert db.create(_order(2, key="key-1"), replace(LIMITS, max_open_orders=1), NOW_MS).id == "order00001"


def test_a_key_of_another_request_is_taken(db: SqliteStore) -> None:
    _create(db, _order(1))
    with pytest.raises(KeyTaken):
        db.create(_order(2, key="key-1", fingerprint="0" * 64), LIMITS, NOW_MS)
    assert _count(db, "orders") == 1


def test_an_order_id_drawn_twice_never_overwrites_the_first_order(db: SqliteStore) -> None:
    _create(db, _order(1))
    first = _moved(1, OrderState.PAID, HtlcState.IN_FLIGHT)
    _commit(db, first)
    with pytest.raises(StoreError):
        db.create(_order(1, key="key-2"), LIMITS, NOW_MS)
    assert db.get("order00001") == first


def test_an_order_that_was_never_requested_cannot_be_committed(db: SqliteStore) -> None:
    with pytest.raises(StoreError, match="is not in the database"):
        _commit(db, _order(1))
    assert (_count(db, "orders"), _count(db, "journal")) == (0, 0)


# --- limits ---------------------------------------------------------------------------------------------------------

# An open order reserves its price cap and its fee: 2,040 + 20 sat before the invoice is known, 2,000 + 20 sat after.


def test_the_number_of_open_orders_is_limited(db: SqliteStore) -> None:
    limits = replace(LIMITS, max_open_orders=2)
    for n in (1, 2):
        db.create(_order(n), limits, NOW_MS)
    with pytest.raises(LimitExceeded, match=r"limits\.max_open_orders is 2"):
        db.create(_order(3), limits, NOW_MS)
    assert (_count(db, "orders"), _count(db, "journal")) == (2, 2)
    _commit(db, _order(1, closed_at_ms=NOW_MS, end=End.PAYMENT_FAILED))
    db.create(_order(3), limits, NOW_MS)


def test_a_settled_order_that_waits_for_its_code_takes_no_place_and_stays_open(db: SqliteStore) -> None:
    limits = replace(LIMITS, max_open_orders=1)
    db.create(_order(1), limits, NOW_MS)
    _commit(db, _moved(1, OrderState.PAID, HtlcState.IN_FLIGHT))
    with pytest.raises(LimitExceeded, match=r"1 order is open and limits\.max_open_orders is 1"):
        db.create(_order(2), limits, NOW_MS)
    settled = _moved(1, OrderState.PAID, HtlcState.SETTLED)
    _commit(db, settled)
    db.create(_order(2), limits, NOW_MS)
    assert [found.id for found in db.open_orders()] == [settled.id, "order00002"]
    totals = db.totals(NOW_MS)
    assert (totals.open_orders, totals.settled_orders) == (1, 1)
    with pytest.raises(LimitExceeded, match="1 order is open"):
        db.create(_order(3), limits, NOW_MS)


def test_the_pending_sum_is_limited_with_the_fee_reserve(db: SqliteStore) -> None:
    db.create(_order(1), replace(LIMITS, max_pending_sat=2_060), NOW_MS)
    with pytest.raises(LimitExceeded, match=r"4,120 sat would be pending and limits\.max_pending_sat is 4,119"):
        db.create(_order(2), replace(LIMITS, max_pending_sat=4_119), NOW_MS)
    db.create(_order(2), replace(LIMITS, max_pending_sat=4_120), NOW_MS)
    assert _count(db, "orders") == 2


def test_a_days_spending_counts_what_is_settled_and_what_is_pending(db: SqliteStore) -> None:
    spent = _closed(_moved(1, OrderState.DELIVERED, HtlcState.SETTLED), End.FULFILLED)
    _create(db, _order(1))
    _commit(db, spent)
    with pytest.raises(LimitExceeded, match=r"4,062 sat .* within a day and limits\.max_spend_per_day_sat is 4,061"):
        db.create(_order(2), replace(LIMITS, max_spend_per_day_sat=4_061), NOW_MS)
    db.create(_order(2), replace(LIMITS, max_spend_per_day_sat=4_062), NOW_MS)


def test_a_days_spending_is_summed_before_it_is_rounded() -> None:
    totals = MoneyTotals(open_orders=1, settled_orders=0, pending_msat=500, spent_day_msat=1_500)
    assert replace(LIMITS, max_spend_per_day_sat=3).reached_by(totals, 1_000) is None
    assert replace(LIMITS, max_spend_per_day_sat=3).reached_by(totals, 1_001) is not None


def test_what_was_spent_longer_ago_than_a_day_is_free_again(db: SqliteStore) -> None:
    spent = _closed(_moved(1, OrderState.DELIVERED, HtlcState.SETTLED), End.FULFILLED)
    _create(db, _order(1))
    _commit(db, spent)
    assert db.totals(NOW_MS + 24 * HOUR - 1).spent_day_msat == 2_001_002
    assert db.totals(NOW_MS + 24 * HOUR).spent_day_msat == 0


def test_what_the_node_had_paid_before_the_order_is_neither_spent_nor_pending(db: SqliteStore) -> None:
    _create(db, _order(1))
    _commit(db, _moved(1, OrderState.PAID, HtlcState.SETTLED, is_paid_before=True))
    totals = db.totals(NOW_MS)
    assert (totals.open_orders, totals.settled_orders) == (0, 1)
    assert (totals.pending_msat, totals.spent_day_msat) == (0, 0)


def test_totals_count_no_satoshi_twice(db: SqliteStore) -> None:
    _create(db, _order(1), _order(2), _order(3), _order(4))
    _commit(db, _moved(1, OrderState.PAID, HtlcState.IN_FLIGHT))
    charged = _moved(2, OrderState.PAID, HtlcState.SETTLED, payment_hash="aa" * 32)
    _commit(db, charged)
    back = _moved(3, OrderState.CANCELED, HtlcState.FAILED, payment_hash="bb" * 32)
    _commit(db, _closed(back, End.REFUNDED))
    totals = db.totals(NOW_MS)
    assert (totals.open_orders, totals.settled_orders) == (2, 1)
    assert totals.pending_msat == (2_000_000 + 20_000) + (2_040_000 + 20_000)
    assert totals.spent_day_msat == 2_001_002


def test_limits_are_looked_at_inside_the_transaction_that_records(db: SqliteStore) -> None:
    """Between a look and a write outside of one, a second request could pass the same limit."""
    said: list[str] = []
    db.spent_day_msat(NOW_MS)
    db._conn.set_trace_callback(lambda sql: said.append(sql.split()[0]))
    db.create(_order(1), LIMITS, NOW_MS)
    assert (said[0], said[-1]) == ("SELECT", "COMMIT")
    said = said[said.index("BEGIN") :]
    assert said.count("SELECT") == 3
    assert said.index("INSERT") > max(i for i, word in enumerate(said) if word == "SELECT")


def test_a_new_order_does_not_add_up_anew_what_was_spent_within_the_day(db: SqliteStore) -> None:
    looked: list[int] = []
    db._conn.set_progress_handler(lambda: looked.append(1), 100)

    def cost(n: int) -> int:
        looked.clear()
        db.create(_order(n), LIMITS, NOW_MS)
        return len(looked)

    cost(1)
    alone = cost(2)
    with transaction(db._conn):
        spent = ((1, "", "spend", 1, 0, NOW_MS),) * 2_000
        db._conn.executemany(
            "INSERT INTO ledger (order_no, client, what, msat, fee_msat, at_ms) VALUES (?, ?, ?, ?, ?, ?)", spent
        )
    assert cost(3) > alone + 50
    assert cost(4) <= alone + 5


# --- the journal ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE journal SET entry = x'00'",
        "DELETE FROM journal",
        "UPDATE replies SET said = x'00'",
        "DELETE FROM replies",
        "UPDATE ledger SET msat = 1",
        "DELETE FROM ledger",
    ],
)
def test_the_journal_and_the_ledger_are_append_only(db: SqliteStore, sql: str) -> None:
    _got_code(db, 1, NOW_MS)
    tables = ("journal", "replies", "ledger")
    before = [tuple(row) for table in tables for row in db._rows(f"SELECT * FROM {table}")]
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        db._conn.execute(sql)
    assert [tuple(row) for table in tables for row in db._rows(f"SELECT * FROM {table}")] == before


# --- erasing --------------------------------------------------------------------------------------------------------

RAW_CODE = '{"status":"OK","paid":true,"number":15559876543,"code":987123}'
SAID = ev.ProviderReplied(NOW_MS, ev.ProviderStatus(is_paid=True, number="15559876543", code="987123"))


def _got_code(db: SqliteStore, n: int, closed_at_ms: int) -> Order:
    """An order that was asked about once and then was closed with its code."""
    _create(db, _order(n))
    done = _moved(n, OrderState.DELIVERED, HtlcState.SETTLED, number="15559876543", code="987123")
    assert done.payment is not None
    done = replace(done, payment=replace(done.payment, payment_hash=f"{n:064x}"))
    done = replace(done, closed_at_ms=closed_at_ms, end=End.FULFILLED)
    _commit(db, done, SAID, raw=RAW_CODE)
    return done


def test_codes_and_numbers_of_old_orders_are_erased_and_all_else_of_them_stays(db: SqliteStore) -> None:
    done = _got_code(db, 1, NOW_MS)
    before = db.updates(0, None, 10)
    assert sum(db.erase_codes(NOW_MS + 1, NOW_MS + 9)) == 1
    assert sum(db.erase_codes(NOW_MS + 1, NOW_MS + 9)) == 0
    assert db.get(done.id) == replace(done, items=(), erased_at_ms=NOW_MS + 9)
    after = db.updates(0, None, 10)
    assert [(u.cursor, u.at_ms, u.event, u.notes) for u in after] == [
        (u.cursor, u.at_ms, u.event, u.notes) for u in before
    ]
    assert [u.order for u in after] == [replace(u.order, items=(), erased_at_ms=NOW_MS + 9) for u in before]
    assert after[-1].order == db.get(done.id)
    assert _count(db, "replies") == 0


def test_what_was_replaced_and_what_could_not_be_read_is_erased_with_the_code(db: SqliteStore) -> None:
    odd = '{"code":["987","123"],"number":{"tel":15559876543}}'
    found = _got_code(db, 1, NOW_MS)
    kept: Any = {"earlier_numbers": ("15550000000",), "number": "15559876543", "later_codes": ("987124",)}
    kept |= {"code": "987123", "unread": odd}
    _commit(db, changed(found, **kept), replace(SAID, status=replace(SAID.status, unread=odd)), raw=odd)
    _commit(db, changed(found, **kept), ev.ProviderConfused("not JSON", unread=odd), raw=odd)
    assert db.get(found.id).unread == (odd,)

    assert sum(db.erase_codes(NOW_MS + 1, NOW_MS + 9)) == 1

    assert db.get(found.id) == replace(found, items=(), erased_at_ms=NOW_MS + 9)
    assert [update.order for update in db.updates(0, None, 10)][-2:] == [db.get(found.id)] * 2
    assert [row["data"] for row in look(db._conn, "SELECT data FROM journal ORDER BY cursor")] == [
        "{}",
        None,
        None,
        None,
    ]


def test_what_the_buyer_wrote_is_erased_too_and_lies_nowhere_unsealed(db: SqliteStore, path: Path) -> None:
    spec = SmsSpec(phone="+19871234567", message="meet me at noon")
    sent = _order(1, spec=spec)
    _create(db, sent)
    _commit(db, changed(_closed(sent, End.REFUNDED), sending="created"))
    for secret in ("19871234567", "noon"):
        assert not any(secret in line for line in db._conn.iterdump())
        assert not any(secret.encode() in file.read_bytes() for file in path.parent.iterdir())
    assert db.get(sent.id).spec == db.updates(0, None, 1)[0].order.spec == spec
    _erase_all(db)
    assert db.get(sent.id).spec == spec.without_secrets()
    assert db.updates(0, None, 1)[0].order.spec == spec.without_secrets()
    assert _count(db, "secrets") == 0


def _sqlite_built_without_secure_delete(monkeypatch: pytest.MonkeyPatch) -> None:
    """As SQLite itself comes; distributions differ."""
    connect = sqlite3.connect

    def connected(*args: Any, **options: Any) -> sqlite3.Connection:
        conn: sqlite3.Connection = connect(*args, **options)
        conn.execute("PRAGMA secure_delete = OFF")
        return conn

    monkeypatch.setattr(sqlite3, "connect", connected)


def _secret(n: int) -> tuple[str, str]:
    """Number and code of an order."""
    return f"1555{n:05d}77", f"9{n:05d}73"


def _life(db: SqliteStore, n: int, rng: Random, shrinks: bool = False) -> Iterator[None]:
    """Order n from its request to its end, a commit at a time, with replies of a few bytes to several pages.

    ``shrinks``: what could not be read gives way to something shorter.
    """
    number, code = _secret(n)
    # Ids are random: rows come to lie between others, so that pages are split.
    found = changed(_order(n), id=f"{rng.randrange(10**9):09d}x")

    def commit(state: OrderState, htlc: HtlcState, said: ev.ProviderStatus, **changes: Any) -> None:
        moved = pair(state, htlc, **changes)
        assert moved.payment is not None
        moved = replace(moved, payment=replace(moved.payment, payment_hash=f"{n:064x}"))
        moved = changed(moved, id=found.id, key=found.request.key, created_at_ms=found.created_at_ms)
        raw = json.dumps({"number": said.number, "code": said.code, "text": "y" * rng.choice((10, 800, 5_000, 15_000))})
        _commit(db, moved, ev.ProviderReplied(NOW_MS, said), raw=raw)

    _create(db, found)
    yield
    commit(OrderState.AWAITING_PAYMENT, HtlcState.IN_FLIGHT, ev.ProviderStatus(is_paid=False))
    yield
    for _ in range(rng.randrange(1, 4)):
        said = ev.ProviderStatus(is_paid=True, number=number)
        commit(OrderState.NUMBER_ASSIGNED, HtlcState.IN_FLIGHT, said, number=number)
        yield
    odd = json.dumps({"number": [number, number], "code": {"sms": code}})
    kept: Any = {"number": number, "earlier_numbers": (number,)}
    for unread in (odd + "y" * rng.choice((300, 1_500)), odd) if shrinks else (odd,):
        said = ev.ProviderStatus(is_paid=True, number=number, unread=unread)
        commit(OrderState.NUMBER_ASSIGNED, HtlcState.IN_FLIGHT, said, unread=unread, **kept)
        yield
    said = ev.ProviderStatus(is_paid=True, number=number, code=code)
    kept |= {"unread": odd, "code": code, "later_codes": (code,)}
    commit(OrderState.DELIVERED, HtlcState.IN_FLIGHT, said, **kept)
    yield
    text = "t" * rng.choice((1, 300, 1_500))
    kept |= {"closed_at_ms": NOW_MS, "end": End.FULFILLED}
    commit(OrderState.DELIVERED, HtlcState.SETTLED, said, provider_text=text, **kept)


def _live(db: SqliteStore, count: int, seed: int = 1, *, shrinks: bool = False, first: int = 0) -> None:
    """So many orders from beginning to end, eight of them at a time."""
    rng = Random(seed)
    coming = [_life(db, n, rng, shrinks) for n in range(first, first + count)]
    open_now: list[Iterator[None]] = []
    while coming or open_now:
        while coming and len(open_now) < 8:
            open_now.append(coming.pop(0))
        chosen = rng.choice(open_now)
        if next(chosen, "ended") == "ended":
            open_now.remove(chosen)


def _files(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(path.parent.iterdir()))


def _keys(db: SqliteStore) -> dict[str, bytes]:
    """By order."""
    return {row["id"]: row["key"] for row in db._rows("SELECT id, key FROM orders JOIN keys ON order_no = no")}


def _erase_all(db: SqliteStore) -> None:
    for _ in db.erase_codes(NOW_MS + 1, NOW_MS + 9):
        pass


@pytest.mark.parametrize("copies", [(), ("0998_next",)], ids=["no copy", "a copy"])
def test_of_what_was_erased_no_file_has_a_key_any_more_whatever_sqlite_was_built_with(
    path: Path, monkeypatch: pytest.MonkeyPatch, copies: tuple[str, ...]
) -> None:
    _sqlite_built_without_secure_delete(monkeypatch)
    db = SqliteStore(path)
    assert db._rows("PRAGMA secure_delete")[0][0] == 1
    db._rows("PRAGMA synchronous = OFF")
    _live(db, 150)
    for name in copies:
        db.close()
        _with_migrations(monkeypatch, [name])
        db = SqliteStore(path)
    keys = set(_keys(db).values())
    assert len(keys) == 150
    assert all(key in _files(path) for key in keys)
    _erase_all(db)
    assert not any(key in _files(path) for key in keys)
    assert set(_keys(db).values()) == {NO_KEY}
    db.close()
    for name in copies:
        with closing(sqlite3.connect(path.with_name(f"holdpay.db.before-{name}"))) as copy:
            assert copy.execute("SELECT count(*) FROM orders").fetchone() == (150,)
            assert copy.execute("SELECT count(*) FROM items").fetchone() == (0,)


@pytest.mark.parametrize("seed", [2, 4, 8, 9])
def test_no_secret_is_ever_in_a_file_and_no_copy_of_a_key_stays_in_the_gap_of_a_page(
    path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Some orders are erased, in any order, beside others that live on: SQLite moves rows, and leaves old copies."""
    _sqlite_built_without_secure_delete(monkeypatch)
    db = SqliteStore(path)
    db._rows("PRAGMA synchronous = OFF")
    _live(db, 150, seed, shrinks=bool(seed % 4))
    keys = _keys(db)
    chosen = sorted(keys)
    Random(seed).shuffle(chosen)
    for order_id in chosen[:90]:
        erase(db._conn, [order_id], NOW_MS + 9)
    _live(db, 60, seed + 100, first=150)
    for _ in db.erase_codes(0, NOW_MS + 9):
        pass
    content = _files(path)
    assert {order_id for order_id, key in keys.items() if key in content} == set(chosen[90:])
    assert not any(text.encode() in content for n in range(210) for text in _secret(n))
    for order_id in chosen[90:]:
        assert db.get(order_id).code in {_secret(n)[1] for n in range(150)}
    db.close()


@pytest.mark.parametrize(
    "statement", ["DELETE FROM keys", "UPDATE keys SET key = zeroblob(16)", "UPDATE keys SET order_no = order_no + 9"]
)
def test_a_key_never_moves_and_is_overwritten_only_when_its_order_is_erased(db: SqliteStore, statement: str) -> None:
    _got_code(db, 1, NOW_MS)
    with pytest.raises(sqlite3.IntegrityError, match="a key is overwritten"):
        db._conn.execute(statement)


def test_a_copy_in_which_nothing_can_be_erased_is_removed(db: SqliteStore, path: Path) -> None:
    damaged = path.with_name("holdpay.db.before-0998_next")
    moved_aside = path.with_name("holdpay.db.before-recover-20261122Z")
    for file in (damaged, moved_aside):
        file.write_text("987123")
    _got_code(db, 1, NOW_MS)
    _erase_all(db)
    # What recover moved aside is the operator's own.
    assert (damaged.exists(), moved_aside.exists()) == (False, True)


def test_the_copies_are_erased_first_and_in_any_thread_and_what_a_crash_leaves_is_done_again(
    db: SqliteStore, path: Path
) -> None:
    for n in range(2):
        _got_code(db, n, NOW_MS)
    db._rows("PRAGMA wal_checkpoint(TRUNCATE)")
    copied = [path.with_name(f"holdpay.db.before-099{n}_next") for n in range(3)]
    for copy in copied:
        copy.write_bytes(path.read_bytes())
    aside = Thread(target=lambda: db.erase_in_copies(NOW_MS + 1, NOW_MS + 9))
    aside.start()
    aside.join()
    assert [_codes_in(copy) for copy in copied] == [0] * 3
    assert _codes_in(path) == 2, "the database comes last: it says what is to be done"
    again = SqliteStore(path)
    assert list(again.erase_codes(NOW_MS + 1, NOW_MS + 9)) == [2, 0]
    assert _codes_in(path) == 0
    again.close()


def test_no_copy_is_passed_over_by_who_did_not_think_of_them(db: SqliteStore, path: Path) -> None:
    _got_code(db, 1, NOW_MS)
    db._rows("PRAGMA wal_checkpoint(TRUNCATE)")
    copy = path.with_name("holdpay.db.before-0990_next")
    copy.write_bytes(path.read_bytes())
    db.erase_in_copies(NOW_MS, NOW_MS + 9)
    assert _codes_in(copy) == 1
    _erase_all(db)
    assert _codes_in(copy) == 0


def _codes_in(copy: Path) -> int:
    with closing(sqlite3.connect(copy)) as conn:
        count: int = conn.execute("SELECT count(*) FROM items WHERE kind = 'code'").fetchone()[0]
        return count


@pytest.mark.parametrize("kind", ["nonsense", "code'"])
def test_an_item_that_makes_no_sense_makes_the_order_unreadable(db: SqliteStore, kind: str) -> None:
    _got_code(db, 1, NOW_MS)
    db._conn.execute("UPDATE items SET kind = ? WHERE seq = 1", (kind,))
    with pytest.raises(OrderUnreadable):
        db.get("order00001")
    with pytest.raises(OrderUnreadable):
        db.updates(0, None, 10)


def test_the_log_is_emptied_at_the_end_of_a_round_only(db: SqliteStore) -> None:
    """It waits for the disk; each batch by itself holds up the daemon."""
    for n in range(12):
        _got_code(db, n, NOW_MS)
    said: list[str] = []
    db._conn.set_trace_callback(said.append)
    _erase_all(db)
    assert sum("wal_checkpoint" in sql for sql in said) == 1
    assert not any("UPDATE" in sql for sql in said[[("wal_checkpoint" in sql) for sql in said].index(True) :])


def test_open_and_younger_orders_keep_their_codes(db: SqliteStore) -> None:
    young = _got_code(db, 1, NOW_MS)
    _create(db, _order(2))
    number = _moved(2, OrderState.NUMBER_ASSIGNED, HtlcState.IN_FLIGHT, number="15559876543")
    _commit(db, number)
    assert sum(db.erase_codes(NOW_MS, NOW_MS + 9)) == 0
    assert (db.get(young.id), db.get(number.id)) == (young, number)


def test_many_orders_are_erased_a_few_at_a_time(db: SqliteStore) -> None:
    for n in range(12):
        _got_code(db, n, NOW_MS)
    assert list(db.erase_codes(NOW_MS + 1, NOW_MS + 9)) == [5, 5, 2, 0]


@pytest.mark.parametrize("change", ["entry = x'00'", "at_ms = 1", "order_no = 2"])
def test_the_journal_of_an_erased_order_is_append_only_too(db: SqliteStore, change: str) -> None:
    _got_code(db, 1, NOW_MS)
    _erase_all(db)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        db._conn.execute(f"UPDATE journal SET {change}")


def test_a_reader_that_holds_the_log_open_delays_nothing(db: SqliteStore, path: Path) -> None:
    _got_code(db, 1, NOW_MS)
    with sqlite3.connect(path) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM journal").fetchone()
        assert sum(db.erase_codes(NOW_MS + 1, NOW_MS + 9)) == 1
    reader.close()
    assert db._rows("PRAGMA busy_timeout")[0][0] == database.BUSY_TIMEOUT_S * 1000


@pytest.mark.parametrize("event", [*EVENTS.values(), ev.DispatchIntended(ALICE)], ids=event_name)
def test_an_event_can_be_read_back_from_the_journal(db: SqliteStore, event: ev.Event) -> None:
    _create(db, _order(1))
    _commit(db, _order(1), event, notes=("a note", "another"))
    (row,) = look(
        db._conn,
        "SELECT event, notes, coalesce(j.data, r.data) AS data FROM journal j LEFT JOIN replies r USING (cursor)"
        " ORDER BY cursor DESC LIMIT 1",
    )
    assert row["event"] == event_name(event)
    assert TypeAdapter(type(event)).validate_json(row["data"]) == event
    assert json.loads(row["notes"]) == ["a note", "another"]


def test_a_raw_reply_is_kept_with_its_hash(db: SqliteStore) -> None:
    _create(db, _order(1))
    _commit(db, _order(1), raw='{"status":"OK"}')
    row = look(db._conn, "SELECT raw, raw_sha256 FROM replies ORDER BY cursor DESC")[0]
    assert tuple(row) == ('{"status":"OK"}', hashlib.sha256(b'{"status":"OK"}').hexdigest())


def test_a_huge_raw_reply_is_cut_and_its_hash_is_of_the_whole(db: SqliteStore) -> None:
    raw = "é" * RAW_LIMIT_BYTES
    _create(db, _order(1))
    _commit(db, _order(1), raw="x" + raw)
    row = look(db._conn, "SELECT raw, raw_sha256 FROM replies ORDER BY cursor DESC")[0]
    assert len(row["raw"].encode()) in {RAW_LIMIT_BYTES - 1, RAW_LIMIT_BYTES}
    assert ("x" + raw).startswith(row["raw"])
    assert row["raw_sha256"] == hashlib.sha256(("x" + raw).encode()).hexdigest()


def test_updates_go_on_from_a_cursor_and_lose_nothing(db: SqliteStore) -> None:
    _create(db, _order(1), _order(2))
    for n in (1, 2, 1, 2, 1):
        _commit(db, _order(n))
    every = db.updates(0, None, 100)
    assert [update.order.id[-1] for update in every] == ["1", "2", "1", "2", "1", "2", "1"]
    assert [update.cursor for update in every] == sorted({update.cursor for update in every})
    assert db.last_cursor() == every[-1].cursor
    paged, cursor = [], 0
    while page := db.updates(cursor, None, 2):
        paged += page
        cursor = page[-1].cursor
    assert paged == every
    assert [u.cursor for u in db.updates(every[1].cursor, "order00001", 100)] == [every[i].cursor for i in (2, 4, 6)]
    assert db.updates(db.last_cursor(), None, 100) == []


def test_a_listener_is_told_after_the_commit_and_not_before(db: SqliteStore, path: Path) -> None:
    seen: list[tuple[int, str, bool]] = []
    other = sqlite3.connect(path)

    def told(cursor: int, order: Order) -> None:
        row = other.execute(
            "SELECT 1 FROM journal JOIN orders ON no = order_no WHERE cursor = ? AND id = ?", (cursor, order.id)
        ).fetchone()
        seen.append((cursor, order.id, row is not None))

    db.on_commit = told
    _create(db, _order(1))
    cursor = _commit(db, _order(1))
    assert seen == [(cursor - 1, "order00001", True), (cursor, "order00001", True)]
    other.close()


# --- reading --------------------------------------------------------------------------------------------------------


def test_an_order_is_found_by_the_beginning_of_its_id(db: SqliteStore) -> None:
    _create(db, _order(1, id="abcdefghjk"), _order(2, id="abcdezzzzz"))
    assert db.get("abcdef").id == "abcdefghjk"
    for text in ("zzzz", "abcdefghjkk", "ABCDEF", "abcd%"):
        with pytest.raises(OrderNotFound):
            db.get(text)
    for text in ("abc", ""):
        with pytest.raises(InvalidRequest, match="at least 4 characters"):
            db.get(text)
    with pytest.raises(OrderNotFound, match="More than one"):
        db.get("abcde")


def test_open_orders_are_those_that_are_not_closed(db: SqliteStore) -> None:
    _create(db, *(_order(n) for n in (3, 1, 2)))
    _commit(db, _order(2, closed_at_ms=NOW_MS, end=End.PAYMENT_FAILED))
    assert [found.id[-1] for found in db.open_orders()] == ["1", "3"]


def test_an_open_order_of_a_kind_is_known_of_even_if_its_row_makes_no_sense(db: SqliteStore) -> None:
    _create(db, _order(1, spec=FundSpec(amount_sat=2_000)), _order(2))
    assert (db.has_open(KindName.FUND), db.has_open(KindName.SMS)) == (True, False)
    db._conn.execute("UPDATE orders SET state = 'nonsense' WHERE id = 'order00001'")
    assert db.has_open(KindName.FUND)
    db._conn.execute("""UPDATE requests SET closed_at_ms = 1, "end" = 'fulfilled' WHERE id = 'order00001'""")
    assert not db.has_open(KindName.FUND)


def test_a_list_is_read_by_one_statement_for_its_orders_and_one_for_the_items_of_each(db: SqliteStore) -> None:
    _create(db, *(_order(n, created_at_ms=NOW_MS + n) for n in range(1, 8)))
    said: list[str] = []
    db._conn.set_trace_callback(said.append)
    assert len(db.list_orders(OrderFilter(limit=5))) == 5
    db._conn.set_trace_callback(None)
    assert len([sql for sql in said if " FROM items " in sql]) == 5
    assert len(said) == 6


def test_orders_are_filtered_and_paged_newest_first(db: SqliteStore) -> None:
    _create(db, *(_order(n, created_at_ms=NOW_MS + n // 2) for n in range(6)))
    _commit(db, _order(3, created_at_ms=NOW_MS + 1, closed_at_ms=NOW_MS, end=End.REFUNDED))

    def ids(**wanted: Any) -> str:
        return "".join(found.id[-1] for found in db.list_orders(OrderFilter(**wanted)))

    assert ids() == "543210"
    assert ids(open_only=True) == "54210"
    assert ids(closed_only=True) == ids(end=End.REFUNDED) == "3"
    assert ids(kind="code", limit=2) == "54"
    assert ids(kind="rent") == ""
    assert ids(created_from_ms=NOW_MS + 1, created_before_ms=NOW_MS + 2) == "32"
    assert ids(before=(NOW_MS + 1, "order00003"), limit=2) == "21"
    assert ids(before=(NOW_MS + 2, "order00005"), created_before_ms=NOW_MS + 1) == "10"
    assert ids(before=(NOW_MS + 1, "order00003"), created_before_ms=NOW_MS + 2) == "210"


def test_a_payment_hash_is_known_for_ever_and_never_written_twice(db: SqliteStore) -> None:
    _create(db, _order(1), _order(2))
    closed = _moved(1, OrderState.CANCELED, HtlcState.FAILED)
    _commit(db, _closed(closed, End.REFUNDED))
    assert db.has_payment_hash(HASH)
    assert not db.has_payment_hash("ff" * 32)
    before = _count(db, "journal")
    with pytest.raises(StoreError):
        _commit(db, _moved(2, OrderState.AWAITING_PAYMENT, HtlcState.NONE))
    assert db.get("order00002") == _order(2)
    assert _count(db, "journal") == before


# --- a commit proves itself -----------------------------------------------------------------------------------------


def test_a_transaction_that_was_left_open_elsewhere_is_detected(db: SqliteStore, path: Path) -> None:
    """A COMMIT inside somebody's open transaction would report success and be gone after a crash."""
    _create(db, _order(1))
    db._conn.execute("BEGIN")
    with pytest.raises(StoreError, match="left open"):
        _commit(db, _order(1, state=OrderState.AWAITING_PAYMENT))
    with pytest.raises(StoreError, match="left open"):
        db.create(_order(2), LIMITS, NOW_MS)
    other = sqlite3.connect(path)
    assert other.execute("SELECT count(*) FROM journal").fetchone() == (1,)
    other.close()


class _NeverEnding:
    """A connection whose COMMIT does not end the transaction."""

    in_transaction = False

    def execute(self, sql: str) -> None:
        self.in_transaction = True


def test_a_commit_that_did_not_end_its_transaction_is_detected() -> None:
    with pytest.raises(StoreError, match="did not end"), transaction(_NeverEnding()):  # type: ignore[arg-type]
        pass


def test_a_failed_write_leaves_nothing_behind_and_the_next_one_works(db: SqliteStore) -> None:
    _create(db, _order(1))
    broken = _order(1, reason=None)
    with pytest.raises(StoreError, match="could not be written"):
        _commit(db, broken)
    assert db.get("order00001") == _order(1)
    _commit(db, _order(1, place_count=1))
    assert _count(db, "journal") == 2


def test_the_callers_own_error_rolls_everything_back(db: SqliteStore) -> None:
    _create(db, _order(1))

    def work() -> None:
        with transaction(db._conn):
            db._conn.execute("UPDATE orders SET reason = 'x'")
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert db.get("order00001") == _order(1)


def test_a_database_locked_by_another_program_is_an_error_that_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.01)
    db = SqliteStore(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        db.create(_order(1), LIMITS, NOW_MS)
    other.execute("ROLLBACK")
    db.create(_order(1), LIMITS, NOW_MS)
    other.close()
    db.close()


def test_a_full_disk_is_an_error_that_leaves_the_order_as_it_was(db: SqliteStore) -> None:
    _create(db, _order(1))
    pages = db._conn.execute("PRAGMA page_count").fetchone()[0]
    db._conn.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="full"):
        _commit(db, _order(1, reason="x" * 100_000))
    assert db.get("order00001") == _order(1)


def test_every_commit_waits_for_the_disk(db: SqliteStore) -> None:
    assert db._conn.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert db._conn.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert db._conn.execute("PRAGMA foreign_keys").fetchone()[0] == 1
    assert db._conn.isolation_level is None


_KILLED = """
import os, signal, sys
from pathlib import Path
from holdpay.core.machine import decide
from holdpay.store.store import SqliteStore
from tests.unit.build import EVENTS, NOW_MS, POLICY, order
from tests.unit.store.test_store import LIMITS

db = SqliteStore(Path(sys.argv[1]))
db.create(order(), LIMITS, NOW_MS)
step = decide(order(), EVENTS["order placed"], POLICY, NOW_MS)
db.commit(order(), EVENTS["order placed"], step, None, NOW_MS)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_committed_survives_kill_9_right_after(path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", _KILLED, str(path)], cwd=Path(__file__).parents[3], check=False)
    assert ended.returncode == -signal.SIGKILL
    db = SqliteStore(path)
    assert db.get(order().id) == decide(order(), EVENTS["order placed"], POLICY, NOW_MS).order
    assert db.last_cursor() == 2
    db.close()


# --- opening --------------------------------------------------------------------------------------------------------


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_nobody_else_may_read_the_database(path: Path) -> None:
    umask = os.umask(0)
    try:
        db = SqliteStore(path)
        _create(db, _order(1))
        files = sorted(path.parent.iterdir())
        assert len(files) == 4
        assert {_mode(file) for file in files} == {0o600}
        db.close()
    finally:
        os.umask(umask)


def test_a_database_of_a_newer_holdpay_is_refused_untouched(path: Path) -> None:
    SqliteStore(path).close()
    conn = sqlite3.connect(path)
    conn.execute(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('holdpay', '0999_future', '2030')"
    )
    conn.commit()
    conn.close()
    with pytest.raises(StoreError, match=r"newer holdpay \(0999_future\)"):
        SqliteStore(path)
    assert list(path.parent.glob("*.before-*")) == []


def _with_migrations(monkeypatch: pytest.MonkeyPatch, names: list[str], broken: str = "") -> None:
    """The migrations of a later holdpay: the real ones, and these."""
    later = Migrations("holdpay")
    for known in migrations.pending(Database(memory=True)):
        later(name=known.name, transactional=known.transactional)(known.fn)
    for name in names:

        @later(name=name)
        def _change(db: Database, name: str = name) -> None:
            db.execute(f'CREATE TABLE "{name}" (x INTEGER) STRICT')
            if name == broken:
                raise sqlite3.OperationalError("broken")

    monkeypatch.setattr(database, "migrations", later)


def test_a_copy_is_kept_before_a_migration_and_the_last_three_copies_stay(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = SqliteStore(path)
    _create(db, _order(1))
    db.close()
    assert list(path.parent.glob("*.before-*")) == [], "a new database needs no copy"
    umask = os.umask(0)
    names = ["0002_b", "0003_c", "0004_d", "0005_e"]
    for count in range(1, 5):
        _with_migrations(monkeypatch, names[:count])
        SqliteStore(path).close()
    os.umask(umask)
    copies = sorted(path.parent.glob("*.before-*"))
    assert [copy.suffix for copy in copies] == [".before-0003_c", ".before-0004_d", ".before-0005_e"]
    assert {_mode(copy) for copy in copies} == {0o600}
    copy = sqlite3.connect(copies[0])
    assert copy.execute("SELECT id FROM orders").fetchall() == [("order00001",)]
    assert copy.execute("SELECT name FROM sqlite_master WHERE name = '0003_c'").fetchall() == []
    copy.close()


def test_an_order_whose_row_makes_no_sense_is_marked_and_hides_no_other(db: SqliteStore) -> None:
    _create(db, _order(1), _order(2), _order(3))
    db._conn.execute("UPDATE orders SET state = 'nonsense' WHERE id = 'order00001'")
    db._conn.execute("UPDATE orders SET provider_text = CAST(x'ff' AS TEXT) WHERE id = 'order00002'")
    assert db.quarantine_unreadable(NOW_MS) == ["order00001", "order00002"]
    assert [found.id for found in db.open_orders()] == ["order00003"]
    assert [found.id for found in db.list_orders(OrderFilter())] == ["order00003"]
    with pytest.raises(OrderUnreadable, match="holdpayd check"):
        db.get("order00001")
    with pytest.raises(OrderUnreadable):
        db.find_key("key-2")
    marks = db._conn.execute("SELECT id FROM orders WHERE quarantined_at_ms IS NOT NULL").fetchall()
    assert [row["id"] for row in marks] == ["order00001", "order00002"]
    assert db.quarantine_unreadable(NOW_MS + 1) == ["order00001", "order00002"]
    told = [update for update in db.updates(0, None, 100) if update.event == "order_quarantined"]
    assert [(update.at_ms, update.order.id) for update in told] == [(NOW_MS, "order00001"), (NOW_MS, "order00002")]
    assert all(update.order.is_quarantined and update.notes for update in told)


def test_an_order_whose_journal_makes_no_sense_either_is_marked_without_a_row_that_no_stream_could_tell(
    db: SqliteStore,
) -> None:
    _create(db, _order(1), _order(2))
    db._conn.execute("UPDATE requests SET spec = '{' WHERE id = 'order00001'")
    before = db.last_cursor()
    assert db.quarantine_unreadable(NOW_MS) == ["order00001"]
    assert db.last_cursor() == before


def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SqliteStore(path).close()
    _with_migrations(monkeypatch, ["0002_b"], broken="0002_b")
    with pytest.raises(StoreError, match="broken"):
        SqliteStore(path)
    monkeypatch.setattr(database, "migrations", migrations)
    db = SqliteStore(path)
    _create(db, _order(1))
    db.close()


def test_a_file_that_is_no_database_is_an_error_that_says_so(path: Path) -> None:
    path.write_bytes(b"not a database, " * 100)
    with pytest.raises(StoreError, match="cannot be used"):
        SqliteStore(path)


def test_a_folder_that_is_not_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Check its folder's rights"):
        SqliteStore(tmp_path / "nowhere" / "holdpay.db")


def test_a_failure_and_an_attempt_of_a_real_payment_fit_their_columns(db: SqliteStore) -> None:
    """The whole way: what ``decide`` makes of LND's word is what comes back."""
    _create(db, _order(1))
    found = _moved(1, OrderState.AWAITING_PAYMENT, HtlcState.IN_FLIGHT)
    step = decide(found, EVENTS["failed on the way"], POLICY, NOW_MS)
    db.commit(db.get("order00001"), EVENTS["failed on the way"], step, None, NOW_MS)
    read = db.get("order00001")
    assert read == step.order
    assert read.payment is not None
    assert read.payment.failure == failure()
    row = db._conn.execute("SELECT failure_code FROM htlc_attempts").fetchone()
    assert row["failure_code"] == FAILED_ON_THE_WAY.failure_code


def test_no_table_can_be_made_by_a_misspelt_name(db: SqliteStore) -> None:
    with pytest.raises(StoreError, match="no such table"):
        db._rows("SELECT * FROM order_s")


# --- what may have moved the account's balance ----------------------------------------------------------------------


LATER_MS = NOW_MS + HOUR


@pytest.mark.parametrize(
    ("state", "charged", "has_moved"),
    [
        (OrderState.REQUESTED, ChargeState.UNKNOWN, True),
        (OrderState.PAID, ChargeState.CHARGED, True),
        (OrderState.DELIVERED, ChargeState.CHARGED, False),
    ],
    ids=["nobody knows of it", "its price may go back", "it was delivered"],
)
def test_an_open_order_whose_price_may_go_back_may_have_moved_the_balance(
    db: SqliteStore, state: OrderState, charged: ChargeState, has_moved: bool
) -> None:
    own = _charged(1, OrderState.REQUESTED, ChargeState.UNKNOWN, balance_before_sat=9_999)
    _create(db, own, _charged(2, state, charged))
    assert db.has_moved_balance_since(LATER_MS, besides="order00001") is has_moved


def test_a_charge_that_changed_since_may_have_moved_the_balance_and_the_own_one_does_not(db: SqliteStore) -> None:
    _create(db, _closed(_charged(1, OrderState.CANCELED, ChargeState.RETURNED, since_ms=NOW_MS), End.REFUNDED))
    assert db.has_moved_balance_since(NOW_MS, besides="other")
    assert not db.has_moved_balance_since(NOW_MS + 1, besides="other")
    assert not db.has_moved_balance_since(NOW_MS, besides="order00001")
