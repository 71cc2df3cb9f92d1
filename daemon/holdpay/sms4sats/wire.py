"""Connections over asyncio's own transports: TCP, TLS within it, and TLS within that of a proxy.

There are no time limits here: the caller has one around the whole request.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, Self, TypeVar, cast

T = TypeVar("T")

READ_BYTES: Final = 64 * 1024
MAX_UNREAD_BYTES: Final = 128 * 1024
"""Of one connection; the other side has to wait with more."""
HAPPY_EYEBALLS_S: Final = 0.25
"""A name's next address is tried after this, beside the one that is silent (RFC 8305)."""


class NotConnected(OSError):
    """No connection came about."""


class Broken(OSError):
    """A connection that stood broke, or what came over it makes no sense."""


class Network:
    """Where connections begin; it knows those that are open."""

    def __init__(self) -> None:
        self._open: set[_Tcp] = set()

    async def connect(self, host: str, port: int) -> Stream:
        """Raises NotConnected, and TimeoutError if the system gave up."""
        loop = asyncio.get_running_loop()
        try:
            _, stream = await loop.create_connection(
                lambda: _Tcp(self._open), host, port, happy_eyeballs_delay=HAPPY_EYEBALLS_S
            )
        except TimeoutError:
            raise
        except (OSError, UnicodeError) as error:  # the latter of a name that no host can have
            raise NotConnected(str(error)) from error
        return stream

    async def aclose(self) -> None:
        """Closes what is open still."""
        for stream in list(self._open):
            stream.close()
        await asyncio.sleep(0)  # asyncio closes the sockets in its next turn


class Stream(ABC):
    """A connection, in the clear or within TLS: there may be TLS in both."""

    @abstractmethod
    async def read(self, max_bytes: int) -> bytes:
        """Empty at the end. Raises Broken."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Does not wait: what is sent is one small request. Raises Broken."""

    @abstractmethod
    def close(self) -> None:
        """At once, whatever the other side still has to say."""

    @property
    @abstractmethod
    def is_readable(self) -> bool:
        """Of a kept connection: it was closed, or there is what nobody asked for."""

    async def start_tls(self, context: ssl.SSLContext, server_hostname: str) -> Stream:
        """Raises NotConnected. Whatever was said before is read as TLS too, and is none."""
        try:
            return await _Tls(self, context, server_hostname).shaken_hands()
        except (ssl.SSLError, UnicodeError, Broken) as error:
            self.close()
            raise NotConnected(str(error)) from error
        except asyncio.CancelledError:
            self.close()
            raise


class _Tcp(Stream, asyncio.Protocol):
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

    # --- what is asked of it --------------------------------------------------------------------------------------

    async def read(self, max_bytes: int) -> bytes:
        """See Stream."""
        if not self._unread and not self._is_lost:
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        if self._error is not None and not self._unread:
            raise Broken(str(self._error)) from self._error
        data = bytes(self._unread[:max_bytes])
        del self._unread[:max_bytes]
        self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """See Stream."""
        if self._is_lost:
            raise Broken(str(self._error or "the connection is closed"))
        self._transport.write(data)

    def close(self) -> None:
        """See Stream."""
        self._transport.abort()

    @property
    def is_readable(self) -> bool:
        """See Stream."""
        # The system is asked, too: the loop may not have looked since.
        return self._is_lost or bool(self._unread) or _is_readable(self._transport)


class _Tls(Stream):
    """asyncio's own keeps a buffer of 256 KiB for each connection; and within another TLS, that of Python 3.11.7 cannot
    say why it gives up."""

    def __init__(self, under: Stream, context: ssl.SSLContext, server_hostname: str) -> None:
        self._under = under
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)

    async def shaken_hands(self) -> Self:
        """Raises ssl.SSLError and Broken."""
        await self._done(self._tls.do_handshake)
        return self

    async def read(self, max_bytes: int) -> bytes:
        """See Stream. The end may come with or without a word of TLS."""
        try:
            return await self._done(lambda: self._tls.read(max_bytes))
        except ssl.SSLEOFError:
            return b""
        except ssl.SSLError as error:
            raise Broken(str(error)) from error

    async def write(self, data: bytes) -> None:
        """See Stream."""
        try:
            await self._done(lambda: self._tls.write(data))
        except ssl.SSLError as error:
            raise Broken(str(error)) from error

    def close(self) -> None:
        """See Stream."""
        self._under.close()

    @property
    def is_readable(self) -> bool:
        """See Stream."""
        return bool(self._tls.pending() or self._incoming.pending) or self._under.is_readable

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
