"""The gRPC servers on the Unix sockets, with health and reflection.

Each client has a server of its own: gRPC does not tell who is at the other end of a Unix socket (``context.peer()`` is
"unix:", ``auth_context`` knows the transport only, also with local credentials; grpcio 1.85), and which socket a call
came in by it does not tell either. So the kernel does the authentication, by the socket's group and mode.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractContextManager

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay._pb.v1 import holdpay_pb2_grpc as pb_grpc
from holdpay.rpc.service import HoldpayService
from holdpay.rpc.streams import MAX_STREAMS

MAX_RECEIVED_BYTES = 256 * 1024
"""gRPC reads no more, and has a sentence of its own for it. More than one word of a command line can be (128 KiB): what
is over ``status.MAX_REQUEST_BYTES`` is told as what it is."""
MAX_CALLS = 1000
"""Besides the streams, which count themselves: over both together gRPC lets a call wait in silence."""
SERVICE_NAME = pb.DESCRIPTOR.services_by_name["Holdpay"].full_name
LND_SERVICE = "lnd"
"""The health service answers for "" and the service's name (the daemon serves), and for "lnd" (it can be used)."""

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_RECEIVED_BYTES),
    # All clients come back at once after a restart: gRPC would turn some of them away at random from 1,000 on.
    ("grpc.server.max_pending_requests", MAX_STREAMS + MAX_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", MAX_STREAMS + MAX_CALLS),
    ("grpc.so_reuseport", 0),
)


class RpcServer:
    """Serves on a socket that the caller has claimed (``lock.SocketClaim``)."""

    def __init__(self, service: HoldpayService) -> None:
        self._health = health_aio.HealthServicer()
        self._server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=MAX_STREAMS + MAX_CALLS)
        pb_grpc.add_HoldpayServicer_to_server(service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE_NAME, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    def bind(self, binding: AbstractContextManager[str]) -> None:
        """Inside ``binding``, which gives the address and sees to the socket's group and mode."""
        with binding as address:
            self._server.add_insecure_port(address)

    async def start(self) -> None:
        """Serves where it is bound."""
        await self._server.start()
        for name in ("", SERVICE_NAME):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        await self.set_lnd_usable(False)

    async def set_lnd_usable(self, usable: bool) -> None:
        """What the health service says of "lnd"."""
        state = health_pb2.HealthCheckResponse.SERVING if usable else health_pb2.HealthCheckResponse.NOT_SERVING
        await self._health.set(LND_SERVICE, state)

    async def stop(self, grace_s: float) -> None:
        """Ends what still runs after ``grace_s``. The streams must have been told before (``Feed.stop``)."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)


class RpcServers:
    """One for each who asks, by name."""

    def __init__(self, services: Mapping[str, HoldpayService]) -> None:
        self._servers = {client: RpcServer(service) for client, service in services.items()}

    def bind(self, bindings: Mapping[str, AbstractContextManager[str]]) -> None:
        """See RpcServer."""
        for client, server in self._servers.items():
            server.bind(bindings[client])

    async def start(self) -> None:
        """See RpcServer."""
        for server in self._servers.values():
            await server.start()

    async def set_lnd_usable(self, usable: bool) -> None:
        """See RpcServer."""
        for server in self._servers.values():
            await server.set_lnd_usable(usable)

    async def stop(self, grace_s: float) -> None:
        """See RpcServer. All at once."""
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers.values()))
