"""The queue before the holds by itself: its order, its bounds, and what it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdpay.core.holds import HoldCaps, WhenFull
from holdpay.core.model import Order
from holdpay.core.states import HtlcState, OrderState
from holdpay.engine.places import Places
from holdpay.engine.tally import Tally
from tests.unit.build import NOW_MS, S, order, pair, quarantined

SAT = 2_060
"""That each order of ``build`` may lock: its price limit with its fee limit."""


class Queue:
    """Places with what is counted beside them."""

    def __init__(self, *placed: Order, **caps: Any) -> None:
        self.tally = Tally()
        self.places = Places(HoldCaps(**caps), self.tally)
        for one in placed:
            self.put(one)

    def put(self, one: Order) -> Order:
        self.tally.changed(None, one)
        self.places.changed(None, one)
        return one


def new(n: int, at_s: int = 0, **changes: Any) -> Order:
    return order(id=f"order{n:05d}", key=f"key-{n}", created_at_ms=NOW_MS + at_s * S, **changes)


def waiting(n: int, at_s: int = 0, **changes: Any) -> Order:
    return new(n, at_s, waiting_since_ms=NOW_MS + at_s * S, **changes)


# --- who waits --------------------------------------------------------------------------------------------------------


def test_those_that_wait_stand_in_the_order_in_which_they_were_made_and_of_the_same_time_by_id() -> None:
    queue = Queue()
    late, second, first = (queue.put(waiting(*each)) for each in ((1, 9), (3, 5), (2, 5)))
    places = queue.places
    assert places.oldest(2) == [first.id, second.id]
    assert [places.position(one) for one in (first, second, late)] == [1, 2, 3]
    assert places.position(waiting(4, 5)) is None, "nobody has put it there"
    assert places.position(waiting(4, 99)) is None
    assert places.position(new(2, 5)) is None, "it does not wait"
    assert places.waiting == 3


def test_who_gets_a_place_or_is_put_aside_or_ends_leaves_the_queue_and_nobody_else_does() -> None:
    queue = Queue()
    first, second, third, last = (queue.put(waiting(n, n)) for n in range(1, 5))
    places = queue.places
    places.changed(second, replace(second, waiting_since_ms=None))
    assert places.oldest(9) == [first.id, third.id, last.id]
    places.changed(first, quarantined(first))
    assert places.oldest(9) == [third.id, last.id]
    places.changed(last, None)
    assert places.oldest(9) == [third.id]
    places.changed(third, replace(third, provider_text="x"))
    assert places.oldest(9) == [third.id]


# --- whether there is room --------------------------------------------------------------------------------------------


def test_orders_are_capped_by_how_many_have_a_place() -> None:
    queue = Queue(new(1), pair(OrderState.DELIVERED, HtlcState.SETTLED), waiting(2), max_orders=2)
    assert queue.places.full(10**12) is None
    queue.put(new(3))
    full = queue.places.full(0)
    assert full is not None
    assert full.message.startswith("2 of 2 holds are out or about to be (holds.max_orders).")
    assert full.metadata == {"limit": "holds.max_orders", "limit_orders": "2", "open_orders": "2"}


def test_what_may_be_locked_is_capped_to_the_millisatoshi() -> None:
    queue = Queue(new(1), max_locked_sat=3_000)
    assert queue.places.full((3_000 - SAT) * 1000) is None
    full = queue.places.full((3_000 - SAT) * 1000 + 1)
    assert full is not None
    assert full.message.startswith(
        "With this order 3,001 sat would be locked in holds and holds.max_locked_sat is 3,000"
    )
    assert full.metadata == {"limit": "holds.max_locked_sat", "limit_sat": "3000", "wanted_sat": "3001"}


def test_what_a_step_has_done_so_far_counts_too() -> None:
    ahead = Tally()
    ahead.changed(None, new(2))
    by_count, by_sum = Queue(max_orders=1).places, Queue(max_locked_sat=SAT).places
    assert (by_count.full(0), by_sum.full(SAT * 1000)) == (None, None)
    assert by_count.full(0, ahead) is not None
    assert by_sum.full(0, ahead) is None
    assert by_sum.full(1, ahead) is not None


@pytest.mark.parametrize("limit", ["max_locked_sat", "max_channel_locked_sat"])
def test_an_order_that_alone_is_over_a_cap_never_has_a_place(limit: str) -> None:
    assert Queue(**{limit: SAT}).places.too_big(new(1)) is None
    places = Queue(**{limit: SAT - 1}).places
    too_big = places.too_big(new(1))
    assert too_big is not None
    assert too_big.message.startswith(f"This order alone may lock 2,060 sat, and holds.{limit} is 2,059.")
    assert too_big.metadata == {"limit": f"holds.{limit}", "limit_sat": "2059", "wanted_sat": "2060"}
    assert places.is_refused(new(1))
    entering = places.entering(new(1, client="ann"))
    assert entering is not None
    assert entering.metadata == too_big.metadata, "its own size is its own business"


def test_who_comes_while_others_wait_waits_behind_them_although_there_is_room() -> None:
    queue = Queue(max_orders=9)
    assert queue.places.entering(new(1)) is None
    queue.put(waiting(2))
    behind = queue.places.entering(new(1))
    assert behind is not None
    assert behind.message.startswith("1 order waits for a place among the holds already.")
    assert behind.metadata == {"limit": "holds"}
    queue.put(waiting(3))
    behind = queue.places.entering(new(1))
    assert behind is not None
    assert behind.message.startswith("2 orders wait for a place among the holds already.")


def test_a_client_hears_which_cap_is_reached_and_not_what_the_others_hold() -> None:
    full = Queue(new(1), max_orders=1).places.entering(new(2, client="ann"))
    assert full is not None
    assert full.metadata == {"limit": "holds.max_orders"}
    assert "All clients together leave no room" in full.message


@pytest.mark.parametrize("when_full", WhenFull)
def test_where_it_may_not_wait_it_is_refused_and_else_it_waits(when_full: WhenFull) -> None:
    may_wait = when_full is WhenFull.QUEUE
    queue = Queue(max_orders=1, when_full=when_full)
    assert not queue.places.waits(1)
    queue.put(new(1))
    assert queue.places.waits(1) == may_wait
    assert queue.places.is_refused(new(2)) != may_wait
    others = Queue(waiting(1), max_orders=9, when_full=when_full)
    assert others.places.waits(1) == may_wait


# --- what it says -----------------------------------------------------------------------------------------------------


def test_who_waits_is_told_for_what_and_where_it_stands() -> None:
    mine = waiting(2)
    queue = Queue(new(1, max_fee_sat=19), mine, waiting(3, 7), max_orders=1, max_locked_sat=3_000)
    assert queue.places.words(mine) == "1 of 1 holds are out, 2,059 of 3,000 sat are locked; 1st in the queue"
    assert queue.places.words(mine, "ann") == "there is no place for it yet; 1st in the queue"
    assert queue.places.words(waiting(3, 7)).endswith("; 2nd in the queue")
    assert queue.places.words(new(1)) == ""


def test_each_cap_is_told_only_where_there_is_one() -> None:
    mine = waiting(2)
    assert Queue(new(1), mine, max_orders=1).places.words(mine) == "1 of 1 holds are out; 1st in the queue"
    assert Queue(new(1), mine, max_locked_sat=9).places.words(mine) == "2,060 of 9 sat are locked; 1st in the queue"
    assert Queue(mine).places.words(mine) == Queue(mine).places.words(mine, "ann") == "about to be placed"
