"""`holdpay code`: orders an activation code and waits for it."""

from __future__ import annotations

import click

from holdpay.cli.app import App, pass_app
from holdpay.cli.kinds import KINDS, Until
from holdpay.cli.ordering import Ordering, ordering, prepaid_option, ref_option
from holdpay.cli.params import complete_country, complete_service


@click.command(short_help="Order an activation code and wait for it.")
@click.argument("country", shell_complete=complete_country)
@click.argument("service", shell_complete=complete_service)
@ordering
@click.option(
    "--until",
    type=click.Choice([until.value for until in sorted(KINDS["code"].untils)]),
    default=Until.CODE.value,
    show_default=True,
    help="What to print and wait for; `settled` prints the code, then waits for the end.",
)
@click.option("--real-phone", "is_real_phone", is_flag=True, help="On a phone of the provider's own; costs more.")
@ref_option
@prepaid_option
@pass_app
@click.pass_context
def code(
    ctx: click.Context,
    app: App,
    *,
    country: str,
    service: str,
    ordering: Ordering,
    until: str,
    is_real_phone: bool,
    ref: str | None,
    is_prepaid: bool,
) -> None:
    """Order an activation code of SERVICE for a phone number of COUNTRY.

    COUNTRY is a name, an alias or a number as in `holdpay countries`; SERVICE a short code or a name as in
    `holdpay services COUNTRY`. Progress goes to stderr and only the code to stdout, so that
    CODE=$(holdpay code usa openai) works. Leaving does not stop the order: `holdpay orders wait` goes on.
    """
    from holdpay._pb.v1 import holdpay_pb2 as pb

    if ordering.no_wait and ctx.get_parameter_source("until") is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("--no-wait and --until exclude each other.")
    spec = pb.CodeSpec(country=country, service=service, real_phone=is_real_phone, ref=ref)
    ordering.follow(ctx, app, pb.SubmitRequest(code=spec, prepaid=is_prepaid), Until(until))
