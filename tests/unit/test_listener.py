"""The listener for webhooks: what is a hint, and that all else changes nothing and costs little."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog

from holdpay import listener as module
from holdpay.errors import ConfigError
from holdpay.listener import LEAST_CHUNK_BYTES, MAX_BODY_BYTES, MAX_CONNECTIONS, Answer, Listener, hinting
from holdpay.lock import AlreadyRunning, SocketClaim
from tests.addresses import kept_address

SECRET = "s" * 43
POST = f"POST /{SECRET} HTTP/1.1\r\nHost: x\r\n"
HINT = f"{POST}Content-Length: 2\r\n\r\n{{}}".encode()


class Door:
    """A listener that knows SECRET, and the hints that came of it."""

    def __init__(self, listen: str | Path) -> None:
        self.listen = listen
        self.asked: list[str] = []
        self.hints = 0
        self.listener = Listener(listen, hinting(self._hint), "webhook.listen")

    def _hint(self, secret: str) -> bool:
        self.asked.append(secret)
        self.hints += secret == SECRET
        return secret == SECRET

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.listen, Path):
            return await asyncio.open_unix_connection(self.listen)
        host, _, port = self.listen.rpartition(":")
        return await asyncio.open_connection(host.strip("[]"), int(port))

    async def send(self, *parts: bytes, ends: bool = False) -> int | None:
        """The status of the answer; None: the connection was closed without one."""
        reader, writer = await self.connect()
        try:
            async with asyncio.timeout(60):
                with contextlib.suppress(ConnectionError):
                    for part in parts:
                        writer.write(part)
                        await writer.drain()
                    if ends:
                        writer.write_eof()
                with contextlib.suppress(ConnectionError):
                    answer = await reader.read()
                    return int(answer.split()[1]) if answer else None
                return None
        finally:
            writer.close()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    with kept_address() as address:
        opened = Door(address)
        await opened.listener.start()
        yield opened
        await opened.listener.stop()


# --- what is a hint -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [f"/{SECRET}", f"/under/the/proxy/{SECRET}"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_post_to_a_known_path_is_a_hint_whatever_its_body_says(door: Door, path: str, version: str) -> None:
    head = f"POST {path} HTTP/{version}\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
    assert await door.send(head.encode(), b"no json\xff\x00") == 200
    assert (door.hints, door.asked) == (1, [SECRET])


async def test_a_body_in_chunks_and_none_at_all_are_as_good(door: Door) -> None:
    chunked = f"{POST}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
    assert [await door.send(chunked.encode()), await door.send(f"{POST}\r\n".encode())] == [200, 200]
    assert door.hints == 2


async def test_a_body_of_just_the_bound_is_taken(door: Door) -> None:
    assert await door.send(f"{POST}Content-Length: {MAX_BODY_BYTES}\r\n\r\n".encode(), b"x" * MAX_BODY_BYTES) == 200
    assert door.hints == 1


# --- what is none ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (f"GET /{SECRET}", 404),
        (f"HEAD /{SECRET}", 404),
        (f"PUT /{SECRET}", 404),
        (f"POST /{SECRET[:-1]}", 404),
        (f"POST /{SECRET}s", 404),
        (f"POST /{SECRET}/", 404),
        (f"POST /{SECRET}?x=1", 404),
        (f"POST /{SECRET.upper()}", 404),
        ("POST /", 404),
        ("POST *", 404),
        (f"POST /{'x' * 60_000}", 431),
    ],
)
async def test_another_method_and_another_path_are_nothing(door: Door, request_line: str, status: int) -> None:
    assert await door.send(f"{request_line} HTTP/1.1\r\nHost: x\r\n\r\n".encode()) == status
    assert door.hints == 0


@pytest.mark.parametrize("junk", [b"\x16\x03\x01\x02\x00\x01\x00", b"hello\r\n\r\n", b"POST\r\n\r\n", b"\xff" * 40_000])
async def test_what_is_no_http_is_nothing_and_the_next_is_served(door: Door, junk: bytes) -> None:
    assert await door.send(junk, ends=True) in {400, 431, None}
    assert door.hints == 0
    assert await door.send(HINT) == 200


@pytest.mark.parametrize("how", ["told", "in chunks"])
async def test_a_body_over_the_bound_is_no_hint(door: Door, how: str) -> None:
    body = b"x" * (MAX_BODY_BYTES + 1)
    if how == "told":
        answer = await door.send(f"{POST}Content-Length: {10**9}\r\n\r\n".encode(), body)
    else:
        head = f"{POST}Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode()
        answer = await door.send(head, body, b"\r\n0\r\n\r\n")
    assert answer in {413, None}, "None: the answer was lost with the connection"
    assert door.hints == 0


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 413)])
async def test_a_body_of_many_chunks_is_over_the_bound_sooner(door: Door, more: int, status: int) -> None:
    """Each takes as long as a larger one, and all that have come are read in one turn of the loop."""
    chunks = b"1\r\nx\r\n" * (MAX_BODY_BYTES // LEAST_CHUNK_BYTES + more)
    answer = await door.send(f"{POST}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n")
    assert answer in ({200} if status == 200 else {413, None}), "None: the answer was lost with the connection"
    assert door.hints == (status == 200)


async def test_a_request_that_is_broken_off_is_no_hint(door: Door) -> None:
    assert await door.send(f"{POST}Content-Length: 5\r\n\r\nab".encode(), ends=True) in {400, None}
    assert door.hints == 0


async def test_a_second_request_on_a_connection_is_not_served(door: Door) -> None:
    assert await door.send(HINT + HINT) == 200
    assert door.hints == 1


# --- bounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beginning", [b"", POST.encode(), f"{POST}Content-Length: 5\r\n\r\nab".encode()])
async def test_a_slow_client_is_left_after_the_time_limit(
    door: Door, monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    monkeypatch.setattr(module, "TIME_LIMIT_S", 0.05)
    assert await door.send(beginning) is None
    assert door.hints == 0


async def test_slow_clients_leave_no_room_for_more_than_the_bound_and_then_there_is_room_again(door: Door) -> None:
    slow = [await door.connect() for _ in range(MAX_CONNECTIONS)]
    assert await door.send(HINT) is None
    assert door.hints == 0
    for _, writer in slow:
        writer.close()
    await asyncio.gather(*(reader.read() for reader, _ in slow))
    assert await door.send(HINT) == 200


async def test_of_a_flood_a_burst_is_looked_at_and_the_rest_turned_away(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONNECTION_BURST", 3)
    monkeypatch.setattr(module, "CONNECTIONS_PER_S", 0.001)
    with structlog.testing.capture_logs() as logs:
        answers = [await door.send(HINT) for _ in range(8)]
    assert answers == [200] * 3 + [None] * 5
    assert door.hints == 3
    assert len(logs) == 1, "a flood does not fill the log"
    assert SECRET not in str(logs)


async def test_a_defect_behind_it_ends_one_connection_and_tells_no_path(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(method: str, target: str) -> Answer:
        raise ValueError(target)

    with monkeypatch.context() as broken, structlog.testing.capture_logs() as logs:
        broken.setattr(door.listener, "_respond", defect)
        assert await door.send(HINT) is None
    assert len(logs) == 1
    assert SECRET not in str(logs)
    assert await door.send(HINT) == 200


# --- its life -------------------------------------------------------------------------------------------------------


async def test_a_unix_socket_has_the_mode_that_it_shall_have(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    listener = Listener(path, hinting(lambda hint: True), "metrics.listen", 0o660)
    await listener.start()
    assert path.stat().st_mode & 0o777 == 0o660
    await listener.stop()


async def test_it_serves_on_a_unix_socket_that_a_proxy_may_open(tmp_path: Path) -> None:
    path = tmp_path / "webhook.sock"
    with SocketClaim(path, key="webhook.listen"):
        door = Door(path)
        await door.listener.start()
        assert path.stat().st_mode & 0o777 == 0o666
        reader, writer = await door.connect()
        assert await door.send(HINT) == 200
        path.unlink()
        assert not door.listener.is_up
        await door.listener.keep()
        async with asyncio.timeout(60):
            assert await reader.read() == b"", "nothing of the one before is left"
        writer.close()
        assert (door.listener.is_up, await door.send(HINT)) == (True, 200)
        await door.listener.stop()


async def test_one_that_stopped_is_started_again_and_one_that_serves_is_left_alone(door: Door) -> None:
    reader, writer = await door.connect()
    await door.listener.keep()
    writer.write(HINT)
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
    await door.listener.stop()
    assert not door.listener.is_up
    await door.listener.keep()
    assert await door.send(HINT) == 200


async def test_stopping_ends_what_is_connected(door: Door) -> None:
    reader, writer = await door.connect()
    writer.write(POST.encode())
    await door.send(HINT)
    async with asyncio.timeout(60):
        await door.listener.stop()
        assert await reader.read() == b""
    writer.close()


async def test_an_address_that_is_taken_may_come_free(door: Door) -> None:
    with pytest.raises(AlreadyRunning, match=r"Something else listens on 127.0.0.1:\d+, the address in webhook.listen"):
        await Listener(door.listen, hinting(lambda _: False), "webhook.listen").start()


@pytest.mark.parametrize("listen", ["192.0.2.1:8780", "no-such-name.invalid:8780", Path("/nowhere/at/all.sock")])
async def test_an_address_that_cannot_be_is_a_fault_of_the_configuration(listen: str | Path) -> None:
    with pytest.raises(ConfigError) as caught:
        await Listener(listen, hinting(lambda _: False), "webhook.listen").start()
    (problem,) = caught.value.problems
    assert problem.startswith(f"webhook.listen: {listen} cannot be listened on (")
    assert problem.endswith("; name an address of this machine.")
