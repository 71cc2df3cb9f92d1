"""The bare create-and-pay loop: the least that a client in Python can do. No checks, no journal, no status requests.

python -m tests.bench.bare PROVIDER_URL LND_ADDRESS TLS_CERT MACAROON ORDERS AT_ONCE
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import httpx

from holdpay._pb.lnd.lightning_pb2 import Payment
from holdpay._pb.lnd.router_pb2 import SendPaymentRequest
from holdpay._pb.lnd.router_pb2_grpc import RouterStub
from holdpay.sandbox.world import Endpoints
from tests.bench.loops import LoopFailed, Result, run_as_process, timed

if TYPE_CHECKING:
    from holdpay._pb.lnd.router_pb2_grpc import RouterAsyncStub


async def run(endpoints: Endpoints, orders: int, at_once: int) -> Result:
    """In a process of its own."""
    given = (endpoints.provider_url, endpoints.lnd_address, endpoints.tls_cert, endpoints.macaroon)
    return await run_as_process("tests.bench.bare", *given, orders, at_once)


async def main(url: str, lnd: str, tls_cert: Path, macaroon: Path, orders: int, at_once: int) -> Result:
    credentials = grpc.ssl_channel_credentials(tls_cert.read_bytes())
    metadata = (("macaroon", macaroon.read_bytes().hex()),)
    async with (
        grpc.aio.secure_channel(lnd, credentials) as channel,
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
    ):
        router: RouterAsyncStub = RouterStub(channel)

        async def create_and_pay() -> None:
            reply = await http.post("/createorder", json={"country": 187, "service": "dr"})
            request = SendPaymentRequest(
                payment_request=reply.json()["payreq"],
                timeout_seconds=1500,
                fee_limit_msat=10_000,
                cltv_limit=576,
                max_parts=1,
            )
            *_, last = [payment async for payment in router.SendPaymentV2(request, metadata=metadata)]
            if last.status != Payment.SUCCEEDED:
                raise LoopFailed(f"A payment ended otherwise:\n{last}")

        return await timed(orders, at_once, create_and_pay)


if __name__ == "__main__":
    _url, _lnd, _cert, _macaroon, _orders, _at_once = sys.argv[1:]
    print(json.dumps(asdict(asyncio.run(main(_url, _lnd, Path(_cert), Path(_macaroon), int(_orders), int(_at_once))))))
