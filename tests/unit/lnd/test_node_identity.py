"""Which node answers: asked anew whenever the connection is a new one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay.core.lightning import Lost, Reported
from holdpay.errors import LndDenied, LndRefused, LndUnavailable, LndWrongNode
from holdpay.lnd.connection import Connection
from holdpay.lnd.node import LndNode
from holdpay.sandbox.tls import Certificate
from tests.unit.lnd.fakes import (
    ALICE,
    MALLORY,
    PATIENCE_S,
    SPEC,
    FakeClock,
    FakeLnd,
    Reading,
    Relay,
    collect,
    known,
    settings_for,
)

OUT = lnrpc.Payment(payment_hash=SPEC.payment_hash, status=lnrpc.Payment.IN_FLIGHT)
PAID = lnrpc.Payment(payment_hash=SPEC.payment_hash, status=lnrpc.Payment.SUCCEEDED)
CODE = grpc.StatusCode


async def broken(node: LndNode) -> None:
    """Returns when the node knows that its connection broke."""
    connection = node._link.current
    async with asyncio.timeout(PATIENCE_S):
        while (state := connection._channel.get_state()) is grpc.ChannelConnectivity.READY:
            await connection._channel.wait_for_state_change(state)


async def test_the_node_is_known_after_the_first_look_and_asked_once_for_many_sends(
    node: LndNode, lnd: FakeLnd
) -> None:
    assert node.identity == ALICE
    before = lnd.calls.count("GetInfo")
    for _ in range(3):
        sending = asyncio.create_task(collect(node.send(SPEC, ALICE)))
        (await lnd.next_stream()).say(PAID)
        await sending
    assert lnd.calls.count("GetInfo") == before


async def test_before_the_first_answer_no_node_is_known(
    clock: FakeClock, certificate: Certificate, tmp_path: Path
) -> None:
    node = LndNode(settings_for(1, tmp_path / "tls.cert"), clock)
    assert node.identity is None
    await node.start()
    await clock.until_asleep()
    assert node.identity is None
    await node.close()


async def test_a_broken_connection_makes_the_node_unknown(relayed: LndNode, relay: Relay) -> None:
    relay.drop()
    await broken(relayed)
    assert relayed.identity is None


async def test_after_a_reconnect_another_node_is_not_paid_from(
    relayed: LndNode, relay: Relay, mallory: FakeLnd
) -> None:
    relay.target_port = mallory.port
    relay.drop()
    await broken(relayed)
    with pytest.raises(LndWrongNode):
        await collect(relayed.send(SPEC, ALICE))
    await relayed.decode("lnsb1")
    await known(relayed, MALLORY)
    assert "SendPaymentV2" not in mallory.calls


async def test_after_a_reconnect_the_same_node_is_paid_from(relayed: LndNode, relay: Relay, lnd: FakeLnd) -> None:
    relay.drop()
    await broken(relayed)
    sending = asyncio.create_task(collect(relayed.send(SPEC, ALICE)))
    (await lnd.next_stream()).say(PAID)
    assert [type(message) for message in await sending] == [Reported]


async def test_a_break_while_held_is_a_lost_stream_and_a_track_goes_on(
    relayed: LndNode, relay: Relay, lnd: FakeLnd
) -> None:
    sending = Reading(relayed.send(SPEC, ALICE))
    (await lnd.next_stream()).say(OUT)
    await sending.begun()
    relay.drop()
    assert await sending.ended() == [Reported, Lost]
    tracking = Reading(relayed.track(SPEC.payment_hash, ALICE))
    (await lnd.next_stream()).say(OUT)
    await tracking.begun()
    lnd.tell(PAID)
    assert await tracking.ended() == [Reported, Reported]


async def test_a_call_that_waits_for_a_connection_is_never_passed_to_the_next_one(
    relay: Relay, certificate: Certificate, lnd: FakeLnd, tmp_path: Path
) -> None:
    # The gate lets no call through without a connection; a connection that breaks right after the gate gets here.
    connection = Connection(settings_for(relay.port, tmp_path / "tls.cert"), certificate.certificate, lambda: None)
    await asyncio.sleep(0)  # the watch begins
    call = connection.send(SPEC)
    connection.guard(call)
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(PATIENCE_S):
            await call.read()
    await connection.get_info()
    assert "SendPaymentV2" not in lnd.calls
    await connection.close()


async def test_an_answer_of_a_connection_that_changed_meanwhile_is_not_believed(
    relayed: LndNode, relay: Relay, lnd: FakeLnd
) -> None:
    connection = relayed._link.current

    class Late:
        """Hands over what the node said before the connection broke when another one stands already."""

        async def GetInfo(self, *_: Any, **__: Any) -> lnrpc.GetInfoResponse:  # noqa: N802
            said = lnrpc.GetInfoResponse()
            said.CopyFrom(lnd.info)
            relay.drop()
            await broken(relayed)
            async with asyncio.timeout(PATIENCE_S):
                while connection._info is not None:  # the connection's own watch is woken apart from ours
                    await asyncio.sleep(0)
                while connection._channel.get_state(try_to_connect=True) is not grpc.ChannelConnectivity.READY:
                    await asyncio.sleep(0.01)
            return said

    connection._lightning = Late()  # type: ignore[assignment]
    await connection.get_info()
    assert connection.identity is None


async def test_a_watch_that_died_makes_the_node_unknown(node: LndNode) -> None:
    connection = node._link.current
    assert connection.identity == ALICE
    connection._watch.cancel()
    await asyncio.wait({connection._watch})
    assert connection.identity is None


async def test_a_connection_whose_watch_died_gives_way_to_another_one_at_the_next_look(node: LndNode) -> None:
    connection = node._link.current
    connection._watch.cancel()
    await asyncio.wait({connection._watch})
    async with asyncio.timeout(PATIENCE_S):
        await node._link.verified(afresh=True)
    assert node._link.current is not connection
    assert node._link.current.identity == ALICE


# --- decoding ---


async def test_decoding_tells_the_invoice_and_the_node(node: LndNode, lnd: FakeLnd) -> None:
    invoice, decoder = await node.decode("lnsb1")
    assert (invoice.payment_hash, invoice.amount_msat, decoder) == ("ab" * 32, 2_000_000, ALICE)


async def test_what_lnd_cannot_decode_is_refused_in_its_words(node: LndNode, lnd: FakeLnd) -> None:
    lnd.errors["DecodePayReq"] = (CODE.UNKNOWN, "checksum failed. Expected k6p6gt, got k6pqqq.")
    with pytest.raises(LndRefused, match="checksum failed"):
        await node.decode("lnsb1")


async def test_a_macaroon_that_may_not_decode_is_denied(node: LndNode, lnd: FakeLnd) -> None:
    lnd.errors["DecodePayReq"] = (CODE.UNKNOWN, "permission denied")
    with pytest.raises(LndDenied, match="bakemacaroon"):
        await node.decode("lnsb1")


async def test_a_broken_connection_is_tried_three_times_within_a_second(
    node: LndNode, lnd: FakeLnd, clock: FakeClock
) -> None:
    lnd.errors["DecodePayReq"] = (CODE.UNAVAILABLE, "Socket closed")
    clock.slept_s.clear()
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(LndUnavailable):
            await node.decode("lnsb1")
    assert lnd.calls.count("DecodePayReq") == 3
    assert clock.slept_s == pytest.approx([0.2, 0.6])


async def test_a_locked_wallet_is_not_asked_twice(node: LndNode, lnd: FakeLnd) -> None:
    lnd.errors["DecodePayReq"] = (CODE.UNKNOWN, "wallet locked, unlock it to enable full RPC access")
    with pytest.raises(LndUnavailable, match="lncli unlock"):
        await node.decode("lnsb1")
    assert lnd.calls.count("DecodePayReq") == 1


async def test_a_call_that_is_not_answered_ends_at_its_deadline(lnd: FakeLnd, clock: FakeClock, tmp_path: Path) -> None:
    node = LndNode(settings_for(lnd.port, tmp_path / "tls.cert", call_timeout_s=0.5), clock)
    await node.start()
    await clock.until_asleep()
    lnd.mute.clear()
    with pytest.raises(LndUnavailable, match="took too long"):
        await node.decode("lnsb1")
    assert lnd.calls.count("DecodePayReq") <= 1, "on a slow machine it may not have come so far"
    lnd.mute.set()
    await node.close()


async def test_a_decoding_by_two_nodes_is_not_believed(
    relayed: LndNode, relay: Relay, lnd: FakeLnd, mallory: FakeLnd
) -> None:
    lnd.mute.clear()
    decoding = asyncio.create_task(relayed.decode("lnsb1"))
    async with asyncio.timeout(PATIENCE_S):
        while "DecodePayReq" not in lnd.calls:
            await asyncio.sleep(0)
    relay.target_port = mallory.port
    relay.drop()
    with pytest.raises(LndUnavailable, match="changed"):
        await decoding
    lnd.mute.set()
