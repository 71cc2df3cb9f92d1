"""Mistakes that a tired engineer could make, each as a patch of the real core. The simulation must catch every one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from holdpay.core import duties, machine
from holdpay.core import events as ev
from holdpay.core.lightning import PaymentStatus
from holdpay.core.model import Order
from holdpay.core.policy import classify
from holdpay.core.states import FailureClass, HtlcState, OrderState

BUGS: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {}


def bug(plant: Callable[[], contextlib.AbstractContextManager[Any]]) -> Callable[[], Any]:
    BUGS[plant.__name__] = plant
    return plant


def _handler(event: type[Any], handler: Callable[..., Order]) -> contextlib.AbstractContextManager[Any]:
    return patch.dict(machine._HANDLERS, {event: handler})


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
            patch.object(machine, "_is_licensed", lambda payment: True),
        ):
            yield

    return planted()


@bug
def a_retry_needs_no_license() -> contextlib.AbstractContextManager[Any]:
    """A failed payment is sent again before the provider has said that it is unpaid."""
    return patch.object(machine, "_is_licensed", lambda payment: True)


@bug
def a_failure_of_an_earlier_dispatch_is_believed() -> contextlib.AbstractContextManager[Any]:
    """The failure that LND still shows is taken for the new dispatch's, which may be on its way."""
    return patch.object(machine, "_is_about_an_earlier_dispatch", lambda payment, update: False)


@bug
def a_preimage_is_not_checked() -> contextlib.AbstractContextManager[Any]:
    """SUCCEEDED is enough."""
    return patch.object(machine, "preimage_fits", lambda preimage, payment_hash: True)


@bug
def a_code_is_forgotten_on_restart() -> contextlib.AbstractContextManager[Any]:
    """The code lives in memory only."""
    restarted = machine._HANDLERS[ev.DaemonRestarted]

    def forgetful(order: Order, event: ev.Event, ctx: Any) -> Order:
        return replace(restarted(order, event, ctx), code=None)

    return _handler(ev.DaemonRestarted, forgetful)


@bug
def a_later_reply_erases_the_code() -> contextlib.AbstractContextManager[Any]:
    """The latest reply is the truth: what it lacks is gone."""

    def latest(order: Order, status: ev.ProviderStatus, ctx: Any) -> Order:
        return replace(order, number=status.number, code=status.code)

    @contextlib.contextmanager
    def planted() -> Iterator[None]:
        with (
            patch.object(machine, "_keep_words", latest),
            patch.object(duties, "_needs_polling", lambda *_: True),
        ):
            yield

    return planted()


@bug
def nobody_asks_for_the_code_after_the_charge() -> contextlib.AbstractContextManager[Any]:
    """Once the HTLC is settled, the provider is not asked any more."""
    needs = duties._needs_polling

    def incurious(order: Order, payment: Any) -> bool:
        return payment.htlc is not HtlcState.SETTLED and needs(order, payment)

    return patch.object(duties, "_needs_polling", incurious)


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
        with patch.object(machine, "classify", hasty), patch.object(machine, "_is_licensed", lambda payment: True):
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
