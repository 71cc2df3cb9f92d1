"""The benchmark itself: that it measures, and that its verdicts can be bad."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.bench import figures
from tests.bench.latency import Latency
from tests.bench.process import Costs
from tests.bench.report import Report
from tests.bench.rows import Figures
from tests.bench.throughput import Level, Throughput

LATENCY = Latency(lnd_version="0.21.0", orders=5, daemon_median_ms=6.0, daemon_p90_ms=9.0, bare_median_ms=2.0)
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
    bare_cpu_ms_per_order=2.0,
    machine_ms_per_bare_order=50.0,
    machine_ms_per_order=60.0,
)


THROUGHPUT = Throughput("0.21.0", (AT_ONE,))


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


def test_what_is_told_are_the_figures_their_rows_and_the_machine() -> None:
    told = json.loads(json.dumps(Report({"latency": LATENCY, "throughput": THROUGHPUT}).told()))
    assert set(told) == {"latency", "throughput"}
    assert (told["latency"]["orders"], told["throughput"]["lnd_version"]) == (5, "0.21.0")
    assert told["throughput"]["levels"][0]["ratios"] == [0.94, 0.96]
    assert told["latency"]["rows"][-1]["target"] == "<= 4 ms"
    assert {"python", "cores", "load_1min"} <= told["latency"]["machine"].keys()


def test_docs_and_readme_have_the_figures_that_were_measured_and_no_others() -> None:
    measured = figures.read()
    assert figures.PAGE.read_text() == figures.page(measured)
    text = figures.README.read_text()
    assert figures.readme(text, measured) == text
    assert text.count(figures.BEGIN) == 1


def test_the_plot_is_of_the_lags_that_were_measured() -> None:
    drawn = figures.PLOT.read_text()
    for contender in {lag["contender"] for lag in figures.read()["lag"]["lags"]}:
        assert contender in drawn


def test_a_row_below_another_has_its_whole_name_on_the_page() -> None:
    told = Report({"memory": COSTS, "latency": LATENCY}).told()
    page = figures.page(told)
    assert "| lnd 0.21.0: added by the daemon before SendPaymentV2 | 4.0 ms | <= 4 ms | met |" in page
    slow = Report({"latency": replace(LATENCY, daemon_median_ms=6.1)}).told()
    assert "| 4.1 ms | <= 4 ms | **missed** |" in figures.readme(f"a {figures.BEGIN}{figures.END} b", slow)
