"""Rented numbers at the simulated sms4sats."""

from __future__ import annotations

from typing import Any

import pytest

from holdpay.sandbox import bolt11
from holdpay.sandbox.payee import InvoiceState, Refused, Settled
from holdpay.sandbox.sms4sats_catalog import RENTALS
from holdpay.sandbox.sms4sats_knobs import Scenario
from holdpay.sandbox.sms4sats_numbers import GARBLED, Rental
from tests.unit.sandbox.provider import World, example, same_shape

ENGLAND = 16


async def rent(world: World) -> dict[str, Any]:
    order = await world.order(country=ENGLAND, service="wa", isRental=True)
    await world.pay(order)
    return order


def messages_of(world: World, order: dict[str, Any]) -> list[str]:
    rental = world.provider.orders[order["orderId"]]
    assert isinstance(rental, Rental)
    return [message.code for message in rental.messages]


async def test_a_rental_costs_what_the_list_of_rentals_says(world: World) -> None:
    rows = (await world.get("/getRentalCountries", service="wa")).json()
    order = await world.order(country=ENGLAND, service="wa", isRental=True)
    terms = bolt11.decode(order["payreq"], world.payee.network_name).terms
    assert terms.amount_msat == 1000 * next(row["price"] for row in rows if row["cc"] == ENGLAND)


async def test_where_nothing_is_rented_out_a_rental_is_refused(world: World) -> None:
    assert 187 not in RENTALS
    assert (await world.order(isRental=True))["status"] == "error"
    assert world.provider.orders == {}


async def test_the_number_comes_at_once_and_then_the_rental_is_settled(world: World) -> None:
    order = await world.order(country=ENGLAND, service="wa", isRental=True)
    assert (await world.status(order))["number"] == 0
    await world.pay(order)
    status = await world.status(order)
    same_shape(status, example("orderstatus_receive"))
    assert (status["paid"], len(str(status["number"])), status["code"]) == (True, 11, 0)
    assert await world.invoice(order) is InvoiceState.ACCEPTED
    await world.clock.advance(0.5)
    assert isinstance(world.answers[0], Settled)
    assert (await world.cancel(order))["status"] == "error"


async def test_each_message_takes_the_place_of_the_last_until_the_rental_ends(world: World) -> None:
    world.knobs.scenario = Scenario(messages_after_s=(20, 10, 40), rental_ends_after_s=30, as_numbers=False)
    order = await rent(world)
    seen = []
    for _ in range(8):
        seen.append((await world.status(order))["code"])
        await world.clock.advance(10)
    first, second = messages_of(world, order)
    assert first != second
    assert seen == ["", first, *[second] * 6]


async def test_messages_can_come_as_a_list_under_any_name(world: World) -> None:
    world.knobs.scenario = Scenario(messages_after_s=(10, 20, 30), messages_as="sms", as_numbers=False)
    order = await rent(world)
    assert "sms" not in await world.status(order)
    await world.clock.advance(20)
    status = await world.status(order)
    assert [row["code"] for row in status["sms"]] == messages_of(world, order)
    assert len(status["sms"]) == 2
    assert status["sms"][1]["timestamp"] - status["sms"][0]["timestamp"] == pytest.approx(10_000)
    assert status["code"] == ""


async def test_one_message_can_be_garbled_and_the_others_are_not(world: World) -> None:
    world.knobs.queue.extend(
        Scenario(messages_after_s=(10, 20, 30), garbled_message=2, messages_as=name) for name in ("code", "sms")
    )
    latest, listed = await rent(world), await rent(world)
    seen = []
    for _ in range(3):
        await world.clock.advance(10)
        seen.append((await world.status(latest))["code"])
    assert [code == GARBLED for code in seen] == [False, True, False]
    rows = (await world.status(listed))["sms"]
    assert [row["code"] == GARBLED for row in rows] == [False, True, False]


async def test_a_rental_without_a_number_is_over_and_the_money_goes_back(world: World) -> None:
    world.knobs.scenario = Scenario(no_number=True, gives_up_after_s=60)
    order = await rent(world)
    await world.clock.advance(60)
    assert await world.status(order) == example("orderstatus_no_number")
    await world.clock.advance(1)
    assert world.answers == [Refused()]


async def test_a_rental_whose_money_went_back_before_the_settling_gets_no_messages(world: World) -> None:
    world.knobs.scenario = Scenario(settle_lag_s=5)
    order = await rent(world)
    await world.payee.cancel(bytes.fromhex(order["orderId"]))
    await world.clock.advance(500)
    assert "error" in await world.status(order)
    assert messages_of(world, order) == []
