"""Events and messages in few words, for the transcript of one seed."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any

_SHOWN_HEX = 8


def short(value: Any) -> str:
    """A dataclass without its defaults; a hash by its beginning."""
    if is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__}({_fields(value)})"
    if isinstance(value, tuple):
        return "[" + ", ".join(short(each) for each in value) + "]"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, str):
        return f"{value[:_SHOWN_HEX]}…" if _is_hash(value) else repr(value)
    return str(value)


def _fields(value: Any) -> str:
    texts = []
    for field in fields(value):
        given = getattr(value, field.name)
        if given in (None, (), "") or (field.default is not MISSING and given == field.default):
            continue
        texts.append(f"{field.name}={short(given)}")
    return ", ".join(texts)


def _is_hash(text: str) -> bool:
    return len(text) >= 2 * _SHOWN_HEX and set(text) <= set("0123456789abcdef")
