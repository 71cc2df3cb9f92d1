"""What the hub makes of one stream for all payments: who is told what, and when it is doubted."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay.core.lightning import LndMessage, Lost, NodeIdentity, NotKnown, PaymentStatus, PaymentUpdate, Reported
from holdpay.errors import LndUnavailable, LndWrongNode
from holdpay.lnd import hub as hub_module
from holdpay.lnd.convert import to_update
from holdpay.lnd.follower import Follower
from holdpay.lnd.gate import RELEASE_EVERY_S, RELEASED_AT_ONCE, Gate
from holdpay.lnd.hub import (
    BEGIN_S,
    ENDED_AT_ONCE,
    LET_IN_AT_ONCE,
    LOOK_UPS_AT_ONCE,
    OPENING_S,
    OWED_S,
    REOPEN_S,
    RESTART_AFTER_S,
    Hub,
)
from tests.unit.hub.router import ALICE, Call, ScriptedLnd, hash_of

HASH, OTHER = hash_of(1), hash_of(2)
MALLORY = NodeIdentity("03" + "bb" * 32, "simnet")


class Reading:
    """Reads a follower to its end."""

    def __init__(self, follower: Follower) -> None:
        self.follower = follower
        self.messages: list[LndMessage] = []
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.follower.messages():
            self.messages.append(message)

    @property
    def told(self) -> list[tuple[PaymentStatus, bool]]:
        return [(m.update.status, m.live) for m in self.messages if isinstance(m, Reported)]


IN_FLIGHT, SUCCEEDED, FAILED = PaymentStatus.IN_FLIGHT, PaymentStatus.SUCCEEDED, PaymentStatus.FAILED


@asynccontextmanager
async def running(lnd: ScriptedLnd) -> AsyncIterator[Hub]:
    hub = Hub(lnd, random.Random(1))
    hub.start()
    hub.looked(answers=True, why_not="")
    try:
        yield hub
    finally:
        await hub.close()
        await lnd.close()


def quick(**changes: float) -> ScriptedLnd:
    lnd = ScriptedLnd(random.Random(1), lag_s=0.001, read_s=0.001)
    for name, value in changes.items():
        setattr(lnd, name, value)
    return lnd


async def sent(hub: Hub, lnd: ScriptedLnd, payment_hash: str = HASH) -> Reading:
    follower = await hub.follow(payment_hash, ALICE, is_sending=True)
    reading = Reading(follower)
    hub.sent(follower, await lnd.send(payment_hash))
    return reading


# --- what the stream cannot know ------------------------------------------------------------------------------------


async def test_a_payment_that_ended_after_its_look_up_and_before_the_stream_began_is_looked_up_again() -> None:
    lnd = quick(register_after_s=1.0)
    lnd.begin(HASH)
    async with running(lnd) as hub:
        reading = Reading(await hub.follow(HASH, ALICE))
        await asyncio.sleep(0.5)
        assert reading.told == [(IN_FLIGHT, False)]
        lnd.attempt(HASH)
        lnd.resolve(HASH, is_settled=True)
        await asyncio.sleep(3)
        assert reading.told == [(IN_FLIGHT, False), (SUCCEEDED, False)]


async def test_a_look_up_after_the_streams_first_message_is_enough() -> None:
    lnd = quick()
    async with running(lnd) as hub:
        await asyncio.sleep(0.1)
        lnd.begin(OTHER)
        lnd.begin(HASH)
        await asyncio.sleep(OPENING_S + 1)
        reading = Reading(await hub.follow(HASH, ALICE))
        await asyncio.sleep(100)
        assert lnd.asked == [HASH]
        lnd.attempt(HASH)
        lnd.refuse(HASH)
        await asyncio.sleep(0.1)
        assert reading.told[0] == (IN_FLIGHT, False)
        assert reading.told[-1] == (FAILED, True)


async def test_the_streams_first_word_is_not_lnds_first_and_later_ones_are() -> None:
    lnd = quick(answer_after_s=5.0)
    async with running(lnd) as hub:
        await asyncio.sleep(0.1)
        lnd.begin(HASH)
        await asyncio.sleep(OPENING_S + 1)
        reading = Reading(await hub.follow(HASH, ALICE))
        await asyncio.sleep(0.1)
        lnd.attempt(HASH)
        lnd.resolve(HASH, is_settled=True)
        await asyncio.sleep(0.1)
        assert reading.told == [(IN_FLIGHT, False), (SUCCEEDED, True)]


async def test_a_not_found_that_the_payment_has_overtaken_is_no_word() -> None:
    lnd = quick(answer_after_s=1.0)
    async with running(lnd) as hub:
        reading = Reading(await hub.follow(HASH, ALICE))
        await asyncio.sleep(0.5)
        lnd.begin(HASH)
        await asyncio.sleep(5)
        assert reading.told == [(IN_FLIGHT, False)]
        assert not reading.task.done()


async def test_a_payment_that_lnd_does_not_know_is_not_known() -> None:
    async with running(quick()) as hub:
        reading = Reading(await hub.follow(HASH, ALICE))
        await asyncio.sleep(1)
        assert reading.messages == [NotKnown()]


async def test_a_record_that_is_deleted_in_doubt_is_a_lost_stream() -> None:
    lnd = quick(register_after_s=1_000.0)
    lnd.begin(HASH)
    async with running(lnd) as hub:
        reading = Reading(await hub.follow(HASH, ALICE))
        await asyncio.sleep(0.5)
        del lnd.records[HASH]
        await asyncio.sleep(3)
        assert [type(message) for message in reading.messages] == [Reported, Lost]


async def test_what_a_new_stream_says_is_the_word_for_whoever_follows_soon_after_and_only_once() -> None:
    lnd = quick()
    for payment_hash in (HASH, OTHER):
        lnd.begin(payment_hash)
        lnd.attempt(payment_hash)
    async with running(lnd) as hub:
        await asyncio.sleep(1)
        lnd.resolve(OTHER, is_settled=True)
        await asyncio.sleep(1)
        first, other = Reading(await hub.follow(HASH, ALICE)), Reading(await hub.follow(OTHER, ALICE))
        await asyncio.sleep(1)
        assert first.told == [(IN_FLIGHT, False)]
        assert other.told == [(SUCCEEDED, False)]
        assert lnd.asked == []
        hub.leave(first.follower)
        again = Reading(await hub.follow(HASH, ALICE))
        await asyncio.sleep(1)
        assert (again.told, lnd.asked) == ([(IN_FLIGHT, False)], [HASH])
        lnd.resolve(HASH, is_settled=True)
        await asyncio.sleep(1)
        assert again.told[-1] == (SUCCEEDED, True)


async def test_a_snapshot_that_comes_after_the_end_does_not_hide_it() -> None:
    lnd = quick()
    async with running(lnd) as hub:
        await asyncio.sleep(0.1)
        lnd.begin(HASH)
        lnd.attempt(HASH)
        early = lnrpc.Payment()
        early.CopyFrom(lnd.records[HASH].payment)
        lnd.resolve(HASH, is_settled=True)
        assert lnd.call is not None
        lnd.call.put(early)
        await asyncio.sleep(0.1)
        reading = Reading(await hub.follow(HASH, ALICE))
        await asyncio.sleep(0.1)
        assert reading.told == [(SUCCEEDED, False)]


async def test_what_a_new_stream_says_is_forgotten_after_a_while() -> None:
    lnd = quick()
    for n in range(100):
        lnd.begin(hash_of(n))
    async with running(lnd) as hub:
        await asyncio.sleep(1)
        assert hub._stream is not None
        assert len(hub._stream.opening) == 100
        await asyncio.sleep(OPENING_S + 1)
        lnd.attempt(HASH)
        await asyncio.sleep(1)
        assert hub._stream.opening == {}


async def test_while_the_stream_says_nothing_a_payment_is_looked_up_again_ever_less_often() -> None:
    lnd = quick(register_after_s=10_000.0)
    lnd.begin(HASH)
    async with running(lnd) as hub:
        await hub.follow(HASH, ALICE)
        asked = []
        for seconds in (1, 2, 4, 8, 16):  # a second after each look: 0, 2, 6, 14, 30 s
            await asyncio.sleep(seconds)
            asked.append(len(lnd.asked))
        assert asked == [1, 2, 3, 4, 5]


async def test_what_the_stream_says_of_a_send_before_lnds_word_to_it_is_told_live() -> None:
    lnd = quick()
    async with running(lnd) as hub:
        await asyncio.sleep(0.1)
        reading = Reading(await hub.follow(HASH, ALICE, is_sending=True))
        said = await lnd.send(HASH)
        lnd.attempt(HASH)
        lnd.resolve(HASH, is_settled=True)
        await asyncio.sleep(0.1)
        assert reading.told == []
        hub.sent(reading.follower, said)
        await asyncio.sleep(0.1)
        assert reading.told == [(IN_FLIGHT, True), (IN_FLIGHT, True), (SUCCEEDED, True)]


# --- a stream that hangs --------------------------------------------------------------------------------------------


async def test_a_stream_that_keeps_an_end_to_itself_is_opened_anew_and_all_orders_learn_it() -> None:
    lnd = quick()
    async with running(lnd) as hub:
        await asyncio.sleep(0.1)
        mine, other = await sent(hub, lnd), await sent(hub, lnd, OTHER)
        await asyncio.sleep(1)
        lnd.hang()
        lnd.attempt(HASH)
        lnd.resolve(HASH, is_settled=True)
        await asyncio.sleep(60)
        assert lnd.opened == 1
        hub.leave(mine.follower)  # silent for too long, says its order
        again = Reading(await hub.follow(HASH, ALICE))
        await asyncio.sleep(OWED_S + 1)
        assert again.told == [(SUCCEEDED, False)]
        assert lnd.opened == 2
        assert isinstance(other.messages[-1], Lost)
        assert "hung" in other.messages[-1].text


async def test_a_stream_that_does_not_speak_of_a_new_payment_is_opened_anew() -> None:
    lnd = quick()
    async with running(lnd) as hub:
        await asyncio.sleep(0.1)
        await sent(hub, lnd, OTHER)
        await asyncio.sleep(1)
        lnd.hang()
        await sent(hub, lnd)
        await asyncio.sleep(5)
        assert lnd.opened == 2


async def test_a_stream_without_a_word_is_opened_anew_after_a_while_if_payments_are_in_flight() -> None:
    lnd = quick(register_after_s=10_000.0)
    lnd.begin(HASH)
    async with running(lnd) as hub:
        Reading(await hub.follow(HASH, ALICE))
        await asyncio.sleep(BEGIN_S - 1)
        assert lnd.opened == 1
        await asyncio.sleep(BEGIN_S)
        assert lnd.opened == 2


async def test_a_quiet_stream_is_left_alone() -> None:
    lnd = quick()
    async with running(lnd) as hub:
        await asyncio.sleep(0.1)
        reading = await sent(hub, lnd)
        lnd.attempt(HASH)
        await asyncio.sleep(100_000)
        assert (lnd.opened, lnd.asked) == (1, [])
        lnd.resolve(HASH, is_settled=True)
        await asyncio.sleep(1)
        assert reading.told[-1] == (SUCCEEDED, True)


async def test_an_end_that_the_stream_tells_a_little_later_than_a_look_up_is_no_hang() -> None:
    lnd = quick()
    async with running(lnd) as hub:
        await asyncio.sleep(0.1)
        reading = await sent(hub, lnd)
        await asyncio.sleep(1)
        hub.leave(reading.follower)
        again = Reading(await hub.follow(HASH, ALICE))
        lnd.attempt(HASH)
        lnd.resolve(HASH, is_settled=True)
        await asyncio.sleep(60)
        assert again.told[-1][0] is SUCCEEDED
        assert lnd.opened == 1


# --- many -----------------------------------------------------------------------------------------------------------


async def test_payments_of_other_programs_are_not_even_read_and_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def noting(payment: lnrpc.Payment) -> PaymentUpdate:
        read.append(payment.payment_hash)
        return to_update(payment)

    monkeypatch.setattr(hub_module, "to_update", noting)
    lnd = quick()
    async with running(lnd) as hub:
        await asyncio.sleep(OPENING_S + 1)
        reading = await sent(hub, lnd)
        await asyncio.sleep(0.1)
        count = len(read)
        assert lnd.call is not None
        for n in range(2_000):
            lnd.call.put(lnrpc.Payment(payment_hash=hash_of(1_000 + n), status=lnrpc.Payment.IN_FLIGHT))
        await asyncio.sleep(1)
        assert len(read) == count
        assert hub._stream is not None
        assert (list(hub._stream.followers), list(hub._stream.owed)) == ([HASH], [HASH])
        lnd.attempt(HASH)
        lnd.resolve(HASH, is_settled=True)
        await reading.task
        hub.leave(reading.follower)
        assert (hub._stream.followers, hub._stream.owed) == ({}, {})


async def test_of_very_many_payments_only_so_many_are_kept_and_the_others_are_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub_module, "OPENING_MAX", 5)
    lnd = quick()
    for n in range(20):
        lnd.begin(hash_of(n))
    async with running(lnd) as hub:
        await asyncio.sleep(1)
        assert hub._stream is not None
        assert len(hub._stream.opening) == 5
        readings = [Reading(await hub.follow(hash_of(n), ALICE)) for n in range(20)]
        await asyncio.sleep(1)
        assert [reading.told for reading in readings] == [[(IN_FLIGHT, False)]] * 20
        assert len(lnd.asked) == 15


async def test_look_ups_wait_for_each_other() -> None:
    lnd = quick(answer_after_s=0.1)
    for n in range(200):
        lnd.begin(hash_of(n))
    async with running(lnd) as hub:
        await asyncio.sleep(OPENING_S + 1)
        readings = [Reading(await hub.follow(hash_of(n), ALICE)) for n in range(200)]
        await asyncio.sleep(10)
        assert lnd.most_at_once == LOOK_UPS_AT_ONCE
        assert all(reading.told for reading in readings)


async def test_when_the_stream_stands_a_few_of_those_who_waited_go_on_in_a_turn_and_all_soon() -> None:
    lnd = quick()
    turn, opening, gone_on = 0, lnd.open, Counter[int]()

    def count(turns: int) -> None:
        nonlocal turn
        turn += 1
        if turns > 1:
            asyncio.get_running_loop().call_soon(count, turns - 1)

    async def opened() -> Call:
        call = await opening()
        count(20)
        return call

    async def wait(number: int) -> None:
        await hub.follow(hash_of(number), ALICE)
        gone_on[turn] += 1

    lnd.open = opened  # type: ignore[method-assign]
    async with running(lnd) as hub:
        waiting = [asyncio.create_task(wait(n)) for n in range(1_000)]
        await asyncio.sleep(0)
        waiting[3].cancel()
        await asyncio.sleep(1)
    assert gone_on.total() == 999
    assert max(gone_on.values()) == LET_IN_AT_ONCE
    assert max(gone_on) < 20


async def test_who_waits_for_a_stream_that_breaks_at_once_waits_for_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lnd = quick()

    class Broken(Call):
        def __init__(self) -> None:
            super().__init__()
            if lnd.opened == 1:
                self.cut()

    monkeypatch.setattr("tests.unit.hub.router.Call", Broken)
    async with running(lnd) as hub:
        waiting = [asyncio.create_task(hub.follow(hash_of(n), ALICE)) for n in range(1_000)]
        await asyncio.sleep(2)
        assert lnd.opened == 2
        assert all(task.result() for task in waiting)


async def test_a_break_is_told_to_a_few_orders_in_a_turn_and_to_all_within_seconds() -> None:
    lnd = quick()
    async with running(lnd) as hub:
        await asyncio.sleep(0.1)
        followers = [await hub.follow(hash_of(n), ALICE, is_sending=True) for n in range(1_000)]
        for follower in followers:
            follower.begin(None)
        lnd.cut()
        over = 0
        for _ in range(1_000):
            await asyncio.sleep(0.01)
            now_over = sum(follower.is_over for follower in followers)
            assert now_over - over <= ENDED_AT_ONCE
            over = now_over
        assert over == 1_000


async def test_several_may_follow_the_same_payment() -> None:
    lnd = quick()
    async with running(lnd) as hub:
        await asyncio.sleep(0.1)
        first = await sent(hub, lnd)
        second = Reading(await hub.follow(HASH, ALICE))
        await asyncio.sleep(0.1)
        hub.leave(first.follower)
        lnd.attempt(HASH)
        lnd.resolve(HASH, is_settled=True)
        await asyncio.sleep(0.1)
        assert second.told[-1] == (SUCCEEDED, True)


@pytest.mark.parametrize("error", [ValueError("a defect"), asyncio.CancelledError("by nobody, as grpc.aio may")])
async def test_a_defect_of_ours_ends_neither_the_stream_nor_the_look_ups_and_is_not_repeated_at_once(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    lnd = quick()
    lnd.begin(HASH)
    right, tries = lnd.open, 0

    async def defect() -> Call:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise error
        return await right()

    monkeypatch.setattr(lnd, "open", defect)
    async with running(lnd) as hub:
        await asyncio.sleep(RESTART_AFTER_S - 1)
        assert tries == 1
        await asyncio.sleep(2 * RESTART_AFTER_S)
        assert tries == 3
        reading = Reading(await hub.follow(HASH, ALICE))
        await asyncio.sleep(1)
        assert reading.told == [(IN_FLIGHT, False)]


# --- away -----------------------------------------------------------------------------------------------------------


async def test_while_lnd_is_away_little_is_tried_and_following_says_why() -> None:
    lnd = quick()
    async with running(lnd) as hub:
        await asyncio.sleep(0.1)
        lnd.go_down()
        hub.looked(answers=False, why_not="lnd is away.")
        await asyncio.sleep(60)
        lnd.tries = 0
        await asyncio.sleep(600)
        assert 0 < lnd.tries < 200
        with pytest.raises(LndUnavailable, match="away"):
            await hub.follow(HASH, ALICE)
        lnd.come_up()
        hub.looked(answers=True, why_not="")
        lnd.begin(HASH)
        reading = Reading(await hub.follow(HASH, ALICE))
        await asyncio.sleep(1)
        assert reading.told == [(IN_FLIGHT, False)]


async def test_another_node_is_not_asked_about_a_payment() -> None:
    lnd = quick()
    async with running(lnd) as hub:
        with pytest.raises(LndWrongNode):
            await hub.follow(HASH, MALLORY)
        assert lnd.asked == []


async def test_closing_tells_whoever_follows() -> None:
    lnd = quick()
    async with running(lnd) as hub:
        await asyncio.sleep(0.1)
        reading = await sent(hub, lnd)
        await hub.close()
        await asyncio.sleep(0.1)
        assert isinstance(reading.messages[-1], Lost)
        with pytest.raises(LndUnavailable, match="holdpayd ends"):
            await hub.follow(HASH, ALICE)
        assert hub.node is None


async def test_closing_leaves_nothing_behind_also_where_nothing_was_started() -> None:
    await Hub(quick()).close()
    async with running(lnd := quick(answer_after_s=1_000.0)) as hub:
        lnd.begin(HASH)
        await asyncio.sleep(OPENING_S + 1)
        await hub.follow(HASH, ALICE)
        await asyncio.sleep(1)
        await hub.close()
        assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("lnd ")] == []


async def test_before_the_first_look_at_lnd_following_says_that_it_was_not_asked_yet() -> None:
    hub = Hub(lnd := quick())
    hub.start()
    with pytest.raises(LndUnavailable, match="lnd was not asked yet"):
        await hub.follow(HASH, ALICE)
    assert lnd.opened == 0
    hub.looked(answers=True, why_not="")
    assert (await hub.follow(HASH, ALICE)).payment_hash == HASH
    await hub.close()
    await lnd.close()


class At(random.Random):
    """Draws one of the bounds, always."""

    def __init__(self, bound: int) -> None:
        super().__init__(1)
        self._bound = bound

    def uniform(self, a: float, b: float) -> float:
        return (a, b)[self._bound]


@pytest.mark.parametrize(("bound", "part"), [(0, 0.75), (1, 1.25)])
async def test_after_a_break_the_stream_is_opened_anew_a_little_sooner_or_later(bound: int, part: float) -> None:
    lnd = quick()
    hub = Hub(lnd, At(bound))
    hub.start()
    hub.looked(answers=True, why_not="")
    await asyncio.sleep(1)
    lnd.cut()
    await asyncio.sleep(REOPEN_S[0] * part - 0.001)
    assert (lnd.opened, hub.node) == (1, None)
    await asyncio.sleep(0.01)
    assert (lnd.opened, hub.node) == (2, ALICE)
    await hub.close()
    await lnd.close()


async def test_the_gate_lets_those_of_the_node_that_answers_through_in_turn_and_a_few_at_a_time() -> None:
    gate = Gate(random.Random(1))
    gone: list[int] = []

    async def go(n: int) -> None:
        await gate.passed(ALICE)
        gone.append(n)

    tasks = [asyncio.create_task(go(n)) for n in range(1_000)]
    stranger = asyncio.create_task(gate.passed(MALLORY))
    await asyncio.sleep(1)
    assert gone == []
    tasks[3].cancel()
    gate.open(ALICE)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(gone) <= RELEASED_AT_ONCE
    gate.close()
    await asyncio.sleep(10)
    stopped_at = len(gone)
    assert stopped_at <= 2 * RELEASED_AT_ONCE
    gate.open(ALICE)
    await asyncio.sleep(10)
    assert gone == [n for n in range(1_000) if n != 3]
    assert not stranger.done()
    await gate.passed(ALICE)
    other = asyncio.create_task(gate.passed(NodeIdentity(ALICE.pubkey, "mainnet")))
    await asyncio.sleep(1)
    assert not other.done()
    other.cancel()
    gate.close()
    gate.open(MALLORY)
    await asyncio.sleep(0.1)
    assert stranger.done()
    await gate.stop()


@pytest.mark.parametrize(("bound", "part"), [(0, 0.5), (1, 1.5)])
async def test_the_gate_lets_the_next_ones_through_a_little_sooner_or_later(bound: int, part: float) -> None:
    gate = Gate(At(bound))
    waiting = [asyncio.create_task(gate.passed(ALICE)) for _ in range(3 * RELEASED_AT_ONCE)]
    await asyncio.sleep(0)
    gate.open(ALICE)
    await asyncio.sleep(RELEASE_EVERY_S * part - 0.001)
    assert sum(task.done() for task in waiting) == RELEASED_AT_ONCE
    await asyncio.sleep(0.002)
    assert sum(task.done() for task in waiting) == 2 * RELEASED_AT_ONCE
    await asyncio.sleep(RELEASE_EVERY_S * part)
    await gate.stop()


async def test_nobody_passes_a_gate_that_was_stopped_and_it_does_nothing_more() -> None:
    gate = Gate(random.Random(1))
    many = [asyncio.create_task(gate.passed(ALICE)) for _ in range(2 * RELEASED_AT_ONCE)]
    await asyncio.sleep(0)
    gate.open(ALICE)
    await asyncio.sleep(0)
    await gate.stop()
    assert not any(task.get_name() == "lnd gate" for task in asyncio.all_tasks())
    late = asyncio.create_task(gate.passed(ALICE))
    await asyncio.sleep(10)
    assert (sum(task.done() for task in many), late.done()) == (RELEASED_AT_ONCE, False)
    for task in (*many, late):
        task.cancel()
