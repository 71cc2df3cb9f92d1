"""The second line of defence for the log: what must never be in it is cut out of every record.

The first line is not to log it. The provider's order id is the payment hash and works without a password; a preimage is
the proof of a payment; a macaroon is the key to the node.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any, cast

SECRET_KEYS = frozenset(
    {
        "macaroon",
        "code",
        "number",
        "preimage",
        "payment_preimage",
        "api_key",
        "x-api-key",
        "authorization",
        "password",
        "phone",
        "phone_number",
    }
)
"""Keys whose values are dropped, whatever they hold."""

_MAX_DEPTH = 6
_SUSPECT = re.compile(r"[+@]|\w{20}")
"""Each pattern of ``_SECRET`` needs one of these, which nearly no text has: this is looked for much sooner."""
_SECRET = re.compile(
    r"(?<=\w://)[^\s/@]+(?=@)"  # user and password of a URL, whatever else they look like
    r"|([0-9a-fA-F]{8})[0-9a-fA-F]{56,}"
    r"|((?i:ln(?:bcrt|bc|tbs|tb|sb))\w{0,4})\w{16,}"
    r"|(\+\d{1,2})\d{6,13}\b"
)
_PLAIN = frozenset({bool, int, float, type(None)})


def hash8(payment_hash: str) -> str:
    """The first 8 hex digits of a payment hash: enough to find it again, useless to the provider's API."""
    return payment_hash[:8]


def redact_text(text: str) -> str:
    """Cuts runs of 64 and more hex digits (hashes, preimages, macaroons), invoices, phone numbers, URL passwords."""
    return text if _SUSPECT.search(text) is None else _SECRET.sub(r"\1\2\3…", text)


def redact_mapping(values: Mapping[Any, object], depth: int = 0) -> dict[str, object]:
    """A copy without secret keys, with every value redacted."""
    return {
        redact_text(name): redact_value(value, depth + 1)
        for key, value in values.items()
        if (name := str(key)).lower() not in SECRET_KEYS
    }


def redact_value(value: object, depth: int = 0) -> object:
    """A value that is safe to render. An object of another kind shows its type only: its repr may hold anything."""
    if depth > _MAX_DEPTH:
        return "…"
    kind = type(value)
    if kind is str:
        return redact_text(cast(str, value))
    if kind in _PLAIN:
        return value
    if isinstance(value, Enum):
        return redact_value(value.value, depth)
    if isinstance(value, int | float):
        return value
    if isinstance(value, str | PurePath):
        return redact_text(str(value))
    if isinstance(value, BaseException):
        return redact_text(f"{kind.__name__}: {value}")
    return _redact_container(value, depth)


def _redact_container(value: object, depth: int) -> object:
    if isinstance(value, Mapping):
        return redact_mapping(value, depth)
    if isinstance(value, list | tuple | set | frozenset):
        return [redact_value(item, depth + 1) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    return f"<{type(value).__name__}>"
