"""An lnd client that nobody here wrote drives the sandbox LND, and its descriptors agree with our slice of lnd's."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from holdpay._pb.lnd import lightning_pb2, router_pb2, stateservice_pb2
from holdpay.sandbox.payee import InvoiceState
from holdpay.sandbox.world import SandboxWorld
from tests.e2e.lndgrpc_driver import describe

CLIENT_PYTHON = os.environ.get("HOLDPAY_LNDGRPC_PYTHON")
DRIVER = Path(__file__).with_name("lndgrpc_driver.py")

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        CLIENT_PYTHON is None, reason="needs lnd-grpc-client in an environment of its own: scripts/test makes it"
    ),
]

# lnd-grpc-client 0.6.0 was generated from lnd 0.16.
SINCE = {
    ("lnrpc.Failure.FailureCode", "INVALID_ONION_BLINDING"): "0.18.0",
    ("lnrpc.HTLC", "locked_in"): "0.19.0",
    ("lnrpc.Payment.PaymentStatus", "INITIATED"): "0.18.0",
    ("lnrpc.PaymentFailureReason", "FAILURE_REASON_CANCELED"): "0.18.3",
    ("routerrpc.SendPaymentRequest", "cancelable"): "0.18.3",
}
"""What our slice has and the client lacks → the lnd version that brought it."""

PRICE_SAT = 2000


class Refused(Exception):
    """lnd's answer to the client was an error."""


class Client:
    """lnd-grpc-client in its own process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, method: str, **arguments: Any) -> Any:
        """What the driver's method returns. Raises Refused with the status code and its text."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([method, arguments]).encode() + b"\n")
        async with asyncio.timeout(60):
            line = await self._process.stdout.readline()
        assert line, "the driver ended"
        answer = json.loads(line)
        if "result" in answer:
            return answer["result"]
        raise Refused(answer["code"], answer["details"])

    async def call(self, name: str, **arguments: Any) -> Any:
        """A method of lndgrpc.LNDClient."""
        return await self.ask("call", name=name, **arguments)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SandboxWorld]:
    async with SandboxWorld(tmp_path_factory.mktemp("world")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(world: SandboxWorld) -> AsyncIterator[Client]:
    assert CLIENT_PYTHON is not None
    command = (CLIENT_PYTHON, DRIVER, world.lnd.target, world.lnd.tls_cert, world.lnd.macaroon)
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 24
    )
    yield Client(process)
    process.kill()
    await process.wait()


async def hold_invoice(world: SandboxWorld) -> tuple[bytes, str, str]:
    """Preimage, payment hash in hex, BOLT11."""
    preimage = secrets.token_bytes(32)
    payment_hash = hashlib.sha256(preimage).digest()
    payreq = await world.payee.add(
        payment_hash=payment_hash, value_sat=PRICE_SAT, memo="a code", expiry_s=3600, cltv_delta=40
    )
    return preimage, payment_hash.hex(), payreq


# --- descriptors ----------------------------------------------------------------------------------------------------


async def test_both_descriptors_agree_in_all_that_both_have(client: Client) -> None:
    ours = describe(*(file.DESCRIPTOR.serialized_pb for file in (lightning_pb2, router_pb2, stateservice_pb2)))
    theirs = await client.ask("descriptors")

    assert set(ours) <= set(theirs)
    shared = [(owner, name) for owner in ours for name in ours[owner] if name in theirs[owner]]
    assert len(shared) > 150
    assert [(owner, name) for owner, name in shared if ours[owner][name] != theirs[owner][name]] == []
    ours_only = {(owner, name) for owner in ours for name in ours[owner]} - set(shared)
    assert ours_only == set(SINCE)
    for owner, name in ours_only:
        number = ours[owner][name][0]
        assert number not in [entry[0] for entry in theirs[owner].values()], f"{owner} has {number} by another name"


# --- the sandbox LND, driven by it ----------------------------------------------------------------------------------


async def test_it_reads_the_node_its_channels_and_its_balance(world: SandboxWorld, client: Client) -> None:
    assert await client.call("get_state") == {"state": "SERVER_ACTIVE"}
    info = await client.call("get_info")
    assert info["identity_pubkey"] == world.lnd.node.pubkey
    assert (info["alias"], info["block_height"], info["synced_to_chain"]) == ("alice", 500, True)
    assert [chain["network"] for chain in info["chains"]] == ["simnet"]
    (channel,) = (await client.call("list_channels", active_only=True))["channels"]
    assert (channel["active"], channel["capacity"]) == (True, "10000000")
    assert (await client.call("channel_balance"))["local_balance"]["sat"] == channel["local_balance"]
    payee = await world.payee.pubkey()
    (route,) = (await client.call("query_routes", pub_key=payee, amt=0, amt_msat=PRICE_SAT * 1000))["routes"]
    assert [hop["pub_key"] for hop in route["hops"]][-1] == payee


async def test_it_decodes_an_invoice_of_the_sandbox(world: SandboxWorld, client: Client) -> None:
    _, payment_hash, payreq = await hold_invoice(world)
    decoded = await client.call("decode_pay_req", payment_request=payreq)
    assert (decoded["payment_hash"], decoded["destination"]) == (payment_hash, await world.payee.pubkey())
    assert (decoded["num_msat"], decoded["expiry"], decoded["cltv_expiry"]) == (f"{PRICE_SAT * 1000}", "3600", "40")
    assert decoded["description"] == "a code"


@pytest.mark.parametrize("is_settled", [True, False], ids=["settled", "canceled"])
async def test_it_pays_a_hold_invoice_and_sees_how_it_ends(
    world: SandboxWorld, client: Client, is_settled: bool
) -> None:
    preimage, payment_hash, payreq = await hold_invoice(world)
    paying = asyncio.create_task(
        client.call("send_payment_v2", payment_request=payreq, timeout_seconds=60, fee_limit_sat=10)
    )
    await world.payee.wait_state(bytes.fromhex(payment_hash), InvoiceState.ACCEPTED)
    await (world.payee.settle(preimage) if is_settled else world.payee.cancel(bytes.fromhex(payment_hash)))
    messages = await paying

    assert [message["payment_hash"] for message in messages] == [payment_hash] * len(messages)
    assert [message["status"] for message in messages[:-1]] == ["IN_FLIGHT"] * (len(messages) - 1)
    last = messages[-1]
    (attempt,) = last["htlcs"]
    if is_settled:
        assert (last["status"], last["failure_reason"]) == ("SUCCEEDED", "FAILURE_REASON_NONE")
        assert (last["payment_preimage"], last["fee_msat"]) == (preimage.hex(), "1002")
    else:
        assert (last["status"], last["failure_reason"]) == ("FAILED", "FAILURE_REASON_INCORRECT_PAYMENT_DETAILS")
        assert attempt["failure"]["code"] == "INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS"
    (tracked,) = await client.ask("track", payment_hash=payment_hash)
    assert (tracked["status"], tracked["payment_index"]) == (last["status"], last["payment_index"])
    listed = (await client.call("list_payments", include_incomplete=True))["payments"]
    assert payment_hash in [payment["payment_hash"] for payment in listed]


async def test_it_is_refused_as_lnd_refuses(world: SandboxWorld, client: Client) -> None:
    preimage, payment_hash, payreq = await hold_invoice(world)
    with pytest.raises(Refused, match="payment isn't initiated") as unknown:
        await client.ask("track", payment_hash=payment_hash)
    assert unknown.value.args[0] == "NOT_FOUND"
    paying = asyncio.create_task(client.ask("send", payment_request=payreq, timeout_seconds=60, fee_limit_sat=10))
    await world.payee.wait_state(bytes.fromhex(payment_hash), InvoiceState.ACCEPTED)
    await world.payee.settle(preimage)
    await paying
    with pytest.raises(Refused, match="invoice is already paid") as duplicate:
        await client.ask("send", payment_request=payreq, timeout_seconds=60, fee_limit_sat=10)
    assert duplicate.value.args[0] == "ALREADY_EXISTS"
    with pytest.raises(Refused, match="checksum failed") as broken:
        await client.ask("send", payment_request=payreq[:-1], timeout_seconds=60)
    assert broken.value.args[0] == "UNKNOWN"


async def test_it_is_told_that_the_wallet_is_locked(world: SandboxWorld, client: Client) -> None:
    await world.lnd.lock()
    try:
        assert await client.call("get_state") == {"state": "LOCKED"}
        with pytest.raises(Refused, match="wallet locked, unlock it to enable full RPC access"):
            await client.call("get_info")
    finally:
        world.lnd.unlock()
    assert (await client.call("get_info"))["alias"] == "alice"
