"""httpx's transport for one server: its connections, kept in httpcore's pool, over ``wire``.

It is used without httpx.AsyncClient: here are no redirects to follow, no cookies to keep and no addresses to merge, and
to look for them takes longer than the request itself.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Final, cast

# httpcore takes its locks from anyio, which imports this with the first one: 20 ms in the midst of the first order.
import anyio._backends._asyncio  # noqa: F401
import httpcore
import httpx

from holdpay.sms4sats.wire import Network

KEEP_ALIVE_S: Final = 30
"""Longer than from one poll of an order to the next."""
MAX_IDLE: Final = 20

_NAMESAKES: Final[Mapping[type[Exception], type[httpx.TransportError]]] = {
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ReadError: httpx.ReadError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.ProxyError: httpx.ProxyError,
    httpcore.LocalProtocolError: httpx.LocalProtocolError,
    httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
}
_ERRORS: Final = tuple(_NAMESAKES)


class Transport(httpx.AsyncBaseTransport):
    """``proxy``: http://, https://, socks5:// or socks5h://; the environment's is never used. There is no time limit
    but the caller's."""

    def __init__(self, tls: ssl.SSLContext, proxy: str | None) -> None:
        self._network = Network()
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            proxy=None if proxy is None else _proxy(httpx.Proxy(proxy)),
            # Without a bound: a request that is canceled in the queue for a connection blocks that one for ever
            # (httpcore issue 1093). The request rate bounds them well enough.
            max_connections=None,
            max_keepalive_connections=MAX_IDLE,
            keepalive_expiry=KEEP_ALIVE_S,
            network_backend=self._network,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The head has come; the body is to be read from ``stream``, as it is sent. Raises httpx.TransportError and
        OSError; socksio.ProtocolError for a proxy that speaks no SOCKS."""
        url = request.url
        extensions = dict(request.extensions)
        # Not left there: httpcore would put it in the place of the whole URL, which an HTTP proxy needs.
        target = extensions.pop("target", url.raw_path)
        asked = httpcore.Request(
            method=request.method,
            url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=target),
            headers=request.headers.raw,
            content=request.stream,
            extensions=extensions,
        )
        try:
            answered = await self._pool.handle_async_request(asked)
        except _ERRORS as error:
            raise _NAMESAKES[type(error)](str(error)) from error
        return httpx.Response(answered.status, headers=answered.headers, stream=_Body(answered))

    async def aclose(self) -> None:
        await self._pool.aclose()
        await self._network.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, answered: httpcore.Response) -> None:
        self._answered = answered

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in cast("AsyncIterator[bytes]", self._answered.stream):
                yield chunk
        except _ERRORS as error:
            raise _NAMESAKES[type(error)](str(error)) from error

    async def aclose(self) -> None:
        await self._answered.aclose()


def _proxy(given: httpx.Proxy) -> httpcore.Proxy:
    url = given.url
    return httpcore.Proxy(
        httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path), auth=given.raw_auth
    )
