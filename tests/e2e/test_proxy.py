"""The ways out: the provider through a proxy, lnd by its address, by a name, and behind another name's certificate."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.sandbox.tls import write_certificate
from holdpay.sandbox.world import SandboxWorld
from tests.e2e.proxies import HttpProxy, SocksProxy
from tests.e2e.shop import PACE, QUICK, Books, Shop, open_shop
from tests.harness import Daemon

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(params=[HttpProxy, SocksProxy], ids=["http", "socks5h"], loop_scope="module")
async def proxy(request: pytest.FixtureRequest) -> AsyncIterator[HttpProxy | SocksProxy]:
    async with request.param().running() as running:
        yield running


async def test_the_provider_is_reached_through_the_proxy_and_lnd_by_its_name_without_it(
    tmp_path: Path, proxy: HttpProxy | SocksProxy
) -> None:
    def edit(text: str) -> str:
        by_name = re.sub(r'(base_url = "http://|address = ")127\.0\.0\.1:', r"\1localhost:", text)
        return by_name.replace("[provider]\n", f'[provider]\nproxy = "{proxy.url}"\n')

    async with open_shop(tmp_path, edit_config=edit) as shop:
        assert (await shop.daemon.status()).lnd.address == f"localhost:{shop.world.lnd.port}"
        assert (await shop.buy()).end == pb.END_FULFILLED

        assert set(proxy.asked) == {("localhost", urlsplit(shop.world.provider.url).port)}
        proxy.stop()
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await shop.daemon.order(country="germany")
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "provider.proxy" in (refusal.value.details() or "")
        log = shop.daemon.log()
        assert "sesame" not in log
        assert "sesame" not in (await shop.daemon.status()).provider.last_error


async def test_lnd_behind_a_certificate_of_another_name_needs_that_name(tmp_path: Path) -> None:
    async with SandboxWorld(tmp_path, pace=PACE, extra_config=QUICK) as world:
        await world.lnd.stop()
        world.lnd._certificate = write_certificate(tmp_path / "lnd", ("node.example",))
        await world.lnd.start()
        shop = Shop(world, Daemon(world.config, world.socket), Books(world.lnd.network))
        await shop.daemon.start()
        async with asyncio.timeout(60):
            while "not asked yet" in (status := await shop.daemon.status()).lnd.detail:
                await asyncio.sleep(0.05)
        assert (status.ready, status.lnd.state) == (False, "unreachable")
        assert "certificate" in status.lnd.detail
        assert "lnd.tls_server_name" in status.lnd.detail
        await shop.daemon.stop()

        world.config.write_text(
            world.config.read_text().replace("[lnd]\n", '[lnd]\ntls_server_name = "node.example"\n')
        )
        await shop.daemon.start_ready()
        try:
            assert (await shop.buy()).end == pb.END_FULFILLED
        finally:
            await shop.daemon.stop()
