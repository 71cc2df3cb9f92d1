"""`holdpayd sandbox`: both simulated servers, for trying holdpay without a node and without money."""

from __future__ import annotations

import asyncio
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import click

DEFAULT_DIRECTORY = Path("holdpay-sandbox")

_directory = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_DIRECTORY,
    show_default=True,
    help="Where its files are.",
)


@click.group()
def sandbox() -> None:
    """A simulated lnd and a simulated sms4sats, to try holdpay without a node and without money."""
    missing = [name for name in ("coincurve", "cryptography", "h11") if find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f"The sandbox needs {' and '.join(missing)}, which this installation does not have."
            " Install holdpay[sandbox] on Python 3.11 to 3.13: there is no coincurve for a later one yet."
        )


@sandbox.command()
@_directory
@click.option(
    "--pace",
    type=click.FloatRange(0.1, 1000),
    default=1.0,
    show_default=True,
    help="How much faster the provider's clock runs.",
)
@click.option("--trick", "tricks", multiple=True, metavar="NAME[=VALUE]", help="Play it at the start; can be repeated.")
def run(directory: Path, pace: float, tricks: tuple[str, ...]) -> None:
    """Start both servers and serve until ^C."""
    from holdpay.lock import FileLock
    from holdpay.sandbox.tricks import UnknownTrick

    directory = directory.absolute()
    lock = FileLock(directory / "sandbox.lock")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        asyncio.run(_run(directory, pace, tricks))
    except BlockingIOError:
        raise click.ClickException(
            f"A sandbox runs in {directory} already. End it first, or give another --dir."
        ) from None
    except UnknownTrick as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        if error.filename is None:
            raise click.ClickException(
                f"The sandbox could not go on ({error}). Mend that, and run it again."
            ) from error
        why = f"{error.filename} cannot be used ({error.strerror or type(error).__name__})"
        raise click.ClickException(f"{why}. Give a --dir in which you may write.") from error
    finally:
        lock.release()


async def _run(directory: Path, pace: float, tricks: tuple[str, ...]) -> None:
    from holdpay.sandbox.tricks import play
    from holdpay.sandbox.world import SandboxWorld

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with SandboxWorld(directory, pace=pace) as world:
        for trick in tricks:
            click.echo(f"trick: {await play(world, trick)}")
        holdpay, holdpayd = (Path(sys.executable).with_name(name) for name in ("holdpay", "holdpayd"))
        click.echo(
            f"A simulated lnd serves at {world.lnd.target}, a simulated sms4sats at {world.provider.url}.\n"
            f"Start the daemon:   {holdpayd} --config {world.config}\n"
            f"Order a code:       {holdpay} --socket {world.socket} code usa openai\n"
            f"Play a trick:       {holdpayd} sandbox play --dir {directory} no-number\n"
            "^C ends it."
        )
        await stop.wait()


@sandbox.command()
@_directory
@click.argument("trick", metavar="NAME[=VALUE]")
def play(directory: Path, trick: str) -> None:
    """Make something go wrong in a running sandbox."""
    from holdpay.sandbox.control import NoSandbox, play_remotely
    from holdpay.sandbox.tricks import UnknownTrick

    try:
        click.echo(play_remotely(directory.absolute(), trick))
    except (NoSandbox, UnknownTrick) as error:
        raise click.ClickException(str(error)) from error


@sandbox.command()
def tricks() -> None:
    """List what can go wrong."""
    from holdpay.sandbox.tricks import TRICKS

    for name, trick in TRICKS.items():
        click.echo(f"{name + (f'={trick.value}' if trick.value else ''):26}{trick.help}")
