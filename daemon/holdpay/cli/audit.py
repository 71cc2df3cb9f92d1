"""`holdpayd check` and `holdpayd recover`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from holdpay.audit.findings import AuditExit, exit_code
from holdpay.cli.configured import complain, given_path, load
from holdpay.errors import ConfigError, HoldpayError

if TYPE_CHECKING:
    from holdpay.audit.recover import Survey
    from holdpay.clock import SystemClock
    from holdpay.config import Settings

EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {int(code):<4}{code.meaning}" for code in AuditExit)

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, readable=False),  # load() says why it cannot be read
    metavar="PATH",
    help="The configuration. Default: as for holdpayd itself.",
)


def settings_of(context: click.Context, config_path: Path | None) -> Settings:
    """Raises ConfigError. From here on whatever libraries log is redacted, also a traceback."""
    _, settings = load(given_path(context, config_path))
    from holdpay.log import Level, configure

    configure(settings.daemon.log_format, Level.WARNING)
    return settings


@contextlib.contextmanager
def audit_errors(context: click.Context, otherwise: AuditExit = AuditExit.WRONG) -> Iterator[None]:
    """Whatever a person can mend is told, and ends the process with its exit code; ``otherwise`` if it has none."""
    try:
        yield
    except ConfigError as error:
        complain(error.problems)
        context.exit(AuditExit.CONFIG)
    except HoldpayError as error:
        complain([error.message])
        from holdpay.lock import AlreadyRunning

        context.exit(AuditExit.ALREADY_RUNNING if isinstance(error, AlreadyRunning) else otherwise)


def _named(context: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """An option's callback: a file that is there. One that this user may not look at is a finding."""
    with contextlib.suppress(PermissionError):
        if value is not None and not value.is_file():
            raise click.BadParameter(f"There is no file {value}. Name a copy of the database.")
    return value


@click.command(epilog=EPILOG)
@config_option
@click.option("--offline", is_flag=True, help="Do not ask lnd.")
@click.option(
    "--database",
    type=click.Path(path_type=Path),
    callback=_named,
    metavar="FILE",
    help="Look at a copy, such as `holdpayd backup` makes. Default: that of the daemon.",
)
@click.option("--json", "is_json", is_flag=True, help="One JSON object on stdout.")
@click.pass_context
def check(
    context: click.Context, config_path: Path | None, offline: bool, database: Path | None, is_json: bool
) -> None:
    """Hold the journal against itself and against lnd, and say what is unresolved and what to do.

    Reads only, also while holdpayd runs.
    """
    with audit_errors(context, AuditExit.UNEXPECTED):
        settings = settings_of(context, config_path)
        from holdpay.audit.check import check as run
        from holdpay.audit.report import as_json, as_lines
        from holdpay.clock import SystemClock

        report = asyncio.run(run(settings, SystemClock(), database, is_offline=offline))
    click.echo(as_json(report) if is_json else "\n".join(as_lines(report)))
    context.exit(exit_code(report.findings))


@click.command(epilog=EPILOG)
@config_option
@click.option("--write", "is_write", is_flag=True, help="Record what was found; without it, it is only shown.")
@click.pass_context
def recover(context: click.Context, config_path: Path | None, is_write: bool) -> None:
    """Rebuild a lost database from lnd's payments to the provider's node and the provider's word for each.

    Pays nothing. Writes only with --write, while holdpayd is stopped, and only where no order is recorded.
    """
    with audit_errors(context):
        context.exit(_recover(settings_of(context, config_path), is_write))


def _recover(settings: Settings, is_write: bool) -> AuditExit:
    """Raises HoldpayError."""
    from holdpay.audit.database import is_there
    from holdpay.audit.recover import database_path, refuse_if_used, write
    from holdpay.clock import SystemClock
    from holdpay.lock import StateLock

    path, clock = database_path(settings), SystemClock()
    is_there(path)  # raises where this user cannot know: nothing is shown as lost then
    if is_write:
        with StateLock(settings.daemon.state_dir):
            refuse_if_used(path)
            survey = _survey(settings, clock)
            if survey.rebuilt:
                write(path, survey, settings.policy(), clock.now_ms())
                click.echo(
                    f"\n{path} is written. Start holdpayd: it goes on with the open orders and pays nothing again."
                )
        return _verdict(survey)
    survey = _survey(settings, clock)
    click.echo("\nNothing was written.")
    refuse_if_used(path)
    click.echo("To record these, stop holdpayd and run `holdpayd recover --write`.")
    return _verdict(survey)


def _survey(settings: Settings, clock: SystemClock) -> Survey:
    from holdpay.audit.recover import survey
    from holdpay.audit.table import table_lines, unusable_line

    found = asyncio.run(survey(settings, clock, lambda text: click.echo(text, err=True)))
    if not found.rebuilt:
        click.echo("lnd has no payment to the provider's node from which an order could be rebuilt.")
    else:
        click.echo("\n".join(table_lines(found.rebuilt)))
    for unusable in found.unusable:
        click.echo(unusable_line(unusable))
    if found.provider_problem:
        complain([f"{found.provider_problem} So orders are shown without its word; holdpayd asks it later."])
    return found


def _verdict(found: Survey) -> AuditExit:
    is_whole = not (found.unusable or found.provider_problem)
    return AuditExit.FINE if is_whole else AuditExit.UNRESOLVED
