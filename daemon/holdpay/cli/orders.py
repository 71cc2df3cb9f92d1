"""`holdpay orders`: look at orders, wait for them, cancel them."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import click

from holdpay.cli import progress, render, tries
from holdpay.cli.app import App, pass_app
from holdpay.cli.exit_codes import ExitCode
from holdpay.cli.kinds import (
    KINDS,
    LACKS_ZEROS,
    Until,
    brief,
    kind_number,
    kind_of,
    number_of,
    numbers_of,
    order_of,
    texts,
)
from holdpay.cli.ordering import timeout_option
from holdpay.cli.params import MAX_INT64, complete_order, past_ms

if TYPE_CHECKING:
    from holdpay._pb.v1 import holdpay_pb2 as pb
    from holdpay.cli.client import Client

LARGEST_PAGE = 64

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
@click.option("--kind", type=click.Choice(list(KINDS)), help="Only those of a kind.")
@click.option("--client", default="", metavar="NAME", help="Only those of a client.")
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
    kind: str | None,
    client: str,
    since_ms: int | None,
    limit: int,
    page_token: str,
    as_json: bool,
) -> None:
    """List orders, newest first."""
    from holdpay._pb.v1 import holdpay_pb2 as pb

    if open_only and closed_only:
        raise click.UsageError("--open and --closed exclude each other.")
    request = pb.ListRequestsRequest(
        client=client,
        open_only=open_only,
        closed_only=closed_only,
        kind=kind_number(kind or ""),
        created_from_ms=since_ms,
        page_token=page_token,
    )
    found = app.call(lambda daemon: _fetch(daemon, request, limit))
    if as_json:
        render.echo_json(found)
    else:
        _echo_list(found)


def _fetch(client: Client, request: pb.ListRequestsRequest, limit: int) -> pb.ListRequestsResponse:
    """As many pages as it takes, in one answer."""
    request.page_size = min(limit, LARGEST_PAGE)
    found = client.ask(client.stub.ListRequests, request)
    while found.next_page_token and len(found.requests) < limit:
        request.page_token = found.next_page_token
        request.page_size = min(limit - len(found.requests), LARGEST_PAGE)
        page = client.ask(client.stub.ListRequests, request)
        found.requests.extend(page.requests)
        found.next_page_token = page.next_page_token
    return found


def _echo_list(found: pb.ListRequestsResponse) -> None:
    if not found.requests:
        render.note("No orders.")
        return
    headings: tuple[str, ...] = ("ORDER", "CREATED", "KIND", "WHAT", "NUMBER", "MONEY", "STATE")
    rows = [_row(request) for request in found.requests]
    if any(request.client for request in found.requests):
        headings = (*headings[:2], "CLIENT", *headings[2:])
        rows = [(*row[:2], request.client or "-", *row[2:]) for row, request in zip(rows, found.requests, strict=True)]
    render.out(render.table(headings, rows))
    if found.next_page_token:
        render.note(f"There are more: add --page {found.next_page_token}, or a higher --limit.")


def _row(request: pb.Request) -> tuple[str, ...]:
    number = number_of(request)
    return (
        request.id,
        render.date_time(request.created_at_ms),
        render.enum_text(request, "kind") or "?",
        brief(request),
        "-" if number is None else render.phone(number),
        _money(order_of(request)),
        _end(request) or order_of(request).phase,
    )


def _end(request: pb.Request) -> str:
    """In words. Empty: it is open."""
    end = render.enum_text(request, "end")
    return end.replace("_", " ") if request.terminal and end else ""


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
    """Show all that is known of ORDER: what was delivered, the text that was sent, and its preimage too.

    "Unread reply" is what the provider answered where holdpayd could not read what it delivers: look in it.
    """
    found = app.call(lambda client: client.get_request(order))
    if as_json:
        render.echo_json(found)
    else:
        render.out(render.facts(_facts(found)))
        _echo_tries(found)


def _echo_tries(request: pb.Request) -> None:
    found = list(tries.lines(order_of(request)))
    if found:
        render.out("\nPayments")
    for line in found:
        render.out(f"  {render.plain(line)}")


def _facts(request: pb.Request) -> list[tuple[str, str]]:
    order = order_of(request)
    ended = f"{render.date_time(request.closed_at_ms)}, {_end(request)}" if request.HasField("closed_at_ms") else ""
    erased = f"{render.date_time(request.erased_at_ms)}: what was delivered" if request.HasField("erased_at_ms") else ""
    is_hash = order.provider_order_id == order.payment_hash
    wish = render.date_time(request.cancel_wanted_at_ms) if request.HasField("cancel_wanted_at_ms") else ""
    return [
        ("Order", request.id),
        ("Client", request.client),
        ("Key", request.idempotency_key),
        *_what_was_ordered(request),
        ("Created", render.date_time(request.created_at_ms)),
        *_strategy_facts(request),
        ("State", _state(order)),
        ("Ended", ended),
        ("Reason", request.reason),
        *_items(request),
        ("Erased", erased),
        *_money_facts(request, order),
        ("Cancel wanted", wish),
        ("Provider's id", _secret("" if is_hash else order.provider_order_id)),
        ("Payment hash", _secret(order.payment_hash)),
        ("Preimage", order.preimage),
        *(("ALARM", alarm) for alarm in request.alarms),
    ]


def _strategy_facts(request: pb.Request) -> list[tuple[str, str]]:
    """How the request goes on, and the orders before the last."""
    if not request.HasField("strategy"):
        return []
    said = request.strategy
    within = [
        f"{render.sat(said.max_total_sat)} in all" if said.HasField("max_total_sat") else "",
        f"{said.within_s} s in all" if said.HasField("within_s") else "",
        f"a number within {said.number_within_s} s" if said.HasField("number_within_s") else "",
        f"the code within {said.sms_within_s} s" if said.HasField("sms_within_s") else "",
    ]
    orders = f"{len(request.orders)} of at most {said.attempts}"
    return [
        ("Orders", ", ".join([orders, *filter(None, within)])),
        *(("Earlier order", f"{order.id} in {order.country}: {_earlier(order)}") for order in request.orders[:-1]),
    ]


def _earlier(order: pb.Order) -> str:
    end = (render.enum_text(order, "end") or "").replace("_", " ")
    return f"{end}{f' ({order.reason})' if order.reason else ''}"


def _what_was_ordered(request: pb.Request) -> list[tuple[str, str]]:
    what = request.WhichOneof("understood")
    facts = [("What", f"{request.what}{', from the prepaid account' if request.prepaid else ''}")]
    if what in {"code", "rental"}:
        bought = request.code if what == "code" else request.rental
        country = f"{bought.country} ({bought.country_code if bought.HasField('country_code') else '?'})"
        facts.append(("Service", f"{bought.service_name or bought.service} ({bought.service}) in {country}"))
    if what == "rental" and request.rental.HasField("ends_at_ms"):
        facts.append(("Rented until", f"{render.date_time(request.rental.ends_at_ms)}, as far as known"))
    if what == "sms":
        facts.append(("Text", render.one_line(request.sms.message)))
    if what == "email":
        facts.append(("Text", render.one_line(request.email.message)))
    return facts


def _state(order: pb.Order) -> str:
    htlc, charge = render.enum_text(order, "htlc"), render.enum_text(order, "charge")
    money = f", HTLC {htlc}" if htlc else f", charge {charge}" if charge else ""
    return f"{render.enum_text(order, 'state')}{money}: {order.phase}"


def _items(request: pb.Request) -> list[tuple[str, str]]:
    number = number_of(request)
    codes = [_item_text(item) for item in request.items if render.enum_text(item, "kind") == "code"]
    return [
        ("Number", "" if number is None else render.phone(number)),
        *(("Earlier number", f"{render.phone(earlier)} (replaced)") for earlier in numbers_of(request)[:-1]),
        *(("Later code" if earlier else "Code", code) for earlier, code in enumerate(codes)),
        *(("Message", _item_line(item)) for item in request.items if render.enum_text(item, "kind") == "message"),
        *(("Sending", _item_line(item)) for item in request.items if render.enum_text(item, "kind") == "sending"),
        *(("Unread reply", render.one_line(unread)) for unread in texts(request, "unread")),
        *(
            ("", f"and {count:,} before them: holdpay rent messages {request.id}")
            for count in (request.items_left_out,)
            if count
        ),
        *(("", f"and {count} more, at least, which are not kept") for count in texts(request, "unread_more")),
    ]


def _item_line(item: pb.Item) -> str:
    return f"{render.date_time(item.seen_at_ms)}  {_item_text(item)}"


def _item_text(item: pb.Item) -> str:
    return f"{render.one_line(item.text)}{f' ({LACKS_ZEROS})' if item.may_lack_zeros else ''}"


def _secret(text: str) -> str:
    return f"{text} (a secret: it fetches what was delivered)" if text else ""


def _money_facts(request: pb.Request, order: pb.Order) -> list[tuple[str, str]]:
    before = render.sat(order.balance_before_sat) if order.HasField("balance_before_sat") else ""
    return [
        ("Limits", progress.limits(request).removeprefix("for ")),
        ("Quote", render.sat(order.quote_sat) if order.HasField("quote_sat") else ""),
        (
            "Price" if request.prepaid else "Invoice",
            render.msat(order.amount_msat) if order.HasField("amount_msat") else "",
        ),
        ("Fee", render.msat(order.fee_msat) if order.HasField("fee_msat") else ""),
        ("Balance before", before),
        ("Locked", "" if request.prepaid else render.msat(order.locked_msat)),
        ("Spent", render.msat(order.spent_msat)),
        ("Expiry height", f"{order.expiry_height:,}" if order.HasField("expiry_height") else ""),
        ("Promised end", render.date_time(order.promise_until_ms) if order.HasField("promise_until_ms") else ""),
        ("Dispatches", "" if request.prepaid else str(order.dispatches)),
        ("Next dispatch", render.date_time(order.next_dispatch_at_ms) if order.HasField("next_dispatch_at_ms") else ""),
    ]


@orders.command()
@_order
@click.option(
    "--until",
    type=click.Choice([until.value for until in Until if until is not Until.ACCEPTED]),
    help="What to print and wait for.  [default: what was ordered]",
)
@timeout_option
@click.option("--json", "as_json", is_flag=True, help="Print each update as one JSON object on stdout.")
@pass_app
@click.pass_context
def wait(ctx: click.Context, app: App, *, order: str, until: str | None, timeout_s: float, as_json: bool) -> None:
    """Wait for ORDER, as the command that ordered it does, from its beginning."""
    from holdpay.cli.feed import Feed
    from holdpay.cli.follow import Follower, make_view

    started_ms, deadline_s = app.clock.now_ms(), app.clock.monotonic_s() + timeout_s
    known = app.call(lambda client: client.get_request(order))
    wanted = _wanted(known, until)
    view = make_view(app, as_json=as_json)
    feed = Feed(
        app=app,
        say=view.note,
        started_ms=started_ms,
        request_id=known.id,
        cursor=0,
        known=known,
        deadline_s=deadline_s,
    )
    ctx.exit(Follower(app, feed, view, wanted).run())


def _wanted(request: pb.Request, until: str | None) -> Until:
    possible = kind_of(request).untils
    wanted = possible[0] if until is None else Until(until)
    if wanted not in possible:
        raise click.UsageError(
            f"Order {request.id} is for {request.what}. Wait --until {' or '.join(possible)}, or leave it away."
        )
    return wanted


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
    known = app.call(lambda client: client.get_request(order)) if order else None
    if known is not None:
        if known.terminal and after_cursor is None:
            render.note("The order is over: nothing more will come. Add --after 0 to see what came.")
            return
        order = known.id
    feed = Feed(app=app, say=render.note, started_ms=started_ms, request_id=order, cursor=after_cursor, known=known)
    with closing(feed.updates()) as updates:
        for update in updates:
            if as_json:
                render.echo_json(update)
            else:
                render.out(render.plain(_watch_line(update)))
            if order and update.request.terminal:
                return


def _watch_line(update: pb.RequestUpdate) -> str:
    request = update.request
    end = _end(request)
    standing = f"closed: {end}" if end else order_of(request).phase
    when = render.date_time(update.at_ms)
    return f"{when}  {update.cursor}  {request.id}  {brief(request)}  {update.event}  {standing}"


@orders.command()
@_order
@_json
@click.pass_context
@pass_app
def cancel(app: App, ctx: click.Context, *, order: str, as_json: bool) -> None:
    """Ask for ORDER to be canceled. The wish is kept; what comes first wins.

    Messages and money for the prepaid account cannot be canceled any more once they are paid for. What is too late
    ends with 15.
    """
    from holdpay._pb.v1 import holdpay_pb2 as pb

    reply = app.call(lambda client: client.ask(client.stub.CancelRequest, pb.CancelRequestRequest(request_id=order)))
    if as_json:
        render.echo_json(reply)
    else:
        render.out(render.plain(reply.message))
    if reply.too_late:
        ctx.exit(ExitCode.TOO_LATE)


@orders.command()
@_order
@_json
@pass_app
def explain(app: App, *, order: str, as_json: bool) -> None:
    """Say in plain words what happened to ORDER, where the money is, and what happens next."""
    from holdpay._pb.v1 import holdpay_pb2 as pb

    reply = app.call(lambda client: client.ask(client.stub.ExplainRequest, pb.ExplainRequestRequest(request_id=order)))
    if as_json:
        render.echo_json(reply)
        return
    pairs = [("Order", reply.request.id), ("Now", reply.summary), ("Money", reply.money), ("Next", reply.next)]
    render.out(render.facts(pairs))
    _echo_tries(reply.request)
    render.out("\nWhat happened")
    for entry in reply.history:
        render.out(f"  {render.date_time(entry.at_ms)}  {render.plain(entry.text)}")
