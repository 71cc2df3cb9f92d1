"""The group of all commands. Nothing here may import grpc at start: `holdpay --help` must be quick."""

from __future__ import annotations

from typing import Any

import click

import holdpay
from holdpay.cli import render
from holdpay.cli.account import account
from holdpay.cli.app import App, Clock
from holdpay.cli.budget import budget
from holdpay.cli.catalog import countries, prices, rentals, services
from holdpay.cli.code import code
from holdpay.cli.completion import completion
from holdpay.cli.exit_codes import ExitCode
from holdpay.cli.failure import Failure
from holdpay.cli.hooks import hooks
from holdpay.cli.orders import orders
from holdpay.cli.rent import rent
from holdpay.cli.send import email, sms
from holdpay.cli.stats import stats
from holdpay.cli.status import status
from holdpay.cli.top.command import top
from holdpay.cli.vet import vet

PROGRAM = "holdpay"
COMPLETE_VARIABLE = "_HOLDPAY_COMPLETE"

EPILOG = "\b\nExit codes:\n" + "\n".join(f"{code_:>5}  {code_.meaning}" for code_ in ExitCode)


class Holdpay(click.Group):
    """A command that fails ends with a sentence and a documented exit code; ^C needs no sentence."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Failure as failure:
            render.note(f"Error: {render.plain(str(failure))}")
            ctx.exit(failure.exit_code)
        except UnicodeEncodeError:
            # What the shell hands over byte by byte, and gRPC cannot send as text.
            render.note("Error: The command line is not valid UTF-8. Set a UTF-8 locale, or write it without accents.")
            ctx.exit(ExitCode.REFUSED_INPUT)
        except KeyboardInterrupt:
            ctx.exit(ExitCode.INTERRUPTED)


@click.group(
    cls=Holdpay, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}
)
@click.option(
    "--socket",
    envvar="HOLDPAY_SOCKET",
    metavar="PATH",
    help="The daemon's socket.  [env: HOLDPAY_SOCKET; default: /run/holdpay/holdpay.sock, then the same in "
    "$XDG_RUNTIME_DIR]",
)
@click.version_option(holdpay.__version__, prog_name=PROGRAM)
@click.pass_context
def cli(ctx: click.Context, *, socket: str | None) -> None:
    """Buy from sms4sats through your own lnd: activation codes, rented numbers, SMS and e-mails that it sends.

    A client of the daemon holdpayd.
    """
    clock = ctx.find_object(Clock) or Clock()
    ctx.obj = App(socket, clock)


for command in (
    code,
    rent,
    sms,
    email,
    account,
    orders,
    countries,
    services,
    rentals,
    prices,
    vet,
    budget,
    stats,
    hooks,
    status,
    top,
    completion,
):
    cli.add_command(command)
