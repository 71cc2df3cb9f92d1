"""What a database of years costs: the size of an order, the start, what clients wait for, what erasing holds up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Final

import grpc.aio

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.app import DATABASE
from tests.bench.crowd import crowd
from tests.bench.daemon import MeasuredDaemon
from tests.bench.process import MAX_STALL_MS
from tests.bench.rows import Row, at_most
from tests.bench.scale_fill import fill, real_orders

MAX_BYTES: Final = 6_000
MAX_CALL_MS: Final = 20.0
READY_WITHIN_S: Final = 120.0
ERASED: Final = 1_000
FEW_OPEN: Final = 10
MOST_BESIDES: Final = 100_000
"""Closed orders in the file in which some are erased: 350 MB."""
STARTS: Final = 3


@dataclass(frozen=True, slots=True)
class Scenario:
    """``calls``: of each kind."""

    closed: int
    open: int
    calls: int
    max_start_s: float


FULL: Final = (
    Scenario(closed=100_000, open=1_000, calls=300, max_start_s=1.0),
    Scenario(closed=1_000_000, open=1_000, calls=300, max_start_s=2.0),
)
QUICK: Final = (Scenario(closed=20_000, open=1_000, calls=100, max_start_s=1.0),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """One call over the socket, again and again."""

    name: str
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """``start_s``: from the start of the process until it tells systemd that it is ready, the shortest.
    ``erasing_stall_ms``: the longest turn of the event loop while codes are erased."""

    scenario: Scenario
    bytes_of_closed: float
    start_s: float
    erased: int
    erasing_stall_ms: float
    calls: tuple[Called, ...]

    def rows(self) -> Iterator[Row]:
        closed, open_orders = self.scenario.closed, self.scenario.open
        yield at_most(
            f"{closed:,} closed orders: bytes of one, with all indexes", self.bytes_of_closed, MAX_BYTES, "B", 0
        )
        yield at_most(f"  from start to READY, {open_orders:,} open", self.start_s, self.scenario.max_start_s, "s", 2)
        for call in self.calls:
            yield at_most(f"  {call.name}, p99 (p50 {call.p50_ms:.1f} ms)", call.p99_ms, MAX_CALL_MS, "ms")
        what = f"  longest stall while the codes of {self.erased:,} orders are erased"
        yield at_most(what, self.erasing_stall_ms, MAX_STALL_MS, "ms")


@dataclass(frozen=True, slots=True)
class Scale:
    """All of this part."""

    sizes: tuple[Size, ...]

    def rows(self) -> Iterator[Row]:
        for size in self.sizes:
            yield from size.rows()


async def measure(python: Path, scenarios: tuple[Scenario, ...]) -> Scale:
    """In the folder for temporary files, which wants room for 5 KB an order; nothing is left there."""
    with tempfile.TemporaryDirectory(prefix="holdpay-scale-") as name:
        folder = Path(name)
        originals = await real_orders(folder / "originals", python)
        return Scale(tuple([await _measure(folder / str(s.closed), originals, python, s) for s in scenarios]))


async def _measure(folder: Path, originals: Path, python: Path, scenario: Scenario) -> Size:
    erased, erasing_stall_ms = await _erase(folder / "erasing", originals, python, scenario.closed)
    async with crowd(folder, scenario.open) as others:
        path = folder / "state" / DATABASE
        before_bytes = path.stat().st_size
        await asyncio.to_thread(fill, path, originals, scenario.closed, 0)
        bytes_of_closed = (path.stat().st_size - before_bytes) / scenario.closed
        daemon = MeasuredDaemon(others.config, python)
        try:
            starts_s = [await _start(daemon, folder)]
            for _ in range(STARTS - 1):
                await daemon.stop()
                starts_s.append(await _start(daemon, folder))
            daemon.connect()
            calls = await _calls(daemon, _some_closed(path), scenario.calls)
        finally:
            await daemon.stop()
    shutil.rmtree(folder)
    return Size(
        scenario=scenario,
        bytes_of_closed=bytes_of_closed,
        start_s=min(starts_s),
        erased=erased,
        erasing_stall_ms=erasing_stall_ms,
        calls=calls,
    )


async def _erase(folder: Path, originals: Path, python: Path, closed: int) -> tuple[int, float]:
    """How many orders are erased, and the longest stall meanwhile. Few are open, so that it is not theirs."""
    folder.mkdir(parents=True)
    async with crowd(folder, FEW_OPEN) as others:
        path = folder / "state" / DATABASE
        await asyncio.to_thread(fill, path, originals, min(closed, MOST_BESIDES), ERASED)
        daemon = MeasuredDaemon(others.config, python, is_probed=True)
        try:
            await _start(daemon, folder)
            await daemon.longest_stall_ms()
            return await _erased(daemon, path), await daemon.longest_stall_ms()
        finally:
            await daemon.stop()


async def _start(daemon: MeasuredDaemon, folder: Path) -> float:
    """Plays systemd. Seconds until READY."""
    address = folder / "notify"
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(address))
        systemd.setblocking(False)
        os.environ["NOTIFY_SOCKET"] = str(address)
        began_s = time.monotonic()
        try:
            await daemon.launch()
        finally:
            del os.environ["NOTIFY_SOCKET"]
        async with asyncio.timeout(READY_WITHIN_S):
            while b"READY=1" not in await asyncio.get_running_loop().sock_recv(systemd, 4096):
                pass
        return time.monotonic() - began_s


async def _erased(daemon: MeasuredDaemon, path: Path) -> int:
    """Waits until the daemon has said that it erased. How many orders that were."""
    async with asyncio.timeout(READY_WITHIN_S):
        while "codes and numbers of old orders erased" not in daemon.log():
            await asyncio.sleep(0.1)
    with contextlib.closing(sqlite3.connect(path)) as conn:
        (count,) = conn.execute("SELECT count(*) FROM keys WHERE key = zeroblob(16)").fetchone()
        return int(count)


def _some_closed(path: Path) -> list[str]:
    """Their ids, from all over the table."""
    with contextlib.closing(sqlite3.connect(path)) as conn:
        (last,) = conn.execute("SELECT max(no) FROM orders").fetchone()
        sql = "SELECT id FROM orders WHERE no >= ? AND closed_at_ms IS NOT NULL AND erased_at_ms IS NULL LIMIT 1"
        return [conn.execute(sql, (last * n // 100,)).fetchone()[0] for n in range(1, 99)]


async def _calls(daemon: MeasuredDaemon, ids: list[str], times: int) -> tuple[Called, ...]:
    stub = daemon.stub
    calls: dict[str, Callable[[str], Awaitable[object]]] = {
        "GetStatus": lambda _: stub.GetStatus(pb.GetStatusRequest(), timeout=30),
        "ListRequests, open": lambda _: stub.ListRequests(pb.ListRequestsRequest(open_only=True), timeout=30),
        "ListRequests, the largest page": lambda _: stub.ListRequests(
            pb.ListRequestsRequest(page_size=2**32 - 1), timeout=30
        ),
        "GetRequest": lambda id_: stub.GetRequest(pb.GetRequestRequest(request_id=id_), timeout=30),
        "GetRequest by the beginning of its id": lambda id_: stub.GetRequest(
            pb.GetRequestRequest(request_id=id_[:8]), timeout=30
        ),
        "GetRequest of an unknown id": lambda id_: _refused(
            stub.GetRequest(pb.GetRequestRequest(request_id=f"zz{id_[2:]}"), timeout=30)
        ),
        "ExplainRequest": lambda id_: stub.ExplainRequest(pb.ExplainRequestRequest(request_id=id_), timeout=30),
    }
    return tuple([await _called(name, call, ids, times) for name, call in calls.items()])


async def _refused(call: Awaitable[object]) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError):
        await call


async def _called(name: str, call: Callable[[str], Awaitable[object]], ids: list[str], times: int) -> Called:
    await call(ids[-1])
    took_ms = []
    for number in range(times):
        began_s = time.perf_counter()
        await call(ids[number % len(ids)])
        took_ms.append((time.perf_counter() - began_s) * 1000)
    return Called(name=name, p50_ms=median(took_ms), p99_ms=quantiles(took_ms, n=100)[98])
