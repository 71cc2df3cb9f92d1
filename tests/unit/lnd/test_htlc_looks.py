"""Where an HTLC is, by the word of the node's channels: what counts as carrying it, and whose word is believed."""

from __future__ import annotations

import grpc
import pytest

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay.core.lightning import HtlcLook, OfferedHtlc
from holdpay.errors import LndDenied, LndUnavailable
from holdpay.lnd.convert import may_carry_out
from holdpay.lnd.node import LndNode
from holdpay.ports import NodeState
from tests.unit.lnd.fakes import ALICE, MALLORY, FakeLnd, Relay

HASH = "ab" * 32
OTHER = "cd" * 32

Pending = lnrpc.PendingChannelsResponse
COOPERATIVE = "ChanStatusCoopBroadcasted"


def htlc(payment_hash: str = HASH, *, incoming: bool = False) -> lnrpc.HTLC:
    return lnrpc.HTLC(incoming=incoming, hash_lock=bytes.fromhex(payment_hash), amount=2_000)


def open_channel(*htlcs: lnrpc.HTLC) -> lnrpc.Channel:
    return lnrpc.Channel(active=True, chan_id=1, pending_htlcs=htlcs)


def waiting(*flags: str) -> Pending:
    """Channels whose closing is not confirmed yet: they name no HTLC."""
    return Pending(
        waiting_close_channels=[
            Pending.WaitingCloseChannel(channel=Pending.PendingChannel(chan_status_flags=each)) for each in flags
        ]
    )


def forced(*directions: bool) -> Pending:
    """One channel that is being closed by force, with an HTLC for each direction (True: incoming)."""
    htlcs = [lnrpc.PendingHTLC(incoming=incoming) for incoming in directions]
    return Pending(pending_force_closing_channels=[Pending.ForceClosedChannel(pending_htlcs=htlcs)])


# --- what may carry it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pending", "may_carry"),
    [
        (Pending(), False),
        (waiting("ChanStatusBorked|ChanStatusCommitBroadcasted"), True),
        (waiting("ChanStatusLocalDataLoss"), True),
        (waiting("ChanStatusDefault"), True),
        (waiting(""), True),
        (waiting(COOPERATIVE), False),
        (waiting(f"{COOPERATIVE}|ChanStatusLocalCloseInitiator"), False),
        (waiting(f"{COOPERATIVE}|ChanStatusLocalCloseInitiator", "ChanStatusCommitBroadcasted"), True),
        (forced(), False),
        (forced(True), False),
        (forced(False), True),
        (forced(True, False), True),
    ],
    ids=[
        "nothing pending",
        "waiting, by commitment",
        "waiting, data lost",
        "waiting, no status",
        "waiting, status unknown",
        "waiting, by agreement",
        "waiting, by our agreement",
        "one by agreement, one by commitment",
        "forced, no HTLC",
        "forced, incoming only",
        "forced, outgoing",
        "forced, both",
    ],
)
def test_of_the_channels_being_closed_those_may_carry_it_that_can_have_an_htlc_that_we_offered(
    pending: Pending, may_carry: bool
) -> None:
    assert may_carry_out(pending) is may_carry


async def test_a_look_tells_what_the_open_channels_carry_and_what_those_being_closed_may(
    node: LndNode, lnd: FakeLnd
) -> None:
    assert await node.look_for_htlc(HASH, ALICE) == HtlcLook(500, True, is_in_channel=False, is_maybe_closing=False)
    lnd.channels = [open_channel(), open_channel(htlc(OTHER), htlc())]
    assert await node.look_for_htlc(HASH, ALICE) == HtlcLook(500, True, is_in_channel=True, is_maybe_closing=False)
    lnd.channels, lnd.pending = [open_channel(htlc(OTHER))], forced(False)
    assert await node.look_for_htlc(HASH, ALICE) == HtlcLook(500, True, is_in_channel=False, is_maybe_closing=True)


async def test_an_htlc_that_somebody_else_offers_with_the_same_hash_is_not_ours(node: LndNode, lnd: FakeLnd) -> None:
    lnd.channels = [open_channel(htlc(incoming=True))]
    assert not (await node.look_for_htlc(HASH, ALICE)).is_carried


async def test_a_channel_that_is_closed_between_the_two_lists_is_in_one_of_them(node: LndNode, lnd: FakeLnd) -> None:
    lnd.channels = [open_channel(htlc())]

    def closes() -> None:
        lnd.channels, lnd.pending = [], waiting("ChanStatusCommitBroadcasted")

    lnd.on_listed = closes
    assert (await node.look_for_htlc(HASH, ALICE)).is_carried


# --- as of when ---------------------------------------------------------------------------------------------------


async def test_the_height_is_that_of_the_look_and_not_of_an_earlier_one(node: LndNode, lnd: FakeLnd) -> None:
    lnd.info.block_height = 612
    assert (await node.look_for_htlc(HASH, ALICE)).block_height == 612


async def test_the_height_is_never_ahead_of_what_the_channels_say(node: LndNode, lnd: FakeLnd) -> None:
    def a_block_comes() -> None:
        lnd.info.block_height += 1

    lnd.on_listed = a_block_comes
    assert (await node.look_for_htlc(HASH, ALICE)).block_height == 500


async def test_an_lnd_that_is_behind_the_chain_says_so(node: LndNode, lnd: FakeLnd) -> None:
    lnd.info.synced_to_chain = False
    assert not (await node.look_for_htlc(HASH, ALICE)).is_synced
    lnd.info.synced_to_chain = True
    assert (await node.look_for_htlc(HASH, ALICE)).is_synced


# --- whose word ---------------------------------------------------------------------------------------------------


async def test_the_channels_of_another_node_than_the_payer_say_nothing(node: LndNode) -> None:
    with pytest.raises(LndUnavailable, match="Another node answers"):
        await node.look_for_htlc(HASH, MALLORY)


@pytest.mark.parametrize("method", ["ListChannels", "PendingChannels"])
async def test_what_another_node_answers_in_between_is_not_believed(
    relayed: LndNode, relay: Relay, lnd: FakeLnd, mallory: FakeLnd, method: str
) -> None:
    lnd.channels = [open_channel(htlc())] if method == "ListChannels" else []
    lnd.pending = forced(False)

    async def moves(arrived: str) -> None:
        if arrived == method:
            relay.target_port = mallory.port
            relay.drop()

    lnd.on_arrival = moves
    with pytest.raises(LndUnavailable, match="Another node answers"):
        await relayed.look_for_htlc(HASH, ALICE)
    assert method in mallory.calls


async def test_lists_of_two_connections_are_not_put_together(node: LndNode, lnd: FakeLnd) -> None:
    link = node._link
    first = link.current

    async def renewed(arrived: str) -> None:
        if arrived == "PendingChannels" and link.current is first:
            link._replace(first.certificates)
            await link.look()

    lnd.on_arrival = renewed
    with pytest.raises(LndUnavailable, match="the connection changed"):
        await node.look_for_htlc(HASH, ALICE)


@pytest.mark.parametrize("method", ["GetInfo", "ListChannels", "PendingChannels"])
async def test_a_list_that_the_macaroon_may_not_read_is_no_empty_list(node: LndNode, lnd: FakeLnd, method: str) -> None:
    lnd.errors[method] = (grpc.StatusCode.UNKNOWN, "permission denied")
    with pytest.raises(LndDenied, match="bakemacaroon"):
        await node.look_for_htlc(HASH, ALICE)
    if method != "GetInfo":
        assert node.status.state is NodeState.READY, "nothing is paid with that right"


# --- all of them at once ------------------------------------------------------------------------------------------


async def test_one_call_tells_of_each_channel_its_peer_and_what_we_offer_on_it(node: LndNode, lnd: FakeLnd) -> None:
    offered = lnrpc.HTLC(hash_lock=bytes.fromhex(HASH), expiration_height=663)
    lnd.channels = [
        lnrpc.Channel(
            active=False,
            chan_id=7,
            remote_pubkey="02b0",
            peer_alias="bob",
            pending_htlcs=[offered, htlc(OTHER, incoming=True)],
        ),
        open_channel(),
    ]
    before = lnd.calls.count("ListChannels")
    first, second = await node.channels(ALICE)
    assert (first.chan_id, first.is_active, first.peer_pubkey, first.peer_alias) == (7, False, "02b0", "bob")
    assert first.offered == (OfferedHtlc(HASH, 663),)
    assert (second.is_active, second.offered) == (True, ())
    assert lnd.calls.count("ListChannels") == before + 1


async def test_the_list_of_another_node_than_the_payer_is_not_believed(node: LndNode) -> None:
    with pytest.raises(LndUnavailable, match="Another node answers"):
        await node.channels(MALLORY)


async def test_a_list_that_another_node_answers_in_between_is_not_believed(
    relayed: LndNode, relay: Relay, lnd: FakeLnd, mallory: FakeLnd
) -> None:
    async def moves(arrived: str) -> None:
        if arrived == "ListChannels":
            relay.target_port = mallory.port
            relay.drop()

    lnd.on_arrival = moves
    with pytest.raises(LndUnavailable, match="Another node answers"):
        await relayed.channels(ALICE)
