"""The ground gives way under the real daemon: its disk, its database, its clock, lnd, the provider, its own time.

docs/operations.md has a row for each. lnd's new certificate is in test_scenarios.py; what takes an hour, and what
clocks do to every stage of an order, is on virtual time in tests/unit/engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.sandbox.http_server import Request, Response
from holdpay.sandbox.lnd_rpc import WalletState
from holdpay.store.database import BUSY_TIMEOUT_S, MIN_FREE_BYTES
from tests.e2e.shop import Shop, open_shop
from tests.harness import Daemon, Seen, enum_name, is_held, is_over, pair

MIB = 2**20
EXIT_STORE = 74
CLOCK_HOOK = """
import time
from pathlib import Path
real = time.time_ns
path = Path(__file__).with_name("clock_is_wrong_by_s")
time.time_ns = lambda: real() + int(path.read_text()) * 10**9
"""

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mall(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    """For what leaves the daemon and lnd as they were."""
    directory = tmp_path_factory.mktemp("mall")
    (directory / "sitecustomize.py").write_text(CLOCK_HOOK)
    (directory / "clock_is_wrong_by_s").write_text("0")
    path = os.pathsep.join([str(directory), os.environ.get("PYTHONPATH", "")])
    async with open_shop(directory, environment={"PYTHONPATH": path}) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def shop(mall: Shop) -> AsyncIterator[Shop]:
    await mall.daemon.until_ready()
    yield mall
    await mall.audit()


async def over(shop: Shop, order: Seen) -> str:
    """How it ends; paid once in any case."""
    done = await shop.daemon.until(order.id, is_over)
    assert (done.dispatches, shop.books.htlcs(done.payment_hash)) == (1, 1)
    return enum_name(done, "end")


async def refusal(daemon: Daemon) -> str:
    """Why a new order is refused, now."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await daemon.order(country="germany")
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    return refused.value.details() or ""


async def exit_code(daemon: Daemon) -> int:
    async with asyncio.timeout(60):
        return await daemon.wait()


async def lnd_state(daemon: Daemon, wanted: str) -> pb.GetStatusResponse:
    async with asyncio.timeout(60):
        while (status := await daemon.status()).lnd.state != wanted:
            await asyncio.sleep(0.05)
    return status


async def new_line(daemon: Daemon, words: str, count: int) -> None:
    """Returns when the log has more than ``count`` times these words."""
    async with asyncio.timeout(60):
        while daemon.log().count(words) <= count:
            await asyncio.sleep(0.05)


def last_words(daemon: Daemon) -> str:
    """The sentence for people at the end of the log."""
    return [line for line in daemon.log().splitlines() if line.startswith("holdpayd: ")][-1]


# --- the disk -------------------------------------------------------------------------------------------------------


class SmallDisk:
    """A file system of its own for the state directory: little more than the room that new orders want."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, *, leave_bytes: int = 0) -> None:
        with self._ballast.open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
            while (free_bytes := shutil.disk_usage(self.path).free - leave_bytes) > 0:
                ballast.write(bytes(min(free_bytes, MIB)))

    def clear(self) -> None:
        self._ballast.unlink()

    def remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", self.path], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    path = tmp_path / "state"
    path.mkdir()
    options = f"size={MIN_FREE_BYTES + 6 * MIB},mode=0700"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield SmallDisk(path)
    subprocess.run(["umount", "--lazy", path], check=True)


def answer_createorder_later(shop: Shop) -> asyncio.Event:
    """The provider takes its time with new orders, until this is set."""
    provider, then = shop.world.provider, asyncio.Event()
    endpoints = provider._endpoints

    async def late(request: Request) -> Response:
        await then.wait()
        return await endpoints["POST", "/createorder"](request)

    provider._endpoints = {**endpoints, ("POST", "/createorder"): late}
    return then


async def test_a_disk_that_is_nearly_full_takes_no_new_order_and_the_open_ones_go_on(
    tmp_path: Path, disk: SmallDisk
) -> None:
    async with open_shop(tmp_path) as shop:
        order = await shop.held()
        disk.fill(leave_bytes=MIN_FREE_BYTES - MIB)

        assert "Make room on the disk" in await refusal(shop.daemon)
        status = await shop.daemon.status()
        assert (status.ready, status.lnd.state) == (False, "ready")
        assert "Make room on the disk" in status.not_ready_reason
        assert shop.world.provider.requests["/createorder"] == 1
        await shop.deliver(order)
        assert await over(shop, order) == "FULFILLED"
        disk.clear()
        assert enum_name(await shop.buy(), "end") == "FULFILLED"


async def test_a_full_disk_ends_the_daemon_and_nothing_is_paid_that_is_not_recorded(
    tmp_path: Path, disk: SmallDisk
) -> None:
    async with open_shop(tmp_path) as shop:
        order = await shop.held()
        is_full = answer_createorder_later(shop)
        unpaid = await shop.daemon.order(country="germany")
        disk.fill()
        is_full.set()

        assert await exit_code(shop.daemon) == EXIT_STORE
        assert "database or disk is full. Make room on the disk" in last_words(shop.daemon)
        assert shop.sends == 1
        await shop.deliver(order)
        disk.fill()  # what it left, lest the write-ahead log's room lets the next commit through
        await shop.daemon.launch()
        assert await exit_code(shop.daemon) == EXIT_STORE, "full is full, also after a restart; never 78: no more tries"
        assert shop.sends == 1

        disk.clear()
        await shop.daemon.start()
        assert await over(shop, order) == "FULFILLED"
        assert await over(shop, unpaid) == "FULFILLED"
        await shop.audit()


async def test_a_disk_that_fails_ends_the_daemon_and_the_order_goes_on_afterwards(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        order = await shop.held()
        hard = resource.prlimit(shop.daemon.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(shop.daemon.pid, resource.RLIMIT_FSIZE, (1, hard))  # each write is an error, its log's too
        await shop.deliver(order)

        assert await exit_code(shop.daemon) == EXIT_STORE
        await shop.daemon.start()
        assert await over(shop, order) == "FULFILLED"


async def test_a_state_directory_that_is_read_only_is_told_and_the_order_goes_on_once_it_is_not(
    tmp_path: Path, disk: SmallDisk
) -> None:
    async with open_shop(tmp_path) as shop:
        order = await shop.held()
        await shop.daemon.kill()
        disk.remount("ro")

        await shop.daemon.launch()
        assert await exit_code(shop.daemon) == EXIT_STORE
        assert f"{disk.path} cannot be written (Read-only file system)" in last_words(shop.daemon)
        disk.remount("rw")
        await shop.deliver(order)
        await shop.daemon.start()
        assert await over(shop, order) == "FULFILLED"


# --- the database ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(shop: Shop) -> Iterator[None]:
    """Another program writes, and takes its time."""
    other = sqlite3.connect(shop.world.directory / "state" / "holdpay.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


async def test_a_database_that_is_locked_for_a_moment_delays_everything_and_harms_nothing(shop: Shop) -> None:
    order = await shop.held()
    with locked(shop):
        await shop.deliver(order)
        await asyncio.sleep(BUSY_TIMEOUT_S / 4)
    assert await over(shop, order) == "FULFILLED"


async def test_a_database_that_stays_locked_ends_the_daemon_and_the_order_goes_on_afterwards(shop: Shop) -> None:
    order = await shop.held()
    with locked(shop):
        await shop.deliver(order)
        assert await exit_code(shop.daemon) == EXIT_STORE
    assert "database is locked. Another program holds it" in last_words(shop.daemon)
    await shop.daemon.start()
    assert await over(shop, order) == "FULFILLED"


async def test_a_database_that_is_moved_away_ends_the_daemon_and_nothing_is_ordered_until_it_is_back(
    tmp_path: Path,
) -> None:
    async with open_shop(tmp_path) as shop:
        order = await shop.held()
        state, away = tmp_path / "state", tmp_path / "away"
        away.mkdir()
        for file in state.glob("holdpay.db*"):
            file.rename(away / file.name)

        with contextlib.suppress(grpc.aio.AioRpcError):  # the look at the files may come first
            await shop.daemon.order(country="germany")
        assert await exit_code(shop.daemon) == EXIT_STORE
        assert "moved, removed or replaced while holdpayd ran" in last_words(shop.daemon)
        await shop.daemon.launch()  # as systemd would
        assert await exit_code(shop.daemon) == EXIT_STORE
        assert "it was lost" in last_words(shop.daemon)
        assert (shop.world.provider.requests["/createorder"], shop.sends) == (1, 1)

        for file in away.iterdir():
            file.replace(state / file.name)
        await shop.daemon.start()
        await shop.deliver(order)
        assert await over(shop, order) == "FULFILLED"
        await shop.audit()


async def test_a_database_that_is_replaced_ends_a_daemon_that_has_nothing_to_write(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        path = tmp_path / "state" / "holdpay.db"
        shutil.copyfile(path, tmp_path / "state" / "other").replace(path)
        assert await exit_code(shop.daemon) == EXIT_STORE
        assert "is another file than the one that is open" in last_words(shop.daemon)


async def test_a_damaged_database_is_refused_at_the_start_untouched_and_a_copy_goes_on(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        order = await shop.held()
        await shop.daemon.kill()
        path = tmp_path / "state" / "holdpay.db"
        copy = tmp_path / "copy.db"
        with contextlib.closing(sqlite3.connect(path)) as database, contextlib.closing(sqlite3.connect(copy)) as target:
            database.backup(target)
        whole = copy.read_bytes()
        damaged = whole[: len(whole) // 2] + b"\xde\xad" * (len(whole) // 4)
        path.write_bytes(damaged)

        await shop.daemon.launch()
        assert await exit_code(shop.daemon) == EXIT_STORE
        words = last_words(shop.daemon)
        assert str(path) in words
        assert "Keep the file" in words
        assert "`holdpayd recover`" in words
        assert path.read_bytes() == damaged
        await shop.deliver(order)
        path.write_bytes(whole)
        await shop.daemon.start()
        assert await over(shop, order) == "FULFILLED"


# --- the clock ------------------------------------------------------------------------------------------------------


@pytest.fixture
def wrong_clock(mall: Shop) -> Iterator[Callable[[int], None]]:
    """Sets the daemon's wall clock, forward or back by so many seconds."""
    path = mall.world.directory / "clock_is_wrong_by_s"

    def set_clock(seconds: int) -> None:
        fresh = path.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.replace(path)  # the daemon reads it at any moment

    yield set_clock
    set_clock(0)


@pytest.mark.parametrize("step_s", [-24 * 3600, 24 * 3600], ids=["back", "forward"])
async def test_a_clock_that_is_set_changes_nothing_for_a_running_daemon_nor_for_the_next(
    shop: Shop, wrong_clock: Callable[[int], None], step_s: int
) -> None:
    first, second = await shop.held(), await shop.held()
    told = shop.daemon.log().count("the wall clock was set")
    wrong_clock(step_s)
    await new_line(shop.daemon, "the wall clock was set", told)
    await shop.deliver(first)
    assert await over(shop, first) == "FULFILLED"
    assert abs((await shop.daemon.get(first.id)).closed_at_ms / 1000 - time.time()) < 60

    await shop.daemon.restart()  # and takes the new time over
    assert abs((await shop.daemon.status()).started_at_ms / 1000 - step_s - time.time()) < 60
    await shop.deliver(second)
    assert await over(shop, second) == "FULFILLED"
    wrong_clock(0)
    await shop.daemon.restart()


# --- lnd ------------------------------------------------------------------------------------------------------------


async def test_a_revoked_macaroon_is_told_open_streams_live_on_and_a_new_one_goes_on(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        lnd = shop.world.lnd
        first, second, third = await shop.held(), await shop.held(), await shop.held()
        lnd.revoke(lnd.macaroon)

        await shop.deliver(first)
        assert await over(shop, first) == "FULFILLED", "its payment stream was open before"
        await shop.daemon.restart()
        status = await lnd_state(shop.daemon, "denied")
        assert not status.ready
        for text in (status.not_ready_reason, await refusal(shop.daemon)):
            assert "does not accept the macaroon" in text
            assert "then restart holdpayd" in text
        await shop.deliver(second)
        known = await shop.daemon.until(second.id, lambda order: bool(order.code))
        assert (known.terminal, pair(known)) == (False, ("DELIVERED", "IN_FLIGHT"))

        lnd.bake(lnd.macaroon.name)
        await shop.daemon.restart()
        assert await over(shop, second) == "FULFILLED"
        await shop.give_back(third)
        assert await over(shop, third) == "REFUNDED"
        await shop.audit()


async def test_lnd_that_is_locked_at_boot_keeps_nobody_waiting_and_all_goes_on_once_it_is_unlocked(
    tmp_path: Path,
) -> None:
    async with open_shop(tmp_path) as shop:
        order = await shop.held()
        await shop.daemon.kill()
        await shop.world.lnd.restart(WalletState.LOCKED)

        await shop.daemon.start()  # a unit that is not ready in a minute would be killed
        status = await lnd_state(shop.daemon, "locked")
        assert "lncli unlock" in status.not_ready_reason
        assert "lncli unlock" in await refusal(shop.daemon)
        await shop.deliver(order)
        known = await shop.daemon.until(order.id, lambda now: bool(now.code))
        await asyncio.sleep(3)
        assert (known.terminal, (await shop.daemon.get(order.id)).terminal) == (False, False)

        await shop.play("lnd-unlocked")
        assert await over(shop, order) == "FULFILLED"
        await shop.audit()


async def test_another_node_in_lnds_place_is_told_also_by_a_daemon_that_starts_and_is_never_asked(
    tmp_path: Path,
) -> None:
    async with open_shop(tmp_path) as shop:
        lnd = shop.world.lnd
        order = await shop.held()
        await shop.daemon.kill()
        await lnd.kill()
        ours = lnd.replace_node()
        await lnd.start()

        await shop.daemon.start()
        status = await lnd_state(shop.daemon, "wrong-node")
        assert ours.pubkey[:16] in status.not_ready_reason
        assert "Point lnd.address at that node again" in await refusal(shop.daemon)
        await shop.deliver(order)
        known = await shop.daemon.until(order.id, lambda now: bool(now.code))
        assert not known.terminal
        assert lnd.node.db.all() == []

        await lnd.kill()
        lnd.replace_node(node=ours)
        await lnd.start()
        assert await over(shop, order) == "FULFILLED"


async def test_a_payment_stream_that_hangs_is_asked_anew_at_once_when_the_provider_is_ahead(shop: Shop) -> None:
    settled, refunded = await shop.held(), await shop.held()
    await shop.play("hung-stream")
    await shop.deliver(settled)
    await shop.give_back(refunded)
    assert await over(shop, settled) == "FULFILLED"
    assert await over(shop, refunded) == "REFUNDED"


async def test_a_payment_stream_that_hangs_is_asked_anew_in_time_when_the_provider_is_silent_too(
    tmp_path: Path,
) -> None:
    async with open_shop(
        tmp_path, edit_config=lambda text: text.replace("[payment]", "[payment]\nretrack_s = 2")
    ) as shop:
        order = await shop.held()
        await shop.play("hung-stream")
        await shop.world.payee.settle(shop.world.provider.orders[order.payment_hash].preimage)
        charged = await shop.daemon.until(order.id, lambda now: enum_name(now, "htlc") == "SETTLED", within_s=60)
        assert pair(charged) == ("NUMBER_ASSIGNED", "SETTLED")


# --- the provider, and time -----------------------------------------------------------------------------------------


async def test_a_provider_that_is_down_is_waited_for(shop: Shop) -> None:
    delivered, refunded = await shop.held(), await shop.held(has_number=False)
    await shop.world.provider.stop()
    polls = shop.polls
    await shop.deliver(delivered)
    await shop.daemon.until(delivered.id, lambda now: enum_name(now, "htlc") == "SETTLED")
    async with asyncio.timeout(60):
        while "cannot be reached" not in (status := await shop.daemon.status()).provider.last_error:
            await asyncio.sleep(0.05)
    await asyncio.sleep(4)  # and it goes on asking
    assert (status.open_orders, status.money.settled_orders) == (1, 1)
    await shop.give_back(refunded)
    back = await shop.daemon.until(refunded.id, lambda now: enum_name(now, "htlc") == "FAILED")
    assert (back.terminal, shop.polls) == (False, polls)

    await shop.world.provider.start()
    assert await over(shop, delivered) == "FULFILLED"
    assert await over(shop, refunded) == "REFUNDED"


async def test_a_daemon_that_was_frozen_goes_on_where_it_was(shop: Shop) -> None:
    settled, refunded, held = await shop.held(), await shop.held(), await shop.held()
    os.kill(shop.daemon.pid, signal.SIGSTOP)
    await shop.deliver(settled)
    await shop.give_back(refunded)
    await asyncio.sleep(8)
    os.kill(shop.daemon.pid, signal.SIGCONT)

    assert await over(shop, settled) == "FULFILLED"
    assert await over(shop, refunded) == "REFUNDED"
    assert is_held(await shop.daemon.get(held.id))
    await shop.deliver(held)
    assert await over(shop, held) == "FULFILLED"
