from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from holdpay.lnd.node import LndNode
from holdpay.sandbox.tls import Certificate, write_certificate
from tests.unit.lnd.fakes import MALLORY, FakeClock, FakeLnd, Relay, known, settings_for


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    """In tmp_path/tls.cert."""
    return write_certificate(tmp_path)


@pytest_asyncio.fixture
async def clock() -> FakeClock:
    return FakeClock()


@pytest_asyncio.fixture
async def lnd(certificate: Certificate) -> AsyncIterator[FakeLnd]:
    fake = FakeLnd()
    await fake.start(certificate)
    yield fake
    await fake.stop()


@pytest_asyncio.fixture
async def node(lnd: FakeLnd, clock: FakeClock, tmp_path: Path) -> AsyncIterator[LndNode]:
    """Connected to ``lnd``, after its first look."""
    node = LndNode(settings_for(lnd.port, tmp_path / "tls.cert"), clock)
    await node.start()
    await clock.until_asleep()
    await known(node)
    yield node
    await node.close()


@pytest_asyncio.fixture
async def mallory(certificate: Certificate) -> AsyncIterator[FakeLnd]:
    """Another node with the same certificate."""
    fake = FakeLnd(MALLORY)
    await fake.start(certificate)
    yield fake
    await fake.stop()


@pytest_asyncio.fixture
async def relay(lnd: FakeLnd) -> AsyncIterator[Relay]:
    async with Relay(lnd.port).running() as relay:
        yield relay


@pytest_asyncio.fixture
async def relayed(relay: Relay, clock: FakeClock, tmp_path: Path) -> AsyncIterator[LndNode]:
    """A node that reaches alice through the relay, after its first look."""
    node = LndNode(settings_for(relay.port, tmp_path / "tls.cert"), clock)
    await node.start()
    await clock.until_asleep()
    await known(node)
    yield node
    await node.close()
