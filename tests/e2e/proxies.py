"""Two tiny proxies that note whereto they led: HTTP with a password, and SOCKS5."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from typing import Self

USER, PASSWORD = "holdpay", "sesame-7f3a"
_AUTHORIZATION = b"Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode())

_SOCKS_NO_LOGIN, _SOCKS_CONNECT, _SOCKS_NAME = 0, 1, 3


class Proxy:
    """``asked`` has the host and port of each connection, as they were asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self.stop()

    def stop(self) -> None:
        """Takes no more connections, and ends those that it has."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            await self._serve(reader, writer)
        self._writers.discard(writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    async def _join(
        self, client: tuple[asyncio.StreamReader, asyncio.StreamWriter], host: str, port: int, words: bytes
    ) -> None:
        self.asked.append((host, port))
        server = await asyncio.open_connection(host, port)
        client[1].write(words)
        await asyncio.gather(_pour(client[0], server[1]), _pour(server[0], client[1]))


class HttpProxy(Proxy):
    """Leads on (CONNECT) whoever knows the password."""

    @property
    def url(self) -> str:
        return f"http://{USER}:{PASSWORD}@127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, _ = (await reader.readline()).split()
        fields = []
        while line := (await reader.readline()).rstrip():
            fields.append(line.lower())
        if method != b"CONNECT" or b"proxy-authorization: " + _AUTHORIZATION.lower() not in fields:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        host, _, port = target.decode().rpartition(":")
        await self._join((reader, writer), host, int(port), b"HTTP/1.1 200 Connection established\r\n\r\n")


class SocksProxy(Proxy):
    """SOCKS5 without a login (RFC 1928), for names only: a client that looks a name up itself is not served."""

    @property
    def url(self) -> str:
        return f"socks5h://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, methods = await reader.readexactly(2)
        await reader.readexactly(methods)
        writer.write(bytes([5, _SOCKS_NO_LOGIN]))
        _, command, _, kind = await reader.readexactly(4)
        if (command, kind) != (_SOCKS_CONNECT, _SOCKS_NAME):
            writer.write(bytes([5, 8, 0, 1, 0, 0, 0, 0, 0, 0]))  # address type not supported
            return
        (length,) = await reader.readexactly(1)
        host = (await reader.readexactly(length)).decode()
        port = int.from_bytes(await reader.readexactly(2))
        await self._join((reader, writer), host, port, bytes([5, 0, 0, 1, 0, 0, 0, 0, 0, 0]))


async def _pour(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        target.write(data)
        await target.drain()
    target.write_eof()
