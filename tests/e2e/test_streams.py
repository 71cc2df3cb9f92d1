"""Clients that follow orders, as many as there is room for, and clients that only ask beside them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.rpc.streams import SPARE_FILES
from holdpay.sandbox.sms4sats_knobs import Scenario
from holdpay.sandbox.world import SandboxWorld
from tests.harness import Daemon, told

ROOM = 6
AT_ONCE = 1_600

pytestmark = pytest.mark.asyncio(loop_scope="module")

Call = grpc.aio.UnaryStreamCall[pb.WatchRequestsRequest, pb.RequestUpdates]


class NarrowDaemon(Daemon):
    """holdpayd where the system allows it so few open files that ROOM streams have room."""

    async def launch(self) -> asyncio.subprocess.Process:
        command = f"ulimit -n {SPARE_FILES + ROOM}; exec {sys.executable} -m holdpay.cli.daemon --config {self.config}"
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_shell(command, stdout=log, stderr=log, env=self.environment)
        return self._process

    first_order = ""
    """One that stays open."""

    def watch(self) -> Call:
        return self.stub.WatchRequests(pb.WatchRequestsRequest(request_id=self.first_order, after_cursor=0), timeout=60)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def daemon(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NarrowDaemon]:
    async with SandboxWorld(tmp_path_factory.mktemp("streams")) as world:
        world.provider.knobs.scenario = Scenario(no_code=True)
        narrow = NarrowDaemon(world.config, world.socket)
        await narrow.start_ready()
        try:
            narrow.first_order = (await narrow.order()).id
            yield narrow
        finally:
            await narrow.stop()


@contextlib.asynccontextmanager
async def streams(daemon: NarrowDaemon) -> AsyncIterator[None]:
    """As many as there is room for, each begun."""
    calls: list[Call] = []
    try:
        async with asyncio.timeout(60):
            while len(calls) < ROOM:
                call = daemon.watch()
                # Those who have just left may still be counted.
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await anext(aiter(call))
                    calls.append(call)
        yield
    finally:
        for call in calls:
            call.cancel()


async def test_one_stream_too_many_is_refused_and_what_only_asks_is_not(daemon: NarrowDaemon) -> None:
    async with streams(daemon):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anext(aiter(daemon.watch()))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.value.details() == (
            f"{ROOM} clients follow orders, and the daemon has room for {ROOM}. End some of them, or ask with"
            " GetRequest."
        )
        await daemon.status()
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await daemon.cancel("nobodys")
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_an_order_that_cannot_be_followed_is_not_taken(daemon: NarrowDaemon) -> None:
    async with streams(daemon):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await daemon.order()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert [order.id for order in await daemon.listed()] == [daemon.first_order]


async def test_clients_that_leave_make_room_however_often_they_come(daemon: NarrowDaemon) -> None:
    for _ in range(20):
        async with streams(daemon):
            pass


async def test_clients_that_all_come_back_at_once_are_all_served(tmp_path: Path) -> None:
    async with SandboxWorld(tmp_path) as world:
        world.provider.knobs.scenario = Scenario(no_code=True)
        daemon = Daemon(world.config, world.socket)
        await daemon.start_ready()
        try:
            order_id = (await daemon.order()).id
            request = pb.WatchRequestsRequest(request_id=order_id, after_cursor=0)
            calls = [daemon.stub.WatchRequests(request, timeout=60) for _ in range(AT_ONCE)]
            firsts = await asyncio.gather(*(anext(told(call)) for call in calls))
            assert {update.request.id for update in firsts} == {order_id}
        finally:
            await daemon.stop()
