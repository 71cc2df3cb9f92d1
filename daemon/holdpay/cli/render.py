"""How money, times, numbers, tables and JSON look. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

import click

if TYPE_CHECKING:
    from google._upb import _message as upb
    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.message import Message

    Field: TypeAlias = FieldDescriptor | upb.FieldDescriptor


def plain(text: str) -> str:
    """Without control characters: names and reasons come from the provider, and a terminal obeys escape sequences."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def one_line(text: str) -> str:
    """A text of some size that came from outside, to be read: escape sequences and control characters taken out."""
    line = " ".join(click.unstyle(text).split())
    return "".join(char for char in line if char.isprintable())


def is_utf8(stream: TextIO) -> bool:
    """Whether it takes every character."""
    return (stream.encoding or "").lower().replace("-", "") == "utf8"


def obeys_escapes() -> bool:
    """Whether the terminal takes more than lines of text, by its own word."""
    return os.environ.get("TERM", "dumb") not in {"", "dumb", "unknown"}


def sat(amount_sat: int) -> str:
    """12345 → "12,345 sat"."""
    return f"{amount_sat:,} sat"


def msat(amount_msat: int) -> str:
    """Millisatoshi in sat, with up to three decimals: 3000512 → "3,000.512 sat"."""
    whole, rest = divmod(amount_msat, 1000)
    decimals = f".{rest:03d}".rstrip("0").rstrip(".")
    return f"{whole:,}{decimals} sat"


def height(block_height: int) -> str:
    return f"block {block_height:,}"


def phone(number: str) -> str:
    return number if number.startswith("+") else f"+{number}"


def span(duration_ms: int) -> str:
    """A length of time: "0.4s", "48.1s", "3m05s", "2h07m", "3d04h"."""
    tenths, seconds = max(0, duration_ms) // 100, max(0, duration_ms) // 1000
    if seconds < 60:
        return f"{tenths // 10}.{tenths % 10}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    if seconds < 86_400:
        return f"{seconds // 3600}h{seconds // 60 % 60:02d}m"
    return f"{seconds // 86_400}d{seconds // 3600 % 24:02d}h"


def clock_time(at_ms: int) -> str:
    """Local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(at_ms / 1000))


def date_time(at_ms: int) -> str:
    """Local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000))


def enum_text(message: Message, field: str) -> str | None:
    """An enum's value in lower case without its prefix (END_REFUNDED → "refunded"); None where it is unspecified."""
    descriptor = message.DESCRIPTOR.fields_by_name[field]
    return _enum_text(descriptor, getattr(message, field))


def _enum_text(descriptor: Field, number: int) -> str | None:
    if number == 0:
        return None
    assert descriptor.enum_type is not None
    values = descriptor.enum_type.values_by_number
    prefix = values[0].name.removesuffix("UNSPECIFIED")
    # A newer daemon may know more values than this command.
    return values[number].name.removeprefix(prefix).lower() if number in values else str(number)


def to_dict(message: Message) -> dict[str, Any]:
    """Every field under its proto name, also those at their default; absent ones and unspecified enums are None."""
    return {field.name: _field_value(message, field) for field in message.DESCRIPTOR.fields}


def _field_value(message: Message, field: Field) -> object:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [_single_value(field, item) for item in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _single_value(field, value)


def _single_value(field: Field, value: Any) -> object:
    if field.message_type is not None:
        return to_dict(value)
    if field.enum_type is not None:
        return _enum_text(field, value)
    return value


def out(text: str) -> None:
    """A line on stdout, flushed. Raises OutputLost."""
    click.echo(text)


def note(text: str) -> None:
    """A line on stderr for people. One that cannot be written is left out: it must not end what goes on."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def echo_json(message: Message) -> None:
    """One JSON object on one line of stdout, flushed. Raises OutputLost."""
    import json

    out(json.dumps(to_dict(message), ensure_ascii=False, separators=(",", ":")))


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the last one is not padded."""
    lines = [[plain(cell) for cell in row] for row in [headings, *rows]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Name and value, a line each; pairs without a value are left out."""
    shown = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{name.ljust(width)}  {plain(value)}" for name, value in shown)
