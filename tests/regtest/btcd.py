"""btcd on simnet: the chain of one net."""

import secrets
from pathlib import Path
from typing import Any, Final

import httpx

from tests.regtest.process import Process, StartFailed, free_port, until
from tests.regtest.rest import https_client

# Any valid address will do for the very first block: the P2PKH address of 20 zero bytes on simnet.
NOBODYS_ADDRESS: Final = "SMJ12qn9jNCCXJnTYRz5Yu9ZenERqvYwfg"
BLOCKS_AT_A_TIME: Final = 100


class Btcd:
    """One btcd process with its RPC. The password is in its config file (0600), never in the arguments."""

    def __init__(self, program: Path, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self.rpc_address = f"127.0.0.1:{free_port()}"
        self.rpc_user = "holdpay"
        self.rpc_password = secrets.token_hex(16)
        self.rpc_cert_path = directory / "rpc.cert"
        self._key_path = directory / "rpc.key"
        self._listen = f"127.0.0.1:{free_port()}"
        self._config = directory / "btcd.conf"
        self._process = Process("btcd", [str(program), f"--configfile={self._config}"], directory / "output.log")
        self._http: httpx.AsyncClient | None = None

    async def start(self, mining_address: str) -> None:
        """Starts btcd with block rewards for `mining_address`; returns when its RPC answers. Raises StartFailed."""
        self._config.touch(mode=0o600)
        self._config.write_text(self._settings(mining_address))
        self._process.start()
        await until("btcd's RPC", self._answers)

    async def stop(self) -> None:
        """Stops btcd. Stop every lnd first: each waits 25 s for a backend that went away."""
        await self._process.stop()

    async def kill(self) -> None:
        """SIGKILL."""
        await self._process.kill()

    async def generate(self, blocks: int) -> None:
        """Mines `blocks` blocks at once."""
        for start in range(0, blocks, BLOCKS_AT_A_TIME):
            await self._call("generate", min(BLOCKS_AT_A_TIME, blocks - start))

    async def height(self) -> int:
        """Height of the best block."""
        return int(await self._call("getblockcount"))

    async def _answers(self) -> bool:
        if not self._process.running:
            raise StartFailed(f"btcd ended while it was starting. {self._process.tail()}")
        if self._http is None:
            if not self._key_path.exists():  # btcd writes it after the certificate
                return False
            self._http = https_client(self.rpc_cert_path, auth=(self.rpc_user, self.rpc_password))
        try:
            await self.height()
        except httpx.TransportError:
            return False
        return True

    async def _call(self, method: str, *arguments: int) -> Any:
        if self._http is None:
            raise RuntimeError("btcd was never started.")
        call = {"jsonrpc": "1.0", "id": 0, "method": method, "params": arguments}
        reply = (await self._http.post(f"https://{self.rpc_address}", json=call)).json()
        if reply["error"] is not None:
            raise RuntimeError(f"btcd refused {method}: {reply['error']['message']}")
        return reply["result"]

    def _settings(self, mining_address: str) -> str:
        return f"""\
[Application Options]
simnet=1
datadir={self.directory}/data
logdir={self.directory}/logs
listen={self._listen}
rpclisten={self.rpc_address}
rpcuser={self.rpc_user}
rpcpass={self.rpc_password}
rpccert={self.rpc_cert_path}
rpckey={self._key_path}
miningaddr={mining_address}
txindex=1
nodnsseed=1
nobanning=1
nostalldetect=1
trickleinterval=100ms
rpcmaxwebsockets=50
rpcmaxclients=50
"""
