"""How long the daemon takes from the provider's reply to SendPaymentV2, durable commits and all, on the sandbox.

Both ends are noted in one process, on one clock: the reply to `/createorder` when its handler returns, before it is
written; SendPaymentV2 when the simulated node gets it, after TLS, macaroon and decoding. In between the daemon reads
the reply, has LND decode the invoice (a round trip), vets it, journals order, vetting and its intent to pay in one
commit (fdatasync), and sends. The bare loop only reads the reply and sends: what the
daemon adds is the difference.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from holdpay.sandbox.http_server import Request, Response
from holdpay.sandbox.lnd_node import Subscription
from holdpay.sandbox.lnd_routing import SendRequest
from holdpay.sandbox.world import Endpoints, SandboxWorld
from tests.bench import bare, client
from tests.bench.daemon import running, write_config
from tests.bench.provider import INSTANT
from tests.bench.rows import Row, at_most, ms

WARM_UP_ORDERS: Final = 10
MAX_ADDED_MS: Final = 4.0
AWAY_S: Final = 0.05
"""The simulated provider thinks this long before each reply: a real one is not next door either."""


@dataclass(frozen=True, slots=True)
class Latency:
    """In ms, over ``orders`` orders one after the other."""

    orders: int
    daemon_median_ms: float
    daemon_p90_ms: float
    bare_median_ms: float

    @property
    def added_ms(self) -> float:
        """What the daemon adds to the way of the reply and of the call, which the bare loop has as well."""
        return self.daemon_median_ms - self.bare_median_ms

    def rows(self) -> Iterator[Row]:
        yield Row("provider's reply to SendPaymentV2, median", ms(self.daemon_median_ms))
        yield Row("  90th percentile", ms(self.daemon_p90_ms))
        yield Row("  the bare loop, median", ms(self.bare_median_ms))
        yield at_most("  added by the daemon", self.added_ms, MAX_ADDED_MS, "ms")


class Tap:
    """Notes both ends of each order in a sandbox, with the sandbox's own lags turned off."""

    def __init__(self, world: SandboxWorld) -> None:
        world.lnd.set_knobs(lag_s=0.0, send_delay_s=0.0)
        self._replied_at_s: dict[str, float] = {}
        self._gaps_ms: list[float] = []
        self._create = world.provider._endpoints["POST", "/createorder"]
        world.provider._endpoints = {**world.provider._endpoints, ("POST", "/createorder"): self._reply}
        self._send = world.lnd.node.send
        world.lnd.node.send = self._arrive  # type: ignore[method-assign]

    def take(self) -> list[float]:
        """The gaps since the last call."""
        gaps_ms, self._gaps_ms = self._gaps_ms, []
        return gaps_ms

    async def _reply(self, request: Request) -> Response:
        response = await self._create(request)
        self._replied_at_s[json.loads(response.body)["payreq"]] = time.monotonic()
        return response

    def _arrive(self, request: SendRequest) -> Subscription:
        arrived_at_s = time.monotonic()
        self._gaps_ms.append((arrived_at_s - self._replied_at_s.pop(request.payment_request)) * 1000)
        return self._send(request)


async def endpoints_of(world: SandboxWorld) -> Endpoints:
    return Endpoints(
        lnd_address=world.lnd.target,
        tls_cert=world.lnd.tls_cert,
        macaroon=world.lnd.macaroon,
        provider_url=world.provider.url,
        payee_pubkey=await world.payee.pubkey(),
    )


async def measure(python: Path, orders: int) -> Latency:
    """One order after the other, first through the daemon, then bare."""
    with tempfile.TemporaryDirectory(prefix="holdpay-bench-") as name:
        directory = Path(name)
        async with SandboxWorld(directory) as world:
            world.provider.knobs.scenario, world.provider.knobs.slow_s = INSTANT, AWAY_S
            tap = Tap(world)
            endpoints = await endpoints_of(world)
            async with running(write_config(directory, endpoints), python) as daemon:
                await client.run(daemon.socket, orders + WARM_UP_ORDERS, 1)
            daemon_ms = tap.take()[-orders:]
            await bare.run(endpoints, orders + WARM_UP_ORDERS, 1)
            bare_ms = tap.take()[-orders:]
    return Latency(orders, median(daemon_ms), quantiles(daemon_ms, n=10)[-1], median(bare_ms))
