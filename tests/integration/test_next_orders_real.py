"""A request that goes on, against real nodes: the money of the first order is back before there is a second one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from holdpay._pb.v1 import holdpay_pb2 as pb
from tests.harness import enum_name, is_over
from tests.integration.market import Market, open_market
from tests.regtest.net import Net

pytestmark = pytest.mark.real

WAIT_S = 7
"""A little more than the two minutes of this provider's time, in which it takes no cancel."""


@pytest_asyncio.fixture
async def market(healthy_net: Net, tmp_path: Path) -> AsyncIterator[Market]:
    async with open_market(healthy_net, tmp_path) as opened:
        yield opened


async def test_no_number_in_the_first_country_and_a_code_in_the_second(market: Market) -> None:
    market.provider.knobs.queue.append(replace(market.provider.knobs.scenario, no_number=True, gives_up_after_s=1e9))
    strategy = pb.Strategy(number_within_s=WAIT_S, sms_within_s=60)
    order = await market.daemon.order(countries=["usa", "canada"], strategy=strategy)

    seen = []
    said_when_the_next_was_made = None
    async for update in market.daemon.updates(order.id):
        seen.append(update)
        if len(update.request.orders) == 2 and said_when_the_next_was_made is None:
            (payment,) = await market.payments(update.request.orders[0].payment_hash)
            said_when_the_next_was_made = payment["status"]
    done = await market.daemon.get(order.id)

    assert is_over(done)
    first, second = done.request.orders
    assert (enum_name(done, "end"), first.end, done.code.isdecimal()) == ("FULFILLED", pb.END_REFUNDED, True)
    assert first.moved_on == f"no number came in {WAIT_S} s"
    (paid,) = await market.payments(second.payment_hash)
    assert (paid["status"], paid["payment_preimage"]) == ("SUCCEEDED", second.preimage)
    assert said_when_the_next_was_made == "FAILED"
    assert first.closed_at_ms <= second.created_at_ms
    assert second.spent_msat == done.spent_msat
    assert [update.request.terminal for update in seen].count(True) == 1
