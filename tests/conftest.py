"""What every test gets: the fixtures of the real net, and a plain word about tests that need it."""

import os

import pytest

pytest_plugins = ["tests.regtest.fixtures"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without HOLDPAY_REAL=1 the `real` tests are skipped, aloud; with it they run or fail."""
    if os.environ.get("HOLDPAY_REAL") == "1":
        return
    skip = pytest.mark.skip(reason="needs a real lnd: scripts/test --real or scripts/regtest (HOLDPAY_REAL=1) runs it")
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(skip)
