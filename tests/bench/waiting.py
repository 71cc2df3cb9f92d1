"""Clients that wait, each on a connection of its own as `holdpay orders wait` is: a process.

python -m tests.bench.waiting SOCKET STREAMS: follows the newest orders, prints ``ready`` once each stream has told what
was, and ends when its stdin is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import grpc.aio

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay._pb.v1 import holdpay_pb2_grpc as pb_grpc
from tests.bench.loops import LoopFailed

PAGE: Final = 500
OPENING_AT_ONCE: Final = 50
READY_WITHIN_S: Final = 120.0
_OWN_CONNECTION: Final = (("grpc.use_local_subchannel_pool", 1),)


async def main(socket: str, streams: int) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    ids = await newest(socket, streams)
    opening = asyncio.Semaphore(OPENING_AT_ONCE)
    begun = [asyncio.Event() for _ in range(streams)]
    tasks = [
        asyncio.create_task(_wait(socket, ids[number % len(ids)], opening, begun[number])) for number in range(streams)
    ]
    async with asyncio.timeout(READY_WITHIN_S):
        for event in begun:
            await event.wait()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def newest(socket: str, count: int) -> list[str]:
    """The ids of so many requests, or of all that there are."""
    ids: list[str] = []
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        stub: pb_grpc.HoldpayAsyncStub = pb_grpc.HoldpayStub(channel)
        token = ""
        while len(ids) < count:
            page = await stub.ListRequests(pb.ListRequestsRequest(page_size=PAGE, page_token=token))
            ids += [request.id for request in page.requests]
            token = page.next_page_token
            if not token:
                break
    return ids[:count]


async def _wait(socket: str, request_id: str, opening: asyncio.Semaphore, begun: asyncio.Event) -> None:
    async with grpc.aio.insecure_channel(f"unix:{socket}", options=_OWN_CONNECTION) as channel:
        stub: pb_grpc.HoldpayAsyncStub = pb_grpc.HoldpayStub(channel)
        async with opening:
            call = stub.WatchRequests(pb.WatchRequestsRequest(request_id=request_id, after_cursor=0))
            await anext(aiter(call))
        begun.set()
        async for _ in call:
            pass


@contextlib.asynccontextmanager
async def waiting(socket: Path, streams: int) -> AsyncIterator[None]:
    """Runs it. Raises LoopFailed if not every stream comes about."""
    if not streams:
        yield
        return
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.waiting",
        str(socket),
        str(streams),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if not await process.stdout.readline():
            raise LoopFailed(f"{streams} clients could not all follow an order; their own words are above.")
        yield
    finally:
        process.stdin.close()
        await process.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
