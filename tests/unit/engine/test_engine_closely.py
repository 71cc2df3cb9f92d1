"""The engine at its edges: at its end, in the middle of a step, and about what is not there any more."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from structlog.testing import capture_logs

from holdpay.core import events as ev
from holdpay.core.asking import Learned
from holdpay.core.events import CancelRequested, ProviderFailed
from holdpay.core.guard import alarms
from holdpay.core.kinds.spec import Placing
from holdpay.core.model import Order
from holdpay.core.states import End, HtlcState, OrderState
from holdpay.engine import engine as engine_module
from holdpay.engine.engine import CLOCK_DOUBT_S
from holdpay.engine.turn import MOST_AT_ONCE
from holdpay.errors import InvariantViolation, LndRefused
from holdpay.ports import Change, NodeState, OrderFilter, Placed, Reply
from tests.fakes import HOP_DOWN, Send, Story
from tests.unit import build
from tests.unit.build import ALICE, MALLORY
from tests.unit.engine.world import Crash, World

NEVER = Story(number_after_s=None, code_after_s=None)
DAY_MS = 24 * 3600 * 1000


async def _held(world: World, count: int = 2, first: int = 1) -> list[str]:
    world.provider.story = NEVER
    ids = [world.request(n) for n in range(first, first + count)]
    await world.until(lambda: all(world.order(order_id).state is OrderState.PAID for order_id in ids))
    await asyncio.sleep(0.3)
    return ids


async def _placed(world: World, n: int = 9) -> str:
    """Ordered, and not paid: lnd is away."""
    world.lnd.is_down = True
    order_id = world.request(n)
    await world.until_event(order_id, "order_placed")
    return order_id


# --- at its end -----------------------------------------------------------------------------------------------------


async def test_what_was_posted_before_the_end_is_on_disk_at_the_end(world: World) -> None:
    first, second = await _held(world)
    telling = [
        asyncio.create_task(world.engine.apply(first, ProviderFailed(f"no. {n}"))) for n in range(40 * MOST_AT_ONCE)
    ]
    await asyncio.sleep(0)
    world.engine.quarantine(second, InvariantViolation("Two truths."))
    world.running.cancel()
    await asyncio.wait({world.running})
    assert world.order(second).is_quarantined
    await asyncio.wait(telling)


async def test_what_lnd_is_asked_about_a_hold_invoice_does_not_outlive_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path / "holdpay.db")
    monkeypatch.setattr(world.lnd, "decode", lambda payreq: asyncio.Event().wait())
    world.start(crash_at=1)
    world.request()
    await world.failure()
    assert len(asyncio.all_tasks()) == 1
    await world.crash()


# --- in a step ------------------------------------------------------------------------------------------------------


async def test_an_event_of_an_order_that_ended_in_the_step_before_loses_no_other_one(world: World) -> None:
    (held,) = await _held(world, 1)
    ended = await _placed(world)
    fillers = [world.engine.apply(held, ProviderFailed(f"no. {n}")) for n in range(MOST_AT_ONCE - 1)]
    last = [world.engine.cancel(ended), world.engine.apply(ended, lambda order: CancelRequested())]
    answers = await asyncio.gather(world.engine.cancel(ended), *fillers, *last, world.engine.cancel(held))
    assert world.order(ended).end is End.CANCELED_UNPAID
    assert answers[0] == answers[-3] == answers[-2] == world.order(ended)
    assert answers[-1].cancel_wanted_at_ms is not None
    assert world.events(ended).count("cancel_requested") == 1


async def test_an_event_that_is_none_any_more_loses_no_other_one_and_changes_nothing(world: World) -> None:
    first, second = await _held(world)
    before = world.order(first)
    unchanged, canceled = await asyncio.gather(
        world.engine.apply(first, lambda order: None), world.engine.cancel(second)
    )
    assert unchanged == world.order(first) == before
    assert canceled.cancel_wanted_at_ms is not None


async def test_a_defect_at_an_event_is_told_to_its_caller_and_loses_no_other_one(world: World) -> None:
    def broken(order: Order) -> ev.Event:
        raise ZeroDivisionError

    first, second = await _held(world)
    defect, canceled = await asyncio.gather(
        world.engine.apply(first, broken), world.engine.cancel(second), return_exceptions=True
    )
    assert isinstance(defect, ZeroDivisionError)
    assert isinstance(canceled, Order)
    assert canceled.cancel_wanted_at_ms is not None


async def test_why_an_order_was_put_aside_is_told_in_our_words_and_never_in_those_of_a_defect(world: World) -> None:
    """They may hold what is secret."""
    ours, other = await _held(world, 2)
    world.engine.quarantine(ours, InvariantViolation("Two truths."))
    world.engine.quarantine(other, KeyError("preimage 012345"))
    await world.until(lambda: all(world.order(order_id).is_quarantined for order_id in (ours, other)))
    assert world.order(ours).quarantine_reason == "Two truths."
    assert world.order(other).quarantine_reason == "a defect of holdpay (KeyError)"


async def test_what_a_caller_gets_is_the_order_that_it_may_go_on_with(world: World) -> None:
    (order_id,) = await _held(world, 1)
    after = await world.engine.apply(order_id, ProviderFailed("down"))
    assert after is world.engine.order(order_id)
    assert await world.engine.intend(order_id, CancelRequested(), lambda now: now is after) is world.engine.order(
        order_id
    )
    assert await world.engine.intend(order_id, CancelRequested(), lambda now: now is after) is None, (
        "it is another one now"
    )


async def test_nothing_is_intended_with_an_order_that_is_closed_or_when_it_is_not_allowed(world: World) -> None:
    (held,) = await _held(world, 1)
    order = world.engine.order(held)
    assert order is not None
    assert await world.engine.intend(held, CancelRequested(), lambda now: False) is None
    assert world.order(held).cancel_wanted_at_ms is None
    ended = await world.engine.cancel(await _placed(world))
    assert ended.is_closed
    assert await world.engine.intend(ended.id, CancelRequested(), lambda now: True) is None


async def test_a_step_tells_whoever_waits_for_a_change_once(world: World) -> None:
    first, second = await _held(world)
    told: list[str] = []
    with (
        world.engine.listening(first, lambda: told.append("one")),
        world.engine.listening(first, lambda: told.append("another")),
        world.engine.listening(second, lambda: told.append("nobody")),
    ):
        await world.engine.cancel(first)
        assert told == ["one", "another"]
    await world.engine.cancel(second)
    assert told == ["one", "another"], "who listens no more is not told"


# --- what is logged -------------------------------------------------------------------------------------------------


async def test_an_anomaly_is_logged_with_what_it_is_and_a_move_with_where_to(world: World) -> None:
    (order_id,) = await _held(world, 1)
    with capture_logs() as logs:
        await world.engine.apply(order_id, ProviderFailed("HTTP 502"))
    (anomaly,) = logs
    assert (anomaly["event"], anomaly["log_level"], anomaly["order_id"]) == ("anomaly", "warning", order_id)
    assert "HTTP 502" in anomaly["note"]
    assert anomaly["payment_hash"] == world.theirs.payment_hash[:8], "and not more of it"
    with capture_logs() as logs:
        world.lnd.settle(world.theirs.payment_hash, world.theirs.preimage)
        await world.until(lambda: world.order(order_id).htlc is HtlcState.SETTLED)
    (moved,) = (entry for entry in logs if entry["event"] == "order moved")
    assert (moved["event_type"], moved["state"], moved["htlc"]) == ("PaymentReported", "paid", "settled")
    assert "end" not in moved
    with capture_logs() as logs:
        world.theirs.status = replace(world.theirs.status, code="012345")
        await world.until_closed(order_id)
    closed = logs[-1]
    assert (closed["event"], closed["event_type"], closed["end"]) == ("order closed", "ProviderReplied", "fulfilled")
    assert closed["spent_msat"] == world.order(order_id).spent_msat


async def test_what_changes_nothing_is_not_logged(world: World) -> None:
    (order_id,) = await _held(world, 1)
    with capture_logs() as logs:
        await world.engine.cancel(order_id)
    assert logs == []


# --- the clock ------------------------------------------------------------------------------------------------------


async def _doubting(world: World) -> int:
    """A hold invoice had expired when it came: at that time."""
    world.clock.set_by_ms = DAY_MS
    order_id = world.request()
    await world.until_closed(order_id)
    (decoded,) = (update for update in world.store.updates(0, order_id, 100) if update.event == "invoice_decoded")
    return decoded.at_ms


async def test_a_clock_counts_as_set_when_it_was_by_more_than_a_minute(world: World) -> None:
    await _doubting(world)
    for moved_ms, is_doubted in ((60_000, True), (60_001, False), (-60_000, True), (-60_001, False), (0, True)):
        world.clock.set_by_ms = DAY_MS + moved_ms
        assert bool(world.engine.clock_trouble()) == is_doubted


async def test_a_clock_is_doubted_for_ten_minutes_to_the_millisecond_and_not_once_it_was_set_back(
    world: World,
) -> None:
    at_ms = await _doubting(world)
    offset_ms, now_ms = world.clock.offset_ms, world.clock.now_ms()
    for after_ms, is_doubted in (
        (0, True),
        (-1, False),
        (CLOCK_DOUBT_S * 1000 - 1, True),
        (CLOCK_DOUBT_S * 1000, False),
    ):
        world.clock.offset_ms = offset_ms + at_ms + after_ms - now_ms
        assert bool(world.engine.clock_trouble()) == is_doubted
    world.clock.offset_ms = offset_ms


@pytest.mark.parametrize(("left_ms", "is_doubted"), [(0, True), (1, False)])
async def test_an_invoice_that_ends_at_this_very_millisecond_has_expired(
    world: World, monkeypatch: pytest.MonkeyPatch, left_ms: int, is_doubted: bool
) -> None:
    monkeypatch.setattr(world.lnd, "decode", lambda payreq: asyncio.Event().wait())
    order_id = world.request()
    await world.until(lambda: world.order(order_id).state is OrderState.AWAITING_PAYMENT)
    world.clock.set_by_ms = 5_000
    now_ms = world.clock.now_ms() + world.clock.set_by_ms
    invoice = build.invoice(created_at_ms=now_ms + left_ms - 86_400 * 1000)
    assert invoice.expires_at_ms == now_ms + left_ms
    await world.engine.apply(order_id, ev.InvoiceDecoded(invoice, ALICE, seen_before=False, wall_ahead_ms=5_000))
    assert bool(world.engine.clock_trouble()) == is_doubted


async def test_a_good_invoice_ends_the_doubt_about_the_clock(world: World) -> None:
    await _doubting(world)
    world.clock.set_by_ms = DAY_MS + 1
    world.provider.expiry_s = 2 * 86_400
    assert world.engine.clock_trouble()
    await world.until(lambda: world.order(world.request(2)).payment is not None)
    assert world.engine.clock_trouble() == ""


# --- all of them together -------------------------------------------------------------------------------------------


async def test_orders_that_cannot_be_read_count_beside_those_that_can(world: World) -> None:
    ids = await _held(world, 4)
    world.lnd.settle(*((theirs := next(iter(world.provider.orders.values()))).payment_hash, theirs.preimage))
    await world.until(lambda: world.order(ids[0]).htlc is HtlcState.SETTLED)
    for order_id in ids[:3]:
        world.store._conn.execute("UPDATE orders SET state = 'nonsense' WHERE id = ?", (order_id,))
    await world.crash()
    world.start()
    assert len(world.engine.alarms_of_unreadable()) == 3
    for _ in range(2):
        totals = world.engine.totals()
        assert totals == world.store.totals(world.clock.now_ms())
        assert totals.open_orders + totals.settled_orders >= 3
        assert totals.pending_msat > 0
        await world.engine.cancel(ids[3])
        world.lnd.is_down = False
        await world.until_closed(ids[3])


async def test_the_oldest_of_those_whose_money_is_out_are_named_and_no_more_than_are_asked_for(world: World) -> None:
    ids = await _held(world, 3)
    await _placed(world)
    for most in range(5):
        assert [order.id for order in world.engine.orders_out(most)] == ids[:most]


async def test_of_orders_that_are_paid_for_and_open_one_that_cannot_be_read_counts_as_one(world: World) -> None:
    ids = await _held(world, 2)
    for theirs in world.provider.orders.values():
        world.lnd.settle(theirs.payment_hash, theirs.preimage)
    await world.until(lambda: all(world.order(order_id).htlc is HtlcState.SETTLED for order_id in ids))
    world.store._conn.execute("UPDATE orders SET state = 'nonsense' WHERE id = ?", (ids[0],))
    await world.crash()
    world.start()
    assert world.engine.totals() == world.store.totals(world.clock.now_ms())
    assert world.engine.totals().settled_orders == 2


async def test_what_the_limits_look_at_is_what_is_on_disk(world: World) -> None:
    await _held(world, 3)
    theirs = next(iter(world.provider.orders.values()))
    world.lnd.settle(theirs.payment_hash, theirs.preimage)
    await world.until(lambda: world.engine.totals().settled_orders == 1)
    assert world.engine.totals() == world.store.totals(world.clock.now_ms())


async def test_a_client_hears_of_alarms_about_its_own_orders_only(world: World) -> None:
    for n, client in enumerate(("ann", "bob", "ann"), start=1):
        world.engine.quarantine(world.request(n, client=client), InvariantViolation(f"It is no. {n}."))
    await asyncio.sleep(3)
    assert [text.split()[1].rstrip(":") for text in world.engine.alarms_of_orders("ann")] == [
        "order00001",
        "order00003",
    ]
    assert [text.split()[1].rstrip(":") for text in world.engine.alarms_of_orders("bob")] == ["order00002"]
    assert len(world.engine.alarms_of_orders()) == 3


async def test_alarms_are_those_of_the_oldest_order_first(world: World) -> None:
    await _held(world, 1, first=5)
    await asyncio.sleep(1)
    await _held(world, 2, first=1)
    for n in (5, 2, 1):
        world.engine.quarantine(f"order{n:05d}", InvariantViolation(f"It is no. {n}."))
    await asyncio.sleep(3)
    found = world.engine.alarms()
    expected = [
        text for n in (5, 1, 2) for text in alarms(world.order(f"order{n:05d}"), world.policy, world.clock.now_ms())
    ]
    assert found == expected
    assert len(found) >= 3


async def test_an_order_is_followed_as_long_as_one_of_its_clients_does(world: World) -> None:
    (order_id,) = await _held(world, 1)
    with world.engine.watching(order_id):
        with world.engine.watching(order_id):
            assert world.engine.is_watched(world.order(order_id))
        assert world.engine.is_watched(world.order(order_id))
        assert not world.engine.is_watched(build.order(id="another"))
    assert not world.engine.is_watched(world.order(order_id))


async def test_without_webhooks_nobody_hints_and_nothing_is_told(world: World) -> None:
    (order_id,) = await _held(world, 1)
    assert not world.engine.hint("x")
    assert not world.engine.is_told(world.order(order_id))


async def test_what_was_learned_of_numbers_is_learned_again_at_the_start_the_latest_counting_most(
    world: World,
) -> None:
    for n, number_after_s in enumerate((3.0, 100.0, 14.0), start=1):
        world.provider.story = Story(number_after_s=number_after_s, code_after_s=number_after_s + 5)
        await world.until_closed(world.request(n))
    learned = Learned()
    for order in reversed(world.store.list_orders(OrderFilter())):
        learned.number_came(order)
    assert learned.by_market
    world.provider.story = Story(number_after_s=1.0, code_after_s=None)
    still_open = world.request(4)
    await world.until(lambda: world.order(still_open).number is not None)
    await world.crash()
    world.start()
    assert world.engine.asker.learned.by_market == learned.by_market


async def test_the_same_request_again_begins_nothing_anew(world: World) -> None:
    world.lnd.is_down = True
    order_id = world.request()
    await world.until_event(order_id, "order_placed")
    before = world.engine.order(order_id)
    count = len(world.events(order_id))
    again = world.engine.request(build.changed(world.order(order_id), id="another001"))
    assert again.id == order_id
    assert world.engine.order(order_id) is before
    assert world.engine.order("another001") is None
    await asyncio.sleep(0.5)
    assert (len(world.events(order_id)), world.provider.place_count) == (count, 1)


# --- from the order to its payment ----------------------------------------------------------------------------------


async def test_an_order_does_not_wait_long_on_disk_for_an_lnd_that_is_slow_to_read_its_invoice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, answers = world.lnd.decode, asyncio.Event()

    async def slow(payreq: str) -> object:
        await answers.wait()
        return await decode(payreq)

    monkeypatch.setattr(world.lnd, "decode", slow)
    world.provider.story = NEVER
    order_id = world.request()
    await world.until_event(order_id, "order_placed")
    assert 0.25 < world.now_s < 0.35
    assert "invoice_decoded" not in world.events(order_id)
    answers.set()
    await world.until(lambda: len(world.lnd.sends) == 1, within_s=0.1)
    assert world.lnd.decode_count == 1, "its answer counts, however late it came"


async def test_an_order_is_written_down_where_the_process_ends_while_lnd_reads_its_invoice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.lnd, "decode", lambda payreq: asyncio.Event().wait())
    order_id = world.request()
    await world.until(lambda: bool(world.provider.orders), within_s=0.2)
    assert world.events(order_id) == ["order_requested"]
    await world.crash()
    monkeypatch.undo()
    world.start()
    assert (await world.until_closed(order_id)).end is End.FULFILLED
    assert world.provider.place_count == 1


async def test_an_answer_that_cannot_be_written_down_is_not_ordered_again_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_all = world.store.commit_all

    def failing(changes: Iterable[Change], now_ms: int) -> list[int]:
        def looked_at() -> Iterator[Change]:
            for change in changes:
                if isinstance(change.event, ev.OrderPlaced):
                    raise OverflowError
                yield change

        return commit_all(looked_at(), now_ms)

    monkeypatch.setattr(world.store, "commit_all", failing)
    world.request()
    await asyncio.sleep(20)
    assert world.provider.place_count == 1


async def test_an_order_whose_invoice_lnd_cannot_read_now_is_on_disk_and_read_later(world: World) -> None:
    order_id = await _placed(world)
    assert world.events(order_id) == ["order_requested", "order_placed"]
    world.lnd.is_down = False
    assert (await world.until_closed(order_id)).end is End.FULFILLED


async def test_a_text_that_lnd_refuses_is_told_with_the_order_in_one_commit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.lnd, "decode", AsyncMock(side_effect=LndRefused("checksum failed")))
    order_id = world.request()
    assert (await world.until_closed(order_id)).end is End.INVOICE_REJECTED
    assert world.events(order_id) == ["order_requested", "order_placed", "invoice_undecodable"]
    assert world.store.commit_count == 2


async def test_of_two_answers_of_the_provider_only_the_invoice_of_the_first_is_paid(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = world.provider.place

    async def twice(placing: Placing) -> Reply[Placed]:
        first, second = await place(placing), await place(placing)
        value = first.value
        await world.engine.apply(order_id, ev.OrderPlaced(value.provider_order_id, value.payreq))
        return second

    monkeypatch.setattr(world.provider, "place", twice)
    order_id = world.request()
    order = await world.until_closed(order_id)
    first = world.lnd.invoices[order.payreq or ""]
    assert [spec.payment_hash for _, spec in world.lnd.sends] == [first.payment_hash]
    assert order.end is End.FULFILLED


async def test_an_lnd_that_cannot_decode_now_is_asked_again_after_1_2_4_8_and_15_s(world: World) -> None:
    world.lnd.is_down = True
    asked_s: list[float] = []
    decode = world.lnd.decode

    async def counting(payreq: str) -> object:
        asked_s.append(world.now_s)
        return await decode(payreq)

    world.lnd.decode = counting  # type: ignore[method-assign, assignment]
    order_id = world.request()
    with capture_logs() as logs:
        await asyncio.sleep(60)
    gaps = [round(later - sooner) for sooner, later in pairwise(asked_s)]
    assert gaps == [1, 2, 4, 8, 15, 15]
    assert "a task failed; it is started again" not in [entry["event"] for entry in logs]
    world.lnd.is_down = False
    world.provider.story = NEVER
    await world.until(lambda: world.order(order_id).is_money_out, within_s=16)


async def test_what_is_told_of_an_order_in_the_step_of_its_intent_does_not_hold_up_its_payment(world: World) -> None:
    intend = world.engine.intend

    async def with_news(order_id: str, *args: Any) -> Order | None:
        told = world.engine.post(order_id, ProviderFailed("HTTP 502"))
        intended = await intend(order_id, *args)
        await told
        return intended

    world.engine.intend = with_news  # type: ignore[method-assign, assignment]
    world.provider.story = NEVER
    order_id = world.request()
    with capture_logs() as logs:
        await world.until(lambda: world.order(order_id).htlc is HtlcState.IN_FLIGHT, within_s=1)
    assert len(world.lnd.sends) == world.events(order_id).count("dispatch_intended") == 1
    assert "a task failed; it is started again" not in [entry["event"] for entry in logs]


async def test_what_a_cancel_in_the_step_of_its_intent_came_before_is_not_paid(world: World) -> None:
    intend = world.engine.intend

    async def canceled(order_id: str, *args: Any) -> Order | None:
        told = world.engine.post(order_id, CancelRequested())
        intended = await intend(order_id, *args)
        await told
        return intended

    world.engine.intend = canceled  # type: ignore[method-assign, assignment]
    order = await world.until_closed(world.request())
    assert (order.end, world.lnd.sends) == (End.CANCELED_UNPAID, [])
    assert "dispatch_intended" not in world.events(order.id)


async def test_what_is_known_of_a_new_order_and_the_intent_to_pay_it_are_one_commit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, commits = world.lnd.send, []

    def counting(*args: Any) -> Any:
        commits.append(world.store.commit_count)
        return send(*args)

    monkeypatch.setattr(world.lnd, "send", counting)
    world.provider.story = NEVER
    order_id = world.request()
    await world.until(lambda: bool(commits), within_s=1)
    assert commits == [2], "the request; the hold invoice, vetting and intent"
    assert world.events(order_id)[:4] == ["order_requested", "order_placed", "invoice_decoded", "dispatch_intended"]


async def test_an_order_that_is_quarantined_in_the_step_of_its_intent_is_no_defect(world: World) -> None:
    world.quarantine_at_the_intent()
    order_id = world.request()
    with capture_logs() as logs:
        await world.until_event(order_id, "order_quarantined")
        await asyncio.sleep(120)
    assert world.lnd.sends == []
    assert "a task failed; it is started again" not in [entry["event"] for entry in logs]


@pytest.mark.parametrize(
    ("life_s", "pauses_s"),
    [(0.0, [2, 4, 8, 15, 15, 15, 15]), (30.0, [2, 4, 8, 15, 15, 15, 15]), (30.001, [1] * 7)],
)
async def test_a_stream_that_lived_more_than_half_a_minute_was_healthy_and_its_end_is_a_new_failure(
    world: World, monkeypatch: pytest.MonkeyPatch, life_s: float, pauses_s: list[int]
) -> None:
    await _held(world, 1)
    began_s: list[float] = []

    async def ends_without_a_word(*_: object):  # type: ignore[no-untyped-def]
        began_s.append(world.now_s)
        await asyncio.sleep(life_s)
        return
        yield

    monkeypatch.setattr(world.lnd, "track", ends_without_a_word)
    world.lnd.break_streams()
    world.lnd.next_sends = deque([Send()])
    await world.until(lambda: len(began_s) == 8)
    gaps = [later - sooner - life_s for sooner, later in pairwise(began_s)]
    assert [round(gap_s) for gap_s in gaps] == pauses_s


# --- an order's time ------------------------------------------------------------------------------------------------


async def test_every_order_that_is_taken_over_is_told_of_the_restart_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "MOST_AT_ONCE", 2)
    ids = await _held(world, 5)
    await world.crash()
    world.clock.offset_ms -= 3600 * 1000
    world.start()
    assert [world.events(order_id).count("daemon_restarted") for order_id in ids] == [1] * 5


async def test_a_deadline_that_passed_in_a_downtime_counts_an_hour_after_the_start_if_the_provider_is_silent(
    world: World,
) -> None:
    world.provider.story = Story(paid_after_s=10 * DAY_MS, number_after_s=None, code_after_s=None)
    order_id = world.request()
    await world.until(lambda: world.order(order_id).htlc is HtlcState.IN_FLIGHT)
    world.provider.go_down()
    world.lnd.say(world.theirs.payment_hash, HOP_DOWN)
    await world.until(lambda: world.order(order_id).htlc is HtlcState.FAILED)
    await world.crash()
    await asyncio.sleep(3600)
    world.start()
    await asyncio.sleep(3599.9)
    assert not world.order(order_id).is_closed
    await world.until_closed(order_id, within_s=2)


async def test_an_order_that_nothing_ever_happens_to_ends_at_its_deadline(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.provider, "place", lambda placing: asyncio.Event().wait())
    order_id = world.request()
    closed = await world.until_closed(order_id, within_s=world.policy.pay_within_s + 2)
    assert closed.end is not End.FULFILLED
    assert world.now_s >= world.policy.pay_within_s


async def test_of_an_order_that_ended_nothing_is_kept(world: World) -> None:
    ended = await _placed(world)
    await world.crash()
    world.start()
    world.engine.quarantine(ended, InvariantViolation("Two truths."))
    await asyncio.sleep(3)
    assert world.engine.alarms()
    world.lnd.is_down = False
    order_id = world.request(1)
    await world.until_closed(order_id)
    await asyncio.sleep(0.1)
    parts = (world.engine, world.engine.asker, world.engine._agenda, world.engine._supervisor)
    held = {name: value for part in parts for name, value in vars(part).items() if isinstance(value, dict | set)}
    assert len(held) > 5
    assert [name for name, value in held.items() if any(order_id in str(each) for each in value)] == []
    assert order_id not in world.engine._agenda.due(world.clock.now_ms() + DAY_MS)


# --- erasing, and another node --------------------------------------------------------------------------------------


async def test_codes_are_erased_step_by_step_to_the_end(world: World) -> None:
    ids = [world.request(n) for n in (1, 2)]
    for order_id in ids:
        await world.until_closed(order_id)
    now_ms = world.clock.now_ms()
    assert sum(world.engine.erase_codes(now_ms - DAY_MS)) == 0
    assert all(world.order(order_id).code == "012345" for order_id in ids)
    assert sum(world.engine.erase_codes(now_ms + 1)) == 2
    assert [world.order(order_id).code for order_id in ids] == [None, None]


async def test_codes_that_cannot_be_erased_end_the_process(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Iterator[int]:
        yield 0
        raise Crash

    monkeypatch.setattr(world.store, "erase_codes", fails)
    steps = world.engine.erase_codes(world.clock.now_ms())
    assert next(steps) == 0
    with pytest.raises(Crash):
        next(steps)
    assert isinstance(await world.failure(), Crash)


async def test_another_node_is_named_beside_the_one_that_paid(world: World) -> None:
    assert world.engine.node_status() == world.lnd.status
    await _held(world, 1)
    assert world.engine.node_status() == world.lnd.status
    assert world.engine.may_pay_from(ALICE)
    assert not world.engine.may_pay_from(MALLORY)
    world.lnd.node = MALLORY
    status = world.engine.node_status()
    assert status.state is NodeState.WRONG_NODE
    assert (
        f"lnd.address is {MALLORY.pubkey[:16]}…, and open orders were paid from {ALICE.pubkey[:16]}…." in status.detail
    )
    world.lnd.node = None
    assert world.engine.node_status() == world.lnd.status


async def test_what_lnd_is_asked_about_a_hold_invoice_ends_with_its_order(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[asyncio.Task[object] | None] = []

    async def silent(payreq: str) -> object:
        asked.append(asyncio.current_task())
        return await asyncio.Event().wait()

    monkeypatch.setattr(world.lnd, "decode", silent)
    order_id = world.request()
    await world.until_event(order_id, "order_placed")
    await world.engine.cancel(order_id)
    assert (await world.until_closed(order_id)).end is End.CANCELED_UNPAID
    assert world.provider.place_count == 1
    await asyncio.sleep(0.1)
    assert [task is not None and task.cancelled() for task in asked] == [True]
