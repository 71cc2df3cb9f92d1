"""A hook that is a URL."""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
from typing import Final

import httpx

from holdpay import __version__
from holdpay.hooks.sending import Message, Trouble
from holdpay.hooks.settings import Url, shown
from holdpay.hooks.signing import headers

MAX_REPLY_BYTES: Final = 16 * 1024
"""More of a reply is not read, and its connection is given up."""
MAX_REPLY_S: Final = 1.0
KEEP_ALIVE_S: Final = 30


class HttpSender:
    """No redirect is followed, no proxy of the environment used; for a certificate one of the authorities of browsers
    must vouch, or one of the system's, where an operator enters an own one."""

    def __init__(self, target: Url) -> None:
        self._url = target.url
        self._secret = target.secret
        self._timeout_s = target.timeout_s
        self._proxy = target.proxy
        self._http: httpx.AsyncClient | None = None

    @property
    def target(self) -> str:
        return shown(self._url)

    async def send(self, message: Message) -> Trouble | None:
        """See Sender."""
        if self._http is None:
            self._http = _client(self._proxy)
        try:
            async with asyncio.timeout(self._timeout_s):
                reply = await self._post(self._http, message)
        except TimeoutError:
            return Trouble(f"did not answer within {self._timeout_s:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as error:
            # The words of these may name the whole URL.
            return Trouble(f"cannot be reached ({type(error).__name__})")
        await _skip(reply)
        return _trouble(reply.status_code)

    async def _post(self, http: httpx.AsyncClient, message: Message) -> httpx.Response:
        """Its status has come; its text has not."""
        signed = {"content-type": "application/json", **headers(message, self._secret)}
        request = http.build_request("POST", self._url, content=message.body, headers=signed)
        return await http.send(request, stream=True)

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()


async def _skip(reply: httpx.Response) -> None:
    """Read to its end, a connection can be used again. The status counts, whatever becomes of the rest."""
    with contextlib.suppress(TimeoutError, httpx.HTTPError, httpx.StreamError, OSError):
        async with contextlib.aclosing(reply), asyncio.timeout(MAX_REPLY_S):
            read = 0
            async for chunk in reply.aiter_raw():
                read += len(chunk)
                if read > MAX_REPLY_BYTES:
                    return


def _client(proxy: str | None) -> httpx.AsyncClient:
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return httpx.AsyncClient(
        verify=context,
        proxy=proxy,
        trust_env=False,
        follow_redirects=False,
        timeout=None,  # noqa: S113 - of the whole: see ``send``
        limits=httpx.Limits(max_connections=2, max_keepalive_connections=1, keepalive_expiry=KEEP_ALIVE_S),
        headers={"user-agent": f"holdpay/{__version__}"},
    )


def _trouble(status: int) -> Trouble | None:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    if status == HTTPStatus.GONE:
        return Trouble("answered that it wants no more (HTTP 410)", is_final=True)
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return Trouble(f"answered with a redirect (HTTP {status}), which is not followed")
    return Trouble(f"answered with HTTP {status}")
