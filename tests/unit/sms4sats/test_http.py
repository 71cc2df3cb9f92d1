"""An answer of HTTP/1.1: what is taken for it, and whether the next request may follow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from holdpay.sms4sats.http import MAX_HEAD_BYTES, MAX_PIECES, PIECES_IN_A_TURN, Connection, Request, Response
from holdpay.sms4sats.wire import Broken, Stream
from tests.contract.provider_servers import http

OK = "HTTP/1.1 200 OK\r\n"


class Scripted(Stream):
    """What the server says, piece by piece; then it hangs up."""

    def __init__(self, *pieces: bytes, is_deaf: bool = False) -> None:
        self.pieces = list(pieces)
        self._is_deaf = is_deaf

    async def read(self, max_bytes: int) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    async def write(self, data: bytes) -> None:
        if self._is_deaf:
            raise Broken("the connection is closed")

    def close(self) -> None:
        raise NotImplementedError

    @property
    def is_readable(self) -> bool:
        raise NotImplementedError


async def asked(stream: Stream, method: str = "GET") -> tuple[Response, bool]:
    connection = Connection(stream)
    response = await connection.exchange(Request(method=method, target="/", headers={"Host": "a"}), 100)
    return response, connection.is_free()


@pytest.mark.parametrize(
    ("answer", "body", "is_free"),
    [
        (http("body"), "body", True),
        (http("body", "200 OK", "Content-Length: 4"), "body", True),
        (http("body", "200 OK", "Connection: close"), "body", False),
        (http("body").replace(b"1.1", b"1.0"), "body", False),
        (http("body") + b"x", "body", False),
        (http("body") * 2, "body", False),
        (http("") + http("body"), "", False),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + http("body"), "body", True),
        (f"{OK}Transfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2;a\r\ndy\r\n0\r\nDate: a\r\n\r\n".encode(), "body", True),
        (f"{OK}\r\nbody".encode(), "body", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n", "", True),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nbody", "", False),
    ],
)
@pytest.mark.parametrize("is_split", [True, False])
async def test_an_answer_ends_where_it_says_and_the_next_request_follows_only_if_nothing_else_does(
    answer: bytes, body: str, is_free: bool, is_split: bool
) -> None:
    stream = Scripted(*(bytes([byte]) for byte in answer)) if is_split else Scripted(answer)
    response, is_free_then = await asked(stream)
    assert response.body.decode() == body
    if not stream.pieces:  # else the stream tells that there is more
        assert is_free_then == is_free


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        http("body")[:-1],
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 099 What\r\n\r\n",
        f"{OK}Content-Length: -4\r\n\r\nbody".encode(),
        f"{OK}Content-Length: {'4' * 5000}\r\n\r\nbody".encode(),
        f"{OK}Content-Length: 4\r\nContent-Length: 5\r\n\r\nbody".encode(),
        f"{OK}Transfer-Encoding: gzip\r\n\r\nbody".encode(),
        f"{OK}Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n".encode(),
        f"{OK}Transfer-Encoding: chunked\r\n\r\n-4\r\nbody\r\n".encode(),
        f"{OK}Date: \0\r\nContent-Length: 4\r\n\r\nbody".encode(),
        b"HTTP/1.1 200 O\0K\r\nContent-Length: 4\r\n\r\nbody",
    ],
)
async def test_what_is_no_answer_or_not_all_of_one_is_none(answer: bytes) -> None:
    with pytest.raises(Broken):
        await asked(Scripted(answer))


async def test_a_head_may_be_long_but_without_an_end_it_is_not_read_for_ever() -> None:
    response, _ = await asked(Scripted(http("body", "200 OK", f"Set-Cookie: {'a' * 90_000}")))
    assert response.body == b"body"
    stream = Scripted(OK.encode(), *([b"a" * 1024] * 200))
    with pytest.raises(Broken):
        await asked(stream)
    assert 200 - len(stream.pieces) <= MAX_HEAD_BYTES // 1024 + 1


async def test_a_body_that_is_too_long_is_not_read_to_its_end() -> None:
    stream = Scripted(f"{OK}Content-Length: 999999\r\n\r\n".encode(), *([b"a" * 60] * 9))
    response, is_free = await asked(stream)
    assert len(response.body) > 100
    assert len(stream.pieces) == 7
    assert not is_free


def in_chunks(count: int) -> bytes:
    return f"{OK}Transfer-Encoding: chunked\r\n\r\n".encode() + b"1\r\nx\r\n" * count + b"0\r\n\r\n"


def after_others(count: int) -> bytes:
    return b"HTTP/1.1 100 Continue\r\n\r\n" * count + http("body")


@pytest.mark.parametrize("pieces", [in_chunks, after_others])
async def test_others_have_their_turns_however_small_the_pieces_of_an_answer_are(
    pieces: Callable[[int], bytes],
) -> None:
    """All of them may have come at once."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    connection = Connection(Scripted(pieces(10 * PIECES_IN_A_TURN)))
    await connection.exchange(Request(method="GET", target="/", headers={"Host": "a"}), 10_000)
    other.cancel()
    assert connection.is_free()
    assert turns >= 10


@pytest.mark.parametrize("pieces", [in_chunks, after_others])
async def test_an_answer_in_more_pieces_than_any_honest_one_has_is_none(pieces: Callable[[int], bytes]) -> None:
    stream = Scripted(pieces(MAX_PIECES), pieces(MAX_PIECES), pieces(MAX_PIECES + 1))
    connection, request = Connection(stream), Request(method="GET", target="/", headers={"Host": "a"})
    for _ in range(2):
        assert (await connection.exchange(request, 2 * MAX_PIECES)).status == 200
        assert connection.is_free()
    with pytest.raises(Broken, match="10,000 pieces"):
        await connection.exchange(request, 2 * MAX_PIECES)


async def test_who_hung_up_before_the_end_of_a_request_may_have_said_why() -> None:
    response, _ = await asked(Scripted(http("busy", "503 Service Unavailable"), is_deaf=True), "POST")
    assert (response.status, response.body) == (503, b"busy")
    with pytest.raises(Broken):
        await asked(Scripted(is_deaf=True))
