"""Where hooks are, and the notices: bounded, by index, and nothing of it in the way of orders."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdpay.core.hooks import Notice, Position, Topic
from holdpay.core.items import ItemKind
from holdpay.errors import StoreError
from holdpay.store import hooks as module
from tests.unit.build import NOW_MS
from tests.unit.hooks.sink import CODE, NUMBER, Shop
from tests.unit.store.test_plans import plan


class Clock:
    """Stands still, and can be set."""

    def __init__(self) -> None:
        self.at_ms = NOW_MS

    def now_ms(self) -> int:
        return self.at_ms

    def wall_ahead_ms(self) -> int:
        return 0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    opened = Shop(tmp_path, Clock())
    yield opened
    opened.close()


def alarm(number: int) -> Notice:
    return Notice(topic=Topic.ALARM, at_ms=NOW_MS + number, data={"text": f"alarm {number}"})


def test_news_are_rows_that_brought_something_or_ended_an_order(shop: Shop) -> None:
    shop.make()
    sold = shop.sell()
    found, cursor = [], 0
    while True:
        news, read_to = shop.hooks.news(cursor, 2)
        if news is None and read_to == cursor:
            break
        cursor = read_to if news is None else news.cursor
        found += [] if news is None else [news]
    assert [[item.text for item in news.brought.values()] for news in found] == [[NUMBER], [CODE], []]
    assert [news.is_end for news in found] == [False, False, True]
    assert [len(news.order.items) for news in found] == [1, 2, 2]
    assert found[-1].order == sold


def test_an_order_that_cannot_be_read_holds_up_no_hook(shop: Shop) -> None:
    broken = shop.make()
    shop.bring(broken, shop.item(ItemKind.NUMBER, NUMBER))
    shop.store._conn.execute("UPDATE requests SET spec = 'x' WHERE id = ?", (broken.request.id,))
    shop.end(shop.make())
    news, _ = shop.hooks.news(0, 50)
    assert news is not None
    assert news.is_end


def test_what_was_erased_is_no_news_any_more(shop: Shop) -> None:
    shop.sell()
    list(shop.store.erase_codes(NOW_MS + 1, NOW_MS + 2))
    news, _ = shop.hooks.news(0, 50)
    assert news is not None
    assert (news.is_end, news.brought) == (True, {})


def test_a_position_moves_only_from_where_it_is(shop: Shop) -> None:
    shop.hooks.begin("shop")
    state = shop.hooks.state("shop")
    shop.hooks.begin("shop")
    there = state.delivered(Position(cursor=5, part=1, notice=2), NOW_MS)
    assert shop.hooks.change(state, there)
    assert shop.hooks.state("shop") == there
    assert not shop.hooks.change(state, state.failed("it was late", NOW_MS, 1.0))
    assert shop.hooks.state("shop") == there


def test_a_hook_that_was_removed_is_forgotten_and_the_others_are_not(shop: Shop) -> None:
    for name in ("a", "b"):
        shop.hooks.begin(name)
    shop.store.keep_hooks(["b"])
    assert shop.hooks.state("b").name == "b"
    with pytest.raises(StoreError):
        shop.hooks.state("a")


def test_the_latest_notices_are_kept_and_their_numbers_are_never_used_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NOTICES_KEPT", 3)
    shop.hooks.add_notices([alarm(n) for n in range(5)])
    first = shop.hooks.next_notice(0)
    assert first is not None
    assert (first.number, first.data["text"]) == (3, "alarm 2")
    shop.hooks._conn.execute("DELETE FROM notices")
    shop.hooks.add_notices([alarm(9)])
    again = shop.hooks.next_notice(0)
    assert again is not None
    assert again.number == 6


def test_a_notice_stands_behind_the_row_that_was_the_last_then(shop: Shop) -> None:
    shop.make()
    shop.hooks.add_notices([alarm(1)])
    shop.make()
    notice = shop.hooks.last_notice([Topic.ALARM, Topic.LND_READY])
    assert notice is not None
    assert notice.after_cursor == 1
    assert shop.hooks.last_notice([Topic.LND_READY]) is None
    assert shop.hooks.position_at(1) == Position(cursor=1, notice=0)
    assert shop.hooks.position_at(2) == Position(cursor=2, notice=1)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8])
def test_the_last_row_before_a_time_is_found_without_reading_all(shop: Shop, count: int) -> None:
    assert isinstance(shop.clock, Clock)
    for _ in range(count):
        shop.make()
        shop.clock.at_ms += 10
    assert [shop.hooks.cursor_before(NOW_MS + 10 * n) for n in range(count)] == list(range(count))
    assert shop.hooks.cursor_before(NOW_MS + 10 * count) == count
    assert shop.hooks.cursor_before(0) == 0


def test_the_journals_log_is_not_synced_for_a_position_and_is_for_a_notice(shop: Shop) -> None:
    said: list[str] = []
    shop.hooks._conn.set_trace_callback(said.append)
    shop.hooks.begin("shop")
    assert not any("synchronous" in sql for sql in said)
    assert shop.hooks._conn.execute("PRAGMA synchronous").fetchone()[0] == 1
    shop.hooks.add_notices([alarm(1)])
    full = said.index("PRAGMA synchronous = FULL")
    assert "COMMIT" in said[full:]
    assert shop.hooks._conn.execute("PRAGMA synchronous").fetchone()[0] == 1


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        (module.NEXT_NOTICE, (5,)),
        (module.FIRST_ROW_FROM, (5,)),
        (module.BROUGHT, (1, 5)),
        (module.LAST_ROW, ()),
        (module.LAST_NOTICE, ()),
    ],
)
def test_what_a_hook_asks_at_each_turn_is_found_by_an_index(shop: Shop, sql: str, values: tuple[int, ...]) -> None:
    details = plan(shop.store._conn, sql, values)
    assert not any("TEMP B-TREE" in detail for detail in details), details
    assert all(detail.startswith("SEARCH") for detail in details), details


def test_a_new_hook_waits_for_another_program_that_writes_as_orders_do(shop: Shop) -> None:
    """A replication that copies the log, say: otherwise the daemon would run without its hooks until a reload."""
    other = sqlite3.connect(shop.path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    ending = threading.Timer(4 * module.BUSY_TIMEOUT_S, other.execute, ["COMMIT"])
    ending.start()
    try:
        shop.hooks.begin("shop")
        assert shop.hooks.state("shop").attempt_count == 0
        other.execute("BEGIN IMMEDIATE")
        state = shop.hooks.state("shop")
        with pytest.raises(StoreError, match="locked"):
            shop.hooks.change(state, state.passed(Position(cursor=1)))
        other.execute("COMMIT")
    finally:
        ending.join()
        other.close()
