from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from holdpay.lnd.node import LndNode
from holdpay.sandbox.tls import Certificate, write_certificate
from tests.unit.lnd.fakes import FakeClock, FakeLnd, settings_for


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
    yield node
    await node.close()
