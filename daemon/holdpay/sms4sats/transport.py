"""The connections to one server, as far as they are kept, and the way to it."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import deque
from typing import Final
from urllib.parse import urlsplit

from holdpay.sms4sats.http import Connection, Request, Response
from holdpay.sms4sats.proxy import Proxy
from holdpay.sms4sats.wire import Network, Stream

KEEP_ALIVE_S: Final = 30
"""Longer than from one poll to the next of an order whose code may come any moment."""
MARGIN_S: Final = 1
"""So long before the server ends it, a connection is used no more: an order that crosses the end is one of which nobody
knows whether it was placed."""
MAX_IDLE: Final = 20

_UNTIL = re.compile(r"timeout=(\d{1,6})", re.IGNORECASE)
"""In the header Keep-Alive: after so many idle seconds the server closes; one of Node after 5, as a rule."""


class Transport:
    """``url``: of the server, its scheme, host and port. ``proxy``: http://, https:// or socks5h://; the environment's
    is never used. There is no time limit but the caller's, and no bound to connections: the request rate bounds them.
    """

    def __init__(self, url: str, tls: ssl.SSLContext, proxy: str | None) -> None:
        parts = urlsplit(url)
        self._tls = tls if parts.scheme == "https" else None
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        self._proxy = None if proxy is None else Proxy(proxy)
        self._network = Network()
        self._idle: deque[tuple[float, Connection]] = deque()
        """Each with the loop's time until which it is kept; the one that was used last is the last one."""

    async def exchange(self, request: Request, max_bytes: int) -> Response:
        """See Connection. Raises NotConnected, Broken, ProxyRefused, and TimeoutError if the system gave up."""
        connection = self._kept() or Connection(await self._connected())
        sent_s = asyncio.get_running_loop().time()
        try:
            response = await connection.exchange(request, max_bytes)
        except BaseException:
            connection.close()
            raise
        if connection.is_free():
            self._keep(connection, response, sent_s)
        else:
            connection.close()
        return response

    async def aclose(self) -> None:
        """Ends whatever is under way."""
        self._idle.clear()
        await self._network.aclose()

    async def _connected(self) -> Stream:
        if self._proxy is None:
            stream = await self._network.connect(self._host, self._port)
        else:
            stream = await self._proxy.connect(self._network, self._host, self._port)
        return stream if self._tls is None else await stream.start_tls(self._tls, self._host)

    def _kept(self) -> Connection | None:
        now_s = asyncio.get_running_loop().time()
        while self._idle and self._idle[0][0] < now_s:
            self._idle.popleft()[1].close()
        while self._idle:
            until_s, connection = self._idle.pop()
            if until_s >= now_s and not connection.is_stale:
                return connection
            connection.close()
        return None

    def _keep(self, connection: Connection, response: Response, sent_s: float) -> None:
        """``sent_s``: when the request was; the server counts from its answer, which was later, and long before the
        answer was here if the way is long."""
        until_s = asyncio.get_running_loop().time() + KEEP_ALIVE_S
        if told := _UNTIL.search(response.headers.get("keep-alive", "")):
            until_s = min(until_s, sent_s + int(told[1]) - MARGIN_S)
        self._idle.append((until_s, connection))
        if len(self._idle) > MAX_IDLE:
            self._idle.popleft()[1].close()
