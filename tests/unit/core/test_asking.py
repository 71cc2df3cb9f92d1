"""When the provider is asked next, and what for."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from holdpay.core.asking import (
    CODE,
    NUMBER,
    STEP_ENDS_S,
    Arrivals,
    Learned,
    Question,
    hinted_question,
    is_owed,
    next_question,
    paid_at_ms,
)
from holdpay.core.charge import ChargeState
from holdpay.core.items import Item, ItemKind
from holdpay.core.model import Order
from holdpay.core.states import FailureClass, HtlcState, OrderState
from tests.unit.build import NOW_MS, POLICY, RENTAL, SMS, S, failure, order, pair, payment, prepaid, proven_absent

NONE, DISPATCHING, UNKNOWN, IN_FLIGHT, SETTLED, FAILED, GONE = HtlcState
REQUESTED, AWAITING, PAID, NUMBER_HERE, DELIVERED, CANCELED, ABANDONED = OrderState


def _question(found: Order, *, asked_s: float | None, at_s: float = 0, learned: Learned | None = None) -> Question:
    asked_at_ms = None if asked_s is None else NOW_MS + int(asked_s * S)
    return next_question(found, asked_at_ms, POLICY, NOW_MS + int(at_s * S), learned=learned or Learned())


def _poll_s(found: Order, *, asked_s: float | None, at_s: float = 0) -> float:
    """When the next poll is due, in seconds after NOW_MS."""
    return (_question(found, asked_s=asked_s, at_s=at_s).at_ms - NOW_MS) / S


@pytest.mark.parametrize("state", [AWAITING, PAID, NUMBER_HERE])
@pytest.mark.parametrize("asked_s", [None, 0, 20, 3000])
def test_an_order_of_which_the_provider_tells_is_asked_about_seldom(state: OrderState, asked_s: float | None) -> None:
    found, asked_at_ms = pair(state, IN_FLIGHT), None if asked_s is None else NOW_MS + int(asked_s * S)
    usual_ms, told_ms = (
        next_question(found, asked_at_ms, POLICY, NOW_MS + 3000 * S, learned=Learned(), is_told=is_told).at_ms
        for is_told in (False, True)
    )
    assert told_ms == max(usual_ms, (asked_at_ms or NOW_MS) + 30 * S)
    assert (told_ms > usual_ms) == (asked_s != 3000), "a late order is asked about as seldom as ever"


def test_what_only_the_provider_s_answer_can_say_is_not_waited_for_longer_when_it_tells() -> None:
    """That an order is unpaid, and why its HTLC ended, comes by no hint."""
    unpaid = pair(AWAITING, FAILED)
    ended = pair(PAID, SETTLED)
    for found in (unpaid, ended):
        asked_at_ms = NOW_MS - 10 * S
        told, usual = (
            next_question(found, asked_at_ms, POLICY, NOW_MS + S, learned=Learned(), is_told=is_told).at_ms
            for is_told in (True, False)
        )
        assert told == usual <= NOW_MS + 2 * S


@pytest.mark.parametrize(("asked_s", "at_s", "due_s"), [(None, 0, 0), (0, 0, 1), (0, 0.4, 1), (0, 7, 7), (90, 0, 1)])
def test_a_hint_makes_a_question_at_once_but_a_second_after_the_one_before(
    asked_s: float | None, at_s: float, due_s: float
) -> None:
    asked_at_ms = None if asked_s is None else NOW_MS + int(asked_s * S)
    assert hinted_question(asked_at_ms, NOW_MS + int(at_s * S)) == Question(at_ms=NOW_MS + int(due_s * S), is_news=True)


def _polls(found: Order, for_s: float) -> list[float]:
    """All polls in this time, if no reply changes anything."""
    polls: list[float] = []
    at_s = 0.0
    while at_s < for_s:
        due_s = _poll_s(found, asked_s=polls[-1] if polls else None, at_s=at_s)
        at_s = max(at_s, due_s)
        polls.append(at_s)
        assert len(polls) < 5_000, "a hot loop"
    return polls[:-1]


def test_a_number_is_asked_for_when_it_is_likely_and_seldom_before_and_long_after() -> None:
    polls = _polls(pair(PAID, IN_FLIGHT), 1260)
    assert [poll for poll in polls if poll < 12] == []
    assert 6 <= len([poll for poll in polls if 12 <= poll < 25]) <= 8
    gaps = [later - sooner for sooner, later in pairwise(polls)]
    assert min(gaps) >= 1
    assert max(gaps) < 15.001
    assert len(polls) < 160


def test_a_number_that_comes_when_it_should_is_seen_after_a_second_on_the_average() -> None:
    polls = _polls(pair(PAID, IN_FLIGHT), 60)
    lags = [next(poll for poll in polls if poll >= came) - came for came in (12 + 0.13 * step for step in range(100))]
    assert sum(lags) / len(lags) < 1.2


def test_that_it_is_paid_for_brings_a_number_no_nearer() -> None:
    told = pair(PAID, IN_FLIGHT, state_since_ms=NOW_MS + 10 * S)
    assert _poll_s(told, asked_s=10, at_s=10) == _poll_s(pair(AWAITING, IN_FLIGHT), asked_s=10, at_s=10)


def test_the_wait_for_the_code_begins_with_the_number() -> None:
    found = pair(NUMBER_HERE, IN_FLIGHT, state_since_ms=NOW_MS + 100 * S)
    assert _poll_s(found, asked_s=100, at_s=100) == pytest.approx(110, abs=1)


def _numbered(after_s: float) -> Order:
    number = Item(kind=ItemKind.NUMBER, text="15551234567", seen_at_ms=NOW_MS + int(after_s * S))
    return replace(pair(NUMBER_HERE, IN_FLIGHT, money_out_since_ms=NOW_MS), items=(number,))


def test_what_was_never_paid_for_or_has_no_market_teaches_nothing() -> None:
    learned = Learned()
    learned.number_came(pair(PAID, IN_FLIGHT, money_out_since_ms=NOW_MS))
    learned.number_came(replace(_numbered(20), payment=None))
    learned.number_came(_numbered(-20))
    rental = _numbered(20)
    learned.number_came(replace(rental, request=replace(rental.request, spec=RENTAL)))
    assert learned.by_market == {}


def test_a_market_s_own_habit_is_learned_and_forgotten_again() -> None:
    found = pair(PAID, IN_FLIGHT)
    assert found.spec.market is not None
    learned = Learned()
    for _ in range(100):
        learned.number_came(_numbered(50))
    assert _question(found, asked_s=0, learned=learned).at_ms > NOW_MS + 14 * S, "nothing before"
    polled, gaps = 0.0, []
    while polled < 60:
        due_s = (_question(found, asked_s=polled, at_s=polled, learned=learned).at_ms - NOW_MS) / S
        gaps.append((polled, due_s - polled))
        polled = due_s
    assert max(gap for at_s, gap in gaps if at_s > 42) < 5
    assert learned.numbers("another/market") is NUMBER
    for _ in range(300):
        learned.number_came(_numbered(5))
    assert _question(found, asked_s=0, learned=learned).at_ms < NOW_MS + 7 * S


@pytest.mark.parametrize("arrivals", [NUMBER, CODE])
@pytest.mark.parametrize("waited_s", [0.0, 3.9, 4.0, 11.99, 24.0, 100.0, 1799.0, 1800.0, 5000.0])
def test_between_two_questions_news_waits_for_their_cost_on_the_average(arrivals: Arrivals, waited_s: float) -> None:
    """Against the integral, summed in small steps."""
    cost_s = 0.2
    wait_s = arrivals.wait_s(waited_s, cost_s)
    if waited_s >= 1800:
        assert wait_s == pytest.approx((2 * cost_s * waited_s) ** 0.5)
        return
    left = _left(arrivals, waited_s)
    steps = 2000
    waiting_s = sum(
        (1 - _left(arrivals, waited_s + wait_s * (step + 0.5) / steps) / left) * wait_s / steps for step in range(steps)
    )
    assert waiting_s == pytest.approx(cost_s, rel=0.01)


def _left(arrivals: Arrivals, waited_s: float) -> float:
    """How many have not come yet after so long."""
    left, began_s = sum(arrivals.counts), 0.0
    for count, end_s in zip(arrivals.counts, STEP_ENDS_S, strict=True):
        left -= count * min(max((waited_s - began_s) / (end_s - began_s), 0), 1)
        began_s = end_s
    return left


@pytest.mark.parametrize("htlc", [SETTLED, FAILED])
@pytest.mark.parametrize("state", [AWAITING, PAID, NUMBER_HERE])
def test_when_the_htlc_ends_the_provider_is_asked_at_once(state: OrderState, htlc: HtlcState) -> None:
    found = pair(state, htlc, htlc_since_ms=NOW_MS + 100 * S)
    assert _poll_s(found, asked_s=90, at_s=101) == 101
    assert _poll_s(found, asked_s=None, at_s=101) == 101
    assert _poll_s(found, asked_s=90, at_s=100) == 100.001, "not in the same millisecond: it would not count as later"
    assert _poll_s(found, asked_s=100, at_s=100) == 100.5, "and never twice in the same instant"


@pytest.mark.parametrize(
    ("state", "htlc"),
    [
        (state, htlc)
        for state in (AWAITING, PAID, NUMBER_HERE, CANCELED)
        for htlc in HtlcState
        if (state, htlc) not in {(AWAITING, NONE), (CANCELED, NONE), (CANCELED, FAILED)}
    ],
)
@pytest.mark.parametrize("set_back_s", [0, 3600])
def test_no_state_is_a_hot_loop_when_replies_change_nothing(
    state: OrderState, htlc: HtlcState, set_back_s: int
) -> None:
    """Also when the order's times lie ahead, because the wall clock was set back before a restart."""
    ahead_ms = NOW_MS + set_back_s * S
    polls = _polls(pair(state, htlc, state_since_ms=ahead_ms, htlc_since_ms=ahead_ms), 300)
    assert 15 <= len(polls) <= 160


def test_a_failure_seen_live_is_confirmed_by_one_poll_and_then_watched() -> None:
    found = pair(AWAITING, FAILED)
    assert _poll_s(found, asked_s=None, at_s=1) == 1
    sure = pair(AWAITING, FAILED, unpaid_since_ms=NOW_MS + 1 * S)
    assert _poll_s(sure, asked_s=1, at_s=1) == 16


def test_a_failure_read_later_is_confirmed_by_a_second_poll_ten_seconds_later() -> None:
    once = pair(AWAITING, FAILED, failure=failure(FailureClass.READ_LATER), unpaid_since_ms=NOW_MS + 1 * S)
    assert _poll_s(once, asked_s=0.9, at_s=1) == 11
    twice = pair(
        AWAITING,
        FAILED,
        failure=failure(FailureClass.READ_LATER),
        unpaid_since_ms=NOW_MS + 1 * S,
        unpaid_again_at_ms=NOW_MS + 11 * S,
    )
    assert _poll_s(twice, asked_s=11, at_s=11) == 26


def test_a_canceled_order_is_asked_about_slowly_until_its_money_is_back() -> None:
    assert _poll_s(pair(CANCELED, IN_FLIGHT), asked_s=30, at_s=30) == 45


def test_a_poll_rate_that_was_lifted_is_kept() -> None:
    quick = replace(POLICY, poll_min_s=0.01, poll_max_s=0.05)
    found = pair(AWAITING, FAILED, htlc_since_ms=NOW_MS)
    assert next_question(found, NOW_MS, quick, NOW_MS, learned=Learned()).at_ms == NOW_MS + 10


# --- the times themselves -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "until_s", "times_s"),
    [
        (
            pair(PAID, IN_FLIGHT),
            60,
            [
                13.33,
                15.66,
                17.79,
                19.74,
                21.5,
                23.11,
                24.52,
                26.03,
                28.27,
                30.35,
                33.88,
                37.23,
                40.41,
                45.29,
                49.99,
                54.51,
                58.84,
            ],
        ),
        (
            pair(NUMBER_HERE, IN_FLIGHT),
            100,
            [
                9.4,
                15.99,
                21.77,
                27.41,
                32.57,
                37.62,
                42.61,
                48.07,
                53.27,
                58.2,
                63.43,
                69.62,
                75.55,
                81.21,
                86.6,
                91.87,
                98.35,
            ],
        ),
        (prepaid(NUMBER_HERE, ChargeState.CHARGED), 40, [7.37, 12.85, 17.34, 21.69, 26.01, 29.95, 33.88, 37.66]),
        (pair(PAID, SETTLED), 30, [0.0, 2.0, 4.0, 6.0, 8.19, 10.75, 13.68, 16.99, 20.68, 24.75, 29.19]),
    ],
)
def test_an_order_is_asked_about_at_these_times(found: Order, until_s: float, times_s: list[float]) -> None:
    """As worked out from how long things take as a rule; whoever changes a rule sees here what it does."""
    assert [round(each, 2) for each in _polls(found, 3 * until_s) if each < until_s] == times_s


def test_what_is_later_than_the_promise_is_asked_about_after_an_eighth_of_the_wait_and_every_ten_minutes_at_least() -> (
    None
):
    found = pair(NUMBER_HERE, IN_FLIGHT)
    assert _poll_s(found, asked_s=1_259, at_s=1_259) == 1_274
    assert _poll_s(found, asked_s=1_260, at_s=1_260) == 1_260 + 157.5
    assert _poll_s(found, asked_s=4_800, at_s=4_800) == 5_400
    assert _poll_s(found, asked_s=9_600, at_s=9_600) == 10_200


def _next(found: Order, asked_s: float | None, at_s: float = 0, **told: bool) -> Question:
    asked_at_ms = None if asked_s is None else NOW_MS + int(asked_s * S)
    return next_question(found, asked_at_ms, POLICY, NOW_MS + int(at_s * S), learned=Learned(), **told)


def test_what_is_followed_after_its_delivery_is_asked_about_as_its_kind_says() -> None:
    sent = pair(DELIVERED, SETTLED, spec=SMS)
    asks = NOW_MS + 105 * S
    assert _next(sent, None, 100) == Question(at_ms=NOW_MS + 100 * S, patience_s=10)
    assert _next(sent, 80, 100) == Question(at_ms=asks, patience_s=10)
    assert _next(sent, 80, 100, is_watched=True) == Question(at_ms=NOW_MS + 85 * S, patience_s=10)
    assert _next(sent, 80, 100, is_told=True) == Question(at_ms=NOW_MS + 110 * S, patience_s=10)
    assert _next(sent, 80, 12, is_watched=True) == Question(at_ms=NOW_MS + 17 * S, patience_s=10), "a clock set back"


def test_what_the_provider_owes_or_knows_for_sure_is_news_and_the_rest_gives_way() -> None:
    assert _next(pair(PAID, SETTLED), None, 1) == Question(at_ms=NOW_MS + S, is_news=True)
    assert _next(pair(AWAITING, FAILED, htlc_since_ms=NOW_MS - S), 0, 0) == Question(at_ms=NOW_MS + 2 * S, is_news=True)
    assert _next(pair(PAID, IN_FLIGHT), 0).patience_s == 0
    assert _next(pair(NUMBER_HERE, IN_FLIGHT), 0).patience_s == 8
    assert _next(pair(CANCELED, IN_FLIGHT), 0).patience_s == 8
    assert not _next(pair(NUMBER_HERE, IN_FLIGHT), 0).is_news


def test_a_license_is_asked_for_after_twice_the_shortest_wait() -> None:
    back = pair(AWAITING, FAILED, htlc_since_ms=NOW_MS - S)
    odd = replace(POLICY, poll_min_s=0.5)
    assert next_question(back, NOW_MS, odd, NOW_MS, learned=Learned()).at_ms == NOW_MS + 1_000
    for failure_class in (FailureClass.ROUTING, FailureClass.NO_ATTEMPT):
        told = payment(FAILED, htlc_since_ms=NOW_MS - S, unpaid_since_ms=NOW_MS - 1, failure=failure(failure_class))
        found = replace(back, payment=told)
        assert _next(found, 0) == Question(at_ms=NOW_MS + 15 * S)
    absent = replace(back, payment=proven_absent(htlc_since_ms=NOW_MS - S))
    assert _next(absent, 0) == Question(at_ms=NOW_MS + 2 * S, is_news=True)
    late = pair(
        AWAITING, FAILED, htlc_since_ms=NOW_MS - S, unpaid_since_ms=NOW_MS, failure=failure(FailureClass.READ_LATER)
    )
    assert _next(late, 1, 1) == Question(at_ms=NOW_MS + 10 * S, is_news=True)


@pytest.mark.parametrize(
    ("found", "owed"),
    [
        (pair(PAID, SETTLED), True),
        (pair(DELIVERED, SETTLED), False),
        (pair(PAID, IN_FLIGHT), False),
        (order(), False),
        (prepaid(PAID, ChargeState.CHARGED), True),
        (prepaid(DELIVERED, ChargeState.CHARGED), False),
        (prepaid(REQUESTED, ChargeState.UNKNOWN), False),
    ],
)
def test_what_is_paid_for_and_did_not_come_is_owed(found: Order, owed: bool) -> None:
    assert is_owed(found) is owed


def test_the_wait_for_a_number_begins_with_the_payment_or_the_charge() -> None:
    assert paid_at_ms(pair(PAID, IN_FLIGHT, htlc_since_ms=NOW_MS + 5, state_since_ms=NOW_MS + 9)) == NOW_MS + 5
    assert paid_at_ms(prepaid(PAID, ChargeState.CHARGED, since_ms=NOW_MS + 5, state_since_ms=NOW_MS + 9)) == NOW_MS + 5
    assert paid_at_ms(order(state_since_ms=NOW_MS + 9)) == NOW_MS + 9


def test_one_more_counts_in_its_own_step_and_the_others_fade() -> None:
    none = Arrivals((0.0,) * len(STEP_ENDS_S))
    for delay_s, step in ((0, 0), (3.9, 0), (4, 1), (29, 7), (30, 8), (1_799, 15), (1_800, 15), (9_999, 15)):
        assert none.with_one(delay_s).counts == tuple(float(at == step) for at in range(len(STEP_ENDS_S)))
    assert Arrivals((50.0,) * len(STEP_ENDS_S)).with_one(0).counts == (50.0, *[49.0] * 15)


def test_what_is_later_than_every_step_is_waited_for_at_the_last_step_s_rate() -> None:
    """A tenth of a second is left of the last step, in which all that is left comes."""
    assert CODE.wait_s(1_799.9, 0.3) == pytest.approx(0.1 + 0.25)
    assert CODE.wait_s(1_800, 0.3) == pytest.approx((2 * 0.3 * 1_800) ** 0.5)


def test_an_end_that_lies_ahead_of_a_clock_that_was_set_back_is_asked_about_at_once() -> None:
    ahead = pair(AWAITING, FAILED, htlc_since_ms=NOW_MS + 3600 * S)
    assert _next(ahead, None) == Question(at_ms=NOW_MS, is_news=True)


def test_a_poll_rate_that_was_lifted_holds_while_something_is_waited_for_too() -> None:
    quick = replace(POLICY, poll_min_s=0.01, poll_max_s=0.05)
    found = pair(PAID, IN_FLIGHT)
    assert next_question(found, NOW_MS, quick, NOW_MS, learned=Learned()).at_ms == NOW_MS + 50
