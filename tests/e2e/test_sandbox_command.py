"""`holdpayd sandbox` as a person uses it: it runs, tells how to go on, and takes tricks from another terminal."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from holdpay.sandbox.control import NoSandbox, play_remotely
from holdpay.sandbox.tricks import TRICKS, UnknownTrick, play
from holdpay.sandbox.world import SandboxWorld
from tests.harness import Daemon, enum_name, is_over

COMMAND = (sys.executable, "-m", "holdpay.cli.daemon", "sandbox")


async def _holdpayd_sandbox(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest_asyncio.fixture
async def running(tmp_path: Path) -> AsyncIterator[Path]:
    """A sandbox that another process runs."""
    options = ("--dir", str(tmp_path), "--pace", "300", "--trick", "price=1500")
    process = await asyncio.create_subprocess_exec(*COMMAND, "run", *options, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while b"^C ends it" not in await process.stdout.readline():
            pass
    yield tmp_path
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(ProcessLookupError):
        await process.wait()


async def test_a_daemon_buys_on_a_running_sandbox_and_tricks_change_its_luck(running: Path) -> None:
    code, said = await _holdpayd_sandbox("play", "--dir", str(running), "no-number")
    assert (code, said.strip()) == (0, TRICKS["no-number"].help)
    daemon = Daemon(running / "config.toml", running / "holdpay.sock")
    await daemon.start_ready()
    try:
        unlucky = await daemon.until((await daemon.order()).id, is_over)
        lucky = await daemon.until((await daemon.order()).id, is_over)
    finally:
        await daemon.stop()
    assert enum_name(unlucky, "end") == "REFUNDED"
    assert enum_name(lucky, "end") == "FULFILLED"
    assert lucky.amount_msat == 1_500_000, "the trick of the start"


async def test_a_value_is_echoed(running: Path) -> None:
    code, said = await _holdpayd_sandbox("play", "--dir", str(running), "price=2500")
    assert (code, said.strip()) == (0, f"price is now 2,500 sat: {TRICKS['price'].help}")


async def test_a_second_sandbox_in_the_same_folder_is_refused(running: Path) -> None:
    code, said = await _holdpayd_sandbox("run", "--dir", str(running))
    assert code == 1
    assert "runs in" in said
    assert "already" in said
    code, _ = await _holdpayd_sandbox("play", "--dir", str(running), "price=2500")
    assert code == 0, "the first one goes on"


async def test_of_two_sandboxes_that_start_at_the_same_moment_one_is_refused(tmp_path: Path) -> None:
    command = (*COMMAND, "run", "--dir", str(tmp_path / "new"))
    started = [
        await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        for _ in range(2)
    ]
    ends = [asyncio.create_task(process.wait()) for process in started]
    try:
        async with asyncio.timeout(60):
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            (refused,) = (process for process in started if process.returncode is not None)
            assert refused.stdout is not None
            assert b"already" in await refused.stdout.read()
            (runs,) = (process for process in started if process is not refused)
            assert runs.stdout is not None
            while b"^C ends it" not in (line := await runs.stdout.readline()):
                assert line
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await asyncio.gather(*ends)


async def test_a_wrong_trick_is_explained(running: Path) -> None:
    code, said = await _holdpayd_sandbox("play", "--dir", str(running), "no-nmber")
    assert code == 1
    assert "holdpayd sandbox tricks" in said


async def test_without_a_sandbox_play_says_how_to_start_one(tmp_path: Path) -> None:
    code, said = await _holdpayd_sandbox("play", "--dir", str(tmp_path), "no-number")
    assert code == 1
    assert "holdpayd sandbox run" in said


async def test_every_trick_is_listed_and_can_be_played(tmp_path: Path) -> None:
    _, listed = await _holdpayd_sandbox("tricks")
    async with SandboxWorld(tmp_path, pace=50) as world:
        for name, trick in TRICKS.items():
            assert name in listed
            if name != "lnd-started":
                await play(world, f"{name}=1" if trick.value else name)
            if name in {"lnd-stopped", "lnd-killed"}:
                await play(world, "lnd-started")


@pytest.mark.parametrize("text", ["nonsense", "price", "price=cheap", "no-number=1"])
async def test_what_is_no_trick_is_refused(tmp_path: Path, text: str) -> None:
    async with SandboxWorld(tmp_path, pace=50) as world:
        with pytest.raises(UnknownTrick):
            await play(world, text)


def test_without_what_only_the_sandbox_needs_it_says_so_and_the_daemon_still_loads(tmp_path: Path) -> None:
    """As on a Python for which coincurve has no wheel."""
    absent = "import sys; sys.modules['coincurve'] = None; import holdpay.cli.main, holdpay.app, holdpay.audit.check\n"
    loaded = subprocess.run([sys.executable, "-c", absent], capture_output=True, text=True, check=False)
    assert (loaded.returncode, loaded.stderr) == (0, "")
    hidden = (
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'coincurve' else real(name, *rest)\n"
        "from holdpay.cli.daemon import cli; cli(['sandbox', 'run'])"
    )
    said = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert said.returncode == 1
    assert said.stderr.startswith("Error: The sandbox needs coincurve, which this installation does not have.")
    assert "Python 3.11 to 3.13" in said.stderr


@pytest.mark.parametrize("command", ["run", "play"])
async def test_a_folder_that_cannot_be_used_is_named_with_what_to_do(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").touch()
    words = ("no-number",) if command == "play" else ()
    code, said = await _holdpayd_sandbox(command, "--dir", str(tmp_path / "file" / "x"), *words)
    told = {
        "run": f"Error: {tmp_path}/file/x cannot be used (Not a directory). Give a --dir in which you may write.\n",
        "play": f"Error: No sandbox runs in {tmp_path}/file/x. Start one with `holdpayd sandbox run`.\n",
    }
    assert (code, said) == (1, told[command])


def test_a_sandbox_of_somebody_else_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(NoSandbox, match="Run this as the user who started the sandbox"):
        play_remotely(tmp_path, "no-number")
