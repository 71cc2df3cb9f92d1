"""`holdpay rent`: rents a number, and shows what comes to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from holdpay.cli import render
from holdpay.cli.app import App, pass_app
from holdpay.cli.exit_codes import ExitCode, of_end
from holdpay.cli.failure import Failure
from holdpay.cli.kinds import LACKS_ZEROS, Until, number_of, order_of, texts
from holdpay.cli.ordering import Ordering, ordering, prepaid_option, ref_option
from holdpay.cli.params import complete_country, complete_rental, complete_service

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from holdpay._pb.v1 import holdpay_pb2 as pb

MESSAGES = "messages"


class Rent(click.Command):
    """`holdpay rent COUNTRY`, and below it `holdpay rent messages ORDER`: no country has that name."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args[:1] == [MESSAGES]:
            return messages.make_context(f"{info_name} {MESSAGES}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


def _complete_first(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    own = [CompletionItem(MESSAGES)] if MESSAGES.startswith(incomplete) else []
    return own + complete_country(ctx, param, incomplete)


@click.command(cls=Rent, short_help="Rent a number; `rent messages` shows what comes to it.")
@click.argument("country", shell_complete=_complete_first)
@click.option("--service", shell_complete=complete_service, help="Short code or name; without it, any service.")
@click.option("--weeks", type=click.IntRange(min=1, max=520), metavar="N", help="How long.  [default: the shortest]")
@ordering
@ref_option
@prepaid_option
@pass_app
@click.pass_context
def rent(
    ctx: click.Context,
    app: App,
    *,
    country: str,
    service: str | None,
    weeks: int | None,
    ordering: Ordering,
    ref: str | None,
    is_prepaid: bool,
) -> None:
    """Rent a number of COUNTRY, and print it. `holdpay rent messages ORDER` prints the messages that come to it.

    COUNTRY is a name, an alias or a number as in `holdpay countries`. Progress goes to stderr and only the number to
    stdout. The order stays open until the rental ends.
    """
    from holdpay._pb.v1 import holdpay_pb2 as pb

    spec = pb.RentalSpec(country=country, service=service, weeks=weeks, ref=ref)
    ordering.follow(ctx, app, pb.SubmitRequest(rental=spec, prepaid=is_prepaid), Until.NUMBER)


@click.command(MESSAGES)
@click.argument("order", shell_complete=complete_rental)
@click.option("--follow", is_flag=True, help="Wait for more, until the rental ends or ^C.")
@click.option("--json", "as_json", is_flag=True, help="Print each message as one JSON object on stdout.")
@pass_app
@click.pass_context
def messages(ctx: click.Context, app: App, *, order: str, follow: bool, as_json: bool) -> None:
    """Print the messages that came to the rented number of ORDER, oldest first, a line each.

    The number goes to stderr, and only the messages to stdout. One that holdpayd cannot read is shown as it came.
    """
    started_ms = app.clock.now_ms()
    known = app.call(lambda client: client.get_request(order))
    if known.WhichOneof("understood") != "rental":
        raise Failure(
            f"Order {known.id} is for {known.what}: no messages come to it. See: holdpay orders show {known.id}",
            ExitCode.REFUSED_INPUT,
        )
    number = number_of(known)
    if number is not None:
        render.note(f"The number is {render.phone(number)}.")
    printer = _Printer(app, as_json=as_json)
    printer.update(known)
    if follow and not known.terminal:
        known = _follow(app, known, printer, started_ms)
    ctx.exit(_leave(known, is_followed=follow))


class _Printer:
    """Prints each message once, by its place among all that was delivered."""

    def __init__(self, app: App, *, as_json: bool) -> None:
        self._app = app
        self._as_json = as_json
        self._seq = 0

    def update(self, request: pb.Request) -> None:
        if request.items_left_out and self._seq < min(item.seq for item in request.items if _is_printed(item)):
            for item in self._app.call(lambda client: list(client.items(request.id, self._seq))):
                self._update(item)
        for item in request.items:
            self._update(item)

    def _update(self, item: pb.Item) -> None:
        if item.seq <= self._seq:
            return
        self._seq = item.seq
        if _is_printed(item):
            self._print(item)

    def _print(self, item: pb.Item) -> None:
        if self._as_json:
            render.echo_json(item)
        else:
            mark = "(cannot be read) " if render.enum_text(item, "kind") == "unread" else ""
            render.out(f"{render.date_time(item.seen_at_ms)}  {mark}{render.one_line(item.text)}")
            if item.may_lack_zeros:
                render.note(f"The message before this line {LACKS_ZEROS}.")


def _is_printed(item: pb.Item) -> bool:
    return render.enum_text(item, "kind") in {"message", "unread"}


def _follow(app: App, known: pb.Request, printer: _Printer, started_ms: int) -> pb.Request:
    """Prints what comes until the rental, or the user's patience, ends. The request as it was last."""
    from holdpay.cli.feed import Feed

    feed = Feed(app=app, say=render.note, started_ms=started_ms, request_id=known.id, cursor=known.cursor, known=known)
    try:
        with closing(feed.updates()) as updates:
            for request in _requests(updates):
                known = request
                printer.update(known)
                if known.terminal:
                    break
    except KeyboardInterrupt:
        render.note("Interrupted.")
    return known


def _requests(updates: Iterator[pb.RequestUpdate]) -> Iterator[pb.Request]:
    return (update.request for update in updates)


def _leave(known: pb.Request, *, is_followed: bool) -> ExitCode:
    """Says what more is to be had, and where."""
    for count in texts(known, "unread_more"):
        render.note(f"The provider sent {count} more that cannot be read, or more than that; they are not kept.")
    if known.terminal:
        exit_code = of_end(render.enum_text(known, "end"), render.enum_text(order_of(known), "cause"))
        if exit_code is ExitCode.DONE:
            erased = " What had come was erased." if known.HasField("erased_at_ms") else ""
            render.note(f"The rental is over.{erased}")
        else:
            render.note(f"No number is rented. Read what happened with: holdpay orders explain {known.id}")
        return exit_code
    render.note(f"The rental goes on. See what comes with: holdpay rent messages {known.id} --follow")
    return ExitCode.STILL_OPEN if is_followed else ExitCode.DONE
