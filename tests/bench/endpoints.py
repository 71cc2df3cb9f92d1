"""What a daemon, or a bare loop, is pointed at."""

from __future__ import annotations

from pathlib import Path

from holdpay.sandbox.files import write_private
from holdpay.sandbox.world import Endpoints, SandboxWorld
from tests.integration.market import documented_uris
from tests.regtest.net import Net


async def of_sandbox(world: SandboxWorld) -> Endpoints:
    return Endpoints(
        lnd_address=world.lnd.target,
        tls_cert=world.lnd.tls_cert,
        macaroon=world.lnd.macaroon,
        provider_url=world.provider.url,
        payee_pubkey=await world.payee.pubkey(),
    )


async def of_net(net: Net, directory: Path, provider_url: str) -> Endpoints:
    """alice pays, carol is paid. Writes the documented macaroon into ``directory``."""
    alice = net["alice"]
    macaroon = directory / "holdpay.macaroon"
    write_private(macaroon, await alice.bake_macaroon(documented_uris()))
    return Endpoints(
        lnd_address=alice.rpc_address,
        tls_cert=alice.tls_cert_path,
        macaroon=macaroon,
        provider_url=provider_url,
        payee_pubkey=net["carol"].pubkey,
    )
