"""The main job on the sandbox, as a story: a code, a refund, an SMS, a rented number with its messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import click

from holdpay.sandbox.tricks import play
from holdpay.sandbox.world import SandboxWorld

PACE = 10.0
"""The provider's clock runs this much faster, so that the story takes seconds."""
PRICE_SAT = 2000
START_TIMEOUT_S = 20.0
STEP_TIMEOUT_S = 60.0

EXIT_CODE_RECEIVED = 0
EXIT_REFUNDED = 5


class DemoFailed(Exception):
    """The story went otherwise than it should."""


@dataclass(frozen=True, slots=True)
class _Cli:
    socket: Path

    async def show(self, *arguments: str, expect: int = 0) -> None:
        """Runs `holdpay`; all that it says goes to the terminal as it happens."""
        click.secho(f"\n$ holdpay {' '.join(arguments)}", bold=True)
        sys.stdout.flush()
        await self._run(*arguments, expect=expect, stdout=None)

    async def follow(self, *arguments: str, lines: int) -> None:
        """Runs `holdpay` until it has printed so many lines, then interrupts it.

        With SIGTERM, which it takes as ^C: in the background a shell has SIGINT ignored, here and in what we start.
        """
        click.secho(f"\n$ holdpay {' '.join(arguments)}", bold=True)
        process = await asyncio.create_subprocess_exec(*self._command(*arguments), stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        try:
            async with asyncio.timeout(STEP_TIMEOUT_S):
                for _ in range(lines):
                    click.echo((await process.stdout.readline()).decode().rstrip())
                process.terminate()
                await process.wait()
        except TimeoutError:
            process.kill()
            raise DemoFailed(f"`holdpay {arguments[0]}` took more than {STEP_TIMEOUT_S:g} s.") from None

    def _command(self, *arguments: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "holdpay.cli.main", "--socket", str(self.socket), *arguments)

    async def ask(self, *arguments: str) -> str:
        """Runs `holdpay`. Returns its stdout."""
        return await self._run(*arguments, expect=0, stdout=asyncio.subprocess.PIPE)

    async def _run(self, *arguments: str, expect: int, stdout: int | None) -> str:
        process = await asyncio.create_subprocess_exec(*self._command(*arguments), stdout=stdout)
        try:
            said, _ = await asyncio.wait_for(process.communicate(), STEP_TIMEOUT_S)
        except TimeoutError:
            process.kill()
            raise DemoFailed(f"`holdpay {arguments[0]}` took more than {STEP_TIMEOUT_S:g} s.") from None
        if process.returncode != expect:
            raise DemoFailed(f"`holdpay {arguments[0]}` ended with {process.returncode}, not with {expect}.")
        return said.decode() if said is not None else ""


async def tell() -> None:
    """The whole story. Raises DemoFailed."""
    with tempfile.TemporaryDirectory(prefix="holdpay-demo-") as name:
        directory = Path(name)
        async with SandboxWorld(directory, pace=PACE) as world, _daemon(world):
            click.secho("A simulated lnd and a simulated sms4sats run, and the real daemon between them.", fg="cyan")
            world.provider.knobs.price_sat = PRICE_SAT
            cli = _Cli(world.socket)
            await cli.show("status")

            click.secho("\n1. An order that gets its code. Only the code itself goes to stdout.", fg="cyan")
            await cli.show("code", "usa", "openai", "--until", "settled", expect=EXIT_CODE_RECEIVED)

            click.secho(
                "\n2. An order whose SMS never comes: the hold invoice is canceled, the money is back.", fg="cyan"
            )
            await play(world, "gives-up=60")
            await cli.show("code", "germany", "telegram", "--until", "settled", expect=EXIT_REFUNDED)

            click.secho("\n3. An SMS that is sent. It is charged when it was.", fg="cyan")
            await cli.show("sms", "send", "+19871234567", "See you at eight.")

            click.secho("\n4. A rented number, and the first two messages to it.", fg="cyan")
            await cli.show("rent", "england")
            *_, rental_id = await _order_ids(cli)
            await cli.follow("rent", "messages", rental_id, "--follow", lines=2)

            click.secho("\n5. What the daemon says of all four.", fg="cyan")
            for order_id in await _order_ids(cli):
                await cli.show("orders", "explain", order_id)


async def _order_ids(cli: _Cli) -> list[str]:
    answer = await cli.ask("orders", "list", "--json")
    return [request["id"] for request in reversed(json.loads(answer)["requests"])]


@contextlib.asynccontextmanager
async def _daemon(world: SandboxWorld) -> AsyncIterator[None]:
    """The real daemon as a process of its own; its log is shown only if it fails."""
    log_path = world.directory / "daemon.log"
    with log_path.open("wb") as log:
        command = (sys.executable, "-m", "holdpay.cli.daemon", "--config", str(world.config))
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    try:
        await _until_ready(world, process)
        yield
    except DemoFailed:
        click.echo(log_path.read_text(), err=True)
        raise
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def _until_ready(world: SandboxWorld, process: asyncio.subprocess.Process) -> None:
    """Asks the daemon itself, as a user would."""
    deadline = time.monotonic() + START_TIMEOUT_S
    cli = _Cli(world.socket)
    while process.returncode is None and time.monotonic() < deadline:
        if world.socket.exists():
            with contextlib.suppress(DemoFailed):
                await cli.ask("status")
                return
        await asyncio.sleep(0.1)
    raise DemoFailed("The daemon did not come up.")


def main() -> None:
    """Exits 0 if the story went as told."""
    began = time.monotonic()
    try:
        asyncio.run(tell())
    except DemoFailed as error:
        click.secho(f"The demo failed: {error}", fg="red", err=True)
        sys.exit(1)
    click.secho(
        f"\nAll as it should be, in {time.monotonic() - began:.0f} s. Nothing is left behind but .venv.", fg="cyan"
    )


if __name__ == "__main__":
    main()
