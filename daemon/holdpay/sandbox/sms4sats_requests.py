"""What is asked of the simulated sms4sats, read strictly; and its errors, as the reference words them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from holdpay.sandbox.http_server import Request, Response, json_response

UNABLE: Final = "unable to save data"
"""HTTP 500 of createorder, orderstatus and cancelorder."""
BACKEND: Final = "backend error"
"""HTTP 500 of createsendorder, createemailsendorder and fund."""
KEY_MISSING: Final = "X-API-Key header is missing."
"""HTTP 400."""


class Malformed(ValueError):
    """A field is absent, of another type, or out of bounds. The real provider may well be less strict."""


class KeyMissing(Exception):
    """There is no X-API-Key, or one that nobody has: of keys the reference knows no other error."""


def error(reason: str, http_status: int) -> Response:
    return json_response({"status": "error", "reason": reason}, http_status)


def check_key(request: Request, api_key: str) -> None:
    """Raises KeyMissing."""
    if not api_key or request.headers.get("x-api-key") != api_key:
        raise KeyMissing


class Body:
    """The JSON object of a request; anything else is taken as an empty one."""

    def __init__(self, body: bytes) -> None:
        self._fields = _object(body)

    def text(self, name: str, *, max_chars: int) -> str:
        """A required text of at least one character. Raises Malformed."""
        value = self._fields.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= max_chars or not _is_unicode(value):
            raise Malformed(name)
        return value

    def optional_text(self, name: str, *, max_chars: int) -> str:
        """Empty if it is absent. Raises Malformed."""
        return "" if self._fields.get(name) in (None, "") else self.text(name, max_chars=max_chars)

    def flag(self, name: str) -> bool:
        """False if it is absent. Raises Malformed."""
        value = self._fields.get(name, False)
        if not isinstance(value, bool):
            raise Malformed(name)
        return value

    def digits(self, name: str) -> str:
        """A required whole number, as its digits; they may come as a text. Raises Malformed."""
        value = self._fields.get(name)
        text = str(value)
        is_number = isinstance(value, (int, str)) and not isinstance(value, bool)
        if not is_number or not is_digits(text):
            raise Malformed(name)
        return text


MAX_DIGITS: Final = 15


def is_digits(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_unicode(text: str) -> bool:
    """JSON can spell half a surrogate pair, which no encoding can carry."""
    return not any("\ud800" <= char <= "\udfff" for char in text)
