"""`python -m tests.regtest`: the integration tests on a fresh net, or a net for a person to play with."""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.integration.market import open_shop
from tests.regtest import binaries
from tests.regtest.binaries import ACCEPTED_ON_PATH, DEFAULT_VERSION, Binaries
from tests.regtest.net import Net
from tests.regtest.node import NETWORK, Node
from tests.regtest.process import StartFailed

# Two hours without a block, and lnd takes itself for not synced.
BLOCK_EVERY_S: Final = 120
SHOP_PACE: Final = 5.0

EXAMPLES: Final = """
A payment that carol holds, and then settles:
  preimage=$(openssl rand -hex 32)
  hash=$(python3 -c "import hashlib; print(hashlib.sha256(bytes.fromhex('$preimage')).hexdigest())")
  carol addholdinvoice $hash 2000
  alice payinvoice --force PAYMENT_REQUEST &
  carol settleinvoice $preimage      (or: carol cancelinvoice $hash)
"""


def main() -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/regtest",
        description="Runs the tests that need a real lnd on a fresh net of btcd and three lnd nodes. "
        "Other arguments go to pytest.",
    )
    parser.add_argument(
        "--lnd", choices=list(ACCEPTED_ON_PATH), default=DEFAULT_VERSION, help="lnd release (default: %(default)s)"
    )
    parser.add_argument("--up", action="store_true", help="run no tests: keep a net up to play with, until ^C")
    options, pytest_arguments = parser.parse_known_args()
    if options.up and pytest_arguments:
        parser.error(f"--up takes no other arguments: {' '.join(pytest_arguments)}")
    try:
        programs = binaries.ensure(options.lnd)
        if not options.up:
            run_tests(options.lnd, pytest_arguments)
        asyncio.run(stay_up(options.lnd, programs))
    except (binaries.Unavailable, StartFailed, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        print("Stopped.")
    except KeyboardInterrupt:
        return 130
    return 0


def run_tests(lnd_version: str, pytest_arguments: list[str]) -> None:
    """Becomes pytest."""
    environment = os.environ | {"HOLDPAY_REAL": "1", "HOLDPAY_LND_VERSION": lnd_version}
    folders = ["tests/contract", "tests/integration"]
    os.execve(sys.executable, [sys.executable, "-m", "pytest", "-m", "real", *folders, *pytest_arguments], environment)


async def stay_up(lnd_version: str, programs: Binaries) -> None:
    """A net until SIGINT or SIGTERM, both of which cancel this."""
    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)
    with tempfile.TemporaryDirectory(prefix="holdpay-regtest-") as directory:
        print(f"Starting btcd and three lnd {lnd_version} nodes (about 15 s).", flush=True)
        net = await Net.start(lnd_version, directory=Path(directory))
        try:
            async with open_shop(net, Path(directory), pace=SHOP_PACE) as (provider, config):
                print(described(net, programs), flush=True)
                print(described_shop(provider.url, config), flush=True)
                while True:
                    await asyncio.sleep(BLOCK_EVERY_S)
                    await net.mine(1)
        finally:
            await net.stop()


def described(net: Net, programs: Binaries) -> str:
    """Addresses, files and example commands, for a person."""
    parts = [f"{' - '.join(net.nodes)}: channels with both sides able to pay. Files and logs: {net.directory}"]
    parts += [described_node(node) for node in net.nodes.values()]
    if programs.lncli is not None:
        parts += ["\nPaste these into a shell to have a command for each node:"]
        parts += [
            f"  {node.name}() {{ {programs.lncli} --network={NETWORK} --lnddir={node.directory}"
            f' --rpcserver={node.rpc_address} "$@"; }}'
            for node in net.nodes.values()
        ]
        parts += [EXAMPLES.rstrip()]
    parts += [f"\nA block is mined every {BLOCK_EVERY_S} s. ^C stops everything and removes the files."]
    return "\n".join(parts)


def described_shop(url: str, config: Path) -> str:
    """How to try the real daemon on this net."""
    programs = Path(sys.executable).parent
    return f"""
A simulated sms4sats at {url} sells carol's hold invoices, its clock {SHOP_PACE:g} times faster.
The real daemon beside alice:
  {programs}/holdpayd --config {config}
  {programs}/holdpay --socket {config.with_name("holdpay.sock")} code usa openai"""


def described_node(node: Node) -> str:
    """One node's block of `described`."""
    return f"""
{node.name}  {node.pubkey}
  gRPC      {node.rpc_address}    REST {node.rest_address}
  tls cert  {node.tls_cert_path}
  macaroon  {node.admin_macaroon_path}"""


if __name__ == "__main__":
    sys.exit(main())
