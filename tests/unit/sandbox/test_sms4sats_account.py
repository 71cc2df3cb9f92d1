"""The prepaid account at the simulated sms4sats: funding it, and orders paid from it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from holdpay.sandbox.payee import InvoiceState, Refused, Settled
from holdpay.sandbox.sms4sats_knobs import Scenario
from tests.unit.sandbox.provider import KEY, World, example, same_shape

SMS = {"phone": "+19871234567", "message": "hello"}
ORDERS: list[tuple[str, dict[str, Any], int]] = [
    ("/createorder", {"country": 187, "service": "dr"}, 3000),
    ("/createorder", {"country": 187, "service": "dr", "realphone": True}, 5000),
    ("/createorder", {"country": 16, "service": "wa", "isRental": True}, 4815),
    ("/createsendorder", SMS, 1000),
    ("/createemailsendorder", {"address": "satoshi@example.com", "message": "hello"}, 1000),
]
"""Path, body, price in sat."""


# --- the key --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "", "another"])
async def test_without_the_key_of_an_account_there_is_nothing_to_see_and_nothing_to_spend(
    world: World, key: str | None
) -> None:
    headers = {} if key is None else {"X-API-Key": key}
    replies = [await world.http.get(world.provider.url + path, headers=headers) for path in ("/balance", "/history")]
    replies += [await world.post(path, {**body, "immediate": True}, key) for path, body, _ in ORDERS]
    replies.append(await world.fund(1000, key))
    assert [(reply.status_code, reply.json()) for reply in replies] == [(400, example("balance_no_key"))] * len(replies)
    assert world.knobs.balance_sat == 10_000


async def test_when_there_is_no_account_no_key_is_one(world: World) -> None:
    world.knobs.api_key = ""
    assert await world.account("/balance", "") == example("balance_no_key")


# --- funding --------------------------------------------------------------------------------------------------------


async def test_replies_have_the_shape_of_the_reference(world: World) -> None:
    same_shape(await world.account("/balance"), example("balance"))
    order = (await world.fund(2500)).json()
    same_shape(order, example("createorder"))
    await world.pay(order)
    await world.clock.advance(2)
    same_shape(await world.account("/history"), example("history"))


async def test_funds_are_credited_when_they_are_held_and_settled_then(world: World) -> None:
    order = (await world.fund(2500)).json()
    assert await world.balance_sat() == 10_000
    await world.pay(order)
    await world.clock.advance(0.7)
    assert await world.balance_sat() == 12_500
    assert await world.invoice(order) is InvoiceState.ACCEPTED
    await world.clock.advance(0.5)
    assert isinstance(world.answers[0], Settled)


async def test_the_history_tells_each_funding_with_its_preimage_and_nothing_that_was_not_paid(world: World) -> None:
    assert await world.account("/history") == {"status": "OK", "totalAmount": 0, "orders": []}
    orders = [(await world.fund(amount)).json() for amount in (1000, 500, 7)]
    for order in orders[:2]:
        await world.pay(order)
    await world.clock.advance(2)
    history = await world.account("/history")
    assert [row["amount"] for row in history["orders"]] == [1000, 500]
    assert history["totalAmount"] == 1500
    assert [row["preimageHash"] for row in history["orders"]] == [order["orderId"] for order in orders[:2]]
    assert bytes.fromhex(history["orders"][0]["preimage"]) == world.provider.funds[orders[0]["orderId"]].preimage


async def test_funds_that_had_to_be_given_back_are_not_in_the_balance(world: World) -> None:
    world.knobs.scenario = Scenario(settle_lag_s=20)
    order = (await world.fund(2500)).json()
    await world.pay(order)
    await world.clock.advance(2)
    assert await world.balance_sat() == 12_500
    await world.payee.cancel(bytes.fromhex(order["orderId"]))
    await world.clock.advance(20)
    assert await world.balance_sat() == 10_000
    assert world.answers == [Refused()]


async def test_funds_can_be_credited_late(world: World) -> None:
    world.knobs.scenario = Scenario(credited_after_s=300)
    await world.pay((await world.fund(2500)).json())
    await world.clock.advance(299)
    assert await world.balance_sat() == 10_000
    await world.clock.advance(1)
    assert await world.balance_sat() == 12_500


@pytest.mark.parametrize("amount", [0, -1, 100_000_001, 1.5, True, None, "much"])
async def test_an_amount_that_cannot_be_one_is_a_backend_error(world: World, amount: object) -> None:
    reply = await world.fund(amount)
    assert (reply.status_code, reply.json()) == (500, {"status": "error", "reason": "backend error"})


async def test_an_order_to_fund_has_no_status(world: World) -> None:
    order = (await world.fund(2500)).json()
    assert await world.status(order) == example("error_500")


# --- prepaid orders -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "body", "price_sat"), ORDERS)
async def test_a_prepaid_order_is_charged_at_once_and_needs_no_invoice(
    world: World, path: str, body: dict[str, Any], price_sat: int
) -> None:
    order = (await world.post(path, {**body, "immediate": True}, KEY)).json()
    same_shape(order, example("createorder_immediate"))
    assert order["payreq"] == "paid"
    assert await world.balance_sat() == 10_000 - price_sat
    await world.clock.advance(60)
    status = await world.status(order)
    assert status["paid"] is True
    assert status.get("code") or status.get("smsStatus") == "delivered"
    assert await world.balance_sat() == 10_000 - price_sat


@pytest.mark.parametrize(("path", "body", "price_sat"), ORDERS)
async def test_a_balance_that_is_too_low_buys_nothing(
    world: World, path: str, body: dict[str, Any], price_sat: int
) -> None:
    world.knobs.balance_sat = price_sat - 1
    reply = await world.post(path, {**body, "immediate": True}, KEY)
    assert (reply.status_code, reply.json()) == (200, {"status": "error", "reason": "the balance is too low"})
    assert await world.balance_sat() == price_sat - 1
    assert not world.provider.orders
    assert not world.provider.sendings
    world.knobs.balance_sat = price_sat
    assert (await world.post(path, {**body, "immediate": True}, KEY)).json()["status"] == "OK"


@pytest.mark.parametrize(("path", "body", "price_sat"), ORDERS)
async def test_a_prepaid_order_that_fails_is_given_back_once(
    world: World, path: str, body: dict[str, Any], price_sat: int
) -> None:
    world.knobs.scenario = Scenario(no_number=True, gives_up_after_s=30, fails_instead_of="sent")
    await world.post(path, {**body, "immediate": True}, KEY)
    assert await world.balance_sat() == 10_000 - price_sat
    await world.clock.advance(3000)
    assert await world.balance_sat() == 10_000


@pytest.mark.parametrize("cancel_lag_s", [5, -5])
async def test_a_cancel_gives_a_prepaid_order_back_once_however_often_it_is_asked(
    world: World, cancel_lag_s: float
) -> None:
    world.knobs.scenario = Scenario(no_code=True, cancel_lag_s=cancel_lag_s)
    order = await world.order(KEY, immediate=True)
    await world.clock.advance(121)
    for _ in range(3):
        assert await world.cancel(order) == {"status": "OK"}
        await world.clock.advance(1)
    await world.clock.advance(3000)
    assert await world.balance_sat() == 10_000


async def test_a_lost_reply_leaves_a_prepaid_order_that_was_charged(world: World) -> None:
    world.knobs.lost_replies = 1
    with pytest.raises(httpx.RemoteProtocolError):
        await world.order(KEY, immediate=True)
    assert await world.balance_sat() == 7000
    (order,) = world.provider.orders.values()
    await world.clock.advance(60)
    assert order.code
    assert (await world.order(KEY, immediate=True))["status"] == "OK"
