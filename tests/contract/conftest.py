"""Each test of the contract suite runs in the sandbox, and in a real net when there is one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from holdpay.sandbox.lnd_model import SqlitePaymentDb
from tests.contract.client import Client
from tests.contract.real_world import RealWorld
from tests.contract.worlds import SandboxWorld, World, sandbox_world
from tests.regtest.net import Net


@pytest_asyncio.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[SandboxWorld]:
    async with sandbox_world(tmp_path) as world:
        yield world


@pytest_asyncio.fixture
async def sandbox_on_sqlite(tmp_path: Path) -> AsyncIterator[SandboxWorld]:
    async with sandbox_world(tmp_path, SqlitePaymentDb) as world:
        yield world


@pytest.fixture
def real(healthy_net: Net) -> RealWorld:
    return RealWorld(healthy_net)


@pytest.fixture
def own_real(own_net: Net) -> RealWorld:
    return RealWorld(own_net)


@pytest.fixture
def real_on_sqlite(healthy_net_on_sqlite: Net) -> RealWorld:
    return RealWorld(healthy_net_on_sqlite)


@pytest.fixture(params=["sandbox", pytest.param("real", marks=pytest.mark.real)])
def world(request: pytest.FixtureRequest) -> World:
    chosen: World = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture(params=["sandbox", pytest.param("own_real", marks=pytest.mark.real)])
def mortal_world(request: pytest.FixtureRequest) -> World:
    """A world that a test may hurt for good."""
    chosen: World = request.getfixturevalue(request.param)
    return chosen


@pytest_asyncio.fixture
async def lnd(world: World) -> AsyncIterator[Client]:
    """The payer, with the admin macaroon."""
    async with world.connect() as client:
        yield client
