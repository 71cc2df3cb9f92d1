"""The sandbox LND's path finding: limits, shards, balances and mission control."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdpay.sandbox.lnd_model import FailureCode, FailureReason
from holdpay.sandbox.lnd_routing import Graph, MissionControl, NoRoute, OurChannel, RouteQuery, find_route, go_time

GRAPH = Graph(
    own_pubkey="us",
    peer_pubkey="peer",
    payee_pubkey="payee",
    last_chan_id=9,
    channels=[OurChannel(1, 1_000_000_000), OurChannel(2, 3_000_000_000)],
    height=500,
)
QUERY = RouteQuery("payee", 2_000_000, fee_limit_msat=1_002, final_cltv_delta=83, cltv_limit=163)


def never(_pair: tuple[str, str]) -> bool:
    return False


def reason(query: RouteQuery, graph: Graph = GRAPH) -> FailureReason:
    with pytest.raises(NoRoute) as error:
        find_route(graph, query, never)
    return error.value.reason


def test_a_route_pays_the_peer_and_locks_for_its_delta_too() -> None:
    route = find_route(GRAPH, QUERY, never)

    assert (route.total_amt_msat, route.total_fees_msat, route.total_time_lock_height) == (2_001_002, 1_002, 663)
    assert [hop.chan_id for hop in route.hops] == [2, 9], "over the channel with the most bandwidth"


@pytest.mark.parametrize(
    "change",
    [
        {"fee_limit_msat": 1_001},
        {"cltv_limit": 162},
        {"payee_pubkey": "stranger"},
        {"last_hop_pubkey": "stranger"},
        {"amount_msat": 3_500_000_000, "fee_limit_msat": 10**9},
    ],
)
def test_what_does_not_fit_has_no_route(change: dict[str, object]) -> None:
    assert reason(replace(QUERY, **change)) is FailureReason.NO_ROUTE  # type: ignore[arg-type]


def test_more_than_all_channels_have_is_insufficient_balance() -> None:
    assert reason(replace(QUERY, amount_msat=4_000_000_001)) is FailureReason.INSUFFICIENT_BALANCE
    assert (
        reason(replace(QUERY, amount_msat=1_000_000_001, outgoing_chan_ids=(1,))) is FailureReason.INSUFFICIENT_BALANCE
    )


def test_an_amount_that_fits_no_channel_is_halved_while_shards_are_left() -> None:
    large = replace(QUERY, amount_msat=3_500_000_000, fee_limit_msat=10**9)

    assert find_route(GRAPH, replace(large, further_shards=1), never).receiver_amt_msat == 1_750_000_000
    assert reason(large) is FailureReason.NO_ROUTE


def test_mission_control_avoids_the_pair_after_the_node_that_failed() -> None:
    mission_control = MissionControl(avoid_s=180)
    route = find_route(GRAPH, QUERY, never)
    outcome = mission_control.failed(route, "us", FailureCode.UNKNOWN_NEXT_PEER, 1, now_s=1000.0)

    assert outcome is None
    assert mission_control.avoids(("peer", "payee"), 1179.0)
    assert not mission_control.avoids(("peer", "payee"), 1180.0)
    assert not mission_control.avoids(("us", "peer"), 1001.0)


def test_a_success_makes_mission_control_forget() -> None:
    mission_control = MissionControl(avoid_s=180)
    route = find_route(GRAPH, QUERY, never)
    mission_control.failed(route, "us", FailureCode.TEMPORARY_CHANNEL_FAILURE, 1, now_s=1000.0)
    mission_control.succeeded(route, "us")

    assert not mission_control.avoids(("peer", "payee"), 1001.0)


@pytest.mark.parametrize(
    ("code", "source_index", "expected"),
    [
        (FailureCode.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS, 2, FailureReason.INCORRECT_PAYMENT_DETAILS),
        (FailureCode.TEMPORARY_NODE_FAILURE, 2, FailureReason.ERROR),
        (FailureCode.MPP_TIMEOUT, 2, None),
        (FailureCode.TEMPORARY_CHANNEL_FAILURE, 0, None),
    ],
)
def test_only_the_payees_word_ends_a_payment(
    code: FailureCode, source_index: int, expected: FailureReason | None
) -> None:
    route = find_route(GRAPH, QUERY, never)

    assert MissionControl().failed(route, "us", code, source_index, now_s=0.0) is expected


def test_times_are_printed_as_go_does() -> None:
    assert go_time(1795323541) == "2026-11-22 04:59:01 +0000 UTC"
