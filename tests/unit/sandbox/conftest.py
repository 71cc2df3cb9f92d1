from collections.abc import AsyncIterator

import pytest_asyncio

from tests.unit.sandbox.provider import World, running


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    async with running(World()) as each:
        yield each
