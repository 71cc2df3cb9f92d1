"""What a client that asks has to wait while 2,000 others follow their orders, on the daemon's own socket."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from holdpay._pb.v1 import holdpay_pb2 as pb
from tests.bench.crowd import crowd
from tests.bench.crowded import READY_WITHIN_S, TAKEN_OVER_PER_S
from tests.bench.daemon import MeasuredDaemon
from tests.bench.rows import Row, at_most
from tests.bench.waiting import newest, waiting
from tests.harness import code_request

MAX_P99_MS: Final = 20.0
SUBMIT: Final = "Submit, to its first update"
ANSWER_WITHIN_S: Final = 30.0
IDLE_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """How long the calls of one kind took, in ms."""

    call: str
    calls: int
    median_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """While no client asks anything; the provider is polled about the open orders."""

    rss_mb: float
    core_percent: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """With so many streams open, each on an order and a connection of its own."""

    streams: int
    idle: Idle
    answers: tuple[Answers, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Without and with those who wait."""

    orders: int
    alone: Waiting
    among: Waiting

    def rows(self) -> Iterator[Row]:
        streams = self.among.streams
        yield Row(f"{streams:,} streams open: RSS of the daemon for each", f"{self.kb_per_stream:.0f} KB")
        yield Row(
            "  share of a core while nothing is asked",
            f"{self.among.idle.core_percent:.1f} %, without streams {self.alone.idle.core_percent:.1f} %",
        )
        for alone, among in zip(self.alone.answers, self.among.answers, strict=True):
            yield Row(f"{alone.call}, p99 without streams", f"{alone.p99_ms:.1f} ms")
            # What an order costs at the provider is none of the streams'.
            limit_ms = MAX_P99_MS + (alone.p99_ms if alone.call == SUBMIT else 0)
            yield at_most(f"  with {streams:,}", among.p99_ms, round(limit_ms), "ms")

    @property
    def kb_per_stream(self) -> float:
        return (self.among.idle.rss_mb - self.alone.idle.rss_mb) * 1000 / self.among.streams


async def measure(python: Path, streams: int, *, orders: int, calls: int) -> Clients:
    """A daemon with so many open orders, which the streams share."""
    with tempfile.TemporaryDirectory(prefix="holdpay-bench-") as name:
        async with crowd(Path(name), orders) as others:
            daemon = MeasuredDaemon(others.config, python)
            try:
                await daemon.start_patiently(READY_WITHIN_S)
                await asyncio.sleep(orders / TAKEN_OVER_PER_S)
                # All that is idle comes first: orders that are made and canceled go on for a while.
                idle_alone = await _idle(daemon)
                async with waiting(daemon.socket, streams):
                    among = Waiting(streams, await _idle(daemon), await _answers(daemon, calls))
                alone = Waiting(0, idle_alone, await _answers(daemon, calls))
            finally:
                await daemon.stop()
    return Clients(orders=orders, alone=alone, among=among)


async def _idle(daemon: MeasuredDaemon) -> Idle:
    before, began_s = daemon.usage, time.monotonic()
    await asyncio.sleep(IDLE_S)
    usage, took_s = daemon.usage, time.monotonic() - began_s
    return Idle(rss_mb=usage.rss_mb, core_percent=(usage.cpu_ms - before.cpu_ms) / took_s / 10)


async def _answers(daemon: MeasuredDaemon, calls: int) -> tuple[Answers, ...]:
    ids = await newest(str(daemon.socket), calls)
    to_cancel = iter(ids)

    async def get_status() -> None:
        await daemon.status()

    async def submit() -> None:
        await daemon.submit(code_request(idempotency_key=os.urandom(8).hex(), max_price_sat=5000))

    async def get_request() -> None:
        await daemon.get(ids[0])

    async def cancel() -> None:
        await daemon.stub.CancelRequest(pb.CancelRequestRequest(request_id=next(to_cancel)))

    return (
        await _timed("GetStatus", get_status, calls),
        await _timed("GetRequest", get_request, calls),
        await _timed("CancelRequest", cancel, calls),
        await _timed(SUBMIT, submit, calls),
    )


async def _timed(call: str, make_one: Callable[[], Awaitable[None]], calls: int) -> Answers:
    """One after the other."""
    taken_ms = []
    for _ in range(calls):
        began_s = time.perf_counter()
        async with asyncio.timeout(ANSWER_WITHIN_S):
            await make_one()
        taken_ms.append((time.perf_counter() - began_s) * 1000)
    ranked = sorted(taken_ms)
    return Answers(call=call, calls=calls, median_ms=median(ranked), p99_ms=ranked[min(calls - 1, calls * 99 // 100)])
