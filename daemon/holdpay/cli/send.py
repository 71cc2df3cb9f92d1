"""`holdpay sms` and `holdpay email`: send a message and wait until it was sent."""

from __future__ import annotations

import click

from holdpay.cli.app import App, pass_app
from holdpay.cli.kinds import Until
from holdpay.cli.ordering import Ordering, ordering, prepaid_option, ref_option
from holdpay.cli.params import complete_country, read_stdin

_MAX_CHARS = 10_000
"""Far more than any message has: the daemon says how long one may be."""


def _text(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """An argument's callback: the text, or what stdin has where it is `-`, without the line end that closes it."""
    if value == "-":
        value = read_stdin(_MAX_CHARS + 2).removesuffix("\n").removesuffix("\r")
    if len(value) > _MAX_CHARS:
        raise click.BadParameter(f"It has more than {_MAX_CHARS:,} characters, and no message may.")
    return value


_text_argument = click.argument("text", callback=_text)
_webhook_option = click.option("--webhook-url", metavar="URL", help="The provider POSTs there how the sending goes.")


@click.group(short_help="Send an SMS.")
def sms() -> None:
    """Send an SMS."""


@sms.command("send", short_help="Send an SMS and wait until it was sent.")
@click.argument("phone")
@_text_argument
@click.option("--country", shell_complete=complete_country, help="PHONE is written as people of this country write it.")
@ordering
@_webhook_option
@ref_option
@prepaid_option
@pass_app
@click.pass_context
def send_sms(
    ctx: click.Context,
    app: App,
    *,
    phone: str,
    text: str,
    country: str | None,
    ordering: Ordering,
    webhook_url: str | None,
    ref: str | None,
    is_prepaid: bool,
) -> None:
    """Send TEXT, at most 140 characters, to PHONE, written like +19871234567 or as people of --country write it.

    TEXT - is read from stdin, where no other user of this machine sees it. It is charged when it was sent: then "sent"
    is printed. Once paid for, it cannot be canceled.
    """
    from holdpay._pb.v1 import holdpay_pb2 as pb

    spec = pb.SmsSpec(phone=phone, country=country, message=text, webhook_url=webhook_url, ref=ref)
    ordering.follow(ctx, app, pb.SubmitRequest(sms=spec, prepaid=is_prepaid), Until.SENT)


@click.group(short_help="Send an e-mail.")
def email() -> None:
    """Send an e-mail."""


@email.command("send", short_help="Send an e-mail and wait until it was sent.")
@click.argument("address")
@_text_argument
@ordering
@_webhook_option
@prepaid_option
@pass_app
@click.pass_context
def send_email(
    ctx: click.Context,
    app: App,
    *,
    address: str,
    text: str,
    ordering: Ordering,
    webhook_url: str | None,
    is_prepaid: bool,
) -> None:
    """Send TEXT, at most 140 characters, to ADDRESS.

    TEXT - is read from stdin, where no other user of this machine sees it. It is charged when it was sent: then "sent"
    is printed. Once paid for, it cannot be canceled.
    """
    from holdpay._pb.v1 import holdpay_pb2 as pb

    spec = pb.EmailSpec(address=address, message=text, webhook_url=webhook_url)
    ordering.follow(ctx, app, pb.SubmitRequest(email=spec, prepaid=is_prepaid), Until.SENT)
