"""SIGKILL at chosen moments of a daemon's life."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc
import grpc.aio

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay._pb.v1 import holdpay_pb2_grpc as pb_grpc
from tests.harness import told

SERVING_WITHIN_S = 60.0

_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 40),
)
_IN_MODIFY = 0x2
_EVENT = struct.Struct("iIII")  # inotify(7): watch, mask, cookie, length of the name that follows


class DiedByItself(AssertionError):
    """The daemon ended before it was killed; its log says why."""


@contextlib.asynccontextmanager
async def open_line(socket: Path) -> AsyncIterator[pb_grpc.HoldpayAsyncStub]:
    """A channel that outlives the daemon: calls with ``wait_for_ready`` go to the next one."""
    async with grpc.aio.insecure_channel(f"unix:{socket}", options=_OPTIONS) as channel:
        yield pb_grpc.HoldpayStub(channel)


def quicken(config: Path) -> None:
    """Takes out of a daemon's configuration what is slow by design: the rate limit, and waits of the provider's own."""
    text = config.read_text()
    text = re.sub(r"cancel_after_s = .*", "cancel_after_s = 1\nplace_retry_s = 1", text)
    config.write_text(re.sub(r"requests_per_s = .*", "requests_per_s = 200", text))


# --- the moment to die ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Life:
    """One process of the daemon, just launched."""

    line: pb_grpc.HoldpayAsyncStub
    state_dir: Path
    cursor: int
    """Of the journal's last row before the launch."""

    async def until_serving(self) -> None:
        async with asyncio.timeout(SERVING_WITHIN_S):
            while True:
                # The channel may still have to find out that the daemon before is dead.
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await self.line.GetStatus(pb.GetStatusRequest(), wait_for_ready=True)
                    return


@dataclass(frozen=True, slots=True)
class AfterStart:
    """This long after the launch, or after it serves."""

    delay_s: float
    is_serving: bool

    async def come(self, life: Life) -> bool:
        if self.is_serving:
            await life.until_serving()
        await asyncio.sleep(self.delay_s)
        return True

    def __str__(self) -> str:
        return f"{self.delay_s:.3f} s after " + ("it serves" if self.is_serving else "the launch")


@dataclass(frozen=True, slots=True)
class AtWrite:
    """Within its n-th write to the database since the launch: inside a commit, or right after one, before what it
    begins is done."""

    count: int
    within_s: float

    async def come(self, life: Life) -> bool:
        try:
            async with asyncio.timeout(self.within_s):
                await writes_to(life.state_dir, "holdpay.db-wal", self.count)
        except TimeoutError:
            return False
        return True

    def __str__(self) -> str:
        return f"at write {self.count}"


@dataclass(frozen=True, slots=True)
class AfterEvent:
    """Milliseconds after WatchRequests shows this event; ``provoke`` makes it happen, and returns at once."""

    event: str
    delay_s: float
    within_s: float
    provoke: Callable[[], Awaitable[None]] | None = None

    async def come(self, life: Life) -> bool:
        await life.until_serving()
        try:
            async with asyncio.timeout(self.within_s):
                await self._until_seen(life)
        except TimeoutError:
            return False
        await asyncio.sleep(self.delay_s)
        return True

    async def _until_seen(self, life: Life) -> None:
        # What happens before the daemon serves can be seen only in the journal.
        is_early = self.event == "daemon_restarted"
        call = life.line.WatchRequests(pb.WatchRequestsRequest(after_cursor=life.cursor if is_early else None))
        if self.provoke is not None:
            await self.provoke()
        try:
            async for update in told(call):
                if update.event == self.event:
                    return
        finally:
            call.cancel()
        raise DiedByItself("the daemon left its clients")

    def __str__(self) -> str:
        return f"{self.delay_s * 1000:.1f} ms after {self.event}"


Moment = AfterStart | AtWrite | AfterEvent


async def writes_to(directory: Path, name: str, count: int) -> None:
    """Returns at the ``count``-th write to this file of the directory from now on (inotify(7); a burst may count as
    one)."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0 or libc.inotify_add_watch(descriptor, bytes(directory), _IN_MODIFY) < 0:
        raise OSError(ctypes.get_errno(), "inotify cannot watch", str(directory))
    loop = asyncio.get_running_loop()
    reached = loop.create_future()
    left = count

    def look() -> None:
        nonlocal left
        left -= sum(written == name.encode() for written in _names(os.read(descriptor, 65536)))
        if left <= 0 and not reached.done():
            reached.set_result(None)

    loop.add_reader(descriptor, look)
    try:
        await reached
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _names(events: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(events):
        *_, length = _EVENT.unpack_from(events, at)
        yield events[at + _EVENT.size : at + _EVENT.size + length].rstrip(b"\0")
        at += _EVENT.size + length


class Born(Protocol):
    """A daemon process."""

    def kill(self) -> None: ...

    async def wait(self) -> int: ...


async def live_and_die(process: Born, life: Life, moment: Moment) -> bool:
    """Kills a daemon that was just launched, at the moment. Returns whether the moment came; it is killed all the same.

    Raises DiedByItself.
    """
    coming = asyncio.ensure_future(moment.come(life))
    ending = asyncio.ensure_future(process.wait())
    await asyncio.wait({coming, ending}, return_when=asyncio.FIRST_COMPLETED)
    was_alive = not ending.done()
    process.kill()
    coming.cancel()
    code = await ending
    if not was_alive or code != -signal.SIGKILL:
        raise DiedByItself(f"the daemon ended by itself with {code}")
    return await coming
