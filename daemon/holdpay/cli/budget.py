"""`holdpay budget`: what a client may spend, and what it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdpay.cli import render
from holdpay.cli.app import App, pass_app

if TYPE_CHECKING:
    from holdpay._pb.v1 import holdpay_pb2 as pb


@click.command()
@click.option("--client", default="", metavar="NAME", help="Of this client only.")
@click.option("--orders", is_flag=True, help="Show the orders behind the sums.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@pass_app
def budget(app: App, *, client: str, orders: bool, as_json: bool) -> None:
    """Show limits, what is spent and reserved, and when it renews.

    Over a client's socket: its own budget; over the daemon's: those of all clients.
    """
    from holdpay._pb.v1 import holdpay_pb2 as pb

    request = pb.GetBudgetRequest(client=client, orders=orders)
    reply = app.call(lambda daemon: daemon.ask(daemon.stub.GetBudget, request))
    if as_json:
        render.echo_json(reply)
    elif not reply.budgets:
        render.note("No clients: the configuration has no [[client]].")
    else:
        render.out("\n\n".join(_words(found, with_orders=orders) for found in reply.budgets))


def _words(found: pb.Budget, *, with_orders: bool) -> str:
    parts = [render.facts([("Client", found.client), *budget_facts(found)])]
    if found.lines:
        headings = ("LIMIT", "SPENT", "RESERVED", "OF", "USED", "RENEWS")
        parts.append(render.table(headings, [_row(line, found.window) for line in found.lines]))
    if with_orders:
        parts.append(_orders(found))
    return "\n".join(parts)


def budget_facts(found: pb.Budget) -> list[tuple[str, str]]:
    """All but the limits in sat over a period."""
    return [
        ("Windows", "the calendar's, in UTC" if found.window == "calendar" else "rolling"),
        ("An order", f"up to {render.sat(found.max_price_sat)}" if found.HasField("max_price_sat") else ""),
        ("Open", _of(found.open_orders, found, "max_open_orders", "orders")),
        ("This minute", _of(found.recent_orders, found, "max_orders_per_minute", "orders")),
        ("Account", "may be looked at and funded" if found.may_fund else ""),
        *(("WARNING", warning) for warning in found.warnings),
    ]


def _of(count: int, found: pb.Budget, limit: str, unit: str) -> str:
    return f"{count:,} of {getattr(found, limit):,} {unit}" if found.HasField(limit) else f"{count:,} {unit}"  # type: ignore[arg-type]


def line_name(line: pb.BudgetLine) -> str:
    """In words: "this day", "fees of this day"."""
    return f"{'fees, ' if line.fees else ''}{line.period}"


def _row(line: pb.BudgetLine, window: str) -> tuple[str, ...]:
    used_msat = line.spent_msat + line.reserved_msat
    percent = used_msat // (line.limit_sat * 10) if line.limit_sat else 100
    return (
        line_name(line),
        render.msat(line.spent_msat),
        render.msat(line.reserved_msat),
        render.sat(line.limit_sat),
        f"{percent} %",
        _renewal(line, window),
    )


def _renewal(line: pb.BudgetLine, window: str) -> str:
    if not line.HasField("renews_at_ms"):
        return "-"
    at = render.date_time(line.renews_at_ms)
    return at if window == "calendar" else f"from {at} on"


def _orders(found: pb.Budget) -> str:
    if not found.orders:
        return "No orders are behind it."
    headings = ("ORDER", "WHEN", "SPENT", "OF IT FEE", "RESERVED")
    rows = [
        (
            order.request_id,
            render.date_time(order.at_ms),
            render.msat(order.spent_msat) if order.spent_msat else "-",
            render.msat(order.fee_msat) if order.fee_msat else "-",
            render.msat(order.reserved_msat) if order.reserved_msat else "-",
        )
        for order in found.orders
    ]
    more = "\nThere are more: only the latest are shown." if found.more_orders else ""
    return render.table(headings, rows) + more
