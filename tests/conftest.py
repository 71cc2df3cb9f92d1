"""What every test gets: the fixtures of the real net, a plain word about tests that need it, and patient hypothesis."""

import os
import signal

import pytest
from hypothesis import settings

# A shell starts what it runs in the background with SIGINT ignored, and what the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes depends on what else the machine does; the rest stays, also of hypothesis' own CI profile.
settings.register_profile("holdpay", deadline=None)
settings.load_profile("holdpay")

pytest_plugins = ["tests.regtest.fixtures"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without HOLDPAY_REAL=1 the `real` tests are skipped, aloud; with it they run or fail."""
    if os.environ.get("HOLDPAY_REAL") == "1":
        return
    skip = pytest.mark.skip(reason="needs a real lnd: scripts/test --real or scripts/regtest (HOLDPAY_REAL=1) runs it")
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(skip)
