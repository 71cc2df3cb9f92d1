"""`holdpay` as a process, against the real daemon on the sandbox: what a script relies on."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdpay.cli.exit_codes import ExitCode
from holdpay.sandbox.sms4sats_knobs import Scenario
from holdpay.sandbox.tricks import play
from holdpay.sandbox.world import SandboxWorld
from tests.harness import Daemon, run_cli

PACE = 20.0
PATIENCE_S = 180
HELD = Scenario(code_after_s=1e9)
"""Until ``deliver``."""


@pytest.fixture
async def world() -> AsyncIterator[SandboxWorld]:
    with tempfile.TemporaryDirectory(prefix="holdpay-cli-") as folder:
        async with SandboxWorld(Path(folder), pace=PACE) as world:
            yield world


@pytest.fixture
async def daemon(world: SandboxWorld) -> AsyncIterator[Daemon]:
    daemon = Daemon(world.config, world.socket)
    await daemon.start_ready()
    yield daemon
    await daemon.stop()


async def deliver(world: SandboxWorld) -> None:
    """The only order gets its code, and is settled: a moment that the test chooses."""
    (order,) = world.provider.orders.values()
    order.code = "246810"
    await world.payee.settle(order.preimage)


@contextlib.asynccontextmanager
async def started(socket: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "holdpay.cli.main", "--socket", str(socket), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def read_until(process: asyncio.subprocess.Process, text: str) -> None:
    assert process.stderr is not None
    while text not in (line := (await process.stderr.readline()).decode()):
        assert line, f"stderr ended without {text!r}"


async def test_a_daemon_killed_meanwhile_is_found_again_and_nothing_is_ordered_twice(
    world: SandboxWorld, daemon: Daemon
) -> None:
    world.provider.knobs.scenario = HELD
    async with started(world.socket, "code", "usa", "openai") as process:
        await read_until(process, "waiting for the SMS")
        await daemon.kill()
        await read_until(process, "connecting again")
        await daemon.start()
        await deliver(world)
        stdout, stderr = await process.communicate()
    assert process.returncode == ExitCode.DONE
    assert stdout.strip().isdigit()
    assert b"The daemon is back." in stderr
    assert [order.code for order in await daemon.listed()] == [stdout.decode().strip()]


async def test_a_daemon_that_stops_orderly_is_found_again(world: SandboxWorld, daemon: Daemon) -> None:
    world.provider.knobs.scenario = HELD
    async with started(world.socket, "code", "usa", "openai", "--until", "settled") as process:
        await read_until(process, "waiting for the SMS")
        await daemon.stop()
        await read_until(process, "it is stopping")
        await daemon.start()
        await deliver(world)
        stdout, stderr = await process.communicate()
    assert process.returncode == ExitCode.DONE
    assert stdout.strip().isdigit()
    assert b"done: the code arrived and is paid" in stderr


async def test_the_number_first_and_its_code_by_a_second_command(world: SandboxWorld, daemon: Daemon) -> None:
    exit_code, number, _ = await run_cli(world.socket, "code", "usa", "openai", "--until", "number")
    assert exit_code == ExitCode.DONE
    assert number.startswith("+")
    (order,) = await daemon.listed()
    exit_code, code, _ = await run_cli(world.socket, "orders", "wait", order.id[:4])
    assert exit_code == ExitCode.DONE
    assert code.strip() == (await daemon.get(order.id)).code


async def test_a_refund_has_its_exit_code_and_the_same_key_replays_it(world: SandboxWorld, daemon: Daemon) -> None:
    await play(world, "gives-up=30")
    for _ in range(2):
        exit_code, stdout, _ = await run_cli(world.socket, "code", "usa", "openai", "--key", "k1")
        assert (exit_code, stdout) == (ExitCode.NOT_DELIVERED, "")
    assert len(await daemon.listed()) == 1


@pytest.mark.parametrize(
    ("arguments", "expected", "words"),
    [
        (["usaa", "openai"], ExitCode.REFUSED_INPUT, "USA"),
        (["usa", "opnai"], ExitCode.REFUSED_INPUT, "OpenAI"),
        (["usa", "openai", "--max-price", "1"], ExitCode.PRICE_TOO_HIGH, "--max-price"),
    ],
)
async def test_a_refusal_has_its_exit_code_and_helps(
    world: SandboxWorld, daemon: Daemon, arguments: list[str], expected: ExitCode, words: str
) -> None:
    exit_code, stdout, stderr = await run_cli(world.socket, "code", *arguments)
    assert (exit_code, stdout) == (expected, "")
    assert words in stderr.splitlines()[-1]


async def test_an_unusable_lnd_is_not_now_and_nothing_is_ordered(world: SandboxWorld, daemon: Daemon) -> None:
    await play(world, "lnd-locked")
    async with asyncio.timeout(PATIENCE_S):
        while (await daemon.status()).ready:
            await asyncio.sleep(0.05)
    exit_code, _, stderr = await run_cli(world.socket, "code", "usa", "openai")
    assert exit_code == ExitCode.REFUSED_NOW
    assert "lnd's wallet is locked" in stderr
    exit_code, status, _ = await run_cli(world.socket, "status")
    assert exit_code == ExitCode.REFUSED_NOW
    assert "not taken now" in status


async def test_without_a_daemon_nothing_is_ordered(world: SandboxWorld) -> None:
    exit_code, stdout, stderr = await run_cli(world.socket, "code", "usa", "openai")
    assert (exit_code, stdout) == (ExitCode.UNREACHABLE, "")
    assert "systemctl start holdpayd" in stderr
