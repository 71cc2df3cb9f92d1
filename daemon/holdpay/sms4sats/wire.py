"""httpcore's network over asyncio's own transports: without the layers that make one code run on any event loop."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any, Final, cast

import httpcore

MAX_UNREAD_BYTES: Final = 128 * 1024
"""Of one connection; the other side has to wait with more."""
HAPPY_EYEBALLS_S: Final = 0.25
"""A name's next address is tried after this, beside the one that is silent (RFC 8305)."""


class Network(httpcore.AsyncNetworkBackend):
    """Time limits are the caller's, around the whole request: those given here are not looked at."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises httpcore.ConnectError, and httpcore.ConnectTimeout if the system gave up."""
        loop = asyncio.get_running_loop()
        try:
            _, stream = await loop.create_connection(_Stream, host, port, happy_eyeballs_delay=HAPPY_EYEBALLS_S)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        return stream


class _Stream(httpcore.AsyncNetworkStream, asyncio.Protocol):
    """One connection, in the clear or, after ``start_tls``, encrypted."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._unread = bytearray()
        self._news: asyncio.Future[None] | None = None
        self._is_lost = False
        self._error: Exception | None = None

    # --- what asyncio tells -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if len(self._unread) > MAX_UNREAD_BYTES:
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost, self._error = True, exc
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # --- what httpcore asks for ---------------------------------------------------------------------------------------

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """Empty at the end. Raises httpcore.ReadError."""
        if not self._unread and not self._is_lost:
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        if self._error is not None and not self._unread:
            raise httpcore.ReadError(str(self._error)) from self._error
        data = bytes(self._unread[:max_bytes])
        del self._unread[:max_bytes]
        self._transport.resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Does not wait: what is sent is one small request. Raises httpcore.WriteError."""
        if self._is_lost:
            raise httpcore.WriteError(str(self._error or "the connection is closed"))
        self._transport.write(buffer)

    async def aclose(self) -> None:
        """At once, whatever the other side still has to say."""
        self._transport.abort()
        await asyncio.sleep(0)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        """Raises httpcore.ConnectError."""
        if self._unread:
            # It would pass for the first words of who is on the other side of TLS.
            await self.aclose()
            raise httpcore.ConnectError("a proxy went on talking before TLS")
        try:
            transport = await asyncio.get_running_loop().start_tls(
                self._transport, self, ssl_context, server_hostname=server_hostname
            )
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        except TypeError as error:
            # In TLS to a proxy, asyncio of Python 3.11.7 stumbles over the very error that it wants to tell.
            raise httpcore.ConnectError(str(error.__context__)) from error
        self._transport = cast("asyncio.Transport", transport)
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # of a kept connection: it was closed, or there is what nobody asked for
            return self._is_lost or bool(self._unread)
        return self._transport.get_extra_info(info)
