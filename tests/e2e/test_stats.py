"""Statistics of the real daemon's orders, and the request that goes by them."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from holdpay._pb.v1 import holdpay_pb2 as pb
from tests.e2e.shop import FEE_MSAT, PRICE_MSAT, QUICK, Shop, open_shop
from tests.harness import is_over, run_cli

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path_factory.mktemp("stats"), extra_config=QUICK) as opened:
        yield opened


async def test_what_orders_brought_is_told_and_the_best_country_is_ordered_from_first(shop: Shop) -> None:
    for country, comes in (("usa", False), ("usa", False), ("canada", True), ("canada", True)):
        if not comes:
            shop.next_order(no_number=True, gives_up_after_s=50.0)
        order = await shop.daemon.order(countries=[country])
        await shop.daemon.until(order.id, is_over)

    told = await shop.daemon.stub.GetStats(pb.GetStatsRequest(by=pb.STATS_BY_COUNTRY))
    usa, canada = sorted(told.lines, key=lambda line: line.came)
    assert [(line.name, line.orders, line.came) for line in (usa, canada)] == [("USA", 2, 0), ("Canada", 2, 2)]
    assert (canada.spent_msat, canada.fee_msat) == (2 * (PRICE_MSAT + FEE_MSAT), 2 * FEE_MSAT)
    assert (usa.spent_msat, usa.HasField("median_code_s")) == (0, False)
    assert 0 < canada.median_number_s <= canada.median_code_s
    assert min(usa.locked_sat_hours, canada.locked_sat_hours) > 0

    exit_code, out, _ = await run_cli(shop.daemon.socket, "stats", "--by", "service", "--csv")
    ((name, orders, came, *_),) = list(csv.reader(io.StringIO(out)))[1:]
    assert exit_code == 0
    assert (name, orders, came) == ("OpenAI", "4", "2")

    best = await shop.daemon.order(countries=["best"])
    done = await shop.daemon.until(best.id, is_over)
    assert done.request.orders[0].country == "Canada"
    future = pb.GetStatsRequest(since_ms=done.request.created_at_ms + 1)
    assert not (await shop.daemon.stub.GetStats(future)).lines
