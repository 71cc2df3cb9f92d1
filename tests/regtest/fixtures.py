"""pytest fixtures of the real net. They fail, and never skip, when lnd or btcd cannot be had."""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from tests.regtest import binaries
from tests.regtest.net import Net


def lnd_version() -> str:
    """The lnd release under test: `HOLDPAY_LND_VERSION`, else the newest."""
    return os.environ.get("HOLDPAY_LND_VERSION") or binaries.DEFAULT_VERSION


async def _start(directory: Path, settings: Mapping[str, Sequence[str]] | None = None) -> Net:
    try:
        return await Net.start(lnd_version(), directory=directory, settings=settings)
    except binaries.Unavailable as error:
        why = str(error)
    pytest.fail(why, pytrace=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def net(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Net]:
    """alice - bob - carol, one net for the whole run: for fixtures of a wider scope. Tests take `healthy_net`."""
    running = await _start(tmp_path_factory.mktemp("net"))
    yield running
    await running.stop()


@pytest_asyncio.fixture
async def healthy_net(net: Net) -> Net:
    """The shared net with every node up and able to pay, whatever the test before did. Use invoices of your own."""
    await net.heal()
    return net


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def net_on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Net]:
    """The same with an alice that keeps payments in tables of SQLite, as no lnd before 0.21 does."""
    if lnd_version() == "0.18.5":
        pytest.skip("lnd 0.18.5 has no tables of SQLite for payments")
    on_sqlite = ["db.backend=sqlite", "db.use-native-sql=true"]
    running = await _start(tmp_path_factory.mktemp("net-on-sqlite"), {"alice": on_sqlite})
    yield running
    await running.stop()


@pytest_asyncio.fixture
async def healthy_net_on_sqlite(net_on_sqlite: Net) -> Net:
    """That one, every node up and able to pay."""
    await net_on_sqlite.heal()
    return net_on_sqlite


@pytest_asyncio.fixture
async def own_net(tmp_path: Path) -> AsyncIterator[Net]:
    """A net for one test (15 s): for those that mine to an expiry, close channels, or add nodes."""
    running = await _start(tmp_path)
    yield running
    await running.stop()
