"""The benchmark itself: that it measures, and that its verdicts can be bad."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench import latency
from tests.bench.latency import Latency
from tests.bench.process import Costs
from tests.bench.report import Report
from tests.bench.rows import Figures
from tests.bench.throughput import Level, Throughput

LATENCY = Latency(orders=5, daemon_median_ms=6.0, daemon_p90_ms=9.0, bare_median_ms=2.0)
COSTS = Costs(
    idle_rss_mb=80.0,
    rss_after_orders_mb=90.0,
    idle_cpu_ms_per_s=2.0,
    orders=16,
    polls_per_order=18.0,
    cpu_ms_per_order=60.0,
    stall_ms=25.0,
    daemon_start_ms=500.0,
    cli_help_ms=500.0,
)
AT_ONE = Level(
    at_once=1,
    rounds=2,
    orders_of_a_round=20,
    bare_per_s=4.0,
    daemon_per_s=3.8,
    ratio=0.95,
    ratios=(0.94, 0.96),
    daemon_cpu_ms_per_order=7.0,
)


THROUGHPUT = Throughput("0.21.0", (AT_ONE,))


async def test_both_ways_to_a_payment_are_timed_from_the_reply_to_the_arrival() -> None:
    found = await latency.measure(Path(sys.executable), orders=4)
    assert found.orders == 4
    assert 0 < found.bare_median_ms < 5_000
    assert 0 < found.daemon_median_ms <= found.daemon_p90_ms < 5_000


def test_targets_are_met_at_their_bounds() -> None:
    report = Report({"latency": LATENCY, "memory": COSTS, "throughput": THROUGHPUT})
    assert report.is_met
    assert [row.target for row in report.rows() if row.is_met] == [
        "<= 4 ms",
        "<= 80 MB",
        "<= 25 ms",
        ">= 0.95",
        "<= 7 ms",
    ]


@pytest.mark.parametrize(
    "missed",
    [
        replace(LATENCY, daemon_median_ms=6.1),
        replace(COSTS, idle_rss_mb=80.1),
        replace(COSTS, stall_ms=25.1),
        replace(THROUGHPUT, levels=(replace(AT_ONE, ratio=0.94),)),
        replace(THROUGHPUT, levels=(replace(AT_ONE, daemon_cpu_ms_per_order=7.1),)),
    ],
)
def test_each_missed_target_is_said(missed: Figures) -> None:
    report = Report({"part": missed})
    assert not report.is_met
    assert [str(row).endswith("MISSED") for row in report.rows()].count(True) == 1


def test_the_json_has_the_figures_their_rows_and_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    Report({"latency": LATENCY, "throughput": THROUGHPUT}).write_json(path)
    written = json.loads(path.read_text())
    assert set(written) == {"machine", "latency", "throughput"}
    assert (written["latency"]["orders"], written["throughput"]["lnd_version"]) == (5, "0.21.0")
    assert written["throughput"]["levels"][0]["ratios"] == [0.94, 0.96]
    assert written["latency"]["rows"][-1]["target"] == "<= 4 ms"
    assert {"python", "cores", "load_1min"} <= written["machine"].keys()
