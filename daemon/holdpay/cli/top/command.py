"""The command `holdpay top`. Imports nothing heavy."""

from __future__ import annotations

import sys

import click

from holdpay.cli import render
from holdpay.cli.app import App, pass_app
from holdpay.cli.exit_codes import ExitCode
from holdpay.cli.failure import Failure

_PLAIN = "See the same line by line with: holdpay status --watch"


@click.command(short_help="Watch what is out, full screen.")
@pass_app
def top(app: App) -> None:
    """Watch what is out, full screen: requests, countdowns, limits, lnd, the provider, the last events.

    Keys: up and down select a request, enter explains it, c cancels it (asks first), q leaves. Where there is no such
    terminal, and for pipes: `holdpay status --watch`.
    """
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout)):
        raise Failure(f"`holdpay top` needs a terminal for its screen and its keys. {_PLAIN}", ExitCode.REFUSED_INPUT)
    if not render.obeys_escapes():
        raise Failure(f"This terminal (TERM) can show no full screen. {_PLAIN}", ExitCode.REFUSED_INPUT)
    from holdpay.cli.top.terminal import Terminal
    from holdpay.cli.top.view import watch

    watch(app, Terminal(sys.stdin, sys.stdout))
