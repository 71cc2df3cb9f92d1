"""What is ready in one turn of the loop is decided, written in one transaction, and then acted upon."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from holdpay.core import events as ev
from holdpay.core.events import CancelRequested, ProviderFailed
from holdpay.core.lightning import PaymentStatus
from holdpay.core.model import Order
from holdpay.core.states import End, HtlcState, OrderState
from holdpay.engine.turn import MOST_AT_ONCE, Posted
from holdpay.errors import StoreError
from holdpay.ports import Change
from tests.fakes import NO_ROUTE, Send, Story
from tests.unit import build
from tests.unit.build import ALICE, HASH
from tests.unit.engine.world import Crash, World

UNWRITABLE = "\ud800"
"""Half a character: no database takes it."""


async def _held(world: World, count: int = 2) -> list[str]:
    world.provider.story = Story(number_after_s=None, code_after_s=None)
    ids = [world.request(n) for n in range(1, count + 1)]
    await world.until(lambda: all(world.order(order_id).state is OrderState.PAID for order_id in ids))
    await asyncio.sleep(0.3)
    return ids


async def test_what_is_ready_in_one_turn_is_written_in_one_transaction(world: World) -> None:
    ids = await _held(world, 5)
    before = world.store.begun_count
    after = await asyncio.gather(*(world.engine.cancel(order_id) for order_id in ids))
    assert world.store.begun_count == before + 1
    assert all(order.cancel_wanted_at_ms for order in after)
    assert [world.order(order_id) for order_id in ids] == after == [world.engine.order(order_id) for order_id in ids]


async def test_two_events_of_one_order_compose_as_if_they_had_come_one_after_the_other(world: World) -> None:
    (order_id,) = await _held(world, 1)
    before = world.store.begun_count
    first, second = ProviderFailed("one"), CancelRequested()
    after = await asyncio.gather(world.engine.apply(order_id, first), world.engine.apply(order_id, second))
    assert world.store.begun_count == before + 1
    assert world.events(order_id)[-2:] == ["provider_failed", "cancel_requested"]
    stored = world.order(order_id)
    assert list(after) == [stored, stored], "both callers see what is on disk"
    assert (stored.anomaly_count, stored.cancel_wanted_at_ms) == (1, world.clock.now_ms())


async def test_what_is_alone_waits_for_no_time_and_for_one_turn_of_the_loop(world: World) -> None:
    (order_id,) = await _held(world, 1)
    began_s = world.now_s
    task = asyncio.create_task(world.engine.cancel(order_id))
    for _ in range(2):
        await asyncio.sleep(0)
    assert world.events(order_id)[-1] == "cancel_requested"
    await asyncio.sleep(0)
    assert (task.done(), world.now_s) == (True, began_s)


async def test_what_changes_nothing_begins_no_transaction(world: World) -> None:
    (order_id,) = await _held(world, 1)
    statements: list[str] = []
    world.store._conn.set_trace_callback(statements.append)
    await world.engine.apply(order_id, ev.TimePassed())
    assert [sql for sql in statements if sql.startswith(("BEGIN", "COMMIT"))] == []


async def test_nobody_sees_a_step_before_it_is_on_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = await _held(world)
    commit_all = world.store.commit_all
    told: list[str] = []

    def spying(changes: Iterable[Change], now_ms: int) -> list[int]:
        def looked_at() -> Iterable[Change]:
            for change in changes:
                yield change
                assert [world.engine.order(order_id) for order_id in ids] == before
                assert told == []

        return commit_all(looked_at(), now_ms)

    before = [world.engine.order(order_id) for order_id in ids]
    monkeypatch.setattr(world.store, "commit_all", spying)
    with contextlib.ExitStack() as listening:
        for order_id in ids:
            listening.enter_context(world.engine.listening(order_id, partial(told.append, order_id)))
        await asyncio.gather(*(world.engine.cancel(order_id) for order_id in ids))
    assert told == ids
    assert [world.engine.order(order_id) for order_id in ids] != before


async def test_a_contradiction_about_one_order_loses_no_event_of_another_one(world: World) -> None:
    first, second, third = await _held(world, 3)
    with_nothing = ev.DispatchIntended(ALICE)  # without a license
    before = world.store.begun_count
    after = await asyncio.gather(
        world.engine.cancel(first), world.engine.apply(second, with_nothing), world.engine.cancel(third)
    )
    assert [order.is_quarantined for order in after] == [False, True, False]
    assert all(world.order(order_id).cancel_wanted_at_ms for order_id in (first, third))
    assert world.store.begun_count == before + 1


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_an_event_that_cannot_be_written_down_loses_no_other_one(world: World, place: int) -> None:
    ids = await _held(world, 3)
    odd = ids.pop(place)
    calls = [world.engine.cancel(order_id) for order_id in ids]
    calls.insert(place, world.engine.apply(odd, ProviderFailed("odd"), raw=UNWRITABLE))
    before = world.order(odd)
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(answers.pop(place), UnicodeEncodeError)
    assert answers == [world.order(order_id) for order_id in ids]
    assert all(world.order(order_id).cancel_wanted_at_ms for order_id in ids)
    assert world.order(odd) == world.engine.order(odd) == before
    world.provider.story = Story()
    assert (await world.until_closed(world.request(4))).end is End.FULFILLED, "the process goes on"


async def test_a_caller_that_is_canceled_while_it_waits_loses_nothing_and_takes_nothing_back(world: World) -> None:
    first, second = await _held(world)
    leaving = asyncio.create_task(world.engine.cancel(first))
    staying = asyncio.create_task(world.engine.cancel(second))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait({leaving, staying})
    assert leaving.cancelled()
    for order_id in (first, second):
        assert world.order(order_id).cancel_wanted_at_ms is not None
        assert world.engine.order(order_id) == world.order(order_id)


async def test_a_failed_commit_fails_whoever_waits_and_nothing_is_decided_or_written_afterwards(world: World) -> None:
    ids = await _held(world, 3)
    before = [world.order(order_id) for order_id in ids]
    world.store.crash_at = world.store.begun_count + 1
    calls = [asyncio.create_task(world.engine.cancel(order_id)) for order_id in ids[:2]]
    await asyncio.sleep(0)
    late = asyncio.create_task(world.engine.cancel(ids[2]))
    await asyncio.wait({*calls, late})
    assert [type(task.exception()) for task in (*calls, late)] == [Crash, Crash, Crash]
    assert isinstance(await world.failure(), Crash)
    assert [world.order(order_id) for order_id in ids] == before == [world.engine.order(order_id) for order_id in ids]


async def test_a_step_is_bounded_and_what_waits_is_not_forgotten(world: World) -> None:
    ids = await _held(world)
    sizes: list[int] = []
    step = world.engine._turn._step

    def counting(batch: list[Posted]) -> None:
        sizes.append(len(batch))
        step(batch)

    world.engine._turn._step = counting  # type: ignore[assignment]
    count = 2 * MOST_AT_ONCE + 3
    await asyncio.gather(*(world.engine.apply(ids[n % 2], ProviderFailed(f"no. {n}")) for n in range(count)))
    assert sizes == [MOST_AT_ONCE, MOST_AT_ONCE, 3]
    assert sum(world.events(order_id).count("provider_failed") for order_id in ids) == count


async def test_of_two_orders_in_one_step_with_the_same_payment_hash_only_the_first_is_paid(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = asyncio.Event()
    monkeypatch.setattr(world.lnd, "decode", lambda payreq: never.wait())
    ids = [world.request(1), world.request(2)]
    await world.until(lambda: all(world.order(order_id).state is OrderState.AWAITING_PAYMENT for order_id in ids))
    invoice = build.invoice(payment_hash=HASH, created_at_ms=world.clock.now_ms())
    decoded = world.engine._performers._decoded

    def decoded_as(order: Order) -> ev.Event | None:
        return decoded(order.payreq or "", invoice, ALICE, order)

    first, second = await asyncio.gather(*(world.engine.apply(order_id, decoded_as) for order_id in ids))
    assert first.payment is not None
    assert (second.payment, second.end) == (None, End.INVOICE_REJECTED)


async def test_an_intent_to_pay_is_not_made_of_an_order_that_changed_in_the_same_step(world: World) -> None:
    world.lnd.next_sends.extend([Send(fails=NO_ROUTE)] * 5)
    order_id = world.request()
    await world.until(lambda: world.order(order_id).htlc is HtlcState.FAILED)
    order = world.engine.order(order_id)
    assert order is not None
    canceled, intended = await asyncio.gather(
        world.engine.post(order_id, ev.CancelRequested()),
        world.engine.intend(order_id, ev.DispatchIntended(ALICE), lambda now: now is order),
    )
    assert canceled.cancel_wanted_at_ms is not None
    assert intended is None
    assert not world.order(order_id).is_quarantined
    assert "dispatch_intended" not in world.events(order_id)[-1]


async def test_an_order_that_is_quarantined_in_the_step_of_its_intent_is_not_sent(world: World) -> None:
    intend = world.engine.intend

    async def at_once(order_id: str, *args: Any) -> Order | None:
        intending = intend(order_id, *args)
        world.engine.quarantine(order_id, ValueError())
        return await intending

    world.engine.intend = at_once  # type: ignore[method-assign, assignment]
    order_id = world.request()
    await world.until_event(order_id, "order_quarantined")
    await asyncio.sleep(3600)
    assert "dispatch_intended" in world.events(order_id)
    assert world.lnd.sends == []
    assert world.order(order_id).is_quarantined


async def test_a_restart_takes_over_many_orders_in_few_transactions(tmp_path: Path, world: World) -> None:
    ids = await _held(world, 8)
    await world.crash()
    world.start()
    assert world.store.begun_count <= 1
    assert all(world.engine.order(order_id) == world.order(order_id) for order_id in ids)
    assert all(record.status is PaymentStatus.IN_FLIGHT for record in world.lnd.records.values())


async def test_after_a_failure_an_event_is_refused_and_ends_nothing_twice(world: World) -> None:
    (order_id,) = await _held(world, 1)
    world.engine._supervisor.fail(StoreError("planted"))
    answers = await asyncio.gather(*(world.engine.cancel(order_id) for _ in range(3)), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["planted"] * 3
    with pytest.raises(StoreError, match="planted"):
        await world.running
    await world.crash()
    world.start()
