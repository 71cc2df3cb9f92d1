"""The network: what is taken from it, and when it is given up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from holdpay.sandbox.tls import write_certificate
from holdpay.sms4sats.wire import Broken, Network, NotConnected, Stream
from tests.contract.provider_servers import Answerer, listening
from tests.unit.sms4sats.clock import settle

MIB = 2**20


@asynccontextmanager
async def stream_to(serve: Answerer) -> AsyncIterator[Stream]:
    async with listening(serve) as port:
        stream = await Network().connect("127.0.0.1", port)
        yield stream
        stream.close()


@asynccontextmanager
async def tls_stream_to(serve: Answerer, directory: Path) -> AsyncIterator[Stream]:
    write_certificate(directory)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(directory / "tls.cert", directory / "tls.key")
    async with listening(serve, tls) as port:
        tcp = await Network().connect("127.0.0.1", port)
        stream = await tcp.start_tls(ssl.create_default_context(cafile=directory / "tls.cert"), "localhost")
        yield stream
        stream.close()


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0)


async def test_who_sends_much_waits_until_it_is_read_and_nothing_is_lost() -> None:
    total, taken = 64 * MIB, 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        while taken < total:
            writer.write(bytes(MIB))
            await writer.drain()
            taken += MIB

    async with stream_to(serve) as stream:
        for _ in range(3000):
            await asyncio.sleep(0)
        assert taken < total, "the system's buffers and ours are full long before"
        read = 0
        async with asyncio.timeout(60):
            while chunk := await stream.read(MIB):
                read += len(chunk)
        assert read == total


async def test_what_was_said_before_tls_is_not_taken_for_what_is_said_in_it() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(OSError):
            await reader.read()
        ends.set()

    ends = asyncio.Event()
    async with stream_to(serve) as stream:
        await until(lambda: stream.is_readable)
        with pytest.raises(NotConnected):
            await stream.start_tls(ssl.create_default_context(), "sms4sats.invalid")
        async with asyncio.timeout(60):
            await ends.wait()


@pytest.mark.parametrize("is_reset", [True, False])
async def test_who_hangs_up_in_the_handshake_was_never_connected(is_reset: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        if is_reset:
            reset(writer)

    async with stream_to(serve) as stream:
        with pytest.raises(NotConnected):
            await stream.start_tls(ssl.create_default_context(), "sms4sats.invalid")


async def test_what_came_before_a_reset_is_read_first() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"all")
        await reader.readexactly(1)
        reset(writer)

    async with stream_to(serve) as stream:
        await until(lambda: stream.is_readable)
        await stream.write(b".")
        await settle()
        assert await stream.read(2) == b"al"
        assert await stream.read(2) == b"l"
        with pytest.raises(Broken):
            await stream.read(2)
        with pytest.raises(Broken):
            await stream.write(b".")


async def test_a_connection_that_is_given_up_is_closed_at_once_however_much_is_still_to_come() -> None:
    ends = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(bytes(MIB))
                await writer.drain()
        except OSError:
            ends.set()

    async with listening(serve) as port:
        stream = await Network().connect("127.0.0.1", port)
        await stream.read(1)
        stream.close()
        async with asyncio.timeout(60):
            await ends.wait()


@pytest.mark.parametrize("is_given_up", [True, False])
async def test_of_a_connection_that_is_over_nothing_is_kept(is_given_up: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if is_given_up:
            await reader.read()

    network = Network()
    async with listening(serve) as port:
        stream = await network.connect("127.0.0.1", port)
        assert network._open == {stream}
        if is_given_up:
            stream.close()
        else:
            await stream.read(1)
        await until(lambda: not network._open)


async def test_a_connection_whose_handshake_is_canceled_is_closed() -> None:
    ends = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read()
        ends.set()

    async with listening(serve) as port:
        stream = await Network().connect("127.0.0.1", port)
        shaking = asyncio.create_task(stream.start_tls(ssl.create_default_context(), "sms4sats.invalid"))
        await settle()
        shaking.cancel()
        async with asyncio.timeout(60):
            await ends.wait()
        assert shaking.cancelled()


@pytest.mark.parametrize("is_polite", [True, False])
async def test_tls_ends_with_or_without_a_word(tmp_path: Path, is_polite: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(4) == b"done"
        writer.write(b"all")
        await writer.drain()
        if not is_polite:
            writer.transport.abort()

    async with tls_stream_to(serve, tmp_path) as stream:
        await stream.write(b"done")
        assert [await stream.read(2), await stream.read(2), await stream.read(2)] == [b"al", b"l", b""]


@pytest.mark.parametrize("is_polite", [True, False])
async def test_a_kept_connection_within_tls_that_is_over_is_known_to_be(tmp_path: Path, is_polite: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        if not is_polite:
            writer.transport.abort()

    async with tls_stream_to(serve, tmp_path) as stream:
        assert not stream.is_readable, "it can be used again"
        await stream.write(b"done")
        await until(lambda: stream.is_readable)


async def test_a_connection_within_tls_that_is_given_up_is_closed(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read()
        ends.set()

    ends = asyncio.Event()
    async with tls_stream_to(serve, tmp_path) as stream:
        stream.close()
        async with asyncio.timeout(60):
            await ends.wait()


async def test_what_is_no_tls_after_the_handshake_is_an_error_of_the_connection(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        is_heard.set()
        os.write(writer.get_extra_info("socket").fileno(), b"HTTP/1.1 200 OK\r\n\r\n")
        await reader.read()

    is_heard = asyncio.Event()
    async with tls_stream_to(serve, tmp_path) as stream:
        await stream.write(b"done")
        async with asyncio.timeout(60):
            await is_heard.wait()
        with pytest.raises(Broken):
            await stream.read(2)


async def test_a_canceled_read_takes_nothing_away() -> None:
    begin = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await begin.wait()
        writer.write(b"late")

    async with stream_to(serve) as stream:
        reading = asyncio.create_task(stream.read(9))
        await settle()
        reading.cancel()
        await asyncio.wait([reading])
        begin.set()
        assert await stream.read(9) == b"late"
        assert await stream.read(9) == b""


async def test_a_names_next_address_is_tried_beside_one_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = socket.create_server(("127.0.0.1", 0), backlog=0)
    knocking = [socket.socket() for _ in range(4)]
    for one in knocking:  # its queue is full: who comes now hears nothing
        one.setblocking(False)
        one.connect_ex(silent.getsockname())

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"here")

    async with listening(serve) as port:
        addresses = [silent.getsockname(), ("127.0.0.1", port)]

        def resolved(*args: Any, **kwargs: Any) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", resolved)
        async with asyncio.timeout(60):
            stream = await Network().connect("sms4sats.invalid", 443)
        assert await stream.read(9) == b"here"
        stream.close()
    for one in (silent, *knocking):
        one.close()
