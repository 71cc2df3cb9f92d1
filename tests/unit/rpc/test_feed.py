"""Streams are woken by commits: at once once something is delivered or over, together with others until then."""

from __future__ import annotations

import asyncio

import pytest

from holdpay.core.model import Order
from holdpay.core.states import End, HtlcState, OrderState
from holdpay.rpc.feed import Feed
from tests.unit import build

REQUESTED = build.order(state=OrderState.REQUESTED)
ON_THE_WAY = [REQUESTED] + [
    build.pair(OrderState.AWAITING_PAYMENT, htlc)
    for htlc in (HtlcState.NONE, HtlcState.DISPATCHING, HtlcState.IN_FLIGHT, HtlcState.FAILED, HtlcState.SETTLED)
]
TOLD_AT_ONCE = [
    build.pair(OrderState.NUMBER_ASSIGNED, HtlcState.DISPATCHING, number="+4915112345678"),
    build.pair(OrderState.DELIVERED, HtlcState.SETTLED, code="123456"),
    build.order(state=OrderState.ABANDONED, closed_at_ms=build.NOW_MS, end=End.PROVIDER_REFUSED),
]


def name(order: Order) -> str:
    return f"{order.state.value}-{order.htlc.value}"


@pytest.mark.parametrize("order", TOLD_AT_ONCE, ids=name)
async def test_what_somebody_waits_for_is_told_at_once(order: Order) -> None:
    feed = Feed()
    own, every, other = feed.next_commit(order.id), feed.next_commit(None), feed.next_commit("another")
    feed.committed(1, order)
    assert own.is_set()
    assert every.is_set()
    assert not other.is_set()


@pytest.mark.parametrize("order", ON_THE_WAY, ids=name)
async def test_on_the_way_to_a_number_nobody_is_woken_yet(order: Order) -> None:
    feed = Feed()
    own, every = feed.next_commit(order.id), feed.next_commit(None)
    feed.committed(1, order)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not own.is_set()
    assert not every.is_set()
    await own.wait()
    await every.wait()


async def test_each_commit_on_the_way_is_told_in_the_end() -> None:
    feed = Feed()
    for _ in range(2):
        commit = feed.next_commit(REQUESTED.id)
        feed.committed(1, REQUESTED)
        await commit.wait()


async def test_who_was_told_at_once_is_not_woken_again_for_what_came_before() -> None:
    feed = Feed()
    for order in (REQUESTED, TOLD_AT_ONCE[0]):
        feed.committed(1, order)
    nothing_new = feed.next_commit(REQUESTED.id)
    another = build.order(request=build.request(id="another"))
    later = feed.next_commit(another.request.id)
    feed.committed(2, another)
    await later.wait()
    assert not nothing_new.is_set()


async def test_who_asks_after_a_commit_waits_for_the_next_one() -> None:
    feed = Feed()
    feed.committed(1, TOLD_AT_ONCE[0])
    assert not feed.next_commit(TOLD_AT_ONCE[0].id).is_set()


async def test_stopping_wakes_everybody() -> None:
    feed = Feed()
    waiting = [feed.next_commit(key) for key in (None, "one", "two")]
    feed.stop()
    assert feed.is_stopping
    assert all(commit.is_set() for commit in waiting)
