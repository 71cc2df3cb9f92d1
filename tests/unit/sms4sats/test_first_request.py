"""What the first request to the provider finds ready."""

from __future__ import annotations

import subprocess
import sys

FIRST = """
import asyncio, sys
from random import Random
import holdpay.app
from holdpay.clock import SystemClock
from holdpay.sms4sats.client import Sms4Sats, Sms4SatsSettings

BODY = b'[{"id": "12", "eng": "United States"}]'

async def answer(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: %d\\r\\n\\r\\n%s" % (len(BODY), BODY))

async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    settings = Sms4SatsSettings(
        url=f"http://{host}:{port}", proxy=None, ca_file=None, api_key=None, timeout_s=5.0, max_requests_per_s=0
    )
    provider = Sms4Sats(settings, SystemClock(), Random(1))
    before = set(sys.modules)
    assert len(await provider.countries()) == 1
    await provider.aclose()
    print(*sorted(name for name in set(sys.modules) - before if not name.startswith("encodings.")))

asyncio.run(main())
"""


def test_no_module_is_loaded_in_the_midst_of_the_first_order() -> None:
    """It would hold up the event loop for some 20 ms."""
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split() == []
