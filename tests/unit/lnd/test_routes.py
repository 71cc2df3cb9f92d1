"""What LND knows of a way to a payee: which questions it is asked, and what becomes of each answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import grpc
import pytest

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay.core.routes import OfflinePeer, Outbound, PayeeNode, Route, RouteQuery
from holdpay.lnd import routes
from holdpay.lnd.convert import sendable_msat
from holdpay.lnd.node import LndNode
from tests.unit.lnd.fakes import ALICE, MALLORY, FakeLnd

PAYEE, BOB, DAVE = "02" + "cc" * 32, "02" + "bb" * 32, "02" + "dd" * 32
QUERY = RouteQuery(payee=PAYEE, amount_msat=2_000_000, fee_limit_msat=15_000, final_cltv_delta=40, cltv_limit=475)


def channel(peer: str, local_sat: int, *, active: bool = True, alias: str = "") -> lnrpc.Channel:
    kept = lnrpc.ChannelConstraints(chan_reserve_sat=1_000)
    return lnrpc.Channel(
        active=active, remote_pubkey=peer, local_balance=local_sat, local_constraints=kept, peer_alias=alias
    )


def way(fee_msat: int = 37_000, lock_blocks: int = 163) -> lnrpc.Route:
    hops = [lnrpc.Hop(pub_key=BOB, chan_id=812 << 40 | 1 << 16), lnrpc.Hop(pub_key=PAYEE, chan_id=2)]
    return lnrpc.Route(total_fees_msat=fee_msat, total_time_lock=500 + lock_blocks, hops=hops)


FOUND = Route(fee_msat=37_000, lock_blocks=163, hops=(BOB, PAYEE), first_channel="812x1x0")


def dear(request: lnrpc.QueryRoutesRequest) -> bool:
    return request.fee_limit.fixed_msat > 37_000


def is_long(request: lnrpc.QueryRoutesRequest) -> bool:
    return dear(request) and not request.cltv_limit


def is_bare(request: lnrpc.QueryRoutesRequest) -> bool:
    return not request.use_mission_control


# --- routes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("is_there", "name", "questions"),
    [
        (lambda request: True, "route", 1),
        (dear, "dearer", 2),
        (is_long, "longer", 3),
        (is_bare, "avoided", 4),
    ],
)
async def test_the_first_limit_that_has_to_give_way_for_a_route_is_told(
    node: LndNode, lnd: FakeLnd, is_there: Callable[[lnrpc.QueryRoutesRequest], bool], name: str, questions: int
) -> None:
    lnd.routes = lambda request: way() if is_there(request) else None
    look = await node.look_for_route(QUERY, ALICE)
    names = ("route", "dearer", "longer", "avoided")
    assert look.is_route_known
    assert {each: getattr(look, each) for each in names if getattr(look, each)} == {name: FOUND}
    assert len(lnd.queries) == questions


async def test_a_payment_would_ask_for_the_same(node: LndNode, lnd: FakeLnd) -> None:
    lnd.routes = lambda request: way()
    await node.look_for_route(QUERY, ALICE)
    (asked,) = lnd.queries
    assert (asked.pub_key, asked.amt_msat, asked.final_cltv_delta, asked.cltv_limit) == (PAYEE, 2_000_000, 43, 475)
    assert asked.fee_limit == lnrpc.FeeLimit(fixed_msat=15_000)
    assert asked.use_mission_control


@pytest.mark.parametrize(("limit_msat", "asked_msat"), [(0, 0), (None, 2**63 - 1)])
async def test_a_limit_of_nothing_is_no_missing_limit(
    node: LndNode, lnd: FakeLnd, limit_msat: int | None, asked_msat: int
) -> None:
    query = RouteQuery(payee=PAYEE, amount_msat=1, fee_limit_msat=limit_msat, final_cltv_delta=40, cltv_limit=475)
    await node.look_for_route(query, ALICE)
    assert lnd.queries[0].fee_limit.WhichOneof("limit") == "fixed_msat"
    assert lnd.queries[0].fee_limit.fixed_msat == asked_msat


async def test_an_amount_that_fits_through_no_channel_is_looked_for_in_parts(node: LndNode, lnd: FakeLnd) -> None:
    lnd.routes = lambda request: way(1_000) if request.amt_msat <= 500_000 else None
    query = RouteQuery(
        payee=PAYEE, amount_msat=2_000_000, fee_limit_msat=15_000, final_cltv_delta=40, cltv_limit=475, max_parts=4
    )
    look = await node.look_for_route(query, ALICE)
    assert look.route is not None
    assert (look.route.parts, look.route.fee_msat) == (4, 4_000)
    assert [(each.amt_msat, each.fee_limit.fixed_msat) for each in lnd.queries] == [
        (2_000_000, 15_000),
        (1_000_000, 7_500),
        (500_000, 3_750),
    ]


@pytest.mark.parametrize("is_there", [lambda request: False, is_long])
async def test_before_an_order_what_failed_lately_is_left_aside(
    node: LndNode, lnd: FakeLnd, is_there: Callable[[lnrpc.QueryRoutesRequest], bool]
) -> None:
    lnd.routes = lambda request: way() if is_there(request) else None
    look = await node.look_for_route(replace(QUERY, avoids_failed=False), ALICE)
    assert [query.use_mission_control for query in lnd.queries] == [False, False, False]
    assert look.avoided is None


async def test_where_a_route_is_enough_nothing_else_is_asked(node: LndNode, lnd: FakeLnd) -> None:
    lnd.channels = [channel(BOB, 9_000)]
    query = replace(QUERY, is_route_enough=True)
    lnd.routes = lambda request: way()
    found = await node.look_for_route(query, ALICE)
    assert (found.is_route_known, found.route, found.outbound, len(lnd.queries)) == (True, FOUND, None, 1)
    lnd.routes = lambda request: None
    missed = await node.look_for_route(query, ALICE)
    assert (missed.is_route_known, missed.route) == (True, None)
    assert missed.outbound is not None
    assert len(lnd.queries) == 2 + 4, "within the limits, and then all that there is to ask"


async def test_parts_are_never_enough_since_nobody_knows_whether_they_fit_together(node: LndNode, lnd: FakeLnd) -> None:
    lnd.routes = lambda request: way() if request.amt_msat <= 1_000_000 else None
    look = await node.look_for_route(replace(QUERY, is_route_enough=True, max_parts=2), ALICE)
    assert look.route is not None
    assert look.outbound is not None


async def test_no_route_at_all_is_known_too(node: LndNode, lnd: FakeLnd) -> None:
    look = await node.look_for_route(QUERY, ALICE)
    assert (look.is_route_known, look.route, look.dearer, look.longer, look.avoided) == (True, None, None, None, None)
    assert look.unknown == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("permission denied", "the macaroon does not allow QueryRoutes"),
        ("cltv limit 475 should be greater than 600", "lnd refused QueryRoutes (cltv limit 475 should be"),
    ],
)
async def test_what_lnd_does_not_answer_is_not_known_and_the_rest_is(
    node: LndNode, lnd: FakeLnd, text: str, why: str
) -> None:
    lnd.errors["QueryRoutes"] = (grpc.StatusCode.UNKNOWN, text)
    lnd.aliases = {PAYEE: "sms"}
    look = await node.look_for_route(QUERY, ALICE)
    assert not look.is_route_known
    assert look.unknown[0].startswith(why)
    assert look.payee == PayeeNode(is_in_graph=True, alias="sms", channel_count=3)
    assert look.outbound == Outbound(largest_msat=0, total_msat=0, channel_count=0)


async def test_why_lnd_refused_reads_on_within_a_sentence(node: LndNode, lnd: FakeLnd) -> None:
    lnd.errors["QueryRoutes"] = (grpc.StatusCode.UNKNOWN, "the amount is too large.")
    assert (await node.look_for_route(QUERY, ALICE)).unknown == ("lnd refused QueryRoutes (the amount is too large)",)


async def test_an_lnd_that_is_locked_meanwhile_ends_the_look_and_says_so(node: LndNode, lnd: FakeLnd) -> None:
    lnd.errors["QueryRoutes"] = (grpc.StatusCode.UNKNOWN, "wallet locked, unlock it to enable full RPC access")
    lnd.channels = [channel(BOB, 9_000)]
    look = await node.look_for_route(QUERY, ALICE)
    assert (look.is_route_known, len(look.unknown)) == (False, 1)
    assert "locked" in look.unknown[0]
    assert not look.unknown[0].endswith(".")
    assert look.outbound is not None, "what was said before counts"


async def test_an_lnd_that_is_short_of_balance_has_no_route(node: LndNode, lnd: FakeLnd) -> None:
    lnd.errors["QueryRoutes"] = (grpc.StatusCode.UNKNOWN, "insufficient local balance")
    assert (await node.look_for_route(QUERY, ALICE)).is_route_known


async def test_an_lnd_that_does_not_answer_in_time_holds_nobody_up(
    node: LndNode, lnd: FakeLnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(method: str) -> None:
        if method == "QueryRoutes":
            lnd.mute.clear()

    lnd.on_arrival, lnd.aliases = hangs, {PAYEE: "sms"}
    monkeypatch.setattr(routes, "LOOK_S", 0.3)
    look = await node.look_for_route(QUERY, ALICE)
    lnd.mute.set()
    assert (look.is_route_known, look.unknown) == (False, ("lnd did not say all within 0.3 s",))
    assert look.payee is not None


async def test_what_another_node_knows_is_not_told(node: LndNode, lnd: FakeLnd) -> None:
    lnd.routes = lambda request: way()
    look = await node.look_for_route(QUERY, MALLORY)
    assert (look.is_route_known, look.route, look.outbound) == (False, None, None)
    assert "another node" in look.unknown[0]
    assert lnd.queries == []


# --- channels and nodes ---------------------------------------------------------------------------------------------


async def test_what_can_be_sent_now_is_told_apart_from_what_waits_for_a_peer(node: LndNode, lnd: FakeLnd) -> None:
    lnd.channels = [
        channel(BOB, 3_000),
        channel(BOB, 6_000),
        channel(BOB, 9_000, active=False),
        channel(DAVE, 51_000, active=False, alias="dave"),
        channel(DAVE, 500, active=False, alias="dave"),
        channel(MALLORY.pubkey, 901_000, active=False, alias="unable to lookup peer alias: alias for node not found"),
    ]
    lnd.errors["GetNodeInfo"] = (grpc.StatusCode.UNKNOWN, "permission denied")
    look = await node.look_for_route(QUERY, ALICE)
    dave = OfflinePeer(pubkey=DAVE, alias="dave", largest_msat=50_000_000, total_msat=50_000_000)
    mallory = OfflinePeer(pubkey=MALLORY.pubkey, alias="", largest_msat=900_000_000, total_msat=900_000_000)
    assert look.outbound == Outbound(
        largest_msat=5_000_000, total_msat=7_000_000, channel_count=6, offline=(mallory, dave)
    )
    assert dave.name == f"dave ({DAVE[:10]}…)"
    assert mallory.name == f"{MALLORY.pubkey[:10]}…"


async def test_a_payee_that_the_graph_lacks_is_told(node: LndNode, lnd: FakeLnd) -> None:
    look = await node.look_for_route(QUERY, ALICE)
    assert look.payee == PayeeNode(is_in_graph=False)


@pytest.mark.parametrize(
    ("changes", "sat"),
    [
        ({}, 9_000),
        # 2 × 253 sat a kilo × (1,116 + 8 + 344) = 742, of which 284 are paid already.
        ({"initiator": True, "fee_per_kw": 253, "commit_weight": 1_116}, 9_000 + 284 - 742),
        ({"local_balance": 999}, 0),
    ],
)
def test_who_opened_a_channel_keeps_twice_the_fee_of_two_more_htlcs(changes: dict[str, int], sat: int) -> None:
    made = lnrpc.Channel(local_balance=10_000, local_constraints=lnrpc.ChannelConstraints(chan_reserve_sat=1_000))
    made.MergeFrom(lnrpc.Channel(**changes))  # type: ignore[arg-type]
    assert sendable_msat(made) == sat * 1_000
