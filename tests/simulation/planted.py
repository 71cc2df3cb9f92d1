"""Mistakes that a tired engineer could make, each as a patch of the real core. The simulation must catch every one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from holdpay.core import budget, duties, hold, machine, prepaid, step, tables
from holdpay.core import events as ev
from holdpay.core.charge import ChargeState
from holdpay.core.items import Item, ItemKind, Keeper
from holdpay.core.kinds import CodeSpec, FundSpec, RentalSpec, SmsSpec
from holdpay.core.kinds.message import MessageSpec
from holdpay.core.lightning import PaymentStatus
from holdpay.core.model import Order, Payment
from holdpay.core.outstanding import NOTHING, Outstanding, outstanding
from holdpay.core.policy import classify
from holdpay.core.states import End, FailureClass, HtlcState, OrderSignal, OrderState
from holdpay.core.succession import decide_between
from holdpay.store import ledger
from tests.simulation import daemon, purse
from tests.unit import build

BUGS: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {}


def bug(plant: Callable[[], contextlib.AbstractContextManager[Any]]) -> Callable[[], Any]:
    BUGS[plant.__name__] = plant
    return plant


def _handler(event: type[Any], handler: Callable[..., Order]) -> contextlib.AbstractContextManager[Any]:
    return patch.dict(machine._HANDLERS, {event: handler})


def _without(order: Order, kind: ItemKind) -> tuple[Item, ...]:
    return tuple(item for item in order.items if item.kind is not kind)


def _with_charge(order: Order, state: ChargeState) -> Order:
    assert order.charge is not None
    return replace(order, charge=replace(order.charge, state=state))


def _with_htlc(order: Order, htlc: HtlcState, ctx: Any) -> Order:
    assert order.payment is not None
    payment = replace(order.payment, htlc=htlc, htlc_since_ms=ctx.now_ms, dispatch_at_ms=ctx.now_ms)
    return replace(order, payment=payment)


@bug
def unknown_is_taken_for_none() -> contextlib.AbstractContextManager[Any]:
    """After a restart a payment that was being sent counts as never sent."""

    def restarted(order: Order, event: ev.Event, ctx: Any) -> Order:
        is_sending = order.htlc in {HtlcState.DISPATCHING, HtlcState.UNKNOWN}
        return _with_htlc(order, HtlcState.NONE, ctx) if is_sending else order

    return _handler(ev.DaemonRestarted, restarted)


@bug
def one_not_found_is_proof() -> contextlib.AbstractContextManager[Any]:
    """LND said NOT_FOUND once, so nothing was sent."""

    def not_found(order: Order, event: ev.Event, ctx: Any) -> Order:
        return _with_htlc(order, HtlcState.NONE, ctx) if order.is_money_out else order

    return _handler(ev.PaymentNotFound, not_found)


@bug
def a_refusal_is_believed() -> contextlib.AbstractContextManager[Any]:
    """LND said "invoice expired", so the payment failed."""

    def refused(order: Order, event: ev.Event, ctx: Any) -> Order:
        return replace(_with_htlc(order, HtlcState.NONE, ctx), giving_up="refused")

    return _handler(ev.SendRefused, refused)


@bug
def a_lost_stream_means_failed() -> contextlib.AbstractContextManager[Any]:
    """The stream broke, so the payment failed."""

    def lost(order: Order, event: ev.Event, ctx: Any) -> Order:
        return replace(_with_htlc(order, HtlcState.NONE, ctx), giving_up="lost") if order.is_money_out else order

    return _handler(ev.TrackingLost, lost)


@bug
def an_order_is_abandoned_in_flight() -> contextlib.AbstractContextManager[Any]:
    """The promise has passed, so the order is closed."""
    close = machine._close_if_over

    def impatient(order: Order, ctx: Any) -> Order:
        until_ms = machine.promise_until_ms(order, ctx.policy)
        if until_ms is not None and ctx.now_ms > until_ms and order.htlc is HtlcState.IN_FLIGHT:
            order = replace(_with_htlc(order, HtlcState.FAILED, ctx), giving_up="too late")
        return close(order, ctx)

    return patch.object(machine, "_close_if_over", impatient)


@bug
def a_cancel_counts_as_a_refund() -> contextlib.AbstractContextManager[Any]:
    """The provider says that it is over, so the money is back."""
    close = machine._close_if_over

    def trusting(order: Order, ctx: Any) -> Order:
        if order.state is OrderState.CANCELED and order.htlc is HtlcState.IN_FLIGHT:
            order = _with_htlc(order, HtlcState.FAILED, ctx)
        return close(order, ctx)

    return patch.object(machine, "_close_if_over", trusting)


@bug
def a_payment_is_sent_again_after_a_hold() -> contextlib.AbstractContextManager[Any]:
    """NO_ROUTE looks retryable, also when the HTLC had reached the payee."""

    @contextlib.contextmanager
    def planted() -> Iterator[None]:
        retry = hold._plan_retry

        def forgetful(order: Order, ctx: Any) -> Order:
            assert order.payment is not None
            return retry(replace(order, payment=replace(order.payment, reached_payee=False)), ctx)

        with (
            patch.object(hold, "_plan_retry", forgetful),
            patch.object(hold, "is_licensed", lambda payment: True),
        ):
            yield

    return planted()


@bug
def a_retry_needs_no_license() -> contextlib.AbstractContextManager[Any]:
    """A failed payment is sent again before the provider has said that it is unpaid."""
    return patch.object(hold, "is_licensed", lambda payment: True)


@bug
def a_failure_of_an_earlier_dispatch_is_believed() -> contextlib.AbstractContextManager[Any]:
    """The failure that LND still shows is taken for the new dispatch's, which may be on its way."""
    return patch.object(hold, "_is_about_an_earlier_dispatch", lambda payment, update: False)


@bug
def a_try_is_known_by_its_number_alone() -> contextlib.AbstractContextManager[Any]:
    """The failure of the latest dispatch is taken for that of the one before, whose number SQLite gave it."""
    return patch.object(hold, "_is_same_try", lambda failure, update: failure.payment_index == update.payment_index)


@bug
def a_preimage_is_not_checked() -> contextlib.AbstractContextManager[Any]:
    """SUCCEEDED is enough."""
    return patch.object(hold, "preimage_fits", lambda preimage, payment_hash: True)


@bug
def a_code_is_forgotten_on_restart() -> contextlib.AbstractContextManager[Any]:
    """The code lives in memory only."""
    restarted = machine._HANDLERS[ev.DaemonRestarted]

    def forgetful(order: Order, event: ev.Event, ctx: Any) -> Order:
        return replace(restarted(order, event, ctx), items=_without(order, ItemKind.CODE))

    return _handler(ev.DaemonRestarted, forgetful)


@bug
def a_later_reply_erases_the_code() -> contextlib.AbstractContextManager[Any]:
    """The latest reply is the truth: what it lacks is gone."""

    keep = machine._keep_words

    def latest(order: Order, status: ev.ProviderStatus, ctx: Any) -> Order:
        return keep(replace(order, items=()), status, ctx)

    @contextlib.contextmanager
    def planted() -> Iterator[None]:
        with (
            patch.object(machine, "_keep_words", latest),
            patch.object(duties, "_may_be_polled", lambda order: order.provider_order_id is not None),
            patch.object(CodeSpec, "follow_poll_s", lambda *_: 15.0),
        ):
            yield

    return planted()


@bug
def nobody_asks_for_the_code_after_the_charge() -> contextlib.AbstractContextManager[Any]:
    """Once the HTLC is settled, the provider is not asked any more."""
    may = duties._may_be_polled
    return patch.object(duties, "_may_be_polled", lambda order: order.htlc is not HtlcState.SETTLED and may(order))


@bug
def nobody_tracks_an_unknown_payment() -> contextlib.AbstractContextManager[Any]:
    """Only payments that are known to be in flight are followed."""
    wanted = duties.duties

    def lazy(order: Order) -> frozenset[duties.Duty]:
        found = wanted(order)
        return found - {duties.Duty.PAY} if order.htlc is HtlcState.UNKNOWN else found

    return patch.object(duties, "duties", lazy)


@bug
def a_silent_stream_is_waited_for_for_ever() -> contextlib.AbstractContextManager[Any]:
    """A stream that LND forgot is never given up for a fresh Track."""
    return patch.object(duties, "retrack_at_ms", lambda order, opened, heard, policy: heard + 10**12)


@bug
def a_failure_read_later_is_taken_for_a_live_one() -> contextlib.AbstractContextManager[Any]:
    """Attempts are gone and the reason is overwritten, and it is taken at its word."""

    def hasty(update: Any, live: bool) -> FailureClass:
        return classify(update, True)

    @contextlib.contextmanager
    def planted() -> Iterator[None]:
        with patch.object(hold, "classify", hasty), patch.object(hold, "is_licensed", lambda payment: True):
            yield

    return planted()


@bug
def a_lost_record_is_given_up_at_once() -> contextlib.AbstractContextManager[Any]:
    """LND has forgotten the payment, so it had ended."""

    def hasty(order: Order, event: ev.PaymentNotFound, ctx: Any) -> Order:
        payment = order.payment
        if payment is None or not order.is_money_out or not payment.is_known_to_lnd:
            return order
        return hold._gone(order, payment, "gone", ctx)

    return _handler(ev.PaymentNotFound, hasty)


@bug
def a_channel_that_carries_the_htlc_is_overlooked() -> contextlib.AbstractContextManager[Any]:
    """Two looks are two looks, whatever they saw, and whatever the height."""
    looked_for = machine._HANDLERS[ev.HtlcLookedFor]

    def blind(order: Order, event: ev.HtlcLookedFor, ctx: Any) -> Order:
        return looked_for(order, ev.HtlcLookedFor(replace(event.look, is_in_channel=False, block_height=10**6)), ctx)

    @contextlib.contextmanager
    def planted() -> Iterator[None]:
        wants = duties.wants_look

        def always(order: Order, policy: Any, height: int, now_ms: int) -> bool:
            return wants(order, policy, 10**6, now_ms)

        with _handler(ev.HtlcLookedFor, blind), patch.object(duties, "wants_look", always):
            yield

    return planted()


@bug
def nobody_looks_for_a_lost_htlc() -> contextlib.AbstractContextManager[Any]:
    """What LND's own word does not end is left open."""
    return patch.object(duties, "wants_look", lambda order, policy, height, now_ms: False)


@bug
def an_in_flight_payment_is_taken_for_absent() -> contextlib.AbstractContextManager[Any]:
    """A snapshot without attempts means that nothing is out."""
    reported = machine._HANDLERS[ev.PaymentReported]

    def hasty(order: Order, event: ev.PaymentReported, ctx: Any) -> Order:
        after = reported(order, event, ctx)
        if event.update.status is PaymentStatus.IN_FLIGHT and not event.update.attempts and after.is_money_out:
            return _with_htlc(after, HtlcState.NONE, ctx)
        return after

    return _handler(ev.PaymentReported, hasty)


@bug
def what_was_refused_and_is_settled_counts_as_paid_before() -> contextlib.AbstractContextManager[Any]:
    """A refusal alone frees the spending limit of a payment that arrived all the same."""
    return patch.object(hold, "_is_paid_before", lambda order, payment, update: payment.refusal is not None)


# --- the account ----------------------------------------------------------------------------------------------------


@bug
def a_lost_reply_is_asked_for_again() -> contextlib.AbstractContextManager[Any]:
    """No answer came, so nothing was ordered."""
    failed = prepaid.placing_failed

    def hasty(order: Order, event: ev.PlacingFailed, ctx: Any) -> Order:
        return failed(order, replace(event, is_sure=True), ctx)

    @contextlib.contextmanager
    def planted() -> Iterator[None]:
        handler = machine._HANDLERS[ev.PlacingFailed]

        def sure(order: Order, event: ev.PlacingFailed, ctx: Any) -> Order:
            return handler(order, replace(event, is_sure=True), ctx)

        with patch.object(prepaid, "placing_failed", hasty), _handler(ev.PlacingFailed, sure):
            yield

    return planted()


@bug
def what_was_intended_is_placed_anew_after_a_restart() -> contextlib.AbstractContextManager[Any]:
    """The process ended before the answer, so the order is begun once more."""
    restarted = machine._HANDLERS[ev.DaemonRestarted]

    def anew(order: Order, event: ev.Event, ctx: Any) -> Order:
        is_intended = order.charge is not None and order.charge.state is ChargeState.INTENDED
        return replace(order, charge=None) if is_intended else restarted(order, event, ctx)

    return _handler(ev.DaemonRestarted, anew)


@bug
def an_unknown_charge_is_closed_by_time() -> contextlib.AbstractContextManager[Any]:
    """The order was not paid in time, so nothing was spent."""
    close = machine._close_prepaid

    def impatient(order: Order, ctx: Any) -> Order:
        is_unknown = order.charge is not None and order.charge.state is ChargeState.UNKNOWN
        if is_unknown and ctx.now_ms >= order.pay_by_ms:
            order = replace(_with_charge(order, ChargeState.REFUSED), giving_up="it was not paid in time")
        return close(order, ctx)

    return patch.object(machine, "_close_prepaid", impatient)


@bug
def a_returned_price_stays_counted() -> contextlib.AbstractContextManager[Any]:
    """What was charged was spent, whatever the provider says later."""

    @contextlib.contextmanager
    def planted() -> Iterator[None]:
        def kept(order: Order, ctx: Any) -> Order:
            return order

        with (
            patch.object(prepaid, "returned", kept),
            patch.dict(tables.CHARGE_TABLE, {(OrderState.CANCELED, ChargeState.CHARGED): "canceled"}),
        ):
            yield

    return planted()


@bug
def a_late_order_is_taken_for_returned() -> contextlib.AbstractContextManager[Any]:
    """Nothing came in the time that was promised, so the price went back to the account."""
    close = machine._close_prepaid

    def hopeful(order: Order, ctx: Any) -> Order:
        is_charged = order.charge is not None and order.charge.state is ChargeState.CHARGED
        until_ms = machine.patience_until_ms(order, ctx.policy)
        if is_charged and not order.is_delivered and until_ms is not None and ctx.now_ms > until_ms:
            order = replace(_with_charge(order, ChargeState.RETURNED), state=OrderState.CANCELED)
        return close(order, ctx)

    return patch.object(machine, "_close_prepaid", hopeful)


@bug
def a_balance_that_others_moved_is_believed() -> contextlib.AbstractContextManager[Any]:
    """The balance is what it was, whatever came into the account meanwhile."""
    return _handler(
        ev.BalanceSeen, lambda order, event, ctx: prepaid.balance_seen(order, replace(event, is_alone=True), ctx)
    )


@bug
def a_lower_balance_is_proof_of_the_charge() -> contextlib.AbstractContextManager[Any]:
    """Somebody spent from the account; it must have been this order."""

    def hasty(order: Order, event: ev.BalanceSeen, ctx: Any) -> Order:
        charge = order.charge
        is_unknown = charge is not None and charge.state is ChargeState.UNKNOWN
        if is_unknown and event.balance_sat < ((charge and charge.balance_before_sat) or 0):
            charged = replace(_with_charge(order, ChargeState.CHARGED), state=OrderState.ABANDONED)
            return step.close(charged, End.CHARGED_UNFULFILLED, "the balance is lower", ctx)
        return prepaid.balance_seen(order, event, ctx)

    return _handler(ev.BalanceSeen, hasty)


@bug
def one_look_at_the_balance_is_proof() -> contextlib.AbstractContextManager[Any]:
    """It is what it was, so nothing was ordered; that the order is still on its way is unlikely."""

    def hasty(order: Order, event: ev.BalanceSeen, ctx: Any) -> Order:
        seen = prepaid.balance_seen(order, event, ctx)
        if seen.charge is None or seen.charge.unmoved_since_ms is None:
            return seen
        return prepaid.balance_seen(replace(seen, charge=replace(seen.charge, unmoved_since_ms=0)), event, ctx)

    return _handler(ev.BalanceSeen, hasty)


@bug
def a_prepaid_order_is_paid_by_lnd_besides() -> contextlib.AbstractContextManager[Any]:
    """Each order has an invoice, and each invoice is paid."""

    @contextlib.contextmanager
    def planted() -> Iterator[None]:
        wanted = duties.duties

        def both(order: Order) -> frozenset[duties.Duty]:
            is_paid_twice = order.request.is_prepaid and order.payment is not None and not order.is_closed
            return wanted(order) | {duties.Duty.PAY} if is_paid_twice else wanted(order)

        placed = machine._HANDLERS[ev.OrderPlaced]

        def with_payment(order: Order, event: ev.OrderPlaced, ctx: Any) -> Order:
            after = placed(order, event, ctx)
            return replace(after, payment=_some_payment(ctx)) if order.request.is_prepaid else after

        with (
            _handler(ev.OrderPlaced, with_payment),
            patch.object(machine, "_assert_possible", lambda order: None),
            patch.object(hold, "_is_dispatch_planned", lambda order, payment: payment.dispatch_count == 0),
            patch.object(duties, "duties", both),
        ):
            yield

    return planted()


def _some_payment(ctx: Any) -> Payment:
    return build.payment(htlc_since_ms=ctx.now_ms, dispatch_at_ms=ctx.now_ms)


# --- limits and budgets -----------------------------------------------------------------------------------------------

Entries = Iterator[tuple[ledger.What, int, int, int]]


def _booked(entry: Callable[..., Entries]) -> contextlib.AbstractContextManager[Any]:
    return patch.object(ledger, "entries", entry)


@bug
def the_fee_of_a_payment_is_not_counted_as_spent() -> contextlib.AbstractContextManager[Any]:
    """What was bought is what was spent."""
    entries = ledger.entries

    def free(before: Order | None, after: Order, *given: Any) -> Entries:
        for what, msat, fee_msat, at_ms in entries(before, after, *given):
            yield what, msat - fee_msat, 0, at_ms

    return _booked(free)


@bug
def the_fee_limit_of_an_open_order_is_not_reserved() -> contextlib.AbstractContextManager[Any]:
    """A fee counts when it is paid."""

    def without_fee(order: Order) -> Outstanding:
        found = outstanding(order)
        return replace(found, pending_msat=found.pending_msat - found.pending_fee_msat, pending_fee_msat=0)

    return _may_cost(without_fee)


def _may_cost(of: Callable[[Order], Outstanding]) -> contextlib.AbstractContextManager[Any]:
    def found(order: Order | None) -> Outstanding:
        return NOTHING if order is None else of(order)

    @contextlib.contextmanager
    def planted() -> Iterator[None]:
        with patch.object(daemon, "outstanding", found), patch.object(purse, "outstanding", found):
            yield

    return planted()


@bug
def what_is_settled_is_booked_when_the_order_is_over() -> contextlib.AbstractContextManager[Any]:
    """By then the sum is sure."""
    entries = ledger.entries

    def late(before: Order | None, after: Order, *given: Any) -> Entries:
        for entry in entries(before, after, *given):
            if entry[0] != "spend" or after.is_closed:
                yield entry

    return _booked(late)


@bug
def an_order_that_the_provider_canceled_reserves_nothing() -> contextlib.AbstractContextManager[Any]:
    """It is over; the HTLC will come back."""

    def hopeful(order: Order) -> Outstanding:
        found = outstanding(order)
        is_over = order.state is OrderState.CANCELED
        return replace(found, pending_msat=0, pending_fee_msat=0) if is_over else found

    return _may_cost(hopeful)


@bug
def what_is_settled_is_given_free_twice() -> contextlib.AbstractContextManager[Any]:
    """Once when it is spent, and once more when the order is closed."""

    def generous(order: Order) -> Outstanding:
        found = outstanding(order)
        is_closed_and_paid = order.is_closed and order.htlc is HtlcState.SETTLED
        return replace(found, pending_msat=-order.reserved_msat) if is_closed_and_paid else found

    return _may_cost(generous)


@bug
def what_is_back_stays_reserved() -> contextlib.AbstractContextManager[Any]:
    """What was reserved once is as good as spent."""

    def kept(order: Order) -> Outstanding:
        is_back = order.is_closed and not order.spent_msat
        return outstanding(replace(order, closed_at_ms=None)) if is_back else outstanding(order)

    return _may_cost(kept)


@bug
def a_day_has_twenty_three_hours() -> contextlib.AbstractContextManager[Any]:
    """As on the day when the clocks go forward."""
    return patch.dict(budget._LENGTH_MS, {budget.Period.DAY: 23 * budget.HOUR_MS})


@bug
def a_day_of_the_calendar_is_one_of_local_time() -> contextlib.AbstractContextManager[Any]:
    """It begins when the people's does: hours earlier here."""
    of_calendar = budget._of_calendar

    def local(period: budget.Period, now_ms: int) -> tuple[int, int]:
        from_ms, until_ms = of_calendar(period, now_ms + 5 * budget.HOUR_MS)
        return from_ms - 5 * budget.HOUR_MS, until_ms - 5 * budget.HOUR_MS

    return patch.object(budget, "_of_calendar", local)


@bug
def what_was_spent_yesterday_counts_for_a_week() -> contextlib.AbstractContextManager[Any]:
    """A limit that is reached stays reached."""
    return patch.dict(budget._LENGTH_MS, {budget.Period.DAY: budget.WEEK_MS})


# --- rentals --------------------------------------------------------------------------------------------------------


@bug
def a_rental_is_closed_at_its_first_message() -> contextlib.AbstractContextManager[Any]:
    """It is fulfilled, so it is over."""
    followed = RentalSpec.is_followed

    def content(self: RentalSpec, order: Order, policy: Any, now_ms: int) -> bool:
        return not self.is_delivered(order.items) and followed(self, order, policy, now_ms)

    return patch.object(RentalSpec, "is_followed", content)


@bug
def a_rental_is_closed_when_it_is_paid_for() -> contextlib.AbstractContextManager[Any]:
    """It is settled, and there is a number."""
    return patch.object(RentalSpec, "is_followed", lambda *_: False)


@bug
def a_message_is_lost_on_restart() -> contextlib.AbstractContextManager[Any]:
    """The latest message lives in memory only."""
    restarted = machine._HANDLERS[ev.DaemonRestarted]

    def forgetful(order: Order, event: ev.Event, ctx: Any) -> Order:
        is_message = bool(order.items) and order.items[-1].kind is ItemKind.MESSAGE
        return restarted(replace(order, items=order.items[:-1]) if is_message else order, event, ctx)

    return _handler(ev.DaemonRestarted, forgetful)


@bug
def a_message_that_is_told_again_is_kept_again() -> contextlib.AbstractContextManager[Any]:
    """Only the latest message is compared with."""

    def short_memory(self: Keeper, said: Iterable[str]) -> None:
        for text in said:
            known = [item.text for item in self.items if item.kind is ItemKind.MESSAGE]
            if text not in known[-1:]:
                self._add(ItemKind.MESSAGE, text)

    return patch.object(Keeper, "messages", short_memory)


@bug
def a_text_that_came_twice_is_kept_once() -> contextlib.AbstractContextManager[Any]:
    """What is known is known."""
    keep = Keeper.messages
    return patch.object(Keeper, "messages", lambda self, said: keep(self, dict.fromkeys(said)))


@bug
def only_the_latest_message_of_a_list_is_kept() -> contextlib.AbstractContextManager[Any]:
    """A reply tells what is new."""
    keep = Keeper.messages
    return patch.object(Keeper, "messages", lambda self, said: keep(self, tuple(said)[-1:]))


@bug
def a_message_that_cannot_be_read_is_dropped() -> contextlib.AbstractContextManager[Any]:
    """Nobody could read it anyway."""
    return patch.object(Keeper, "unread", lambda self, raw, *, has_value: None)


@bug
def nobody_asks_for_messages_after_the_first() -> contextlib.AbstractContextManager[Any]:
    """A fulfilled order needs no poll."""
    may = duties._may_be_polled
    return patch.object(duties, "_may_be_polled", lambda order: order.state is not OrderState.DELIVERED and may(order))


# --- SMS and e-mail -------------------------------------------------------------------------------------------------


@bug
def failed_is_read_as_sent() -> contextlib.AbstractContextManager[Any]:
    """A sending that has a status was sent."""
    signal = MessageSpec.signal

    def hasty(self: MessageSpec, status: ev.ProviderStatus) -> OrderSignal:
        return OrderSignal.FULFILLED if status.send_status is ev.SendStatus.FAILED else signal(self, status)

    return patch.object(MessageSpec, "signal", hasty)


@bug
def created_is_read_as_sent() -> contextlib.AbstractContextManager[Any]:
    """It was created, and is paid for."""
    signal = SmsSpec.signal

    def hasty(self: SmsSpec, status: ev.ProviderStatus) -> OrderSignal:
        is_taken = status.is_paid and status.send_status is ev.SendStatus.CREATED
        return OrderSignal.FULFILLED if is_taken else signal(self, status)

    return patch.object(SmsSpec, "signal", hasty)


@bug
def credit_is_taken_for_granted_when_it_is_held() -> contextlib.AbstractContextManager[Any]:
    """The provider calls the order paid, so the account has the money."""
    signal = FundSpec.signal

    def hasty(self: FundSpec, status: ev.ProviderStatus) -> OrderSignal:
        return OrderSignal.FULFILLED if status.is_paid else signal(self, status)

    return patch.object(FundSpec, "signal", hasty)


# --- requests that go on --------------------------------------------------------------------------------------------


@bug
def a_cancel_that_was_accepted_means_that_the_money_is_back() -> contextlib.AbstractContextManager[Any]:
    """The provider said that it is over, so the next order can be made."""
    answered = machine._cancel_answered

    def hasty(order: Order, event: ev.CancelAnswered, ctx: Any) -> Order:
        after = answered(order, event, ctx)
        is_moving_on = event.accepted and order.moved_on is not None and after.state is OrderState.CANCELED
        return step.close(after, End.REFUNDED, "canceled", ctx) if is_moving_on else after

    return _handler(ev.CancelAnswered, hasty)


@bug
def whatever_an_order_ended_with_the_next_one_follows() -> contextlib.AbstractContextManager[Any]:
    """A request has so many attempts."""

    def always(order: Order, now_ms: int) -> bool:
        return order.request.strategy is not None and order.request.strategy.may_follow(order, now_ms)

    return patch.object(machine, "goes_on", always)


@bug
def an_order_that_was_followed_goes_on_still() -> contextlib.AbstractContextManager[Any]:
    """It is written down by the order that follows."""
    decide = decide_between

    def forgetful(order: Order, event: ev.Event, policy: Any, now_ms: int) -> step.Step:
        if isinstance(event, ev.NextOrdered):
            return step.Step(order, is_change=True)
        return decide(order, event, policy, now_ms)

    return patch.object(machine, "decide_between", forgetful)


@bug
def a_wish_between_two_orders_is_not_kept() -> contextlib.AbstractContextManager[Any]:
    """A closed order takes no wish."""
    decide = decide_between

    def deaf(order: Order, event: ev.Event, policy: Any, now_ms: int) -> step.Step:
        if isinstance(event, ev.CancelRequested):
            return step.Step(order, is_change=False)
        return decide(order, event, policy, now_ms)

    return patch.object(machine, "decide_between", deaf)


@bug
def a_request_whose_money_came_back_is_over() -> contextlib.AbstractContextManager[Any]:
    """As it was before there were strategies."""
    return patch.object(machine, "goes_on", lambda order, now_ms: False)
