"""Hints of the provider: an order with a webhook of ours is asked about at once after one, and seldom besides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from holdpay.core.asking import TOLD_POLL_S
from holdpay.core.events import SendStatus
from holdpay.core.items import ItemKind, texts
from holdpay.core.states import End, OrderState
from holdpay.engine.hooks import MAX_SILENT, Webhooks
from holdpay.engine.wanted import Asked, CodeWanted, EmailWanted, FundWanted, RentalWanted, SmsWanted, Wanted
from holdpay.errors import KeyTaken, ProviderUnavailable
from tests.fakes import LATENCY_S, Story
from tests.unit.engine.desks import desk_of
from tests.unit.engine.world import World

PUBLIC_URL = "https://pay.example.org/hooks"
SILENT = Story(number_after_s=None, code_after_s=None)
SMS = SmsWanted(phone="+19871234567", message="See you at eight.")
EMAIL = EmailWanted(address="satoshi@example.com", message="See you at eight.")
MESSAGES = pytest.mark.parametrize("wanted", [SMS, EMAIL], ids=["SMS", "e-mail"])


class HookedWorld(World):
    """With a listener that serves as long as ``is_up``."""

    public_url = PUBLIC_URL
    is_up = True

    def start(self, crash_at: int | None = None, *, is_durable: bool = False) -> None:
        self.webhooks = webhooks = Webhooks(self.public_url)
        webhooks.is_up = lambda: self.is_up
        super().start(crash_at, is_durable=is_durable)


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[HookedWorld]:
    made = HookedWorld(tmp_path / "holdpay.db")
    made.provider.story = SILENT
    made.provider.price = replace(made.provider.price, send_sat=2_000)  # type: ignore[type-var]
    made.start()
    yield made
    await made.close()


async def submit(world: World, wanted: Wanted, key: str = "k", **asked: Any) -> str:
    return (await desk_of(world.engine).submit(Asked(key=key, **asked), wanted)).id


def secret(world: World, order_id: str) -> str:
    url = world.order(order_id).spec.webhook_url
    assert url is not None
    assert url.startswith(f"{PUBLIC_URL}/")
    return url.rpartition("/")[2]


async def held(world: World, wanted: Wanted = SMS) -> str:
    """Ordered and paid, and the provider was asked about it a moment ago."""
    order_id = await submit(world, wanted)
    await world.until(lambda: world.order(order_id).state is OrderState.PAID)
    return order_id


def says(world: World, status: SendStatus) -> None:
    world.theirs.status = replace(world.theirs.status, send_status=status)


# --- who gets one ---------------------------------------------------------------------------------------------------


@MESSAGES
async def test_a_message_gets_a_webhook_of_its_own_and_the_provider_is_given_it(
    world: HookedWorld, wanted: Wanted
) -> None:
    order_ids = [await submit(world, wanted, key) for key in ("one", "two")]
    await world.until(lambda: len(world.provider.placings) == 2)
    urls = [world.order(order_id).spec.webhook_url for order_id in order_ids]
    assert [placing.body["webhookUrl"] for placing in world.provider.placings] == urls
    assert len({secret(world, order_id) for order_id in order_ids}) == 2
    assert all(len(secret(world, order_id)) >= 43 for order_id in order_ids)


@MESSAGES
async def test_a_webhook_of_the_client_is_left_to_it(world: HookedWorld, wanted: Any) -> None:
    theirs = "https://client.example.org/x"
    order_id = await submit(world, replace(wanted, webhook_url=theirs))
    assert world.order(order_id).spec.webhook_url == theirs
    assert not world.engine.is_told(world.order(order_id))


@pytest.mark.parametrize(
    "wanted",
    [CodeWanted(countries=("Russia",), service="OpenAI"), RentalWanted(country="Russia"), FundWanted(amount_sat=2_000)],
    ids=lambda wanted: type(wanted).__name__,
)
async def test_what_the_provider_tells_no_webhook_of_gets_none(world: HookedWorld, wanted: Wanted) -> None:
    order_id = await submit(world, wanted)
    await world.until(lambda: bool(world.provider.placings))
    assert world.order(order_id).spec.webhook_url is None
    assert "webhookUrl" not in world.provider.placings[0].body


@MESSAGES
async def test_the_same_key_finds_the_order_whatever_its_webhook_is(world: HookedWorld, wanted: Any) -> None:
    order_id = await submit(world, wanted)
    assert await submit(world, wanted) == order_id
    world.engine.webhooks = None
    assert await submit(world, wanted) == order_id, "webhooks were turned off since"
    with pytest.raises(KeyTaken):
        await submit(world, replace(wanted, webhook_url="https://client.example.org/x"))


# --- what a hint does -----------------------------------------------------------------------------------------------


@MESSAGES
async def test_a_hint_is_one_question_at_once(world: HookedWorld, wanted: Wanted) -> None:
    order_id = await held(world, wanted)
    await asyncio.sleep(5)
    asked, hinted_at_ms = len(world.provider.polls), world.clock.now_ms()
    assert world.engine.hint(secret(world, order_id))
    await asyncio.sleep(5)
    assert [at_ms - hinted_at_ms for at_ms in world.provider.polls[asked:]] == [0]


async def test_what_a_hint_says_is_the_provider_s_answer_and_nothing_else(world: HookedWorld) -> None:
    order_id = await held(world)
    before = world.order(order_id)
    await asyncio.sleep(2)
    world.engine.hint(secret(world, order_id))
    await asyncio.sleep(2)
    assert world.order(order_id) == before


async def test_many_hints_are_one_question_a_second(world: HookedWorld) -> None:
    order_id = await held(world)
    await asyncio.sleep(2)
    asked = len(world.provider.polls)
    for _ in range(1000):
        world.engine.hint(secret(world, order_id))
        await asyncio.sleep(0.01)
    times_ms = world.provider.polls[asked:]
    assert 8 <= len(times_ms) <= 11
    assert all(later - earlier >= 1000 for earlier, later in pairwise(times_ms))


async def test_a_hint_while_the_provider_answers_is_a_question_more(world: HookedWorld) -> None:
    order_id = await held(world)
    await asyncio.sleep(2)
    asked = len(world.provider.polls)
    world.engine.hint(secret(world, order_id))
    await asyncio.sleep(LATENCY_S / 2)
    world.engine.hint(secret(world, order_id))
    await asyncio.sleep(3)
    first, second = world.provider.polls[asked:]
    assert 1000 <= second - first <= 1200


async def test_a_hint_does_not_shorten_the_pause_after_an_error(world: HookedWorld) -> None:
    order_id = await held(world)
    await asyncio.sleep(2)
    world.provider.status_error = ProviderUnavailable("down")
    world.engine.hint(secret(world, order_id))
    await asyncio.sleep(0.5)
    asked = len(world.provider.polls)
    world.engine.hint(secret(world, order_id))
    await asyncio.sleep(1)
    assert len(world.provider.polls) == asked
    await asyncio.sleep(1)
    assert len(world.provider.polls) == asked + 1


async def test_a_guess_is_nothing(world: HookedWorld) -> None:
    order_id = await held(world)
    await asyncio.sleep(2)
    asked = len(world.provider.polls)
    right = secret(world, order_id)
    for guess in ("", right[:-1], f"{right}x", right.swapcase(), order_id, "�"):
        assert not world.engine.hint(guess)
    await asyncio.sleep(2)
    assert len(world.provider.polls) == asked


# --- that none comes ------------------------------------------------------------------------------------------------


async def sent_and_over(world: HookedWorld, key: str, *, is_told: bool = False) -> None:
    order_id = await submit(world, SMS, key)
    await world.until(lambda: world.order(order_id).state is OrderState.PAID)
    theirs = list(world.provider.orders.values())[-1]
    theirs.status = replace(theirs.status, send_status=SendStatus.DELIVERED)
    if is_told:
        world.engine.hint(secret(world, order_id))
    world.lnd.settle(theirs.payment_hash, theirs.preimage)
    await world.until_closed(order_id, within_s=300)


async def test_an_operator_is_told_once_that_no_webhook_comes_and_no_more_after_one_came(
    world: HookedWorld,
) -> None:
    for n in range(MAX_SILENT - 1):
        await sent_and_over(world, f"silent {n}")
    assert world.engine.alarms() == []
    await sent_and_over(world, "the last straw")
    (alarm,) = world.engine.alarms()
    assert "webhook.public_url" in alarm
    await sent_and_over(world, "told", is_told=True)
    assert world.engine.alarms() == []


# --- how seldom it is asked besides ---------------------------------------------------------------------------------


def gaps_s(world: World, asked: int) -> list[float]:
    times_ms = world.provider.polls[asked:]
    return [(later - earlier) / 1000 for earlier, later in pairwise(times_ms)]


async def test_without_a_hint_the_provider_is_asked_seldom_and_what_a_client_follows_too(world: HookedWorld) -> None:
    order_id = await held(world)
    asked = len(world.provider.polls)
    with world.engine.watching(order_id):
        await asyncio.sleep(300)
        says(world, SendStatus.SENT)
        world.lnd.settle(world.theirs.payment_hash, world.theirs.preimage)
        await world.until(lambda: world.order(order_id).state is OrderState.DELIVERED)
        await asyncio.sleep(300)
    # One of them comes at once: when the HTLC settles.
    assert sum(gap_s < TOLD_POLL_S for gap_s in gaps_s(world, asked)) <= 1
    assert len(world.provider.polls) - asked <= 600 / TOLD_POLL_S + 1


async def test_a_message_costs_three_questions_when_hints_come(world: HookedWorld) -> None:
    order_id = await submit(world, SMS)
    await world.until(lambda: bool(world.lnd.sends))
    await asyncio.sleep(10)
    says(world, SendStatus.SENT)
    world.engine.hint(secret(world, order_id))
    world.lnd.settle(world.theirs.payment_hash, world.theirs.preimage)
    await asyncio.sleep(10)
    says(world, SendStatus.DELIVERED)
    world.engine.hint(secret(world, order_id))
    closed = await world.until_closed(order_id, within_s=2)
    assert (closed.end, texts(closed.items, ItemKind.SENDING)) == (End.FULFILLED, ("sent", "delivered"))
    assert len(world.provider.polls) <= 3


async def test_while_the_listener_is_down_the_provider_is_asked_as_ever(world: HookedWorld) -> None:
    world.is_up = False
    await held(world)
    asked = len(world.provider.polls)
    await asyncio.sleep(60)
    assert max(gaps_s(world, asked)) < TOLD_POLL_S
    assert len(world.provider.polls) - asked > 5


# --- over restarts, and the end -------------------------------------------------------------------------------------


async def test_a_webhook_outlives_a_crash(world: HookedWorld) -> None:
    order_id = await held(world)
    known = secret(world, order_id)
    await world.crash()
    world.start()
    await asyncio.sleep(2)
    asked = len(world.provider.polls)
    assert world.engine.hint(known)
    await asyncio.sleep(1)
    assert len(world.provider.polls) == asked + 1
    assert world.engine.is_told(world.order(order_id))


async def test_after_the_public_url_was_changed_older_orders_are_asked_about_as_ever(world: HookedWorld) -> None:
    order_id = await held(world)
    known = secret(world, order_id)
    await world.crash()
    world.public_url = "https://elsewhere.example.org"
    world.start()
    assert not world.engine.is_told(world.order(order_id))
    assert not world.engine.hint(known)


async def test_the_webhook_of_an_order_that_is_over_is_nobody_s(world: HookedWorld) -> None:
    order_id = await held(world)
    says(world, SendStatus.DELIVERED)
    world.lnd.settle(world.theirs.payment_hash, world.theirs.preimage)
    await world.until_closed(order_id)
    asked = len(world.provider.polls)
    assert not world.engine.hint(secret(world, order_id))
    world.engine.asker.hint(order_id)
    await asyncio.sleep(5)
    assert len(world.provider.polls) == asked
