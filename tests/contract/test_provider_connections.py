"""Connections to the provider that were closed, or never came about."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from holdpay.errors import ProviderUnavailable
from holdpay.sms4sats.wire import Network
from tests.contract.provider_servers import http, listening, raw_server
from tests.contract.test_code_provider import ORDER_ID, USA_OPENAI, connected, tls_server
from tests.unit.sms4sats.clock import settle

UNPAID = http('{"status":"OK","paid":false}')


async def test_a_connection_that_was_closed_a_moment_ago_is_known_to_be_before_the_loop_has_looked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        stream = await Network().connect_tcp(*server.getsockname())
        there, _ = server.accept()
        assert not stream.get_extra_info("is_readable")
        there.close()
        assert stream.get_extra_info("is_readable")
        await stream.aclose()


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
            server.settimeout(2)
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
        await settle()
        assert open_count == 0


@pytest.mark.parametrize("host", ["sms4sats..com", f"{'a' * 64}.com"])
async def test_a_name_that_no_host_can_have_is_an_error_of_the_provider(host: str) -> None:
    async with connected(f"https://{host}") as client:
        with pytest.raises(ProviderUnavailable, match="cannot be reached"):
            await client.cancel(ORDER_ID)
