"""`holdpay code`: orders an activation code and waits for it."""

from __future__ import annotations

import click

from holdpay.cli.app import App, pass_app
from holdpay.cli.kinds import KINDS, Until
from holdpay.cli.ordering import Ordering, ordering, prepaid_option, ref_option
from holdpay.cli.params import MAX_INT64, complete_countries, complete_service, optional_duration_s


@click.command(short_help="Order an activation code and wait for it.")
@click.argument("country", shell_complete=complete_countries)
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
@click.option(
    "--attempts", type=click.IntRange(min=1, max=100), help="Orders at most, in turn.  [default: one per country, or 3]"
)
@click.option(
    "--max-total",
    "max_total_sat",
    type=click.IntRange(min=1, max=MAX_INT64),
    metavar="SAT",
    help="What all orders may cost together, fees included.",
)
@click.option(
    "--within", "within_s", callback=optional_duration_s, metavar="DURATION", help="Cancel what is open then, and end."
)
@click.option(
    "--number-within",
    "number_within_s",
    callback=optional_duration_s,
    metavar="DURATION",
    help="Without a number so long after the payment (120s or more): cancel, and go on with the next order.",
)
@click.option(
    "--sms-within", "sms_within_s", callback=optional_duration_s, metavar="DURATION", help="The same for the code."
)
@pass_app
@click.pass_context
def code(
    ctx: click.Context,
    app: App,
    /,
    *,
    country: str,
    service: str,
    ordering: Ordering,
    until: str,
    is_real_phone: bool,
    ref: str | None,
    is_prepaid: bool,
    **strategy: int | None,
) -> None:
    """Order an activation code of SERVICE for a phone number of COUNTRY.

    COUNTRY is a name, an alias or a number as in `holdpay countries`; SERVICE a short code or a name as in
    `holdpay services COUNTRY`. Several countries with commas between them (usa,canada), `any` (the cheapest first) or
    `best` (as `holdpay stats` has it): where one brings no code the next one is ordered from, once the money is back.

    Progress goes to stderr and only the code to stdout, so that CODE=$(holdpay code usa openai) works. Leaving does not
    stop the order: `holdpay orders wait` goes on.
    """
    from holdpay._pb.v1 import holdpay_pb2 as pb

    if ordering.no_wait and ctx.get_parameter_source("until") is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("--no-wait and --until exclude each other.")
    spec = pb.CodeSpec(countries=_listed(country), service=service, real_phone=is_real_phone, ref=ref)
    if any(value is not None for value in strategy.values()):
        spec.strategy.CopyFrom(pb.Strategy(**strategy))
    ordering.follow(ctx, app, pb.SubmitRequest(code=spec, prepaid=is_prepaid), Until(until))


def _listed(countries: str) -> list[str]:
    return [name.strip() for name in countries.split(",")]
