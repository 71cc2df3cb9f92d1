"""Real nodes as a world of the contract suite: alice pays, bob forwards, carol is paid."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp

import grpc.aio

from holdpay.sandbox.lnd_rpc import WalletState
from holdpay.sandbox.payee import HoldInvoiceError, HoldInvoices, InvoiceState
from tests.contract.client import PATIENCE_S, Client, client
from tests.contract.worlds import ADMIN, Connect, Mine
from tests.regtest.btcd import NOBODYS_ADDRESS, Btcd
from tests.regtest.net import Net
from tests.regtest.node import Node
from tests.regtest.process import Process, free_port, until
from tests.regtest.rest import NodeError, Rest


class CarolsInvoices:
    """Hold invoices of a real node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def pubkey(self) -> str:
        return self._node.pubkey

    async def add(self, *, payment_hash: bytes, value_sat: int, memo: str, expiry_s: int, cltv_delta: int) -> str:
        return await self._node.add_hold_invoice(
            payment_hash, value_sat, memo=memo, expiry_s=expiry_s, cltv_expiry_delta=cltv_delta
        )

    async def state(self, payment_hash: bytes) -> InvoiceState:
        return InvoiceState[await self._node.invoice_state(payment_hash)]

    async def wait_state(self, payment_hash: bytes, *states: InvoiceState) -> InvoiceState:
        async def reached() -> InvoiceState | None:
            state = await self.state(payment_hash)
            return state if state in states else None

        return await until("the invoice's state", reached, within_s=PATIENCE_S)

    async def settle(self, preimage: bytes) -> None:
        await _or_refusal(self._node.settle(preimage))

    async def cancel(self, payment_hash: bytes) -> None:
        await _or_refusal(self._node.cancel(payment_hash))


async def _or_refusal(call: Awaitable[None]) -> None:
    try:
        await call
    except NodeError as error:
        raise HoldInvoiceError(error.message) from error


class RealWorld:
    """alice pays, bob forwards, carol is paid."""

    mission_control_s: float | None = None
    block_pause_s = 1.5

    def __init__(self, net: Net) -> None:
        self._net = net
        self._alice = net["alice"]
        self._root_keys: dict[str, int] = {}
        self._nodes = {"peer": net["bob"], "payee": net["carol"]}
        self.invoices: HoldInvoices = CarolsInvoices(net["carol"])

    def connect(self, macaroon_hex: str | None = ADMIN) -> AbstractAsyncContextManager[Client]:
        admin = self._alice.admin_macaroon_path.read_bytes().hex()
        return client(
            self._alice.rpc_address, self._alice.tls_cert_path, macaroon_hex if macaroon_hex != ADMIN else admin
        )

    async def pass_s(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def stop_payer(self) -> None:
        await self._alice.stop()

    async def kill_payer(self) -> None:
        await self._alice.kill()

    async def start_payer(self) -> None:
        await self._alice.start()
        await self._alice.reconnect()

    async def set_online(self, who: str, *, online: bool) -> None:
        node = self._nodes[who]
        if online:
            await node.start()
            await node.wait_active_channels()
        else:
            await node.leave()

    async def mine(self, blocks: int) -> None:
        await self._net.mine(blocks)
        await self._net.wait_synced()

    async def payer_invoice(self) -> str:
        return str((await self._alice.rest.post("/v1/invoices", {"value": "1000"}))["payment_request"])

    async def delete_payment(self, payment_hash: bytes) -> str:
        try:
            await self._alice.delete_payment(payment_hash)
        except NodeError as error:
            return error.message
        return ""

    async def bake(self, methods: Sequence[str]) -> str:
        root_key_id = 7 + len(self._root_keys)
        baked = (await self._alice.bake_macaroon(methods, root_key_id=root_key_id)).hex()
        self._root_keys[baked] = root_key_id
        return baked

    async def revoke(self, macaroon_hex: str) -> None:
        await self._alice.delete_macaroon_id(self._root_keys[macaroon_hex])

    @asynccontextmanager
    async def stalled_payer(self) -> AsyncIterator[None]:
        self._alice.pause()
        try:
            yield
        finally:
            self._alice.resume()

    @asynccontextmanager
    async def wallet(self, state: int) -> AsyncIterator[Connect]:
        directory = self._net.directory / f"wallet-{state}"
        directory.mkdir()
        lnd = Walletless(self._net.programs.lnd, directory)
        try:
            await lnd.start()
            if state == WalletState.LOCKED:
                await lnd.make_wallet()
                await lnd.stop()
                await lnd.start()
            yield lambda macaroon_hex: client(lnd.rpc_address, lnd.tls_cert_path, macaroon_hex)
        finally:
            await lnd.stop()

    @asynccontextmanager
    async def old_chain(self) -> AsyncIterator[tuple[Client, Mine]]:
        directory = Path(mkdtemp(prefix="old-chain-", dir=self._net.directory))
        chain = Btcd(self._net.programs.btcd, directory / "btcd")
        dave = Node("dave", self._net.programs.lnd, directory / "dave", chain, rpc_port=None, settings=())
        # simnet's genesis is of 2014. The start returns with the first block after it.
        await chain.start(NOBODYS_ADDRESS)
        starting = asyncio.create_task(dave.start())
        try:
            async with await _answering(dave) as connected:
                yield connected, lambda: chain.generate(1)
            await starting
        finally:
            starting.cancel()
            await dave.kill()
            await chain.kill()


async def _answering(node: Node) -> AbstractAsyncContextManager[Client]:
    """A Client of a node that comes up, once GetInfo is answered."""

    def connect() -> AbstractAsyncContextManager[Client]:
        return client(node.rpc_address, node.tls_cert_path, node.admin_macaroon_path.read_bytes().hex())

    async def answers() -> bool:
        if not (node.tls_cert_path.exists() and node.admin_macaroon_path.exists()):
            return False
        async with connect() as connected:
            try:
                await connected.info()
            except grpc.aio.AioRpcError:
                return False
        return True

    await until("an lnd on an old chain", answers, within_s=PATIENCE_S)
    return connect()


class Walletless:
    """An lnd of its own, without a chain, that nobody unlocks."""

    def __init__(self, program: Path, directory: Path) -> None:
        self.rpc_address = f"127.0.0.1:{free_port()}"
        self._rest_address = f"127.0.0.1:{free_port()}"
        self.tls_cert_path = directory / "tls.cert"
        arguments = [
            *(f"--lnddir={directory}", "--bitcoin.simnet", "--bitcoin.node=neutrino", "--nolisten"),
            *(f"--rpclisten={self.rpc_address}", f"--restlisten={self._rest_address}"),
        ]
        self._process = Process("walletless", [str(program), *arguments], directory / "output.log")

    async def start(self) -> None:
        self._process.start()

        async def answers() -> bool:
            if not self.tls_cert_path.exists():
                return False
            async with client(self.rpc_address, self.tls_cert_path, None) as connected:
                try:
                    return await connected.state() != WalletState.WAITING_TO_START
                except grpc.aio.AioRpcError:
                    return False

        await until("an lnd without a wallet", answers, within_s=PATIENCE_S)

    async def stop(self) -> None:
        await self._process.stop()

    async def make_wallet(self) -> None:
        rest = Rest(self._rest_address, self.tls_cert_path, b"")
        seed = (await rest.get("/v1/genseed"))["cipher_seed_mnemonic"]
        await rest.post("/v1/initwallet", {"wallet_password": "c3VwZXJzZWNyZXQ=", "cipher_seed_mnemonic": seed})
