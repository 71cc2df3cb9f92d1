"""The one exception that ends a command with a sentence and a documented exit code."""

from __future__ import annotations

from holdpay.cli.exit_codes import ExitCode


class Failure(Exception):
    """The message says what happened and what to do next; it goes to stderr, and the process exits with `exit_code`."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Unreachable(Failure):
    """Nothing was sent: the daemon's socket is not there, not allowed, or does not answer."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.UNREACHABLE)
