"""Two tiny proxies that note what went through them: HTTP with a password, and SOCKS5."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from typing import Self
from urllib.parse import urlsplit

USER, PASSWORD = "holdpay", "sesame-7f3a"
_AUTHORIZATION = b"Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode())

_SOCKS_NO_LOGIN, _SOCKS_CONNECT, _SOCKS_NAME = 0, 1, 3


class Proxy:
    """``asked`` has the host and port of each request, as they were asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self.stop()

    def stop(self) -> None:
        """Takes no more connections."""
        assert self._server is not None
        self._server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    async def _join(
        self, client: tuple[asyncio.StreamReader, asyncio.StreamWriter], host: str, port: int, first: bytes
    ) -> None:
        self.asked.append((host, port))
        server = await asyncio.open_connection(host, port)
        server[1].write(first)
        await asyncio.gather(_pour(client[0], server[1]), _pour(server[0], client[1]))


class HttpProxy(Proxy):
    """Forwards plain requests, one per connection, for whoever knows the password."""

    @property
    def url(self) -> str:
        return f"http://{USER}:{PASSWORD}@127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, _ = (await reader.readline()).split()
        fields = []
        while line := (await reader.readline()).rstrip():
            fields.append(line)
        if b"proxy-authorization: " + _AUTHORIZATION.lower() not in [line.lower() for line in fields]:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        parts = urlsplit(target.decode())
        kept = [line for line in fields if not line.lower().startswith((b"proxy-", b"connection:"))]
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        head = b"\r\n".join([method + b" " + path.encode() + b" HTTP/1.1", *kept, b"Connection: close", b"", b""])
        await self._join((reader, writer), parts.hostname or "", parts.port or 80, head)


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
        writer.write(bytes([5, 0, 0, 1, 0, 0, 0, 0, 0, 0]))
        await self._join((reader, writer), host, port, b"")


async def _pour(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        target.write(data)
        await target.drain()
    target.write_eof()
