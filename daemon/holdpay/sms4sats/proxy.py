"""The way to a server through a proxy: CONNECT of HTTP (RFC 9110), or SOCKS5 (RFC 1928; its login: RFC 1929).

The proxy looks the server's name up, whatever its kind: of Tor nobody else may hear it.
"""

from __future__ import annotations

import base64
import ssl
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

import certifi

from holdpay.sms4sats.http import Connection, Request
from holdpay.sms4sats.wire import Network, NotConnected, Stream

_VERSION: Final = 5
_LOGIN_VERSION: Final = 1
_CONNECT: Final = 1
_NO_LOGIN: Final = 0
_LOGIN: Final = 2
_BY_NAME: Final = 3
_ADDRESS_BYTES: Final = {1: 4, 4: 16}
"""By the kind of an address in a reply; a name has its length before it."""
_MOST_BYTES: Final = 255
_REFUSALS: Final = {
    1: "general failure",
    2: "not allowed",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "took too long",
    7: "command not supported",
    8: "address type not supported",
}


class ProxyRefused(OSError):
    """It leads nowhere, or is none."""


class Proxy:
    """``url``: http://, https:// or socks5h://, with its login if there is one."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._scheme = parts.scheme
        self._host, self._port = parts.hostname or "", parts.port or 0
        self._login: tuple[bytes, bytes] | None = None
        if parts.username is not None:
            self._login = unquote_to_bytes(parts.username), unquote_to_bytes(parts.password or "")
        self._tls = _tls() if parts.scheme == "https" else None

    async def connect(self, network: Network, host: str, port: int) -> Stream:
        """To that server, in the clear. Raises NotConnected, Broken, ProxyRefused, and TimeoutError if the system gave
        up."""
        stream = await network.connect(self._host, self._port)
        try:
            if self._tls is not None:
                stream = await stream.start_tls(self._tls, self._host)
            await (
                self._by_socks(stream, host, port) if self._scheme == "socks5h" else self._tunnel(stream, host, port)
            )
        except BaseException:
            stream.close()
            raise
        return stream

    async def _tunnel(self, stream: Stream, host: str, port: int) -> None:
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        headers = {"Host": target}
        if self._login is not None:
            headers["Proxy-Authorization"] = f"Basic {base64.b64encode(b':'.join(self._login)).decode()}"
        response = await Connection(stream).exchange(Request(method="CONNECT", target=target, headers=headers), 0)
        if not HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
            raise ProxyRefused(f"the proxy answers with HTTP {response.status}")

    async def _by_socks(self, stream: Stream, host: str, port: int) -> None:
        method = _NO_LOGIN if self._login is None else _LOGIN
        await stream.write(bytes([_VERSION, 1, method]))
        if await _read(stream, 2) != bytes([_VERSION, method]):
            raise ProxyRefused("the proxy speaks no SOCKS5, or wants another login")
        if self._login is not None:
            user, password = self._login
            if max(len(user), len(password)) > _MOST_BYTES:
                raise ProxyRefused("its login is longer than SOCKS5 allows")
            await stream.write(bytes([_LOGIN_VERSION, len(user)]) + user + bytes([len(password)]) + password)
            if (await _read(stream, 2))[1]:
                raise ProxyRefused("the proxy refuses the login")
        try:
            name = host.encode("idna")
        except UnicodeError as error:
            raise NotConnected(str(error)) from error
        if len(name) > _MOST_BYTES:
            raise NotConnected("its name is longer than SOCKS5 allows")
        await stream.write(bytes([_VERSION, _CONNECT, 0, _BY_NAME, len(name)]) + name + port.to_bytes(2, "big"))
        _, refusal, _, kind = await _read(stream, 4)
        if refusal:
            raise ProxyRefused(f"the proxy cannot connect: {_REFUSALS.get(refusal, refusal)}")
        length = _ADDRESS_BYTES.get(kind) or (await _read(stream, 1))[0]
        await _read(stream, length + 2)


def _tls() -> ssl.SSLContext:
    """One of the system's authorities may vouch for it, where an operator enters an own one, or one of browsers'."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


async def _read(stream: Stream, count: int) -> bytes:
    """Exactly so many bytes: what follows them is the server's."""
    data = b""
    while len(data) < count:
        more = await stream.read(count - len(data))
        if not more:
            raise NotConnected("the proxy hung up")
        data += more
    return data
