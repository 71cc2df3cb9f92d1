"""Orders a second through the daemon, and of the bare loop, against the same real lnd, in turns.

One net, one provider, one daemon. The provider sells carol's real hold invoices and settles as soon as it holds: what
is left is the cost of an order. Each side has a process of its own; a round of the one follows a round of the other, so
that whatever slows the machine, or lnd as its database grows, slows both.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from holdpay.sandbox.world import Endpoints
from tests.bench import bare, client, endpoints
from tests.bench.daemon import MeasuredDaemon, machine_cpu_ms, running, write_config
from tests.bench.provider import selling
from tests.bench.rows import Row, at_least, at_most, ms
from tests.regtest.net import Net

ORDERS_OF_A_ROUND: Final = {1: 20, 16: 96, 64: 192}
"""By how many are made at once: each round takes four or five seconds."""

MIN_RATIOS: Final = {1: 0.95, 16: 0.85, 64: 0.85}
"""Likewise."""
MAX_CPU_MS_PER_ORDER: Final = 7.0


@dataclass(frozen=True, slots=True)
class Level:
    """Medians over the rounds; ``ratios`` has daemon ÷ bare of each pair of rounds."""

    at_once: int
    rounds: int
    orders_of_a_round: int
    bare_per_s: float
    daemon_per_s: float
    ratio: float
    ratios: tuple[float, ...]
    daemon_cpu_ms_per_order: float
    bare_cpu_ms_per_order: float
    """Of the bare loop's process, beside that of the daemon's."""
    machine_ms_per_bare_order: float
    machine_ms_per_order: float
    """CPU of the whole machine, lnds and all: what an order costs when every core is busy."""

    def rows(self, lnd_version: str) -> Iterator[Row]:
        yield Row(f"lnd {lnd_version}, {self.at_once} at once: bare, orders a second", f"{self.bare_per_s:.1f}")
        yield Row("  through the daemon", f"{self.daemon_per_s:.1f}")
        spread = f"{min(self.ratios):.2f} to {max(self.ratios):.2f}"
        yield at_least(f"  daemon / bare, median of {self.rounds} ({spread})", self.ratio, MIN_RATIOS[self.at_once])
        yield at_most("  CPU of the daemon, an order", self.daemon_cpu_ms_per_order, MAX_CPU_MS_PER_ORDER, "ms")
        yield Row("  CPU of the bare loop, an order", ms(self.bare_cpu_ms_per_order))
        yield Row("  CPU of the whole machine, an order, bare", ms(self.machine_ms_per_bare_order))
        yield Row("  CPU of the whole machine, an order, through the daemon", ms(self.machine_ms_per_order))


@dataclass(frozen=True, slots=True)
class Throughput:
    """One level for each number of orders at once."""

    lnd_version: str
    levels: tuple[Level, ...]

    def rows(self) -> Iterator[Row]:
        for level in self.levels:
            yield from level.rows(self.lnd_version)


async def measure(lnd_version: str, python: Path, rounds: int) -> Throughput:
    """Starts a net, and measures at each number of orders at once. Raises Unavailable, StartFailed, LoopFailed."""
    with tempfile.TemporaryDirectory(prefix="holdpay-bench-") as name:
        directory = Path(name)
        net = await Net.start(lnd_version, directory=directory)
        try:
            async with selling(net["carol"]) as provider_url:
                given = await endpoints.of_net(net, directory, provider_url)
                async with running(write_config(directory, given), python) as daemon:
                    levels = [await _level(daemon, given, at_once, rounds) for at_once in ORDERS_OF_A_ROUND]
                    return Throughput(lnd_version, tuple(levels))
        finally:
            await net.stop()


async def _level(daemon: MeasuredDaemon, given: Endpoints, at_once: int, rounds: int) -> Level:
    orders = ORDERS_OF_A_ROUND[at_once]
    # One round each that does not count.
    await bare.run(given, at_once, at_once)
    await client.run(daemon.socket, at_once, at_once)
    bare_per_s, bare_cpu_ms, bare_machine_ms, daemon_per_s, cpu_ms, machine_ms = [], [], [], [], [], []
    for _ in range(rounds):
        began_ms = machine_cpu_ms()
        alone = await bare.run(given, orders, at_once)
        bare_per_s.append(orders / alone.elapsed_s)
        bare_cpu_ms.append(alone.cpu_ms / orders)
        turn_ms, before = machine_cpu_ms(), daemon.usage
        bare_machine_ms.append((turn_ms - began_ms) / (orders + 1))
        daemon_per_s.append(orders / (await client.run(daemon.socket, orders, at_once)).elapsed_s)
        cpu_ms.append((daemon.usage.cpu_ms - before.cpu_ms) / (orders + 1))
        machine_ms.append((machine_cpu_ms() - turn_ms) / (orders + 1))
    ratios = tuple(through / alone for through, alone in zip(daemon_per_s, bare_per_s, strict=True))
    return Level(
        at_once=at_once,
        rounds=rounds,
        orders_of_a_round=orders,
        bare_per_s=median(bare_per_s),
        daemon_per_s=median(daemon_per_s),
        ratio=median(ratios),
        ratios=ratios,
        daemon_cpu_ms_per_order=median(cpu_ms),
        bare_cpu_ms_per_order=median(bare_cpu_ms),
        machine_ms_per_bare_order=median(bare_machine_ms),
        machine_ms_per_order=median(machine_ms),
    )
