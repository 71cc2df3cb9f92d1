"""The benchmark itself: that it measures, and that its verdicts can be bad."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from tests.bench import latency
from tests.bench.latency import Latency
from tests.bench.process import Costs
from tests.bench.report import Report
from tests.bench.throughput import Level

LATENCY = Latency(orders=5, daemon_median_ms=7.0, daemon_p90_ms=9.0, bare_median_ms=2.0)
COSTS = Costs(
    idle_rss_mb=80.0,
    rss_after_orders_mb=90.0,
    idle_cpu_ms_per_s=2.0,
    orders=16,
    polls_per_order=18.0,
    cpu_ms_per_order=60.0,
    daemon_start_ms=500.0,
    cli_help_ms=500.0,
)
AT_ONE = Level(
    at_once=1,
    rounds=2,
    orders_of_a_round=20,
    bare_per_s=4.0,
    daemon_per_s=3.6,
    ratio=0.9,
    ratios=(0.89, 0.91),
    daemon_cpu_ms_per_order=20.0,
)


async def test_both_ways_to_a_payment_are_timed_from_the_reply_to_the_arrival() -> None:
    found = await latency.measure(Path(sys.executable), orders=4)
    assert found.orders == 4
    assert 0 < found.bare_median_ms < 5_000
    assert 0 < found.daemon_median_ms <= found.daemon_p90_ms < 5_000


def test_targets_are_met_at_their_bounds() -> None:
    at_64 = replace(AT_ONE, at_once=64, ratio=0.1)
    report = Report("0.21.0", LATENCY, COSTS, [AT_ONE, at_64])
    assert report.is_met
    assert [row.target for row in report.rows() if row.is_met] == ["<= 5 ms", "<= 80 MB", ">= 0.9"]


def test_each_missed_target_is_said() -> None:
    slow = replace(LATENCY, daemon_median_ms=7.1)
    for report in (
        Report("0.21.0", latency=slow),
        Report("0.21.0", process=replace(COSTS, idle_rss_mb=80.1)),
        Report("0.21.0", throughput=[replace(AT_ONE, ratio=0.89)]),
    ):
        assert not report.is_met
        assert [str(row).endswith("MISSED") for row in report.rows()].count(True) == 1


def test_the_json_has_the_figures_and_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    Report("0.18.5", latency=LATENCY, throughput=[AT_ONE]).write_json(path)
    written = json.loads(path.read_text())
    assert (written["lnd_version"], written["latency"]["orders"], written["process"]) == ("0.18.5", 5, None)
    assert written["throughput"][0]["ratios"] == [0.89, 0.91]
    assert {"python", "cores", "load_1min"} <= written["machine"].keys()
