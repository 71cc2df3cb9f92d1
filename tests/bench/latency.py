"""How long the daemon takes from the provider's reply to its payment in lnd, durable commits and all, on a real lnd.

The reply to `/createorder` is noted when the simulated provider has made it, before it is written; the payment has the
time at which lnd took it down (`creation_time_ns`; lnd: routing/control_tower.go InitPayment), by the clock of the same
machine. In between the daemon reads the reply, has LND decode the invoice (a round trip), vets it, journals order,
vetting and its intent to pay in one commit (fdatasync), and sends; lnd checks the macaroon, and decodes the invoice.
The bare loop only reads the reply and sends: what the daemon adds is the difference.
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

from holdpay.sandbox.carol import Carol
from holdpay.sandbox.clock import WallClock
from holdpay.sandbox.http_server import Request, Response
from holdpay.sandbox.sms4sats import SimulatedSms4Sats
from holdpay.sandbox.sms4sats_knobs import Knobs
from tests.bench import bare, client, endpoints
from tests.bench.daemon import running, write_config
from tests.bench.provider import INSTANT, PRICE_SAT
from tests.bench.rows import Row, at_most, ms
from tests.regtest.net import Net
from tests.regtest.node import Node

WARM_UP_ORDERS: Final = 10
MAX_ADDED_MS: Final = 4.0
AWAY_S: Final = 0.05
"""The simulated provider thinks this long before each reply: a real one is not next door either."""
MOST_PAYMENTS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Latency:
    """In ms, over ``orders`` orders one after the other."""

    lnd_version: str
    orders: int
    daemon_median_ms: float
    daemon_p90_ms: float
    bare_median_ms: float

    @property
    def added_ms(self) -> float:
        """What the daemon adds to the way of the reply and of the call, which the bare loop has as well."""
        return self.daemon_median_ms - self.bare_median_ms

    def rows(self) -> Iterator[Row]:
        yield Row(f"lnd {self.lnd_version}: provider's reply to the payment in lnd, median", ms(self.daemon_median_ms))
        yield Row("  90th percentile", ms(self.daemon_p90_ms))
        yield Row("  the bare loop, median", ms(self.bare_median_ms))
        yield at_most("  added by the daemon before SendPaymentV2", self.added_ms, MAX_ADDED_MS, "ms")


class Tap:
    """Notes when each order was answered."""

    def __init__(self, provider: SimulatedSms4Sats) -> None:
        self._replied_at_ns: dict[str, int] = {}
        self._create = provider._endpoints["POST", "/createorder"]
        provider._endpoints = {**provider._endpoints, ("POST", "/createorder"): self._reply}

    async def take(self, payer: Node) -> list[float]:
        """From each reply since the last call to its payment, in ms, oldest first."""
        latest = f"reversed=true&max_payments={MOST_PAYMENTS}"
        listed = await payer.rest.get(f"/v1/payments?include_incomplete=true&{latest}")
        gaps_ns = [
            int(payment["creation_time_ns"]) - self._replied_at_ns.pop(payment["payment_request"])
            for payment in listed["payments"]
            if payment["payment_request"] in self._replied_at_ns
        ]
        assert not self._replied_at_ns, "each order was paid"
        return [gap_ns / 1e6 for gap_ns in gaps_ns]

    async def _reply(self, request: Request) -> Response:
        response = await self._create(request)
        self._replied_at_ns[json.loads(response.body)["payreq"]] = time.time_ns()
        return response


async def measure(lnd_version: str, python: Path, orders: int) -> Latency:
    """Starts a net. Raises Unavailable, StartFailed, LoopFailed."""
    with tempfile.TemporaryDirectory(prefix="holdpay-bench-") as name:
        net = await Net.start(lnd_version, directory=Path(name))
        try:
            return await measure_on(net, lnd_version, Path(name), python, orders)
        finally:
            await net.stop()


async def measure_on(net: Net, lnd_version: str, directory: Path, python: Path, orders: int) -> Latency:
    """One order after the other, first through the daemon, then bare. ``directory`` is for the daemon."""
    carol = net["carol"]
    payee = Carol(f"https://{carol.rest_address}", carol.tls_cert_path, carol.admin_macaroon_path)
    provider = SimulatedSms4Sats(payee, WallClock(), Knobs(scenario=INSTANT, price_sat=PRICE_SAT, slow_s=AWAY_S))
    await provider.start()
    try:
        tap = Tap(provider)
        given = await endpoints.of_net(net, directory, provider.url)
        async with running(write_config(directory, given), python) as daemon:
            await client.run(daemon.socket, orders + WARM_UP_ORDERS, 1)
        daemon_ms = (await tap.take(net["alice"]))[-orders:]
        await bare.run(given, orders + WARM_UP_ORDERS, 1)
        bare_ms = (await tap.take(net["alice"]))[-orders:]
    finally:
        await provider.stop()
        await payee.aclose()
    return Latency(lnd_version, orders, median(daemon_ms), quantiles(daemon_ms, n=10)[-1], median(bare_ms))
