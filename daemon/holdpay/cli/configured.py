"""What the commands of holdpayd that need the configuration have in common."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from holdpay.config import Settings


def load(config_path: Path | None) -> tuple[Path, Settings]:
    """The configuration to use, and where it is. Raises ConfigError."""
    from holdpay.config import find, load

    path = find(config_path)
    return path, load(path)


def given_path(context: click.Context, config_path: Path | None) -> Path | None:
    """Of the configuration: given to the command, or to any group before it; the nearest counts."""
    above = context.parent
    while config_path is None and above is not None:
        config_path, above = above.params.get("config_path"), above.parent
    return config_path


def complain(problems: Iterable[str]) -> None:
    """A line each on stderr, redacted. Where nobody can hear it, the exit code says it alone."""
    from holdpay.redact import redact_text

    for problem in problems:
        with contextlib.suppress(OSError):
            click.echo(f"holdpayd: {redact_text(problem)}", file=sys.stderr)
