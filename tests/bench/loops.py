"""What both loops have in common: each is a process of its own that makes orders and says how long that took."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """Of one run; ``cpu_ms`` is that of the loop's own process."""

    elapsed_s: float
    cpu_ms: float


class LoopFailed(Exception):
    """An order or payment of the benchmark went wrong, so its figures would mean nothing."""


async def timed(orders: int, at_once: int, make_one: Callable[[], Awaitable[object]]) -> Result:
    """Makes one order that does not count, then ``orders`` more, never more than ``at_once`` at a time."""
    await make_one()
    left = iter(range(orders))

    async def work() -> None:
        for _ in left:
            await make_one()

    began_s, began_cpu_s = time.monotonic(), time.process_time()
    async with asyncio.TaskGroup() as workers:
        for _ in range(at_once):
            workers.create_task(work())
    return Result(time.monotonic() - began_s, (time.process_time() - began_cpu_s) * 1000)


async def run_as_process(module: str, *arguments: object) -> Result:
    """Runs ``python -m module ARGUMENTS``, which prints its Result as JSON. Raises LoopFailed."""
    command = (sys.executable, "-m", module, *map(str, arguments))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        stdout, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    if process.returncode != 0:
        raise LoopFailed(f"{module} failed; its own words are above.")
    return Result(**json.loads(stdout))
