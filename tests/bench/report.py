"""The figures as a table for people and as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tests.bench.latency import Latency
from tests.bench.process import Costs
from tests.bench.throughput import Level

MAX_ADDED_MS: Final = 5.0
MAX_IDLE_RSS_MB: Final = 80.0
MIN_RATIO_AT_ONE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Row:
    """``is_met`` None: nothing is demanded, it is only told."""

    what: str
    value: str
    target: str = ""
    is_met: bool | None = None

    def __str__(self) -> str:
        verdict = {True: "met", False: "MISSED", None: ""}[self.is_met]
        return f"{self.what:<66}{self.value:>12}  {self.target:<10}{verdict}".rstrip()


@dataclass(slots=True)
class Report:
    """What was measured in this run; the rest is None."""

    lnd_version: str
    latency: Latency | None = None
    process: Costs | None = None
    throughput: list[Level] | None = None

    def rows(self) -> Iterator[Row]:
        if self.latency is not None:
            yield from _latency_rows(self.latency)
        if self.process is not None:
            yield from _process_rows(self.process)
        for level in self.throughput or ():
            yield from _throughput_rows(level, self.lnd_version)

    @property
    def is_met(self) -> bool:
        """Whether no target was missed."""
        return all(row.is_met is not False for row in self.rows())

    def write_json(self, path: Path) -> None:
        path.write_text(json.dumps({"machine": machine(), **asdict(self)}, indent=2) + "\n")


def machine() -> dict[str, object]:
    """What the figures depend on besides the code."""
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_1min": os.getloadavg()[0],
    }


def _latency_rows(latency: Latency) -> Iterator[Row]:
    added_ms = latency.added_ms
    yield Row("provider's reply to SendPaymentV2, median", _ms(latency.daemon_median_ms))
    yield Row("  90th percentile", _ms(latency.daemon_p90_ms))
    yield Row("  the bare loop, median", _ms(latency.bare_median_ms))
    yield Row("  added by the daemon", _ms(added_ms), f"<= {MAX_ADDED_MS:g} ms", added_ms <= MAX_ADDED_MS)


def _process_rows(costs: Costs) -> Iterator[Row]:
    rss_mb = costs.idle_rss_mb
    yield Row("idle RSS", f"{rss_mb:.1f} MB", f"<= {MAX_IDLE_RSS_MB:g} MB", rss_mb <= MAX_IDLE_RSS_MB)
    yield Row(f"  after {costs.orders} orders", f"{costs.rss_after_orders_mb:.1f} MB")
    yield Row("idle CPU, a second", _ms(costs.idle_cpu_ms_per_s))
    yield Row(f"CPU of an ordinary order ({costs.polls_per_order:.0f} polls)", _ms(costs.cpu_ms_per_order))
    yield Row("holdpayd from start to its socket", f"{costs.daemon_start_ms:.0f} ms")
    yield Row("holdpay --help", f"{costs.cli_help_ms:.0f} ms", "about 120")


def _throughput_rows(level: Level, lnd_version: str) -> Iterator[Row]:
    met = level.ratio >= MIN_RATIO_AT_ONE if level.at_once == 1 else None
    target = f">= {MIN_RATIO_AT_ONE:g}" if level.at_once == 1 else ""
    yield Row(f"lnd {lnd_version}, {level.at_once} at once: bare, orders a second", f"{level.bare_per_s:.1f}")
    yield Row("  through the daemon", f"{level.daemon_per_s:.1f}")
    spread = f"{min(level.ratios):.2f} to {max(level.ratios):.2f}"
    yield Row(f"  daemon / bare, median of {level.rounds} ({spread})", f"{level.ratio:.2f}", target, met)
    yield Row("  CPU of the daemon, an order", _ms(level.daemon_cpu_ms_per_order))


def _ms(value_ms: float) -> str:
    return f"{value_ms:.1f} ms"
