"""The bare create-and-pay loop: the least that a client in Python can do. No checks, no journal, no status requests.

python -m tests.bench.bare SPEC: SPEC is the JSON of a ``Spec``; prints that of a ``Result``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import httpx

from holdpay._pb.lnd.lightning_pb2 import GetInfoRequest, Payment
from holdpay._pb.lnd.lightning_pb2_grpc import LightningStub
from holdpay._pb.lnd.router_pb2 import SendPaymentRequest
from holdpay._pb.lnd.router_pb2_grpc import RouterStub

if TYPE_CHECKING:
    from holdpay._pb.lnd.lightning_pb2_grpc import LightningAsyncStub
    from holdpay._pb.lnd.router_pb2_grpc import RouterAsyncStub


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Whom to pay from where, and how often."""

    provider_url: str
    lnd_address: str
    tls_cert: str
    macaroon: str
    orders: int
    at_once: int


@dataclass(frozen=True, slots=True)
class Result:
    elapsed_s: float
    cpu_ms: float


async def at_once(count: int, orders: int, do: Callable[[], Awaitable[object]]) -> float:
    """Does ``orders`` of them, never more than ``count`` at a time; returns how many seconds that took."""
    left = iter(range(orders))

    async def work() -> None:
        for _ in left:
            await do()

    began_s = time.monotonic()
    async with asyncio.TaskGroup() as workers:
        for _ in range(count):
            workers.create_task(work())
    return time.monotonic() - began_s


async def run(spec: Spec) -> Result:
    """Connects, makes one order that does not count, then the others."""
    credentials = grpc.ssl_channel_credentials(Path(spec.tls_cert).read_bytes())
    metadata = (("macaroon", Path(spec.macaroon).read_bytes().hex()),)
    async with (
        grpc.aio.secure_channel(spec.lnd_address, credentials) as channel,
        httpx.AsyncClient(base_url=spec.provider_url, trust_env=False) as http,
    ):
        lightning: LightningAsyncStub = LightningStub(channel)
        router: RouterAsyncStub = RouterStub(channel)
        await lightning.GetInfo(GetInfoRequest(), metadata=metadata)

        async def create_and_pay() -> None:
            reply = await http.post("/createorder", json={"country": 187, "service": "dr"})
            request = SendPaymentRequest(
                payment_request=reply.json()["payreq"],
                timeout_seconds=1500,
                fee_limit_msat=10_000,
                cltv_limit=576,
                max_parts=1,
            )
            last = Payment()
            async for last in router.SendPaymentV2(request, metadata=metadata):
                pass
            if last.status != Payment.SUCCEEDED:
                raise RuntimeError(f"a payment of the bare loop ended otherwise: {last}")

        await create_and_pay()
        cpu_s = time.process_time()
        elapsed_s = await at_once(spec.at_once, spec.orders, create_and_pay)
        return Result(elapsed_s, (time.process_time() - cpu_s) * 1000)


async def run_as_process(spec: Spec) -> Result:
    """``run`` in a process of its own, as the daemon is one."""
    command = (sys.executable, "-m", "tests.bench.bare", json.dumps(asdict(spec)))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        stdout, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    if process.returncode != 0:
        raise RuntimeError("The bare loop failed; its own words are above.")
    return Result(**json.loads(stdout))


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(run(Spec(**json.loads(sys.argv[1])))))))
