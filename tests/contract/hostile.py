"""Replies that no honest provider sends: mutations of the examples of its reference, and heads that lie."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st

EXAMPLES: Final = Path(__file__).parents[1] / "fixtures" / "sms4sats"
ORDER_ID: Final = "7dc6e6b61d8c54dff6b8d6ea2e3f08b018e57963df81d493a6f9728c4dc83318"


@dataclass(frozen=True, slots=True)
class Token:
    """Goes into the body as it is, whether it is JSON or not."""

    text: str


@dataclass(frozen=True, slots=True)
class Doubled:
    """A value whose key stands there twice; ``first`` is the other value."""

    first: object
    second: object


def _nested(opening: str, inside: str, closing: str) -> Callable[[int], Token]:
    return lambda depth: Token(opening * depth + inside + closing * depth)


_DEPTHS: Final = st.sampled_from([2, 50, 900, 985, 1000, 5000, 30_000])
VALUES: Final[st.SearchStrategy[object]] = st.one_of(
    st.sampled_from(
        [
            *(
                Token(text)
                for text in ("NaN", "Infinity", "-Infinity", "1e999999", "-0", "0", "1.0", "1.5", "0x10", "")
            ),
            *(Token(text) for text in ("9" * 4000, "-" + "9" * 4000, "1" * 33, "0." + "3" * 4000, "'a'", "undefined")),
            *(Token(text) for text in ('"\\ud800"', '"\\u0000"', '"\\', '"', "[", "{", "/* */1", "true false")),
            *(None, True, False, [], {}, [None], {"status": "OK"}, -5, 48010, 12345678901, 0.1),
            *("", " ", "0", "-1", "true", "FALSE", "OK", "ok ", "error", "paid", "null", "None", "\x00", "\x1b[2J"),
            *("48010", "0048010", "٠٠٤٨", "48 010", "+1 (555) 123-45", "1" * 65, "\u202e48010", "👩‍👩‍👧", "ſ", "\n\n"),
            *(
                ORDER_ID,
                ORDER_ID.upper() * 3,
                "a/../b?c=d&e",
                "lnbc1",
                "lnbc1ſK",
                "LNBC30U1" + "Q" * 8000,
                "x" * 60_000,
            ),
            *("<html><script>alert(1)</script>", "'; DROP TABLE orders; --", "%s%n", "${jndi:ldap://a}", "\\" * 500),
        ]
    ),
    _DEPTHS.map(_nested("[", "1", "]")),
    _DEPTHS.map(_nested('{"error":', '"x"', "}")),
    st.integers(),
    st.text(max_size=20),
)


def _paths(tree: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, child in children:
        yield from _paths(child, (*path, key))


def _replaced(tree: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(tree)
    if not isinstance(tree, dict | list):
        return tree  # an earlier mutation took away what was below
    copy = tree.copy()
    try:
        copy[path[0]] = _replaced(copy[path[0]], path[1:], change)
    except (KeyError, IndexError):
        return tree
    return copy


def _text(tree: object) -> str:
    if isinstance(tree, Token):
        return tree.text
    if isinstance(tree, Doubled):
        return _text(tree.second)  # not below a key: an element of a list, or the whole
    if isinstance(tree, dict):
        return "{" + ", ".join(_member(str(key), value) for key, value in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(_text(value) for value in tree) + "]"
    return json.dumps(tree)


def _member(key: str, value: object) -> str:
    if isinstance(value, Doubled):
        return f"{_member(key, value.first)}, {_member(key, value.second)}"
    return f"{json.dumps(key)}: {_text(value)}"


@st.composite
def mutated_text(draw: st.DrawFn, fitting: str) -> str:
    """An example, mostly one that matches the pattern ``fitting``, with up to three changes somewhere in it."""
    pattern = draw(st.sampled_from([fitting, fitting, fitting, "*"]))
    example = draw(st.sampled_from(sorted(EXAMPLES.glob(f"{pattern}.json"))))
    tree = json.loads(example.read_text())
    for _ in range(draw(st.integers(0, 3))):
        paths = list(_paths(tree))
        path = draw(st.sampled_from(paths + 3 * [path for path in paths if path and path[-1] in _FIELDS]))
        value = draw(VALUES)
        kind = draw(st.sampled_from(["replace", "replace", "wrap", "double", "add"]))
        tree = _replaced(tree, path, _change(kind, value, draw(st.sampled_from(_FIELDS))))
    return _text(tree)


_FIELDS: Final = (
    *("status", "paid", "code", "number", "error", "reason", "orderId", "payreq", "computed", "price", "receive"),
    *("value", "text", "count", ""),
)


def _change(kind: str, value: object, field: str) -> Callable[[Any], Any]:
    match kind:
        case "wrap":
            return lambda old: [old]
        case "double":
            return lambda old: Doubled(old, value)
        case "add":
            return lambda old: {**old, field: value} if isinstance(old, dict) else value
    return lambda old: value


@st.composite
def bodies(draw: st.DrawFn, fitting: str) -> bytes:
    """A mutated example as bytes, which may be broken once more."""
    text = draw(mutated_text(fitting))
    encoding = draw(st.sampled_from(["utf-8"] * 16 + ["utf-8-sig", "utf-16", "utf-32", "utf-7"]))
    body = text.encode(encoding, "surrogatepass")
    match draw(st.sampled_from(["whole"] * 12 + ["cut", "twice", "flipped", "gzip", "html", "binary", "padded"])):
        case "cut":
            return body[: draw(st.integers(0, len(body)))]
        case "twice":
            return body + body
        case "flipped" if body:
            at = draw(st.integers(0, len(body) - 1))
            return body[:at] + bytes([body[at] ^ draw(st.integers(1, 255))]) + body[at + 1 :]
        case "gzip":
            return gzip.compress(body)
        case "html":
            return b"<!doctype html><html><body><h1>502 Bad Gateway</h1></body></html>"
        case "binary":
            return draw(st.binary(max_size=60))
        case "padded":
            return b" " * draw(st.sampled_from([1, 60_000, 70_000])) + body
    return body


# --- the head -------------------------------------------------------------------------------------------------------

ADDRESSES: Final = [
    *("http://127.0.0.1:1/", "https://elsewhere.invalid/orderstatus", "//elsewhere.invalid", "/", "", "?", "mailto:x"),
    *("javascript:1", "http://xn--/", "http://[", "http://a:99999/", "file:///etc/passwd", "x" * 70_000, "\x7f", "ö"),
]
_TIMES: Final = [
    *("0", "7", "3600", "9" * 5000, "-1", "1.5", "soon", ",", "Fri, 31 Dec 9999 23:59:59 GMT"),
    *("Mon, 32 Jan 2020 00:00:00 GMT", "1 Jan 0000 00:00:00 +9999999", "Mon, 1 Jan 2020 0:0:0 +" + "9" * 30, "²"),
]
COOKIES: Final = [
    "a=b; Max-Age=" + "9" * 500,
    "a" * 60_000,
    ";" * 60_000,
    "a=b; Domain=.; Path=/; expires=" + "1-" * 9000,
]
_LENGTHS: Final = ["0", "1", "5", "999999", "9" * 5000, "-1", "+5", "5, 5", "5, 6", "0x5", ""]

_HEADERS: Final = st.one_of(
    st.sampled_from([f"Location: {address}" for address in ADDRESSES]),
    st.sampled_from([f"Retry-After: {time}" for time in _TIMES]),
    st.sampled_from([f"Set-Cookie: {cookie}" for cookie in COOKIES]),
    st.sampled_from([f"Content-Length: {length}" for length in _LENGTHS]),
    st.sampled_from(["gzip", "br", "deflate", "identity", "x" * 200, ""]).map("Content-Encoding: {}".format),
    st.sampled_from(["chunked", "gzip, chunked", "identity", "chunked, chunked"]).map("Transfer-Encoding: {}".format),
    st.sampled_from(
        ["Connection: close", "Connection: upgrade", "Upgrade: h2c", "Trailer: x", "Content-Type: text/html"]
    ),
    st.sampled_from(
        ["NoColon", ": empty", " folded: x", "a\x00b: c", "X: \x00", "X-\xff: \xfe", "X: " + "y" * 120_000]
    ),
    st.text(max_size=20).map("X-Any: {}".format),
)
_REDIRECTS: Final = [301, 302, 303, 304, 307, 308]
_STATUSES: Final = [
    *(201, 202, 204, 206, 400, 401, 402, 403, 404, 408, 409, 410, 425, 429, 500, 501, 502, 503, 504, 520, 599),
    *(100, 101, 102, 103, 199, 0, 1, 600, 999, 1000),
]
_STATUS_LINES: Final = st.one_of(
    st.just("HTTP/1.1 200 OK"),
    st.sampled_from([*_REDIRECTS, *_STATUSES]).map("HTTP/1.1 {} x".format),
    st.sampled_from(
        ["HTTP/1.0 200 OK", "HTTP/2 200", "HTTP/0.9 200 OK", "HTTP/1.1 abc", "ICY 200 OK", "", " ", "\x16\x03"]
    ),
    st.just("HTTP/1.1 200 " + ORDER_ID),
    st.just(f"no HTTP at all, but {ORDER_ID} " + "z" * 2000),
)


@st.composite
def replies(draw: st.DrawFn, fitting: str) -> bytes:
    """All that goes over the connection for one request: mostly well-formed HTTP around a hostile body."""
    body = draw(bodies(fitting))
    kind = draw(st.sampled_from(["plain"] * 4 + ["redirect"] + ["wild"] * 2))
    if kind == "redirect":
        status, address = draw(st.sampled_from(_REDIRECTS)), draw(st.sampled_from(ADDRESSES))
        return _head(f"HTTP/1.1 {status} x", f"Location: {address}", f"Content-Length: {len(body)}") + body
    if kind == "plain":
        status_line = draw(st.sampled_from(["HTTP/1.1 200 OK"] * 8 + ["HTTP/1.1 400 x", "HTTP/1.1 500 x"]))
        return _head(status_line, f"Content-Length: {len(body)}") + body
    headers = draw(st.lists(_HEADERS, max_size=4))
    framing = draw(st.sampled_from(["length", "length", "chunked", "broken chunks", "none"]))
    if framing == "length":
        headers.append(f"Content-Length: {len(body)}")
    elif "chunk" in framing:
        headers.append("Transfer-Encoding: chunked")
        body = _chunked(body, "fffffffff" if framing == "broken chunks" else f"{len(body):x}")
    before = draw(st.sampled_from([b""] * 5 + [b"HTTP/1.1 103 Early Hints\r\n\r\n", b"\r\n\r\n", b"\x00" * 10]))
    after = draw(st.sampled_from([b""] * 5 + [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"\xff" * 100]))
    return before + _head(draw(_STATUS_LINES), *headers) + body + after


def _head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


def _chunked(body: bytes, size: str) -> bytes:
    return f"{size};a=b\r\n".encode() + body + b"\r\n0\r\nTrailer: x\r\n\r\n"
