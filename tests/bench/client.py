"""Orders through the daemon, as `holdpay code --until settled` makes them: the update stream is read to its end.

python -m tests.bench.client SOCKET ORDERS AT_ONCE
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import grpc.aio

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay._pb.v1 import holdpay_pb2_grpc as pb_grpc
from tests.bench.loops import LoopFailed, Result, run_as_process, timed
from tests.harness import code_request


async def run(socket: Path, orders: int, at_once: int) -> Result:
    """In a process of its own."""
    return await run_as_process("tests.bench.client", socket, orders, at_once)


async def main(socket: str, orders: int, at_once: int) -> Result:
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        stub: pb_grpc.HoldpayAsyncStub = pb_grpc.HoldpayStub(channel)

        async def order() -> None:
            request = code_request(idempotency_key=os.urandom(8).hex())
            *_, last = [message async for message in stub.Submit(request)]
            if last.updates[-1].request.end != pb.END_FULFILLED:
                raise LoopFailed(f"An order ended otherwise than with its code:\n{last}")

        return await timed(orders, at_once, order)


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))))
