"""`holdpayd resolve`."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from holdpay.audit.findings import AuditExit
from holdpay.cli.audit import EPILOG, audit_errors, config_option, settings_of

if TYPE_CHECKING:
    from holdpay.config import Settings
    from holdpay.core.events import Resolved

MAX_WORDS_CHARS = 300


@click.command(epilog=EPILOG)
@config_option
@click.argument("order_id", metavar="ORDER")
@click.option("--failed", "is_failed", is_flag=True, help="The money is back, or the prepaid account was not charged.")
@click.option(
    "--settled",
    "preimage",
    is_flag=False,
    flag_value="",
    metavar="[PREIMAGE]",
    help="It is spent; 64 hex digits prove it (- : from stdin). Of a prepaid order, without them: it was charged.",
)
@click.option("--written-off", "is_written_off", is_flag=True, help="Nobody can say. It counts as spent.")
@click.option("--why", metavar="TEXT", help="For the journal. Asked for if not given.")
@click.option("--by", metavar="NAME", help="For the journal. Default: your user name.")
@click.option("--node-retired", is_flag=True, help="The node that paid is gone for good.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def resolve(
    context: click.Context,
    config_path: Path | None,
    order_id: str,
    is_failed: bool,
    preimage: str | None,
    is_written_off: bool,
    why: str | None,
    by: str | None,
    node_retired: bool,
    yes: bool,
) -> None:
    """Say how the payment of an order ended, where lnd cannot say it any more.

    For an order whose record lnd has lost, that was paid from a node that is retired, that was placed for the prepaid
    account and whose reply was lost, or that is quarantined (such an order never closes by itself). Refused while lnd
    itself can still answer. Shows what is known and asks before it writes; holdpayd must be stopped meanwhile.
    """
    if [is_failed, preimage is not None, is_written_off].count(True) != 1:
        raise click.UsageError("Say one of --failed, --settled [PREIMAGE] and --written-off.")
    if not yes and (sys.stdin is None or not sys.stdin.isatty()):
        raise click.UsageError("There is no terminal to ask on. Give --yes and --why.")
    from holdpay.core.events import Resolution, Resolved

    resolution = Resolution.FAILED if is_failed else Resolution.WRITTEN_OFF
    if preimage is not None:
        resolution = Resolution.SETTLED
        preimage = "".join((_line_of_stdin() if preimage == "-" else preimage).split()).lower() or None
    if why is None and yes:
        raise click.UsageError("The journal wants a reason. Give --why TEXT.")
    reason = _words("--why", why if why is not None else click.prompt("Why"))
    said = Resolved(resolution, by=_words("--by", by or _who()), why=reason, preimage=preimage)
    with audit_errors(context):
        settings = settings_of(context, config_path)
        context.exit(_resolve(settings, order_id, said, is_node_retired=node_retired, is_agreed=yes))


def _words(option: str, text: str) -> str:
    line = " ".join(text.split())
    if not line or len(line) > MAX_WORDS_CHARS or not line.isprintable():
        raise click.UsageError(f"{option} wants 1 to {MAX_WORDS_CHARS} printable characters.")
    return line


def _line_of_stdin() -> str:
    if sys.stdin is None:
        raise click.UsageError("Stdin is closed. Hand the preimage over with a pipe or <FILE.")
    return sys.stdin.readline()


def _who() -> str:
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"  # a container's user without a name


def _resolve(settings: Settings, order_id: str, said: Resolved, *, is_node_retired: bool, is_agreed: bool) -> AuditExit:
    """Raises HoldpayError."""
    from holdpay.audit import resolve as core
    from holdpay.clock import SystemClock

    clock, policy = SystemClock(), settings.policy()
    with core.books(settings) as store:
        order = store.get(order_id)
        payment = core.payment_of(order)
        view = asyncio.run(core.look(settings, clock, payment))
        click.echo("\n".join(core.known(order, view, policy, clock.now_ms())))
        if against := core.objection(order, view, said, policy, is_node_retired=is_node_retired):
            raise core.ResolveRefused(against)
        question = f"\nRecord it as {said.resolution.value.replace('_', ' ')}, by {said.by}, because: {said.why}?"
        if not is_agreed and not click.confirm(question):
            click.echo("Nothing was written.")
            return AuditExit.UNRESOLVED
        click.echo(core.outcome(core.record(store, order, said, policy, clock.now_ms())))
    return AuditExit.FINE
