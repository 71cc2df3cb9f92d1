"""What news and keys do to the state of `holdpay top`."""

from __future__ import annotations

from typing import Any

import pytest

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli.top.state import (
    KEPT_EVENTS,
    Cancel,
    Connected,
    Explain,
    Explained,
    Lost,
    Quit,
    Said,
    State,
    StatusSeen,
    Updated,
    Wish,
    pressed,
    told,
)
from tests.unit.cli.fake_daemon import ACCEPTED, HELD, NOW_MS, NUMBERED, SETTLED, a_request, ended

STATUS = pb.GetStatusResponse(ready=True)


def connected(*requests: pb.Request, cursor: int = 100) -> State:
    return told(State(status=STATUS), Connected(STATUS, requests, cursor), NOW_MS)


def update(cursor: int, stage: dict[str, Any], **changes: Any) -> Updated:
    request = a_request(**stage | changes, cursor=cursor)
    return Updated(pb.RequestUpdate(cursor=cursor, at_ms=NOW_MS, event=f"event_{cursor}", request=request))


def press(state: State, *keys: str) -> tuple[State, Wish | None]:
    wish = None
    for key in keys:
        state, wish = pressed(state, key, NOW_MS, page_lines=10)
    return state, wish


def phase(state: State, request_id: str) -> str:
    return state.requests[request_id].orders[-1].phase


def test_an_update_is_what_the_request_is_now_and_an_event() -> None:
    state = told(connected(a_request(id="a", **ACCEPTED, cursor=100)), update(101, HELD, id="a"), NOW_MS)
    assert phase(state, "a") == "held, a number is being found"
    assert [event.cursor for event in state.events] == [101]
    assert state.events[0].text.startswith("held, a number is being found; 3,003.512 sat locked")


def test_updates_from_before_the_connection_are_events_and_take_nothing_back() -> None:
    state = connected(a_request(id="a", **NUMBERED, cursor=100))
    for news in (update(90, ACCEPTED, id="a"), update(95, HELD, id="a"), update(96, HELD, id="gone-since")):
        state = told(state, news, NOW_MS)
    assert [event.cursor for event in state.events] == [90, 95, 96]
    assert list(state.requests) == ["a"]
    assert phase(state, "a") == "held, waiting for the SMS"


def test_an_end_from_right_before_the_connection_is_shown() -> None:
    state = told(connected(), update(99, ended(pb.END_REFUNDED), id="b"), NOW_MS)
    assert [row.request.id for row in state.rows(NOW_MS)] == ["b"]


def test_what_is_listed_after_the_cursor_is_not_taken_back_by_the_updates_that_led_there() -> None:
    state = connected(a_request(id="a", **NUMBERED, cursor=105), cursor=100)
    state = told(state, update(102, HELD, id="a"), NOW_MS)
    assert phase(state, "a") == "held, waiting for the SMS"
    assert phase(told(state, update(106, SETTLED, id="a"), NOW_MS), "a") == "over"


def test_after_a_reconnection_each_event_is_there_once() -> None:
    state = told(connected(), update(101, HELD, id="a"), NOW_MS)
    state = told(told(state, Lost("Away."), NOW_MS), Connected(STATUS, [], 101), NOW_MS + 1000)
    for news in (update(101, HELD, id="a"), update(102, NUMBERED, id="a")):
        state = told(state, news, NOW_MS)
    assert [event.cursor for event in state.events] == [101, 102]


def test_what_ended_while_the_daemon_was_away_is_open_no_more() -> None:
    state = connected(a_request(id="a", **HELD), a_request(id="b", **HELD))
    state = told(state, Connected(STATUS, [a_request(id="b", **HELD)], 120), NOW_MS)
    assert list(state.requests) == ["b"]


def test_the_journal_of_a_restored_database_begins_anew() -> None:
    state = told(connected(), update(101, HELD, id="a"), NOW_MS)
    state = told(state, Connected(STATUS, [], 50), NOW_MS)
    assert state.events == ()
    assert [event.cursor for event in told(state, update(51, HELD, id="c"), NOW_MS).events] == [51]


def test_away_counts_from_the_first_loss_and_ends_with_the_next_connection() -> None:
    state = told(told(connected(), Lost("One."), NOW_MS), Lost("Two."), NOW_MS + 5000)
    assert state.gone is not None
    assert (state.gone.why, state.gone.since_ms) == ("Two.", NOW_MS)
    assert told(state, Connected(STATUS, [], 1), NOW_MS).gone is None


def test_a_status_replaces_the_one_before() -> None:
    fresh = pb.GetStatusResponse(open_orders=5)
    assert told(connected(), StatusSeen(fresh), NOW_MS).status.open_orders == 5


def test_a_view_that_stays_open_does_not_grow() -> None:
    state, at_ms = connected(), NOW_MS
    for n in range(1000):
        at_ms += 120_000
        request = a_request(id=f"r{n}", **ended(pb.END_REFUNDED, closed_at_ms=at_ms))
        state = told(state, Updated(pb.RequestUpdate(cursor=200 + n, at_ms=at_ms, request=request)), at_ms)
    assert list(state.requests) == ["r999"]
    assert len(state.events) == KEPT_EVENTS


# --- keys -----------------------------------------------------------------------------------------------------------

THREE = connected(*(a_request(id=name, created_at_ms=NOW_MS + at, **HELD) for at, name in enumerate("abc")))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["down"], "b"),
        (["down", "down", "down"], "c"),
        (["j", "j", "k"], "b"),
        (["up"], "a"),
        (["end"], "c"),
        (["end", "home"], "a"),
        (["pagedown"], "c"),
    ],
)
def test_keys_select_a_request(keys: list[str], expected: str) -> None:
    assert press(THREE, *keys)[0].selected == expected


def test_the_selected_one_stays_selected_when_a_more_urgent_one_comes() -> None:
    state, _ = press(THREE, "down")
    state = told(state, update(101, HELD, id="d", hold_level=pb.HOLD_LEVEL_CRITICAL), NOW_MS)
    assert [row.request.id for row in state.rows(NOW_MS)] == ["d", "a", "b", "c"]
    assert press(state, "enter")[1] == Explain("b")


@pytest.mark.parametrize("key", ["enter", "e"])
def test_enter_explains_the_first_one_if_none_was_selected(key: str) -> None:
    assert press(THREE, key)[1] == Explain("a")


def test_only_y_cancels_and_only_after_c() -> None:
    assert press(THREE, "y")[1] is None
    asked, wish = press(THREE, "down", "c")
    assert (asked.canceling, wish) == ("b", None)
    assert press(asked, "y")[1] == Cancel("b")
    for key in ("n", "enter", "escape", "q", "c", "Y"):
        state, wish = press(asked, key)
        assert (state.canceling, wish, state.said) == ("", None, "b was not canceled.")


def test_the_one_that_was_asked_about_is_canceled_though_another_one_is_first_now() -> None:
    asked, _ = press(THREE, "c")
    state = told(asked, update(101, HELD, id="d", hold_level=pb.HOLD_LEVEL_CRITICAL), NOW_MS)
    assert press(state, "y")[1] == Cancel("a")


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (SETTLED, "is over: there is nothing to cancel"),
        (HELD | {"cancel_wanted_at_ms": NOW_MS}, "a cancel is wanted already"),
        (HELD | {"may_be_canceled": False}, "cannot be canceled"),
    ],
)
def test_what_cannot_be_canceled_is_not_asked_about(stage: dict[str, Any], words: str) -> None:
    state, wish = press(connected(a_request(id="a", **stage)), "c")
    assert (state.canceling, wish) == ("", None)
    assert words in state.said


def test_an_answer_stands_until_the_next_key() -> None:
    state = told(THREE, Said("a: it is canceled."), NOW_MS)
    assert state.said == "a: it is canceled."
    assert press(state, "down")[0].said == ""


def explained(request_id: str, **parts: Any) -> Explained:
    return Explained(pb.ExplainRequestResponse(request=a_request(id=request_id), **parts))


def reading() -> State:
    asked, _ = press(THREE, "down", "enter")
    return told(asked, explained("b"), NOW_MS)


def test_an_explanation_is_turned_and_left() -> None:
    state = reading()
    turned, _ = press(state, "down", "down", "up")
    assert turned.page is not None
    assert turned.page.first_line == 1
    assert press(state, "up")[0].page == state.page
    assert press(state, "escape")[0].page is None
    state, wish = press(state, "c")
    assert (state.page, state.canceling, wish) == (None, "", None)


def test_an_explanation_that_comes_anew_is_read_on_where_it_was() -> None:
    turned, _ = press(reading(), "down")
    page = told(turned, explained("b", summary="It is over."), NOW_MS).page
    assert page is not None
    assert (page.reply.summary, page.first_line) == ("It is over.", 1)


@pytest.mark.parametrize("key", ["down", "c"])
def test_an_explanation_that_comes_after_another_key_is_not_shown(key: str) -> None:
    asked, _ = press(THREE, "enter", key)
    assert told(asked, explained("a"), NOW_MS).page is None
    left, _ = press(reading(), "escape")
    assert told(left, explained("b"), NOW_MS).page is None


def test_q_leaves() -> None:
    assert isinstance(press(THREE, "q")[1], Quit)
    assert isinstance(press(connected(), "q")[1], Quit)
    assert isinstance(press(reading(), "q")[1], Quit)


def test_keys_do_nothing_where_nothing_is_open() -> None:
    for key in ("up", "down", "enter", "c", "x"):
        assert press(connected(), key) == (connected(), None)
