"""Every test here runs on virtual time."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.virtual_loop import VirtualLoop


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, type[VirtualLoop]]:
    return {"virtual": VirtualLoop}
