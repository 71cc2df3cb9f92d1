"""The second line of defence for the log: what must never be in it is cut out of every record.

The first line is not to log it. The provider's order id is the payment hash and works without a password; a preimage is
the proof of a payment; a macaroon is the key to the node.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

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
_HEX = re.compile(r"([0-9a-fA-F]{8})[0-9a-fA-F]{56,}")
_INVOICE = re.compile(r"(ln(?:bcrt|bc|tbs|tb|sb)\w{0,4})\w{16,}", re.IGNORECASE)
_SHORTEST_INVOICE = 20
_PHONE = re.compile(r"(\+\d{1,2})\d{6,13}\b")
_PASSWORD = re.compile(r"(\w://)[^\s/@]+@")


def hash8(payment_hash: str) -> str:
    """The first 8 hex digits of a payment hash: enough to find it again, useless to the provider's API."""
    return payment_hash[:8]


def redact_text(text: str) -> str:
    """Cuts runs of 64 and more hex digits (hashes, preimages, macaroons), invoices, phone numbers, URL passwords."""
    if len(text) < _SHORTEST_INVOICE and "+" not in text and "@" not in text:
        return text  # nearly every key and value: the patterns below cost more than the rest of a record
    text = _HEX.sub(r"\1…", text)
    text = _INVOICE.sub(r"\1…", text)
    text = _PHONE.sub(r"\1…", text)
    return _PASSWORD.sub(r"\1…@", text)


def redact_mapping(values: Mapping[Any, object], depth: int = 0) -> dict[str, object]:
    """A copy without secret keys, with every value redacted."""
    kept = {redact_text(str(key)): value for key, value in values.items() if str(key).lower() not in SECRET_KEYS}
    return {key: redact_value(value, depth + 1) for key, value in kept.items()}


def redact_value(value: object, depth: int = 0) -> object:
    """A value that is safe to render. An object of another kind shows its type only: its repr may hold anything."""
    if depth > _MAX_DEPTH:
        return "…"
    if isinstance(value, Enum):
        return redact_value(value.value, depth)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | PurePath):
        return redact_text(str(value))
    if isinstance(value, BaseException):
        return redact_text(f"{type(value).__name__}: {value}")
    return _redact_container(value, depth)


def _redact_container(value: object, depth: int) -> object:
    if isinstance(value, Mapping):
        return redact_mapping(value, depth)
    if isinstance(value, list | tuple | set | frozenset):
        return [redact_value(item, depth + 1) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    return f"<{type(value).__name__}>"
