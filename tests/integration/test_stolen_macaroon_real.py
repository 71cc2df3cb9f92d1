"""What whoever steals holdpay's macaroon can do with it, on a real lnd: docs/guarding.md says how to bound that."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from holdpay.config import load
from holdpay.errors import ConfigError
from holdpay.sandbox.files import write_private
from tests.harness import Daemon, enum_name, is_over
from tests.integration.market import FAST, documented_uris, open_shop
from tests.regtest import binaries
from tests.regtest.fixtures import lnd_version
from tests.regtest.net import Net
from tests.regtest.node import Node
from tests.regtest.rest import NodeError, Rest

pytestmark = pytest.mark.real

ELSEWHERE = "192.0.2.1"
"""An address for documentation (RFC 5737): nobody's."""


async def _stolen(alice: Node) -> bytes:
    return await alice.bake_macaroon(documented_uris())


async def _constrained(macaroon: bytes, directory: Path, *options: str) -> bytes:
    """As `lncli constrainmacaroon` narrows it: offline, by whoever holds it."""
    (directory / "wide.macaroon").write_bytes(macaroon)
    lncli = (await asyncio.to_thread(binaries.ensure, lnd_version())).lncli
    assert lncli is not None, "there is an lnd on PATH without its lncli: install that, too"
    command = (lncli, "constrainmacaroon", *options, directory / "wide.macaroon", directory / "narrow.macaroon")
    process = await asyncio.create_subprocess_exec(*map(str, command))
    assert await process.wait() == 0
    return (directory / "narrow.macaroon").read_bytes()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", "/v1/transactions"),  # SendCoins
        ("post", "/v1/transactions/many"),
        ("post", "/v1/channels"),  # OpenChannel
        ("delete", "/v1/channels/ab/0"),  # CloseChannel
        ("post", "/v1/chanpolicy"),
        ("post", "/v1/peers"),
        ("post", "/v1/invoices"),
        ("post", "/v1/macaroon"),
        ("delete", "/v1/macaroon/0"),
        ("delete", "/v1/payments"),
        ("post", "/v2/router/mc/reset"),
        ("get", "/v1/channels/backup"),
        ("get", "/v1/balance/blockchain"),
        ("get", "/v1/newaddress"),
    ],
)
async def test_it_pays_and_looks_and_does_nothing_else(healthy_net: Net, method: str, path: str) -> None:
    alice = healthy_net["alice"]
    thief = alice.rest_with(await _stolen(alice))
    with pytest.raises(NodeError, match="permission denied"):
        await (thief.post(path, {}) if method == "post" else getattr(thief, method)(path))


async def test_it_spends_what_the_channels_can_send_and_not_a_sat_of_the_wallet(healthy_net: Net) -> None:
    alice, carol = healthy_net["alice"], healthy_net["carol"]
    thief = alice.rest_with(await _stolen(alice))
    in_channels_sat = int((await thief.get("/v1/balance/channels"))["local_balance"]["sat"])
    in_wallet_sat = int((await alice.rest.get("/v1/balance/blockchain"))["confirmed_balance"])
    assert in_wallet_sat > 0, "there is more to steal than the channels have"
    invoice = await carol.rest.post("/v1/invoices", {"value": str(in_channels_sat + 1)})
    assert await _pay(thief, invoice["payment_request"]) == ("FAILED", "FAILURE_REASON_INSUFFICIENT_BALANCE")


@pytest.mark.parametrize("options", [("--ip_address", ELSEWHERE), ("--timeout", "1")])
async def test_one_that_is_bound_to_a_place_or_a_time_is_worth_nothing_elsewhere_or_later(
    healthy_net: Net, tmp_path: Path, options: tuple[str, str]
) -> None:
    alice = healthy_net["alice"]
    narrow = await _constrained(await _stolen(alice), tmp_path, *options)
    await asyncio.sleep(1.5)
    with pytest.raises(NodeError, match=r"different IP address|expired"):
        await alice.rest_with(narrow).get("/v1/getinfo")


async def test_the_daemon_buys_with_one_that_is_bound_to_its_own_address(healthy_net: Net, tmp_path: Path) -> None:
    async with open_shop(healthy_net, tmp_path, extra_config=FAST) as (_, config):
        path = tmp_path / "holdpay.macaroon"
        narrow = await _constrained(path.read_bytes(), tmp_path, "--ip_address", "127.0.0.1")
        path.unlink()
        write_private(path, narrow)
        daemon = Daemon(config, tmp_path / "holdpay.sock")
        try:
            await daemon.start_ready()
            done = await daemon.until((await daemon.order()).id, is_over)
        finally:
            await daemon.stop()
    assert enum_name(done, "end") == "FULFILLED"


async def test_one_of_a_litd_account_is_refused_before_anything_is_asked(healthy_net: Net, tmp_path: Path) -> None:
    async with open_shop(healthy_net, tmp_path, extra_config=FAST) as (_, config):
        path = tmp_path / "holdpay.macaroon"
        of_account = ("--custom_caveat_name", "account", "--custom_caveat_condition", "0123456789abcdef")
        narrow = await _constrained(path.read_bytes(), tmp_path, *of_account)
        path.unlink()
        write_private(path, narrow)
        with pytest.raises(ConfigError, match="belongs to a litd account"):
            load(config)


async def _pay(thief: Rest, payment_request: str) -> tuple[str, str]:
    body = {"payment_request": payment_request, "timeout_seconds": 30, "fee_limit_sat": "1000000"}
    last = {}
    async for last in thief.stream("/v2/router/send", body):  # noqa: B007
        pass
    return last["status"], last["failure_reason"]
