"""What hooks are told beside the journal: lnd, alarms, limits; each when it begins, and not again while it lasts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from holdpay.core.budget import Budget
from holdpay.core.hooks import Topic
from holdpay.core.states import HoldLevel
from holdpay.engine.notices import AGAIN_AFTER_S, LND_GRACE_S, Notices
from tests.unit.engine.world import World


class Told:
    """What is told, and an account whose alarms a test sets. ``last``: what an earlier process told last."""

    def __init__(self, world: World, last: Topic | None = None) -> None:
        self.world = world
        self.last = last
        self.found: list[tuple[Topic, Mapping[str, Any]]] = []
        self.account_alarms: list[str] = []
        account = cast(Any, SimpleNamespace(alarms=lambda: self.account_alarms))
        self.notices = Notices(world.engine, account, lambda *told: self.found.append(told), self._last_told)

    def _last_told(self, topics: Iterable[Topic]) -> Topic | None:
        return self.last

    def look(self) -> list[Topic]:
        """What one look tells."""
        before = len(self.found)
        self.notices.look()
        return [topic for topic, _ in self.found[before:]]


async def test_lnd_is_told_of_when_it_cannot_pay_for_a_minute_and_when_it_can_again(world: World) -> None:
    told = Told(world)
    assert told.look() == []
    world.lnd.is_down = True
    assert told.look() == []
    await asyncio.sleep(LND_GRACE_S - 1)
    assert told.look() == []
    await asyncio.sleep(1)
    assert told.look() == [Topic.LND_NOT_READY]
    assert told.found[-1][1] == {"state": "unreachable", "detail": "lnd is unreachable."}
    await asyncio.sleep(LND_GRACE_S)
    assert told.look() == []
    world.lnd.is_down = False
    assert told.look() == [Topic.LND_READY]
    assert told.look() == []


async def test_a_lapse_of_seconds_is_not_told_and_begins_anew(world: World) -> None:
    told = Told(world)
    for _ in range(3):
        world.lnd.is_down = True
        assert told.look() == []
        await asyncio.sleep(LND_GRACE_S - 1)
        assert told.look() == []
        world.lnd.is_down = False
        assert told.look() == []


async def test_that_lnd_can_pay_again_is_told_also_by_the_next_process(world: World) -> None:
    assert Told(world, Topic.LND_NOT_READY).look() == [Topic.LND_READY]
    assert Told(world, Topic.LND_READY).look() == []


async def test_hooks_that_come_after_all_others_went_are_told_what_lasts_and_no_end_of_what_they_were_not_told(
    world: World,
) -> None:
    told = Told(world, Topic.LND_NOT_READY)
    told.account_alarms = ["The account has 999 sat."]
    world.lnd.is_down = True
    told.look()
    await asyncio.sleep(LND_GRACE_S)
    told.look()
    told.notices.nobody_listens()
    assert told.look() == [Topic.ALARM]
    await asyncio.sleep(LND_GRACE_S)
    assert told.look() == [Topic.LND_NOT_READY]

    told.notices.nobody_listens()
    world.lnd.is_down = False
    told.account_alarms = []
    assert told.look() == []


async def test_an_alarm_that_is_about_no_order_is_told_once_while_it_lasts(world: World) -> None:
    told = Told(world)
    told.account_alarms = ["The account has 999 sat."]
    assert told.look() == [Topic.ALARM]
    assert told.found[-1][1] == {"level": "warning", "text": "The account has 999 sat.", "request_id": None}
    told.account_alarms = ["The account has 12 sat."]
    assert told.look() == []
    world.engine.alarms_of_configuration = ("the configuration was not read again",)
    assert told.look() == [Topic.ALARM]
    told.account_alarms = []
    assert told.look() == []
    told.account_alarms = ["The account has 5 sat."]
    assert told.look() == [Topic.ALARM]


async def test_an_alarm_is_told_with_its_order_and_its_level(world: World) -> None:
    told = Told(world)
    told.notices.alarm("order00001", HoldLevel.LATE, "order order00001: late")
    (found,) = told.found
    assert found == (Topic.ALARM, {"level": "late", "text": "order order00001: late", "request_id": "order00001"})


async def test_four_fifths_of_a_limit_are_told_once_while_they_last(world: World) -> None:
    told = Told(world)
    world.request(1)
    pending_sat = world.engine.totals().pending_msat // 1000
    limits = world.engine.limits
    world.engine.limits = replace(limits, max_pending_sat=pending_sat * 5 // 4 + 2)
    assert told.look() == []
    world.engine.limits = replace(limits, max_pending_sat=pending_sat * 5 // 4)
    assert told.look() == [Topic.LIMIT_NEAR]
    assert told.found[-1][1] == {
        "limit": "limits.max_pending_sat",
        "limit_sat": pending_sat * 5 // 4,
        "used_msat": pending_sat * 1000,
        "percent": 80,
    }
    told.notices._look_at_limits(world.engine.clock.now_ms() + AGAIN_AFTER_S * 1000 - 1)
    told.notices._look_at_limits(world.engine.clock.now_ms() + 2 * AGAIN_AFTER_S * 1000 - 2)
    assert len(told.found) == 1, "as long as it lasts"
    told.notices._look_at_limits(world.engine.clock.now_ms() + 4 * AGAIN_AFTER_S * 1000)
    assert len(told.found) == 2


async def test_a_clients_budget_that_is_nearly_used_up_is_told(world: World) -> None:
    told = Told(world)
    world.engine.budget_warnings.on_near = told.notices.budget_is_near
    budget = Budget(client="ann", max_spend_per_day_sat=2_500)
    world.engine.limits = replace(world.engine.limits, budgets={"ann": budget})
    world.request(1, client="ann")
    ((topic, facts),) = told.found
    assert topic is Topic.LIMIT_NEAR
    assert facts["limit"] == "client.ann.max_spend_per_day_sat"
    assert facts["percent"] >= 80
