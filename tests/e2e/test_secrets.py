"""The whole log of a daemon that went through good and bad times at level debug, searched for every secret."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.sandbox.http_server import Request, Response, json_response
from tests.e2e.proxies import PASSWORD, HttpProxy
from tests.e2e.shop import FOR_EVER_S, Shop, open_shop
from tests.harness import is_held, is_over

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_no_secret_is_in_the_log_of_a_daemon_that_has_seen_everything(tmp_path: Path, log_format: str) -> None:
    async with HttpProxy().running() as proxy:

        def edit(text: str) -> str:
            text = text.replace("[daemon]\n", f'[daemon]\nlog_level = "debug"\nlog_format = "{log_format}"\n')
            return text.replace("[provider]\n", f'[provider]\nproxy = "{proxy.url}"\n')

        async with open_shop(tmp_path, edit_config=edit) as shop:
            hashes = await live_through_everything(shop)
        log = shop.daemon.log()

    secrets = {secret for order in shop.world.provider.orders.values() for secret in secrets_of(order)}
    secrets |= {*hashes, PASSWORD, *macaroon_forms(shop.world.lnd.macaroon.read_bytes())}
    assert len(secrets) > 30
    assert [secret for secret in secrets if re.search(re.escape(secret), log, re.IGNORECASE)] == []
    # What shows that the search would have found something: the log speaks of these very orders.
    for payment_hash in hashes:
        assert payment_hash[:8] in log
    for word in ("anomaly", "provider unavailable", "is unknown", "lnd cannot decode now", "Traceback"):
        assert word in log
    if log_format == "json":
        assert all(isinstance(json.loads(line), dict) for line in log.splitlines() if not line.startswith("holdpayd: "))


def secrets_of(order: object) -> list[str]:
    """Of one order at the provider; `number` and `code` may not have come to be."""
    preimage, payment_hash = order.preimage.hex(), order.payment_hash.hex()  # type: ignore[attr-defined]
    texts = [order.order_id, order.payreq, order.number, order.code]  # type: ignore[attr-defined]
    return [preimage, payment_hash, *(text for text in texts if text)]


def macaroon_forms(macaroon: bytes) -> list[str]:
    return [macaroon.hex(), base64.b64encode(macaroon).decode(), base64.urlsafe_b64encode(macaroon).decode()]


async def live_through_everything(shop: Shop) -> list[str]:
    """Every kind of trouble that leaves words in the log. Returns the payment hashes that lnd has seen."""
    stub = shop.daemon.stub
    # A code in letters, since six digits stand in every time of day.
    scenario = {"code": "QZ-7741-XK", "as_numbers": False, "code_after_s": 20}
    shop.next_order(**scenario)
    shop.next_order(**scenario, other_order_id=True)
    shop.next_order(no_code=True, gives_up_after_s=20)
    shop.next_order(**scenario, flips=True)
    shop.next_order(overprice_percent=10)
    shop.next_order(**scenario)
    spoil_the_next_invoice(shop)
    begun = [await shop.daemon.order() for _ in range(6)]
    tell_on_the_next_order(shop)
    ended = [await shop.daemon.until(order.id, is_over) for order in begun]
    assert {order.end for order in ended} == {pb.END_FULFILLED, pb.END_REFUNDED, pb.END_INVOICE_REJECTED}

    shop.next_order(as_numbers=False, number_after_s=60, code_after_s=FOR_EVER_S)
    held = await shop.daemon.until((await shop.daemon.order()).id, is_held)
    ended.append(held)
    shop.world.provider.knobs.only_path = "/orderstatus"
    await shop.play("http-500=1", "garbage=1", "http-429=1")
    await ask_oddly(stub, held.payment_hash, shop.world.provider.orders[held.payment_hash].payreq)
    await shop.play("lnd-killed")
    await asyncio.sleep(0.3)
    await shop.daemon.restart()
    await shop.play("lnd-started")
    shop.world.provider.orders[held.payment_hash].code = "QZ-7742-XK"
    await shop.settle(held)
    await shop.daemon.until(held.id, is_over)

    await shop.daemon.until_ready()
    shop.world.lnd.revoke(shop.world.lnd.macaroon)
    last = await shop.daemon.order()
    async with asyncio.timeout(60):
        while "lnd cannot decode now" not in shop.daemon.log():
            await asyncio.sleep(0.05)
    with sqlite3.connect(shop.world.directory / "state" / "holdpay.db") as database:
        database.execute("ALTER TABLE journal RENAME TO mislaid")
    with pytest.raises(grpc.aio.AioRpcError):
        await shop.daemon.cancel(last.id)
    async with asyncio.timeout(60):
        await shop.daemon.wait()
    return [order.payment_hash for order in ended if order.dispatches]


async def ask_oddly(stub: object, *secrets: str) -> None:
    """A client that shows its own secrets where they do not belong."""
    for secret in secrets:
        for call in (
            stub.GetRequest(pb.GetRequestRequest(request_id=secret)),  # type: ignore[attr-defined]
            stub.ListRequests(pb.ListRequestsRequest(page_token=secret)),  # type: ignore[attr-defined]
            stub.ListServices(pb.ListServicesRequest(country=secret)),  # type: ignore[attr-defined]
        ):
            with pytest.raises(grpc.aio.AioRpcError):
                await call


def spoil_the_next_invoice(shop: Shop) -> None:
    """Its checksum is wrong."""

    def spoilt(response: Response) -> Response:
        body = json.loads(response.body)
        body["payreq"] = body["payreq"][:-1] + ("q" if body["payreq"][-1] != "q" else "p")
        return json_response(body)

    _change_next_answer(shop, ("POST", "/createorder"), lambda request, response: spoilt(response))


def tell_on_the_next_order(shop: Shop) -> None:
    """An error that quotes the order's id."""

    def unknown(request: Request, _: Response) -> Response:
        return json_response({"status": "error", "reason": f"order {request.query['orderId']} is unknown"})

    _change_next_answer(shop, ("GET", "/orderstatus"), unknown)


def _change_next_answer(shop: Shop, endpoint: tuple[str, str], change: Callable[[Request, Response], Response]) -> None:
    provider = shop.world.provider
    endpoints = dict(provider._endpoints)
    usual = endpoints[endpoint]

    async def once(request: Request) -> Response:
        endpoints[endpoint] = usual
        return change(request, await usual(request))

    endpoints[endpoint] = once
    provider._endpoints = endpoints
