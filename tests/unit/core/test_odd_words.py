"""Numbers that are replaced, codes that change, and replies that only a person can read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from holdpay.core import events as ev
from holdpay.core.explain import explain
from holdpay.core.history import Moment, history_line
from holdpay.core.items import MAX_OTHERS, MAX_UNREAD, ItemKind, texts
from holdpay.core.machine import MAX_ANOMALIES, decide
from holdpay.core.model import Order
from holdpay.core.states import End, HtlcState, OrderState
from holdpay.core.step import Step
from holdpay.sms4sats import parse
from holdpay.sms4sats.parse import Answer
from tests.unit.build import NOW_MS, POLICY, S, order, pair, replied, settled

CASES = Path(__file__).parents[2] / "fixtures" / "odd_orderstatus.jsonl"
AWAITING, PAID, NUMBER = OrderState.AWAITING_PAYMENT, OrderState.PAID, OrderState.NUMBER_ASSIGNED
DELIVERED, CANCELED = OrderState.DELIVERED, OrderState.CANCELED
NONE, IN_FLIGHT, SETTLED, FAILED = HtlcState.NONE, HtlcState.IN_FLIGHT, HtlcState.SETTLED, HtlcState.FAILED
FIRST, SECOND = "12025550101", "12025550177"
ODD = '{"paid":true,"code":["480","10"]}'


def step(found: Order, event: ev.Event, at_s: int = 1) -> Step:
    return decide(found, event, POLICY, NOW_MS + at_s * S)


def run(found: Order, *events: ev.Event) -> Order:
    for event in events:
        found = step(found, event).order
    return found


def numbered(*numbers: str, code: str | None = None) -> Order:
    said = [replied(paid=True, number=number) for number in numbers]
    found = run(pair(PAID, IN_FLIGHT), *said)
    return found if code is None else run(found, replied(paid=True, number=numbers[-1], code=code))


# --- numbers --------------------------------------------------------------------------------------------------------


def test_a_second_number_that_was_seen_takes_the_place_of_the_first_and_both_are_kept() -> None:
    (case,) = (c for line in CASES.read_text().splitlines() if (c := json.loads(line))["name"] == "a second number")
    said = parse.order_status(Answer(case["http_status"], case["body"].encode()))
    done = step(numbered(case["want"]["after_number"]), ev.ProviderReplied(NOW_MS, said))
    assert (done.order.number, done.order.earlier_numbers) == (case["want"]["number"], (case["want"]["after_number"],))
    assert done.notes == ("the provider replaced the number; the new one counts",)


def test_a_number_that_was_replaced_does_not_come_back_with_a_stale_reply() -> None:
    done = step(numbered(FIRST, SECOND), replied(paid=True, number=FIRST))
    assert (done.order.number, done.order.earlier_numbers) == (SECOND, (FIRST,))
    assert done.notes


def test_the_number_to_which_the_code_came_stays() -> None:
    done = step(numbered(FIRST, code="1"), replied(paid=True, number=SECOND, code="1"))
    assert (done.order.number, done.order.earlier_numbers) == (FIRST, ())
    assert done.notes


def test_a_number_that_comes_new_with_the_code_is_the_one_to_which_it_came() -> None:
    found = run(numbered(FIRST), replied(paid=True, number=SECOND, code="48010"))
    assert (found.number, found.earlier_numbers, found.code) == (SECOND, (FIRST,), "48010")


def test_so_many_numbers_are_followed_and_no_more() -> None:
    found = numbered(*(str(n) for n in range(MAX_OTHERS + 9)))
    assert found.number == str(MAX_OTHERS)
    assert found.earlier_numbers == tuple(str(n) for n in range(MAX_OTHERS))


def test_a_replaced_number_is_said_by_explanation_and_history() -> None:
    before = numbered(FIRST)
    done = step(before, replied(paid=True, number=SECOND))
    told = explain(done.order, POLICY, NOW_MS)
    assert "The provider replaced the number: the latest counts" in told.summary
    assert f"Have the SMS sent to +{SECOND}, no longer to +{FIRST}:" in told.next
    line = history_line(Moment(NOW_MS, "provider_replied", done.order, done.notes), before)
    assert line is not None
    assert line.startswith(f"the number is +{SECOND} now, no longer +{FIRST}; noticed: ")


# --- codes ----------------------------------------------------------------------------------------------------------


def test_of_two_codes_the_first_counts_and_both_are_kept() -> None:
    done = step(numbered(FIRST, code="012345"), replied(paid=True, number=FIRST, code="98765"))
    assert (done.order.code, done.order.later_codes) == ("012345", ("98765",))
    assert done.notes == ("the provider sent another code; the first one counts",)
    told = explain(done.order, POLICY, NOW_MS).summary
    assert f"more than one code: the first counts, and `holdpay orders show {done.order.id}` shows all" in told
    assert "98765" not in told


def test_a_second_code_that_is_repeated_is_kept_once() -> None:
    found = numbered(FIRST, code="1")
    again = run(found, *(replied(paid=True, code=code) for code in ("2", "1", "2", "3", "1")))
    assert (again.code, again.later_codes) == ("1", ("2", "3"))


def test_so_many_codes_are_kept_and_no_more() -> None:
    found = run(pair(PAID, IN_FLIGHT), *(replied(paid=True, code=f"c{n}") for n in range(MAX_OTHERS + 9)))
    assert (found.code, found.later_codes) == ("c0", tuple(f"c{n}" for n in range(1, MAX_OTHERS + 1)))


# --- what only a person can read ------------------------------------------------------------------------------------


def test_a_reply_whose_code_cannot_be_read_is_kept_and_noted_once() -> None:
    done = step(pair(NUMBER, IN_FLIGHT), replied(paid=True, number="15551234567", unread=ODD))
    assert done.order.unread == (ODD,)
    assert done.notes == ("something in the provider's reply cannot be read; the reply is kept",)
    assert not step(done.order, replied(paid=True, number="15551234567", unread=ODD), 9).is_change


@pytest.mark.parametrize("found", [pair(AWAITING, IN_FLIGHT), pair(PAID, SETTLED), pair(NUMBER, FAILED)])
def test_a_reply_that_makes_no_sense_is_kept_of_an_order_that_was_paid(found: Order) -> None:
    done = step(found, ev.ProviderConfused("not JSON", unread="Your code is 48010"))
    assert done.order.unread == ("Your code is 48010",)
    assert done.notes == ("not JSON",)


@pytest.mark.parametrize("found", [pair(AWAITING, NONE), pair(DELIVERED, IN_FLIGHT, code="1"), pair(CANCELED, FAILED)])
def test_a_reply_that_makes_no_sense_is_not_kept_where_nothing_was_paid_for_or_the_code_is_here(found: Order) -> None:
    assert step(found, ev.ProviderConfused("not JSON", unread="busy")).order.unread == ()


def test_each_reply_that_cannot_be_read_is_kept_once_and_those_that_surely_hold_something_come_first() -> None:
    vague = ev.ProviderConfused("not JSON", unread="busy")
    odd, newer = replied(paid=True, unread=ODD), replied(paid=True, unread="newer")
    found = run(pair(PAID, IN_FLIGHT), vague, odd, vague, odd, newer, odd)
    assert found.unread == (ODD, "newer", "busy")


def test_a_reply_that_differs_in_its_time_only_is_the_same() -> None:
    first, later = (f'{{"code":{{}},"timestamp":{at_ms},"paid":true}}' for at_ms in (1_790_000_000_000, 1_790_000_005))
    other = '{"code":[{}],"timestamp":1790000000000,"paid":true}'
    assert run(pair(PAID, IN_FLIGHT), *(replied(paid=True, unread=raw) for raw in (first, later, other))).unread == (
        first,
        other,
    )


def test_replies_that_are_all_new_and_all_odd_are_kept_and_then_counted_and_write_a_bounded_number_of_rows() -> None:
    found, rows = pair(PAID, IN_FLIGHT), 0
    for n in range(300):
        said = replied(paid=True, unread=f"odd {n}") if n > 100 else ev.ProviderConfused("odd", unread=f"busy {n}")
        done = step(found, said)
        found, rows = done.order, rows + done.is_change
    assert rows <= MAX_ANOMALIES + MAX_UNREAD
    sure = MAX_UNREAD // 2
    assert found.unread[:sure] == tuple(f"odd {n}" for n in range(101, 101 + sure)), "whatever came before"
    assert len(found.unread) == MAX_UNREAD
    (more,) = texts(found.items, ItemKind.UNREAD_MORE)
    assert int(more) == MAX_ANOMALIES - sure, "no more rows than anomalies are written for a mere count"


def test_a_quarantined_order_keeps_what_was_said_a_bounded_number_of_times() -> None:
    """Its pair breaks a law, so nothing else of it moves."""
    found = replace(pair(AWAITING, FAILED), state=OrderState.ABANDONED, quarantined_at_ms=NOW_MS)
    found = replace(found, payment=pair(PAID, IN_FLIGHT).payment)
    rows = 0
    for n in range(200):
        done = step(found, replied(paid=True, code="1" if n < 100 else "2", number="1555", unread=f"odd {n}"))
        found, rows = done.order, rows + done.is_change
    assert (found.code, found.number, found.later_codes) == ("1", "1555", ("2",))
    assert found.unread == tuple(f"odd {n}" for n in range(MAX_UNREAD))
    assert rows <= MAX_ANOMALIES + 2


def test_a_person_is_told_where_to_read_what_could_not_be_read() -> None:
    found = run(pair(NUMBER, IN_FLIGHT), replied(paid=True, unread=ODD))
    show = f"it is shown by `holdpay orders show {found.id}`."
    assert f"The provider's reply could not be read; {show}" in explain(found, POLICY, NOW_MS).summary
    charged = run(found, settled())
    closed = decide(charged, replied(paid=True, unread=ODD), POLICY, NOW_MS + 100 * 3600 * S).order
    assert closed.end is End.CHARGED_UNFULFILLED
    assert show in explain(closed, POLICY, NOW_MS).summary
    assert ODD not in str(explain(closed, POLICY, NOW_MS))


def test_a_code_that_comes_later_is_not_hidden_behind_the_reply_that_could_not_be_read() -> None:
    found = run(pair(NUMBER, IN_FLIGHT), replied(paid=True, unread=ODD), replied(paid=True, code="48010"))
    assert (found.code, found.unread) == ("48010", (ODD,))
    told = explain(found, POLICY, NOW_MS).summary
    assert "The provider's reply could not be read" not in told
    assert "Besides, a reply of the provider could not be read whole" in told


def test_nothing_is_said_of_odd_replies_where_there_were_none() -> None:
    for found in (order(), numbered(FIRST), numbered(FIRST, code="1")):
        assert "orders show" not in explain(found, POLICY, NOW_MS).summary
