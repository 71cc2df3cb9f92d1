"""Single values of a reply, and bodies that are only nearly JSON. Pure; refuses nothing that a person could still read.

What means absent: ``null``, ``false``, 0, empty text, list and object, and the words that programs write for them.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from holdpay.core.items import words

MAX_CODE_CHARS: Final = 320
"""Two SMS: what is paid for may come as a whole sentence."""
MAX_NUMBER_DIGITS: Final = 32
MAX_MESSAGES: Final = 1000
"""The last ones count: those before were in earlier replies."""
MAX_MESSAGE_CHARS: Final = 2000
"""Of one message to a rented number: more than an SMS in all its parts."""
MAX_KEPT_RAW_CHARS: Final = 4096
"""Of a reply that a person has to read: the reference's are some 200 long."""

SENDING_NAMES: Final = ("smsStatus", "emailStatus", "mailStatus", "messageStatus", "sendStatus")
"""How the sending goes: the first is the reference's, the others likely where it is an e-mail."""
MESSAGES_NAMES: Final = ("messages", "sms", "smses", "texts", "inbox", "codes")
"""What came to a rented number: nothing is documented, these are likely. "message" is mostly about the reply itself."""
DELIVERED_NAMES: Final = ("code", "number", *MESSAGES_NAMES, *SENDING_NAMES)

ENDS_NAMES: Final = ("rentalEnd", "rentalEndsAt", "rentalExpiresAt", "rentedUntil", "endsAt", "endDate", "validUntil")
"""When a rental ends: nothing is documented, these are likely. "expires" is mostly about the invoice."""

_TEXT_NAMES: Final = ("text", "message", "body", "content", "sms", "code")
"""The whole text of a message first: a code is in it."""
_TIME: Final = re.compile("[1-9][0-9]{8,14}")
_DIGITS_OF_S: Final = 11
"""A time in ms has more since 1973."""
_CUT: Final = "…"
_MAX_LISTS: Final = 4
_MAX_PLACES: Final = 40
_MAX_MEMBERS: Final = 200
UNREADABLE: Final[Mapping[str, bool]] = {"unreadable": True}
"""In the place of a value that is no JSON."""
_ABSENT_WORDS: Final = frozenset({"", "0", "null", "none", "nil", "undefined", "nan", "false"})
_YES: Final = frozenset({"true", "1", "1.0", "yes", "y", "t", "on", "paid"})
_NO: Final = frozenset({"false", "0", "no", "n", "f", "off", "unpaid"})
_FLOAT: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_ESCAPE_SEQUENCE: Final = re.compile(r"\x1b(\[[0-9;:?]*[ -/]*[@-~]|.?)")
_ZERO_WIDTH: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u20e3\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Takes no room and is no control or format character for Unicode: fillers, variation selectors, the key cap."""
_NUMBER_WORDS: Final = re.compile(r"(?:tel|phone|sms)\s*:", re.IGNORECASE)
_NOT_OF_A_NUMBER: Final = re.compile(r"[^0-9\s+()\[\]./,;:*#'_-]")
_NEXT_MEMBER: Final = re.compile(r',\s*(?="(?:[^"\\]|\\.){0,100}"\s*:)')
_BARE: Final = re.compile(r"(?P<word>[A-Za-z_][A-Za-z0-9_]*)|'(?P<text>[^'\\]*)'")
_END_OF_VALUE: Final = re.compile(r"\s*[,}\]]")
_KEY: Final = re.compile(r'[\s,]*"((?:[^"\\]|\\.){0,100})"\s*:\s*')


class JsonNumber(str):
    """A number of the body, in the digits in which it was written."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Read:
    """A value made sense of. ``text`` is empty for what is absent, and for what ``is_unread``: there, and beyond us.
    A text that was cut is both read and not."""

    text: str = ""
    is_number: bool = False
    """It came as a JSON number: zeros at its beginning may be missing."""
    is_unread: bool = False


# --- single values --------------------------------------------------------------------------------------------------


def single(value: object) -> object:
    """What a list of one holds; anything else as it is."""
    lists = 0
    while isinstance(value, list) and len(value) == 1 and lists < _MAX_LISTS:
        value = value[0]
        lists += 1
    return value


def is_absent(value: object) -> bool:
    """Whether a value says that there is none."""
    value = single(value)
    if isinstance(value, str):
        return visible(value).lower() in _ABSENT_WORDS or (isinstance(value, JsonNumber) and not value.strip("-0."))
    return not value


def text(value: object) -> str:
    """Empty for what means absent; other things than text are kept in JSON, since they say something."""
    value = single(value)
    if is_absent(value):
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def visible(value: str) -> str:
    """One line without control, format and other characters that nobody sees, nor a terminal's escape sequences."""
    if value.isascii() and value.isprintable():
        return " ".join(value.split())  # there are none of these
    line = " ".join(_ESCAPE_SEQUENCE.sub("", value).split())
    seen = "".join(char for char in line if char == " " or unicodedata.category(char)[0] not in "CZ")
    return " ".join(_ZERO_WIDTH.sub("", seen).split())


def code(value: object) -> Read:
    """Whatever text there is, cut at MAX_CODE_CHARS."""
    return _delivered_text(value, MAX_CODE_CHARS)


def _delivered_text(value: object, max_chars: int) -> Read:
    value = single(value)
    if is_absent(value):
        return Read()
    if not isinstance(value, str):
        return Read(is_unread=True)
    is_number = isinstance(value, JsonNumber)
    line = whole_digits(value) if is_number else visible(value)
    if len(line) > max_chars:
        return Read(line[: max_chars - 1] + _CUT, is_number, is_unread=True)
    return Read(line, is_number, is_unread=not line)


@dataclass(frozen=True, slots=True)
class Messages:
    """What came to a rented number, in the reply's order."""

    texts: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    """Those that cannot be read, or not to their end, as they came and cut."""
    is_cut: bool = False
    """There are more than MAX_MESSAGES, or some that are no JSON."""


def messages(members: Mapping[str, Any]) -> Messages:
    """Those of all MESSAGES_NAMES: what stands under a later name and is a message already, or a word of one, is that
    one."""
    texts: list[str] = []
    unread: list[str] = []
    known: set[str] = set()
    is_cut = False
    for name in (name for name in MESSAGES_NAMES if name in members):
        rows = single(members[name])
        rows = rows if isinstance(rows, list) else [rows]
        read = [(_message(row), row) for row in rows[-MAX_MESSAGES:]]
        is_cut |= len(rows) > MAX_MESSAGES or any(row is UNREADABLE for row in rows)
        unread += [kept_raw(_written(row)) for one, row in read if one.is_unread and row is not UNREADABLE]
        new = [one.text for one, _ in read if one.text and one.text not in known]
        texts += new
        known.update(*(words(text) for text in new))
    return Messages(tuple(texts[-MAX_MESSAGES:]), tuple(unread), is_cut or len(texts) > MAX_MESSAGES)


def _written(value: object) -> str:
    """A value as JSON, its numbers as they came."""
    if isinstance(value, JsonNumber):
        return value
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {_written(inner)}" for name, inner in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def _message(row: object) -> Read:
    row = single(row)
    if row is True:
        return Read()  # a flag
    if isinstance(row, dict) and row is not UNREADABLE:
        said = [_delivered_text(row[name], MAX_MESSAGE_CHARS) for name in _TEXT_NAMES if name in row]
        is_lost = bool(row) and (not said or any(read.is_unread for read in said))
        return next((read for read in said if read.text), Read(is_unread=is_lost))
    return _delivered_text(row, MAX_MESSAGE_CHARS)


def whole_digits(number: str) -> str:
    """A float without what JSON added to it: 48010.0 and 4.801e4 → 48010."""
    if not _FLOAT.fullmatch(number) or not set(".eE") & set(number):
        return number
    value = Decimal(number)
    if abs(value.adjusted()) > _MAX_PLACES or value != value.to_integral_value():
        return number
    return format(value.to_integral_value(), "f")


def number(value: object) -> Read:
    """A phone number's digits, with the country's prefix, whatever separators people use."""
    value = single(value)
    if is_absent(value):
        return Read()
    if not isinstance(value, str):
        return Read(is_unread=True)
    is_number = isinstance(value, JsonNumber)
    line = whole_digits(value) if is_number else _NUMBER_WORDS.sub("", visible(value))
    plain = line if line.isascii() else "".join(_ascii(char) for char in line)
    digits = re.sub(r"[^0-9]", "", plain)
    if _NOT_OF_A_NUMBER.search(plain) or not 0 < len(digits) <= MAX_NUMBER_DIGITS:
        return Read(is_unread=True)
    return Read(digits, is_number)


def _ascii(char: str) -> str:
    """Every decimal digit as ASCII, every dash as "-", every plus as "+"."""
    if char.isdecimal():
        return str(int(char))
    if unicodedata.category(char) == "Pd" or char == "\N{MINUS SIGN}":
        return "-"
    return unicodedata.normalize("NFKC", char)


def truth(value: object) -> bool | None:
    """None: it does not say."""
    value = single(value)
    if value is None or isinstance(value, bool):
        return value
    word = visible(value).lower() if isinstance(value, str) else ""
    return True if word in _YES else False if word in _NO else None


def time_ms(value: object) -> int | None:
    """A time in ms since 1970, from that or from s, as a number, or from ISO 8601, without a zone in UTC. None: it is
    none."""
    said = whole_digits(text(value).strip())
    if _TIME.fullmatch(said):
        return int(said) * (1000 if len(said) <= _DIGITS_OF_S else 1)
    try:
        at = datetime.fromisoformat(said)
    except ValueError:
        return None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def kept_raw(raw: str) -> str:
    """A reply for a person to read, cut."""
    return raw if len(raw) <= MAX_KEPT_RAW_CHARS else raw[: MAX_KEPT_RAW_CHARS - 1] + _CUT


# --- bodies ---------------------------------------------------------------------------------------------------------


def strict_json(body: bytes) -> object:
    """UTF-8, with or without a byte-order mark. Raises ValueError, for what is nested absurdly deep, too."""
    try:
        return json.loads(
            body.decode("utf-8-sig"), parse_int=JsonNumber, parse_float=JsonNumber, parse_constant=_no_constant
        )
    except RecursionError:
        raise ValueError("nested too deep") from None


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


@dataclass(frozen=True, slots=True)
class Body:
    """The object that a body holds. ``is_whole`` False: it is no JSON, and more may have stood there."""

    members: dict[str, Any]
    is_whole: bool = True


def body(answered: bytes) -> Body:
    """What of an object can be read: text may have raw newlines and bad bytes, and what is no JSON costs the members
    that it is in only. Of a key that stands there twice, the last value that says something counts."""
    written = answered.decode(json.detect_encoding(answered), "replace").lstrip("\ufeff")
    try:
        whole = single(_decoder.decode(written))
    except (ValueError, RecursionError):
        return Body(_rest_of_members(written, written.find("{") + 1), is_whole=False)
    return Body(whole if isinstance(whole, dict) else {})


def _rest_of_members(written: str, at: int) -> dict[str, Any]:
    """Member by member from ``at`` on, as deep as the first one. After a value that cannot be read it goes on at the
    next key, unless that value is an object or a list: whose keys would come next nobody knows."""
    pairs: list[tuple[str, Any]] = []
    while at and len(pairs) < _MAX_MEMBERS and (key := _KEY.match(written, at)):
        value, after = _value(written, key.end())
        pairs.append((key[1], value))
        is_lost = value is UNREADABLE and written[key.end() : key.end() + 1] in {"{", "["}
        at = 0 if is_lost else _next_member(written, after)
    known = _merged(pairs)
    lost = [name for name in DELIVERED_NAMES if name not in known and f'"{name}"' in written]
    return {**known, **dict.fromkeys(lost, UNREADABLE)}


def _value(written: str, at: int) -> tuple[Any, int]:
    """The value that begins at ``at``, and where it ends: JSON, a bare word, or text in single quotes.

    A number or a word that something follows but the next member, as 0 in ``004512``, is only the beginning of what was
    meant, which nobody knows.
    """
    try:
        value, end = _decoder.raw_decode(written, at)
    except (ValueError, RecursionError):
        bare = _BARE.match(written, at)
        value, end = (bare["word"] or bare["text"], bare.end()) if bare else (UNREADABLE, at)
    is_closed = written[at : at + 1] in {'"', "'", "{", "["}
    return (value, end) if is_closed or _END_OF_VALUE.match(written, end) else (UNREADABLE, at)


def _next_member(written: str, at: int) -> int:
    """Where the next key begins; 0: none follows before the object ends."""
    found = _NEXT_MEMBER.search(written, at)
    return found.end() if found and "}" not in written[at : found.start()] else 0


def _merged(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for key, value in pairs:
        if key not in merged or is_absent(merged[key]) or not is_absent(value):
            merged[key] = value
    return merged


_decoder: Final = json.JSONDecoder(
    strict=False,
    parse_int=JsonNumber,
    parse_float=JsonNumber,
    parse_constant=lambda name: None,
    object_pairs_hook=_merged,
)
