"""`python -m tests.bench`: measures, and says which targets are met. See scripts/bench."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench import clients, crowded, figures, lag, latency, process, scale, throughput
from tests.bench.crowded import Memory
from tests.bench.lag import Scenario
from tests.bench.loops import LoopFailed
from tests.bench.report import Report, machine
from tests.bench.rows import Figures
from tests.regtest.binaries import ACCEPTED_ON_PATH, DEFAULT_VERSION, Unavailable
from tests.regtest.process import StartFailed

PARTS: Final = ("lag", "scale", "clients", "latency", "memory", "throughput")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done."""

    lag: tuple[Scenario, ...]
    scale: tuple[scale.Scenario, ...]
    latency_orders: int
    ordinary_orders: int
    idle_s: float
    crowd: int
    streams: int
    calls: int
    starts: int
    rounds: int


FULL: Final = Plan(
    lag=lag.FULL,
    scale=scale.FULL,
    latency_orders=300,
    ordinary_orders=80,
    idle_s=20,
    crowd=10_000,
    streams=2_000,
    calls=200,
    starts=9,
    rounds=7,
)
QUICK: Final = Plan(
    lag=lag.QUICK,
    scale=scale.QUICK,
    latency_orders=60,
    ordinary_orders=16,
    idle_s=5,
    crowd=1_000,
    streams=500,
    calls=50,
    starts=3,
    rounds=2,
)


def main() -> int:
    """0: every target is met. 1: one was missed, or it could not be measured."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures the speed and the weight of holdpayd.")
    parser.add_argument("--quick", action="store_true", help="fewer orders and rounds: three minutes")
    parser.add_argument("--only", choices=PARTS, help="just this part; latency and throughput need a real lnd")
    parser.add_argument("--lnd", choices=list(ACCEPTED_ON_PATH), default=DEFAULT_VERSION, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="for temporary files; scale wants 5 GB")
    parser.add_argument("--write-docs", action="store_true", help="write what is measured into docs/ and README.md")
    parser.add_argument("--plots-python", type=Path, default=Path(sys.executable), help=argparse.SUPPRESS)
    parser.add_argument("--daemon-python", type=Path, default=Path(sys.executable), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick and options.write_docs:
        parser.error("the figures of the docs are those of a whole run: leave --quick away")
    if options.scratch is not None:
        tempfile.tempdir = str(options.scratch.resolve())
    parts = (options.only,) if options.only else PARTS
    try:
        report = asyncio.run(measure(parts, QUICK if options.quick else FULL, options.lnd, options.daemon_python))
    except (Unavailable, StartFailed, LoopFailed, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if options.json:
        options.json.write_text(json.dumps(report.told(), indent=1) + "\n")
    if options.write_docs:
        figures.record(report.told(), options.plots_python)
    return 0 if report.is_met else 1


async def measure(parts: tuple[str, ...], plan: Plan, lnd_version: str, python: Path) -> Report:
    """Prints each part's rows as they come."""
    report = Report()
    told = machine()
    print(f"Python {told['python']}, {told['cores']} cores, load {told['load_1min']:.1f}", flush=True)
    for part in parts:
        report.figures[part] = found = await _measure(part, plan, lnd_version, python)
        print("\n".join(map(str, found.rows())), flush=True)
    return report


async def _measure(part: str, plan: Plan, lnd_version: str, python: Path) -> Figures:
    match part:
        case "lag":
            return await asyncio.to_thread(lag.measure, plan.lag)
        case "scale":
            return await scale.measure(python, plan.scale)
        case "clients":
            return await clients.measure(python, plan.streams, orders=plan.streams, calls=plan.calls)
        case "latency":
            return await latency.measure(lnd_version, python, plan.latency_orders)
        case "memory":
            costs = await process.measure(python, orders=plan.ordinary_orders, idle_s=plan.idle_s, starts=plan.starts)
            return Memory(costs, await crowded.measure(python, plan.crowd, plan.idle_s))
        case _:
            return await throughput.measure(lnd_version, python, plan.rounds)


if __name__ == "__main__":
    sys.exit(main())
