"""Hooks: the real daemon tells a real HTTP receiver and a real program what happens, also over a crash."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from holdpay.hooks.sending import Message
from holdpay.hooks.signing import signature
from holdpay.sandbox.files import write_private
from tests.e2e.receivers import Receiver, receiving
from tests.e2e.shop import PACE, QUICK, Shop, open_shop
from tests.harness import Seen, run_cli

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCUMENTED = Path(__file__).parents[2] / "docs" / "hooks.md"
SECRET = b"0123456789abcdef0123456789abcdef"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> AsyncIterator[Shop]:
    folder = tmp_path_factory.mktemp("hooks")
    write_private(folder / "secret", b"whsec_" + base64.b64encode(SECRET) + b"\n")
    config = f"""{QUICK}
[[hook]]
name = "shop"
url = "{receiver.url}"
secret_file = "secret"
events = ["number", "code", "closed"]
include_secrets = true

[[hook]]
name = "pager"
command = ["/bin/sh", "-c", "cat >> {folder}/told; echo >> {folder}/told", "hidden-argument"]
events = ["number", "code", "closed"]

[metrics]
listen = "{folder}/m.sock"
"""
    async with open_shop(folder, extra_config=config) as opened:
        yield opened


def told_to_pager(shop: Shop) -> list[dict[str, Any]]:
    path = shop.daemon.config.with_name("told")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def until_pager(shop: Shop, order: Seen) -> list[dict[str, Any]]:
    """All that it was told of an order, to its end; what it is still told of those before does not matter."""
    async with asyncio.timeout(60):
        while not (found := [told for told in told_to_pager(shop) if told["data"]["request_id"] == order.id]) or (
            found[-1]["type"] != "closed"
        ):
            await asyncio.sleep(0.05)
    return found


async def metrics(shop: Shop) -> str:
    transport = httpx.AsyncHTTPTransport(uds=str(shop.daemon.config.with_name("m.sock")))
    async with httpx.AsyncClient(transport=transport) as http:
        return (await http.get("http://holdpay/metrics")).text


async def test_an_order_is_told_in_order_and_again_after_a_kill_before_the_acknowledgement(
    shop: Shop, receiver: Receiver
) -> None:
    receiver.got.clear()
    for _ in range(2):
        shop.next_order(code_after_s=5 * PACE)  # so that a busy daemon sees the number before the code
    order = await shop.buy()
    number, code, closed = await receiver.until(3)
    assert [got.type for got in (number, code, closed)] == ["number", "code", "closed"]
    assert number.told["data"]["number"] == f"+{order.number}"
    assert code.told["data"]["code"] == order.code
    assert closed.told["data"]["end"] == "fulfilled"
    shown = json.loads(DOCUMENTED.read_text("utf-8").split("## What is sent")[1].split("```json")[1].split("```")[0])
    of_its_own = {"cursor", "request_id", "order_id", "spent_msat", "fee_msat"}
    assert closed.told.keys() == shown.keys()
    assert closed.told["data"].keys() == shown["data"].keys()
    for name, value in shown["data"].items():
        assert name in of_its_own or closed.told["data"][name] == value
    for got in (number, code, closed):
        message = Message(got.id, got.type, int(got.headers["webhook-timestamp"]), got.body)
        assert got.headers["webhook-signature"] == signature(message, SECRET)

    receiver.may_answer.clear()
    second = await shop.buy()
    await receiver.until(4)
    await shop.daemon.kill()
    receiver.may_answer.set()
    await shop.daemon.start_ready()
    again = await receiver.until(7)
    assert [got.type for got in again[3:]] == ["number", "number", "code", "closed"]
    assert again[3].id == again[4].id
    assert again[3].body == again[4].body
    assert len({got.id for got in again}) == 6
    assert again[-1].told["data"]["request_id"] == second.id


async def test_a_program_is_told_too_and_without_include_secrets_nothing_secret(shop: Shop) -> None:
    order = await shop.buy()
    found = await until_pager(shop, order)
    assert [told["type"] for told in found] == ["number", "code", "closed"]
    for secret in (order.number, order.code, order.payment_hash, order.preimage, order.provider_order_id):
        assert secret
        assert secret not in json.dumps(found)


async def test_a_failing_hook_is_seen_everywhere_holds_up_no_order_and_a_replay_makes_up_for_it(
    shop: Shop, receiver: Receiver
) -> None:
    receiver.got.clear()
    receiver.status = 500
    order = await shop.buy()
    await receiver.until(1)
    async with asyncio.timeout(60):
        while "failing for" not in (out := (await run_cli(shop.daemon.socket, "hooks", "list"))[1]):
            await asyncio.sleep(0.1)
    shown, pager = out.split("\n\n")
    assert "it answered with HTTP 500" in shown
    assert "well" in pager
    assert "hidden-argument" not in out
    code, _, said = await run_cli(shop.daemon.socket, "hooks", "test", "shop")
    assert (code, "The hook shop answered with HTTP 500" in said) == (8, True)
    told = await metrics(shop)
    assert "holdpay_hooks 2.0" in told
    assert "holdpay_hooks_failing 1.0" in told
    assert "holdpay_hooks_dead 0.0" in told

    receiver.got.clear()  # what is acknowledged from now on: some of it perhaps before the replay, by a retry
    receiver.status = 204
    assert (await run_cli(shop.daemon.socket, "hooks", "test", "shop"))[0] == 0
    assert (await run_cli(shop.daemon.socket, "hooks", "replay", "shop"))[0] == 0
    acknowledged = await receiver.until(3, "number", "code", "closed")
    assert {got.told["data"]["request_id"] for got in acknowledged} == {order.id}
    code, _, said = await run_cli(shop.daemon.socket, "hooks", "replay", "shop", "--after", "999999")
    assert (code, "There is no row 999999 in the journal" in said) == (2, True)
    code, _, said = await run_cli(shop.daemon.socket, "hooks", "replay", "shop", "--skip")
    assert (code, "nothing that hook shop was told in vain" in said) == (2, True)


async def test_without_its_secret_a_hook_is_not_usable_and_all_else_goes_on(shop: Shop, receiver: Receiver) -> None:
    secret = shop.daemon.config.with_name("secret")
    away = secret.rename(secret.with_name("secret.away"))
    await shop.daemon.stop()
    await shop.daemon.start_ready()
    receiver.got.clear()
    order = await shop.buy()
    _, out, _ = await run_cli(shop.daemon.socket, "hooks", "list")
    assert f"NOT USABLE: secret_file names {secret}, and there is no such file" in " ".join(out.split())
    (alarm,) = (await shop.daemon.status()).alarms
    assert "hook shop is not usable" in alarm
    told = await metrics(shop)
    assert "holdpay_hooks_unusable 1.0" in told
    assert "holdpay_hooks_failing 0.0" in told
    assert receiver.got == []
    away.rename(secret)
    os.kill(shop.daemon.pid, signal.SIGHUP)
    await receiver.until(3)
    assert {got.told["data"]["request_id"] for got in receiver.got} == {order.id}
    assert list((await shop.daemon.status()).alarms) == []


async def test_a_reload_brings_hooks_into_effect(shop: Shop, receiver: Receiver) -> None:
    path = shop.daemon.config
    text = path.read_text()
    path.unlink()
    only_ends = text.replace('events = ["number", "code", "closed"]\ninclude', 'events = ["closed"]\ninclude')
    assert only_ends != text
    write_private(path, only_ends.encode())
    before = len(shop.daemon.log())
    os.kill(shop.daemon.pid, signal.SIGHUP)
    async with asyncio.timeout(60):
        while 'in_effect=["hook.shop.events"]' not in shop.daemon.log()[before:]:
            await asyncio.sleep(0.05)
    receiver.got.clear()
    await shop.buy()
    await receiver.until(1)
    assert [got.type for got in receiver.got] == ["closed"]


async def test_nothing_of_a_hook_that_is_secret_is_in_the_log(shop: Shop, receiver: Receiver) -> None:
    log = shop.daemon.log()
    for secret in ("from-holdpay", "hidden-argument", "whsec_", base64.b64encode(SECRET).decode()):
        assert secret not in log
    for order in await shop.daemon.every():
        assert order.number not in log
        assert order.code not in log
