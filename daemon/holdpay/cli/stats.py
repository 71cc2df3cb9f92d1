"""`holdpay stats`: what orders brought, cost and took."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import click

from holdpay.cli import render
from holdpay.cli.app import App, pass_app
from holdpay.cli.params import past_ms

if TYPE_CHECKING:
    from holdpay._pb.v1 import holdpay_pb2 as pb

BAR_WIDTH = 20
_FIELDS = (
    "name",
    "orders",
    "came",
    "median_number_s",
    "median_code_s",
    "spent_msat",
    "fee_msat",
    "locked_sat_hours",
)


@click.command()
@click.option(
    "--since", "since_ms", callback=past_ms, metavar="TIME", default="30d", show_default=True, help="Not older."
)
@click.option(
    "--by",
    type=click.Choice(["country", "service", "kind", "day"]),
    default="country",
    show_default=True,
    help="What a line is of.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV on stdout.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@pass_app
def stats(app: App, *, since_ms: int, by: str, as_csv: bool, as_json: bool) -> None:
    """Show what the orders that ended brought, cost and took: a line for each country, service, kind or day.

    NUMBER and CODE are medians, from the order on. SAT·H are sat times the hours that they were locked.
    """
    from holdpay._pb.v1 import holdpay_pb2 as pb

    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other.")
    request = pb.GetStatsRequest(since_ms=since_ms, by=pb.StatsBy.Value(f"STATS_BY_{by.upper()}"))
    reply = app.call(lambda client: client.ask(client.stub.GetStats, request))
    if as_json:
        render.echo_json(reply)
    elif as_csv:
        render.out(_csv(reply).rstrip("\n"))
    elif not reply.lines:
        render.note("No order has ended since then.")
    else:
        render.out(_table(reply, by))
    if reply.more:
        render.note("Older orders were left out; --since with a later time leaves none out.")


def _csv(reply: pb.GetStatsResponse) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_FIELDS)
    for line in reply.lines:
        optional = ("median_number_s", "median_code_s")
        writer.writerow(
            ["" if name in optional and not line.HasField(name) else getattr(line, name) for name in _FIELDS]  # type: ignore[arg-type]
        )
    return text.getvalue()


def _table(reply: pb.GetStatsResponse, by: str) -> str:
    headings = (by.upper(), "ORDERS", "CAME", "", "NUMBER", "CODE", "SPENT", "FEES", "SAT·H")
    return render.table(headings, [_row(line) for line in reply.lines])


def _row(line: pb.StatsLine) -> tuple[str, ...]:
    share = line.came / line.orders if line.orders else 0.0
    return (
        line.name or "-",
        f"{line.orders:,}",
        f"{share:.0%}",
        "#" * round(share * BAR_WIDTH),
        f"{line.median_number_s:.0f} s" if line.HasField("median_number_s") else "-",
        f"{line.median_code_s:.0f} s" if line.HasField("median_code_s") else "-",
        render.msat(line.spent_msat),
        render.msat(line.fee_msat),
        f"{line.locked_sat_hours:,.0f}",
    )
