"""The simulated sms4sats tells the real daemon that an SMS has news, and is hardly asked."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.core.asking import HINTED_POLL_S, TOLD_POLL_S
from holdpay.sandbox.world import SandboxWorld
from tests.addresses import kept_address
from tests.e2e.shop import FOR_EVER_S, QUICK, Shop, open_shop
from tests.harness import Daemon, enum_name, fresh_key, is_over

pytestmark = pytest.mark.asyncio(loop_scope="module")

SPECS = {
    "sms": pb.SubmitRequest(sms=pb.SmsSpec(phone="+12025550123", message="see you at noon")),
    "email": pb.SubmitRequest(email=pb.EmailSpec(address="buyer@example.org", message="see you at noon")),
}


def hooked(listen: str, public_address: str) -> str:
    return f'{QUICK}\n[webhook]\nlisten = "{listen}"\npublic_url = "http://{public_address}"\n'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    with kept_address() as address:
        # As behind a proxy that leaves the path of the public URL where it is.
        config = hooked(address, f"{address}/holdpay")
        async with open_shop(tmp_path_factory.mktemp("hooks"), extra_config=config) as opened:
            yield opened


def asked(kind: str) -> pb.SubmitRequest:
    request = pb.SubmitRequest(idempotency_key=fresh_key())
    request.MergeFrom(SPECS[kind])
    return request


@pytest.mark.parametrize("kind", SPECS)
async def test_a_message_is_delivered_with_few_questions_and_without_waiting_for_one(shop: Shop, kind: str) -> None:
    polls, began_s = shop.polls, time.monotonic()
    request = asked(kind)
    order = await shop.daemon.submit(request)
    done = await shop.daemon.until(order.id, is_over)

    assert enum_name(done, "end") == "FULFILLED"
    assert done.sendings[-1] == "delivered"
    assert shop.polls - polls <= 3
    assert time.monotonic() - began_s < TOLD_POLL_S, "it was no hint that brought it"
    assert (await shop.daemon.submit(request)).id == order.id
    url = getattr(done.request, kind).webhook_url
    assert url.rpartition("/")[2] not in shop.daemon.log()
    assert httpx.post(url, trust_env=False).status_code == 404, "the order is over"


async def test_what_is_posted_to_a_webhook_is_not_believed(shop: Shop) -> None:
    shop.next_order(sent_after_s=FOR_EVER_S)
    order = await shop.daemon.submit(asked("sms"))
    out = await shop.daemon.until(order.id, lambda now: enum_name(now, "htlc") == "IN_FLIGHT")
    url = (await shop.daemon.get(order.id)).sms.webhook_url
    polls, began_s = shop.polls, time.monotonic()
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(url, json={"status": "OK", "paid": True, "smsStatus": "delivered", "id": order.id})
        assert answer.status_code == 200
        for _ in range(20):
            await client.post(url, content=b"{")
    async with asyncio.timeout(60):
        while shop.polls == polls:
            await asyncio.sleep(0.05)
    await asyncio.sleep(1.5)
    assert shop.polls - polls <= 2 + (time.monotonic() - began_s) / HINTED_POLL_S, "however often it is posted to"
    assert "delivered" not in (await shop.daemon.get(order.id)).sendings
    assert not (await shop.daemon.get(order.id)).fulfilled
    at_provider = shop.world.provider.sendings[out.payment_hash]
    at_provider._change("sent")
    await shop.world.payee.settle(at_provider.preimage)
    at_provider._change("delivered")
    assert (await shop.daemon.until(order.id, is_over)).sendings[-1] == "delivered"


async def test_a_webhook_outlives_a_kill_of_the_daemon(shop: Shop) -> None:
    shop.next_order(sent_after_s=200.0)
    order = await shop.daemon.submit(asked("sms"))
    await shop.daemon.until(order.id, lambda now: enum_name(now, "htlc") == "IN_FLIGHT")
    await shop.daemon.kill()
    await shop.daemon.start_ready()
    polls, began_s = shop.polls, time.monotonic()
    assert (await shop.daemon.until(order.id, is_over)).sendings[-1] == "delivered"
    assert shop.polls - polls <= 4
    assert time.monotonic() - began_s < TOLD_POLL_S


async def test_webhooks_come_by_a_unix_socket_too_and_one_that_a_crash_left_is_no_hindrance(tmp_path: Path) -> None:
    async with open_shop(tmp_path, extra_config=hooked("./hook.sock", "127.0.0.1:1")) as shop:
        shop.next_order(sent_after_s=FOR_EVER_S)
        order = await shop.daemon.submit(asked("sms"))
        await shop.daemon.until(order.id, lambda now: enum_name(now, "htlc") == "IN_FLIGHT")
        url = (await shop.daemon.get(order.id)).sms.webhook_url
        await shop.daemon.kill()
        await shop.daemon.start_ready()
        await asyncio.sleep(1.1)
        polls = shop.polls
        transport = httpx.AsyncHTTPTransport(uds=str(shop.world.directory / "hook.sock"))
        async with httpx.AsyncClient(transport=transport) as client:
            assert (await client.post(url)).status_code == 200
            assert (await client.post(f"{url}x")).status_code == 404
        async with asyncio.timeout(60):
            while shop.polls == polls:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("is_taken", "code", "words"),
    [(True, 75, "Something else listens on"), (False, 78, "webhook.listen: 192.0.2.1:8780 cannot be listened on")],
)
async def test_a_listener_that_cannot_listen_ends_the_start_and_says_so(
    tmp_path: Path, is_taken: bool, code: int, words: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}" if is_taken else "192.0.2.1:8780"
        async with SandboxWorld(tmp_path, extra_config=hooked(address, "127.0.0.1:8780")) as world:
            daemon = Daemon(world.config, world.socket)
            await daemon.launch()
            assert await daemon.wait() == code
    assert words in daemon.log()
    assert "Traceback" not in daemon.log()
