"""What each duty asks of lnd and the provider, how often, and what becomes of each answer."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncGenerator
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest
from structlog.testing import capture_logs

from holdpay.core import events as ev
from holdpay.core.charge import ChargeState
from holdpay.core.kinds.spec import Placing
from holdpay.core.lightning import LndMessage
from holdpay.core.model import Order
from holdpay.core.states import End, HtlcState, OrderState
from holdpay.engine.performers import MAX_CANCEL_REPLIES
from holdpay.engine.wanted import Asked, CodeWanted
from holdpay.errors import (
    InvariantViolation,
    LndRefused,
    LndWrongNode,
    ProviderProtocolError,
    ProviderRefused,
    ProviderUnavailable,
)
from holdpay.ports import Balance, Lane, Placed, Reply
from tests.fakes import ALICE, LATENCY_S, MALLORY, FreeSlot, Story
from tests.unit.engine.desks import desk_of
from tests.unit.engine.world import World

NEVER = Story(number_after_s=None, code_after_s=None)
CODE = CodeWanted(countries=("Russia",), service="OpenAI")
TASK_FAILED = "a task failed; it is started again"


async def _held(world: World, n: int = 1) -> str:
    world.provider.story = NEVER
    order_id = world.request(n)
    await world.until(lambda: world.order(order_id).state is OrderState.PAID)
    await asyncio.sleep(0.3)
    return order_id


async def _prepaid(world: World, key: str = "k") -> str:
    return (await desk_of(world.engine).submit(Asked(key=key, is_prepaid=True), CODE)).id


def _charge_state(world: World, order_id: str) -> ChargeState | None:
    charge = world.order(order_id).charge
    return None if charge is None else charge.state


def _gaps_s(times_s: list[float]) -> list[int]:
    return [round(later - sooner) for sooner, later in pairwise(times_s)]


def _applied(world: World, monkeypatch: pytest.MonkeyPatch) -> list[tuple[ev.Event, str | None]]:
    """What performers post, with the raw reply behind it."""
    seen: list[tuple[ev.Event, str | None]] = []
    apply = world.engine.apply

    async def spying(order_id: str, event: Any, raw: str | None = None) -> Order:
        order = world.engine.order(order_id)
        if not callable(event):
            seen.append((event, raw))
        elif order is not None:
            seen.append((event(order), raw))
        return await apply(order_id, event, raw)

    monkeypatch.setattr(world.engine, "apply", spying)
    return seen


# --- to place -------------------------------------------------------------------------------------------------------

RAW = "<html>"
BUSY = ProviderUnavailable("Busy.", retry_after_s=7, raw=RAW)
TURNED_AWAY = ProviderUnavailable("Too many.", retry_after_s=7, raw=RAW, is_turned_away=True)
REFUSED = ProviderRefused("No.", raw=RAW)
NONSENSE = ProviderProtocolError("Not JSON.", raw=RAW)


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        (BUSY, ev.PlacingFailed("Busy.", may_retry=True, wait_s=7)),
        (ProviderUnavailable("Busy.", raw=RAW), ev.PlacingFailed("Busy.", may_retry=True, wait_s=0)),
        (REFUSED, ev.PlacingFailed("No.", may_retry=False)),
        (NONSENSE, ev.PlacingFailed("Not JSON.", may_retry=True)),
    ],
    ids=["busy for 7 s", "busy", "no", "nonsense"],
)
async def test_a_placing_that_failed_is_told_as_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, failed: ev.PlacingFailed
) -> None:
    posted = _applied(world, monkeypatch)
    world.provider.next_place_errors.append(error)
    world.request()
    await world.until(lambda: bool(posted))
    assert posted[0] == (failed, RAW)


@pytest.mark.parametrize(
    ("error", "is_sure"),
    [(BUSY, False), (TURNED_AWAY, True), (REFUSED, True), (NONSENSE, False)],
    ids=["busy", "turned away", "no", "nonsense"],
)
async def test_only_a_charge_that_was_refused_or_never_let_in_was_not_made_for_sure(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, is_sure: bool
) -> None:
    posted = _applied(world, monkeypatch)
    world.provider.next_place_errors.append(error)
    await _prepaid(world)
    await world.until(lambda: any(isinstance(event, ev.PlacingFailed) for event, _ in posted))
    (failed, raw), *_ = [each for each in posted if isinstance(each[0], ev.PlacingFailed)]
    assert isinstance(failed, ev.PlacingFailed)
    assert (failed.is_sure, failed.may_retry, raw) == (is_sure, error is not REFUSED, RAW)


async def test_a_placing_that_died_with_the_answer_is_one_of_which_nobody_knows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(placing: Placing) -> Reply[Placed]:
        world.provider.placings.append(placing)
        await asyncio.sleep(2)
        raise ZeroDivisionError

    monkeypatch.setattr(world.provider, "place", dies)
    world.provider.balance_sat = 10_000
    order_id = await _prepaid(world)
    await world.until(lambda: _charge_state(world, order_id) is ChargeState.UNKNOWN, within_s=40)
    world.provider.balance_sat = 8_000
    await asyncio.sleep(7200)
    assert _charge_state(world, order_id) is ChargeState.UNKNOWN
    assert len(world.provider.placings) == 1
    assert not world.order(order_id).is_closed


async def test_a_charge_of_an_order_that_was_quarantined_in_the_step_of_its_intent_is_not_made(world: World) -> None:
    world.quarantine_at_the_intent()
    order_id = await _prepaid(world)
    with capture_logs() as logs:
        await world.until_event(order_id, "order_quarantined")
        await asyncio.sleep(10)
    assert world.provider.placings == []
    assert TASK_FAILED not in [entry["event"] for entry in logs]


async def test_the_answer_to_a_charge_is_kept_of_an_order_that_was_quarantined_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = world.provider.place

    async def slow(placing: Placing) -> Reply[Placed]:
        reply = await place(placing)
        await asyncio.sleep(5)
        return reply

    monkeypatch.setattr(world.provider, "place", slow)
    order_id = await _prepaid(world)
    await world.until(lambda: bool(world.provider.placings))
    world.engine.quarantine(order_id, InvariantViolation("Two truths."))
    await asyncio.sleep(60)
    kept = world.order(order_id)
    assert (kept.is_quarantined, _charge_state(world, order_id)) == (True, ChargeState.CHARGED)
    assert kept.provider_order_id is not None
    assert len(world.provider.placings) == 1


async def test_a_charge_of_an_order_that_changed_in_the_step_of_its_intent_is_intended_anew(world: World) -> None:
    intend = world.engine.intend
    intents = 0

    async def with_news(order_id: str, *args: Any) -> Order | None:
        nonlocal intents
        intents += 1
        if intents > 1:
            return await intend(order_id, *args)
        telling = world.engine.post(order_id, ev.ProviderFailed("HTTP 502"))
        intended = await intend(order_id, *args)
        await telling
        return intended

    world.engine.intend = with_news  # type: ignore[method-assign, assignment]
    with capture_logs() as logs:
        order_id = await _prepaid(world)
        await world.until(lambda: _charge_state(world, order_id) is ChargeState.CHARGED, within_s=2)
    assert (intents, len(world.provider.placings)) == (2, 1)
    assert TASK_FAILED not in [entry["event"] for entry in logs]


async def test_charges_are_made_one_after_the_other(world: World) -> None:
    at_once = 0
    most = 0
    place = world.provider.place

    async def counting(placing: Placing) -> Reply[Placed]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        reply = await place(placing)
        at_once -= 1
        return reply

    world.provider.place = counting  # type: ignore[method-assign]
    ids = [await _prepaid(world, key) for key in ("a", "b", "c")]
    for order_id in ids:
        await world.until(lambda order_id=order_id: _charge_state(world, order_id) is ChargeState.CHARGED)  # type: ignore[misc]
    assert most == 1
    befores = [world.order(order_id).charge for order_id in ids]
    assert [charge and charge.balance_before_sat for charge in befores] == [10_000, 8_000, 6_000]


# --- the balance ----------------------------------------------------------------------------------------------------


async def test_a_lost_charge_is_looked_for_in_the_balance_less_and_less(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.provider.next_place_errors.append(ProviderUnavailable("no answer"))
    order_id = await _prepaid(world)
    await world.until(lambda: _charge_state(world, order_id) is ChargeState.UNKNOWN)
    asked_s: list[float] = []

    async def down() -> Balance:
        asked_s.append(world.now_s)
        raise ProviderUnavailable("down")

    monkeypatch.setattr(world.provider, "balance", down)
    with capture_logs() as logs:
        await asyncio.sleep(3 * 3600)
    assert _gaps_s(asked_s)[:7] == [30, 60, 120, 300, 600, 1800, 1800]
    told = [entry for entry in logs if entry["event"] == "the balance of the account is not known"]
    assert len(told) == len(asked_s)
    assert TASK_FAILED not in [entry["event"] for entry in logs]
    assert not world.order(order_id).is_closed


async def test_a_balance_proves_something_only_where_no_other_order_moved_it_since_ten_minutes_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, str]] = []
    has_moved = world.store.has_moved_balance_since

    def spying(since_ms: int, *, besides: str) -> bool:
        asked.append((since_ms, besides))
        return has_moved(since_ms, besides=besides)

    monkeypatch.setattr(world.store, "has_moved_balance_since", spying)
    posted = _applied(world, monkeypatch)
    world.provider.next_place_errors.append(ProviderUnavailable("no answer"))
    order_id = await _prepaid(world)
    await world.until(lambda: bool(asked))
    charge = world.order(order_id).charge
    assert charge is not None
    assert set(asked) == {(charge.intended_at_ms - 600_000, order_id)}
    seen = [event for event, _ in posted if isinstance(event, ev.BalanceSeen)]
    assert seen[0] == ev.BalanceSeen(10_000, is_alone=True)


# --- to decode ------------------------------------------------------------------------------------------------------


async def test_an_invoice_that_lnd_cannot_read_ends_its_order_unpaid(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuses(payreq: str) -> object:
        raise LndRefused("checksum failed")

    monkeypatch.setattr(world.lnd, "decode", refuses)
    closed = await world.until_closed(world.request())
    assert closed.end is End.INVOICE_REJECTED
    assert "checksum failed" in closed.reason
    assert world.lnd.sends == []


async def test_another_node_decodes_nothing_while_money_is_out_and_is_asked_less_and_less(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _held(world)
    world.lnd.node = MALLORY
    asked_s: list[float] = []
    decode = world.lnd.decode

    async def counting(payreq: str) -> object:
        asked_s.append(world.now_s)
        return await decode(payreq)

    monkeypatch.setattr(world.lnd, "decode", counting)
    with capture_logs() as logs:
        second = world.request(2)
        await asyncio.sleep(50)
    assert _gaps_s(asked_s) == [1, 2, 4, 8, 15, 15]
    assert TASK_FAILED not in [entry["event"] for entry in logs]
    assert world.order(second).payment is None
    world.lnd.node = ALICE
    await world.until(lambda: world.order(second).is_money_out, within_s=16)


# --- questions ------------------------------------------------------------------------------------------------------


async def test_a_reply_counts_from_when_it_was_asked_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await _held(world)
    posted = _applied(world, monkeypatch)
    await asyncio.sleep(30)
    replied = [event for event, _ in posted if isinstance(event, ev.ProviderReplied)]
    assert replied
    assert {event.asked_at_ms for event in replied} <= set(world.provider.polls)
    assert {raw for event, raw in posted if isinstance(event, ev.ProviderReplied)} == {'{"status":"OK"}'}


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (BUSY, ev.ProviderFailed("Busy.")),
        (REFUSED, ev.ProviderConfused("No.", None)),
        (NONSENSE, ev.ProviderConfused("Not JSON.", None)),
        (
            ProviderProtocolError("Not JSON.", raw=RAW, unread="Your code"),
            ev.ProviderConfused("Not JSON.", "Your code"),
        ),
    ],
    ids=["busy", "no", "nonsense", "to be read by a person"],
)
async def test_what_the_provider_said_instead_of_a_reply_is_told_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, event: ev.Event
) -> None:
    await _held(world)
    posted = _applied(world, monkeypatch)
    world.provider.status_error = error
    await world.until(lambda: bool(posted))
    assert posted[0] == (event, RAW)


async def test_silence_of_the_provider_is_logged_and_told_to_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = await _held(world)
    posted = _applied(world, monkeypatch)
    world.provider.status_error = ProviderUnavailable("Nobody there.")
    with capture_logs() as logs:
        await asyncio.sleep(60)
    assert posted == []
    told = [entry for entry in logs if entry["event"] == "provider unavailable"]
    assert len(told) >= 3
    assert {(entry["order_id"], entry["error"]) for entry in told} == {(order_id, "Nobody there.")}


# --- to cancel ------------------------------------------------------------------------------------------------------


def _lanes(world: World, monkeypatch: pytest.MonkeyPatch) -> list[Lane]:
    lanes: list[Lane] = []

    async def slot(lane: Lane) -> FreeSlot:
        lanes.append(lane)
        return FreeSlot()

    monkeypatch.setattr(world.provider, "slot", slot)
    return lanes


async def test_before_each_cancel_it_is_asked_for_a_code_in_the_cancels_own_lane(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = await _held(world)
    lanes = _lanes(world, monkeypatch)
    posted = _applied(world, monkeypatch)
    due_ms = (await world.engine.cancel(order_id)).cancel_at_ms
    await world.until(lambda: bool(world.provider.cancels))
    await asyncio.sleep(0.1)
    assert lanes.count(Lane.CANCEL) == 1
    assert (ev.CancelAnswered(accepted=True, text=""), '{"status":"OK"}') in posted
    asked_ms = max(at_ms for at_ms in world.provider.polls if at_ms <= world.provider.cancels[0])
    assert asked_ms == due_ms
    assert world.provider.cancels[0] - asked_ms <= 50


@pytest.mark.parametrize(
    ("error", "answered"),
    [
        (REFUSED, ev.CancelAnswered(accepted=False, text="No.")),
        (BUSY, ev.CancelAnswered(accepted=None, text="Busy.")),
        (NONSENSE, ev.CancelAnswered(accepted=None, text="Not JSON.")),
    ],
    ids=["no", "busy", "nonsense"],
)
async def test_a_cancel_that_was_not_accepted_is_told_as_it_was_and_kept_once(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, answered: ev.CancelAnswered
) -> None:
    async def fails(provider_order_id: str) -> Reply[None]:
        raise error

    order_id = await _held(world)
    monkeypatch.setattr(world.provider, "cancel", fails)
    posted = _applied(world, monkeypatch)
    await world.engine.cancel(order_id)
    await asyncio.sleep(200)
    answers = [each for each in posted if isinstance(each[0], ev.CancelAnswered)]
    assert len(answers) >= 2
    assert answers[0] == (answered, RAW)
    assert set(answers[1:]) == {(answered, None)}


async def test_only_the_first_ten_different_answers_to_cancels_are_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def refuses_anew(provider_order_id: str) -> Reply[None]:
        nonlocal asked
        asked += 1
        raise ProviderRefused(f"No, for the {asked}th time.", raw=RAW)

    order_id = await _held(world)
    monkeypatch.setattr(world.provider, "cancel", refuses_anew)
    posted = _applied(world, monkeypatch)
    await world.engine.cancel(order_id)
    await world.until(lambda: asked >= 13)
    raws = [raw for event, raw in posted if isinstance(event, ev.CancelAnswered)]
    assert raws[:12] == [RAW] * MAX_CANCEL_REPLIES + [None] * 2
    assert MAX_CANCEL_REPLIES == 10


async def test_a_quarantined_order_is_canceled_at_the_pace_of_any_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_s: list[float] = []

    async def refuses(provider_order_id: str) -> Reply[None]:
        asked_s.append(world.now_s)
        raise REFUSED

    order_id = await _held(world)
    monkeypatch.setattr(world.provider, "cancel", refuses)
    await world.engine.cancel(order_id)
    world.engine.quarantine(order_id, InvariantViolation("Two truths."))
    await asyncio.sleep(300)
    assert len(asked_s) >= 5
    assert set(_gaps_s(asked_s)) == {world.policy.cancel_retry_s}


# --- to pay ---------------------------------------------------------------------------------------------------------


async def test_an_order_that_is_to_be_paid_waits_for_the_node_that_decoded_its_invoice(world: World) -> None:
    intend = world.engine.intend

    async def from_another_node(order_id: str, *args: Any) -> Order | None:
        world.lnd.node = MALLORY
        return await intend(order_id, *args)

    world.engine.intend = from_another_node  # type: ignore[method-assign, assignment]
    world.provider.story = NEVER
    order_id = world.request()
    with capture_logs() as logs:
        await world.until(lambda: world.lnd.node == MALLORY)
        await asyncio.sleep(20)
        assert world.lnd.sends == []
        assert world.order(order_id).htlc is HtlcState.NONE
        world.engine.intend = intend  # type: ignore[method-assign]
        world.lnd.node = ALICE
        await world.until(lambda: world.order(order_id).htlc is HtlcState.IN_FLIGHT, within_s=16)
    assert TASK_FAILED not in [entry["event"] for entry in logs]
    assert len(world.lnd.sends) == 1


async def test_what_lnd_says_of_a_payment_wakes_who_waits_and_is_told_at_once(world: World) -> None:
    order_id = await _held(world)
    settled_s = world.now_s
    world.lnd.settle(world.theirs.payment_hash, world.theirs.preimage)
    await world.until(lambda: world.order(order_id).htlc is HtlcState.SETTLED)
    assert world.now_s == settled_s


async def test_a_silent_stream_is_given_up_for_a_fresh_one_after_five_minutes_and_at_once(world: World) -> None:
    await _held(world)
    await asyncio.sleep(1300)
    asked_s = world.track_times_s
    assert len(asked_s) >= 4
    assert {round(later - sooner, 3) for sooner, later in pairwise(asked_s)} == {world.policy.retrack_s + LATENCY_S}


async def test_a_stream_that_breaks_with_an_error_of_lnd_is_told_and_asked_for_again_after_a_second(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _held(world)
    posted = _applied(world, monkeypatch)
    began_s: list[float] = []

    async def breaks(*_: object) -> AsyncGenerator[LndMessage, None]:
        began_s.append(world.now_s)
        raise LndWrongNode
        yield

    monkeypatch.setattr(world.lnd, "track", breaks)
    world.lnd.break_streams()
    await asyncio.sleep(60)
    assert _gaps_s(began_s)[:4] == [2, 4, 8, 15]
    lost = [event for event, _ in posted if isinstance(event, ev.TrackingLost)]
    assert len(lost) == len(began_s) + 1
    assert lost[-1] == ev.TrackingLost(LndWrongNode().message)


async def test_of_an_account_whose_balance_is_not_known_nothing_is_ordered_and_why_is_told(world: World) -> None:
    """The desk saw it; whoever places the order does not."""
    order_id = await _prepaid(world)
    world.provider.balance_sat = ProviderRefused("no such key")
    order = await world.until_closed(order_id)
    assert order.reason.endswith("the balance of the account is not known: no such key")
    assert world.provider.placings == []


async def test_an_order_leaves_no_frame_behind_that_only_a_look_for_garbage_would_free(world: World) -> None:
    """Of 10,000 orders that lose lnd's stream in one moment, that look would take a tenth of a second."""
    gc.collect()
    gc.disable()
    try:
        await world.until_closed(world.request())
        await asyncio.sleep(1)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        codes = [found.f_code for found in gc.garbage if isinstance(found, FrameType)]
        assert [code.co_name for code in codes if f"{os.sep}holdpay{os.sep}" in code.co_filename] == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
