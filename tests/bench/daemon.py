"""The daemon under test as it is installed, with the limits and the poll rate lifted, and what it uses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc.aio

from holdpay.ports import NodeState
from holdpay.sandbox.files import write_private
from holdpay.sandbox.world import Endpoints
from tests.bench.loops import LoopFailed
from tests.harness import Daemon
from tests.regtest.process import until

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
SERVES_WITHIN_S: Final = 90
READY_WITHIN_S: Final = 90


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process. CPU is user and system time since its start, in steps of 10 ms."""

    cpu_ms: float
    rss_mb: float
    """Resident set in 10^6 bytes."""


def usage_of(pid: int) -> Usage:
    """Reads proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    resident = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return Usage((int(fields[11]) + int(fields[12])) * 1000 / TICKS_PER_S, int(resident.split()[1]) * 1024 / 1e6)


def machine_cpu_ms() -> float:
    """What all processes of this machine have used since its start, the kernel's work for them too. Reads proc(5)."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) * 1000 / TICKS_PER_S


def write_config(directory: Path, endpoints: Endpoints, *, pace: float = 1.0) -> Path:
    """config.toml for a provider whose clock runs ``pace`` times faster; polls come as much faster."""
    pace_of_provider = f"""\
max_requests_per_s = 1000

[polling]
min_s = {1 / pace}
max_s = {15 / pace}
"""
    return _write_config(directory, endpoints, pace_of_provider)


def _write_config(directory: Path, endpoints: Endpoints, more_of_provider: str) -> Path:
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
{more_of_provider}
[limits]
max_open_orders = 10000
max_pending_sat = 100000000
max_spend_per_day_sat = 1000000000
"""
    write_private(path, text.encode())
    return path


def write_crowded_config(directory: Path, endpoints: Endpoints) -> Path:
    """config.toml with the defaults, but for the limits."""
    return _write_config(directory, endpoints, "")


def clean_environment() -> dict[str, str]:
    """For the installed programs: with compiled modules, whatever this shell wants."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class MeasuredDaemon(Daemon):
    """``python`` is that of an environment with the runtime dependencies alone: development tools weigh on imports."""

    def __init__(self, config: Path, python: Path, *, is_probed: bool = False) -> None:
        super().__init__(config, config.with_name("holdpay.sock"))
        self._python = python
        self._stalls = config.with_name("longest-stall")
        self._is_probed = is_probed

    async def launch(self) -> asyncio.subprocess.Process:
        program = ("tests.bench.probe", self._stalls) if self._is_probed else ("holdpay.cli.daemon",)
        command = (self._python, "-m", *program, "--config", self.config)
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *map(str, command), stdout=log, stderr=log, env=clean_environment()
            )
        return self._process

    async def start_patiently(self, within_s: float) -> None:
        """Returns when it answers and lnd can be used, whatever the limits say. Raises LoopFailed if it is dead,
        TimeoutError if it takes longer."""
        process = await self.launch()
        self.connect()
        async with asyncio.timeout(within_s):
            while not await self._has_lnd():
                if process.returncode is not None:
                    raise LoopFailed(f"holdpayd did not come up:\n{self.log()}")
                await asyncio.sleep(0.05)

    async def _has_lnd(self) -> bool:
        try:
            return (await self.status()).lnd.state == NodeState.READY
        except grpc.aio.AioRpcError:
            return False

    async def seconds_to_serve(self) -> float:
        """Starts it; returns how long it took until its socket was there."""
        began_s = time.monotonic()
        process = await self.launch()

        async def serves() -> bool:
            if process.returncode is not None:
                raise LoopFailed(f"holdpayd did not come up:\n{self.log()}")
            return self.socket.exists()

        await until("The daemon's socket", serves, within_s=SERVES_WITHIN_S, every_s=0.002)
        return time.monotonic() - began_s

    async def longest_stall_ms(self) -> float:
        """The longest turn of its event loop since the last call, or since the start. Only of one that is probed."""
        self._stalls.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR2)

        async def is_told() -> bool:
            return self._stalls.exists()

        await until("The word of the probe", is_told, within_s=SERVES_WITHIN_S, every_s=0.01)
        return float(self._stalls.read_text())

    @property
    def usage(self) -> Usage:
        return usage_of(self.pid)


@contextlib.asynccontextmanager
async def running(config: Path, python: Path, *, is_probed: bool = False) -> AsyncIterator[MeasuredDaemon]:
    """From the first look at lnd to the end; it takes orders."""
    daemon = MeasuredDaemon(config, python, is_probed=is_probed)
    try:
        await daemon.start_ready()
        yield daemon
    finally:
        await daemon.stop()
