"""The real daemon as a process, and what a client sees of it: for tests on the sandbox and on a real lnd."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import grpc
import grpc.aio

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay._pb.v1 import holdpay_pb2_grpc as pb_grpc

START_TIMEOUT_S = 60.0
ORDER_TIMEOUT_S = 120.0
# A daemon that starts is found at once; gRPC would wait a second or more between two tries, and share that wait.
_CHANNEL_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
)

_keys = itertools.count(1)


def enum_name(message: pb.Order, field: str) -> str:
    """``order.state`` 5 → ``DELIVERED``."""
    enum = message.DESCRIPTOR.fields_by_name[field].enum_type
    assert enum is not None
    value = enum.values_by_number[getattr(message, field)].name
    return value.removeprefix("ORDER_STATE_").removeprefix("HTLC_STATE_").removeprefix("END_")


def pair(order: pb.Order) -> tuple[str, str]:
    """The pair in the model's words: ("PAID", "IN_FLIGHT")."""
    return enum_name(order, "state"), enum_name(order, "htlc")


def is_held(order: pb.Order) -> bool:
    return pair(order) in {("PAID", "IN_FLIGHT"), ("NUMBER_ASSIGNED", "IN_FLIGHT")}


def is_over(order: pb.Order) -> bool:
    return order.terminal


class Daemon:
    """holdpayd on a config.toml; its log goes to ``log_path``, across restarts."""

    def __init__(self, config: Path, socket: Path, environment: Mapping[str, str] | None = None) -> None:
        self.config = config
        self.socket = socket
        self.log_path = config.with_name("daemon.log")
        self.environment = {**os.environ, **(environment or {})}
        self._process: asyncio.subprocess.Process | None = None
        self._channel: grpc.aio.Channel | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def stub(self) -> pb_grpc.HoldpayAsyncStub:
        assert self._channel is not None
        return pb_grpc.HoldpayStub(self._channel)

    @property
    def channel(self) -> grpc.aio.Channel:
        assert self._channel is not None
        return self._channel

    def log(self) -> str:
        return self.log_path.read_text()

    async def start(self) -> None:
        """Returns when it answers. Fails with its log if it does not."""
        await self.launch()
        self.connect()
        deadline_s = asyncio.get_running_loop().time() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self.status()
                return
            assert self._process is not None
            is_late = asyncio.get_running_loop().time() > deadline_s
            if is_late or self._process.returncode is not None:
                raise AssertionError(f"holdpayd did not come up:\n{self.log()}")
            await asyncio.sleep(0.1)

    async def launch(self) -> asyncio.subprocess.Process:
        """Starts the process and waits for nothing."""
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "holdpay.cli.daemon",
                "--config",
                str(self.config),
                stdout=log,
                stderr=log,
                env=self.environment,
            )
        return self._process

    def connect(self) -> None:
        """Opens a channel; the daemon need not be there yet."""
        self._channel = grpc.aio.insecure_channel(f"unix:{self.socket}", options=_CHANNEL_OPTIONS)

    async def wait(self) -> int:
        """The exit code, once the process has ended."""
        assert self._process is not None
        return await self._process.wait()

    async def start_ready(self) -> None:
        """Returns when it also takes orders."""
        await self.start()
        await self.until_ready()

    async def until_ready(self) -> None:
        async with asyncio.timeout(START_TIMEOUT_S):
            while not (await self.status()).ready:
                await asyncio.sleep(0.05)

    async def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """SIGKILL: a crash."""
        await self._end(signal.SIGKILL)

    async def _end(self, number: signal.Signals) -> int:
        if self._channel is not None:
            await self._channel.close()
            self._channel = None
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await self._process.wait()

    async def restart(self) -> None:
        await self.kill()
        await self.start()

    # --- what a client does -------------------------------------------------------------------------------------------

    async def status(self) -> pb.GetStatusResponse:
        return await self.stub.GetStatus(pb.GetStatusRequest(), timeout=10)

    async def order(self, **fields: object) -> pb.Order:
        """Requests a code and returns the order as first recorded; the order goes on by itself."""
        given = {"country": "usa", "service": "openai", "idempotency_key": f"test-{next(_keys)}", **fields}
        call = self.stub.RequestCode(pb.RequestCodeRequest(**given))  # type: ignore[arg-type]
        update = await anext(aiter(call))
        call.cancel()
        return update.order

    async def get(self, order_id: str) -> pb.Order:
        return await self.stub.GetOrder(pb.GetOrderRequest(order_id=order_id), timeout=10)

    async def updates(self, order_id: str, after: int = 0) -> AsyncIterator[pb.OrderUpdate]:
        """Every update of an order, from the journal and then live."""
        call = self.stub.WatchOrders(pb.WatchOrdersRequest(order_id=order_id, after_cursor=after))
        async for update in call:
            yield update

    async def until(
        self, order_id: str, wanted: Callable[[pb.Order], bool], within_s: float = ORDER_TIMEOUT_S
    ) -> pb.Order:
        """The order as it is at the first update that is wanted. Fails with the order if none comes in time."""
        last = pb.Order()
        try:
            async with asyncio.timeout(within_s):
                async for update in self.updates(order_id):
                    last = update.order
                    if wanted(last):
                        return last
        except TimeoutError:
            raise AssertionError(f"not seen within {within_s} s; the order is\n{last}\n{self.log()}") from None
        raise AssertionError(f"the stream ended before; the order is\n{last}\n{self.log()}")

    async def explain(self, order_id: str) -> pb.ExplainOrderResponse:
        return await self.stub.ExplainOrder(pb.ExplainOrderRequest(order_id=order_id), timeout=10)


async def run_cli(socket: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """`holdpay` as a process: exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "holdpay.cli.main",
        "--socket",
        str(socket),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return process.returncode, stdout.decode(), stderr.decode()
