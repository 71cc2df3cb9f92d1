"""`holdpay code`: orders an activation code and waits for it."""

from __future__ import annotations

import os

import click

from holdpay.cli.app import App, pass_app
from holdpay.cli.params import MAX_INT64, complete_country, duration_s

UNTIL = click.Choice(["number", "code", "settled"])
timeout_option = click.option(
    "--timeout",
    "timeout_s",
    callback=duration_s,
    metavar="DURATION",
    default="25m",
    show_default=True,
    help="Stop waiting then; the order goes on.",
)


@click.command(short_help="Order an activation code and wait for it.")
@click.argument("country", shell_complete=complete_country)
@click.argument("service")
@click.option(
    "--max-price",
    "max_price_sat",
    type=click.IntRange(min=1, max=MAX_INT64),
    metavar="SAT",
    help="Pay no invoice above this. (Nor one that is more than 2 % above the quoted price, in any case.)",
)
@click.option(
    "--max-fee",
    "max_fee_sat",
    type=click.IntRange(min=0, max=MAX_INT64),
    metavar="SAT",
    help="Total routing fee limit.",
)
@timeout_option
@click.option(
    "--until",
    type=UNTIL,
    default="code",
    show_default=True,
    help="What to print and wait for; `settled` prints the code, then waits for the end.",
)
@click.option("--no-wait", is_flag=True, help="Print the order's id as soon as it is accepted, and leave.")
@click.option("--key", help="Idempotency key: the same request with the same key is one order.  [default: made up]")
@click.option("--force", is_flag=True, help="Order even if the provider shows no stock.")
@click.option("--json", "as_json", is_flag=True, help="Print each update as one JSON object on stdout.")
@pass_app
@click.pass_context
def code(
    ctx: click.Context,
    app: App,
    *,
    country: str,
    service: str,
    max_price_sat: int | None,
    max_fee_sat: int | None,
    timeout_s: float,
    until: str,
    no_wait: bool,
    key: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Order an activation code of SERVICE for a phone number of COUNTRY.

    COUNTRY is a name, an alias or a number as in `holdpay countries`; SERVICE a short code or a name as in
    `holdpay services COUNTRY`. Progress goes to stderr and only the code to stdout, so that
    CODE=$(holdpay code usa openai) works. Leaving does not stop the order: `holdpay orders wait` goes on.
    """
    from holdpay._pb.v1 import holdpay_pb2 as pb
    from holdpay.cli.feed import Feed
    from holdpay.cli.follow import Follower, Until, make_view

    if no_wait and ctx.get_parameter_source("until") is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("--no-wait and --until exclude each other.")
    request = pb.RequestCodeRequest(
        country=country,
        service=service,
        max_price_sat=max_price_sat,
        max_fee_sat=max_fee_sat,
        idempotency_key=f"cli-{os.urandom(8).hex()}" if key is None else key,
        force=force,
    )
    view = make_view(app, as_json=as_json)
    feed = Feed(
        app=app,
        say=view.note,
        started_ms=app.clock.now_ms(),
        request=request,
        deadline_s=app.clock.monotonic_s() + timeout_s,
    )
    wanted = Until.ACCEPTED if no_wait else Until(until)
    ctx.exit(Follower(app, feed, view, wanted).run())
