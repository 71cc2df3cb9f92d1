"""The wall clock was wrong and is set while no daemon runs: every order goes on and ends, in its usual time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import pytest

from holdpay.core.lightning import Invoice, NodeIdentity
from holdpay.core.model import Order
from holdpay.core.states import End, HtlcState, OrderState
from holdpay.engine.engine import CLOCK_DOUBT_S
from holdpay.errors import NotReady, ProviderUnavailable
from tests.fakes import NO_ROUTE, Send, Story
from tests.unit.engine.desks import desk_of
from tests.unit.engine.world import World

MINUTE_S: Final = 60
DAY_S: Final = 24 * 3600
STEPS_S: Final = {
    "ten years back": -3652 * DAY_S,
    "a day back": -DAY_S,
    "an hour back": -3600,
    "a minute back": -MINUTE_S,
    "a minute forward": MINUTE_S,
    "an hour forward": 3600,
    "three days forward": 3 * DAY_S,
    "ten years forward": 3652 * DAY_S,
}


USUAL: Final = Story()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A daemon that dies where ``dies_when`` says. ``ends``: how the order may end, whatever the clock says then."""

    dies_when: Callable[[Order], bool]
    ends: frozenset[End] = frozenset({End.FULFILLED})
    story: Story = USUAL
    prepare: Callable[[World], None] = lambda world: None
    wants_cancel: bool = False
    late_ends: frozenset[End] = frozenset()
    """Further ends for a clock that was set forward: the time to pay is over."""


def _cannot_place(world: World) -> None:
    world.provider.next_place_errors = deque([ProviderUnavailable()])


def _finds_no_route_at_first(world: World) -> None:
    world.lnd.next_sends = deque([Send(fails=NO_ROUTE)] * 2)


def _loses_the_send(world: World) -> None:
    world.lnd.next_sends = deque([Send(arrives_after_s=None, is_lost=True)])


def _is_settled_early(world: World) -> None:
    asyncio.get_running_loop().call_later(
        20, lambda: world.lnd.settle(world.theirs.payment_hash, world.theirs.preimage)
    )


UNPAID: Final = frozenset({End.PAYMENT_FAILED, End.PROVIDER_REFUSED, End.CANCELED_UNPAID})
CASES: Final = {
    "requested": Case(dies_when=lambda order: order.state is OrderState.REQUESTED, late_ends=UNPAID),
    "to be placed again": Case(dies_when=lambda order: order.place_count == 1, prepare=_cannot_place, late_ends=UNPAID),
    "invoice received": Case(dies_when=lambda order: order.state is OrderState.AWAITING_PAYMENT, late_ends=UNPAID),
    "dispatching": Case(dies_when=lambda order: order.htlc is HtlcState.DISPATCHING),
    "proven absent once": Case(
        dies_when=lambda order: order.payment is not None and order.payment.absent_since_ms is not None,
        prepare=_loses_the_send,
        late_ends=UNPAID,
    ),
    "to be dispatched again": Case(
        dies_when=lambda order: (
            order.payment is not None and order.payment.dispatch_count == 2 and not order.is_money_out
        ),
        prepare=_finds_no_route_at_first,
        late_ends=UNPAID,
    ),
    "held": Case(dies_when=lambda order: order.state is OrderState.PAID, story=Story(number_after_s=20)),
    "number known": Case(dies_when=lambda order: order.number is not None),
    "to be canceled": Case(
        dies_when=lambda order: order.cancel_at_ms is not None and order.state is OrderState.NUMBER_ASSIGNED,
        story=Story(code_after_s=None),
        wants_cancel=True,
        ends=frozenset({End.REFUNDED}),
    ),
    "on its way back": Case(
        dies_when=lambda order: order.state is OrderState.CANCELED,
        story=Story(number_after_s=None, code_after_s=None, over_after_s=60, resolve_lag_s=30),
        ends=frozenset({End.REFUNDED}),
    ),
    "charged, and no code yet": Case(
        dies_when=lambda order: order.htlc is HtlcState.SETTLED,
        story=Story(code_after_s=200),
        prepare=_is_settled_early,
        # Like a daemon that was away for longer than the grace: the provider is asked once more, and has none yet.
        late_ends=frozenset({End.CHARGED_UNFULFILLED}),
    ),
    "delivered": Case(dies_when=lambda order: order.code is not None, story=Story(resolve_lag_s=30)),
}


@pytest.mark.parametrize("step", STEPS_S)
@pytest.mark.parametrize("name", CASES)
async def test_an_order_goes_on_and_ends_after_the_clock_was_set(world: World, name: str, step: str) -> None:
    case = CASES[name]
    world.provider.story = case.story
    case.prepare(world)
    order_id = world.request()
    if case.wants_cancel:
        await world.until(lambda: world.order(order_id).state is OrderState.NUMBER_ASSIGNED)
        await world.engine.cancel(order_id)
    await world.until(lambda: case.dies_when(world.order(order_id)), within_s=400)
    await world.crash()

    world.clock.offset_ms += STEPS_S[step] * 1000
    world.start()
    closed = await world.until_closed(order_id, within_s=15 * MINUTE_S)

    assert closed.end in case.ends | (case.late_ends if STEPS_S[step] > 0 else frozenset())
    assert len(world.lnd.sends) <= 3
    if closed.end is End.FULFILLED:
        assert (closed.code, closed.htlc) == ("012345", HtlcState.SETTLED)


async def test_what_was_settled_under_a_clock_that_ran_years_ahead_uses_up_no_limit_for_ever(world: World) -> None:
    world.clock.offset_ms += 3652 * DAY_S * 1000
    await world.until_closed(world.request(1))
    assert world.store.totals(world.clock.now_ms()).spent_day_msat > 0
    await world.crash()

    world.clock.offset_ms -= 3652 * DAY_S * 1000
    world.start()

    assert world.store.totals(world.clock.now_ms()).spent_day_msat == 0
    await world.until_closed(world.request(2))
    assert world.store.totals(world.clock.now_ms() - 3600 * 1000).spent_day_msat > 0


async def test_a_clock_that_was_set_back_is_noted_in_the_journal(world: World) -> None:
    world.provider.story = Story(number_after_s=20)
    order_id = world.request()
    await world.until(lambda: world.order(order_id).state is OrderState.PAID)
    await world.crash()

    world.clock.offset_ms -= 3600 * 1000
    world.start()

    (restarted,) = [u for u in world.store.updates(0, order_id, 100) if u.event == "daemon_restarted"]
    assert "set back by 60 min or more" in restarted.notes[0]
    await world.until_closed(order_id)


@pytest.mark.parametrize("set_by_s", [-3652 * DAY_S, -3600, 3600, 3652 * DAY_S])
async def test_a_clock_that_was_wrong_at_the_start_and_is_set_later_refuses_no_invoice(
    world: World, set_by_s: int
) -> None:
    """The provider's clock is right, and ours is as far off as it was set by."""
    decode = world.lnd.decode

    async def decode_by_the_right_clock(payreq: str) -> tuple[Invoice, NodeIdentity]:
        invoice, node = await decode(payreq)
        return replace(invoice, created_at_ms=invoice.created_at_ms + set_by_s * 1000), node

    world.lnd.decode = decode_by_the_right_clock  # type: ignore[method-assign]
    world.clock.set_by_ms = set_by_s * 1000
    closed = await world.until_closed(world.request())
    assert closed.end is End.FULFILLED


async def test_an_invoice_that_had_expired_by_the_wall_clock_is_refused_and_said_until_the_clock_is_set(
    world: World,
) -> None:
    world.clock.set_by_ms = DAY_S * 1000
    assert (await world.until_closed(world.request())).end is End.INVOICE_REJECTED
    with pytest.raises(NotReady, match="clock is probably wrong") as refused:
        desk_of(world.engine).check_ready()
    assert refused.value.metadata == {"cause": "clock"}
    world.clock.set_by_ms = 0
    assert world.engine.clock_trouble() == ""
    assert (await world.until_closed(world.request(2))).end is End.FULFILLED


async def test_a_doubt_about_the_clock_does_not_last_for_ever(world: World) -> None:
    world.clock.set_by_ms = DAY_S * 1000
    await world.until_closed(world.request())
    await asyncio.sleep(CLOCK_DOUBT_S + 1)
    assert world.engine.clock_trouble() == ""
