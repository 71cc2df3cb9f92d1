"""`holdpay vet`, and how the rules of a dry run look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdpay.cli import render
from holdpay.cli.app import App, pass_app
from holdpay.cli.exit_codes import ExitCode
from holdpay.cli.params import MAX_INT64, read_stdin

if TYPE_CHECKING:
    from holdpay._pb.v1 import holdpay_pb2 as pb

_MAX_CHARS = 10_000
"""Far more than any invoice has: the daemon says how long one may be."""


def _invoice(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """An argument's callback: the invoice, or what stdin has where it is `-`."""
    return (read_stdin(_MAX_CHARS) if value == "-" else value).strip()


@click.command(short_help="Say whether an invoice would be paid, and why not.")
@click.argument("invoice", callback=_invoice)
@click.option(
    "--max-price", "max_price_sat", type=click.IntRange(min=1, max=MAX_INT64), metavar="SAT", help="As of an order."
)
@click.option(
    "--max-fee", "max_fee_sat", type=click.IntRange(min=0, max=MAX_INT64), metavar="SAT", help="As of an order."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@pass_app
@click.pass_context
def vet(
    ctx: click.Context, app: App, *, invoice: str, max_price_sat: int | None, max_fee_sat: int | None, as_json: bool
) -> None:
    """Hold INVOICE against every rule, and ask lnd for a route. Nothing is paid, ordered or recorded.

    INVOICE - is read from stdin. Exit code 0: it would be paid; 4: it would not.
    """
    from holdpay._pb.v1 import holdpay_pb2 as pb

    request = pb.VetInvoiceRequest(invoice=invoice, max_price_sat=max_price_sat, max_fee_sat=max_fee_sat)
    report = app.call(lambda client: client.ask(client.stub.VetInvoice, request))
    show(report, done="paid", as_json=as_json)
    ctx.exit(ExitCode.DONE if report.fine else ExitCode.NOTHING_PAID)


def show(report: pb.CheckReport, *, done: str, as_json: bool) -> None:
    """The rules as a table, and what they come to. ``done``: what would be done if none fails."""
    if as_json:
        render.echo_json(report)
        return
    rows = [
        (_words(check.rule), check.value, check.limit, render.enum_text(check, "verdict") or "?", check.key)
        for check in report.checks
    ]
    render.out(render.table(("RULE", "FOUND", "ALLOWED", "VERDICT", "SET BY"), rows))
    whys = [(f"{_words(check.rule)}:", check.why) for check in report.checks if check.why]
    if whys:
        render.out(f"\n{render.facts(whys)}")
    about = f"{report.what}: " if report.what else ""
    amount = f" for {render.msat(report.amount_msat)}" if report.HasField("amount_msat") else ""
    render.out(f"\n{render.plain(about)}{'it would be' if report.fine else 'it would NOT be'} {done}{amount}.")


def _words(rule: str) -> str:
    return rule.replace("_", " ").replace("cltv", "CLTV")
