"""The benchmark of the way to a payment, on a real lnd: that both ways are timed."""

import sys
from pathlib import Path

import pytest

from tests.bench import latency
from tests.regtest.fixtures import lnd_version
from tests.regtest.net import Net

pytestmark = pytest.mark.real


async def test_both_ways_to_a_payment_are_timed_from_the_reply_to_the_payment(healthy_net: Net, tmp_path: Path) -> None:
    found = await latency.measure_on(healthy_net, lnd_version(), tmp_path, Path(sys.executable), orders=4)
    assert found.orders == 4
    assert found.bare_median_ms > 0
    assert 0 < found.daemon_median_ms <= found.daemon_p90_ms
