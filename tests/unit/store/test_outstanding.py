"""What the open orders may still cost is carried along, and is at every moment what the database adds up to."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from holdpay.core import events as ev
from holdpay.core.budget import Budget
from holdpay.core.charge import ChargeState
from holdpay.core.model import Order
from holdpay.core.outstanding import NOTHING, Outstanding
from holdpay.core.states import End, HtlcState, OrderState, Succession
from holdpay.core.step import Step
from holdpay.errors import LimitExceeded, StoreError
from holdpay.ports import Change, Limits
from holdpay.store import outstanding
from holdpay.store.outstanding import added_up
from holdpay.store.store import SqliteStore
from tests.databases import NAME, empty_database
from tests.unit.build import NOW_MS, order, pair, prepaid

CLIENTS = ("", "ann", "bob")
BUDGETS = {client: Budget(client=client, max_spend_per_day_sat=10**6, max_fee_per_day_sat=10**6) for client in CLIENTS}
AMPLE = Limits(max_open_orders=10**6, max_pending_sat=10**9, max_spend_per_day_sat=10**9)
SHAPES = (
    *(
        pair(state, htlc)
        for state in (OrderState.AWAITING_PAYMENT, OrderState.PAID, OrderState.DELIVERED, OrderState.CANCELED)
        for htlc in HtlcState
    ),
    pair(OrderState.PAID, HtlcState.SETTLED, is_paid_before=True),
    pair(OrderState.REQUESTED, HtlcState.NONE),
    *(prepaid(state, charged) for state in (OrderState.REQUESTED, OrderState.DELIVERED) for charged in ChargeState),
    prepaid(OrderState.REQUESTED),
)


class Taken(Exception):
    """Back, all that the transaction had written."""


class Lives:
    """Orders that become anything at random, several in a transaction, some of which fail."""

    def __init__(self, db: SqliteStore, rng: Random) -> None:
        self.db = db
        self.rng = rng
        self.live: dict[str, Order] = {}
        self.made = 0

    def take_a_step(self) -> None:
        steps = (self._request, self._request, self._change, self._change, self._follow)
        step = self.rng.choice(steps if self.live else (self._request,))
        with suppress(LimitExceeded, Taken, StoreError):  # then nothing of it is there
            step()

    def _new(self, **changes: Any) -> Order:
        self.made += 1
        return order(
            id=f"order{self.made:05d}",
            key=f"key-{self.made}",
            client=self.rng.choice(CLIENTS),
            max_price_sat=self.rng.randrange(1, 9_000),
            max_fee_sat=self.rng.choice((0, 1, 20)),
            is_prepaid=self.rng.random() < 0.3,
            **changes,
        )

    def _request(self) -> None:
        new = self._new()
        self.db.create(new, self.rng.choice((AMPLE, AMPLE, replace(AMPLE, max_open_orders=1))), NOW_MS)
        self.live[new.id] = new

    def _change(self) -> None:
        """Of some, perhaps of one of them twice; and perhaps it fails before it is all written, or when it is."""
        picked = self.rng.choices(sorted(self.live), k=self.rng.randrange(1, 4))
        fails_after = self.rng.choice((None, None, None, *range(len(picked) + 1)))
        ahead = dict(self.live)

        def changes() -> Iterator[Change]:
            for at, order_id in enumerate(picked):
                if at == fails_after:
                    raise Taken
                before = ahead[order_id]
                ahead[order_id] = self._become(before)
                yield Change(before, ev.TimePassed(), Step(ahead[order_id], is_change=True))
                self.expect_what_is_there()
            if fails_after == len(picked):
                self.db._conn.execute("ROLLBACK")  # the COMMIT behind it fails

        self.db.commit_all(changes(), NOW_MS)
        self.live = {order_id: found for order_id, found in ahead.items() if not found.is_closed}

    def _follow(self) -> None:
        """An order whose request goes on, and then the next one, if there is room for it."""
        order_id = self.rng.choice(sorted(self.live))
        before = self.live.pop(order_id)
        closed = replace(before, closed_at_ms=NOW_MS, end=End.REFUNDED, succession=Succession.GOING_ON)
        self.db.commit(before, ev.TimePassed(), Step(closed, is_change=True), None, NOW_MS)
        self.expect_what_is_there()
        followed = replace(closed, succession=Succession.FOLLOWED)
        after = replace(before, id=f"{before.id}-2", nth=2, payment=None, charge=None, state=OrderState.REQUESTED)
        if before.nth == 1:
            limits = self.rng.choice((AMPLE, replace(AMPLE, max_pending_sat=1)))
            self.db.create_next(Change(closed, ev.NextOrdered(), Step(followed, is_change=True)), after, limits, NOW_MS)
            self.live[after.id] = after

    def _become(self, before: Order) -> Order:
        shapes = [s for s in SHAPES if s.request.is_prepaid == before.request.is_prepaid]
        shapes = [s for s in shapes if before.payment is None or s.payment is not None]
        shape = self.rng.choice([s for s in shapes if before.charge is None or s.charge is not None])
        payment = shape.payment and replace(
            shape.payment,
            payment_hash=before.id.encode().hex().rjust(64, "0"),
            amount_msat=self.rng.randrange(1, 9_000_000),
        )
        after = replace(before, state=shape.state, payment=payment, charge=shape.charge)
        is_over = self.rng.random() < 0.2
        return replace(after, closed_at_ms=NOW_MS, end=End.REFUNDED) if is_over else after

    def expect_what_is_there(self) -> None:
        is_there = added_up(self.db._conn)
        whole = sum(is_there.values(), NOTHING)
        totals = self.db.totals(NOW_MS)
        carried = (totals.open_orders, totals.settled_orders, totals.pending_msat)
        assert carried == (whole.open_orders, whole.settled_orders, whole.pending_msat)
        for client, budget in BUDGETS.items():
            own = is_there.get(client, NOTHING)
            usage = self.db.budget_usage(budget, NOW_MS)
            assert usage.open_orders == own.open_orders
            assert [used.reserved_msat for used in usage.used] == [own.pending_msat, own.pending_fee_msat]


def opened(folder: Path) -> SqliteStore:
    """A database without an order."""
    folder.mkdir()
    (folder / NAME).write_bytes(empty_database())
    db = SqliteStore(folder / NAME)
    db._conn.execute("PRAGMA synchronous = OFF")  # no machine loses its power here
    return db


def test_it_is_what_the_database_adds_up_to_whatever_became_of_the_orders(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    for seed in range(300):
        rng, folder = Random(seed), tmp_path / str(seed)
        with closing(opened(folder)) as db:
            lives = Lives(db, rng)
            for _ in range(20):
                count = db.commit_count
                lives.take_a_step()
                seen["failed"] += db.commit_count == count
                if rng.random() < 0.7:  # several in turn, of which none is looked at
                    lives.expect_what_is_there()
            lives.expect_what_is_there()
            told = db.totals(NOW_MS)
            seen.update({client: orders.settled_orders for client, orders in added_up(db._conn).items()})
        with closing(SqliteStore(folder / NAME)) as anew:
            assert anew.totals(NOW_MS) == told, seed
    assert seen["failed"] > 500
    assert all(seen[client] > 20 for client in CLIENTS), seen


def test_it_is_added_up_once_and_never_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not for an order that a limit refuses."""
    looked: list[sqlite3.Connection] = []

    def looking(conn: sqlite3.Connection) -> dict[str, Outstanding]:
        looked.append(conn)
        return added_up(conn)

    monkeypatch.setattr(outstanding, "added_up", looking)
    with closing(opened(tmp_path / "one")) as db:
        for number in range(5):
            new = db.create(order(id=f"order{number:05d}", key=f"key-{number}", client="ann"), AMPLE, NOW_MS)
            wished = replace(new, cancel_wanted_at_ms=NOW_MS)
            db.commit(new, ev.CancelRequested(), Step(wished, is_change=True), None, NOW_MS)
            db.budget_usage(BUDGETS["ann"], NOW_MS)
            with pytest.raises(LimitExceeded):
                db.create(order(id="another", key="another"), replace(AMPLE, max_pending_sat=1), NOW_MS)
        assert db.totals(NOW_MS).open_orders == 5
    assert len(looked) == 1
