"""The entry point of `holdpay`. All imports are late: a ^C while they run must not show a traceback."""

from __future__ import annotations

import io
import os
import signal
import sys


def main() -> None:
    """Runs the command line and exits."""
    try:
        # As ^C: who stops a wait with `kill` or `timeout` must read, too, that the order goes on.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        _prepare_streams()
        from holdpay.cli.root import COMPLETE_VARIABLE, PROGRAM, cli

        cli(prog_name=PROGRAM, complete_var=COMPLETE_VARIABLE)
    except KeyboardInterrupt:
        sys.exit(130)


def _prepare_streams() -> None:
    """A closed stderr swallows what is written to it, and no terminal is too old for a character."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - as long as the process; pathlib takes long to load
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
