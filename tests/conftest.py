"""What every test gets: the fixtures of the real net, and a plain word about tests that need it."""

import os
import signal

import pytest

# A shell starts what it runs in the background with SIGINT ignored, and what the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.regtest.fixtures"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without HOLDPAY_REAL=1 the `real` tests are skipped, aloud; with it they run or fail."""
    if os.environ.get("HOLDPAY_REAL") == "1":
        return
    skip = pytest.mark.skip(reason="needs a real lnd: scripts/test --real or scripts/regtest (HOLDPAY_REAL=1) runs it")
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(skip)
