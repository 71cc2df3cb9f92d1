"""The entry point of `holdpay`. All imports are late: a ^C while they run must not show a traceback."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from typing import NoReturn

_UNEXPECTED = 1
_INTERRUPTED = 130


def main() -> NoReturn:
    """Runs the command line and ends the process."""
    exit_code = _UNEXPECTED
    try:
        exit_code = _run()
    except KeyboardInterrupt:
        exit_code = _INTERRUPTED
    finally:
        _leave(exit_code)


def _run() -> int:
    try:
        # As ^C: who stops a wait with `kill` or `timeout` must read, too, that the order goes on.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        _prepare_streams()
        from holdpay.cli.completion import refuse_half_a_completion
        from holdpay.cli.root import COMPLETE_VARIABLE, PROGRAM, cli

        refuse_half_a_completion(PROGRAM)
        cli(prog_name=PROGRAM, complete_var=COMPLETE_VARIABLE)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else _UNEXPECTED
    except Exception as error:  # noqa: BLE001 - the last place that can tell of it
        _tell(error)
        return _UNEXPECTED
    return 0


def _tell(error: Exception) -> None:
    from holdpay.cli.output import OutputLost

    if not isinstance(error, OutputLost):
        import traceback

        _complain("".join(traceback.format_exception(error)))
    elif error.sentence:
        _complain(f"Error: {error.sentence}")


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)  # noqa: T201 - click may be what failed


def _leave(exit_code: int) -> NoReturn:
    """Flushes and ends the process without the interpreter's own end, which can wait for ever.

    There gRPC's objects are collected, and wait for a lock that a daemon thread held when it was stopped (seen with
    grpcio 1.85 after restarts of holdpayd). No exit hook does anything that this command needs.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except Exception as error:  # noqa: BLE001 - it is told
        _tell(error)
        exit_code = exit_code or _UNEXPECTED
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(exit_code)


def _prepare_streams() -> None:
    """A closed stderr swallows what is written to it, and no terminal is too old for a character."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - as long as the process; pathlib takes long to load
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    from holdpay.cli.output import guard_stdout

    guard_stdout()


if __name__ == "__main__":
    main()
