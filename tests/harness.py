"""The real daemon as a process, and what a client sees of it: for tests on the sandbox and on a real lnd."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

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
    ("grpc.max_reconnect_backoff_ms", 100),
)

_keys = itertools.count(1)


class Seen:
    """A request as tests read it: its own fields, those of its order at the provider, what was delivered, by name."""

    def __init__(self, request: pb.Request | None = None) -> None:
        self.request = pb.Request() if request is None else request
        self.order = self.request.orders[-1] if self.request.orders else pb.Order()

    def __repr__(self) -> str:
        return str(self.request)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.holder(name), name)

    def holder(self, name: str) -> pb.Request | pb.Order:
        return self.request if name in pb.Request.DESCRIPTOR.fields_by_name else self.order

    def has(self, name: str) -> bool:
        """Whether an optional field is there."""
        return self.holder(name).HasField(name)  # type: ignore[arg-type]

    def texts(self, kind: pb.ItemKind.ValueType) -> list[str]:
        return [item.text for item in self.request.items if item.kind == kind]

    @property
    def number(self) -> str:
        """The last. Empty: none came."""
        return (self.texts(pb.ITEM_KIND_NUMBER) or [""])[-1]

    @property
    def earlier_numbers(self) -> list[str]:
        return self.texts(pb.ITEM_KIND_NUMBER)[:-1]

    @property
    def code(self) -> str:
        """The first. Empty: none came."""
        return (self.texts(pb.ITEM_KIND_CODE) or [""])[0]

    @property
    def code_may_lack_zeros(self) -> bool:
        return any(item.may_lack_zeros for item in self.request.items if item.kind == pb.ITEM_KIND_CODE)

    @property
    def later_codes(self) -> list[str]:
        return self.texts(pb.ITEM_KIND_CODE)[1:]

    @property
    def unread(self) -> str:
        """Empty: every reply could be read."""
        return "".join(self.texts(pb.ITEM_KIND_UNREAD))

    @property
    def messages(self) -> list[str]:
        return self.texts(pb.ITEM_KIND_MESSAGE)

    @property
    def sendings(self) -> list[str]:
        return self.texts(pb.ITEM_KIND_SENDING)


def enum_name(seen: Seen, field: str) -> str:
    """``seen.state`` 5 → ``DELIVERED``."""
    enum = seen.holder(field).DESCRIPTOR.fields_by_name[field].enum_type
    assert enum is not None
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return enum.values_by_number[getattr(seen, field)].name.removeprefix(prefix)


def pair(order: Seen) -> tuple[str, str]:
    """The pair in the model's words: ("PAID", "IN_FLIGHT")."""
    return enum_name(order, "state"), enum_name(order, "htlc")


def is_held(order: Seen) -> bool:
    return pair(order) in {("PAID", "IN_FLIGHT"), ("NUMBER_ASSIGNED", "IN_FLIGHT")}


def fresh_key() -> str:
    """An idempotency key that no other request of the run has."""
    return f"test-{next(_keys)}"


_OF_CODE = ("countries", "strategy", "service", "real_phone", "ref")


def code_request(**fields: Any) -> pb.SubmitRequest:
    """For a code of OpenAI in the USA, if nothing else is named."""
    given = {"country": "usa", "service": "openai", **fields}
    given.setdefault("countries", [given.pop("country")])
    spec = pb.CodeSpec(**{name: given.pop(name) for name in _OF_CODE if name in given})
    return pb.SubmitRequest(code=spec, **given)


def is_over(order: Seen) -> bool:
    return bool(order.terminal)


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

    async def order(self, **fields: Any) -> Seen:
        """Requests a code and returns the order as first recorded; the order goes on by itself."""
        return await self.submit(code_request(**{"idempotency_key": fresh_key(), **fields}))

    async def submit(self, request: pb.SubmitRequest) -> Seen:
        """The request as first recorded."""
        call = self.stub.Submit(request)
        update = await anext(told(call))
        call.cancel()
        return Seen(update.request)

    async def get(self, request_id: str) -> Seen:
        return Seen(await self.stub.GetRequest(pb.GetRequestRequest(request_id=request_id), timeout=10))

    async def listed(self, **fields: Any) -> list[Seen]:
        """Newest first."""
        found = await self.stub.ListRequests(pb.ListRequestsRequest(**fields))
        return [Seen(request) for request in found.requests]

    async def every(self) -> list[Seen]:
        """All that there is, newest first."""
        found, token = [], ""
        while True:
            page = await self.stub.ListRequests(pb.ListRequestsRequest(page_size=100, page_token=token))
            found += [Seen(request) for request in page.requests]
            token = page.next_page_token
            if not token:
                return found

    async def cancel(self, request_id: str) -> pb.CancelRequestResponse:
        return await self.stub.CancelRequest(pb.CancelRequestRequest(request_id=request_id))

    async def updates(self, request_id: str, after: int = 0) -> AsyncIterator[pb.RequestUpdate]:
        """Every update of a request, from the journal and then live."""
        call = self.stub.WatchRequests(pb.WatchRequestsRequest(request_id=request_id, after_cursor=after))
        async for update in told(call):
            yield update

    async def until(self, request_id: str, wanted: Callable[[Seen], bool], within_s: float = ORDER_TIMEOUT_S) -> Seen:
        """The request as it is at the first update that is wanted. Fails with it if none comes in time."""
        last = Seen()
        try:
            async with asyncio.timeout(within_s):
                async for update in self.updates(request_id):
                    last = Seen(update.request)
                    if wanted(last):
                        return last
        except TimeoutError:
            raise AssertionError(f"not seen within {within_s} s; it is\n{last}\n{self.log()}") from None
        raise AssertionError(f"the stream ended before; it is\n{last}\n{self.log()}")

    async def explain(self, request_id: str) -> pb.ExplainRequestResponse:
        return await self.stub.ExplainRequest(pb.ExplainRequestRequest(request_id=request_id), timeout=10)


async def told(call: AsyncIterable[pb.RequestUpdates]) -> AsyncIterator[pb.RequestUpdate]:
    """The updates of a stream, one by one."""
    async for message in call:
        for update in message.updates:
            yield update


async def run_cli(
    socket: Path, *arguments: str, environment: Mapping[str, str] | None = None, stdin: str = ""
) -> tuple[int, str, str]:
    """`holdpay` as a process: exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "holdpay.cli.main",
        "--socket",
        str(socket),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    stdout, stderr = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, stdout.decode(), stderr.decode()
