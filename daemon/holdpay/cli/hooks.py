"""`holdpay hooks`: which there are and how they do, a test, and from where one goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdpay.cli import render
from holdpay.cli.app import App, pass_app
from holdpay.cli.exit_codes import ExitCode
from holdpay.cli.failure import Failure
from holdpay.cli.params import MAX_INT64, past_ms

if TYPE_CHECKING:
    from holdpay._pb.v1 import holdpay_pb2 as pb

MAX_TIMEOUT_S = 330.0
"""A test waits for a hook as long as hook.timeout_s, which is 300 at most."""


@click.group()
def hooks() -> None:
    """See what hooks do, test one, have one told again."""


@hooks.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@pass_app
def list_hooks(app: App, *, as_json: bool) -> None:
    """Show the hooks of the configuration: what they are told, and how far they are."""
    from holdpay._pb.v1 import holdpay_pb2 as pb

    reply = app.call(lambda client: client.ask(client.stub.ListHooks, pb.ListHooksRequest()))
    if as_json:
        render.echo_json(reply)
    elif not reply.hooks:
        render.note("No hooks: the configuration has no [[hook]].")
    else:
        now_ms = app.clock.now_ms()
        render.out("\n\n".join(render.facts(_facts(hook, now_ms)) for hook in reply.hooks))


@hooks.command("test")
@click.argument("name")
@pass_app
def test_hook(app: App, *, name: str) -> None:
    """Send a test to hook NAME, and say what becomes of it.

    Exits 0 when it was acknowledged, else 8.
    """
    from holdpay._pb.v1 import holdpay_pb2 as pb

    request = pb.TestHookRequest(name=name)
    reply = app.call(lambda client: client.ask(client.stub.TestHook, request, MAX_TIMEOUT_S))
    if reply.trouble:
        raise Failure(
            f"The hook {name} {reply.trouble}. See to the receiver, or correct [[hook]] (`systemctl reload holdpayd`).",
            ExitCode.REFUSED_NOW,
        )
    render.out(f"The hook {name} acknowledged the test after {reply.took_ms:,} ms.")


@hooks.command("replay")
@click.argument("name")
@click.option(
    "--after", "after_cursor", type=click.IntRange(0, MAX_INT64), metavar="CURSOR", help="Behind this row; 0: all."
)
@click.option(
    "--since", "since_ms", callback=past_ms, metavar="TIME", help="With what happened since then: 2h, 7d, 2026-01-31."
)
@click.option("--skip", is_flag=True, help="Behind the one event that it was told in vain.")
@pass_app
def replay(app: App, *, name: str, after_cursor: int | None, since_ms: int | None, skip: bool) -> None:
    """Have hook NAME go on at once: also a dead one, from where it is or from an earlier place.

    What it has had comes with the same webhook-id again. An event that it can never take is left behind with --skip.
    """
    from holdpay._pb.v1 import holdpay_pb2 as pb

    if (after_cursor is not None) + (since_ms is not None) + skip > 1:
        raise click.UsageError("--after, --since and --skip each say where it goes on. Give one of them.")
    request = pb.ReplayHookRequest(name=name)
    if after_cursor is not None:
        request.after_cursor = after_cursor
    if since_ms is not None:
        request.since_ms = since_ms
    if skip:
        request.skip = True
    hook = app.call(lambda client: client.ask(client.stub.ReplayHook, request))
    render.out(f"The hook {name} goes on behind row {hook.cursor:,} of the journal.")


def _facts(hook: pb.Hook, now_ms: int) -> list[tuple[str, str]]:
    delivered = (
        f"{render.span(now_ms - hook.delivered_at_ms)} ago" if hook.HasField("delivered_at_ms") else "nothing yet"
    )
    waiting = f"for {render.span(now_ms - hook.waiting_since_ms)}" if hook.HasField("waiting_since_ms") else ""
    return [
        ("Hook", hook.name),
        ("Leads to", hook.target),
        ("Told", ", ".join(hook.events) + (", with numbers and codes" if hook.include_secrets else "")),
        ("State", _state(hook, now_ms)),
        ("Delivered", delivered),
        ("Waiting", waiting),
        ("Cursor", f"{hook.cursor:,}"),
    ]


def _state(hook: pb.Hook, now_ms: int) -> str:
    if hook.unusable:
        return f"NOT USABLE: {hook.unusable}. Then `systemctl reload holdpayd`"
    if hook.HasField("dead_at_ms"):
        since = render.span(now_ms - hook.dead_at_ms)
        return f"DEAD for {since}: it {hook.trouble}. Mend it, then `holdpay hooks replay {hook.name}`"
    if hook.HasField("failing_since_ms"):
        tries = "1 try" if hook.attempts == 1 else f"{hook.attempts:,} tries"
        since, again = render.span(now_ms - hook.failing_since_ms), render.span(max(0, hook.next_try_at_ms - now_ms))
        return f"failing for {since} ({tries}): it {hook.trouble}. Tried again in {again}"
    return "well"
