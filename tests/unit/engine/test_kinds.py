"""Every kind of order, from the desk to its end, between the fakes; and what the account pays."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from holdpay.core.charge import ChargeState
from holdpay.core.events import SendStatus
from holdpay.core.items import ItemKind, texts
from holdpay.core.states import End, HtlcState, OrderState
from holdpay.engine.wanted import Asked, CodeWanted, EmailWanted, FundWanted, RentalWanted, SmsWanted, Wanted
from holdpay.errors import (
    BalanceTooLow,
    HoldpayError,
    InvalidRequest,
    KeyTaken,
    OutOfStock,
    PriceTooHigh,
    ProviderKeyMissing,
    ProviderRefused,
    ProviderUnavailable,
)
from tests.fakes import Story
from tests.unit.engine.desks import desk_of
from tests.unit.engine.world import World

SILENT = Story(number_after_s=None, code_after_s=None)
"""The provider holds the HTLC; what comes then the test says."""
CODE = CodeWanted(countries=("Russia",), service="OpenAI")
SMS = SmsWanted(phone="+19871234567", message="See you at eight.")
EMAIL = EmailWanted(address="satoshi@example.com", message="See you at eight.")
RENTAL = RentalWanted(country="Russia")
FUND = FundWanted(amount_sat=2_000)


async def submit(world: World, wanted: Wanted, key: str = "k", **asked: bool | int) -> str:
    return (await desk_of(world.engine).submit(Asked(key=key, **asked), wanted)).id  # type: ignore[arg-type]


async def held(world: World, wanted: Wanted) -> str:
    """Ordered, paid, and held by the provider."""
    world.provider.story = SILENT
    world.provider.price = replace(world.provider.price, send_sat=2_000)  # type: ignore[type-var]
    order_id = await submit(world, wanted)
    await world.until(lambda: world.order(order_id).state is OrderState.PAID)
    return order_id


def settle(world: World) -> None:
    world.lnd.settle(world.theirs.payment_hash, world.theirs.preimage)


@pytest.mark.parametrize("wanted", [SMS, EMAIL], ids=["SMS", "e-mail"])
async def test_a_message_is_ordered_sent_settled_and_followed(world: World, wanted: Wanted) -> None:
    order_id = await held(world, wanted)
    (placing,) = world.provider.placings
    assert (placing.path, placing.body["message"]) == (
        "/createsendorder" if wanted is SMS else "/createemailsendorder",
        "See you at eight.",
    )
    world.theirs.status = replace(world.theirs.status, send_status=SendStatus.SENT)
    settle(world)
    await world.until(lambda: world.order(order_id).state is OrderState.DELIVERED)
    await world.until(lambda: world.order(order_id).htlc is HtlcState.SETTLED)
    assert not world.order(order_id).is_closed
    world.theirs.status = replace(world.theirs.status, send_status=SendStatus.DELIVERED)
    closed = await world.until_closed(order_id)
    assert (closed.end, texts(closed.items, ItemKind.SENDING)) == (End.FULFILLED, ("sent", "delivered"))


async def test_messages_to_a_rented_number_survive_restarts_and_are_asked_for_politely(world: World) -> None:
    order_id = await held(world, RENTAL)
    assert world.provider.placings[0].body == {"country": 0, "service": "full", "isRental": True}
    order = world.order(order_id)
    assert (order.spec.weeks, order.quote_sat) == (1, 3_000)  # type: ignore[union-attr]
    world.theirs.status = replace(world.theirs.status, number="447700900123")
    settle(world)
    await world.until(lambda: world.order(order_id).state is OrderState.DELIVERED)
    for said in (("one",), ("one", "two"), ("one", "two", "three")):
        world.theirs.status = replace(world.theirs.status, messages=said)
        await world.until(lambda said=said: len(texts(world.order(order_id).items, ItemKind.MESSAGE)) == len(said))  # type: ignore[misc]
        await world.crash()
        world.start()
    poll_count = len(world.provider.polls)
    await asyncio.sleep(7200)
    assert not world.order(order_id).is_closed
    assert len(world.provider.polls) - poll_count < 600 / 15 + 7200 / 300
    assert texts(world.order(order_id).items, ItemKind.MESSAGE) == ("one", "two", "three")
    assert len(world.lnd.sends) == 1


async def test_a_client_that_follows_a_rental_is_not_kept_waiting(world: World) -> None:
    order_id = await held(world, RENTAL)
    world.theirs.status = replace(world.theirs.status, number="447700900123")
    settle(world)
    await world.until(lambda: world.order(order_id).state is OrderState.DELIVERED)
    await asyncio.sleep(3600)
    with world.engine.watching(order_id):
        world.theirs.status = replace(world.theirs.status, messages=("one",))
        began_s = asyncio.get_running_loop().time()
        await world.until(lambda: bool(texts(world.order(order_id).items, ItemKind.MESSAGE)))
        assert asyncio.get_running_loop().time() - began_s < 7
    assert not world.engine.is_watched(world.order(order_id))


async def test_money_for_the_account_is_there_when_it_is_settled(world: World) -> None:
    order_id = await held(world, FUND)
    (placing,) = world.provider.placings
    assert (placing.path, placing.needs_key, dict(placing.body)) == ("/fund", True, {"amount": 2_000})
    assert world.order(order_id).max_price_sat == 2_000
    settle(world)
    assert (await world.until_closed(order_id)).end is End.FULFILLED


@pytest.mark.parametrize("wanted", [CODE, SMS, EMAIL, RENTAL, FUND], ids=lambda wanted: type(wanted).__name__)
async def test_the_same_request_with_the_same_key_is_the_first_order_without_any_look_up(
    world: World, wanted: Wanted
) -> None:
    order_id = await held(world, wanted)
    world.provider.price = ProviderUnavailable("down")
    world.provider.balance_sat = ProviderUnavailable("down")
    assert await submit(world, wanted) == order_id
    with pytest.raises(KeyTaken):
        await submit(world, wanted, max_fee_sat=1)
    others = (replace(CODE, is_real_phone=True), replace(SMS, message="no"), replace(EMAIL, message="no"))
    for other in (*others, replace(RENTAL, weeks=4), FundWanted(amount_sat=2_001)):
        with pytest.raises(KeyTaken):
            await submit(world, other)
    assert len(world.provider.placings) == 1


@pytest.mark.parametrize("wanted", [SMS, EMAIL], ids=lambda wanted: type(wanted).__name__)
async def test_what_was_sent_is_not_sent_again_by_the_same_key_when_nobody_can_compare_it_any_more(
    world: World, wanted: Wanted
) -> None:
    order_id = await held(world, wanted)
    world.theirs.status = replace(world.theirs.status, send_status=SendStatus.DELIVERED)
    settle(world)
    closed = await world.until_closed(order_id)
    assert closed.closed_at_ms is not None
    for _ in world.store.erase_codes(closed.closed_at_ms + 1, closed.closed_at_ms + 1):
        pass
    with pytest.raises(KeyTaken, match=f"What order {order_id} of this key was for is erased by now"):
        await submit(world, wanted)
    assert len(world.provider.placings) == 1


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        (replace(SMS, message="x" * 141), InvalidRequest),
        (replace(SMS, message=""), InvalidRequest),
        (replace(SMS, phone="911"), InvalidRequest),
        (replace(SMS, webhook_url="http://example.com"), InvalidRequest),
        (replace(EMAIL, address="nobody"), InvalidRequest),
        (replace(CODE, ref="nobody"), InvalidRequest),
        (replace(RENTAL, weeks=3), InvalidRequest),
        (FundWanted(amount_sat=0), InvalidRequest),
        (FundWanted(amount_sat=50_000), PriceTooHigh),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_a_bad_request_is_refused_and_nothing_is_recorded_or_ordered(
    world: World, wanted: Wanted, error: type[HoldpayError]
) -> None:
    world.provider.price = replace(world.provider.price, send_sat=2_000)  # type: ignore[type-var]
    with pytest.raises(error):
        await submit(world, wanted)
    assert world.store.find_key("k") is None
    assert world.provider.placings == []


async def test_a_country_without_rentals_is_out_of_stock(world: World) -> None:
    world.provider.rental_offers = []
    with pytest.raises(OutOfStock):
        await submit(world, RENTAL)


# --- what the account pays ------------------------------------------------------------------------------------------


async def test_a_code_from_the_account_needs_no_lnd(world: World) -> None:
    world.lnd.is_down = True
    order_id = await submit(world, CODE, is_prepaid=True)
    closed = await world.until_closed(order_id)
    assert (closed.end, closed.code, closed.spent_msat) == (End.FULFILLED, "012345", 2_000_000)
    assert closed.charge is not None
    assert closed.charge.balance_before_sat == 10_000
    assert world.lnd.sends == []
    assert world.provider.balance_sat == 8_000


async def test_an_account_with_too_little_or_without_a_key_is_refused_before_anything_is_ordered(world: World) -> None:
    world.provider.balance_sat = 1_999
    with pytest.raises(BalanceTooLow):
        await submit(world, CODE, is_prepaid=True)
    world.provider.balance_sat = ProviderKeyMissing()
    for wanted in (CODE, FUND):
        with pytest.raises(ProviderKeyMissing):
            await submit(world, wanted, is_prepaid=wanted is CODE)
    assert world.provider.placings == []


async def test_a_lost_reply_is_never_asked_for_again_and_an_unmoved_balance_ends_it(world: World) -> None:
    world.provider.next_place_errors.append(ProviderUnavailable("no answer"))
    order_id = await submit(world, CODE, is_prepaid=True)
    closed = await world.until_closed(order_id)
    assert (closed.end, closed.spent_msat) == (End.PROVIDER_REFUSED, 0)
    assert len(world.provider.placings) == 1


async def test_a_lost_reply_with_a_balance_that_fell_stays_open_and_counts_as_spent(world: World) -> None:
    world.provider.next_place_errors.append(ProviderUnavailable("no answer"))
    order_id = await submit(world, CODE, is_prepaid=True)
    await world.until(lambda: world.order(order_id).charge is not None)
    world.provider.balance_sat = 8_000
    await asyncio.sleep(7200)
    order = world.order(order_id)
    assert order.charge is not None
    assert (order.is_closed, order.charge.state, order.spent_msat) == (False, ChargeState.UNKNOWN, 2_000_000)
    assert len(world.provider.placings) == 1


async def test_another_charge_meanwhile_makes_the_balance_no_proof(world: World) -> None:
    world.provider.next_place_errors.append(ProviderUnavailable("no answer"))
    first = await submit(world, CODE, is_prepaid=True)
    await world.until(lambda: world.order(first).charge is not None)
    second = await submit(world, CODE, key="k2", is_prepaid=True)
    await world.until_closed(second)
    world.provider.balance_sat = 10_000
    await asyncio.sleep(3600)
    assert not world.order(first).is_closed


async def test_the_price_of_what_was_sent_and_failed_proves_no_lost_reply_away(world: World) -> None:
    first = await submit_sms(world, "one")
    await world.until(lambda: world.order(first).state is OrderState.PAID)
    world.theirs.status = replace(world.theirs.status, send_status=SendStatus.SENT)
    await world.until(lambda: world.order(first).state is OrderState.DELIVERED)
    await asyncio.sleep(1500)
    world.provider.next_place_errors.append(ProviderUnavailable("no answer"))
    second = await submit_sms(world, "two")
    await world.until(lambda: world.order(second).charge is not None)
    # It was taken, and the first one's price came back before anybody said so: the balance is what it was.
    for _ in range(2):
        await asyncio.sleep(7200)
        assert not world.order(second).is_closed
    assert world.order(first).is_closed


async def submit_sms(world: World, key: str) -> str:
    """From the account; what becomes of it the test says."""
    world.provider.story = SILENT
    world.provider.price = replace(world.provider.price, send_sat=2_000)  # type: ignore[type-var]
    return await submit(world, SMS, key=key, is_prepaid=True)


async def test_two_lost_replies_with_an_unmoved_balance_end(world: World) -> None:
    for _ in range(2):
        world.provider.next_place_errors.append(ProviderUnavailable("HTTP 500: unable to save data", raw="x"))
    for key in ("one", "two"):
        await submit(world, CODE, key=key, is_prepaid=True)
    for key in ("one", "two"):
        found = world.store.find_key(key)
        assert found is not None
        assert (await world.until_closed(found.id)).end is End.PROVIDER_REFUSED


async def test_orders_of_which_nobody_knows_whether_they_were_charged_block_none_for_an_invoice(world: World) -> None:
    for n in range(8):
        world.provider.next_place_errors.append(ProviderUnavailable("HTTP 500: unable to save data", raw="x"))
        order_id = await submit(world, CODE, key=f"k{n}", is_prepaid=True)
        await world.until(lambda order_id=order_id: world.order(order_id).charge is not None)  # type: ignore[misc]
    world.provider.balance_sat = 1_000
    await asyncio.sleep(48 * 3600)
    assert len(world.store.open_orders()) == 8
    closed = await world.until_closed(await submit(world, CODE, key="new"))
    assert closed.end is End.FULFILLED


@pytest.mark.parametrize("is_turned_away", [True, False], ids=["turned away", "failed inside"])
async def test_only_a_request_that_was_turned_away_is_placed_again(world: World, is_turned_away: bool) -> None:
    error = ProviderUnavailable("Too many requests.", retry_after_s=2, raw="oops", is_turned_away=is_turned_away)
    world.provider.next_place_errors.append(error)
    order_id = await submit(world, CODE, is_prepaid=True)
    await world.until(lambda: world.order(order_id).charge is not None)
    await asyncio.sleep(25)
    charge = world.order(order_id).charge
    assert charge is not None
    assert charge.state is (ChargeState.CHARGED if is_turned_away else ChargeState.UNKNOWN)


async def asked_for_balance_in_vain(world: World, error: HoldpayError) -> str:
    """A prepaid order that the desk took; then ``/balance`` fails."""
    order_id = await submit(world, CODE, is_prepaid=True)
    world.provider.balance_sat = error
    await world.until(lambda: bool(world.order(order_id).place_count))
    return order_id


async def test_nothing_is_placed_from_an_account_before_its_balance_is_known(world: World) -> None:
    order_id = await asked_for_balance_in_vain(world, ProviderUnavailable("HTTP 500", raw="oops"))
    assert (world.order(order_id).charge, world.provider.placings) == (None, [])
    world.provider.balance_sat = 10_000
    closed = await world.until_closed(order_id)
    assert closed.charge is not None
    assert (closed.end, closed.charge.balance_before_sat) == (End.FULFILLED, 10_000)


@pytest.mark.parametrize(
    ("error", "tries"), [(ProviderUnavailable("HTTP 500"), 3), (ProviderRefused("no such key"), 1)], ids=["500", "no"]
)
async def test_an_order_for_an_account_whose_balance_stays_unknown_is_given_up(
    world: World, error: HoldpayError, tries: int
) -> None:
    closed = await world.until_closed(await asked_for_balance_in_vain(world, error))
    assert (closed.end, closed.charge, closed.place_count) == (End.PROVIDER_REFUSED, None, tries)
    assert "the balance of the account is not known" in closed.reason
    assert world.provider.placings == []


async def test_a_clear_no_spends_nothing(world: World) -> None:
    world.provider.next_place_errors.append(ProviderRefused("balance too low"))
    closed = await world.until_closed(await submit(world, CODE, is_prepaid=True))
    assert (closed.end, closed.spent_msat) == (End.PROVIDER_REFUSED, 0)


@pytest.mark.parametrize("crash_at", range(1, 5))
@pytest.mark.parametrize("is_durable", [True, False])
async def test_a_crash_at_any_commit_places_at_most_once(world: World, crash_at: int, is_durable: bool) -> None:
    await world.crash()
    world.start(crash_at, is_durable=is_durable)
    order_id = await submit(world, CODE, is_prepaid=True)
    await world.failure()
    world.store.close()
    world.start()
    await asyncio.sleep(7200)
    assert len(world.provider.placings) <= 1
    order = world.order(order_id)
    took_sat = 10_000 - int(world.provider.balance_sat)  # type: ignore[arg-type]
    assert order.spent_msat >= took_sat * 1000
