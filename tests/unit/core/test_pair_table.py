"""All 49 cells of the pair, one by one: what a cell means, what runs in it, and whether and how it ends.

Each row was written by hand from the design of an order's life, not derived from the tables under test.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import pytest

from holdpay.core import events as ev
from holdpay.core.duties import Duty, duties
from holdpay.core.guard import alarms
from holdpay.core.hold import may_dispatch
from holdpay.core.machine import decide
from holdpay.core.model import Order
from holdpay.core.states import MONEY_MAY_BE_OUT, End, HtlcState, OrderState
from holdpay.core.tables import IMPOSSIBLE, PAIR_TABLE, phase
from holdpay.errors import InvariantViolation
from tests.unit.build import ALICE, HOUR, NOW_MS, POLICY, S, order, pair

LONG_AFTER_MS = NOW_MS + 100 * HOUR
"""Later than every deadline there is."""

NONE, DISPATCHING, UNKNOWN, IN_FLIGHT, SETTLED, FAILED, GONE = HtlcState
REQUESTED, AWAITING, PAID, NUMBER, DELIVERED, CANCELED, ABANDONED = OrderState
NOBODY: frozenset[Duty] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Cell:
    """``ends_now``: how TimePassed closes it at once. ``ends_ever``: how it closes at its last deadline; None: never,
    because money may be out."""

    means: str
    money_out: bool
    runs: frozenset[Duty]
    may_dispatch: bool = False
    ends_now: End | None = None
    ends_ever: End | None = None
    alarm: str = ""
    """Part of what an operator is told when it lasts long."""


PAY, POLL, BOTH = frozenset({Duty.PAY}), frozenset({Duty.POLL}), frozenset({Duty.PAY, Duty.POLL})

CELLS: dict[tuple[OrderState, HtlcState], Cell] = {
    (REQUESTED, NONE): Cell(means="ordering at the provider", money_out=False, runs=PAY, ends_ever=End.PAYMENT_FAILED),
    # --- the provider waits for the payment
    (AWAITING, NONE): Cell(
        means="hold invoice received, not paid yet",
        money_out=False,
        runs=PAY,
        may_dispatch=True,
        ends_ever=End.PAYMENT_FAILED,
    ),
    (AWAITING, DISPATCHING): Cell(
        means="sending the payment", money_out=True, runs=BOTH, alarm="still does not call it paid"
    ),
    (AWAITING, UNKNOWN): Cell(
        means="asking lnd what became of the payment", money_out=True, runs=BOTH, alarm="lnd still does not say"
    ),
    (AWAITING, IN_FLIGHT): Cell(
        means="payment on its way", money_out=True, runs=BOTH, alarm="still does not call it paid"
    ),
    (AWAITING, SETTLED): Cell(
        means="charged early, the code is due",
        money_out=False,
        runs=POLL,
        ends_ever=End.CHARGED_UNFULFILLED,
        alarm="charged, and the code did not come",
    ),
    (AWAITING, FAILED): Cell(
        # A dispatch is planned, and not licensed before the provider says unpaid.
        means="payment failed, the money is back",
        money_out=False,
        runs=BOTH,
        ends_ever=End.PAYMENT_FAILED,
    ),
    # --- the provider says that it holds the HTLC
    (PAID, NONE): Cell(
        means="paid by somebody else, or the provider errs", money_out=False, runs=POLL, ends_ever=End.PAYMENT_FAILED
    ),
    (PAID, DISPATCHING): Cell(
        means="held, says the provider; asking lnd", money_out=True, runs=BOTH, alarm="promise has passed"
    ),
    (PAID, UNKNOWN): Cell(
        means="held, says the provider; asking lnd", money_out=True, runs=BOTH, alarm="lnd still does not say"
    ),
    (PAID, IN_FLIGHT): Cell(
        means="held, a number is being found", money_out=True, runs=BOTH, alarm="promise has passed"
    ),
    (PAID, SETTLED): Cell(
        means="charged, the code is due",
        money_out=False,
        runs=POLL,
        ends_ever=End.CHARGED_UNFULFILLED,
        alarm="charged, and the code did not come",
    ),
    (PAID, FAILED): Cell(
        means="the money is back, the provider does not say so yet",
        money_out=False,
        runs=POLL,
        ends_ever=End.REFUNDED,
    ),
    # --- a number for the SMS
    (NUMBER, NONE): Cell(
        means="paid by somebody else; waiting for the SMS", money_out=False, runs=POLL, ends_ever=End.PAYMENT_FAILED
    ),
    (NUMBER, DISPATCHING): Cell(
        means="held, says the provider; asking lnd", money_out=True, runs=BOTH, alarm="promise has passed"
    ),
    (NUMBER, UNKNOWN): Cell(
        means="held, says the provider; asking lnd", money_out=True, runs=BOTH, alarm="lnd still does not say"
    ),
    (NUMBER, IN_FLIGHT): Cell(means="held, waiting for the SMS", money_out=True, runs=BOTH, alarm="promise has passed"),
    (NUMBER, SETTLED): Cell(
        means="charged, the code is due",
        money_out=False,
        runs=POLL,
        ends_ever=End.CHARGED_UNFULFILLED,
        alarm="charged, and the code did not come",
    ),
    (NUMBER, FAILED): Cell(
        means="the money is back; the number is probably dead", money_out=False, runs=POLL, ends_ever=End.REFUNDED
    ),
    # --- the code is here
    (DELIVERED, NONE): Cell(
        means="code received, nothing charged",
        money_out=False,
        runs=NOBODY,
        ends_now=End.FULFILLED_FREE,
        ends_ever=End.FULFILLED_FREE,
    ),
    (DELIVERED, DISPATCHING): Cell(
        means="code received; asking lnd about the payment",
        money_out=True,
        runs=PAY,
        alarm="code received and the money is still out",
    ),
    (DELIVERED, UNKNOWN): Cell(
        means="code received; asking lnd about the payment", money_out=True, runs=PAY, alarm="lnd still does not say"
    ),
    (DELIVERED, IN_FLIGHT): Cell(
        means="code received, settlement is coming",
        money_out=True,
        runs=PAY,
        alarm="code received and the money is still out",
    ),
    (DELIVERED, SETTLED): Cell(
        means="code received, settled",
        money_out=False,
        runs=NOBODY,
        ends_now=End.FULFILLED,
        ends_ever=End.FULFILLED,
    ),
    (DELIVERED, FAILED): Cell(
        means="code received, nothing charged",
        money_out=False,
        runs=NOBODY,
        ends_now=End.FULFILLED_FREE,
        ends_ever=End.FULFILLED_FREE,
    ),
    (DELIVERED, GONE): Cell(
        means="code received; lnd cannot say any more how the payment ended",
        money_out=False,
        runs=NOBODY,
        ends_now=End.FULFILLED,
        ends_ever=End.FULFILLED,
    ),
    # --- the provider says that it is over
    (CANCELED, NONE): Cell(
        means="canceled, nothing was sent",
        money_out=False,
        runs=POLL,
        ends_now=End.PAYMENT_FAILED,
        ends_ever=End.PAYMENT_FAILED,
    ),
    (CANCELED, DISPATCHING): Cell(
        means="canceled; asking lnd about the payment", money_out=True, runs=BOTH, alarm="still not back"
    ),
    (CANCELED, UNKNOWN): Cell(
        means="canceled; asking lnd about the payment", money_out=True, runs=BOTH, alarm="still not back"
    ),
    (CANCELED, IN_FLIGHT): Cell(
        means="canceled, the money is on its way back", money_out=True, runs=BOTH, alarm="still not back"
    ),
    (CANCELED, SETTLED): Cell(
        means="charged although canceled",
        money_out=False,
        runs=POLL,
        ends_ever=End.CHARGED_UNFULFILLED,
        alarm="charged, and the code did not come",
    ),
    (CANCELED, FAILED): Cell(
        means="canceled, the money is back",
        money_out=False,
        runs=POLL,
        ends_now=End.PAYMENT_FAILED,
        ends_ever=End.PAYMENT_FAILED,
    ),
    (CANCELED, GONE): Cell(
        means="canceled; lnd cannot say any more how the payment ended",
        money_out=False,
        runs=POLL,
        ends_now=End.OUTCOME_UNKNOWN,
        ends_ever=End.OUTCOME_UNKNOWN,
    ),
    # --- we stopped asking
    (ABANDONED, NONE): Cell(means="given up, nothing was spent", money_out=False, runs=NOBODY),
    (ABANDONED, SETTLED): Cell(means="charged, and the code never came", money_out=False, runs=NOBODY),
    (ABANDONED, FAILED): Cell(means="given up, the money is back", money_out=False, runs=NOBODY),
    (ABANDONED, GONE): Cell(
        means="given up; lnd cannot say any more how the payment ended", money_out=False, runs=NOBODY
    ),
}

OUR_CONTRADICTIONS = {
    (REQUESTED, DISPATCHING),
    (REQUESTED, UNKNOWN),
    (REQUESTED, IN_FLIGHT),
    (REQUESTED, SETTLED),
    (REQUESTED, FAILED),
    (REQUESTED, GONE),
    (AWAITING, GONE),
    (PAID, GONE),
    (NUMBER, GONE),
    (ABANDONED, DISPATCHING),
    (ABANDONED, UNKNOWN),
    (ABANDONED, IN_FLIGHT),
}

ROWS = pytest.mark.parametrize(("state", "htlc"), [pytest.param(s, h, id=f"{s.value}-{h.value}") for s, h in CELLS])
OPEN_ROWS = pytest.mark.parametrize(
    ("state", "htlc"),
    [pytest.param(s, h, id=f"{s.value}-{h.value}") for s, h in CELLS if s is not ABANDONED],
)


def _order_in(state: OrderState, htlc: HtlcState) -> Order:
    plain = pair(state, htlc)
    if state is ABANDONED:
        end = {SETTLED: End.CHARGED_UNFULFILLED, GONE: End.OUTCOME_UNKNOWN}.get(htlc, End.PAYMENT_FAILED)
        return replace(plain, closed_at_ms=NOW_MS, end=end, reason="over")
    return plain


def test_all_49_cells_are_looked_at_here() -> None:
    assert set(CELLS) | OUR_CONTRADICTIONS == set(product(OrderState, HtlcState)) == set(PAIR_TABLE)
    assert not set(CELLS) & OUR_CONTRADICTIONS
    assert len(PAIR_TABLE) == 49


@ROWS
def test_a_cell_means_what_the_design_says(state: OrderState, htlc: HtlcState) -> None:
    assert phase(_order_in(state, htlc)) == CELLS[state, htlc].means


@ROWS
def test_a_cell_knows_whether_money_may_be_out(state: OrderState, htlc: HtlcState) -> None:
    found = _order_in(state, htlc)
    assert found.is_money_out is CELLS[state, htlc].money_out
    assert (found.locked_msat > 0) is CELLS[state, htlc].money_out
    assert (found.spent_msat > 0) is (htlc in {SETTLED, GONE})


@ROWS
def test_a_cell_has_its_duties_and_no_others(state: OrderState, htlc: HtlcState) -> None:
    assert duties(_order_in(state, htlc)) == CELLS[state, htlc].runs


@ROWS
def test_only_a_fresh_hold_invoice_may_be_paid_without_the_providers_word(state: OrderState, htlc: HtlcState) -> None:
    assert may_dispatch(_order_in(state, htlc), POLICY, NOW_MS) is CELLS[state, htlc].may_dispatch


@pytest.mark.parametrize(("state", "htlc"), [cell for cell in CELLS if cell != (AWAITING, NONE)])
def test_sending_outside_the_one_cell_where_it_is_licensed_ends_the_process(state: OrderState, htlc: HtlcState) -> None:
    found = _order_in(state, htlc)
    if found.is_closed:
        assert not decide(found, ev.DispatchIntended(ALICE), POLICY, NOW_MS).is_change
        return
    with pytest.raises(InvariantViolation):
        decide(found, ev.DispatchIntended(ALICE), POLICY, NOW_MS)


@OPEN_ROWS
def test_a_cell_closes_at_once_or_stays_open(state: OrderState, htlc: HtlcState) -> None:
    assert decide(pair(state, htlc), ev.TimePassed(), POLICY, NOW_MS).order.end is CELLS[state, htlc].ends_now


@OPEN_ROWS
def test_a_cell_ends_at_its_last_deadline_unless_money_may_be_out(state: OrderState, htlc: HtlcState) -> None:
    after = decide(pair(state, htlc), ev.TimePassed(), POLICY, LONG_AFTER_MS).order
    assert after.end is CELLS[state, htlc].ends_ever
    assert after.is_closed is not CELLS[state, htlc].money_out
    if CELLS[state, htlc].money_out:
        assert after == pair(state, htlc), "time alone says nothing about money that may be out"
    if after.is_closed:
        assert duties(after) == NOBODY
        assert after.end is End.FULFILLED or after.reason or after.htlc is GONE


@ROWS
def test_an_operator_is_told_of_a_cell_that_lasts_too_long(state: OrderState, htlc: HtlcState) -> None:
    found = _order_in(state, htlc)
    told = alarms(found, POLICY, NOW_MS + 2 * HOUR)
    if CELLS[state, htlc].alarm:
        assert any(CELLS[state, htlc].alarm in text for text in told)
    else:
        assert told == ()


@pytest.mark.parametrize(("state", "htlc"), sorted(OUR_CONTRADICTIONS))
def test_a_cell_that_contradicts_ourselves_ends_the_process(state: OrderState, htlc: HtlcState) -> None:
    assert PAIR_TABLE[state, htlc] == IMPOSSIBLE
    with pytest.raises(InvariantViolation):
        decide(pair(state, htlc), ev.TimePassed(), POLICY, NOW_MS)


@pytest.mark.parametrize("htlc", sorted(MONEY_MAY_BE_OUT))
def test_an_order_closed_while_money_may_be_out_would_end_the_process(htlc: HtlcState) -> None:
    """The last guard: whatever closes an order, this is looked at."""
    for state in (AWAITING, PAID, NUMBER, DELIVERED, CANCELED):
        assert not decide(pair(state, htlc), ev.TimePassed(), POLICY, LONG_AFTER_MS).order.is_closed


# --- the deadlines, to the second ----------------------------------------------------------------------------------


def _end_at(found: Order, at_ms: int) -> End | None:
    return decide(found, ev.TimePassed(), POLICY, at_ms).order.end


def test_a_request_that_the_provider_never_answers_ends_at_pay_by() -> None:
    assert _end_at(order(), NOW_MS + 600 * S - 1) is None
    assert _end_at(order(), NOW_MS + 600 * S) is End.PAYMENT_FAILED


def test_an_invoice_that_was_never_sent_lapses_at_pay_by() -> None:
    assert _end_at(pair(AWAITING, NONE), NOW_MS + 600 * S - 1) is None
    assert _end_at(pair(AWAITING, NONE), NOW_MS + 600 * S) is End.PAYMENT_FAILED


def test_a_failed_payment_is_given_up_at_pay_by_and_closed_two_minutes_later_without_the_providers_word() -> None:
    given_up = decide(pair(AWAITING, FAILED), ev.TimePassed(), POLICY, NOW_MS + 600 * S).order
    assert not given_up.is_closed
    assert not may_dispatch(given_up, POLICY, NOW_MS + 600 * S)
    assert duties(given_up) == POLL | {Duty.DIAGNOSE}
    assert _end_at(given_up, NOW_MS + 720 * S - 1) is None
    assert _end_at(given_up, NOW_MS + 720 * S) is End.PAYMENT_FAILED


def test_a_failed_payment_that_the_provider_called_paid_is_watched_until_its_promise_has_passed() -> None:
    assert _end_at(pair(PAID, FAILED), NOW_MS + 1260 * S - 1) is None
    assert _end_at(pair(PAID, FAILED), NOW_MS + 1260 * S) is End.REFUNDED


def test_a_charge_without_a_code_is_watched_for_48_hours() -> None:
    assert _end_at(pair(PAID, SETTLED), NOW_MS + 48 * HOUR - 1) is None
    assert _end_at(pair(PAID, SETTLED), NOW_MS + 48 * HOUR) is End.CHARGED_UNFULFILLED


def test_how_a_canceled_order_ended_depends_on_whether_the_payee_had_the_money() -> None:
    after = decide(pair(CANCELED, FAILED, cancel_wanted_at_ms=NOW_MS), ev.TimePassed(), POLICY, NOW_MS).order
    assert after.end is End.CANCELED_UNPAID
    assert _end_at(pair(CANCELED, FAILED, reached_payee=True), NOW_MS) is End.REFUNDED
