"""httpcore's network over asyncio's own transports: without the layers that make one code run on any event loop."""

from __future__ import annotations

import asyncio
import select
import ssl
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar, cast

import httpcore

T = TypeVar("T")

READ_BYTES: Final = 64 * 1024
MAX_UNREAD_BYTES: Final = 128 * 1024
"""Of one connection; the other side has to wait with more."""
HAPPY_EYEBALLS_S: Final = 0.25
"""A name's next address is tried after this, beside the one that is silent (RFC 8305)."""


class Network(httpcore.AsyncNetworkBackend):
    """Time limits are the caller's, around the whole request: those given here are not looked at."""

    def __init__(self) -> None:
        self._open: set[_Tcp] = set()

    async def aclose(self) -> None:
        """Closes what is open still: of a connection whose way through a SOCKS proxy failed httpcore knows nothing."""
        for stream in list(self._open):
            await stream.aclose()

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
            _, stream = await loop.create_connection(
                lambda: _Tcp(self._open), host, port, happy_eyeballs_delay=HAPPY_EYEBALLS_S
            )
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except (OSError, UnicodeError) as error:  # the latter of a name that no host can have
            raise httpcore.ConnectError(str(error)) from error
        return stream


class _Stream(httpcore.AsyncNetworkStream):
    """What a connection in the clear and one within TLS have in common: there may be TLS in both."""

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
    ) -> httpcore.AsyncNetworkStream:
        """Raises httpcore.ConnectError. Whatever was said before is read as TLS too, and is none."""
        try:
            stream = _Tls(self, ssl_context, server_hostname)
            await stream.shake_hands()
        except (ssl.SSLError, UnicodeError, httpcore.ReadError, httpcore.WriteError) as error:
            await self.aclose()
            raise httpcore.ConnectError(str(error)) from error
        except asyncio.CancelledError:
            await self.aclose()
            raise
        return stream


class _Tcp(_Stream, asyncio.Protocol):
    def __init__(self, open_: set[_Tcp]) -> None:
        self._open = open_
        self._transport: asyncio.Transport
        self._unread = bytearray()
        self._news: asyncio.Future[None] | None = None
        self._is_lost = False
        self._error: Exception | None = None

    # --- what asyncio tells -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._open.add(self)

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if len(self._unread) > MAX_UNREAD_BYTES:
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost, self._error = True, exc
        self._open.discard(self)
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
        await asyncio.sleep(0)  # asyncio closes the socket in its next turn

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # of a kept connection: it was closed, or there is what nobody asked for
            # The system is asked, too: the loop may not have looked since.
            return self._is_lost or bool(self._unread) or _is_readable(self._transport)
        return self._transport.get_extra_info(info)


class _Tls(_Stream):
    """asyncio's own keeps a buffer of 256 KiB for each connection; and within another TLS, that of Python 3.11.7 cannot
    say why it gives up."""

    def __init__(self, under: _Stream, context: ssl.SSLContext, server_hostname: str | None) -> None:
        self._under = under
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)

    async def shake_hands(self) -> None:
        """Raises ssl.SSLError, httpcore.ReadError and httpcore.WriteError."""
        await self._done(self._tls.do_handshake)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """Empty at the end, with or without a word of TLS. Raises httpcore.ReadError."""
        try:
            return await self._done(lambda: self._tls.read(max_bytes))
        except ssl.SSLEOFError:
            return b""
        except ssl.SSLError as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Raises httpcore.WriteError."""
        try:
            await self._done(lambda: self._tls.write(buffer))
        except ssl.SSLError as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        await self._under.aclose()

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object":
            return self._tls
        if info == "is_readable" and (self._tls.pending() or self._incoming.pending):
            return True
        return self._under.get_extra_info(info)

    async def _done(self, step: Callable[[], T]) -> T:
        """``step``, as soon as TLS has read what it needs for it."""
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                await self._send()
                if data := await self._under.read(READ_BYTES):
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            else:
                await self._send()
                return result

    async def _send(self) -> None:
        if self._outgoing.pending:
            await self._under.write(self._outgoing.read())


def _is_readable(transport: asyncio.Transport) -> bool:
    poll = select.poll()
    poll.register(transport.get_extra_info("socket"), select.POLLIN)
    return bool(poll.poll(0))
