"""The life of orders: the real engine, performers and database between a fake lnd and a fake provider."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdpay.audit.check import read_stored
from holdpay.core.duties import Duty
from holdpay.core.events import CancelRequested, Event, ProviderStatus
from holdpay.core.guard import alarms
from holdpay.core.kinds.spec import Placing
from holdpay.core.lightning import LndMessage, Lost, NodeIdentity, PaymentStatus
from holdpay.core.machine import decide
from holdpay.core.model import Order
from holdpay.core.states import End, HtlcState, OrderState
from holdpay.core.step import Step
from holdpay.errors import (
    InvariantViolation,
    KeyTaken,
    LimitExceeded,
    LndDenied,
    OrderUnreadable,
    ProviderProtocolError,
    ProviderRefused,
    ProviderUnavailable,
    StoreError,
)
from holdpay.ports import Change, NodeState, Placed, Reply
from tests.fakes import (
    ALICE,
    HOP_DOWN,
    MALLORY,
    NO_ROUTE,
    REFUSED_BY_PAYEE,
    START_MS,
    FakeLnd,
    Send,
    Story,
)
from tests.unit.engine.world import World


def _duties(world: World, order_id: str) -> set[Duty]:
    """The tasks of an order that really run, and whether the scheduler will ask about it."""
    names = {task.get_name() for task in asyncio.all_tasks()}
    asked = {Duty.POLL} if world.engine.asker.is_asked_about(order_id) else set()
    return asked | {duty for duty in Duty if f"{duty.value} {order_id}" in names}


# --- how it usually goes --------------------------------------------------------------------------------------------


async def test_a_code_is_ordered_paid_delivered_and_settled(world: World) -> None:
    order_id = world.request()
    order = await world.until_closed(order_id)
    assert (order.end, order.code, order.number) == (End.FULFILLED, "012345", "15551234567")
    assert order.spent_msat == 2_001_002
    assert len(world.lnd.sends) == 1
    events = world.events(order_id)
    assert [event for event in events if event != "provider_replied"] == [
        "order_requested",
        "order_placed",
        "invoice_decoded",
        "dispatch_intended",
        "payment_reported",
        "payment_reported",
        "payment_reported",
    ]
    assert 2 <= events.count("provider_replied") <= 3, "paid, perhaps, the number and the code"


async def test_the_intent_is_on_disk_before_the_payment_is_sent(world: World) -> None:
    found: list[Order] = []
    send = world.lnd.send

    def spying(*args: Any) -> AsyncGenerator[LndMessage, None]:
        found.append(world.order("order00001"))
        return send(*args)

    world.lnd.send = spying  # type: ignore[method-assign, assignment]
    await world.until_closed(world.request())
    (order,) = found
    assert order.payment is not None
    assert (order.htlc, order.payment.dispatch_count) == (HtlcState.DISPATCHING, 1)


async def test_nothing_is_believed_before_it_is_on_disk(world: World) -> None:
    commit_all = world.store.commit_all
    running: list[set[Duty]] = []

    def spying(changes: Iterable[Change], now_ms: int) -> list[int]:
        changes = list(changes)
        for change in changes:
            after = change.step.order
            assert world.engine.order(after.id) == world.order(after.id) != after
            running.append(_duties(world, after.id))
        return commit_all(changes, now_ms)

    world.store.commit_all = spying  # type: ignore[method-assign]
    await world.until_closed(world.request())
    assert running[0] == {Duty.PAY}
    assert Duty.POLL not in running[2]


async def test_what_is_sent_is_what_is_on_disk(world: World) -> None:
    await world.until_closed(world.request())
    ((_, spec),) = world.lnd.sends
    assert spec.payment_hash == world.theirs.payment_hash
    assert (spec.fee_limit_msat, spec.timeout_s, spec.max_parts, spec.cltv_limit) == (10_000, 599, 1, 475)


async def test_number_and_code_are_seen_soon_and_with_few_requests(world: World) -> None:
    order_id = world.request()
    await world.until(lambda: world.order(order_id).number is not None)
    assert world.now_s < 12 + 3
    await world.until(lambda: world.order(order_id).code is not None)
    assert world.now_s < 40 + 5
    assert len(world.provider.polls) < 20


async def test_nothing_runs_for_an_order_that_is_closed(world: World) -> None:
    order_id = world.request()
    await world.until(lambda: _duties(world, order_id) == {Duty.PAY, Duty.POLL})
    await world.until_closed(order_id)
    await asyncio.sleep(20)
    assert _duties(world, order_id) == set()
    assert world.engine.order(order_id) is None
    polls = len(world.provider.polls)
    await asyncio.sleep(3600)
    assert len(world.provider.polls) == polls


async def test_no_number_means_that_the_money_comes_back(world: World) -> None:
    world.provider.story = Story(number_after_s=None, code_after_s=None, over_after_s=1200)
    order = await world.until_closed(world.request())
    assert (order.end, order.code, order.reserved_msat, order.spent_msat) == (End.REFUNDED, None, 0, 0)
    assert len(world.lnd.sends) == 1
    assert world.now_s < 1200 + 20


async def test_a_refund_seen_before_the_provider_says_so_is_not_paid_again(world: World) -> None:
    """LND's word comes first; the provider still says unpaid for a while."""
    world.provider.story = Story(paid_after_s=900, number_after_s=None, code_after_s=None)
    order_id = world.request()
    await world.until(lambda: world.order(order_id).htlc is HtlcState.IN_FLIGHT)
    await asyncio.sleep(5)
    world.lnd.say(world.theirs.payment_hash, REFUSED_BY_PAYEE)
    order = await world.until_closed(order_id)
    assert order.end is End.REFUNDED
    assert len(world.lnd.sends) == 1


async def test_many_orders_go_on_side_by_side(world: World) -> None:
    ids = [world.request(n) for n in range(1, 9)]
    ends = [(await world.until_closed(order_id)).end for order_id in ids]
    assert ends == [End.FULFILLED] * 8
    assert len({spec.payment_hash for _, spec in world.lnd.sends}) == 8
    assert len(world.lnd.sends) == 8


async def test_a_request_sent_again_is_not_ordered_again(world: World) -> None:
    order_id = world.request(1)
    assert world.request(1) == order_id
    await world.until_closed(order_id)
    assert world.request(1) == order_id
    await asyncio.sleep(60)
    assert (world.provider.place_count, len(world.lnd.sends)) == (1, 1)


async def test_what_is_refused_is_not_ordered(world: World) -> None:
    world.request(1)
    with pytest.raises(KeyTaken):
        world.request(1, fingerprint="0" * 64)
    with pytest.raises(LimitExceeded):
        world.request(2, max_price_sat=48_000)
    await asyncio.sleep(60)
    assert world.provider.place_count == 1


# --- placing and decoding -------------------------------------------------------------------------------------------


async def test_a_provider_that_refuses_ends_the_order(world: World) -> None:
    world.provider.next_place_errors.append(ProviderRefused("no such service"))
    order = await world.until_closed(world.request())
    assert order.end is End.PROVIDER_REFUSED
    assert world.provider.place_count == 1


async def test_placing_is_tried_again_after_an_error_that_may_pass(world: World) -> None:
    world.provider.next_place_errors += [ProviderUnavailable("HTTP 500"), ProviderProtocolError("not JSON")]
    order = await world.until_closed(world.request())
    assert order.end is End.FULFILLED
    assert world.provider.place_count == 3
    assert world.send_times_s[0] == pytest.approx(15, abs=0.5)


async def test_an_invoice_that_asks_too_much_is_never_paid(world: World) -> None:
    world.provider.amount_msat = 2_040_001
    order = await world.until_closed(world.request())
    assert order.end is End.INVOICE_REJECTED
    assert world.lnd.sends == []


async def test_an_invoice_seen_before_is_never_paid_again(world: World) -> None:
    await world.until_closed(world.request(1))
    world.provider.place_count = 0  # it hands out the same invoice again
    order = await world.until_closed(world.request(2))
    assert order.end is End.INVOICE_REJECTED
    assert len(world.lnd.sends) == 1
    assert read_stored(world.path, world.policy, world.clock.now_ms()).findings == []


async def test_a_second_order_with_the_same_id_at_the_provider_is_refused_before_it_is_paid(world: World) -> None:
    place = world.provider.place
    given: list[str] = []

    async def same_id(placing: Placing) -> Reply[Placed]:
        reply = await place(placing)
        given.append(reply.value.provider_order_id)
        return Reply(Placed(given[0], reply.value.payreq), reply.raw)

    world.provider.place = same_id  # type: ignore[method-assign]
    first, second = world.request(1), world.request(2)
    ends = [(await world.until_closed(order_id)).end for order_id in (first, second)]
    assert sorted(end is End.INVOICE_REJECTED for end in ends) == [False, True]
    assert len(world.lnd.sends) == 1


async def test_a_hash_that_the_node_paid_earlier_is_adopted_and_counts_in_no_limit(world: World) -> None:
    preimage = f"{1:064x}"
    payment_hash = hashlib.sha256(bytes.fromhex(preimage)).hexdigest()
    yesterday_ms = START_MS - 20 * 3_600_000
    world.lnd.settle(payment_hash, preimage)
    world.lnd.records[payment_hash] = replace(world.lnd.records[payment_hash], created_at_ms=yesterday_ms)

    order_id = world.request()
    await world.until(lambda: world.order(order_id).htlc is HtlcState.SETTLED)
    totals = world.store.totals(world.clock.now_ms())
    assert (totals.pending_msat, totals.spent_day_msat) == (0, 0)

    world.theirs.status = ProviderStatus(is_paid=True, code="012345")
    order = await world.until_closed(order_id)
    assert (order.end, order.code, order.spent_msat) == (End.FULFILLED, "012345", 0)


async def test_an_order_waits_for_lnd_to_come_back(world: World) -> None:
    world.lnd.is_down = True
    order_id = world.request()
    await asyncio.sleep(120)
    assert world.order(order_id).state is OrderState.AWAITING_PAYMENT
    world.lnd.is_down = False
    order = await world.until_closed(order_id)
    assert order.end is End.FULFILLED


async def test_an_order_that_could_not_be_paid_in_time_lapses_and_says_what_was_in_the_way(world: World) -> None:
    world.lnd.is_down = True
    order = await world.until_closed(world.request())
    assert order.end is End.PAYMENT_FAILED
    assert world.now_s == pytest.approx(600, abs=2)
    assert world.lnd.sends == []
    assert order.reason == "it was not paid in time: lnd is unreachable"


async def test_an_order_that_the_provider_never_took_is_not_blamed_on_lnd(world: World) -> None:
    world.lnd.is_down = True
    world.provider.next_place_errors += [ProviderUnavailable("HTTP 429", 700.0, raw="Too Many Requests")] * 9
    order = await world.until_closed(world.request())
    assert world.lnd.sends == []
    assert "lnd" not in order.reason


async def test_an_lnd_that_is_only_behind_the_chain_is_not_what_kept_an_order_from_being_paid(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncing = replace(world.lnd.status, state=NodeState.SYNCING, detail="lnd is behind.")
    monkeypatch.setattr(type(world.lnd), "status", property(lambda lnd: syncing))
    world.lnd.is_down = True
    order = await world.until_closed(world.request())
    assert order.reason == "it was not paid in time"


async def test_a_provider_that_asks_for_a_pause_gets_its_next_request_after_it(world: World) -> None:
    world.provider.next_place_errors += [ProviderUnavailable("HTTP 429", 90.0, raw="Too Many Requests")] * 2
    order = await world.until_closed(world.request())
    assert order.end is End.FULFILLED
    assert world.send_times_s[0] == pytest.approx(180, abs=2)


# --- sending --------------------------------------------------------------------------------------------------------


async def test_nothing_is_sent_from_another_node_than_the_one_that_vetted(world: World) -> None:
    world.lnd.on_look = lambda: setattr(world.lnd, "node", MALLORY)
    order_id = world.request()
    await asyncio.sleep(60)
    assert world.lnd.sends == []
    assert world.order(order_id).htlc is HtlcState.NONE
    world.lnd.on_look = lambda: setattr(world.lnd, "node", ALICE)
    assert (await world.until_closed(order_id)).end is End.FULFILLED


async def test_another_node_behind_the_address_concludes_nothing_about_a_payment(world: World) -> None:
    order_id = world.request()
    await world.until(lambda: world.order(order_id).htlc is HtlcState.IN_FLIGHT)
    world.lnd.node = MALLORY
    world.lnd.break_streams()
    assert world.engine.node_status().state is NodeState.WRONG_NODE
    await asyncio.sleep(100)
    order = world.order(order_id)
    assert (order.htlc, order.is_closed) == (HtlcState.IN_FLIGHT, False)
    assert order.code == "012345", "the provider is polled all the same"
    world.lnd.node = ALICE
    assert (await world.until_closed(order_id)).end is End.FULFILLED


async def test_while_money_is_out_from_one_node_no_other_one_pays(world: World) -> None:
    world.provider.story = Story(number_after_s=None, code_after_s=60)
    held_id = world.request(1)
    await world.until(lambda: world.order(held_id).state is OrderState.PAID)
    waiting_id = world.request(2)
    world.lnd.is_down = True
    await asyncio.sleep(5)
    world.lnd.node, world.lnd.is_down = MALLORY, False
    world.lnd.break_streams()
    await asyncio.sleep(20)
    assert (world.order(waiting_id).payment, len(world.lnd.sends)) == (None, 1)
    world.lnd.node = ALICE
    for order_id in (held_id, waiting_id):
        assert (await world.until_closed(order_id)).end is End.FULFILLED
    assert len(world.lnd.sends) == 2


async def test_a_failed_payment_whose_record_was_deleted_does_not_keep_a_lost_dispatch_open_for_ever(
    world: World,
) -> None:
    world.lnd.next_sends += [Send(fails=HOP_DOWN), Send(arrives_after_s=None, is_lost=True)]
    order_id = world.request()
    await world.until(lambda: world.order(order_id).htlc is HtlcState.FAILED)
    world.lnd.records.clear()
    assert (await world.until_closed(order_id)).end is End.FULFILLED
    assert len(world.lnd.sends) == 3


async def test_a_node_that_changes_at_the_last_moment_gets_no_payment(world: World) -> None:
    """The intent is on disk then: only two NOT_FOUNDs of the right node undo it."""

    def send(spec: object, payer: NodeIdentity) -> AsyncGenerator[LndMessage, None]:
        world.lnd.node = MALLORY
        return FakeLnd.send(world.lnd, spec, payer)  # type: ignore[arg-type]

    world.lnd.send = send  # type: ignore[method-assign]
    order_id = world.request()
    await world.until(lambda: world.order(order_id).htlc is HtlcState.UNKNOWN)
    del world.lnd.send
    await asyncio.sleep(50)
    assert world.order(order_id).htlc is HtlcState.UNKNOWN
    world.lnd.node = ALICE
    assert (await world.until_closed(order_id)).end is End.FULFILLED
    assert len(world.lnd.sends) == 1


def _set_clock_at_the_next_look(world: World, by_ms: int) -> None:
    def look() -> None:
        world.lnd.on_look = lambda: None
        world.clock.offset_ms += by_ms

    world.lnd.on_look = look


async def test_a_dispatch_whose_time_runs_out_at_the_last_moment_is_not_sent(world: World) -> None:
    """The look and the commit read the clock twice; between them pay_by goes by."""
    _set_clock_at_the_next_look(world, by_ms=600_000)
    order = await world.until_closed(world.request())
    assert world.lnd.sends == []
    assert order.end is End.PAYMENT_FAILED


async def test_what_was_not_committed_is_not_sent(world: World) -> None:
    _set_clock_at_the_next_look(world, by_ms=-3_000)
    order_id = world.request()
    await asyncio.sleep(2)
    assert world.lnd.sends == []
    assert (await world.until_closed(order_id)).end is End.FULFILLED
    assert len(world.lnd.sends) == world.events(order_id).count("dispatch_intended") == 1


async def test_a_routing_failure_is_followed_by_the_last_rung_after_an_unpaid_reply(world: World) -> None:
    world.lnd.next_sends += [Send(fails=NO_ROUTE)]
    order = await world.until_closed(world.request())
    assert order.end is End.FULFILLED
    assert [spec.fee_limit_msat for _, spec in world.lnd.sends] == [10_000, 20_000]
    assert {spec.payment_hash for _, spec in world.lnd.sends} == {world.theirs.payment_hash}
    assert world.provider.place_count == 1
    (first, _), (second, _) = world.lnd.sends
    assert any(first < polled < second for polled in world.provider.polls)
    assert second - first < 1000


async def test_dispatches_are_far_apart_and_bounded_and_the_order_then_ends(world: World) -> None:
    world.lnd.next_sends += [Send(fails=HOP_DOWN)] * 50
    order = await world.until_closed(world.request())
    assert order.end is End.PAYMENT_FAILED
    gaps_s = [round(b - a) for a, b in zip(world.send_times_s, world.send_times_s[1:], strict=False)]
    assert gaps_s == [0, 60, 120, 180, 180]
    assert order.reserved_msat == 0
    assert len(world.provider.polls) < 60


async def test_nothing_is_sent_again_without_the_providers_word(world: World) -> None:
    world.lnd.next_sends += [Send(fails=NO_ROUTE)]
    order_id = world.request()
    world.provider.go_down()
    order = await world.until_closed(order_id)
    assert len(world.lnd.sends) == 1
    assert order.end is End.PAYMENT_FAILED
    assert world.now_s == pytest.approx(720, abs=2)


# --- a send may be lost, arrive late, or be refused -----------------------------------------------------------------


async def test_a_send_that_was_lost_is_sent_again_only_after_two_not_founds_and_an_unpaid_reply(world: World) -> None:
    world.lnd.next_sends += [Send(arrives_after_s=None, is_lost=True)]
    order = await world.until_closed(world.request())
    assert order.end is End.FULFILLED
    first_s, second_s = world.send_times_s
    asked_s = [at_s for at_s in world.track_times_s if first_s < at_s < second_s]
    assert asked_s[-1] - asked_s[0] >= 30
    assert second_s - first_s < 40
    assert len(asked_s) == 2


@pytest.mark.parametrize("late_s", [0.5, 5, 28])
async def test_a_send_that_arrives_after_a_not_found_is_found_and_not_sent_again(world: World, late_s: float) -> None:
    world.lnd.next_sends += [Send(arrives_after_s=late_s, is_lost=True)]
    order = await world.until_closed(world.request())
    assert order.end is End.FULFILLED
    assert len(world.lnd.sends) == 1


async def test_a_send_that_arrives_after_its_absence_was_proven_is_still_paid_only_once(world: World) -> None:
    """The proof is only as good as its 30 s: LND's own guard against a duplicate is the last one."""
    world.lnd.next_sends += [Send(arrives_after_s=35, is_lost=True), Send(arrives_after_s=3)]
    order = await world.until_closed(world.request())
    assert order.end is End.FULFILLED
    assert len(world.lnd.records) == 1


async def test_a_refusal_while_the_payment_is_in_flight_is_not_believed(world: World) -> None:
    """The operator had paid our invoice by hand; LND may also say `invoice expired` of a held payment."""
    world.lnd.next_sends += [Send(arrives_after_s=0, refusal="invoice expired. Valid until 2026-11-22")]
    order_id = world.request()
    order = await world.until_closed(order_id)
    assert order.end is End.FULFILLED
    assert len(world.lnd.sends) == 1
    assert "send_refused" in world.events(order_id)


async def test_a_refusal_that_left_no_record_ends_the_order_after_the_proof(world: World) -> None:
    world.lnd.next_sends += [Send(arrives_after_s=None, refusal="cltv limit 20 should be greater than 83")]
    order = await world.until_closed(world.request())
    assert order.end is End.PAYMENT_FAILED
    assert "cltv limit 20" in order.reason
    assert len(world.lnd.sends) == 1
    assert 30 < world.now_s < 60


async def test_a_send_that_says_nothing_is_tracked(world: World) -> None:
    world.lnd.next_sends += [Send(is_silent=True)]
    world.provider.story = Story(paid_after_s=200, number_after_s=210, code_after_s=220)
    order_id = world.request()
    await world.until(lambda: world.order(order_id).htlc is HtlcState.IN_FLIGHT)
    assert world.now_s == pytest.approx(30, abs=1)
    assert (await world.until_closed(order_id)).end is End.FULFILLED
    assert len(world.lnd.sends) == 1


async def test_a_send_that_says_nothing_is_tracked_soon_once_the_provider_calls_it_paid(world: World) -> None:
    world.lnd.next_sends += [Send(is_silent=True)]
    order_id = world.request()
    await world.until(lambda: world.order(order_id).htlc is HtlcState.IN_FLIGHT)
    assert world.now_s < 20, "lnd's silence alone is given 30 s"


# --- streams --------------------------------------------------------------------------------------------------------


async def _held(world: World, story: Story | None = None) -> str:
    world.provider.story = story or Story(number_after_s=None, code_after_s=None)
    order_id = world.request()
    await world.until(lambda: world.order(order_id).state in {OrderState.PAID, OrderState.NUMBER_ASSIGNED})
    return order_id


async def test_a_lost_stream_is_taken_up_again_and_the_money_still_counts_as_out(world: World) -> None:
    order_id = await _held(world, Story(number_after_s=None, code_after_s=300))
    world.lnd.break_streams()
    await world.until(lambda: len(world.lnd.tracks) == 1)
    assert world.order(order_id).htlc is HtlcState.IN_FLIGHT
    assert (await world.until_closed(order_id)).end is End.FULFILLED


async def test_lnd_that_restarts_while_held_is_found_again(world: World) -> None:
    order_id = await _held(world)
    world.lnd.is_down = True
    world.lnd.break_streams()
    await asyncio.sleep(600)
    world.lnd.settle(world.theirs.payment_hash, world.theirs.preimage)
    world.lnd.is_down = False
    await world.until(lambda: world.order(order_id).htlc is HtlcState.SETTLED, within_s=20)


async def test_a_silent_stream_is_asked_anew_every_five_minutes(world: World) -> None:
    await _held(world)
    await asyncio.sleep(1000)
    assert [round(at_s) for at_s in world.track_times_s] == [300, 600, 900]


@pytest.mark.parametrize("end", ["settled", "refunded"])
async def test_a_stream_that_hangs_is_asked_anew_when_the_provider_says_that_it_is_over(world: World, end: str) -> None:
    order_id = await _held(world)
    theirs = world.theirs
    if end == "settled":
        theirs.status = replace(theirs.status, code="012345")
        world.lnd.settle(theirs.payment_hash, theirs.preimage, to_streams=False)
    else:
        theirs.status = replace(theirs.status, error="No available number")
        world.lnd.say(theirs.payment_hash, REFUSED_BY_PAYEE, to_streams=False)
    order = await world.until_closed(order_id, within_s=10)
    assert order.end is (End.FULFILLED if end == "settled" else End.REFUNDED)


async def test_lnd_that_breaks_every_stream_at_once_is_asked_at_growing_intervals(world: World) -> None:
    order_id = await _held(world)
    world.lnd.next_tracks += [(Lost("stream removed"),)] * 1000
    world.lnd.break_streams()
    await asyncio.sleep(600)
    assert 20 < len(world.lnd.tracks) < 60
    assert not world.order(order_id).is_closed


async def test_lnd_that_ends_every_stream_without_a_word_is_asked_at_growing_intervals(world: World) -> None:
    order_id = await _held(world)
    world.lnd.next_tracks += [()] * 1000
    world.lnd.break_streams()
    await asyncio.sleep(600)
    assert 20 < len(world.lnd.tracks) < 60
    assert not world.order(order_id).is_closed


async def test_lnd_that_says_succeeded_without_a_preimage_is_not_believed_and_not_asked_in_a_hot_loop(
    world: World,
) -> None:
    order_id = await _held(world)
    world.lnd.settle(world.theirs.payment_hash, "00" * 32)
    await asyncio.sleep(600)
    assert world.order(order_id).htlc is HtlcState.IN_FLIGHT
    assert 20 < len(world.lnd.tracks) < 60
    world.lnd.settle(world.theirs.payment_hash, world.theirs.preimage)
    await world.until(lambda: world.order(order_id).htlc is HtlcState.SETTLED, within_s=30)


async def test_a_record_that_was_deleted_leaves_the_order_open_and_watched(world: World) -> None:
    order_id = await _held(world)
    world.lnd.records.clear()
    world.lnd.break_streams()
    await asyncio.sleep(3600)
    order = world.order(order_id)
    assert (order.htlc, order.is_closed) == (HtlcState.IN_FLIGHT, False)
    assert len(world.lnd.tracks) < 3600 / 15 + 10
    assert _duties(world, order_id) == {Duty.PAY, Duty.POLL}
    assert len(world.store.updates(0, order_id, 1000)) < 70, "anomalies must not fill the disk"


# --- the provider ---------------------------------------------------------------------------------------------------


async def test_a_provider_that_is_down_for_an_hour_is_asked_seldom_and_believed_afterwards(world: World) -> None:
    order_id = await _held(world, Story(number_after_s=None, code_after_s=1000))
    polls = len(world.provider.polls)
    world.provider.go_down()
    await asyncio.sleep(3600)
    assert len(world.provider.polls) - polls < 3600 / 60 + 10
    assert world.order(order_id).htlc is HtlcState.SETTLED
    assert not world.order(order_id).is_closed
    world.provider.come_back()
    order = await world.until_closed(order_id, within_s=61)
    assert (order.end, order.code) == (End.FULFILLED, "012345")


async def test_nonsense_of_the_provider_is_noted_a_bounded_number_of_times(world: World) -> None:
    order_id = await _held(world)
    world.provider.status_error = ProviderProtocolError("not JSON", raw="<html>")
    await asyncio.sleep(20_000)
    order = world.order(order_id)
    assert order.htlc is HtlcState.IN_FLIGHT
    assert order.anomaly_count == 50
    assert _duties(world, order_id) == {Duty.PAY, Duty.POLL}


async def test_replies_that_change_nothing_are_not_a_hot_loop(world: World) -> None:
    order_id = await _held(world)
    rows = len(world.events(order_id))
    await asyncio.sleep(1000)
    assert len(world.provider.polls) < 100
    assert len(world.events(order_id)) == rows


# --- the wish to cancel ---------------------------------------------------------------------------------------------


async def test_a_wish_to_cancel_is_carried_out_after_two_minutes(world: World) -> None:
    order_id = await _held(world)
    await world.engine.cancel(order_id)
    order = await world.until_closed(order_id)
    assert order.end is End.REFUNDED
    assert [round((at_ms - order.created_at_ms) / 1000) for at_ms in world.provider.cancels] == [120]


async def test_a_code_that_comes_first_wins_over_the_wish(world: World) -> None:
    """The settlement lags, so the order is still open when the cancel would be due."""
    order_id = await _held(world, Story(number_after_s=20, code_after_s=115, resolve_lag_s=60))
    await world.engine.cancel(order_id)
    order = await world.until_closed(order_id)
    assert order.end is End.FULFILLED
    assert world.provider.cancels == []


async def test_a_code_that_the_last_look_finds_wins_over_the_wish(world: World) -> None:
    order_id = await _held(world)
    await world.engine.cancel(order_id)
    await world.until(lambda: world.now_s > 119.5)
    world.theirs.status = replace(world.theirs.status, code="012345")
    await asyncio.sleep(5)
    assert world.order(order_id).code == "012345"
    assert world.provider.cancels == []


async def test_a_refused_cancel_is_tried_again_until_the_money_is_back(world: World) -> None:
    order_id = await _held(world, Story(number_after_s=None, code_after_s=None, over_after_s=400, refuses_cancel=True))
    await world.engine.cancel(order_id)
    order = await world.until_closed(order_id)
    assert order.end is End.REFUNDED
    assert len(world.provider.cancels) == 10
    assert max(world.provider.cancels) - order.created_at_ms < 400_000 + 2_000


async def test_a_cancel_before_the_payment_ends_the_order_at_once(world: World) -> None:
    world.lnd.is_down = True
    order_id = world.request()
    await world.until_event(order_id, "order_placed")
    assert (await world.engine.cancel(order_id)).end is End.CANCELED_UNPAID
    world.lnd.is_down = False
    await asyncio.sleep(100)
    assert world.lnd.sends == []
    assert _duties(world, order_id) == set()


async def test_a_cancel_between_two_dispatches_lets_no_further_one_out(world: World) -> None:
    world.lnd.next_sends += [Send(fails=HOP_DOWN)] * 2
    order_id = world.request()
    await world.until(lambda: len(world.lnd.sends) == 2 and world.order(order_id).htlc is HtlcState.FAILED)
    assert (await world.engine.cancel(order_id)).end is End.CANCELED_UNPAID
    await asyncio.sleep(300)
    assert len(world.lnd.sends) == 2


async def test_a_wish_survives_a_restart_and_repeating_it_changes_nothing(world: World) -> None:
    order_id = await _held(world)
    await world.engine.cancel(order_id)
    await world.crash()
    await asyncio.sleep(10)
    world.start()
    await world.engine.cancel(order_id)
    assert (await world.until_closed(order_id)).end is End.REFUNDED
    assert len(world.provider.cancels) == 1


async def test_a_cancel_of_a_closed_order_changes_nothing(world: World) -> None:
    order_id = world.request()
    order = await world.until_closed(order_id)
    assert await world.engine.cancel(order_id) == order


# --- the process dies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_durable", [False, True], ids=["before the commit", "after the commit"])
@pytest.mark.parametrize("nth", range(1, 7))
async def test_a_crash_at_any_commit_costs_neither_the_code_nor_a_second_payment(
    tmp_path: Path, nth: int, is_durable: bool
) -> None:
    world = World(tmp_path / "holdpay.db")
    world.start(crash_at=nth, is_durable=is_durable)
    order_id = world.request()
    assert isinstance(await world.failure(), StoreError)
    await world.crash()
    sent = len(world.lnd.sends)
    await asyncio.sleep(7)
    assert len(world.lnd.sends) == sent, "a dead process sends nothing"
    world.start()
    order = await world.until_closed(order_id)
    assert (order.end, order.code) == (End.FULFILLED, "012345")
    assert len(world.lnd.sends) == 1
    await world.close()


@pytest.mark.parametrize("every_s", [0.01, 0.3, 2, 11])
async def test_a_daemon_that_is_killed_again_and_again_still_pays_once(world: World, every_s: float) -> None:
    order_id = world.request()
    for _ in range(40):
        await asyncio.sleep(every_s)
        await world.crash()
        await asyncio.sleep(every_s / 2)
        world.start()
    order = await world.until_closed(order_id)
    assert (order.end, order.code) == (End.FULFILLED, "012345")
    assert len(world.lnd.sends) == 1


async def test_a_send_cut_off_by_a_crash_is_not_repeated_blindly(tmp_path: Path) -> None:
    """The intent was committed, the process died before SendPaymentV2: the proof of absence comes first."""
    world = World(tmp_path / "holdpay.db")
    world.start(crash_at=1, is_durable=True)
    order_id = world.request()
    await world.failure()
    assert world.lnd.sends == []
    await world.crash()
    world.start()
    assert world.order(order_id).htlc is HtlcState.UNKNOWN
    await world.until(lambda: len(world.lnd.sends) == 1)
    assert 30 < world.now_s < 36
    assert (await world.until_closed(order_id)).end is End.FULFILLED
    await world.close()


async def test_what_ended_while_the_daemon_was_away_is_found_at_its_start(world: World) -> None:
    order_id = await _held(world, Story(code_after_s=30))
    await world.crash()
    await asyncio.sleep(3600)
    world.start()
    order = await world.until_closed(order_id, within_s=5)
    assert (order.end, order.code) == (End.FULFILLED, "012345")
    assert len(world.lnd.sends) == 1


async def test_a_refund_that_reads_as_a_timeout_after_a_restart_is_not_paid_again(world: World) -> None:
    order_id = await _held(world, Story(number_after_s=None, code_after_s=None, over_after_s=100))
    await world.crash()
    await asyncio.sleep(200)
    world.lnd.say(world.theirs.payment_hash, NO_ROUTE)
    world.start()
    assert (await world.until_closed(order_id)).end is End.REFUNDED
    assert len(world.lnd.sends) == 1


async def test_a_failed_commit_ends_the_process_and_nothing_is_sent(tmp_path: Path) -> None:
    world = World(tmp_path / "holdpay.db")
    world.start(crash_at=1)
    world.request()
    assert isinstance(await world.failure(), StoreError)
    await asyncio.sleep(1000)
    assert world.lnd.sends == []
    assert len(asyncio.all_tasks()) == 1
    await world.crash()


async def test_an_order_that_contradicts_itself_is_put_aside_for_good_and_the_others_go_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = await _held(world, Story(number_after_s=None, code_after_s=300))

    def broken(order: Order, event: Event, *args: Any) -> Step:
        if isinstance(event, CancelRequested):
            raise InvariantViolation("Two truths.")
        return decide(order, event, *args)

    monkeypatch.setattr("holdpay.engine.engine.decide", broken)
    for _ in range(3):
        await world.engine.cancel(order_id)
    aside = world.order(order_id)
    assert (aside.quarantine_reason, aside.cancel_wanted_at_ms) == ("Two truths.", None)
    assert world.events(order_id).count("order_quarantined") == 1
    assert "quarantined" in alarms(aside, world.policy, world.clock.now_ms())[0]
    await world.crash()
    world.start()
    assert world.order(order_id).is_quarantined
    world.provider.story = Story()
    assert (await world.until_closed(world.request(2))).end is End.FULFILLED
    await world.until(lambda: world.order(order_id).code is not None)
    await asyncio.sleep(100 * 3600)
    watched = world.order(order_id)
    assert (watched.code, watched.htlc, watched.is_closed) == ("012345", HtlcState.SETTLED, False), "a person ends it"


async def test_a_quarantined_order_is_never_dispatched_and_no_deadline_closes_it(world: World) -> None:
    world.lnd.next_sends = deque([Send(fails=NO_ROUTE)] * 5)
    order_id = world.request()
    await world.until(lambda: world.order(order_id).htlc is HtlcState.FAILED)
    sends = len(world.lnd.sends)
    world.engine.quarantine(order_id, InvariantViolation("Two truths."))
    await asyncio.sleep(3 * 24 * 3600)
    assert len(world.lnd.sends) == sends
    assert not world.order(order_id).is_closed


async def test_a_stored_row_that_breaks_a_law_stops_no_start_and_no_other_order(world: World) -> None:
    order_id = await _held(world, Story(number_after_s=None, code_after_s=300))
    world.store._conn.execute("UPDATE orders SET state = 'requested' WHERE id = ?", (order_id,))
    await world.crash()
    world.start()
    assert world.order(order_id).is_quarantined
    world.provider.story = Story()
    assert (await world.until_closed(world.request(2))).end is End.FULFILLED
    await world.until(lambda: world.order(order_id).code is not None)
    count = len(world.events(order_id))
    await asyncio.sleep(24 * 3600)
    assert len(world.events(order_id)) == count, "the same contradiction fills the journal"
    assert len(world.lnd.sends) == 2


async def test_a_row_that_cannot_be_read_stops_no_start_and_no_other_order(world: World) -> None:
    order_id = await _held(world)
    world.store._conn.execute("UPDATE orders SET state = 'nonsense' WHERE id = ?", (order_id,))
    await world.crash()
    world.start()
    assert order_id in world.engine.alarms_of_unreadable()[0]
    assert world.engine.totals() == world.store.totals(world.clock.now_ms()), "it counts all the same"
    assert world.engine.totals().open_orders == 1
    world.provider.story = Story()
    assert (await world.until_closed(world.request(2))).end is End.FULFILLED


async def test_a_request_whose_order_cannot_be_read_any_more_is_refused_and_orders_nothing(world: World) -> None:
    order_id = await _held(world)
    world.store._conn.execute("UPDATE orders SET state = 'nonsense' WHERE id = ?", (order_id,))
    before = world.store.last_cursor()
    with pytest.raises(OrderUnreadable, match="holdpayd check"):
        world.request(1)
    assert (world.store.last_cursor(), len(world.provider.orders)) == (before, 1)
    world.provider.story = Story()
    assert (await world.until_closed(world.request(2))).end is End.FULFILLED, "the process goes on"


async def test_after_a_failed_commit_nothing_is_written_any_more(world: World) -> None:
    order_id = await _held(world, Story(number_after_s=None, code_after_s=300))
    before = world.store.last_cursor()
    world.engine._supervisor.fail(StoreError("planted"))
    with pytest.raises(StoreError, match="planted"):
        world.request(2)
    with pytest.raises(StoreError, match="planted"):
        await world.engine.cancel(order_id)
    with pytest.raises(StoreError, match="planted"):
        await world.running
    assert world.store.last_cursor() == before
    await world.crash()
    world.start()
    assert (await world.until_closed(order_id)).end is End.FULFILLED


async def test_stopping_watches_no_more_and_touches_nothing(world: World) -> None:
    order_id = await _held(world)
    before = world.order(order_id)
    await world.crash()
    assert len(asyncio.all_tasks()) == 1
    assert world.provider.cancels == []
    assert world.lnd.records[world.theirs.payment_hash].status is PaymentStatus.IN_FLIGHT
    world.start()
    assert world.order(order_id) == before


# --- a defect of ours -----------------------------------------------------------------------------------------------


async def test_a_task_that_dies_of_a_defect_is_started_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    order_id = await _held(world, Story(number_after_s=20, code_after_s=60))
    track, order_status = world.lnd.track, world.provider.order_status
    broken_until_s = world.now_s + 10

    def breaks(*args: Any) -> Any:
        if world.now_s < broken_until_s:
            raise ZeroDivisionError("planted")
        return track(*args)

    async def breaks_too(*args: Any) -> Any:
        if world.now_s < broken_until_s:
            raise ZeroDivisionError("planted")
        return await order_status(*args)

    world.lnd.track = breaks  # type: ignore[method-assign, assignment]
    world.provider.order_status = breaks_too  # type: ignore[method-assign, assignment]
    world.lnd.break_streams()
    await asyncio.sleep(9)
    assert _duties(world, order_id) == {Duty.POLL}
    order = await world.until_closed(order_id, within_s=120)
    assert (order.end, order.code) == (End.FULFILLED, "012345")


async def test_each_completed_pass_is_announced(world: World) -> None:
    passes: list[float] = []
    world.engine.on_pass = lambda: passes.append(world.now_s)
    await asyncio.sleep(10.5)
    assert len(passes) == 10


# --- what lnd's own word would never end ------------------------------------------------------------------------------


async def test_an_order_whose_lnd_record_is_gone_closes_after_its_expiry_height_when_no_channel_carries_it(
    world: World,
) -> None:
    world.provider.story = Story(number_after_s=None, code_after_s=None)
    order_id = world.request()
    await world.until(lambda: world.order(order_id).state is OrderState.PAID)
    payment_hash = world.theirs.payment_hash
    world.provider.go_down()
    del world.lnd.records[payment_hash]
    world.lnd.break_streams()
    world.lnd.carried = {payment_hash}
    await asyncio.sleep(3600)
    assert world.lnd.looks == [], "before the expiry height there is nothing to look for"

    world.lnd.block_height = 800_164
    await asyncio.sleep(3600)
    assert len(world.lnd.looks) > 2
    assert not world.order(order_id).is_closed, "a channel carries it"

    world.lnd.carried = set()
    closed = await world.until_closed(order_id)
    assert (closed.htlc, closed.end) == (HtlcState.GONE, End.OUTCOME_UNKNOWN)
    assert world.store.totals(world.clock.now_ms()).spent_day_msat == closed.spent_msat == 2_001_002


async def test_an_htlc_that_lnd_never_signed_closes_after_its_expiry_height(world: World) -> None:
    """lnd was killed before it signed: it calls the payment in flight through every restart (lnd issue 9340)."""
    world.lnd.on_arrival = lambda payment_hash: None
    order_id = world.request()
    await world.until(lambda: world.order(order_id).htlc is HtlcState.IN_FLIGHT)
    await asyncio.sleep(3 * 3600)
    assert not world.order(order_id).is_closed
    world.lnd.block_height = 800_164
    closed = await world.until_closed(order_id)
    assert (closed.htlc, closed.end, closed.spent_msat) == (HtlcState.FAILED, End.PAYMENT_FAILED, 0)
    assert len(world.lnd.sends) == 1


async def test_channels_that_cannot_be_looked_at_close_nothing(world: World) -> None:
    world.lnd.on_arrival = lambda payment_hash: None
    order_id = world.request()
    await world.until(lambda: world.order(order_id).htlc is HtlcState.IN_FLIGHT)
    world.lnd.block_height, world.lnd.look_error = 800_164, LndDenied("no PendingChannels")
    await asyncio.sleep(3 * 3600)
    assert not world.order(order_id).is_closed
