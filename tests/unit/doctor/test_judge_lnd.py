"""What the doctor thinks of lnd: each fault, told with its remedy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdpay.core.routes import Outbound, PayeeNode, Route, RouteLook
from holdpay.doctor.findings import Finding, Unseen, Verdict
from holdpay.doctor.judge_lnd import (
    COSTS,
    OLD_BLOCK_MS,
    STUCK_BLOCK_MS,
    Rights,
    judge_balance,
    judge_network,
    judge_node,
    judge_rights,
    judge_routes,
    judge_sync,
    judge_version,
)
from holdpay.lnd.exam import NodeSeen, Sendable
from holdpay.lnd.macaroon import PAYING, RIGHTS
from tests.unit.doctor.test_judge_machine import FAILED, NOW_MS, OK, WARNING, the_one, told

WANTED = tuple(right.rpartition("/")[2] for right in RIGHTS)
PAYEE, OTHER_PAYEE = "02" + "ab" * 32, "03" + "cd" * 32
NODE = NodeSeen(
    pubkey="02" + "11" * 32,
    network="mainnet",
    alias="alice",
    version="0.21.0-beta commit=v0.21.0-beta",
    too_old="",
    version_warning="",
    block_height=900_000,
    block_at_ms=NOW_MS - 60_000,
    synced_to_chain=True,
    peer_count=3,
)


# --- the macaroon -----------------------------------------------------------------------------------------------------


def test_a_macaroon_with_every_right_is_one_line_that_names_them_all() -> None:
    finding = the_one(judge_rights(Rights(wanted=WANTED, denied=()), PAYING))
    told(finding, OK, *WANTED)


@pytest.mark.parametrize("method", WANTED)
def test_each_right_that_is_missing_is_told_by_itself_with_what_it_costs(method: str) -> None:
    fine, missing = judge_rights(Rights(wanted=WANTED, denied=(method,)), PAYING)
    told(fine, OK)
    assert method not in fine.text
    told(
        missing,
        FAILED if method in PAYING else WARNING,
        f"does not allow {method}",
        COSTS[method],
        "`holdpayd bake-macaroon`",
    )


def test_a_macaroon_without_any_right_is_a_line_for_each() -> None:
    assert len(judge_rights(Rights(wanted=WANTED, denied=WANTED), PAYING)) == len(WANTED)


def test_what_a_macaroon_in_another_format_allows_is_not_claimed() -> None:
    fine, untold = judge_rights(Rights(wanted=WANTED, denied=(), untold=("SendPaymentV2", "TrackPayments")), PAYING)
    assert "SendPaymentV2" not in fine.text
    told(untold, WARNING, "SendPaymentV2 and TrackPayments")


def test_every_documented_right_has_its_cost() -> None:
    assert set(COSTS) == set(WANTED)


# --- who answers ------------------------------------------------------------------------------------------------------


def test_an_lnd_that_cannot_be_used_is_told_in_its_own_words() -> None:
    told(judge_node(Unseen("lnd's wallet is locked.", "Unlock it with `lncli unlock`.")), FAILED, "locked", "unlock")
    told(judge_node(NODE), OK, "alice (0211111111…)")
    told(judge_node(NODE, [NODE.pubkey]), OK)


def test_another_node_than_the_one_that_paid_open_orders_has_failed() -> None:
    told(judge_node(NODE, [NODE.pubkey, "03" + "2" * 64]), FAILED, "paid from 0322222222…:", "lnd.address")


def test_a_release_is_supported_warned_about_or_refused() -> None:
    told(judge_version(NODE), OK, "lnd 0.21.0-beta is")
    told(
        judge_version(replace(NODE, version_warning="It is newer. Look for a newer holdpay.")), WARNING, "It is newer."
    )
    too_old = replace(NODE, too_old="lnd 0.18.0 is too old. Upgrade lnd.")
    told(judge_version(too_old), FAILED, "lnd 0.18.0 is too old.", "Upgrade lnd.")
    assert judge_version(too_old).text == "lnd 0.18.0 is too old."


def test_a_node_of_another_network_cannot_pay() -> None:
    told(judge_network(NODE, None, is_providers=True), OK)
    told(judge_network(NODE, "mainnet", is_providers=True), OK)
    told(judge_network(NODE, "signet", is_providers=False), FAILED, "lnd.network says signet")
    test_node = replace(NODE, network="testnet")
    told(judge_network(test_node, None, is_providers=True), FAILED, "lnd is on testnet")
    told(judge_network(test_node, None, is_providers=False), OK)


@pytest.mark.parametrize(
    ("synced", "age_ms", "verdict", "words"),
    [
        (True, 0, OK, "0 min old"),
        (True, OLD_BLOCK_MS, OK, "60 min old"),
        (True, OLD_BLOCK_MS + 1, WARNING, "60 min old"),
        (True, STUCK_BLOCK_MS + 1, FAILED, "3 h old"),
        (False, 0, WARNING, "Run this again in a minute"),
        (False, OLD_BLOCK_MS + 1, FAILED, "not synced"),
    ],
)
def test_a_chain_that_stands_still_is_told(synced: bool, age_ms: int, verdict: Verdict, words: str) -> None:
    node = replace(NODE, synced_to_chain=synced, block_at_ms=NOW_MS - age_ms)
    told(judge_sync(node, NOW_MS), verdict, words, "900,000")


def test_where_blocks_are_made_on_demand_an_old_one_is_fine() -> None:
    told(judge_sync(replace(NODE, network="regtest", block_at_ms=0), NOW_MS), OK)


# --- the channels and the ways ----------------------------------------------------------------------------------------


def channels(sat: int, away_sat: int = 0) -> Sendable:
    return Sendable(total_msat=sat * 1000, away_msat=away_sat * 1000, channel_count=2, away_count=1 if away_sat else 0)


@pytest.mark.parametrize(
    ("seen", "verdict", "words"),
    [
        (channels(10_100), OK, "10,100"),
        (channels(10_099), WARNING, "less than payment.max_price_sat with its fee limit (10,100)"),
        (channels(0), FAILED, "nothing can be paid"),
        (channels(0, 20_000), FAILED, "--inactive_only"),
        (channels(5_000, 20_000), WARNING, "20,000 more in 1 whose peers are away"),
        (replace(channels(0), channel_count=0), FAILED, "no open channel"),
        (Unseen("lnd is slow.", "See its log."), FAILED, "lnd is slow."),
    ],
)
def test_a_balance_is_held_against_the_dearest_order(seen: Sendable | Unseen, verdict: Verdict, words: str) -> None:
    told(judge_balance(seen, 10_000, 100), verdict, words)


ROUTE = Route(fee_msat=12_345, lock_blocks=123, hops=("a", PAYEE), first_channel="1x1x1")
FOUND = RouteLook(
    is_route_known=True,
    route=ROUTE,
    outbound=Outbound(largest_msat=10**9, total_msat=10**9, channel_count=1),
    payee=PayeeNode(is_in_graph=True, alias="carol", channel_count=7),
)
LOST = replace(FOUND, route=None)


def judged(look: RouteLook) -> tuple[Finding, Finding]:
    payee, route = judge_routes({PAYEE: look}, 10_000, 100)
    return payee, route


def test_a_route_is_told_with_its_fee_beside_the_limit() -> None:
    payee, route = judged(FOUND)
    told(payee, OK, "carol (02abababab…)", "7 channels")
    told(route, OK, "10,000 sat to carol", "fee 12.345 sat (the limit is 100)", "123 blocks")
    told(judged(replace(FOUND, route=replace(ROUTE, parts=4)))[1], OK, "in 4 parts")


def test_a_payee_that_the_graph_does_not_have_has_failed() -> None:
    told(judged(replace(LOST, payee=PayeeNode(is_in_graph=False)))[0], FAILED, "does not have the provider's node")
    unknown = replace(FOUND, payee=None, unknown=("the macaroon does not allow GetNodeInfo",))
    told(judged(unknown)[0], WARNING, "the macaroon does not allow GetNodeInfo")


@pytest.mark.parametrize(
    ("look", "verdict", "words"),
    [
        (replace(LOST, dearer=ROUTE), FAILED, "costs 12.345 sat, and the fee limit is 100"),
        (replace(LOST, longer=replace(ROUTE, lock_blocks=2_000)), FAILED, "2,000 blocks"),
        (replace(LOST, avoided=ROUTE), WARNING, "Wait some minutes"),
        (LOST, FAILED, "whatever it costs"),
        (replace(LOST, outbound=Outbound(largest_msat=1, total_msat=1, channel_count=1)), WARNING, "See the balance"),
        (RouteLook(is_route_known=False, unknown=("lnd hung",)), WARNING, "not known (lnd hung)"),
    ],
)
def test_no_route_is_told_with_the_limit_that_is_in_the_way(look: RouteLook, verdict: Verdict, words: str) -> None:
    told(judged(look)[1], verdict, words)


def test_of_several_payees_one_that_can_be_reached_is_enough() -> None:
    found = judge_routes({PAYEE: FOUND, OTHER_PAYEE: LOST}, 10_000, 100)
    assert [finding.verdict for finding in found] == [OK, OK, OK, WARNING]
    found = judge_routes({PAYEE: LOST, OTHER_PAYEE: LOST}, 10_000, 100)
    assert [finding.verdict for finding in found] == [OK, OK, FAILED, FAILED]


def test_without_a_pinned_payee_there_is_nobody_to_look_for() -> None:
    told(the_one(judge_routes({}, 10_000, 100)), WARNING, "No node is known that may be paid")
