"""SendPaymentV2 and TrackPaymentV2 as the engine sees them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import grpc
import pytest

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay.core.lightning import LndMessage, Lost, NotKnown, PaymentStatus, Refused, Reported
from holdpay.errors import LndWrongNode
from holdpay.lnd.failures import Failure, FailureKind
from holdpay.lnd.ledger import LndLedger
from holdpay.lnd.node import LndNode
from holdpay.sandbox.tls import write_certificate
from tests.unit.lnd.fakes import (
    ALICE,
    MALLORY,
    PATIENCE_S,
    SPEC,
    FakeClock,
    FakeLnd,
    Reading,
    collect,
    followers,
    settings_for,
)

HASH = SPEC.payment_hash
BEGUN = lnrpc.Payment(payment_hash=HASH, status=lnrpc.Payment.IN_FLIGHT)
OUT = lnrpc.Payment(payment_hash=HASH, status=lnrpc.Payment.IN_FLIGHT, htlcs=[lnrpc.HTLCAttempt(attempt_id=1)])
PAID = lnrpc.Payment(payment_hash=HASH, status=lnrpc.Payment.SUCCEEDED, payment_preimage="cd" * 32)
BACK = lnrpc.Payment(
    payment_hash=HASH,
    status=lnrpc.Payment.FAILED,
    failure_reason=lnrpc.FAILURE_REASON_INCORRECT_PAYMENT_DETAILS,
)

IN_FLIGHT, SUCCEEDED, FAILED = PaymentStatus.IN_FLIGHT, PaymentStatus.SUCCEEDED, PaymentStatus.FAILED
CODE = grpc.StatusCode


def told(messages: list[LndMessage]) -> list[tuple[PaymentStatus, bool]]:
    return [(m.update.status, m.live) for m in messages if isinstance(m, Reported)]


# --- sending ---


async def test_a_send_reports_live_up_to_the_terminal_message(node: LndNode, lnd: FakeLnd) -> None:
    reading = asyncio.create_task(collect(node.send(SPEC, ALICE)))
    (await lnd.next_stream()).say(BEGUN)
    lnd.tell(BEGUN, OUT, PAID)
    messages = await reading
    assert told(messages) == [(IN_FLIGHT, True), (IN_FLIGHT, True), (SUCCEEDED, True)]
    assert len(messages) == 3


async def test_a_send_carries_spec_and_macaroon_and_no_deadline(node: LndNode, lnd: FakeLnd) -> None:
    reading = asyncio.create_task(collect(node.send(SPEC, ALICE)))
    stream = await lnd.next_stream()
    stream.say(BACK)
    await reading
    assert (stream.request.payment_request, stream.request.cltv_limit) == (SPEC.payreq, SPEC.cltv_limit)
    assert lnd.macaroons["SendPaymentV2"] == ["02736563726574"]


async def test_a_sends_own_stream_ends_with_its_first_word(node: LndNode, lnd: FakeLnd) -> None:
    reading = Reading(node.send(SPEC, ALICE))
    stream = await lnd.next_stream()
    stream.say(BEGUN)
    await reading.begun()
    async with asyncio.timeout(PATIENCE_S):
        await stream.gone.wait()
    assert stream.request.cancelable is False
    assert not reading.task.done()
    reading.task.cancel()


async def test_what_the_hub_hears_before_the_sends_first_word_comes_after_it(node: LndNode, lnd: FakeLnd) -> None:
    reading = asyncio.create_task(collect(node.send(SPEC, ALICE)))
    stream = await lnd.next_stream()
    lnd.tell(BEGUN, OUT, BACK)
    async with asyncio.timeout(PATIENCE_S):
        while not any(follower.is_heard for follower in followers(node)):
            await asyncio.sleep(0.001)
    assert not reading.done()
    stream.say(BEGUN)
    assert told(await reading) == [(IN_FLIGHT, True), (IN_FLIGHT, True), (FAILED, True)]


async def test_a_burst_that_is_read_late_is_read_whole(node: LndNode, lnd: FakeLnd) -> None:
    async with aclosing(node.send(SPEC, ALICE)) as messages:
        reading = asyncio.ensure_future(anext(messages))
        stream = await lnd.next_stream()
        stream.say(BEGUN)
        lnd.tell(OUT, PAID)
        seen = [await reading]
        async with asyncio.timeout(PATIENCE_S):
            while not all(follower.is_over for follower in followers(node)):
                await asyncio.sleep(0.001)
        seen += [message async for message in messages]
    assert told(seen) == [(IN_FLIGHT, True)] * 2 + [(SUCCEEDED, True)]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (CODE.ALREADY_EXISTS, "payment is in transition"),
        (CODE.UNKNOWN, "invoice expired. Valid until 2026-11-22 04:59:01 +0000 UTC"),
        (CODE.UNKNOWN, "permission denied"),
    ],
)
async def test_what_lnd_refuses_is_refused_in_its_words(
    node: LndNode, lnd: FakeLnd, code: grpc.StatusCode, text: str
) -> None:
    lnd.errors["SendPaymentV2"] = (code, text)
    assert await collect(node.send(SPEC, ALICE)) == [Refused(text, has_hash=code is CODE.ALREADY_EXISTS)]


@pytest.mark.parametrize(
    "text",
    [
        "wallet locked, unlock it to enable full RPC access",
        "the RPC server is in the process of starting up, but not yet ready to accept calls",
        "routerrpc server shutting down",
    ],
)
async def test_an_lnd_that_is_not_up_did_not_refuse(node: LndNode, lnd: FakeLnd, text: str) -> None:
    lnd.errors["SendPaymentV2"] = (CODE.UNKNOWN, text)
    assert [type(message) for message in await collect(node.send(SPEC, ALICE))] == [Lost]


async def test_an_error_of_the_stream_of_all_payments_is_a_lost_stream(node: LndNode, lnd: FakeLnd) -> None:
    reading = Reading(node.send(SPEC, ALICE))
    (await lnd.next_stream()).say(OUT)
    await reading.begun()
    assert lnd.of_all is not None
    lnd.of_all.fail(CODE.UNKNOWN, "invoice expired")
    assert await reading.ended() == [Reported, Lost]


async def test_a_stream_of_all_payments_that_ends_is_lost(node: LndNode, lnd: FakeLnd) -> None:
    reading = Reading(node.send(SPEC, ALICE))
    (await lnd.next_stream()).say(OUT)
    await reading.begun()
    assert lnd.of_all is not None
    lnd.of_all.end()
    assert await reading.ended() == [Reported, Lost]


async def test_an_lnd_that_goes_away_is_a_lost_stream(node: LndNode, lnd: FakeLnd) -> None:
    reading = Reading(node.send(SPEC, ALICE))
    (await lnd.next_stream()).say(OUT)
    await reading.begun()
    await lnd.stop()
    assert await reading.ended() == [Reported, Lost]


async def test_a_send_to_an_lnd_that_is_down_is_lost_before_it_began(node: LndNode, lnd: FakeLnd) -> None:
    await lnd.stop()
    messages = await collect(node.send(SPEC, ALICE))
    assert [type(message) for message in messages] == [Lost]
    assert "does not answer" in messages[0].text  # type: ignore[union-attr]


async def test_another_node_is_not_paid_from(node: LndNode, lnd: FakeLnd) -> None:
    with pytest.raises(LndWrongNode):
        await collect(node.send(SPEC, MALLORY))
    assert "SendPaymentV2" not in lnd.calls


async def test_the_same_pubkey_on_another_network_is_another_node(node: LndNode, lnd: FakeLnd) -> None:
    with pytest.raises(LndWrongNode):
        await collect(node.send(SPEC, type(ALICE)(ALICE.pubkey, "mainnet")))
    assert "SendPaymentV2" not in lnd.calls


# --- tracking ---


async def test_a_track_asks_who_answers_and_its_first_message_is_not_live(node: LndNode, lnd: FakeLnd) -> None:
    before = lnd.calls.count("GetInfo")
    reading = asyncio.create_task(collect(node.track(HASH, ALICE)))
    stream = await lnd.next_stream()
    stream.say(OUT)
    async with asyncio.timeout(PATIENCE_S):
        await stream.gone.wait()
    lnd.tell(BACK)
    assert told(await reading) == [(IN_FLIGHT, False), (FAILED, True)]
    assert stream.request.payment_hash.hex() == HASH
    assert lnd.calls.count("GetInfo") == before + 1
    assert lnd.calls[-2:] == ["GetInfo", "TrackPaymentV2"]


async def test_a_track_of_an_ended_payment_is_one_message(node: LndNode, lnd: FakeLnd) -> None:
    reading = asyncio.create_task(collect(node.track(HASH, ALICE)))
    (await lnd.next_stream()).say(BACK)
    assert told(await reading) == [(FAILED, False)]


async def test_a_payment_that_lnd_does_not_know_is_not_known(node: LndNode, lnd: FakeLnd) -> None:
    lnd.errors["TrackPaymentV2"] = (CODE.NOT_FOUND, "payment isn't initiated")
    assert await collect(node.track(HASH, ALICE)) == [NotKnown()]


async def test_a_macaroon_that_may_not_track_is_a_lost_stream_that_says_so(node: LndNode, lnd: FakeLnd) -> None:
    lnd.errors["TrackPaymentV2"] = (CODE.UNKNOWN, "permission denied")
    (message,) = await collect(node.track(HASH, ALICE))
    assert isinstance(message, Lost)
    assert "bakemacaroon" in message.text


async def test_without_getinfo_nothing_is_asked_about_a_payment(node: LndNode, lnd: FakeLnd) -> None:
    lnd.errors["GetInfo"] = (CODE.UNKNOWN, "wallet locked, unlock it to enable full RPC access")
    assert [type(message) for message in await collect(node.track(HASH, ALICE))] == [Lost]
    assert "TrackPaymentV2" not in lnd.calls


async def test_another_node_is_not_asked_about_a_payment(node: LndNode, lnd: FakeLnd) -> None:
    (message,) = await collect(node.track(HASH, MALLORY))
    assert isinstance(message, Lost)
    assert "Another node" in message.text
    assert "TrackPaymentV2" not in lnd.calls


# --- leaving ---


async def test_whoever_leaves_is_forgotten_and_ends_the_call_that_is_open(node: LndNode, lnd: FakeLnd) -> None:
    reading = Reading(node.send(SPEC, ALICE))
    stream = await lnd.next_stream()
    reading.task.cancel()
    await asyncio.wait({reading.task}, timeout=PATIENCE_S)
    assert reading.task.cancelled()
    async with asyncio.timeout(PATIENCE_S):
        await stream.gone.wait()
    assert followers(node) == []


async def test_closing_the_channel_under_a_reader_is_a_lost_stream_and_no_cancel(node: LndNode, lnd: FakeLnd) -> None:
    reading = Reading(node.track(HASH, ALICE))
    (await lnd.next_stream()).say(OUT)
    await reading.begun()
    await node.close()
    assert await reading.ended() == [Reported, Lost]


async def test_after_close_every_stream_is_lost_at_once(node: LndNode, lnd: FakeLnd) -> None:
    await node.close()
    assert [type(message) for message in await collect(node.send(SPEC, ALICE))] == [Lost]
    assert [type(message) for message in await collect(node.track(HASH, ALICE))] == [Lost]


def tasks() -> list[str]:
    """Those of the adapter that run."""
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("lnd ")]


async def test_after_close_no_task_is_left_also_where_lnd_was_just_asked(node: LndNode, lnd: FakeLnd) -> None:
    lnd.mute.clear()
    lnd.calls.clear()
    reading = Reading(node.track(HASH, ALICE))
    async with asyncio.timeout(PATIENCE_S):
        while "GetInfo" not in lnd.calls:
            await asyncio.sleep(0)
    await node.close()
    assert tasks() == []
    lnd.mute.set()
    assert await reading.ended() == [Lost]


@pytest.mark.parametrize("kind", [FailureKind.UNRESOLVED, FailureKind.UNTRUSTED])
async def test_a_call_that_fails_while_all_is_closed_opens_no_other_connection(
    node: LndNode, kind: FailureKind, tmp_path: Path
) -> None:
    link = node._link
    await node.close()
    write_certificate(tmp_path, ("another",))
    link.note(link.current, Failure(kind, "too late"))
    assert tasks() == []


async def test_a_ledger_waits_for_an_answer_about_a_payment_no_longer_than_for_any_other(
    lnd: FakeLnd, clock: FakeClock, tmp_path: Path
) -> None:
    async with LndLedger(settings_for(lnd.port, tmp_path / "tls.cert", call_timeout_s=3), clock) as ledger:
        await ledger.identity()
        lnd.mute.clear()
        async with asyncio.timeout(PATIENCE_S):
            assert isinstance(await ledger.payment(HASH), Lost)
        lnd.mute.set()
