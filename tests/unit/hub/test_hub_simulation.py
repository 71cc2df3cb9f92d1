"""Many payments through the hub, under faults drawn from a seed; an auditor compares what orders heard with lnd."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from holdpay.core.lightning import Lost, NotKnown, PaymentUpdate, Reported
from holdpay.errors import LndError
from holdpay.lnd.follower import Follower
from holdpay.lnd.hub import LOOK_UPS_AT_ONCE, Hub
from tests.unit.hub.router import ALICE, ScriptedLnd, hash_of

PAYMENTS, FOREIGN = 12, 12
RETRACK_S = 300.0
SPAN_S = 400.0
"""Faults happen within it."""
SOON_S = 12.0
"""An end reaches its order within this time, if no stream hangs: a pause after a break, the gate, a look-up."""
SEEDS = 150


class Order:
    """Follows its payment as the PAY duty does, and notes what it hears."""

    def __init__(self, world: World, payment_hash: str) -> None:
        self.world = world
        self.payment_hash = payment_hash
        self.ended_at_s: float | None = None
        self.lives: list[list[PaymentUpdate]] = [[]]
        self.end: Reported | None = None

    async def run(self, *, is_sent_by_us: bool) -> None:
        if is_sent_by_us:
            await self._live(is_sending=True)
        while self.end is None:
            await self._live(is_sending=False)

    async def _live(self, *, is_sending: bool) -> None:
        hub, lnd = self.world.hub, self.world.lnd
        try:
            follower = await hub.follow(self.payment_hash, ALICE, is_sending=is_sending)
        except LndError:
            await self._pause()
            return
        self.lives.append([])
        try:
            if is_sending:
                hub.sent(follower, await lnd.send(self.payment_hash))
            await self._read(follower)
        finally:
            hub.leave(follower)

    async def _read(self, follower: Follower) -> None:
        messages = follower.messages()
        while self.end is None:
            try:
                async with asyncio.timeout(RETRACK_S):
                    message = await anext(messages)
            except TimeoutError:
                return
            if isinstance(message, Reported):
                self.lives[-1].append(message.update)
                if message.update.is_terminal:
                    self.end, self.ended_at_s = message, self.world.now_s
            else:
                assert isinstance(message, Lost | NotKnown)
                if isinstance(message, NotKnown):
                    assert self.payment_hash not in self.world.begun, "lnd knew it"
                await self._pause()
                return

    async def _pause(self) -> None:
        await asyncio.sleep(1)
        await self.world.hub.gate.passed(ALICE)


class World:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.hangs = self.rng.random() < 0.4
        slow = self.rng.random() < 0.2
        losing = self.rng.choice([0.0, 0.0, 0.1])
        self.lnd = ScriptedLnd(
            self.rng, lag_s=self.rng.choice([0.001, 0.05, 0.5]), read_s=5.0 if slow else 0.2, losing=losing
        )
        self.hub = Hub(self.lnd, self.rng)
        self.begun: set[str] = set()
        self.quiet_since_s = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def go(self, what: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(what))

    async def run(self) -> list[Order]:
        self.hub.start()
        self.hub.looked(answers=True, why_not="")
        orders = [Order(self, hash_of(n)) for n in range(PAYMENTS)]
        following = [asyncio.create_task(self._order(order)) for order in orders]
        for n in range(FOREIGN):
            self.go(self._life(hash_of(1_000 + n), is_foreign=True))
        self.go(self._faults())
        done, pending = await asyncio.wait(following, timeout=SPAN_S + 2 * RETRACK_S + 120)
        assert not pending, f"{len(pending)} orders never heard the end of their payment"
        for task in done:
            task.result()
        for one in self._tasks:
            if one.done():
                one.result()
            one.cancel()
        await self.hub.close()
        await self.lnd.close()
        return orders

    async def _order(self, order: Order) -> None:
        await asyncio.sleep(self.rng.uniform(0, SPAN_S / 2))
        is_sent_by_us = self.rng.random() < 0.7
        self.go(self._life(order.payment_hash, is_foreign=not is_sent_by_us))
        if not is_sent_by_us:  # it was sent before a restart of the daemon
            await asyncio.sleep(self.rng.uniform(0, 5))
        await order.run(is_sent_by_us=is_sent_by_us)

    async def _life(self, payment_hash: str, *, is_foreign: bool) -> None:
        """What lnd and the payee do with a payment, once lnd has it."""
        rng, lnd = self.rng, self.lnd
        if is_foreign:
            lnd.begin(payment_hash)
        tried_at_s = self.now_s
        while payment_hash not in lnd.records:
            await asyncio.sleep(0.01)
            if self.now_s - tried_at_s > 30:  # the send was lost on the way: it arrives late
                lnd.begin(payment_hash)
        self.begun.add(payment_hash)
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(rng.choice([0, 0.001, 0.3]))
            lnd.attempt(payment_hash)
            await asyncio.sleep(rng.choice([0, 0.001, 3]))
            lnd.resolve(payment_hash, is_settled=False)
        lnd.attempt(payment_hash)
        await asyncio.sleep(rng.choice([0, 0.001, 0.1, 5, 60, 200]))
        if rng.random() < 0.5:
            lnd.resolve(payment_hash, is_settled=True)
        else:
            lnd.refuse(payment_hash)
        if rng.random() < 0.3:
            await asyncio.sleep(rng.choice([0, 0.1, 20]))
            lnd.overwrite(payment_hash)

    async def _faults(self) -> None:
        rng, lnd = self.rng, self.lnd
        while self.now_s < SPAN_S:
            await asyncio.sleep(rng.expovariate(1 / 40))
            fault = rng.choice(["cut", "down", "hang" if self.hangs else "cut"])
            if fault == "hang":
                lnd.hang()
            elif fault == "cut":
                lnd.cut()
            else:
                lnd.go_down()
                await asyncio.sleep(rng.choice([0, 0.1, 0.3]))
                self.hub.looked(answers=False, why_not="lnd is down")
                await asyncio.sleep(rng.choice([0, 0.1, 3, 30]))
                lnd.come_up()
                await asyncio.sleep(rng.choice([0, 0.1, 3]))
                self.hub.looked(answers=True, why_not="")
            self.quiet_since_s = self.now_s


def judge(world: World, orders: list[Order]) -> None:
    for order in orders:
        record = world.lnd.records[order.payment_hash]
        assert order.end is not None
        assert order.ended_at_s is not None
        assert record.ended_at_s is not None
        terminal = [update for update in record.history if update.is_terminal]
        if order.end.live:
            assert order.end.update == terminal[0], "not lnd's first terminal word"
        else:
            without = [_without_attempts(update) for update in terminal]
            assert _without_attempts(order.end.update) in without
        for life in order.lives:
            _assert_in_order(life, record.history)
        if not world.hangs:
            late_s = order.ended_at_s - max(record.ended_at_s, world.quiet_since_s)
            assert late_s <= SOON_S, f"told {late_s:.1f} s late"
    assert world.lnd.most_at_once <= LOOK_UPS_AT_ONCE


def _without_attempts(update: PaymentUpdate) -> tuple[object, ...]:
    return update.status, update.failure_reason, update.preimage, update.payment_index


def _assert_in_order(heard: list[PaymentUpdate], history: list[PaymentUpdate]) -> None:
    """Each is a state that lnd was in, in lnd's order, and none twice; what is read after the end has no attempts."""
    states = iter(history)
    for update in heard:
        if update.is_terminal and not update.attempts:
            continue
        assert any(state == update for state in states), "out of order, or made up"


@pytest.mark.parametrize("batch", range(5))
async def test_each_payments_end_reaches_its_order_as_lnd_had_it(batch: int) -> None:
    for seed in range(batch, SEEDS, 5):
        world = World(seed)
        try:
            async with asyncio.timeout(3_600):
                judge(world, await world.run())
        except BaseException:
            print("seed", seed)
            raise
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
