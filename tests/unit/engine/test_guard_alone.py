"""The guard's looks by themselves: when one is due, what is kept of it, and what is counted while lnd is silent."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

from structlog.testing import capture_logs

from holdpay.core.guard import Finding
from holdpay.core.lightning import Attempt, NodeIdentity, OfferedHtlc, OpenChannel
from holdpay.core.model import Order
from holdpay.core.states import HtlcState, OrderState
from holdpay.engine.engine import Engine
from holdpay.engine.guard import JUDGED_AT_ONCE, STALE_S, HoldGuard
from holdpay.engine.tally import Tally
from holdpay.errors import LndDenied, LndUnavailable
from holdpay.ports import NodeState, NodeStatus
from tests.unit.build import ALICE, HASH, NOW_MS, POLICY, S, attempt, pair

HELD = pair(OrderState.PAID, HtlcState.IN_FLIGHT)
BOB = "02" + "b0" * 32
BY_BOB = OpenChannel(812 << 40, True, (OfferedHtlc(HASH, 800_163),), BOB, "bob")
MIN = 60 * S


class Around:
    """The engine as far as the guard sees it, with one payment out, and the guard."""

    def __init__(self, *out: Order, look_every_s: float = 60) -> None:
        self.orders = list(out or (HELD,))
        self.tally = Tally()
        for order in self.orders:
            self.tally.changed(None, order)
        self.policy = POLICY
        self.now = NOW_MS
        self.status = NodeStatus(state=NodeState.READY, identity=ALICE, block_height=800_000, answered_at_ms=NOW_MS)
        self.identity: NodeIdentity | None = ALICE
        self.listed: tuple[OpenChannel, ...] | Exception = (BY_BOB,)
        self.looks = 0
        self.told: list[str] = []
        self.attempted: tuple[Attempt, ...] = (attempt(first_channel="812x0x0", first_hop=BOB),)
        self.clock = self.node = self.ways = self
        self.guard = HoldGuard(cast("Engine", self), look_every_s)

    def now_ms(self) -> int:
        return self.now

    def may_pay_from(self, node: NodeIdentity) -> bool:
        return node == ALICE

    def orders_out(self, most: int) -> list[Order]:
        return self.orders[:most]

    def attempts(self, order_id: str) -> tuple[Attempt, ...]:
        return self.attempted

    def is_news(self, order_id: str, found: tuple[Finding, ...]) -> bool:
        return False

    def look_again(self, order_id: str) -> None:
        self.told.append(order_id)

    async def channels(self, payer: NodeIdentity) -> tuple[OpenChannel, ...]:
        self.looks += 1
        if isinstance(self.listed, Exception):
            raise self.listed
        return self.listed

    async def at(self, after_ms: int, **changes: Any) -> Around:
        """A look so much later, of other things."""
        self.now = NOW_MS + after_ms
        for name, value in changes.items():
            setattr(self, name, value)
        await self.guard.look()
        return self

    def height(self, height: int, answered_ms: int | None = NOW_MS) -> NodeStatus:
        return NodeStatus(state=NodeState.READY, identity=ALICE, block_height=height, answered_at_ms=answered_ms)


# --- when -------------------------------------------------------------------------------------------------------------


async def test_a_look_is_due_when_its_interval_is_over_to_the_millisecond() -> None:
    around = Around(look_every_s=7)
    looks = [(await around.at(after_ms)).looks for after_ms in (0, 1, 6_999, 7_000, 13_999, 14_000)]
    assert looks == [1, 1, 1, 2, 2, 3]


async def test_a_new_block_and_a_clock_that_was_set_back_make_one_due_at_once() -> None:
    around = await Around().at(0)
    assert (await around.at(1, status=around.height(800_001))).looks == 2
    assert (await around.at(2)).looks == 2
    assert (await around.at(0)).looks == 3, "the latest look lies ahead"


async def test_once_nothing_is_out_all_that_was_seen_is_forgotten_and_the_next_payment_is_looked_for_at_once() -> None:
    around = await Around().at(0, listed=())
    assert around.guard.sight(HELD).missing_since_ms == NOW_MS
    around.tally.changed(HELD, None)
    await around.at(1)
    assert around.guard.sight(HELD).missing_since_ms is None
    around.tally.changed(None, HELD)
    assert (await around.at(2)).looks == 2


async def test_another_node_than_the_one_that_pays_is_not_asked() -> None:
    for other in (None, NodeIdentity("03" + "ee" * 32, "simnet")):
        around = await Around().at(0)
        assert around.guard.sight(HELD).htlcs[0].is_on_channel
        await around.at(MIN, identity=other)
        assert (around.looks, around.guard.sight(HELD).htlcs[0].is_on_channel) == (1, None)


# --- what -------------------------------------------------------------------------------------------------------------


async def test_of_channels_that_were_looked_at_already_nobody_asks_again() -> None:
    around = Around()
    assert await around.guard.channels(ALICE) == await around.guard.channels(ALICE) == (BY_BOB,)
    assert around.looks == 1


async def test_since_when_a_peer_is_away_and_no_channel_carries_it_is_kept_from_the_first_look_that_saw_it() -> None:
    away = OpenChannel(BY_BOB.chan_id, False, (), BOB, "bob")
    around = await Around().at(0, listed=(away,))
    await around.at(MIN)
    (htlc,) = around.guard.sight(HELD).htlcs
    assert (htlc.is_on_channel, htlc.is_online, htlc.offline_since_ms) == (False, False, NOW_MS)
    assert around.guard.sight(HELD).missing_since_ms == NOW_MS
    await around.at(2 * MIN, listed=LndUnavailable("away"))
    (htlc,) = around.guard.sight(HELD).htlcs
    assert (htlc.is_on_channel, htlc.is_online, htlc.offline_since_ms) == (None, False, NOW_MS)
    assert around.guard.sight(HELD).missing_since_ms == NOW_MS, "nobody has seen it since"
    await around.at(3 * MIN, listed=(BY_BOB,))
    assert around.guard.sight(HELD).missing_since_ms is None
    assert around.guard.sight(HELD).htlcs[0].offline_since_ms is None
    await around.at(4 * MIN, listed=(away,))
    assert around.guard.sight(HELD).missing_since_ms == NOW_MS + 4 * MIN


async def test_a_payment_without_an_attempt_or_that_lnd_does_not_call_in_flight_is_on_no_channel_by_right() -> None:
    assert (await Around().at(0, listed=(), attempted=())).guard.sight(HELD).missing_since_ms is None
    sending = pair(OrderState.AWAITING_PAYMENT, HtlcState.DISPATCHING)
    assert (await Around(sending).at(0, listed=())).guard.sight(sending).missing_since_ms is None


async def test_an_attempt_of_which_lnd_told_no_channel_is_told_as_such() -> None:
    around = await Around().at(0, listed=(), attempted=(attempt(),))
    (htlc,) = around.guard.sight(HELD).htlcs
    assert (htlc.channel, htlc.peer_pubkey, htlc.is_on_channel) == ("not told", "", False)


async def test_of_a_payment_in_parts_each_is_told_once_by_the_channel_or_by_the_attempt() -> None:
    both = (attempt(first_channel="812x0x0"), attempt(attempt_id=2, first_channel="900x0x0", expiry_height=800_200))
    around = await Around().at(0, attempted=both)
    seen = [(htlc.channel, htlc.is_on_channel) for htlc in around.guard.sight(HELD).htlcs]
    assert seen == [("812x0x0", True), ("900x0x0", False)]


async def test_an_order_is_looked_at_again_where_its_level_changed_and_only_there() -> None:
    around = await Around().at(0)
    assert around.told == []
    await around.at(1, status=around.height(800_163 - 5))
    assert around.told == [HELD.id]


async def test_of_very_many_holds_a_hundred_are_judged_in_a_turn() -> None:
    around = Around(*(replace(HELD, id=f"order{n:05d}") for n in range(250)))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    await asyncio.sleep(0)
    await around.at(0)
    counting.cancel()
    assert turns == 250 // JUDGED_AT_ONCE


async def test_why_channels_cannot_be_looked_at_is_logged_once_until_it_is_another_reason() -> None:
    around = Around()
    with capture_logs() as logs:
        for minute, listed in enumerate((LndDenied("no right"), LndDenied("no right"), LndUnavailable("away"))):
            await around.at(minute * MIN, listed=listed)
        await around.at(3 * MIN, listed=(BY_BOB,))
        await around.at(4 * MIN, listed=LndUnavailable("away"))
    assert [entry["error"] for entry in logs] == ["no right", "away", "away"]


# --- blocks while lnd is silent ---------------------------------------------------------------------------------------


def test_blocks_are_counted_by_the_clock_once_lnd_was_silent_for_long() -> None:
    around = Around()
    seen = []
    for silent_ms in (0, STALE_S * S - 1, STALE_S * S, STALE_S * S + 10 * MIN - 1, STALE_S * S + 10 * MIN):
        around.now = NOW_MS + silent_ms
        sight = around.guard.sight(HELD)
        seen.append((sight.block_height - 800_000, sight.is_estimate))
    assert seen == [(0, False), (0, False), (2, True), (2, True), (3, True)]


def test_without_a_height_or_a_word_of_lnds_nothing_is_counted() -> None:
    for status in (Around().height(0, NOW_MS), Around().height(800_000, None)):
        around = Around()
        around.status, around.now = status, NOW_MS + 99 * STALE_S * S
        sight = around.guard.sight(HELD)
        assert (sight.block_height, sight.is_estimate) == (status.block_height, False)


def test_an_order_whose_money_is_back_is_on_no_channel() -> None:
    around = Around()
    for order in (pair(OrderState.AWAITING_PAYMENT, HtlcState.FAILED), pair(OrderState.DELIVERED, HtlcState.SETTLED)):
        assert around.guard.sight(order).htlcs == ()
        assert around.guard.sight(order).block_height == 800_000
