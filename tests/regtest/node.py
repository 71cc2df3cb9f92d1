"""One lnd node of a net: its process, its files, and the few RPCs that tests need."""

import contextlib
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import httpx

from tests.regtest.btcd import Btcd
from tests.regtest.process import Process, StartFailed, free_port, until
from tests.regtest.rest import Json, NodeError, Rest, b64

NETWORK: Final = "simnet"
START_TIMEOUT_S: Final = 90
ALL_PAYMENTS: Final = 1_000_000  # for max_payments: without it lnd 0.21 lists a hundred (paymentsdb.DefaultMaxPayments)
DEFAULT_CLTV_EXPIRY_DELTA: Final = 80  # lnd's own for invoices: DefaultBitcoinTimeLockDelta

InvoiceState = Literal["OPEN", "ACCEPTED", "SETTLED", "CANCELED"]


@dataclass(frozen=True, slots=True)
class Payment:
    """How a payment made with `Node.pay` ended: lnd's names of status and failure reason."""

    status: str
    failure_reason: str
    fee_msat: int
    preimage: bytes


class Node:
    """An lnd on simnet, reachable by gRPC at `rpc_address` with `tls_cert_path` and `admin_macaroon_path`."""

    def __init__(
        self, name: str, program: Path, directory: Path, chain: Btcd, *, rpc_port: int | None, settings: Iterable[str]
    ) -> None:
        directory.mkdir()
        self.name = name
        self.directory = directory
        self.rpc_address = f"127.0.0.1:{rpc_port or free_port()}"
        self.rest_address = f"127.0.0.1:{free_port()}"
        self.p2p_address = f"127.0.0.1:{free_port()}"
        self.tls_cert_path = directory / "tls.cert"
        self.network_directory = directory / "data" / "chain" / "bitcoin" / NETWORK
        self.admin_macaroon_path = self.network_directory / "admin.macaroon"
        self.pubkey = ""  # hex, known after the first start
        self._chain = chain
        self._rest: Rest | None = None
        self._channel_peers: list[Node] = []  # one entry for each channel
        config = directory / "lnd.conf"
        config.touch(mode=0o600)
        config.write_text("\n".join([self._settings(), *settings, ""]))
        self._process = Process(name, [str(program), f"--lnddir={directory}"], directory / "output.log")

    @property
    def rest(self) -> Rest:
        """lnd's REST interface with the admin macaroon, for any RPC without a method here."""
        if self._rest is None:
            raise RuntimeError(f"{self.name} was never started.")
        return self._rest

    def rest_with(self, macaroon: bytes) -> Rest:
        """lnd's REST interface with another macaroon."""
        return Rest(self.rest_address, self.tls_cert_path, macaroon)

    @property
    def running(self) -> bool:
        """Whether the process is there; a paused one is."""
        return self._process.running

    # --- the process ---

    async def start(self) -> None:
        """Starts lnd; returns when it has caught up with the chain and answers every call: before that it says that it
        is synced, and yet connects to nobody. Channels follow (`wait_active_channels`).

        Raises StartFailed.
        """
        self._process.start()
        try:
            info = await until(f"{self.name}'s catching up", self._synced_info, within_s=START_TIMEOUT_S, every_s=0.1)
        except TimeoutError as error:
            raise StartFailed(f"{error} {self._process.tail()}") from None
        self.pubkey = info["identity_pubkey"]

    async def stop(self) -> None:
        """Stops lnd in order and waits until it is gone; harmless when it is not running."""
        await self._process.stop()

    async def leave(self) -> None:
        """`stop`, and returns when its peers know: until then they would still give an HTLC to its channels."""
        await self.stop()
        for peer in self._running_peers():

            async def has_noticed(peer: Node = peer) -> bool:
                return not any(channel["active"] for channel in await peer._channels_with(self))

            await until(f"{peer.name}'s noticing that {self.name} is away", has_noticed)

    async def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        await self._process.kill()

    async def restart(self) -> None:
        """`stop`, then `start`."""
        await self.stop()
        await self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered."""
        self._process.pause()

    def resume(self) -> None:
        """Undoes `pause`; harmless otherwise."""
        self._process.resume()

    async def wait_synced(self) -> None:
        """Returns when the node has seen btcd's last block."""
        await until(f"{self.name}'s catching up", self._synced_info)

    async def _synced_info(self) -> Json | None:
        if not self._process.running:
            raise StartFailed(f"{self.name} ended. {self._process.tail()}")
        if not (self.tls_cert_path.exists() and self.admin_macaroon_path.exists()):
            return None
        try:
            # Made anew each time: lnd may have made a new certificate, or have been writing the files just now.
            rest = self.rest_with(self.admin_macaroon_path.read_bytes())
            info = await rest.get("/v1/getinfo")
            state = (await rest.get("/v1/state"))["state"]
        except (httpx.TransportError, NodeError, OSError):
            return None
        self._rest = rest
        caught_up = info["synced_to_chain"] and info["block_height"] >= await self._chain.height()
        return info if caught_up and state == "SERVER_ACTIVE" else None

    def _settings(self) -> str:
        return f"""\
[Application Options]
alias={self.name}
rpclisten={self.rpc_address}
restlisten={self.rest_address}
listen={self.p2p_address}
externalip={self.p2p_address}
noseedbackup=1
nobootstrap=1
maxpendingchannels=20
minbackoff=1s
maxbackoff=2s
trickledelay=50
gossip.sub-batch-delay=5ms
caches.rpc-graph-cache-duration=100ms
db.batch-commit-interval=10ms
bitcoin.simnet=1
bitcoin.node=btcd
bitcoin.defaultchanconfs=1
btcd.rpchost={self._chain.rpc_address}
btcd.rpcuser={self._chain.rpc_user}
btcd.rpcpass={self._chain.rpc_password}
btcd.rpccert={self._chain.rpc_cert_path}"""

    # --- as a payee ---

    async def add_hold_invoice(
        self,
        payment_hash: bytes,
        value_sat: int,
        *,
        expiry_s: int = 3600,
        cltv_expiry_delta: int = DEFAULT_CLTV_EXPIRY_DELTA,
        memo: str = "",
    ) -> str:
        """A hold invoice for `payment_hash`; returns the BOLT11 text."""
        request = {
            "hash": b64(payment_hash),
            "value": str(value_sat),
            "expiry": str(expiry_s),
            "cltv_expiry": str(cltv_expiry_delta),
            "memo": memo,
        }
        return str((await self.rest.post("/v2/invoices/hodl", request))["payment_request"])

    async def settle(self, preimage: bytes) -> None:
        """Settles the accepted hold invoice of this preimage. NodeError `invoice still open` before it is accepted."""
        await self.rest.post("/v2/invoices/settle", {"preimage": b64(preimage)})

    async def cancel(self, payment_hash: bytes) -> None:
        """Cancels a hold invoice, open or accepted."""
        await self.rest.post("/v2/invoices/cancel", {"payment_hash": b64(payment_hash)})

    async def invoice_state(self, payment_hash: bytes) -> InvoiceState:
        """The payee's view. The payer's view says in flight a moment before this one says ACCEPTED."""
        state: InvoiceState = (await self.rest.get(f"/v1/invoice/{payment_hash.hex()}"))["state"]
        return state

    async def wait_invoice_state(self, payment_hash: bytes, state: InvoiceState, *, within_s: float = 30) -> None:
        """Returns when the invoice is in `state`. Raises TimeoutError."""

        async def reached() -> bool:
            return await self.invoice_state(payment_hash) == state

        await until(f"Invoice {payment_hash.hex()[:8]} being {state} at {self.name}", reached, within_s=within_s)

    # --- as a payer ---

    async def pay(self, payment_request: str, *, timeout_s: int = 60, fee_limit_sat: int = 1_000) -> Payment:
        """Pays like an operator by hand; returns when lnd says how it ended, so not while it is held.

        Raises NodeError when lnd refuses (SendPaymentV2).
        """
        request = {
            "payment_request": payment_request,
            "timeout_seconds": timeout_s,
            "fee_limit_sat": str(fee_limit_sat),
            "no_inflight_updates": True,
        }
        async for update in self.rest.stream("/v2/router/send", request):
            last = update
        return Payment(
            last["status"], last["failure_reason"], int(last["fee_msat"]), bytes.fromhex(last["payment_preimage"])
        )

    async def payments(self, after_index: int = 0) -> list[Json]:
        """The payments with a higher payment_index, oldest first, whatever became of them (ListPayments)."""
        answer = await self.rest.get(
            "/v1/payments", {"include_incomplete": True, "index_offset": after_index, "max_payments": ALL_PAYMENTS}
        )
        payments: list[Json] = answer["payments"]
        return payments

    async def hashes_without_htlc(self) -> set[str]:
        """Payment hashes (hex) of the payments in flight that no channel has an HTLC of: lnd was killed before it
        sent theirs, and takes them for ones that are out ever after."""
        channels = (await self.rest.get("/v1/channels"))["channels"]
        out = {b64decode(htlc["hash_lock"]).hex() for channel in channels for htlc in channel["pending_htlcs"]}
        return {one["payment_hash"] for one in await self.payments() if one["status"] == "IN_FLIGHT"} - out

    async def delete_payment(self, payment_hash: bytes) -> None:
        """Removes a failed payment from the node's records, as an operator can."""
        await self.rest.delete("/v1/payment", {"payment_hash": urlsafe_b64encode(payment_hash).decode()})

    async def reset_mission_control(self) -> None:
        """Forgets failed attempts: for ~180 s after one lnd avoids that pair of nodes, in the next test too."""
        await self.rest.post("/v2/router/mc/reset", {})

    # --- macaroons ---

    async def bake_macaroon(self, uris: Iterable[str], *, root_key_id: int = 0) -> bytes:
        """A macaroon for these RPCs (`/lnrpc.Lightning/GetInfo`); a root key of its own can be revoked."""
        permissions = [{"entity": "uri", "action": uri} for uri in uris]
        request = {"permissions": permissions, "root_key_id": str(root_key_id)}
        return bytes.fromhex((await self.rest.post("/v1/macaroon", request))["macaroon"])

    async def delete_macaroon_id(self, root_key_id: int) -> None:
        """Revokes every macaroon that was baked with this root key."""
        await self.rest.delete(f"/v1/macaroon/{root_key_id}")

    # --- channels and coins ---

    async def new_address(self) -> str:
        """A fresh on-chain address."""
        return str((await self.rest.get("/v1/newaddress"))["address"])

    async def send_coins(self, amounts_sat: dict[str, int]) -> None:
        """Pays on chain, in one transaction: address -> sat."""
        outputs = {address: str(amount_sat) for address, amount_sat in amounts_sat.items()}
        await self.rest.post("/v1/transactions/many", {"AddrToAmount": outputs})

    async def connect(self, peer: "Node") -> None:
        """Connects to `peer`; harmless when connected."""
        try:
            await self.rest.post("/v1/peers", {"addr": {"pubkey": peer.pubkey, "host": peer.p2p_address}})
        except NodeError as error:
            if "already connected" not in error.message:
                raise

    async def open_channel(self, peer: "Node", *, capacity_sat: int, push_sat: int) -> None:
        """Publishes the funding transaction; `Net.open_channels` also mines and waits."""
        request = {
            "node_pubkey": b64(bytes.fromhex(peer.pubkey)),
            "local_funding_amount": str(capacity_sat),
            "push_sat": str(push_sat),
        }
        await self.rest.post("/v1/channels", request)
        self._channel_peers.append(peer)
        peer._channel_peers.append(self)

    async def reconnect(self) -> None:
        """Connects to those with a channel to this node: lnd itself would try again every 5 s only."""
        for peer in self._running_peers():
            with contextlib.suppress(NodeError):  # then lnd's own attempts go on
                await self.connect(peer)

    async def wait_active_channels(self) -> None:
        """Returns when every channel that was opened with `open_channel`, from here or to here, is active, at both its
        ends: the peer may be behind, and would refuse to forward."""
        await self.reconnect()
        for peer in set(self._channel_peers):
            count = self._channel_peers.count(peer)
            ends = [(self, peer), (peer, self)] if peer.running else [(self, peer)]
            for node, other in ends:

                async def are_active(node: Node = node, other: Node = other, count: int = count) -> bool:
                    channels = await node._channels_with(other)
                    return len(channels) == count and all(channel["active"] for channel in channels)

                await until(f"{node.name}'s channels with {other.name} being active", are_active)

    def _running_peers(self) -> "set[Node]":
        """Those with a channel to this node."""
        return {peer for peer in self._channel_peers if peer.running}

    async def _channels_with(self, peer: "Node") -> list[Json]:
        channels: list[Json] = (await self.rest.get("/v1/channels"))["channels"]
        return [channel for channel in channels if channel["remote_pubkey"] == peer.pubkey]

    async def wait_known_channels(self, count: int) -> None:
        """Returns when the node's graph has `count` channels, each with the policies of both its ends."""

        async def all_known() -> bool:
            edges = (await self.rest.get("/v1/graph"))["edges"]
            return len(edges) == count and all(edge["node1_policy"] and edge["node2_policy"] for edge in edges)

        await until(f"{self.name}'s knowing of {count} channels", all_known)
