"""How often lnd and the provider are asked, how long a silence lasts before it means something, and what is logged."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from holdpay.core.charge import ChargeState
from holdpay.core.duties import Duty
from holdpay.core.events import Event, ProviderStatus
from holdpay.core.lightning import NodeIdentity
from holdpay.core.model import Order
from holdpay.core.states import End, HtlcState, OrderState
from holdpay.engine.wanted import Asked, CodeWanted, RentalWanted
from holdpay.errors import ProviderUnavailable
from holdpay.ports import Reply
from holdpay.sms4sats.rate import RateLimiter
from tests.fakes import Send, Story
from tests.unit.build import POLICY, payment, prepaid, quarantined
from tests.unit.engine.desks import desk_of
from tests.unit.engine.world import World

HOUR_S = 3600
NEVER = Story(number_after_s=None, code_after_s=None)
LOST = Send(arrives_after_s=None, is_lost=True)


async def _held(world: World, story: Story = NEVER) -> str:
    world.provider.story = story
    order_id = world.request()
    await world.until(lambda: world.order(order_id).state is OrderState.PAID)
    return order_id


async def _next_gap_s(world: World, times_s: Callable[[], list[float]]) -> float:
    """Between the next time and the one after it."""
    count = len(times_s()) + 2
    await world.until(lambda: len(times_s()) >= count)
    return times_s()[count - 1] - times_s()[count - 2]


def _polls_s(world: World) -> list[float]:
    return [at_ms / 1000 for at_ms in world.provider.polls]


# --- the provider ---------------------------------------------------------------------------------------------------


async def test_an_order_that_is_later_than_the_promise_is_asked_about_every_ten_minutes_and_for_ever(
    world: World,
) -> None:
    await _held(world)
    await asyncio.sleep(POLICY.promise_s + 2 * HOUR_S)
    world.provider.polls.clear()
    await asyncio.sleep(6 * HOUR_S)
    usual = 6 * HOUR_S / POLICY.poll_late_max_s
    assert 0.8 * usual <= len(world.provider.polls) <= usual


async def test_a_provider_that_answered_in_between_is_asked_soon_when_it_fails_anew(world: World) -> None:
    await _held(world)
    world.provider.go_down()
    await asyncio.sleep(600)
    assert await _next_gap_s(world, lambda: _polls_s(world)) > 30, "after ten minutes it is asked seldom"
    world.provider.come_back()
    await asyncio.sleep(120)
    world.provider.go_down()
    assert await _next_gap_s(world, lambda: _polls_s(world)) < 1.2 * POLICY.poll_max_s


def _gated(world: World) -> list[tuple[float, str]]:
    """The provider behind the adapter's real budget. Returns which orders are asked about, with the time."""
    budget = RateLimiter(world.clock, 0)
    sent: list[tuple[float, str]] = []
    order_status = world.provider.order_status

    async def pausing(provider_order_id: str) -> Reply[ProviderStatus]:
        sent.append((world.now_s, provider_order_id))
        try:
            return await order_status(provider_order_id)
        except ProviderUnavailable as error:
            budget.pause(error.retry_after_s or 0)
            raise

    world.provider.order_status = pausing  # type: ignore[method-assign]
    world.provider.slot = budget.slot  # type: ignore[method-assign, assignment]
    return sent


async def _charged_without_code(world: World) -> str:
    order_id = await _held(world)
    world.lnd.settle(world.theirs.payment_hash, world.theirs.preimage)
    await world.until(lambda: world.order(order_id).htlc is HtlcState.SETTLED)
    return order_id


async def test_after_each_pause_that_the_provider_asks_for_the_order_that_was_charged_is_the_probe(
    world: World,
) -> None:
    sent = _gated(world)
    charged = world.order(await _charged_without_code(world)).provider_order_id
    for n in range(2, 5):
        world.request(n)
    await asyncio.sleep(60)
    world.provider.status_error = ProviderUnavailable("Too many requests.", retry_after_s=30)
    await asyncio.sleep(300)
    sent.clear()
    await asyncio.sleep(300)
    assert {asked for _, asked in sent} == {charged}
    assert 9 <= len(sent) <= 10, "the budget alone says when"


FROM_THE_ACCOUNT = CodeWanted(countries=("Russia",), service="OpenAI")


async def test_a_code_that_the_account_paid_for_is_the_probe_and_a_rental_that_goes_on_is_not(world: World) -> None:
    sent = _gated(world)
    world.provider.story = NEVER
    desk = desk_of(world.engine)
    rental = await desk.submit(Asked(key="rental"), RentalWanted(country="Russia"))
    await world.until(lambda: world.order(rental.id).state is OrderState.PAID)
    world.theirs.status = replace(world.theirs.status, number="447700900123")
    world.lnd.settle(world.theirs.payment_hash, world.theirs.preimage)
    await world.until(lambda: world.order(rental.id).state is OrderState.DELIVERED)
    sent.clear()
    await asyncio.sleep(HOUR_S)
    assert {asked for _, asked in sent} == {world.order(rental.id).provider_order_id}
    code = await desk.submit(Asked(key="code", is_prepaid=True), FROM_THE_ACCOUNT)
    await world.until(lambda: world.order(code.id).state is OrderState.PAID)
    world.provider.status_error = ProviderUnavailable("Too many requests.", retry_after_s=30)
    await asyncio.sleep(60)
    sent.clear()
    await asyncio.sleep(300)
    asked = [asked for _, asked in sent]
    assert asked.count(world.order(code.id).provider_order_id or "") >= 8
    assert 9 <= len(asked) <= 10, "the budget alone says when"


async def test_an_order_that_is_charged_while_it_backs_off_is_asked_about_at_once(world: World) -> None:
    sent = _gated(world)
    order_id = await _held(world)
    world.provider.status_error = ProviderUnavailable("Too many requests.", retry_after_s=5)
    await asyncio.sleep(600)
    count = len(sent)
    await world.until(lambda: len(sent) > count)
    await asyncio.sleep(10)
    world.lnd.settle(world.theirs.payment_hash, world.theirs.preimage)
    await world.until(lambda: world.order(order_id).htlc is HtlcState.SETTLED)
    settled_s = world.now_s
    await world.until(lambda: sent[-1][0] >= settled_s)
    assert sent[-1][0] - settled_s < 2


async def test_an_order_in_quarantine_that_was_being_placed_and_is_damaged_is_no_hot_loop(world: World) -> None:
    damaged = replace(quarantined(prepaid(OrderState.REQUESTED, ChargeState.INTENDED)), payment=payment())
    applied = 0

    async def apply(order_id: str, event: Event, raw: str | None = None) -> Order:
        nonlocal applied
        applied += 1
        assert applied < 1000, "without a pause"
        return damaged

    world.engine.order = lambda order_id: damaged  # type: ignore[method-assign]
    world.engine.apply = apply  # type: ignore[method-assign, assignment]
    placing = asyncio.create_task(world.engine._performers.perform(damaged.id, Duty.PLACE))
    await asyncio.sleep(60)
    assert (applied, placing.done()) == (1, False)
    placing.cancel()


async def test_a_provider_that_names_no_real_pause_is_no_hot_loop(world: World) -> None:
    await _charged_without_code(world)
    world.provider.status_error = ProviderUnavailable("Too many requests.", retry_after_s=0)
    world.provider.polls.clear()
    await asyncio.sleep(600)
    assert len(world.provider.polls) < 20


# --- lnd ------------------------------------------------------------------------------------------------------------


async def test_an_lnd_that_is_away_is_not_asked_again_and_again_but_soon_after_it_is_back(world: World) -> None:
    order_id = await _held(world)
    for _ in range(3):
        world.lnd.tracks.clear()
        world.lnd.is_down = True
        world.lnd.break_streams()
        await asyncio.sleep(HOUR_S)
        assert world.lnd.tracks == []
        world.lnd.is_down = False
        await asyncio.sleep(2)
        assert len(world.lnd.tracks) == 1
    world.lnd.settle(world.theirs.payment_hash, world.theirs.preimage)
    await world.until(lambda: world.order(order_id).htlc is HtlcState.SETTLED, within_s=1)


async def test_another_node_is_not_asked_again_and_again(world: World) -> None:
    await _held(world)
    ours, world.lnd.node = world.lnd.node, NodeIdentity("03" * 33, "simnet")
    world.lnd.break_streams()
    await asyncio.sleep(HOUR_S)
    asked = len(world.lnd.tracks)
    assert asked <= 2
    world.lnd.node = ours
    await asyncio.sleep(2)
    assert len(world.lnd.tracks) == asked + 1


async def test_dispatches_that_never_arrive_are_bounded(world: World) -> None:
    world.lnd.next_sends = deque([LOST] * 50)
    order = await world.until_closed(world.request())
    assert len(world.lnd.sends) == POLICY.max_dispatches
    assert order.end is End.PAYMENT_FAILED
    assert world.now_s < POLICY.pay_within_s, "it was the number that ended it, not the time"


async def test_a_wall_clock_that_is_set_forward_does_not_prove_that_a_dispatch_never_arrived(world: World) -> None:
    world.lnd.next_sends = deque([Send(arrives_after_s=POLICY.prove_absent_s / 2, is_lost=True)])
    order_id = world.request()
    await world.until_event(order_id, "payment_not_found")
    world.clock.offset_ms += 2 * POLICY.prove_absent_s * 1000
    order = await world.until_closed(order_id)
    assert order.end is End.FULFILLED
    assert len(world.lnd.sends) == 1


# --- alarms ---------------------------------------------------------------------------------------------------------


def _in_transit(world: World) -> str:
    world.provider.story = Story(paid_after_s=6 * HOUR_S, number_after_s=None, code_after_s=None)
    return world.request()


def _unknown(world: World) -> str:
    world.lnd.next_sends = deque([Send(is_lost=True)])
    order_id = world.request()
    asyncio.get_running_loop().call_later(0.3, lambda: setattr(world.lnd, "is_down", True))
    return order_id


@pytest.mark.parametrize("begin", [_in_transit, _unknown])
async def test_an_alarm_is_logged_once_for_as_long_as_it_lasts(world: World, begin: Callable[[World], str]) -> None:
    with capture_logs() as logs:
        begin(world)
        await asyncio.sleep(HOUR_S)
    texts = [entry["text"] for entry in logs if entry["event"] == "alarm"]
    assert texts
    assert len(texts) == len(set(texts)), texts
