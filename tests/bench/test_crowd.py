"""The part ``memory``, with a thousand open orders: what they cost the daemon is never over twice the goals."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.bench import crowded
from tests.bench.crowded import Crowded

ORDERS = 1_000


@pytest.fixture(scope="module")
def found() -> Crowded:
    return asyncio.run(crowded.measure(Path(sys.executable), ORDERS, watch_s=4))


def test_a_thousand_open_orders_cost_little(found: Crowded) -> None:
    assert found.open_orders == ORDERS
    assert 0 < found.steady.rss_mb <= 2 * crowded.MAX_RSS_MB
    assert 0 < found.steady.core_percent <= 2 * crowded.MAX_CORE_PERCENT


def test_a_thousand_open_orders_cost_little_while_lnd_is_away(found: Crowded) -> None:
    assert 0 < found.without_lnd.core_percent <= 2 * crowded.MAX_CORE_PERCENT_WITHOUT_LND
