"""Connections to the provider that were closed, or never came about."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdpay.errors import ProviderUnavailable
from holdpay.sms4sats import transport as transport_module
from holdpay.sms4sats.wire import Network
from tests.contract.provider_servers import hang_up, http, listening, raw_server
from tests.contract.test_code_provider import ORDER_ID, USA_OPENAI, connected, tls_server
from tests.unit.sms4sats.clock import settle

UNPAID_TEXT = '{"status":"OK","paid":false}'
UNPAID = http(UNPAID_TEXT)


async def test_a_connection_that_was_closed_a_moment_ago_is_known_to_be_before_the_loop_has_looked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        stream = await Network().connect(*server.getsockname())
        there, _ = server.accept()
        assert not stream.is_readable
        there.close()
        assert stream.is_readable
        stream.close()


@pytest.mark.parametrize("is_order", [True, False])
async def test_an_order_and_a_cancel_go_out_over_a_new_connection_if_the_kept_one_was_closed_while_we_were_busy(
    is_order: bool,
) -> None:
    loop, heads = asyncio.get_running_loop(), []

    def answer(there: socket.socket, reply: bytes) -> None:
        heads.append(there.recv(65536).split(b" ")[0])
        there.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as server:
        async with connected(f"http://127.0.0.1:{server.getsockname()[1]}") as client:
            asking = asyncio.create_task(client.order_status(ORDER_ID))
            first, _ = await loop.run_in_executor(None, server.accept)
            await loop.run_in_executor(None, answer, first, UNPAID)
            await asking
            first.close()  # and the loop has not looked since
            doing = asyncio.create_task(client.place(USA_OPENAI) if is_order else client.cancel(ORDER_ID))
            server.settimeout(20)
            with contextlib.suppress(TimeoutError):
                second, _ = await loop.run_in_executor(None, server.accept)
                await loop.run_in_executor(
                    None, answer, second, http('{"status":"OK","orderId":"a","payreq":"lnbc1a"}')
                )
                second.close()
            await doing
            assert len(heads) == 2


async def test_what_nobody_asked_for_is_seen_within_tls_too(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(server.heads) > 1:
            writer.write(http('{"status":"OK","orderId":"a","payreq":"lnbc1a"}'))
            return
        writer.write(UNPAID)
        writer.write(http('{"status":"OK","orderId":"b","payreq":"lnbc1b"}'))  # a record of its own, at once

    tls = tls_server(tmp_path / "tls", "127.0.0.1")
    async with (
        raw_server(answer, tls) as server,
        connected(server.url, ca_file=tmp_path / "tls" / "tls.cert") as client,
    ):
        await client.order_status(ORDER_ID)
        assert (await client.place(USA_OPENAI)).value.provider_order_id == "a"


async def test_a_reply_that_nobody_asked_for_is_not_taken_for_the_next_ones_though_it_came_with_the_last() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(server.heads) > 1:
            writer.write(http('{"status":"OK","orderId":"a","payreq":"lnbc1a"}'))
        else:
            writer.write(UNPAID + http('{"status":"OK","orderId":"b","payreq":"lnbc1b"}'))

    async with raw_server(answer) as server, connected(server.url) as client:
        await client.order_status(ORDER_ID)
        assert (await client.place(USA_OPENAI)).value.provider_order_id == "a"


@pytest.mark.parametrize("length", [f"Content-Length: {len(UNPAID_TEXT)}\r\n", ""])
async def test_an_order_goes_out_over_a_new_connection_if_the_kept_ones_tls_has_ended(
    tmp_path: Path, length: str
) -> None:
    """The connection under it stays open: the server waits for our end of it."""
    context = tls_server(tmp_path / "tls", "127.0.0.1")
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)

        async def done(step: Callable[[], Any]) -> Any:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    incoming.write(await reader.read(65536))
                finally:
                    writer.write(outgoing.read())

        await done(tls.do_handshake)
        heads.append(await done(tls.read))
        if len(heads) > 1:
            await done(lambda: tls.write(http('{"status":"OK","orderId":"a","payreq":"lnbc1a"}')))
        else:
            await done(lambda: tls.write(f"HTTP/1.1 200 OK\r\n{length}\r\n{UNPAID_TEXT}".encode()))
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.unwrap()
            writer.write(outgoing.read())
        await reader.read()

    async with (
        listening(serve) as port,
        connected(f"https://127.0.0.1:{port}", ca_file=tmp_path / "tls" / "tls.cert") as client,
    ):
        await client.order_status(ORDER_ID)
        assert (await client.place(USA_OPENAI)).value.provider_order_id == "a"
        assert len(heads) == 2


async def test_what_was_sent_once_stays_sent_though_the_next_try_finds_no_connection() -> None:
    async with raw_server(hang_up) as server, connected(server.url) as client:
        asking = asyncio.create_task(client.order_status(ORDER_ID))
        while not server.heads:
            await asyncio.sleep(0)
        client._http._port = 1  # type: ignore[attr-defined] # where nobody listens
        with pytest.raises(ProviderUnavailable) as caught:
            await asking
        assert not caught.value.is_turned_away


async def test_a_connection_that_is_of_no_use_any_more_is_closed_though_the_server_keeps_it() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(http(UNPAID_TEXT, "200 OK", "Connection: close") if len(server.heads) > 1 else UNPAID)
        await settle()
        writer.write(b"more")

    async with raw_server(answer) as server, connected(server.url) as client:
        transport: Any = client._http
        await client.order_status(ORDER_ID)
        while not transport._idle[0][1].is_stale:
            await asyncio.sleep(0)
        await client.order_status(ORDER_ID)
        await settle()
        assert (server.connection_count, len(transport._network._open)) == (2, 0)


async def test_at_the_end_what_is_kept_and_what_is_under_way_is_closed() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(server.heads) < 3:
            await both_asked.wait()
            writer.write(UNPAID)

    both_asked = asyncio.Event()
    async with raw_server(answer) as server, connected(server.url) as client:
        transport: Any = client._http
        asking = [asyncio.create_task(client.order_status(ORDER_ID)) for _ in range(2)]
        while len(server.heads) < 2:
            await asyncio.sleep(0)
        both_asked.set()
        await asyncio.gather(*asking)
        placing = asyncio.create_task(client.place(USA_OPENAI))
        while len(server.heads) < 3:
            await asyncio.sleep(0)
        assert len(transport._network._open) == 2
        await client.aclose()
        assert not transport._network._open
        with pytest.raises(ProviderUnavailable) as caught:
            await placing
        assert not caught.value.is_turned_away


async def test_connections_are_kept_for_a_while_and_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_server(UNPAID) as server, connected(server.url) as client:
        transport: Any = client._http
        monkeypatch.setattr(transport_module, "MAX_IDLE", 2)
        await asyncio.gather(*(client.order_status(ORDER_ID) for _ in range(3)))
        await settle()
        assert (server.connection_count, len(transport._idle), len(transport._network._open)) == (3, 2, 2)
        monkeypatch.setattr(transport_module, "KEEP_ALIVE_S", -1)
        await client.order_status(ORDER_ID)
        assert server.connection_count == 3, "one that is kept is used"
        transport._idle = deque((0.0, connection) for _, connection in transport._idle)
        await client.order_status(ORDER_ID)
        await settle()
        assert (server.connection_count, len(transport._network._open)) == (4, 1), "those whose time is over are closed"


@pytest.mark.parametrize(
    ("keep_alive", "connections"),
    [("timeout=1", 2), ("max=100, Timeout=1", 2), ("timeout=0", 2), ("timeout=900", 1), ("timeout=soon", 1)],
)
async def test_a_connection_that_the_server_says_it_will_close_is_used_no_more_a_second_before(
    keep_alive: str, connections: int
) -> None:
    async with (
        raw_server(http(UNPAID_TEXT, "200 OK", f"Keep-Alive: {keep_alive}")) as server,
        connected(server.url) as client,
    ):
        await client.order_status(ORDER_ID)
        await client.order_status(ORDER_ID)
        transport: Any = client._http
        assert server.connection_count == connections
        assert transport._idle[-1][0] <= asyncio.get_running_loop().time() + transport_module.KEEP_ALIVE_S


async def test_the_time_until_the_server_closes_is_counted_from_the_request_since_the_way_of_an_answer_may_be_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, way_s = asyncio.get_running_loop(), 0
    time_of_loop = loop.time
    monkeypatch.setattr(loop, "time", lambda: time_of_loop() + way_s)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal way_s
        way_s += 10
        writer.write(http(UNPAID_TEXT, "200 OK", "Keep-Alive: timeout=11"))

    async with raw_server(answer) as server, connected(server.url, timeout_s=600) as client:
        await client.order_status(ORDER_ID)
        await client.order_status(ORDER_ID)
        assert server.connection_count == 2


@pytest.mark.parametrize("refusal", [b"", b"\x05\xff"])
async def test_a_socks_proxy_that_does_not_lead_on_keeps_no_connection_of_ours_open(refusal: bytes) -> None:
    open_count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_count
        open_count += 1
        await reader.read(3)
        writer.write(refusal)
        with contextlib.suppress(OSError):
            await reader.read()  # until we hang up
        open_count -= 1

    async with (
        listening(serve) as port,
        connected("http://sms4sats.invalid", proxy=f"socks5h://127.0.0.1:{port}", timeout_s=0.05) as client,
    ):
        for _ in range(3):
            with pytest.raises(ProviderUnavailable):
                await client.cancel(ORDER_ID)
        async with asyncio.timeout(60):
            while open_count:
                gc.collect()  # to whom asyncio leaves the socket of a connecting that is canceled
                await asyncio.sleep(0)


@pytest.mark.parametrize("host", ["sms4sats..com", f"{'a' * 64}.com"])
async def test_a_name_that_no_host_can_have_is_an_error_of_the_provider(host: str) -> None:
    async with connected(f"https://{host}") as client:
        with pytest.raises(ProviderUnavailable, match="cannot be reached"):
            await client.cancel(ORDER_ID)
