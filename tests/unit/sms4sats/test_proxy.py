"""The way through a proxy, word by word."""

from __future__ import annotations

import asyncio
import base64
import contextlib

import pytest

from holdpay.sms4sats.proxy import Proxy, ProxyRefused
from holdpay.sms4sats.wire import Network, NotConnected
from tests.contract.provider_servers import listening

HOST, PORT = "sms4sats.example", 443
NAMED = bytes([5, 1, 0, 3, len(HOST)]) + HOST.encode() + PORT.to_bytes(2, "big")
LED_ON = bytes([5, 0, 0, 1, 127, 0, 0, 1, 0, 80])


class Script:
    """A proxy that hears so many bytes and answers, again and again; the server behind it says ``here`` once it is
    spoken to."""

    def __init__(self, *turns: tuple[int, bytes]) -> None:
        self.heard: list[bytes] = []
        self.has_ended = asyncio.Event()
        self._turns = turns

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for count, answer in self._turns:
            self.heard.append(await reader.readexactly(count))
            for byte in answer:  # in as many pieces as there can be
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)
        with contextlib.suppress(OSError):
            if await reader.read(1):
                writer.write(b"here")
            await reader.read()
        self.has_ended.set()


async def led(script: Script, *, scheme: str = "socks5h", login: str = "", host: str = HOST) -> bytes:
    """What the server behind it says."""
    async with listening(script.serve) as port, asyncio.timeout(60):
        network = Network()
        try:
            stream = await Proxy(f"{scheme}://{login}127.0.0.1:{port}").connect(network, host, PORT)
            await stream.write(b".")
            said = b""
            while len(said) < len(b"here"):
                said += await stream.read(9)
            return said
        except OSError:
            await script.has_ended.wait()  # nothing of it stays open
            raise
        finally:
            await network.aclose()


@pytest.mark.parametrize(
    "reply",
    [LED_ON, bytes([5, 0, 0, 4, *range(16), 0, 80]), bytes([5, 0, 0, 3, 4]) + b"name" + bytes(2)],
    ids=["IPv4", "IPv6", "name"],
)
async def test_socks_leads_to_a_name_whatever_its_reply_looks_like(reply: bytes) -> None:
    script = Script((3, b"\x05\x00"), (len(NAMED), reply))
    assert await led(script) == b"here"
    assert script.heard == [b"\x05\x01\x00", NAMED]


async def test_socks_takes_a_login_as_it_is_meant() -> None:
    said = bytes([1, 4]) + b"u:er" + bytes([4]) + b"p@ss"
    script = Script((3, b"\x05\x02"), (len(said), b"\x01\x00"), (len(NAMED), LED_ON))
    assert await led(script, login="u%3Aer:p%40ss@") == b"here"
    assert script.heard == [b"\x05\x01\x02", said, NAMED]


@pytest.mark.parametrize(
    ("turns", "login", "why"),
    [
        ([(3, b"\x05\xff")], "", "speaks no SOCKS5, or wants another login"),
        ([(3, b"HT")], "", "speaks no SOCKS5, or wants another login"),
        ([(3, b"\x05\x02"), (5, b"\x01\x01")], "u:p@", "refuses the login"),
        ([(3, b"\x05\x02")], f"u:{'p' * 256}@", "longer than SOCKS5 allows"),
        ([(3, b"\x05\x00"), (len(NAMED), b"\x05\x04\x00\x01")], "", "cannot connect: host unreachable"),
        ([(3, b"\x05\x00"), (len(NAMED), b"\x05\x99\x00\x01")], "", "cannot connect: 153"),
    ],
)
async def test_a_socks_proxy_that_leads_nowhere_says_why(turns: list[tuple[int, bytes]], login: str, why: str) -> None:
    with pytest.raises(ProxyRefused, match=why):
        await led(Script(*turns), login=login)


async def test_a_login_may_have_bytes_that_are_no_text() -> None:
    said = bytes([1, 1]) + b"u" + bytes([3]) + b"p\xffs"
    script = Script((3, b"\x05\x02"), (len(said), b"\x01\x00"), (len(NAMED), LED_ON))
    assert await led(script, login="u:p%FFs@") == b"here"
    assert script.heard[1] == said


@pytest.mark.parametrize("host", ["sms4sats..example", "a." * 128 + "example"])
async def test_a_name_that_no_host_can_have_is_not_asked_for(host: str) -> None:
    with pytest.raises(NotConnected):
        await led(Script((3, b"\x05\x00")), host=host)


@pytest.mark.parametrize(("host", "target"), [(HOST, f"{HOST}:443"), ("::1", "[::1]:443")])
async def test_an_http_proxy_is_asked_for_a_tunnel_with_its_login(host: str, target: str) -> None:
    authorization = base64.b64encode(b"u:er:p@ss").decode()
    head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic {authorization}\r\n\r\n"
    script = Script((len(head), b"HTTP/1.1 200 Connection established\r\n\r\n"))
    assert await led(script, scheme="http", login="u%3Aer:p%40ss@", host=host) == b"here"
    assert script.heard == [head.encode()]


@pytest.mark.parametrize("status", ["301 Moved", "407 Proxy Authentication Required", "502 Bad Gateway"])
async def test_an_http_proxy_that_refuses_is_none(status: str) -> None:
    script = Script((37, f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()))
    with pytest.raises(ProxyRefused, match=f"HTTP {status[:3]}"):
        await led(script, scheme="http")
