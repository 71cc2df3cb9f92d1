"""What the daemon costs when it does nothing, what an order costs it, and how soon it and the CLI are there."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from holdpay.sandbox.world import SandboxWorld
from tests.bench import client, endpoints
from tests.bench.daemon import MeasuredDaemon, clean_environment, running, write_config
from tests.bench.rows import Row, at_most, ms

PACE: Final = 20.0
"""The provider's clock and the polls, so that an order of 40 s takes two, with as many polls as in true life."""
AT_ONCE: Final = 8
MAX_IDLE_RSS_MB: Final = 80.0
MAX_STALL_MS: Final = 25.0
SETTLING_S: Final = 5
"""From taking orders to idle."""


@dataclass(frozen=True, slots=True)
class Costs:
    """``cpu_ms_per_order``: of an ordinary order, number after 12 s, code after 40; what idling costs is taken off.
    ``stall_ms``: the longest turn of the event loop meanwhile."""

    idle_rss_mb: float
    rss_after_orders_mb: float
    idle_cpu_ms_per_s: float
    orders: int
    polls_per_order: float
    cpu_ms_per_order: float
    stall_ms: float
    daemon_start_ms: float
    cli_help_ms: float

    def rows(self) -> Iterator[Row]:
        yield at_most("idle RSS", self.idle_rss_mb, MAX_IDLE_RSS_MB, "MB")
        yield Row(f"  after {self.orders} orders", f"{self.rss_after_orders_mb:.1f} MB")
        yield Row("idle CPU, a second", ms(self.idle_cpu_ms_per_s))
        yield Row(f"CPU of an ordinary order ({self.polls_per_order:.0f} polls)", ms(self.cpu_ms_per_order))
        yield at_most("longest stall of the event loop in ordinary work", self.stall_ms, MAX_STALL_MS, "ms")
        yield Row("holdpayd from start to its socket", f"{self.daemon_start_ms:.0f} ms")
        yield Row("holdpay --help", f"{self.cli_help_ms:.0f} ms", "about 120")


async def measure(python: Path, *, orders: int, idle_s: float, starts: int) -> Costs:
    """On the sandbox."""
    with tempfile.TemporaryDirectory(prefix="holdpay-bench-") as name:
        directory = Path(name)
        async with SandboxWorld(directory, pace=PACE) as world:
            config = write_config(directory, await endpoints.of_sandbox(world), pace=PACE)
            started_ms = [await _start_ms(MeasuredDaemon(config, python)) for _ in range(starts + 1)]
            async with running(config, python, is_probed=True) as daemon:
                await asyncio.sleep(SETTLING_S)
                idle = daemon.usage
                await asyncio.sleep(idle_s)
                idle_cpu_ms_per_s = (daemon.usage.cpu_ms - idle.cpu_ms) / idle_s
                await daemon.longest_stall_ms()
                before, began_s, polls = daemon.usage, time.monotonic(), world.provider.requests["/orderstatus"]
                await client.run(daemon.socket, orders, AT_ONCE)
                spent_ms = daemon.usage.cpu_ms - before.cpu_ms - idle_cpu_ms_per_s * (time.monotonic() - began_s)
                polls = world.provider.requests["/orderstatus"] - polls
                return Costs(
                    idle_rss_mb=idle.rss_mb,
                    rss_after_orders_mb=daemon.usage.rss_mb,
                    idle_cpu_ms_per_s=idle_cpu_ms_per_s,
                    orders=orders,
                    polls_per_order=polls / (orders + 1),
                    cpu_ms_per_order=spent_ms / (orders + 1),
                    stall_ms=await daemon.longest_stall_ms(),
                    daemon_start_ms=median(started_ms[1:]),
                    cli_help_ms=_help_ms(python, starts),
                )


async def _start_ms(daemon: MeasuredDaemon) -> float:
    seconds = await daemon.seconds_to_serve()
    await daemon.stop()
    return seconds * 1000


def _help_ms(python: Path, times: int) -> float:
    """Of the installed script, the first run aside: it compiles."""
    taken_ms = []
    for _ in range(times + 1):
        began_s = time.monotonic()
        command = (python.with_name("holdpay"), "--help")
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=clean_environment())
        taken_ms.append((time.monotonic() - began_s) * 1000)
    return median(taken_ms[1:])
