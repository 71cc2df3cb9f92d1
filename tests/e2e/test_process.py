"""The daemon as a process: how it starts, what it leaves on disk, what it tells systemd, how it stops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import stat
import sys
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.sandbox.lnd_rpc import WalletState
from holdpay.sandbox.world import SandboxWorld
from tests.e2e.shop import PACE, QUICK, Books, Shop, open_shop
from tests.harness import START_TIMEOUT_S, Daemon, code_request, enum_name, is_held, is_over, run_cli, told

MAX_RSS_KIB = 80 * 1024
SHUTDOWN_WAIT_S = 40
"""Far more than a stop takes that waits for nobody, also on a slow machine."""

pytestmark = pytest.mark.asyncio(loop_scope="module")


@contextlib.asynccontextmanager
async def closed_shop(directory: Path) -> AsyncIterator[Shop]:
    """A sandbox whose daemon is not started yet."""
    async with SandboxWorld(directory, pace=PACE, extra_config=QUICK) as world:
        shop = Shop(world, Daemon(world.config, world.socket), Books(world.lnd.network))
        try:
            yield shop
        finally:
            with contextlib.suppress(AssertionError):  # it was never started
                await shop.daemon.kill()


# --- starting with an lnd that cannot be used -----------------------------------------------------------------------

UNUSABLE = {
    "unreachable": (None, "does not answer", "lnd.address"),
    "starting": (WalletState.UNLOCKED, "lnd is starting", "Wait"),
}


@pytest.mark.parametrize("state", UNUSABLE)
async def test_it_starts_and_serves_without_a_usable_lnd_says_so_and_refuses_orders(tmp_path: Path, state: str) -> None:
    up_to, what, remedy = UNUSABLE[state]
    async with closed_shop(tmp_path) as shop:
        await shop.world.lnd.stop()
        if up_to is not None:
            await shop.world.lnd.start(up_to)
        await shop.daemon.start()

        await is_refused(shop.daemon, state, what, remedy)


async def is_refused(daemon: Daemon, state: str, what: str, remedy: str) -> None:
    """The status says why no order would be taken, so does the refusal, and nothing is recorded."""
    async with asyncio.timeout(START_TIMEOUT_S):
        while "not asked yet" in (status := await daemon.status()).lnd.detail:
            await asyncio.sleep(0.05)
    assert (status.lnd.state, status.ready) == (state, False)
    assert what in status.not_ready_reason
    assert remedy in status.not_ready_reason
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await daemon.order()
    assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
    assert refusal.value.details() == status.not_ready_reason
    assert not (await daemon.listed())


# --- a broken database -----------------------------------------------------------------------------------------------


async def test_a_database_that_cannot_be_written_ends_it_and_the_order_goes_on_after_the_repair(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        shop.next_order(number_after_s=100, code_after_s=250)
        order = await shop.daemon.order()
        await shop.daemon.until(order.id, is_held)
        database = sqlite3.connect(tmp_path / "state" / "holdpay.db", isolation_level=None)
        database.execute("ALTER TABLE journal RENAME TO mislaid")

        async with asyncio.timeout(60):
            assert await shop.daemon.wait() == 74
        assert "the daemon must end" in shop.daemon.log()
        database.execute("ALTER TABLE mislaid RENAME TO journal")
        database.close()
        await shop.daemon.start()
        done = await shop.daemon.until(order.id, is_over)

        assert (enum_name(done, "end"), done.dispatches) == ("FULFILLED", 1)
        await shop.audit()


# --- stopping -------------------------------------------------------------------------------------------------------


def patiently(config: str) -> str:
    return config.replace("[daemon]\n", f"[daemon]\nshutdown_wait_s = {SHUTDOWN_WAIT_S}\n")


async def test_a_stop_is_announced_to_every_open_stream_and_a_restart_goes_on(tmp_path: Path) -> None:
    async with open_shop(tmp_path, edit_config=patiently) as shop:
        order = held = await shop.held(idempotency_key="held")
        stub = shop.daemon.stub
        request = code_request(idempotency_key="held")
        streams: list[AsyncIterable[pb.RequestUpdates]] = [
            stub.WatchRequests(pb.WatchRequestsRequest()),
            stub.WatchRequests(pb.WatchRequestsRequest(after_cursor=0)),
            stub.Submit(request),
            stub.WatchRequests(pb.WatchRequestsRequest(request_id=order.id, after_cursor=0)),
        ]

        seen: list[list[pb.RequestUpdate]] = [[] for _ in streams]

        async def read(stream: AsyncIterable[pb.RequestUpdates], into: list[pb.RequestUpdate]) -> None:
            async for update in told(stream):
                into.append(update)  # noqa: PERF401 - others read it meanwhile

        reading = [asyncio.create_task(read(*each)) for each in zip(streams, seen, strict=True)]
        async with asyncio.timeout(60):
            while not all(seen[1:]):  # they have read what there is; the first one, that there is nothing
                await asyncio.sleep(0.05)
        began_s = asyncio.get_running_loop().time()
        os.kill(shop.daemon.pid, signal.SIGTERM)
        await asyncio.gather(*reading)  # each ends well, none with an error
        exit_code = await shop.daemon.wait()
        took_s = asyncio.get_running_loop().time() - began_s

        assert exit_code == 0
        assert took_s < SHUTDOWN_WAIT_S, "nobody was waited for"
        for updates in seen:
            assert [update.shutting_down for update in updates] == [False] * (len(updates) - 1) + [True]
            assert updates[-1].cursor == max(update.cursor for update in seen[1])
            assert not updates[-1].HasField("request")
        assert seen[0][0].shutting_down, "nothing came after it began"
        await shop.daemon.start()
        await shop.deliver(order)
        done = await shop.daemon.until(order.id, is_over)
        assert (enum_name(done, "end"), done.dispatches) == ("FULFILLED", 1)
        assert done.payment_hash == held.payment_hash
        await shop.audit()


async def test_a_stream_that_does_not_end_is_waited_for_and_a_second_signal_leaves_at_once(tmp_path: Path) -> None:
    async with open_shop(tmp_path, edit_config=patiently) as shop:
        health: Any = health_pb2_grpc.HealthStub(shop.daemon.channel)
        watching = aiter(health.Watch(health_pb2.HealthCheckRequest(service="")))
        await anext(watching)
        os.kill(shop.daemon.pid, signal.SIGTERM)
        assert (await anext(watching)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(shop.daemon.wait()), timeout=0.5)

        os.kill(shop.daemon.pid, signal.SIGTERM)
        async with asyncio.timeout(SHUTDOWN_WAIT_S / 2):
            assert await shop.daemon.wait() == 128 + signal.SIGTERM


# --- systemd --------------------------------------------------------------------------------------------------------


async def test_systemd_is_told_ready_when_the_socket_answers_then_lnds_state_and_every_pass(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        loop = asyncio.get_running_loop()

        async def until(word: str) -> tuple[list[str], str]:
            """The messages up to the first one with this word, and that one."""
            before = []
            async with asyncio.timeout(START_TIMEOUT_S):
                while word not in (message := (await loop.sock_recv(systemd, 4096)).decode()):
                    before.append(message)
            return before, message

        async with closed_shop(tmp_path) as shop:
            await shop.world.lnd.lock()
            shop.daemon.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
            await shop.daemon.launch()
            earlier, message = await until("READY=1")
            assert not any("WATCHDOG" in said for said in earlier)
            shop.daemon.connect()
            assert (await shop.daemon.status()).version  # at the first try
            assert str(shop.world.socket) in message

            assert "STATUS=lnd" in (await until("is locked"))[1]
            await is_refused(shop.daemon, "locked", "wallet is locked", "lncli unlock")
            await shop.play("lnd-unlocked")
            between, message = await until("alice is ready")
            assert between.count("WATCHDOG=1") >= 1
            assert message.startswith("STATUS=")
            assert (await until("WATCHDOG=1"))[1] == "WATCHDOG=1"
            assert (await shop.buy()).end == pb.END_FULFILLED
            os.kill(shop.daemon.pid, signal.SIGTERM)
            _, message = await until("STOPPING=1")
            assert "payments in flight go on" in message


# --- in an odd environment ------------------------------------------------------------------------------------------

PROXY_NAMES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "ftp_proxy")
DEAD_PROXIES = {name: "http://127.0.0.1:9" for lower in PROXY_NAMES for name in (lower, lower.upper())}
ODD = {**DEAD_PROXIES, "no_proxy": "", "NO_PROXY": ""}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def odd_shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    """Its daemon has a umask that forbids nothing, proxies that nobody serves, and no rich: structlog loads that where
    it is, 3 MB, and only a tool of the tests brings it."""
    without = tmp_path_factory.mktemp("without")
    (without / "rich.py").write_text("raise ImportError\n")
    before = os.umask(0)
    try:
        environment = {**ODD, "PYTHONPATH": str(without)}
        async with open_shop(tmp_path_factory.mktemp("odd"), environment=environment) as shop:
            os.umask(before)
            yield shop
    finally:
        os.umask(before)


async def test_it_is_small(odd_shop: Shop) -> None:
    lines = Path(f"/proc/{odd_shop.daemon.pid}/status").read_text().splitlines()
    rss_kib = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    print(f"holdpayd has {rss_kib / 1024:.1f} MB resident")
    assert rss_kib <= MAX_RSS_KIB


async def test_the_proxies_of_the_environment_change_nothing(odd_shop: Shop) -> None:
    exit_code, stdout, stderr = await run_cli(
        odd_shop.world.socket, "code", "usa", "openai", "--until", "settled", environment=ODD
    )
    assert (exit_code, stdout.strip().isdecimal()) == (0, True), stderr


async def test_nobody_else_can_read_what_it_keeps_even_with_an_open_umask(odd_shop: Shop) -> None:
    await odd_shop.buy()
    state = odd_shop.world.directory / "state"

    modes = {path.name: f"{stat.S_IMODE(path.stat().st_mode):o}" for path in (state, *state.iterdir())}

    assert modes.pop("state") == "700"
    assert {"holdpay.db", "holdpay.db-wal", "lock"} <= set(modes)
    assert set(modes.values()) == {"600"}
    assert f"{stat.S_IMODE(odd_shop.world.socket.stat().st_mode):o}" == "660"


async def test_a_second_daemon_on_the_same_state_or_socket_is_refused_and_harms_nothing(
    odd_shop: Shop, tmp_path: Path
) -> None:
    shop, first = odd_shop, odd_shop.world.config.read_text()
    state, inode = str(shop.world.directory / "state"), shop.world.socket.stat().st_ino
    shop.next_order(code_after_s=100)
    order = await shop.daemon.order()
    for key, changed in (
        ("state_dir", first.replace(str(shop.world.socket), str(tmp_path / "other.sock"))),
        ("socket", first.replace(state, str(tmp_path / "other-state"))),
    ):
        second = tmp_path / f"same-{key}.toml"
        second.write_text(changed)
        second.chmod(0o600)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "holdpay.cli.daemon", "--config", str(second)), stderr=asyncio.subprocess.PIPE
        )
        _, stderr = await process.communicate()
        (line,) = [line for line in stderr.decode().splitlines() if line.startswith("holdpayd: ")]
        assert process.returncode == 75
        assert f"Another holdpayd (pid {shop.daemon.pid})" in line
        assert f"its own daemon.{key}" in line

    assert shop.world.socket.stat().st_ino == inode
    done = await shop.daemon.until(order.id, is_over)
    assert (enum_name(done, "end"), done.dispatches) == ("FULFILLED", 1)
