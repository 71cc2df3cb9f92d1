"""How a request goes on: what the daemon asks to be canceled by itself, and after which order another one follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import TypeAdapter

from holdpay.core import events as ev
from holdpay.core.deadlines import next_deadline_ms
from holdpay.core.duties import Duty, duties
from holdpay.core.events import ProviderStatus
from holdpay.core.explain import explain
from holdpay.core.lightning import FailureReason
from holdpay.core.machine import decide, takes_cancel
from holdpay.core.model import Order, PaymentFailure
from holdpay.core.states import End, FailureClass, HtlcState, OrderState, Succession
from holdpay.core.strategy import Country, Strategy, goes_on, times_ms
from tests.unit.build import HOUR, NOW_MS, POLICY, S, order, pair, payment, refunded, request

RUSSIA, ENGLAND, USA = Country(0, "Russia"), Country(16, "England"), Country(187, "United States")
STRATEGY = Strategy(countries=(USA, RUSSIA, ENGLAND), attempts=3, within_s=3600, number_within_s=120, sms_within_s=200)


def _with(found: Order, strategy: Strategy | None = STRATEGY, **changes: Any) -> Order:
    """The same of a request with a strategy."""
    return replace(found, request=request(strategy=strategy), **changes)


def _held(state: OrderState = OrderState.PAID, **changes: Any) -> Order:
    """Paid for right at the beginning."""
    found = pair(state, HtlcState.IN_FLIGHT)
    assert found.payment is not None
    return _with(replace(found, payment=replace(found.payment, money_out_since_ms=NOW_MS)), **changes)


def _at(found: Order, seconds: int, event: ev.Event | None = None) -> Order:
    return decide(found, event or ev.TimePassed(), POLICY, NOW_MS + seconds * S).order


def _refunded(**changes: Any) -> Order:
    """Over, and the money is back, as the machine has it: the last word was lnd's."""
    held = _held(OrderState.CANCELED, **changes)
    return _at(held, 300, refunded())


# --- when the daemon asks for a cancel by itself ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "seconds", "why"),
    [
        (OrderState.PAID, 119, None),
        (OrderState.PAID, 120, "no number came in 120 s"),
        (OrderState.AWAITING_PAYMENT, 120, "no number came in 120 s"),
        (OrderState.NUMBER_ASSIGNED, 199, None),
        (OrderState.NUMBER_ASSIGNED, 200, "no SMS came in 200 s"),
    ],
)
def test_without_a_number_or_an_sms_in_time_the_daemon_asks_for_a_cancel(
    state: OrderState, seconds: int, why: str | None
) -> None:
    after = _at(_held(state), seconds)
    assert after.moved_on == why
    assert (Duty.CANCEL in duties(after)) == (why is not None)


def test_the_engine_looks_at_the_very_moment_at_which_it_gives_up() -> None:
    held = _held(OrderState.NUMBER_ASSIGNED)
    times = []
    at_ms: int | None = NOW_MS
    while (at_ms := next_deadline_ms(held, POLICY, at_ms or 0)) is not None:
        times.append((at_ms - NOW_MS) // S)
    assert {120, 200, 3600} <= set(times)


def test_before_it_is_paid_only_the_time_of_the_whole_request_counts() -> None:
    assert list(times_ms(_with(order()), POLICY)) == [NOW_MS + 3600 * S]
    assert list(times_ms(_held(), POLICY)) == [NOW_MS + after_s * S for after_s in (3600, 120, 200)]
    unbounded = replace(STRATEGY, within_s=None, number_within_s=None)
    assert list(times_ms(replace(_held(), request=request(strategy=unbounded)), POLICY)) == [NOW_MS + 200 * S]


def test_a_code_or_a_wish_that_is_there_is_not_given_up() -> None:
    delivered = pair(OrderState.DELIVERED, HtlcState.IN_FLIGHT)
    assert _at(_with(delivered), 3599).moved_on is None
    wished = _at(_held(), 1, ev.CancelRequested())
    assert _at(wished, 500).moved_on is None
    aside = _at(_held(), 1, ev.OrderQuarantined("two truths"))
    assert _at(aside, 500).moved_on is None


def test_the_last_order_is_waited_for_as_long_as_the_provider_promises() -> None:
    """A cancel would bring nothing: no other order follows it."""
    assert _at(_held(nth=3), 1000).moved_on is None
    assert _at(_held(nth=3), 3600).moved_on == "the 3600 s that the request was given were over"


def test_when_all_time_is_over_what_was_not_paid_ends_at_once() -> None:
    late = _at(_with(order()), 3600)
    assert (late.end, late.ends_request) == (End.CANCELED_UNPAID, True)
    assert "were over" in late.reason


def test_only_who_has_just_looked_gives_up() -> None:
    """After a downtime the provider is asked first: it may have the code by now."""
    assert _at(_held(), 500, ev.DaemonRestarted()).moved_on is None
    answered = ev.ProviderReplied(NOW_MS, ProviderStatus(is_paid=True, code="012345"))
    assert _at(_held(), 500, answered).moved_on is None


def test_without_a_strategy_nothing_is_given_up_and_nothing_follows() -> None:
    plain = replace(_held(), request=request())
    assert _at(plain, 1200).moved_on is None
    assert next_deadline_ms(replace(plain, payment=None), POLICY, NOW_MS) is not None
    over = replace(_refunded(), request=request(), succession=None)
    assert not goes_on(over, NOW_MS + 300 * S)


# --- after which order another one follows ----------------------------------------------------------------------------


def test_when_the_money_is_back_the_request_goes_on_in_the_same_step() -> None:
    after = _refunded()
    assert (after.end, after.succession) == (End.REFUNDED, Succession.GOING_ON)
    assert not after.ends_request
    assert duties(after) == {Duty.NEXT}


def test_while_the_money_is_out_nothing_follows() -> None:
    canceled = _at(_at(_held(), 130), 131, ev.CancelAnswered(accepted=True, text=""))
    assert canceled.state is OrderState.CANCELED
    assert (canceled.is_closed, canceled.succession) == (False, None)
    assert Duty.NEXT not in duties(canceled)


def _closed(end: End, htlc: HtlcState = HtlcState.FAILED, **changes: Any) -> Order:
    return _with(order(payment=payment(htlc)), closed_at_ms=NOW_MS, end=end, **changes)


def _failure(reason: FailureReason) -> PaymentFailure:
    return PaymentFailure(
        reason=reason, failure_class=FailureClass.PAYEE_REFUSED, attempt_count=1, payment_index=1, at_ms=NOW_MS
    )


def _failed_for(reason: FailureReason) -> Order:
    closed = _closed(End.REFUNDED)
    assert closed.payment is not None
    return replace(closed, payment=replace(closed.payment, failure=_failure(reason)))


NEVER = {
    "it was delivered": _closed(End.FULFILLED, HtlcState.SETTLED),
    "a code came although nothing was charged": _closed(End.FULFILLED_FREE),
    "the code is there whatever the end says": replace(
        pair(OrderState.DELIVERED, HtlcState.FAILED),
        request=request(strategy=STRATEGY),
        closed_at_ms=1,
        end=End.REFUNDED,
    ),
    "it was charged": _closed(End.CHARGED_UNFULFILLED, HtlcState.SETTLED),
    "nobody knows": _closed(End.OUTCOME_UNKNOWN, HtlcState.GONE),
    "an end that contradicts lnd's word": _closed(End.REFUNDED, HtlcState.SETTLED),
    "a record that is gone": _closed(End.REFUNDED, HtlcState.GONE),
    "our own rules refused the invoice": _closed(End.INVOICE_REJECTED, HtlcState.NONE),
    "there is no way to the payee": _closed(End.PAYMENT_FAILED),
    "it is quarantined": _closed(End.REFUNDED, quarantined_at_ms=1),
    "the client canceled it": _closed(End.REFUNDED, cancel_wanted_at_ms=1),
    "an operator said that the money is back": _failed_for(FailureReason.BY_OPERATOR),
    "only the channels show that nothing is out": _failed_for(FailureReason.NEVER_SENT),
    "it was the last": _closed(End.REFUNDED, nth=3),
    "it was restored from a copy": _closed(End.REFUNDED, restored_at_ms=1),
}


@pytest.mark.parametrize("name", NEVER)
def test_nothing_follows_where_money_may_be_gone_or_nobody_wants_more(name: str) -> None:
    assert not goes_on(NEVER[name], NOW_MS)


@pytest.mark.parametrize(
    "closed",
    [
        _closed(End.REFUNDED),
        _closed(End.REFUNDED, cancel_wanted_at_ms=1, moved_on="no SMS"),
        _closed(End.CANCELED_UNPAID, HtlcState.NONE),
        _closed(End.PROVIDER_REFUSED, HtlcState.NONE),
    ],
)
def test_another_order_follows_where_nothing_was_spent(closed: Order) -> None:
    assert goes_on(closed, NOW_MS + 3599 * S)
    assert not goes_on(closed, NOW_MS + 3600 * S), "the time is over"


def test_each_country_comes_once_and_then_the_first_again() -> None:
    assert STRATEGY.next_countries(_with(order())) == (RUSSIA, ENGLAND, USA)
    assert STRATEGY.next_countries(_with(order(), country=16, country_name="England")) == (USA, RUSSIA, ENGLAND)
    assert STRATEGY.next_countries(_with(order(), country=33, country_name="France")) == STRATEGY.countries


def test_a_strategy_that_was_stored_without_a_word_of_it_is_not_forced() -> None:
    """Force orders where the provider shows no stock."""
    assert not TypeAdapter(Strategy).validate_json('{"countries":[],"attempts":3}').force


def test_an_order_in_another_country_asks_for_it() -> None:
    found = _with(order(), country=16, country_name="England")
    assert found.spec.what == "an activation code for OpenAI in England"
    assert found.spec.placing(is_prepaid=False).body["country"] == 16


# --- what comes first wins --------------------------------------------------------------------------------------------


def test_a_code_that_comes_while_the_cancel_is_under_way_is_delivered_and_ends_the_request() -> None:
    canceling = _at(_held(OrderState.NUMBER_ASSIGNED), 200)
    coded = _at(canceling, 201, ev.ProviderReplied(NOW_MS, ProviderStatus(is_paid=True, code="012345")))
    assert (coded.code, Duty.CANCEL in duties(coded)) == ("012345", False)
    free = _at(coded, 202, refunded())
    assert (free.end, free.succession) == (End.FULFILLED_FREE, None)


def test_a_client_s_wish_ends_a_request_that_moves_on_already() -> None:
    moving = _at(_held(), 130)
    assert takes_cancel(moving)
    wished = _at(moving, 131, ev.CancelRequested())
    assert (wished.moved_on, takes_cancel(wished), Duty.CANCEL in duties(wished)) == (None, False, True)
    assert not goes_on(replace(wished, closed_at_ms=1, end=End.REFUNDED), NOW_MS)


# --- between two orders -----------------------------------------------------------------------------------------------


def test_a_client_s_wish_between_two_orders_ends_the_request_at_once() -> None:
    going = _refunded()
    assert takes_cancel(going)
    ended = _at(going, 301, ev.CancelRequested())
    assert ended.ends_request
    assert ended.is_cancel_wanted_by_client
    assert ended.reason.endswith("canceled at your request before the next order was made")
    assert duties(ended) == frozenset()


def test_it_is_the_client_s_wish_also_where_the_daemon_had_asked_for_a_cancel_before() -> None:
    going = replace(_refunded(), cancel_wanted_at_ms=NOW_MS, moved_on="no SMS came in 200 s")
    ended = _at(going, 301, ev.CancelRequested())
    assert (ended.moved_on, ended.is_cancel_wanted_by_client) == (None, True)


@pytest.mark.parametrize(
    "event", [ev.NextOrdered(), ev.NoNextOrder("x"), ev.CancelRequested(), ev.CopyRestored(), ev.OrderQuarantined("x")]
)
def test_what_ends_the_waiting_is_written_down(event: ev.Event) -> None:
    assert decide(_refunded(), event, POLICY, NOW_MS + 301 * S).is_change


def test_why_no_order_follows_is_told_after_how_the_last_one_ended_in_one_sentence() -> None:
    going = replace(_refunded(), reason="the provider gave up.")
    assert _at(going, 301, ev.NoNextOrder("no country has numbers")).reason == (
        "the provider gave up; no country has numbers"
    )
    assert _at(replace(going, reason=""), 301, ev.NoNextOrder("so it is")).reason == "so it is"


def test_the_next_order_or_none_ends_the_waiting() -> None:
    going = _refunded()
    assert _at(going, 301, ev.NextOrdered()).succession is Succession.FOLLOWED
    none = _at(going, 301, ev.NoNextOrder("no country has numbers"))
    assert none.ends_request
    assert none.reason.endswith("; no country has numbers")
    broken = _at(going, 301, ev.OrderQuarantined("two truths"))
    assert broken.ends_request


def test_a_request_that_is_restored_from_a_copy_between_two_orders_ends() -> None:
    """The next one may have been made since."""
    restored = _at(_refunded(), 301, ev.CopyRestored())
    assert restored.ends_request
    assert "copy of the database" in restored.reason
    assert restored.restored_at_ms == NOW_MS + 301 * S
    assert _at(_held(restored_at_ms=NOW_MS), 3600).moved_on is None


def test_a_next_order_is_waited_for_as_long_as_an_order_is_paid() -> None:
    going = _refunded()
    late_s = 300 + POLICY.pay_within_s
    assert _at(going, late_s - 1) == going
    assert next_deadline_ms(going, POLICY, NOW_MS + 300 * S) == NOW_MS + late_s * S
    assert _at(going, late_s).ends_request


def test_no_order_is_made_once_all_time_is_over() -> None:
    going = replace(_refunded(), request=request(strategy=replace(STRATEGY, within_s=400)))
    assert not _at(going, 399).ends_request
    assert _at(going, 400).ends_request
    assert next_deadline_ms(going, POLICY, NOW_MS + 300 * S) == NOW_MS + 400 * S


@pytest.mark.parametrize("event", [ev.DaemonRestarted(), ev.TimePassed(), ev.ProviderReplied(1, ProviderStatus(True))])
def test_nothing_else_changes_an_order_that_waits_to_be_followed(event: ev.Event) -> None:
    assert not decide(_refunded(), event, POLICY, NOW_MS + 301 * S).is_change


def test_explain_says_that_another_order_follows() -> None:
    assert "next order is being made" in explain(_refunded(), POLICY, NOW_MS + HOUR).next
    assert "since no number came in 120 s" in explain(_at(_held(), 120), POLICY, NOW_MS + 120 * S).next
