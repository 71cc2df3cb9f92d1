"""`holdpay account`: the prepaid account at the provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdpay.cli import render
from holdpay.cli.app import App, pass_app
from holdpay.cli.kinds import Until
from holdpay.cli.ordering import Ordering, ordering
from holdpay.cli.params import MAX_INT64

if TYPE_CHECKING:
    from holdpay._pb.v1 import holdpay_pb2 as pb

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
_HASH_CHARS = 8


@click.group(short_help="Look at the prepaid account at the provider, and put money into it.")
def account() -> None:
    """Look at the prepaid account at the provider, and put money into it.

    The daemon needs the account's API key: put it into a file and name the file in provider.api_key_file.
    """


@account.command(short_help="Show the balance.")
@_json
@pass_app
def balance(app: App, *, as_json: bool) -> None:
    """Show what can be spent, as the provider says now."""
    from holdpay._pb.v1 import holdpay_pb2 as pb

    reply = app.call(lambda client: client.ask(client.stub.GetAccount, pb.GetAccountRequest()))
    if as_json:
        render.echo_json(reply)
    else:
        render.out(
            render.facts([("Balance", render.sat(reply.balance_sat)), ("Asked", render.date_time(reply.asked_at_ms))])
        )


@account.command(short_help="List what was paid in.")
@click.option("--preimages", is_flag=True, help="Show the preimages, too: whoever has one can prove the payment.")
@_json
@pass_app
def history(app: App, *, preimages: bool, as_json: bool) -> None:
    """List what was paid into the account, newest first."""
    from holdpay._pb.v1 import holdpay_pb2 as pb

    request = pb.ListFundingRequest(with_preimages=preimages)
    reply = app.call(lambda client: client.ask(client.stub.ListFunding, request))
    if as_json:
        render.echo_json(reply)
    elif not reply.entries:
        render.note("Nothing was paid into the account yet.")
    else:
        headings = ("WHEN", "AMOUNT", "HASH", "WHAT", *(("PREIMAGE",) if preimages else ()))
        render.out(render.table(headings, [_row(entry, preimages=preimages) for entry in reply.entries]))
        if reply.HasField("total_sat"):
            render.out(f"{render.sat(reply.total_sat)} in all.")


@account.command(short_help="Put money into the account.")
@click.argument("amount_sat", metavar="AMOUNT", type=click.IntRange(min=1, max=MAX_INT64))
@ordering
@pass_app
@click.pass_context
def fund(ctx: click.Context, app: App, *, amount_sat: int, ordering: Ordering) -> None:
    """Put AMOUNT sat into the account, and wait until they are paid for: then "funded" is printed.

    It is an order like any other: its hold invoice is checked, paid and followed, and it counts in the limits.
    """
    from holdpay._pb.v1 import holdpay_pb2 as pb

    ordering.follow(ctx, app, pb.SubmitRequest(fund=pb.FundSpec(amount_sat=amount_sat)), Until.SETTLED)


def _row(entry: pb.FundingEntry, *, preimages: bool) -> tuple[str, ...]:
    return (
        render.date_time(entry.created_at_ms) if entry.HasField("created_at_ms") else "?",
        render.sat(entry.amount_sat) if entry.HasField("amount_sat") else "?",
        entry.payment_hash[:_HASH_CHARS] or "?",
        render.one_line(entry.description),
        *((entry.preimage or "?",) if preimages else ()),
    )
