"""What every command that orders something has in common: its options, and the wait. Imports nothing heavy."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from holdpay.cli.app import App
from holdpay.cli.exit_codes import ExitCode
from holdpay.cli.kinds import Until
from holdpay.cli.params import MAX_INT64, duration_s

if TYPE_CHECKING:
    from holdpay._pb.v1 import holdpay_pb2 as pb

timeout_option = click.option(
    "--timeout",
    "timeout_s",
    callback=duration_s,
    metavar="DURATION",
    default="25m",
    show_default=True,
    help="Stop waiting then; the order goes on.",
)
ref_option = click.option(
    "--ref", metavar="ADDRESS", help="Lightning Address that earns a share.  [default: provider.ref of the daemon]"
)
prepaid_option = click.option(
    "--prepaid", "is_prepaid", is_flag=True, help="Spend the prepaid account's balance; no hold invoice is paid."
)
_OPTIONS = (
    click.option(
        "--max-price",
        "max_price_sat",
        type=click.IntRange(min=1, max=MAX_INT64),
        metavar="SAT",
        help="Pay no invoice above this. (Nor one that is more than 2 % above the quoted price, in any case.)",
    ),
    click.option(
        "--max-fee",
        "max_fee_sat",
        type=click.IntRange(min=0, max=MAX_INT64),
        metavar="SAT",
        help="Total routing fee limit.",
    ),
    timeout_option,
    click.option("--force", is_flag=True, help="Order even if the provider shows no stock, or lnd sees no way to pay."),
    click.option("--dry-run", is_flag=True, help="Show what every rule says, and order nothing."),
    click.option("--no-wait", is_flag=True, help="Print the order's id as soon as it is accepted, and leave."),
    click.option("--key", help="Idempotency key: the same request with the same key is one order.  [default: made up]"),
    click.option("--json", "as_json", is_flag=True, help="Print each update as one JSON object on stdout."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordering:
    """What the common options said. ``key`` None: it is to be made up."""

    max_price_sat: int | None
    max_fee_sat: int | None
    timeout_s: float
    force: bool
    dry_run: bool
    no_wait: bool
    key: str | None
    as_json: bool

    def follow(self, ctx: click.Context, app: App, submit: pb.SubmitRequest, until: Until) -> None:
        """Sends ``submit``, with what the options said, and waits for ``until``, or only until it is accepted. A dry
        run has it checked, and no more."""
        from holdpay._pb.v1 import holdpay_pb2 as pb
        from holdpay.cli.feed import Feed
        from holdpay.cli.follow import Follower, make_view

        submit.MergeFrom(
            pb.SubmitRequest(
                idempotency_key=f"cli-{os.urandom(8).hex()}" if self.key is None else self.key,
                max_price_sat=self.max_price_sat,
                max_fee_sat=self.max_fee_sat,
                force=self.force,
            )
        )
        if self.dry_run:
            ctx.exit(self._check(app, submit))
        view = make_view(app, as_json=self.as_json)
        feed = Feed(
            app=app,
            say=view.note,
            started_ms=app.clock.now_ms(),
            submit=submit,
            deadline_s=app.clock.monotonic_s() + self.timeout_s,
        )
        ctx.exit(Follower(app, feed, view, Until.ACCEPTED if self.no_wait else until).run())

    def _check(self, app: App, submit: pb.SubmitRequest) -> ExitCode:
        """Shows what every rule says. Returns the exit code with which the order would be refused."""
        from holdpay.cli.client import refusal_code
        from holdpay.cli.vet import show

        report = app.call(lambda client: client.ask(client.stub.CheckRequest, submit))
        show(report, done="ordered", as_json=self.as_json)
        if report.fine:
            return ExitCode.DONE
        return refusal_code(report.refusal)


def ordering(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the common options, which arrive as its argument ``ordering``."""
    names = tuple(Ordering.__dataclass_fields__)

    @functools.wraps(command)
    def gathered(*args: Any, **kwargs: Any) -> None:
        said = {name: kwargs.pop(name) for name in names}
        command(*args, ordering=Ordering(**said), **kwargs)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered
