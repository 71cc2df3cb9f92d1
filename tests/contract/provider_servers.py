"""Servers that answer a request in every way but the right one, and proxies."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Answerer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RawServer:
    """Reads the head of each request, then does what ``answer`` does. ``heads`` are those seen."""

    def __init__(self, answer: Answerer | bytes) -> None:
        self.heads: list[str] = []
        self.connection_count = 0
        self.url = ""
        self.port = 0
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection_count += 1
        with suppress(asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            while True:
                self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
                if isinstance(self._answer, bytes):
                    writer.write(self._answer)
                    await writer.drain()
                else:
                    await self._answer(reader, writer)
        writer.close()


@asynccontextmanager
async def raw_server(answer: Answerer | bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    server = RawServer(answer)
    async with listening(server.serve, tls) as port:
        server.port = port
        server.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        yield server


@asynccontextmanager
async def listening(serve: Answerer, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A TCP server's port; its connections end with it."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(asyncio.CancelledError):
            await serve(reader, writer)
        writer.close()
        tasks.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def http(body: bytes | str, status: str = "200 OK", *headers: str) -> bytes:
    """A whole response."""
    body = body.encode() if isinstance(body, str) else body
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accepts the request and says nothing."""
    await asyncio.get_running_loop().create_future()


async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A body that goes on for ever, a little at a time, so that no single read is late."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1\r\n \r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A body that goes on for ever, as fast as it is read."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"x" * 65536
    while True:
        writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        await writer.drain()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Closes without an answer, as a server does with a connection that was idle for too long."""
    raise OSError


async def cut_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Closes in the middle of an answer."""
    writer.write(http('{"status":"OK","paid":true}')[:-5])
    await writer.drain()
    raise OSError


class TunnelProxy:
    """HTTP, with CONNECT only: leads every connection to ``target_port``, and keeps what was asked for."""

    def __init__(self, target_port: int) -> None:
        self.heads: list[str] = []
        self._target_port = target_port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_pipe(reader, there_writer), _pipe(there_reader, writer))


class SocksProxy:
    """SOCKS5 without a password: leads every connection to ``target_port``, and keeps what was asked for."""

    def __init__(self, target_port: int) -> None:
        self.asked: list[tuple[bytes, int]] = []
        self._target_port = target_port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, method_count = await reader.readexactly(2)
        await reader.readexactly(method_count)
        writer.write(b"\x05\x00")
        *_, address_type, length = await reader.readexactly(5)
        assert address_type == 3, "a host name"
        host, port = await reader.readexactly(length), int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append((host, port))
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        await asyncio.gather(_pipe(reader, there_writer), _pipe(there_reader, writer))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()
