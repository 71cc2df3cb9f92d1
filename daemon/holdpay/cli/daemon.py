"""`holdpayd`: starts the daemon, or checks its configuration. What a start costs is imported only when it is needed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

import click

from holdpay import __version__
from holdpay.cli.audit import check, recover
from holdpay.cli.backup import backup, restore
from holdpay.cli.completion import completion, refuse_half_a_completion
from holdpay.cli.configured import complain, load
from holdpay.cli.doctor import bake_macaroon, doctor
from holdpay.cli.output import OutputLost, guard_stdout
from holdpay.cli.payees import payees
from holdpay.cli.resolve import resolve
from holdpay.cli.sandbox import sandbox
from holdpay.errors import ConfigError, DatabaseGone, HoldpayError, InvariantViolation, StoreError

if TYPE_CHECKING:
    from holdpay.config import Settings

# gRPC's C core writes to stderr past the log and its redaction, unless this is set before its import.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


class DaemonExit(IntEnum):
    """Why holdpayd ended (sysexits.h, as systemd names them). The unit starts it again after all but CONFIG."""

    STOPPED = 0
    UNEXPECTED = 1
    USAGE = 2
    """The command line (click)."""
    INVARIANT = 70
    STORE = 74
    ALREADY_RUNNING = 75
    """Another daemon, or what listens where we would, may end; then the next start succeeds."""
    CONFIG = 78
    """A person has to mend something before the next start."""


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Exit codes:
  0   stopped on request, or the configuration is fine
  1   something unexpected; the log says what
  2   the command line cannot be understood
  70  holdpay contradicted itself and stopped before doing harm
  74  the database could not be written
  75  another holdpayd uses the state directory or the socket, or webhook.listen or metrics.listen is taken
  78  the configuration cannot be used; everything wrong with it is listed. Or
      the state directory was taken away: put it back before the next start
""",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, readable=False),  # load() says why it cannot be read
    metavar="PATH",
    help="The configuration. Default: /etc/holdpay/config.toml, then ~/.config/holdpay/config.toml.",
)
@click.option("--check-config", is_flag=True, help="Say what is wrong with the configuration, and stop.")
@click.option(
    "--print-config-example",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda context, _, is_wanted: _print_example(context) if is_wanted else None,
    help="Print a configuration with every key, its default and its reason, and stop.",
)
@click.version_option(__version__, prog_name="holdpayd")
@click.pass_context
def cli(context: click.Context, config_path: Path | None, check_config: bool) -> None:
    """Buys from sms4sats with hold invoices, through your own LND node. Clients use `holdpay`."""
    if context.invoked_subcommand is None:
        context.exit(_check(config_path) if check_config else _serve(config_path))


cli.add_command(backup)
cli.add_command(bake_macaroon)
cli.add_command(check)
cli.add_command(completion)
cli.add_command(doctor)
cli.add_command(payees)
cli.add_command(recover)
cli.add_command(resolve)
cli.add_command(restore)
cli.add_command(sandbox)


def main() -> None:
    """The console script."""
    refuse_half_a_completion("holdpayd")
    guard_stdout()
    try:
        cli(prog_name="holdpayd")
    except OutputLost as lost:
        complain([lost.sentence] if lost.sentence else [])
        sys.exit(DaemonExit.UNEXPECTED)


def _print_example(context: click.Context) -> None:
    from importlib.resources import files

    click.echo(files("holdpay").joinpath("data", "config.example.toml").read_text("utf-8"), nl=False)
    context.exit()


def _check(config_path: Path | None) -> int:
    try:
        path, settings = load(config_path)
    except ConfigError as error:
        complain(error.problems)
        return DaemonExit.CONFIG
    for line in _summary(path, settings):
        click.echo(line)
    for warning in settings.warnings():
        click.echo(f"warning: {warning}")
    for name, why in settings.unusable_hooks().items():
        click.echo(f"warning: hook.{name} is not usable: {why}.")
    return DaemonExit.STOPPED


def _serve(config_path: Path | None) -> int:
    try:
        path, settings = load(config_path)
        from holdpay.app import run

        return run(settings, path)
    except ConfigError as error:
        complain(error.problems)
        return DaemonExit.CONFIG
    except HoldpayError as error:
        complain([error.message])
        return _exit_code(error)


def _exit_code(error: HoldpayError) -> DaemonExit:
    from holdpay.lock import AlreadyRunning

    if isinstance(error, AlreadyRunning):
        return DaemonExit.ALREADY_RUNNING
    if isinstance(error, DatabaseGone):
        return DaemonExit.CONFIG
    if isinstance(error, StoreError):
        return DaemonExit.STORE
    return DaemonExit.INVARIANT if isinstance(error, InvariantViolation) else DaemonExit.UNEXPECTED


def _summary(path: Path, settings: Settings) -> Iterable[str]:
    """What was found. No secrets: a proxy may hold a password."""
    lnd, provider, limits = settings.lnd, settings.provider, settings.limits
    yield f"{path} is fine."
    yield f"lnd       {lnd.address} ({lnd.network or 'any network'})"
    yield f"          certificate {lnd.tls_cert or 'of the system'}, macaroon {lnd.macaroon}"
    yield f"provider  {provider.base_url}{', by a proxy' if provider.proxy else ''}"
    if provider.api_key_file:
        yield f"          API key {provider.api_key_file}"
    yield f"state     {settings.daemon.state_dir}"
    yield f"socket    {settings.daemon.socket}"
    if settings.webhook.listen:
        yield f"webhooks  {settings.webhook.listen}, reached as {settings.webhook.public_url}"
    if settings.metrics.listen:
        yield f"metrics   {settings.metrics.listen}"
    yield (
        f"limits    {limits.max_open_orders:,} open orders, {limits.max_pending_sat:,} sat pending,"
        f" {limits.max_spend_per_day_sat:,} sat a day, {settings.payment.max_price_sat:,} sat an order"
    )


if __name__ == "__main__":
    main()
