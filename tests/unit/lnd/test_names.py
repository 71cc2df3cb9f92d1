"""lnd.address may be a name that cannot be resolved for a while: at a start before the network, say."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from grpc import aio

from holdpay.lnd import connection
from holdpay.lnd.channel import open_channel
from holdpay.lnd.node import LndNode
from holdpay.lnd.settings import LndSettings
from holdpay.ports import NodeState
from tests.unit.lnd.fakes import FakeClock, FakeLnd, settings_for


async def test_a_name_that_can_be_resolved_again_is_seen_at_the_next_look(
    lnd: FakeLnd, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old channel would sit out gRPC's own wait, which grows to two minutes: there must be a new one."""
    knows_name = False

    def resolve(settings: LndSettings, certificates: bytes) -> aio.Channel:
        known = replace(settings, address=f"127.0.0.1:{lnd.port}")
        return open_channel(known if knows_name else settings, certificates)

    monkeypatch.setattr(connection, "open_channel", resolve)
    settings = settings_for(lnd.port, tmp_path / "tls.cert", address=f"lnd.invalid:{lnd.port}")
    node = LndNode(settings, clock)
    await node.start()
    try:
        await clock.until_asleep()
        assert "cannot be resolved" in node.status.detail
        knows_name = True
        await node._monitor.look(node._link)  # the channel of the time when the name was not known yet
        await node._monitor.look(node._link)
        assert node.status.state is NodeState.READY
    finally:
        await node.close()
    assert settings.look_every_unready_s <= 5


@pytest.mark.parametrize(("given", "wanted"), [(None, "native"), ("ares", "ares")])
def test_names_are_resolved_as_the_system_does_unless_the_operator_says_otherwise(
    given: str | None, wanted: str
) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "GRPC_DNS_RESOLVER"}
    if given is not None:
        environ["GRPC_DNS_RESOLVER"] = given
    code = "import sys, os, holdpay; assert 'grpc' not in sys.modules; print(os.environ['GRPC_DNS_RESOLVER'])"
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == wanted
