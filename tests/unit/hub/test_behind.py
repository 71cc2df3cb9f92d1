"""A stream that is behind, an end that was heard too early, and a hang that a look-up shows."""

from __future__ import annotations

import asyncio

import pytest

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay.core.lightning import Lost, Reported
from holdpay.lnd import hub as hub_module
from holdpay.lnd.convert import to_update
from holdpay.lnd.hub import OWED_S, Hub
from tests.unit.hub.router import ALICE, Call, Record, hash_of
from tests.unit.hub.test_hub import HASH, IN_FLIGHT, OTHER, SUCCEEDED, Reading, quick, running, sent


def payment(status: lnrpc.Payment.PaymentStatus.ValueType, index: int, created_s: int) -> lnrpc.Payment:
    return lnrpc.Payment(
        payment_hash=HASH,
        status=status,
        payment_index=index,
        creation_time_ns=created_s * 10**9,
        failure_reason=(lnrpc.FAILURE_REASON_NO_ROUTE if status == lnrpc.Payment.FAILED else lnrpc.FAILURE_REASON_NONE),
    )


def _call_of(hub: Hub) -> Call:
    assert hub._stream is not None
    assert isinstance(hub._stream.call, Call)
    return hub._stream.call


async def test_an_earlier_trys_end_with_a_reused_index_is_not_this_trys() -> None:
    # lnd 0.21 on sqlite with native SQL: the deleted newest row's id is given again.
    async with running(quick()) as hub:
        await asyncio.sleep(0.1)
        lnd_call = _call_of(hub)
        follower = await hub.follow(HASH, ALICE, is_sending=True)
        reading = Reading(follower)
        lnd_call.put(payment(lnrpc.Payment.FAILED, 7, 100))  # late word of dispatch 1
        await asyncio.sleep(0.01)
        hub.sent(follower, Reported(to_update(payment(lnrpc.Payment.IN_FLIGHT, 7, 200)), True))
        await asyncio.sleep(0.1)
        assert reading.told == [(IN_FLIGHT, True)]


async def test_an_earlier_trys_end_that_comes_after_the_sends_word_is_not_this_trys() -> None:
    async with running(quick()) as hub:
        await asyncio.sleep(0.1)
        lnd_call = _call_of(hub)
        follower = await hub.follow(HASH, ALICE, is_sending=True)
        reading = Reading(follower)
        hub.sent(follower, Reported(to_update(payment(lnrpc.Payment.IN_FLIGHT, 7, 200)), True))
        lnd_call.put(payment(lnrpc.Payment.FAILED, 7, 100))
        await asyncio.sleep(0.1)
        assert reading.told == [(IN_FLIGHT, True)]


async def test_an_end_heard_before_a_lost_send_is_not_taken_for_the_sends() -> None:
    async with running(quick()) as hub:
        await asyncio.sleep(0.1)
        lnd_call = _call_of(hub)
        follower = await hub.follow(HASH, ALICE, is_sending=True)
        reading = Reading(follower)
        lnd_call.put(payment(lnrpc.Payment.FAILED, 5, 100))
        await asyncio.sleep(0.01)
        hub.sent(follower, Lost("the connection broke"))  # lnd has it, index 6, HTLC out
        await asyncio.sleep(0.1)
        assert reading.told == []


async def test_a_try_with_the_index_of_one_that_ended_does_not_owe_its_end() -> None:
    lnd = quick()
    async with running(lnd) as hub:
        await asyncio.sleep(0.1)
        lnd.begin(OTHER)
        first = payment(lnrpc.Payment.IN_FLIGHT, 7, 100)
        lnd.records[HASH] = Record(first)
        followers = [await hub.follow(HASH, ALICE)]
        await asyncio.sleep(1)
        first.status = lnrpc.Payment.FAILED
        followers.append(await hub.follow(HASH, ALICE))
        await asyncio.sleep(1)  # a look-up tells the end before the stream does
        _call_of(hub).put(first)
        await asyncio.sleep(0.1)
        for each in followers:
            hub.leave(each)
        second = payment(lnrpc.Payment.IN_FLIGHT, 7, 200)
        reading = Reading(sending := await hub.follow(HASH, ALICE, is_sending=True))
        hub.sent(sending, Reported(to_update(second), True))
        _call_of(hub).put(second)
        await asyncio.sleep(4 * OWED_S)
        assert reading.told == [(IN_FLIGHT, True)]
        assert lnd.opened == 1, "it hangs, as it seems"


async def test_of_two_tries_with_one_index_the_later_one_is_what_a_new_stream_has_told() -> None:
    async with running(quick()) as hub:
        await asyncio.sleep(0.1)
        _call_of(hub).put(payment(lnrpc.Payment.FAILED, 7, 100))
        _call_of(hub).put(payment(lnrpc.Payment.IN_FLIGHT, 7, 200))
        await asyncio.sleep(0.1)
        reading = Reading(await hub.follow(HASH, ALICE))
        await asyncio.sleep(0.1)
        assert reading.told == [(IN_FLIGHT, False)]


async def test_whoever_left_is_not_looked_up() -> None:
    lnd = quick(answer_after_s=1.0)
    async with running(lnd) as hub:
        await asyncio.sleep(0.1)
        for number in range(100, 180):
            lnd.begin(hash_of(number))
        lnd.begin(HASH)
        await asyncio.sleep(130)
        gone = [await hub.follow(hash_of(number), ALICE) for number in range(100, 180)]
        for follower in gone:
            hub.leave(follower)
        lnd.asked.clear()
        reading = Reading(await hub.follow(HASH, ALICE))
        await asyncio.sleep(3)
        assert reading.told, f"{len(lnd.asked)} look-ups for nobody came first"


async def test_the_opening_when_full_keeps_no_stale_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "OPENING_MAX", 1)
    lnd = quick()
    async with running(lnd) as hub:
        await asyncio.sleep(0.1)
        lnd.begin(HASH)
        await asyncio.sleep(0.1)
        lnd.attempt(HASH)
        lnd.resolve(HASH, is_settled=True)
        await asyncio.sleep(0.1)
        reading = Reading(await hub.follow(HASH, ALICE))
        await asyncio.sleep(60)
        assert reading.told[-1][0] is SUCCEEDED


async def test_an_end_found_by_look_up_of_a_send_that_the_stream_never_spoke_of_shows_the_hang() -> None:
    lnd = quick()
    async with running(lnd) as hub:
        await asyncio.sleep(0.1)
        await sent(hub, lnd, OTHER)
        await asyncio.sleep(1)
        lnd.hang()
        await sent(hub, lnd)
        lnd.attempt(HASH)
        lnd.refuse(HASH)
        await asyncio.sleep(OWED_S + 10)
        assert lnd.opened == 2


class Lagging(Call):
    def put(self, p: lnrpc.Payment) -> None:
        asyncio.get_running_loop().call_later(3.0, Call.put, self, p)


async def test_a_stream_that_is_behind_and_flows_is_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.hub.router.Call", Lagging)
    lnd = quick()
    async with running(lnd) as hub:
        await asyncio.sleep(0.1)
        for number in range(100, 140):
            await sent(hub, lnd, hash_of(number))
            await asyncio.sleep(0.25)
        await asyncio.sleep(5)
        assert lnd.opened == 1


class FarBehind(Call):
    def put(self, p: lnrpc.Payment) -> None:
        asyncio.get_running_loop().call_later(4 * OWED_S, Call.put, self, p)


async def test_an_end_that_a_look_up_tells_long_before_a_stream_that_flows_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.unit.hub.router.Call", FarBehind)
    lnd = quick()
    async with running(lnd) as hub:
        await asyncio.sleep(0.1)
        mine = await sent(hub, lnd)
        for number in range(100):
            lnd.begin(hash_of(100 + number))
            if number == 30:
                assert mine.follower.is_heard, "the stream owes its end now"
                hub.leave(mine.follower)
                lnd.attempt(HASH)
                lnd.resolve(HASH, is_settled=True)
                again = Reading(await hub.follow(HASH, ALICE))
            await asyncio.sleep(1)
        assert again.told[-1][0] is SUCCEEDED
        assert lnd.opened == 1


class EndsAtOnce(Call):
    def put(self, p: lnrpc.Payment) -> None:
        self.cut()


async def test_where_lnd_ends_its_stream_at_once_payments_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # lnd: routerrpc/router_server.go trackPaymentStream ends the stream of whoever made a payment that it cannot tell.
    monkeypatch.setattr("tests.unit.hub.router.Call", EndsAtOnce)
    lnd = quick()
    lnd.begin(OTHER)
    async with running(lnd) as hub:
        await asyncio.sleep(10)
        tries = lnd.opened
        reading = await sent(hub, lnd)
        await asyncio.sleep(10)
        assert reading.told == [(IN_FLIGHT, True)]
        assert lnd.opened == tries
        lnd.attempt(HASH)
        lnd.resolve(HASH, is_settled=True)
        await asyncio.sleep(31)
        assert reading.told[-1] == (SUCCEEDED, False)


async def test_a_stream_that_lnd_ended_at_once_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lnd = quick()
    with monkeypatch.context() as patched:
        patched.setattr("tests.unit.hub.router.Call", EndsAtOnce)
        lnd.begin(OTHER)
        async with running(lnd) as hub:
            await asyncio.sleep(10)
            patched.undo()
            await asyncio.sleep(hub_module.WITHOUT_S)
            assert isinstance(_call_of(hub), Call)
            assert not isinstance(_call_of(hub), EndsAtOnce)


async def test_nothing_stands_while_lnd_is_away_after_it_ended_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.hub.router.Call", EndsAtOnce)
    lnd = quick()
    lnd.begin(OTHER)
    async with running(lnd) as hub:
        await asyncio.sleep(10)
        lnd.go_down()
        hub.looked(answers=False, why_not="lnd is down")
        await asyncio.sleep(0.01)
        assert hub.node is None
