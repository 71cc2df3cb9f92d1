"""`holdpayd doctor` and `holdpayd bake-macaroon`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from holdpay.cli.audit import config_option
from holdpay.cli.configured import complain, given_path
from holdpay.doctor.findings import DoctorExit, exit_code
from holdpay.errors import ConfigError, HoldpayError

_file = click.Path(path_type=Path)
DOCTOR_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {int(code):<4}{code.meaning}" for code in DoctorExit)
BAKE_EPILOG = """\b
Exit codes:
  0   The line was shown, or the macaroon is baked, tried and written.
  1   Nothing was written; the message says why.
  2   The command line cannot be understood.
  78  What the configuration or the options say of lnd cannot be used.
"""


@click.command(epilog=DOCTOR_EPILOG)
@config_option
@click.option("--json", "is_json", is_flag=True, help="One JSON object on stdout.")
@click.pass_context
def doctor(context: click.Context, config_path: Path | None, is_json: bool) -> None:
    """Look whether everything is in place, before the first order and when something is wrong.

    Orders, pays and writes nothing, also beside a running holdpayd. Takes half a minute at most.
    """
    from holdpay.clock import SystemClock
    from holdpay.doctor.examine import examine
    from holdpay.doctor.report import as_json, as_lines
    from holdpay.log import Format, Level, configure

    configure(Format.TEXT, Level.ERROR)
    findings = asyncio.run(examine(given_path(context, config_path), SystemClock()))
    click.echo(as_json(findings) if is_json else "\n".join(as_lines(findings)))
    context.exit(exit_code(findings))


@click.command(name="bake-macaroon", epilog=BAKE_EPILOG)
@config_option
@click.option("--admin-macaroon", type=_file, metavar="FILE", help="lnd's admin.macaroon: used once, never kept.")
@click.option("--save-to", type=_file, metavar="FILE", help="Where to write the new one. It must not exist yet.")
@click.option("--root-key-id", type=click.IntRange(0, 2**63 - 1), metavar="N", help="Revoked by this. Default: 0.")
@click.option("--lnd-address", metavar="HOST:PORT", help="Default: lnd.address of the configuration.")
@click.option("--tls-cert", type=_file, metavar="FILE", help="Default: lnd.tls_cert of the configuration.")
@click.option("--tls-server-name", metavar="NAME", help="Default: lnd.tls_server_name of the configuration.")
@click.pass_context
def bake_macaroon(
    context: click.Context,
    config_path: Path | None,
    admin_macaroon: Path | None,
    save_to: Path | None,
    root_key_id: int | None,
    lnd_address: str | None,
    tls_cert: Path | None,
    tls_server_name: str | None,
) -> None:
    """Show how to bake holdpay's macaroon; or bake it.

    Without --admin-macaroon and --save-to: prints the lncli line. With both: bakes it over gRPC, tries it, and writes
    it with mode 0600.
    """
    if (admin_macaroon is None) != (save_to is None):
        raise click.UsageError("--admin-macaroon and --save-to go together.")
    from holdpay.doctor.bake import bake_into, line

    if admin_macaroon is None or save_to is None:
        click.echo(line(root_key_id))
        return
    given = {"address": lnd_address, "tls_cert": tls_cert, "tls_server_name": tls_server_name}
    try:
        place = _place(context, config_path, {key: value for key, value in given.items() if value is not None})
        click.echo(bake_into(place, admin_macaroon, save_to, root_key_id or 0))
    except ConfigError as error:
        complain(error.problems)
        context.exit(DoctorExit.CONFIG)
    except HoldpayError as error:
        complain([error.message])
        context.exit(DoctorExit.UNEXPECTED)


def _place(context: click.Context, config_path: Path | None, given: dict[str, Any]) -> Any:
    """Where lnd is. Without a configuration the options say it. Raises ConfigError."""
    from holdpay.config import find, load_lnd_place

    path = given_path(context, config_path)
    if path is None:
        try:
            path = find(None)
        except ConfigError:
            path = None
    return load_lnd_place(path, given)
