"""All hooks together: none waits for another, and what the configuration says is what runs."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from holdpay.core.hooks import Notice, Topic
from holdpay.core.items import ItemKind
from holdpay.core.states import End
from holdpay.errors import InvalidRequest, StoreError
from holdpay.hooks import manager as module
from holdpay.hooks.manager import GATHER_S, LOOK_EVERY_S, Hooks
from holdpay.hooks.sending import Sender, Trouble
from holdpay.hooks.settings import Hook, Unusable
from holdpay.hooks.unusable import NoSender
from holdpay.rpc.feed import Feed
from tests.fakes import FakeClock
from tests.unit.hooks.sink import Shop, Sink, hook

DOWN = Trouble("answered with HTTP 500")
SOON_S = 2 * GATHER_S


class World:
    """A shop whose commits wake its hooks, each of which ends in a sink of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = FakeClock()
        self.shop = Shop(folder, self.clock)
        self.shop.hooks.close()
        feed = Feed()
        self.shop.store.on_commit = feed.committed
        self.sinks: dict[str, Sink] = {}
        self.store = self.shop.hooks.__class__(self.shop.store)
        self.hooks = Hooks(lambda: self.store, lambda: feed.next_commit(None), self.clock, Random(1))
        monkeypatch.setattr(module, "_sender", self._sink_of)

    def _sink_of(self, wanted: Hook) -> Sender:
        if isinstance(wanted.target, Unusable):
            return NoSender(wanted.target)
        return self.sinks.setdefault(wanted.name, Sink())

    async def close(self) -> None:
        await self.hooks.stop()
        self.shop.store.close()


@pytest_asyncio.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    opened = World(tmp_path, monkeypatch)
    yield opened
    await opened.close()


async def test_hooks_are_told_soon_after_the_commit(world: World) -> None:
    world.hooks.configure([hook()])
    await asyncio.sleep(1)
    world.shop.sell()
    await asyncio.sleep(SOON_S)
    assert world.sinks["shop"].types == ["number", "code", "closed"]
    assert world.hooks.delivery_count == 3


async def test_a_hook_that_does_not_answer_holds_up_no_other(world: World) -> None:
    world.sinks["slow"] = Sink()
    world.sinks["slow"].may_answer.clear()
    world.sinks["bad"] = Sink(troubles=[DOWN])
    world.hooks.configure([hook(name="slow"), hook(name="bad"), hook(name="good")])
    for _ in range(3):
        world.shop.sell()
        await asyncio.sleep(SOON_S)
    assert len(world.sinks["good"].got) == 9
    assert len(world.sinks["slow"].got) == 1
    assert set(world.sinks["bad"].types) == {"number"}
    assert (world.hooks.delivery_count, world.hooks.failure_count) == (9, len(world.sinks["bad"].got))


async def test_a_busy_journal_is_looked_at_some_times_a_second(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.hooks.configure([hook(Topic.CHARGED_WITHOUT_CODE)])
    looks = 0
    news = world.store.news

    def counted(after: int, limit: int):  # type: ignore[no-untyped-def]
        nonlocal looks
        looks += 1
        return news(after, limit)

    monkeypatch.setattr(world.store, "news", counted)
    shop = world.shop
    numbered = shop.bring(shop.make(), shop.item(ItemKind.NUMBER, "18826202473"))
    for _ in range(100):
        shop.commit(numbered, numbered)
        await asyncio.sleep(0.01)
    assert looks <= 3 * 1.0 / GATHER_S


async def test_what_another_program_wrote_is_found_without_a_commit_of_ours(world: World) -> None:
    world.hooks.configure([hook()])
    world.shop.store.on_commit = lambda cursor, order: None
    world.shop.sell()
    await asyncio.sleep(LOOK_EVERY_S + 1)
    assert world.sinks["shop"].types == ["number", "code", "closed"]


async def test_what_is_told_beside_the_journal_is_on_disk_before_it_is_sent(world: World) -> None:
    world.hooks.tell(Topic.ALARM, {"text": "nobody listens yet"})
    world.hooks.configure([hook(Topic.ALARM)])
    world.hooks.tell(Topic.ALARM, {"text": "one"})
    assert world.hooks.last_told((Topic.ALARM, Topic.LND_READY)) is Topic.ALARM
    await asyncio.sleep(SOON_S)
    assert [told["data"]["text"] for told in world.sinks["shop"].told] == ["one"]
    assert world.hooks.last_told((Topic.ALARM, Topic.LND_READY)) is Topic.ALARM, "also by a process before this one"
    notice = world.store.last_notice((Topic.ALARM,))
    assert notice is not None
    assert notice.data == {"text": "one"}
    assert world.hooks.last_told((Topic.LND_READY,)) is None
    for topic in (Topic.LND_NOT_READY, Topic.LND_READY):
        world.hooks.tell(topic, {})
    assert world.hooks.last_told((Topic.LND_NOT_READY, Topic.LND_READY)) is Topic.LND_READY


async def test_what_was_told_right_before_the_end_is_told_after_the_next_start(world: World) -> None:
    world.hooks.configure([hook(Topic.ALARM)])
    world.hooks.tell(Topic.ALARM, {"text": "late"})
    await world.hooks.stop()
    assert world.sinks["shop"].is_closed
    assert asyncio.all_tasks() == {asyncio.current_task()}
    again = world.store.__class__(world.shop.store)
    state, notice = again.state("shop"), again.last_notice((Topic.ALARM,))
    assert notice is not None
    assert state.position.notice < notice.number
    again.close()


async def test_what_cannot_be_written_down_now_is_written_later_or_at_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(notices: Sequence[Notice]) -> None:
        raise StoreError("The disk is full.")

    world.hooks.configure([hook(Topic.ALARM)])
    for text in ("later", "at the end"):
        with monkeypatch.context() as full:
            full.setattr(world.store, "add_notices", fail)
            world.hooks.tell(Topic.ALARM, {"text": text})
            await asyncio.sleep(SOON_S)
        if text == "later":
            await asyncio.sleep(60)
            assert [told["data"]["text"] for told in world.sinks["shop"].told] == [text]
    await world.hooks.stop()
    again = world.store.__class__(world.shop.store)
    notice = again.last_notice((Topic.ALARM,))
    assert notice is not None
    assert notice.data == {"text": "at the end"}
    again.close()


async def test_of_a_wait_nothing_is_left(world: World) -> None:
    world.hooks.configure([hook(Topic.CLOSED)])
    await asyncio.sleep(1)
    tasks = len(asyncio.all_tasks())
    for _ in range(5):
        world.hooks.configure([hook(Topic.CLOSED)])
        world.shop.make()
        await asyncio.sleep(1)
    assert len(asyncio.all_tasks()) == tasks


async def test_a_change_of_a_hook_has_it_go_on_where_it_was_and_a_removed_one_begins_anew(world: World) -> None:
    world.sinks["shop"] = first = Sink(troubles=[DOWN])
    world.hooks.configure([hook(Topic.CLOSED)])
    world.shop.sell()
    await asyncio.sleep(SOON_S)
    world.sinks["shop"] = second = Sink()
    world.hooks.configure([hook(Topic.CLOSED, include_secrets=True)])
    await asyncio.sleep(10)
    assert first.is_closed
    assert second.types == ["closed"]

    world.hooks.configure([])
    world.shop.store.keep_hooks([])
    await asyncio.sleep(1)
    assert second.is_closed
    assert not world.hooks.is_any
    world.shop.sell()
    world.hooks.configure([hook(Topic.CLOSED, include_secrets=True)])
    await asyncio.sleep(SOON_S)
    assert len(second.got) == 1
    world.shop.sell()
    await asyncio.sleep(SOON_S)
    assert len(second.got) == 2


async def test_a_hook_that_dies_is_an_alarm_that_the_others_are_told(world: World) -> None:
    world.sinks["shop"] = Sink(troubles=[Trouble("is gone", is_final=True)])
    world.hooks.configure([hook(Topic.CLOSED), hook(Topic.ALARM, name="pager")])
    assert world.hooks.alarms() == []
    world.shop.sell()
    await asyncio.sleep(SOON_S)
    (alarm,) = world.hooks.alarms()
    assert alarm.startswith("hook shop is dead, since it is gone")
    (told,) = world.sinks["pager"].told
    assert told["data"] == {"level": "warning", "text": alarm, "request_id": None}
    world.sinks["shop"].troubles = [None]
    assert world.hooks.replay("shop", None, None).state.dead_at_ms is None
    await asyncio.sleep(SOON_S)
    assert world.hooks.alarms() == []
    assert world.sinks["shop"].types == ["closed", "closed"]


async def test_a_hook_that_is_not_usable_is_an_alarm_and_goes_on_where_it_was_once_it_is(world: World) -> None:
    missing = Unusable(leads_to="/opt/told", why="command names /opt/told, and there is no such file: put it there")
    broken, pager = replace(hook(Topic.CLOSED), target=missing), hook(Topic.ALARM, name="pager")
    world.hooks.configure([pager, broken])
    (alarm,) = world.hooks.alarms()
    assert alarm.startswith("hook shop is not usable: command names /opt/told, and there is no such file: put it there")
    assert [(sight.target, sight.unusable) for sight in world.hooks.sights()] == [
        ("sink", ""),
        ("/opt/told", missing.why),
    ]
    for _ in range(3):
        world.shop.sell()
        await asyncio.sleep(2 * 3600)
    (state,) = [sight.state for sight in world.hooks.sights() if sight.unusable]
    assert (state.attempt_count, state.failing_since_ms) == (0, None)
    trial = await world.hooks.test("shop")
    assert trial.trouble == f"is not usable: {missing.why}"

    with capture_logs() as logs:
        world.hooks.configure([pager, broken])
    assert [entry["text"] for entry in logs] == [alarm]
    await asyncio.sleep(SOON_S)
    assert [told["data"]["text"] for told in world.sinks["pager"].told] == [alarm]

    world.hooks.configure([pager, hook(Topic.CLOSED)])
    assert world.hooks.alarms() == []
    await asyncio.sleep(SOON_S)
    assert world.sinks["shop"].types == ["closed"] * 3


async def test_one_that_fails_for_a_quarter_of_an_hour_is_an_alarm(world: World) -> None:
    world.sinks["shop"] = Sink(troubles=[DOWN])
    world.hooks.configure([hook(Topic.CLOSED)])
    world.shop.sell()
    await asyncio.sleep(14 * 60)
    assert world.hooks.alarms() == []
    await asyncio.sleep(2 * 60)
    (alarm,) = world.hooks.alarms()
    assert alarm.startswith("hook shop has failed ")
    assert "since it answered with HTTP 500" in alarm
    (sight,) = world.hooks.sights()
    assert sight.waiting_since_ms == sight.state.failing_since_ms
    world.sinks["shop"].troubles = [None]
    await asyncio.sleep(3600)
    assert [sight.waiting_since_ms for sight in world.hooks.sights()] == [None]


async def test_it_is_one_as_soon_after_the_clock_was_set_back(world: World) -> None:
    world.sinks["shop"] = Sink(troubles=[DOWN])
    world.hooks.configure([hook(Topic.CLOSED)])
    world.shop.sell()
    await asyncio.sleep(60)
    world.clock.offset_ms -= 365 * 24 * 3600 * 1000
    await asyncio.sleep(14 * 60)
    assert world.hooks.alarms() == []
    await asyncio.sleep(10 * 60)
    assert len(world.hooks.alarms()) == 1


async def test_a_replay_begins_behind_a_row_or_at_a_time(world: World) -> None:
    world.hooks.configure([hook(Topic.CLOSED)])
    sink = world.sinks["shop"]
    for end in (End.REFUNDED, End.NO_PLACE, End.PAYMENT_FAILED):
        world.shop.end(world.shop.make(), end)
        await asyncio.sleep(60)
    second_ms = world.clock.now_ms() - 120_000
    ends = [told["data"]["end"] for told in sink.told]
    cursors = [told["data"]["cursor"] for told in sink.told]
    assert ends == ["refunded", "no_place", "payment_failed"]
    for place, wanted in (
        ((cursors[1], None), ends[2:]),
        ((0, None), ends),
        ((None, second_ms), ends[1:]),
        ((None, 0), ends),
        ((None, world.clock.now_ms()), []),
    ):
        sink.got.clear()
        world.hooks.replay("shop", *place)
        await asyncio.sleep(SOON_S)
        assert [told["data"]["end"] for told in sink.told] == wanted, place


@pytest.mark.parametrize("cursor", [-1, 99])
async def test_a_place_that_is_not_there_and_a_hook_that_is_not_are_refused(world: World, cursor: int) -> None:
    world.hooks.configure([hook()])
    with pytest.raises(InvalidRequest, match="There is no row"):
        world.hooks.replay("shop", cursor, None)
    with pytest.raises(InvalidRequest, match=r"There is no hook 'pager' in the configuration\. Known: shop"):
        await world.hooks.test("pager")


async def test_a_test_goes_out_whatever_the_state_of_the_hook_and_changes_nothing(world: World) -> None:
    world.sinks["shop"] = sink = Sink(troubles=[Trouble("is gone", is_final=True)])
    world.hooks.configure([hook(Topic.CLOSED)])
    world.shop.sell()
    await asyncio.sleep(SOON_S)
    before = world.store.state("shop")
    assert (await world.hooks.test("shop")).trouble == "is gone"
    sink.troubles = [None]
    assert (await world.hooks.test("shop")).trouble == ""
    assert sink.types == ["closed", "test", "test"]
    assert sink.told[1]["data"] == {"hook": "shop", "text": "a test of `holdpay hooks test`"}
    assert sink.got[1].id != sink.got[2].id
    assert world.store.state("shop") == before


async def test_a_database_that_another_program_holds_is_no_reason_to_end_in_an_error(world: World) -> None:
    world.hooks.configure([hook(Topic.ALARM)])
    world.hooks.tell(Topic.ALARM, {"text": "x"})
    other = sqlite3.connect(world.shop.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    await world.hooks.stop()
    other.close()
    with pytest.raises(StoreError, match="closed"):
        world.store.last_cursor()
    world.hooks._gathered.clear()  # the fixture stops them once more


async def test_an_alarm_that_a_receiver_never_takes_is_skipped_and_nothing_else_can_be(world: World) -> None:
    world.sinks["shop"] = Sink(troubles=[DOWN, None])
    world.hooks.configure([hook(Topic.ALARM)])
    with pytest.raises(InvalidRequest, match=r"nothing that hook shop was told in vain.*holdpay hooks list"):
        await world.hooks.skip("shop")
    for text in ("poison", "good"):
        world.hooks.tell(Topic.ALARM, {"text": text})
    await asyncio.sleep(SOON_S)
    assert (await world.hooks.skip("shop")).state.attempt_count == 0
    await asyncio.sleep(SOON_S)
    assert [told["data"]["text"] for told in world.sinks["shop"].told] == ["poison", "good"]


async def test_a_try_that_is_acknowledged_while_it_is_to_be_skipped_was_not_in_vain(world: World) -> None:
    sink = world.sinks["shop"] = Sink(troubles=[DOWN, None])
    world.hooks.configure([hook(Topic.CLOSED)])
    await asyncio.sleep(SOON_S)
    world.shop.sell()
    await asyncio.sleep(SOON_S)
    sink.may_answer.clear()
    await asyncio.sleep(10)
    skipping = asyncio.create_task(world.hooks.skip("shop"))
    await asyncio.sleep(0)
    sink.may_answer.set()
    with pytest.raises(InvalidRequest, match=r"went on behind what it was told in vain just now.*holdpay hooks list"):
        await skipping
    assert sink.types == ["closed", "closed"]
