"""`holdpayd payees`."""

from __future__ import annotations

from pathlib import Path

import click

from holdpay.cli.audit import EPILOG, audit_errors, config_option, settings_of

_pubkey = click.argument("pubkey", metavar="PUBKEY")


@click.group(invoke_without_command=True, epilog=EPILOG)
@config_option
@click.pass_context
def payees(context: click.Context, config_path: Path | None) -> None:
    """Show the nodes that were paid, and which are trusted; add one, or remove one.

    With provider.payee_check = "first-use" this record decides which invoices are paid. Works while holdpayd runs.
    """
    if context.invoked_subcommand is not None:
        return
    with audit_errors(context):
        settings = settings_of(context, config_path)
        from holdpay.audit import payees as record

        click.echo("\n".join(record.lines(record.listed(settings))))
        if remark := record.remark(settings):
            click.echo(remark, err=True)


@payees.command()
@config_option
@_pubkey
@click.pass_context
def add(context: click.Context, config_path: Path | None, pubkey: str) -> None:
    """Trust the node PUBKEY."""
    with audit_errors(context):
        settings = settings_of(context, config_path)
        from holdpay.audit import payees as record
        from holdpay.clock import SystemClock

        click.echo(record.add(settings, pubkey, SystemClock().now_ms()))
        if remark := record.remark(settings):
            click.echo(remark, err=True)


@payees.command()
@config_option
@_pubkey
@click.pass_context
def remove(context: click.Context, config_path: Path | None, pubkey: str) -> None:
    """Forget the node PUBKEY: while no node is trusted, the next first use counts again."""
    with audit_errors(context):
        settings = settings_of(context, config_path)
        from holdpay.audit import payees as record

        click.echo(record.remove(settings, pubkey))
