"""Values on the command line: lengths of time, points in time, texts, and what completes countries and orders."""

from __future__ import annotations

import re
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

MAX_INT64 = 2**63 - 1
"""The largest number that the interface takes."""
MAX_WAIT_S = 30 * 86_400
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def parse_duration_s(text: str) -> float | None:
    """Seconds of "90s", "10m", "1h30m" or "7d"; None if it is none of them. A number needs its unit."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNIT_S[unit] for number, unit in parts)


def optional_duration_s(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """An option's callback: a length of time in whole seconds, also a bare number of them. None: it was not given."""
    if value is None:
        return None
    return int(value) if value.isdecimal() and int(value) <= MAX_WAIT_S else int(duration_s(ctx, param, value))


def duration_s(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """An option's callback: a length of time, in seconds."""
    length_s = parse_duration_s(value)
    if not length_s:
        raise click.BadParameter(f"{value!r} is no length of time. Write it like 90s, 10m or 1h30m.")
    if length_s > MAX_WAIT_S:
        raise click.BadParameter(f"{value!r} is too long. Give 30d at most.")
    return length_s


def past_ms(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """An option's callback: Unix milliseconds of a date, a date with a time, or a length of time before now."""
    if value is None:
        return None
    length_s = parse_duration_s(value)
    if length_s is not None:
        return int((time.time() - length_s) * 1000)
    for pattern in ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"):
        with suppress(ValueError, OverflowError):
            return int(time.mktime(time.strptime(value, pattern)) * 1000)
    raise click.BadParameter(f"{value!r} is no time. Write it like 2h, 7d, 2026-01-31 or '2026-01-31 14:00'.")


def read_stdin(most_chars: int) -> str:
    """What stdin has, at most so many characters of it. Raises BadParameter: nothing can be read, or it is no text."""
    if sys.stdin is None:
        raise click.BadParameter("Stdin is closed. Hand the text over with a pipe or <FILE, or write it instead of -.")
    try:
        text = sys.stdin.read(most_chars)
        # In some locales Python carries bytes that are no text along, and only who sends them fails.
        text.encode()
    except UnicodeError:
        raise click.BadParameter("What stdin has is not valid UTF-8. Hand over text.") from None
    except OSError as error:
        raise click.BadParameter(
            f"Stdin cannot be read ({error.strerror or error}). Hand the text over with a pipe or <FILE."
        ) from None
    return text


def complete_country(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Country names from the daemon, those of one word (a shell would split the others)."""
    from click.shell_completion import CompletionItem

    from holdpay.cli.complete import country_names

    names = country_names(_socket_of(ctx))
    return [CompletionItem(name) for name in names if " " not in name and name.startswith(incomplete.lower())]


def complete_countries(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The last of a list with commas."""
    from click.shell_completion import CompletionItem

    before, comma, last = incomplete.rpartition(",")
    return [CompletionItem(f"{before}{comma}{item.value}") for item in complete_country(ctx, param, last)]


def complete_service(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Short codes, with the name beside, and names of one word where one is being typed."""
    from click.shell_completion import CompletionItem

    from holdpay.cli.complete import services

    known = services(_socket_of(ctx))
    items = [CompletionItem(code, help=name) for code, name in known]
    if incomplete:
        names = {word: code for code, name in known for word in re.split(r"[,;/+|()]\s*", name.lower())}
        items += [CompletionItem(name, help=code) for name, code in names.items() if " " not in name]
    return [item for item in items if item.value.startswith(incomplete.lower())]


def complete_order(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The newest order ids, with what they are."""
    return _complete_order(ctx, incomplete, "")


def complete_rental(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The newest ones of rented numbers."""
    return _complete_order(ctx, incomplete, "rental")


def _complete_order(ctx: click.Context, incomplete: str, kind: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from holdpay.cli.complete import order_ids

    found = order_ids(_socket_of(ctx), kind)
    return [CompletionItem(id_, help=help_) for id_, help_ in found if id_.startswith(incomplete)]


def _socket_of(ctx: click.Context) -> str | None:
    socket = ctx.find_root().params.get("socket")
    return str(socket) if socket else None
