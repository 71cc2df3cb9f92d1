"""Trust on first use: the first invoice's node is the one that is paid from then on, also after a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest_asyncio

from holdpay.core.payees import PayeeCheck
from holdpay.core.states import End
from holdpay.store.database import open_beside, transaction
from holdpay.store.payees import add_payee, remove_payee
from tests.fakes import PAYEE
from tests.unit.build import POLICY
from tests.unit.engine.world import World

OTHER = "02" + "dd" * 32


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(
        tmp_path / "holdpay.db",
        policy=replace(POLICY, payee_check=PayeeCheck.FIRST_USE, payee_pubkeys=frozenset({OTHER})),
    )
    made.start()
    yield made
    await made.close()


async def test_another_node_than_the_first_is_refused_and_nothing_is_sent(world: World) -> None:
    assert (await world.until_closed(world.request(1))).end is End.FULFILLED
    world.provider.payee = OTHER
    order = await world.until_closed(world.request(2))
    assert order.end is End.INVOICE_REJECTED
    assert f"its payee is {OTHER}" in order.reason
    assert len(world.lnd.sends) == 1


async def test_what_was_trusted_stays_so_over_a_restart(world: World) -> None:
    await world.until_closed(world.request(1))
    await world.crash()
    world.start()
    world.provider.payee = OTHER
    assert (await world.until_closed(world.request(2))).end is End.INVOICE_REJECTED
    world.provider.payee = PAYEE
    assert (await world.until_closed(world.request(3))).end is End.FULFILLED


async def test_of_two_orders_at_once_whose_nodes_differ_only_the_first_is_paid(world: World) -> None:
    first, second = world.request(1), world.request(2)
    decode = world.lnd.decode

    async def two_nodes(payreq: str):  # type: ignore[no-untyped-def]
        invoice, node = await decode(payreq)
        return replace(invoice, payee=PAYEE if payreq.endswith("1") else OTHER), node

    world.lnd.decode = two_nodes  # type: ignore[method-assign]
    ends = {(await world.until_closed(order_id)).end for order_id in (first, second)}
    assert ends == {End.FULFILLED, End.INVOICE_REJECTED}
    assert len(world.lnd.sends) == 1


async def test_a_person_who_adds_or_removes_a_node_is_heard_without_a_restart(world: World) -> None:
    await world.until_closed(world.request(1))
    world.provider.payee = OTHER
    with open_beside(world.path) as conn, transaction(conn):
        add_payee(conn, OTHER, world.clock.now_ms())
    assert (await world.until_closed(world.request(2))).end is End.FULFILLED
    with open_beside(world.path) as conn, transaction(conn):
        remove_payee(conn, OTHER)
    assert (await world.until_closed(world.request(3))).end is End.INVOICE_REJECTED
    with open_beside(world.path) as conn, transaction(conn):
        remove_payee(conn, PAYEE)
    assert (await world.until_closed(world.request(4))).end is End.FULFILLED
