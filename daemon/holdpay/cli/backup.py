"""`holdpayd backup` and `holdpayd restore`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from holdpay.audit.findings import AuditExit
from holdpay.cli.audit import EPILOG, audit_errors, config_option, settings_of

_path = click.Path(path_type=Path)


@click.command(epilog=EPILOG)
@config_option
@click.argument("target", metavar="FILE|FOLDER", type=_path)
@click.option("--keep", type=click.IntRange(min=1), metavar="N", help="Into FOLDER: delete all but the newest N there.")
@click.option("--without-secrets", is_flag=True, help="Leave out what was delivered of closed orders.")
@click.pass_context
def backup(
    context: click.Context, config_path: Path | None, target: Path, keep: int | None, without_secrets: bool
) -> None:
    """Copy the database into FILE, or under a name of the time into FOLDER, also while holdpayd runs.

    The copy is consistent, checked and 0600, and there whole or not at all. No file is overwritten.
    """
    if keep is not None and not os.path.isdir(target):  # noqa: PTH112 - see audit.backup
        raise click.UsageError("--keep needs a FOLDER that is there.")
    with audit_errors(context):
        settings = settings_of(context, config_path)
        from holdpay.audit.backup import backup as run
        from holdpay.audit.backup import lines
        from holdpay.clock import SystemClock

        made = run(settings, SystemClock(), target, keep=keep, is_without_secrets=without_secrets)
        for line in lines(made):
            click.echo(line)


@click.command(epilog=EPILOG)
@config_option
@click.argument("file", metavar="FILE", type=_path)
@click.option("--without-lnd", is_flag=True, help="Do not ask lnd whether anything was paid after the copy.")
@click.pass_context
def restore(context: click.Context, config_path: Path | None, file: Path, without_lnd: bool) -> None:
    """Put a copy in the place of the database, while holdpayd is stopped.

    Refuses a copy that lnd knows to be too old. The database that is there is kept under another name. Of the orders
    that are open in the copy nothing is placed or paid any more; they are followed to their end.
    """
    with audit_errors(context):
        settings = settings_of(context, config_path)
        from holdpay.audit.restore import lines
        from holdpay.audit.restore import restore as run
        from holdpay.clock import SystemClock

        done = run(settings, SystemClock(), file, is_without_lnd=without_lnd)
        for line in lines(done, is_without_lnd=without_lnd):
            click.echo(line)
        context.exit(AuditExit.UNRESOLVED if done.open_orders else AuditExit.FINE)
