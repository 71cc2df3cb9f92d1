"""``look_for_route`` on the sandbox's lnd and on real ones: what is looked up is what a payment then meets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
import pytest_asyncio

from holdpay.core.lightning import FailureReason, PaymentStatus, Reported
from holdpay.core.routes import RouteLook, RouteQuery
from holdpay.lnd.node import LndNode
from tests.contract.adapter import Stream, lnd_node, payer
from tests.contract.client import PATIENCE_S, Client
from tests.contract.steps import quiet
from tests.contract.test_lightning_node import FINAL_CLTV_DELTA, VALUE_SAT, Order, order
from tests.contract.worlds import World

PEER_FEE_MSAT = 1_002
ROUTE_BLOCKS = FINAL_CLTV_DELTA + 3 + 80


@pytest_asyncio.fixture
async def node(world: World) -> AsyncIterator[LndNode]:
    async with lnd_node(world) as node:
        await payer(node)
        yield node


async def query(world: World) -> RouteQuery:
    return RouteQuery(
        payee=await world.invoices.pubkey(),
        amount_msat=VALUE_SAT * 1000,
        fee_limit_msat=PEER_FEE_MSAT,
        final_cltv_delta=FINAL_CLTV_DELTA,
        cltv_limit=ROUTE_BLOCKS,
    )


async def look(node: LndNode, wanted: RouteQuery) -> RouteLook:
    found = await node.look_for_route(wanted, await payer(node))
    assert (found.is_route_known, found.unknown) == (True, ())
    return found


async def sent(node: LndNode, bought: Order, **limits: Any) -> tuple[PaymentStatus, FailureReason, int]:
    """How a payment ends that fails: status, reason, attempts."""
    last = await Stream(node.send(replace(bought.spec(), **limits), await payer(node))).last()
    assert isinstance(last, Reported)
    return last.update.status, last.update.failure_reason, len(last.update.attempts)


async def test_a_route_within_the_limits_is_found_with_its_fee_and_its_blocks(world: World, node: LndNode) -> None:
    found = await look(node, await query(world))
    assert found.route is not None
    assert (found.route.fee_msat, found.route.lock_blocks, len(found.route.hops)) == (PEER_FEE_MSAT, ROUTE_BLOCKS, 2)
    assert found.route.hops[-1] == (await query(world)).payee
    assert found.payee is not None
    assert found.payee.is_in_graph
    assert found.payee.channel_count > 0


async def test_a_fee_limit_that_fails_a_payment_is_one_that_the_look_finds_too_low(world: World, node: LndNode) -> None:
    bought = await order(world)
    failed = await sent(node, bought, fee_limit_msat=PEER_FEE_MSAT - 1)
    assert failed == (PaymentStatus.FAILED, FailureReason.NO_ROUTE, 0)
    found = await look(node, replace(await query(world), fee_limit_msat=PEER_FEE_MSAT - 1))
    assert found.route is None
    assert found.dearer is not None
    assert found.dearer.fee_msat == PEER_FEE_MSAT


async def test_a_time_lock_that_fails_a_payment_is_one_that_the_look_finds_too_short(
    world: World, node: LndNode
) -> None:
    bought = await order(world)
    failed = await sent(node, bought, cltv_limit=ROUTE_BLOCKS - 1)
    assert failed == (PaymentStatus.FAILED, FailureReason.NO_ROUTE, 0)
    found = await look(node, replace(await query(world), cltv_limit=ROUTE_BLOCKS - 1))
    assert (found.route, found.dearer) == (None, None)
    assert found.longer is not None
    assert found.longer.lock_blocks == ROUTE_BLOCKS


async def test_what_the_channels_can_send_is_what_lnd_finds_a_route_for(
    world: World, node: LndNode, lnd: Client
) -> None:
    """To the peer itself, so that no fee is on top."""
    await quiet(lnd)
    found = await look(node, await query(world))
    assert found.route is not None
    assert found.outbound is not None
    assert found.outbound.offline == ()
    largest_msat, peer = found.outbound.largest_msat, found.route.hops[0]
    assert (await lnd.routes(pub_key=peer, amt_msat=largest_msat)).routes[0].total_fees_msat == 0
    with pytest.raises(grpc.aio.AioRpcError, match=r"insufficient local balance|unable to find a path"):
        # lnd knows the balance to the msat.
        await lnd.routes(pub_key=peer, amt_msat=largest_msat + 1_000)


async def test_a_peer_that_is_away_is_named_with_what_it_could_send(world: World, node: LndNode, lnd: Client) -> None:
    await quiet(lnd)
    before = await look(node, await query(world))
    assert before.route is not None
    assert before.outbound is not None
    await world.set_online("peer", online=False)
    # The route is asked for before the channels, and the peer may go in between.
    async with asyncio.timeout(PATIENCE_S):
        while (found := await look(node, await query(world))).route or not found.outbound or not found.outbound.offline:
            await asyncio.sleep(0.1)
    await world.set_online("peer", online=True)
    assert (found.outbound.largest_msat, found.outbound.total_msat) == (0, 0)
    (peer,) = found.outbound.offline
    assert (peer.pubkey, peer.alias) == (before.route.hops[0], "bob")
    assert peer.largest_msat == before.outbound.largest_msat


async def test_a_payee_that_nobody_knows_has_no_route_and_is_not_in_the_graph(world: World, node: LndNode) -> None:
    found = await look(
        node,
        replace(await query(world), payee="02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"),
    )
    assert (found.route, found.dearer, found.longer, found.avoided) == (None, None, None, None)
    assert found.payee is not None
    assert not found.payee.is_in_graph


async def test_what_lnd_avoids_for_a_while_is_told_apart_from_what_is_not_there(world: World, node: LndNode) -> None:
    bought = await order(world)
    await world.set_online("payee", online=False)
    failed = await sent(node, bought)
    await world.set_online("payee", online=True)
    assert failed == (PaymentStatus.FAILED, FailureReason.NO_ROUTE, 1)
    found = await look(node, await query(world))
    assert (found.route, found.dearer, found.longer) == (None, None, None)
    assert found.avoided is not None
    assert found.avoided.fee_msat == PEER_FEE_MSAT
