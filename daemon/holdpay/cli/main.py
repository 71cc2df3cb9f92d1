"""The entry point of `holdpay`. All imports are late: a ^C while they run must not show a traceback."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line and exits."""
    try:
        from holdpay.cli.root import COMPLETE_VARIABLE, PROGRAM, cli

        cli(prog_name=PROGRAM, complete_var=COMPLETE_VARIABLE)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
