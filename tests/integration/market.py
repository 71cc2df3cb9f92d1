"""A simulated sms4sats that sells carol's real hold invoices, and the real daemon beside a real alice."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from holdpay.sandbox.carol import Carol
from holdpay.sandbox.clock import WallClock
from holdpay.sandbox.files import write_private
from holdpay.sandbox.sms4sats import SimulatedSms4Sats
from holdpay.sandbox.world import Endpoints, daemon_config
from tests.harness import Daemon
from tests.regtest.net import Net
from tests.regtest.node import Node

PACE = 20.0
PRICE_SAT = 2000
URIS = Path(__file__).parents[2] / "systemd" / "macaroon-uris"
"""What the documented `bakemacaroon` line allows: the daemon under test gets no more."""

FAST = """
[payment]
pay_within_s = 10
close_unpaid_after_s = 5
retry_delays_s = [0, 4]
confirm_unpaid_s = 1
prove_absent_s = 2
"""


@dataclass(slots=True)
class Market:
    """``daemon`` is started; ``provider`` can be told how the next orders go."""

    net: Net
    provider: SimulatedSms4Sats
    daemon: Daemon

    @property
    def alice(self) -> Node:
        return self.net["alice"]

    async def payments(self, payment_hash: str) -> list[dict[str, object]]:
        """What alice's lnd has for a payment hash."""
        return [payment for payment in await self.alice.payments() if payment["payment_hash"] == payment_hash]


@contextlib.asynccontextmanager
async def open_shop(
    net: Net, directory: Path, *, pace: float = PACE, extra_config: str = ""
) -> AsyncIterator[tuple[SimulatedSms4Sats, Path]]:
    """The provider alone, and the path of a config.toml for a daemon beside alice."""
    carol_node, alice = net["carol"], net["alice"]
    carol = Carol(f"https://{carol_node.rest_address}", carol_node.tls_cert_path, carol_node.admin_macaroon_path)
    provider = SimulatedSms4Sats(carol, WallClock(pace))
    provider.knobs.price_sat = PRICE_SAT
    await provider.start()
    macaroon = directory / "holdpay.macaroon"
    write_private(macaroon, await alice.bake_macaroon(documented_uris()))
    endpoints = Endpoints(
        lnd_address=alice.rpc_address,
        tls_cert=alice.tls_cert_path,
        macaroon=macaroon,
        provider_url=provider.url,
        payee_pubkey=carol_node.pubkey,
    )
    try:
        yield provider, daemon_config(directory, endpoints, pace, extra_config)
    finally:
        await provider.stop()
        await carol.aclose()


@contextlib.asynccontextmanager
async def open_market(
    net: Net, directory: Path, extra_config: str = FAST, *, api_key_file: Path | None = None
) -> AsyncIterator[Market]:
    """From the first look at lnd to a daemon that takes orders."""
    async with open_shop(net, directory, extra_config=extra_config) as (provider, config):
        if api_key_file is not None:
            text = config.read_text().replace("[provider]\n", f'[provider]\napi_key_file = "{api_key_file}"\n')
            write_private(config, text.encode())
        daemon = Daemon(config, directory / "holdpay.sock")
        try:
            await daemon.start_ready()
            yield Market(net, provider, daemon)
        finally:
            await daemon.stop()


def documented_uris() -> list[str]:
    """As lnd wants them in a request: without the `uri:` of the command line."""
    lines = URIS.read_text().splitlines()
    return [line.strip().removeprefix("uri:") for line in lines if line.strip() and not line.startswith("#")]
