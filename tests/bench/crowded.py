"""What 10,000 open orders cost the daemon while nothing comes, with lnd and while lnd is away."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.crowd import crowd
from tests.bench.daemon import MeasuredDaemon
from tests.bench.process import MAX_STALL_MS, Costs
from tests.bench.rows import Row, at_most

MAX_RSS_MB: Final = 300.0
MAX_CORE_PERCENT: Final = 15.0
MAX_CORE_PERCENT_WITHOUT_LND: Final = 10.0
TAKEN_OVER_PER_S: Final = 200.0
"""After its start the daemon is busy with them for so long, on a busy machine."""
READY_WITHIN_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Over a while in which nothing came. ``stall_ms``: the longest turn of the event loop."""

    rss_mb: float
    core_percent: float
    stall_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowded:
    """``ready_s``: from the start of the process until it answers and has lnd."""

    open_orders: int
    ready_s: float
    steady: Load
    without_lnd: Load
    again: Load
    """From lnd's coming back on."""

    def rows(self) -> Iterator[Row]:
        yield Row(f"{self.open_orders:,} open orders: from start until it answers and has lnd", f"{self.ready_s:.1f} s")
        yield at_most("  RSS", self.steady.rss_mb, MAX_RSS_MB, "MB")
        yield at_most("  share of a core", self.steady.core_percent, MAX_CORE_PERCENT, "%")
        yield at_most("  longest stall of the event loop", self.steady.stall_ms, MAX_STALL_MS, "ms")
        yield at_most(
            "  with lnd down: share of a core", self.without_lnd.core_percent, MAX_CORE_PERCENT_WITHOUT_LND, "%"
        )
        yield Row("  with lnd down: longest stall of the event loop", f"{self.without_lnd.stall_ms:.1f} ms")
        yield Row("  lnd is back: RSS", f"{self.again.rss_mb:.1f} MB")
        yield Row("  lnd is back: longest stall of the event loop", f"{self.again.stall_ms:.1f} ms")


@dataclass(frozen=True, slots=True)
class Memory:
    """All of this part: a daemon with nothing or with ordinary work to do, and one with a crowd."""

    costs: Costs
    crowded: Crowded

    def rows(self) -> Iterator[Row]:
        yield from self.costs.rows()
        yield from self.crowded.rows()


async def measure(python: Path, open_orders: int, watch_s: float) -> Crowded:
    """Over real gRPC and HTTP, with lnd and the provider in a process of their own."""
    with tempfile.TemporaryDirectory(prefix="holdpay-bench-") as name:
        async with crowd(Path(name), open_orders) as others:
            daemon = MeasuredDaemon(others.config, python, is_probed=True)
            began_s = time.monotonic()
            try:
                await daemon.start_patiently(READY_WITHIN_S)
                ready_s = time.monotonic() - began_s
                # Until all of them are taken over and asked about in turn.
                await asyncio.sleep(max(watch_s, open_orders / TAKEN_OVER_PER_S))
                steady = await _load(daemon, watch_s)
                await others.tell("lnd down")
                await asyncio.sleep(watch_s / 2)
                without_lnd = await _load(daemon, watch_s)
                await others.tell("lnd up")
                again = await _load(daemon, watch_s)
            finally:
                await daemon.stop()
    return Crowded(open_orders=open_orders, ready_s=ready_s, steady=steady, without_lnd=without_lnd, again=again)


async def _load(daemon: MeasuredDaemon, watch_s: float) -> Load:
    await daemon.longest_stall_ms()
    before, began_s = daemon.usage, time.monotonic()
    await asyncio.sleep(watch_s)
    usage, took_s = daemon.usage, time.monotonic() - began_s
    return Load(
        rss_mb=usage.rss_mb,
        core_percent=(usage.cpu_ms - before.cpu_ms) / took_s / 10,
        stall_ms=await daemon.longest_stall_ms(),
    )
