"""The whole sandbox: a simulated LND, a simulated sms4sats, and a daemon's configuration that points at both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from holdpay.sandbox.clock import WallClock
from holdpay.sandbox.control import ControlServer
from holdpay.sandbox.files import write_private
from holdpay.sandbox.lnd import SandboxLnd
from holdpay.sandbox.payee import Payee
from holdpay.sandbox.sms4sats import SimulatedSms4Sats

REAL_POLL_MIN_S = 2.0
REAL_POLL_MAX_S = 15.0
REAL_POLL_LATE_MAX_S = 600.0
REAL_CANCEL_AFTER_S = 120
REAL_CANCEL_RETRY_S = 30
REAL_PROMISE_S = 1260


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Where a daemon finds lnd and the provider."""

    lnd_address: str
    tls_cert: Path
    macaroon: Path
    provider_url: str
    payee_pubkey: str


def daemon_config(directory: Path, endpoints: Endpoints, pace: float, extra: str = "") -> Path:
    """Writes config.toml for a daemon whose provider's clock runs ``pace`` times faster; ``extra`` is more TOML.

    State and socket lie in ``directory``. The daemon's own times are shortened likewise, but never below a second.
    """
    path = directory / "config.toml"
    text = f"""\
[daemon]
state_dir = "{directory / "state"}"
socket = "{directory / "holdpay.sock"}"

[lnd]
address = "{endpoints.lnd_address}"
tls_cert = "{endpoints.tls_cert}"
macaroon = "{endpoints.macaroon}"

[provider]
base_url = "{endpoints.provider_url}"
payee_pubkeys = ["{endpoints.payee_pubkey}"]
max_requests_per_s = {min(1000.0, 20 * pace)}
cancel_after_s = {_paced(REAL_CANCEL_AFTER_S, pace)}
cancel_retry_s = {_paced(REAL_CANCEL_RETRY_S, pace)}
promise_s = {_paced(REAL_PROMISE_S, pace)}

[polling]
min_s = {max(0.01, REAL_POLL_MIN_S / pace)}
max_s = {max(0.05, REAL_POLL_MAX_S / pace)}
late_max_s = {max(0.05, REAL_POLL_LATE_MAX_S / pace)}
{extra}"""
    write_private(path, text.encode())
    return path


def _paced(real_s: int, pace: float) -> int:
    return max(1, round(real_s / pace))


class SandboxWorld:
    """Both simulated servers. An async context manager; ``directory`` gets their files and the daemon's config.toml.

    ``lnd_port`` 0 takes any free port, and an lnd that is started again may then find it taken by a connection.
    """

    def __init__(self, directory: Path, *, pace: float = 1.0, extra_config: str = "", lnd_port: int = 0) -> None:
        clock = WallClock(pace)
        self.payee: Payee = Payee(clock)
        self.lnd: SandboxLnd = SandboxLnd(self.payee, directory / "lnd", clock=clock, port=lnd_port)
        self.provider: SimulatedSms4Sats = SimulatedSms4Sats(self.payee, clock)
        self.directory: Path = directory
        self._control = ControlServer(self, directory)
        self._pace = pace
        self._extra = extra_config

    @property
    def config(self) -> Path:
        return self.directory / "config.toml"

    @property
    def socket(self) -> Path:
        return self.directory / "holdpay.sock"

    async def __aenter__(self) -> SandboxWorld:
        await self.lnd.start()
        await self.provider.start()
        await self._control.start()
        endpoints = Endpoints(
            lnd_address=self.lnd.target,
            tls_cert=self.lnd.tls_cert,
            macaroon=self.lnd.macaroon,
            provider_url=self.provider.url,
            payee_pubkey=await self.payee.pubkey(),
        )
        daemon_config(self.directory, endpoints, self._pace, self._extra)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._control.stop()
        await self.provider.stop()
        await self.lnd.stop()
