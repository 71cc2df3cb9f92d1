"""One hook: in order, at least once, for a day, and never more than it may know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from holdpay.core.hooks import DEAD_AFTER_S, MAX_DELAY_S, HookState, News, Notice, Position, Topic
from holdpay.core.items import ItemKind
from holdpay.core.states import End, Succession
from holdpay.hooks import delivering as module
from holdpay.hooks.delivering import Delivering, Skip
from holdpay.hooks.sending import Trouble
from tests.fakes import FakeClock
from tests.unit.build import changed
from tests.unit.hooks.sink import CODE, NUMBER, Shop, Sink

DOWN = Trouble("cannot be reached (ConnectError)")


@pytest_asyncio.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    opened = Shop(tmp_path, FakeClock())
    yield opened
    opened.close()


async def until_idle(delivering: Delivering) -> float | None:
    """All that is due; returns how long it waits then."""
    while (wait_s := await delivering.turn()) == 0:
        pass
    return wait_s


async def test_what_happens_to_an_order_is_told_in_order_and_once(shop: Shop) -> None:
    sink = Sink()
    delivering = shop.delivering(sink)
    sold = shop.sell()
    assert await until_idle(delivering) is None
    assert sink.types == ["number", "code", "closed"]
    assert len({message.id for message in sink.got}) == 3
    facts = sink.told[-1]["data"]
    assert (facts["request_id"], facts["end"], facts["request_is_over"]) == (sold.request.id, "fulfilled", True)
    assert sink.told[-1]["timestamp"] == "2027-01-15T08:00:00.000Z"
    assert await until_idle(shop.delivering(sink)) is None, "after a restart"
    assert len(sink.got) == 3


async def test_several_things_of_one_row_are_told_one_after_the_other_also_over_a_restart(shop: Shop) -> None:
    sink = Sink()
    delivering = shop.delivering(sink)
    made = shop.make()
    shop.bring(made, shop.item(ItemKind.NUMBER, NUMBER), shop.item(ItemKind.CODE, CODE))
    assert await delivering.turn() == 0
    assert sink.types == ["number"]
    await until_idle(shop.delivering(sink))
    assert sink.types == ["number", "code"]


async def test_a_hook_begins_with_what_comes_after_it_was_first_seen(shop: Shop) -> None:
    shop.sell()
    shop.hooks.add_notices([Notice(topic=Topic.ALARM, at_ms=1, data={"text": "old"})])
    sink = Sink()
    delivering = shop.delivering(sink)
    await until_idle(delivering)
    assert sink.got == []
    shop.sell()
    await until_idle(delivering)
    assert sink.types == ["number", "code", "closed"]


async def test_a_crash_before_the_acknowledgement_is_on_disk_has_it_told_again_with_the_same_id(shop: Shop) -> None:
    sink = Sink()
    delivering = shop.delivering(sink)
    shop.sell()
    sink.may_answer.clear()
    dying = asyncio.create_task(delivering.turn())
    await asyncio.sleep(1)
    dying.cancel()
    await asyncio.wait([dying])
    sink.may_answer.set()
    await until_idle(shop.delivering(sink))
    assert sink.types == ["number", "number", "code", "closed"]
    assert sink.got[0].id == sink.got[1].id
    assert sink.got[0].body == sink.got[1].body


async def test_what_fails_is_tried_again_later_and_later_and_what_follows_waits_for_it(shop: Shop) -> None:
    sink = Sink(troubles=[DOWN, DOWN, DOWN, None])
    delivering = shop.delivering(sink)
    shop.sell()
    waits = []
    while (wait_s := await delivering.turn()) is not None:
        waits.append(wait_s)
        await asyncio.sleep(wait_s)
    assert sink.types == ["number"] * 4 + ["code", "closed"]
    assert len({message.id for message in sink.got[:4]}) == 1
    assert sink.got[3].at_s > sink.got[0].at_s, "each try has its own time"
    delays = [wait for wait in waits if wait]
    for delay_s, plain_s in zip(delays, (5, 10, 20), strict=True):
        assert 0.8 * plain_s <= delay_s <= 1.2 * plain_s
    state = shop.hooks.state("shop")
    assert (state.attempt_count, state.failing_since_ms, state.trouble) == (0, None, "")


async def test_after_a_day_in_vain_the_hook_is_dead_where_it_stands_and_a_replay_has_it_go_on(shop: Shop) -> None:
    sink = Sink(troubles=[DOWN])
    delivering = shop.delivering(sink)
    died: list[HookState] = []
    delivering.on_dead = died.append
    shop.sell()
    began_ms = shop.clock.now_ms()
    while shop.hooks.state("shop").dead_at_ms is None:
        wait_s = await delivering.turn()
        assert wait_s is not None
        assert wait_s <= 1.2 * MAX_DELAY_S
        await asyncio.sleep(wait_s)
    state = shop.hooks.state("shop")
    assert state.dead_at_ms is not None
    assert 0 <= state.dead_at_ms - began_ms - DEAD_AFTER_S * 1000 <= 1.2 * MAX_DELAY_S * 1000
    assert 24 <= len(sink.got) <= 50
    assert set(sink.types) == {"number"}
    assert died == [state]
    shop.sell()
    assert await shop.delivering(sink).turn(), "also after a restart"
    assert len(sink.got) == state.attempt_count
    sink.troubles, sink.got = [None], []
    assert shop.hooks.change(state, state.replayed(state.position))
    await until_idle(delivering)
    assert sink.types == ["number", "code", "closed"] * 2


async def test_one_that_wants_no_more_is_dead_at_once(shop: Shop) -> None:
    delivering = shop.delivering(Sink(troubles=[Trouble("is gone", is_final=True)]))
    shop.sell()
    await delivering.turn()
    assert shop.hooks.state("shop").dead_at_ms == shop.clock.now_ms()


async def test_without_include_secrets_neither_number_nor_code_nor_recipient_is_sent(shop: Shop) -> None:
    sink = Sink()
    delivering = shop.delivering(sink)
    shop.sell()
    made = shop.make()
    shop.end(made, End.CHARGED_UNFULFILLED, provider_text=f"sent {CODE}")
    await until_idle(delivering)
    assert sink.types == ["number", "code", "closed", "closed", "charged_without_code"]
    for message in sink.got:
        assert NUMBER not in message.body.decode()
        assert CODE not in message.body.decode()


async def test_with_include_secrets_they_are(shop: Shop) -> None:
    sink = Sink()
    delivering = shop.delivering(sink, include_secrets=True)
    shop.sell()
    await until_idle(delivering)
    number, code, _ = sink.told
    assert number["data"]["number"] == f"+{NUMBER}"
    assert (code["data"]["code"], code["data"]["may_lack_zeros"]) == (CODE, True)


async def test_only_what_was_chosen_is_told_and_what_was_not_is_not_read_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PASSED_UNSAVED", 10)
    sink = Sink()
    delivering = shop.delivering(sink, Topic.CHARGED_WITHOUT_CODE)
    for _ in range(5):
        shop.sell()
    await until_idle(delivering)
    assert sink.got == []
    assert shop.hooks.state("shop").position.cursor == shop.store.last_cursor()


async def test_what_does_not_concern_it_is_read_once_and_holds_up_nothing_else(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 1)
    delivering = shop.delivering(Sink(), Topic.CHARGED_WITHOUT_CODE)
    for _ in range(5):
        shop.sell()
    turns, read = 0, []

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def news(after: int, limit: int) -> tuple[News | None, int]:
        read.append(after)
        return store_news(after, limit)

    store_news = shop.hooks.news
    monkeypatch.setattr(shop.hooks, "news", news)
    other = asyncio.create_task(turn())
    await until_idle(delivering)
    other.cancel()
    assert turns + 1 >= len(read) > 15
    read.clear()
    await until_idle(delivering)
    assert read == [shop.store.last_cursor()]


async def test_notices_stand_between_the_rows_where_they_came(shop: Shop) -> None:
    sink = Sink()
    delivering = shop.delivering(sink, Topic.CLOSED, Topic.LND_NOT_READY, Topic.ALARM)
    shop.end(shop.make(), End.REFUNDED)
    shop.hooks.add_notices(
        [
            Notice(topic=Topic.LND_NOT_READY, at_ms=2, data={"state": "locked", "detail": "Unlock it."}),
            Notice(topic=Topic.LIMIT_NEAR, at_ms=2, data={}),
            Notice(topic=Topic.ALARM, at_ms=3, data={"text": "order x: call +18826202473"}),
        ]
    )
    shop.end(shop.make(), End.NO_PLACE)
    await until_idle(delivering)
    assert sink.types == ["closed", "lnd_not_ready", "alarm", "closed"]
    assert sink.told[1]["data"] == {"state": "locked", "detail": "Unlock it."}
    assert "8826202473" not in sink.got[2].body.decode(), "it is cut as the log is"
    assert [told["data"].get("end") for told in sink.told] == ["refunded", None, None, "no_place"]


async def test_text_that_is_none_holds_up_nothing(shop: Shop) -> None:
    sink = Sink()
    delivering = shop.delivering(sink, Topic.ALARM, Topic.CLOSED)
    shop.hooks.add_notices([Notice(topic=Topic.ALARM, at_ms=2, data={"text": "order \udcff: ünreadable"})])
    shop.sell()
    await until_idle(delivering)
    assert sink.types == ["alarm", "closed"]
    assert sink.told[0]["data"]["text"] == "order ?: ünreadable"


async def test_an_acknowledgement_that_comes_after_a_replay_does_not_undo_it(shop: Shop) -> None:
    sink = Sink()
    delivering = shop.delivering(sink, Topic.CLOSED)
    shop.sell()
    shop.sell()
    await delivering.turn()
    sink.may_answer.clear()
    late = asyncio.create_task(delivering.turn())
    await asyncio.sleep(1)
    state = shop.hooks.state("shop")
    assert shop.hooks.change(state, state.replayed(shop.hooks.position_at(0)))
    sink.may_answer.set()
    await late
    await until_idle(delivering)
    assert len(sink.got) == 4
    assert [message.id for message in sink.got[:2]] == [message.id for message in sink.got[2:]]


async def test_a_clock_that_was_set_back_does_not_keep_a_hook_waiting(shop: Shop) -> None:
    sink = Sink(troubles=[DOWN, None])
    delivering = shop.delivering(sink, Topic.CLOSED)
    shop.sell()
    await delivering.turn()
    assert isinstance(shop.clock, FakeClock)
    shop.clock.offset_ms -= 10 * 24 * 3600 * 1000
    assert await until_idle(delivering) is None
    assert len(sink.got) == 2


async def test_a_day_in_which_nothing_was_tried_kills_no_hook(shop: Shop) -> None:
    """holdpayd was off, the machine slept, or a clock without a battery was set right."""
    delivering = shop.delivering(Sink(troubles=[DOWN]))
    shop.sell()
    await delivering.turn()
    await asyncio.sleep(3 * DEAD_AFTER_S)
    await delivering.turn()
    state = shop.hooks.state("shop")
    assert (state.attempt_count, state.dead_at_ms) == (2, None)


async def test_a_try_has_the_time_of_the_wall_clock_also_if_that_was_set_meanwhile(shop: Shop) -> None:
    """A receiver refuses what is older than some minutes; a machine without a clock of its own starts in the past."""
    assert isinstance(shop.clock, FakeClock)
    shop.clock.set_by_ms = 5 * 365 * DEAD_AFTER_S * 1000
    sink = Sink()
    delivering = shop.delivering(sink)
    shop.sell()
    await delivering.turn()
    assert sink.got[0].at_s == (shop.clock.now_ms() + shop.clock.set_by_ms) // 1000


async def test_that_a_request_ends_after_all_where_an_order_was_to_follow_is_told(shop: Shop) -> None:
    sink = Sink()
    delivering = shop.delivering(sink)
    closed = shop.end(shop.make(), succession=Succession.GOING_ON)
    shop.commit(closed, replace(closed, succession=None, reason="the money is back; no number is left"))
    await until_idle(delivering)
    assert sink.types == ["closed", "closed"]
    assert [told["data"]["request_is_over"] for told in sink.told] == [False, True]
    assert sink.told[-1]["data"]["reason"] == "the money is back; no number is left"
    assert sink.got[0].id != sink.got[1].id


async def test_an_order_that_another_one_follows_is_told_closed_once(shop: Shop) -> None:
    sink = Sink()
    closed = shop.end(shop.make(), succession=Succession.GOING_ON)
    delivering = shop.delivering(sink)
    shop.hooks.change(delivering.state, delivering.state.replayed(Position(cursor=0)))
    shop.commit(closed, replace(closed, succession=Succession.FOLLOWED))
    await until_idle(delivering)
    assert sink.types == ["closed"]


async def test_what_stands_behind_something_that_was_told_and_erased_is_told(shop: Shop) -> None:
    sink = Sink(troubles=[None, DOWN])
    delivering = shop.delivering(sink)
    made = shop.make()
    shop.commit(
        made,
        changed(
            made,
            items=(shop.item(ItemKind.CODE, CODE),),
            closed_at_ms=shop.clock.now_ms(),
            end=End.FULFILLED,
        ),
    )
    assert await delivering.turn() == 0
    await delivering.turn()
    assert sink.types == ["code", "closed"]
    list(shop.store.erase_codes(shop.clock.now_ms() + 1, shop.clock.now_ms() + 2))
    sink.troubles, sink.got = [None], []
    await asyncio.sleep(10)
    await until_idle(shop.delivering(sink))
    assert sink.types == ["closed"]


async def test_an_event_has_the_same_id_whatever_became_of_what_came_with_it(shop: Shop) -> None:
    sink = Sink()
    delivering = shop.delivering(sink)
    made = shop.make()
    short, other = shop.item(ItemKind.MESSAGE, CODE), shop.item(ItemKind.MESSAGE, "hello")
    shop.bring(made, short, other)
    await until_idle(delivering)
    before = shop.store.get(made.id)
    shop.commit(before, replace(before, items=(replace(short, text=f"your code: {CODE}"), other)))
    await until_idle(delivering)
    assert shop.hooks.change(delivering.state, delivering.state.replayed(Position(cursor=0)))
    await until_idle(delivering)
    assert sink.types == ["message"] * 5
    assert sink.got[1].id == sink.got[3].id, "the message that stayed what it is"


async def test_what_a_receiver_can_never_take_is_skipped_also_an_alarm_behind_the_last_row(shop: Shop) -> None:
    sink = Sink(troubles=[DOWN])
    delivering = shop.delivering(sink)
    shop.end(shop.make())
    shop.hooks.add_notices([Notice(topic=Topic.ALARM, at_ms=1, data={"text": "poison"})])
    shop.hooks.add_notices([Notice(topic=Topic.ALARM, at_ms=2, data={"text": "good"})])
    assert await delivering.skip() is Skip.NOTHING_FAILED
    assert await delivering.turn() == 0
    assert await delivering.skip() is Skip.DONE
    assert delivering.state.attempt_count == 0
    assert await delivering.turn() == 0
    assert await delivering.skip() is Skip.DONE
    sink.troubles = [None]
    assert await until_idle(delivering) is None
    assert [told["data"].get("text") for told in sink.told] == [None, "poison", "good"]
    assert await delivering.skip() is Skip.NOTHING_FAILED


async def test_a_try_on_its_way_that_fails_while_it_is_skipped_is_skipped(shop: Shop) -> None:
    sink = Sink(troubles=[DOWN])
    delivering = shop.delivering(sink, Topic.CLOSED)
    shop.sell()
    assert await delivering.turn() == 0
    await asyncio.sleep(10)
    sink.may_answer.clear()
    trying = asyncio.create_task(delivering.turn())
    await asyncio.sleep(1)
    skipping = asyncio.create_task(delivering.skip())
    await asyncio.sleep(0)
    sink.may_answer.set()
    assert await skipping is Skip.DONE
    await trying
    assert delivering.state.attempt_count == 0


async def test_of_a_row_that_tells_several_things_the_one_is_skipped_that_failed(shop: Shop) -> None:
    sink = Sink(troubles=[DOWN])
    delivering = shop.delivering(sink)
    shop.bring(shop.make(), shop.item(ItemKind.NUMBER, NUMBER), shop.item(ItemKind.CODE, CODE))
    assert await delivering.turn() == 0
    assert await delivering.skip() is Skip.DONE
    sink.troubles = [None]
    assert await until_idle(delivering) is None
    assert sink.types == ["number", "code"]
