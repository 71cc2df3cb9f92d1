"""`holdpay orders`: look at orders, wait for them, cancel them."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import click

from holdpay.cli import render
from holdpay.cli.app import App, pass_app
from holdpay.cli.code import UNTIL, timeout_option
from holdpay.cli.params import MAX_INT64, complete_order, past_ms

if TYPE_CHECKING:
    from holdpay._pb.v1 import holdpay_pb2 as pb
    from holdpay.cli.client import Client

LARGEST_PAGE = 500

_order = click.argument("order", shell_complete=complete_order)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")


@click.group(invoke_without_command=True)
@click.pass_context
def orders(ctx: click.Context) -> None:
    """Show orders, wait for them, cancel them. Alone: list them.

    ORDER is an order's id, or its beginning of at least 4 characters.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@orders.command("list")
@click.option("--open", "open_only", is_flag=True, help="Only those that go on.")
@click.option("--closed", "closed_only", is_flag=True, help="Only those that are over.")
@click.option("--since", "since_ms", callback=past_ms, metavar="TIME", help="Only newer ones: 2h, 7d or 2026-01-31.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="How many at most.")
@click.option("--page", "page_token", default="", metavar="TOKEN", help="Go on where a list was cut off.")
@_json
@pass_app
def list_(
    app: App,
    *,
    open_only: bool,
    closed_only: bool,
    since_ms: int | None,
    limit: int,
    page_token: str,
    as_json: bool,
) -> None:
    """List orders, newest first."""
    from holdpay._pb.v1 import holdpay_pb2 as pb

    if open_only and closed_only:
        raise click.UsageError("--open and --closed exclude each other.")
    request = pb.ListOrdersRequest(
        open_only=open_only, closed_only=closed_only, created_from_ms=since_ms, page_token=page_token
    )
    found = app.call(lambda client: _fetch(client, request, limit))
    if as_json:
        render.echo_json(found)
    else:
        _echo_list(found)


def _fetch(client: Client, request: pb.ListOrdersRequest, limit: int) -> pb.ListOrdersResponse:
    """As many pages as it takes, in one answer."""
    request.page_size = min(limit, LARGEST_PAGE)
    found = client.ask(client.stub.ListOrders, request)
    while found.next_page_token and len(found.orders) < limit:
        request.page_token = found.next_page_token
        request.page_size = min(limit - len(found.orders), LARGEST_PAGE)
        page = client.ask(client.stub.ListOrders, request)
        found.orders.extend(page.orders)
        found.next_page_token = page.next_page_token
    return found


def _echo_list(found: pb.ListOrdersResponse) -> None:
    if not found.orders:
        render.note("No orders.")
        return
    headings = ("ORDER", "CREATED", "COUNTRY", "SERVICE", "NUMBER", "MONEY", "STATE")
    render.out(render.table(headings, [_row(order) for order in found.orders]))
    if found.next_page_token:
        render.note(f"There are more: add --page {found.next_page_token}, or a higher --limit.")


def _row(order: pb.Order) -> tuple[str, ...]:
    end = render.enum_text(order, "end")
    return (
        order.id,
        render.date_time(order.created_at_ms),
        order.country,
        order.service_name or order.service,
        render.phone(order.number) if order.HasField("number") else "-",
        _money(order),
        end.replace("_", " ") if order.terminal and end else order.phase,
    )


def _money(order: pb.Order) -> str:
    if order.spent_msat:
        return f"{render.msat(order.spent_msat)} spent"
    if order.locked_msat:
        return f"{render.msat(order.locked_msat)} locked"
    return "-"


@orders.command()
@_order
@_json
@pass_app
def show(app: App, *, order: str, as_json: bool) -> None:
    """Show all that is known of ORDER, its code and its preimage too.

    "Unread reply" is what the provider answered where holdpayd could not read the number or the code: look in it.
    """
    found = app.call(lambda client: client.get_order(order))
    if as_json:
        render.echo_json(found)
    else:
        render.out(render.facts(_order_facts(found)))


def _order_facts(order: pb.Order) -> list[tuple[str, str]]:
    end = render.enum_text(order, "end")
    code_note = " (came as a number: zeros at its beginning may be missing)" if order.code_may_lack_zeros else ""
    return [
        ("Order", order.id),
        ("Key", order.idempotency_key),
        (
            "Service",
            f"{order.service_name or order.service} ({order.service}) in {order.country} ({order.country_code})",
        ),
        ("Created", render.date_time(order.created_at_ms)),
        ("State", f"{render.enum_text(order, 'state')}, HTLC {render.enum_text(order, 'htlc')}: {order.phase}"),
        ("Ended", f"{render.date_time(order.closed_at_ms)}, {end}" if order.HasField("closed_at_ms") else ""),
        ("Reason", order.reason),
        ("Number", render.phone(order.number) if order.HasField("number") else ""),
        *(("Earlier number", f"{render.phone(number)} (replaced)") for number in order.earlier_numbers),
        ("Code", order.code + code_note if order.HasField("code") else ""),
        *(("Later code", code) for code in order.later_codes),
        ("Unread reply", render.one_line(order.unread) if order.HasField("unread") else ""),
        (
            "Erased",
            f"{render.date_time(order.erased_at_ms)}: number and code" if order.HasField("erased_at_ms") else "",
        ),
        *_order_money(order),
        ("Cancel wanted", render.date_time(order.cancel_wanted_at_ms) if order.HasField("cancel_wanted_at_ms") else ""),
        ("Payment hash", f"{order.payment_hash} (a secret: it fetches the code)" if order.payment_hash else ""),
        ("Preimage", order.preimage),
        *(("ALARM", alarm) for alarm in order.alarms),
    ]


def _order_money(order: pb.Order) -> list[tuple[str, str]]:
    limits = f"up to {render.sat(order.max_price_sat)}, fee up to {render.sat(order.max_fee_sat)}"
    return [
        ("Limits", limits),
        ("Quote", render.sat(order.quote_sat) if order.HasField("quote_sat") else ""),
        ("Invoice", render.msat(order.amount_msat) if order.HasField("amount_msat") else ""),
        ("Fee", render.msat(order.fee_msat) if order.HasField("fee_msat") else ""),
        ("Locked", render.msat(order.locked_msat)),
        ("Spent", render.msat(order.spent_msat)),
        ("Expiry height", f"{order.expiry_height:,}" if order.HasField("expiry_height") else ""),
        ("Promised end", render.date_time(order.promise_until_ms) if order.HasField("promise_until_ms") else ""),
        ("Dispatches", str(order.dispatches)),
        ("Next dispatch", render.date_time(order.next_dispatch_at_ms) if order.HasField("next_dispatch_at_ms") else ""),
    ]


@orders.command()
@_order
@click.option("--until", type=UNTIL, default="code", show_default=True, help="What to print and wait for.")
@timeout_option
@click.option("--json", "as_json", is_flag=True, help="Print each update as one JSON object on stdout.")
@pass_app
@click.pass_context
def wait(ctx: click.Context, app: App, *, order: str, until: str, timeout_s: float, as_json: bool) -> None:
    """Wait for ORDER, as `holdpay code` does, from its beginning."""
    from holdpay.cli.feed import Feed
    from holdpay.cli.follow import Follower, Until, make_view

    started_ms, deadline_s = app.clock.now_ms(), app.clock.monotonic_s() + timeout_s
    known = app.call(lambda client: client.get_order(order))
    view = make_view(app, as_json=as_json)
    feed = Feed(
        app=app,
        say=view.note,
        started_ms=started_ms,
        order_id=known.id,
        cursor=0,
        known=known,
        deadline_s=deadline_s,
    )
    ctx.exit(Follower(app, feed, view, Until(until)).run())


@orders.command()
@click.argument("order", default="", shell_complete=complete_order)
@click.option(
    "--after",
    "after_cursor",
    type=click.IntRange(min=0, max=MAX_INT64),
    metavar="CURSOR",
    help="Resume after this; 0: from the beginning.  [default: from now on]",
)
@click.option("--json", "as_json", is_flag=True, help="Print each update as one JSON object on stdout.")
@pass_app
def watch(app: App, *, order: str, after_cursor: int | None, as_json: bool) -> None:
    """Print the updates of ORDER until it is over, or of all orders until ^C. A restart of the daemon loses none."""
    from holdpay.cli.feed import Feed

    started_ms = app.clock.now_ms()
    known = app.call(lambda client: client.get_order(order)) if order else None
    if known is not None:
        if known.terminal and after_cursor is None:
            render.note("The order is over: nothing more will come. Add --after 0 to see what came.")
            return
        order = known.id
    feed = Feed(app=app, say=render.note, started_ms=started_ms, order_id=order, cursor=after_cursor, known=known)
    with closing(feed.updates()) as updates:
        for update in updates:
            if as_json:
                render.echo_json(update)
            else:
                render.out(render.plain(_watch_line(update)))
            if order and update.order.terminal:
                return


def _watch_line(update: pb.OrderUpdate) -> str:
    order = update.order
    end = render.enum_text(order, "end")
    standing = f"closed: {end.replace('_', ' ')}" if order.terminal and end else order.phase
    when = render.date_time(update.at_ms)
    bought = f"{order.service_name or order.service}, {order.country}"
    return f"{when}  {update.cursor}  {order.id}  {bought}  {update.event}  {standing}"


@orders.command()
@_order
@_json
@pass_app
def cancel(app: App, *, order: str, as_json: bool) -> None:
    """Ask for ORDER to be canceled. The wish is kept; a code that comes first wins."""
    from holdpay._pb.v1 import holdpay_pb2 as pb

    reply = app.call(lambda client: client.ask(client.stub.CancelOrder, pb.CancelOrderRequest(order_id=order)))
    if as_json:
        render.echo_json(reply)
    else:
        render.out(render.plain(reply.message))


@orders.command()
@_order
@_json
@pass_app
def explain(app: App, *, order: str, as_json: bool) -> None:
    """Say in plain words what happened to ORDER, where the money is, and what happens next."""
    from holdpay._pb.v1 import holdpay_pb2 as pb

    reply = app.call(lambda client: client.ask(client.stub.ExplainOrder, pb.ExplainOrderRequest(order_id=order)))
    if as_json:
        render.echo_json(reply)
        return
    pairs = [("Order", reply.order.id), ("Now", reply.summary), ("Money", reply.money), ("Next", reply.next)]
    render.out(render.facts(pairs))
    render.out("\nWhat happened")
    for entry in reply.history:
        render.out(f"  {render.date_time(entry.at_ms)}  {render.plain(entry.text)}")
