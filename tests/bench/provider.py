"""A simulated sms4sats in a process of its own: it sells carol's hold invoices, and everything comes at once.

python -m tests.bench.provider REST_URL TLS_CERT MACAROON: prints its URL, and runs until its stdin is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from holdpay.sandbox.carol import Carol
from holdpay.sandbox.clock import WallClock
from holdpay.sandbox.sms4sats import SimulatedSms4Sats
from holdpay.sandbox.sms4sats_knobs import Knobs, Scenario
from tests.regtest.node import Node

INSTANT: Final = Scenario(paid_lag_s=0, number_after_s=0, code_after_s=0, settle_lag_s=0)
PRICE_SAT: Final = 1000


async def serve(carol: Carol) -> None:
    """Until stdin is closed, also by the death of whoever started this."""
    provider = SimulatedSms4Sats(carol, WallClock(), Knobs(scenario=INSTANT, price_sat=PRICE_SAT))
    await provider.start()
    print(provider.url, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await provider.stop()
    await carol.aclose()


@contextlib.asynccontextmanager
async def selling(carol: Node) -> AsyncIterator[str]:
    """Runs it for this node; gives its URL."""
    given = (f"https://{carol.rest_address}", str(carol.tls_cert_path), str(carol.admin_macaroon_path))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.provider",
        *given,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.stdin.close()
        await process.wait()


if __name__ == "__main__":
    asyncio.run(serve(Carol(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))
