"""What `holdpay top` shows, on every size of screen: the pure function from state to lines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli import render
from holdpay.cli.top.layout import fitted, lines
from holdpay.cli.top.state import Connected, Lost, Page, State, Updated, told
from holdpay.cli.top.text import ASCII, BAD, GOOD, ODD, UNICODE, Style, bar, columns_of, wrapped
from tests.unit.cli.fake_daemon import ACCEPTED, HELD, NOW_MS, NUMBERED, a_request, ended, updates
from tests.unit.cli.test_catalog_and_status import STATUS

SIZE = (80, 24)


def status(**changes: Any) -> pb.GetStatusResponse:
    changed = pb.GetStatusResponse(**changes)
    found = pb.GetStatusResponse()
    found.CopyFrom(STATUS)
    found.MergeFrom(changed)
    return found


def out(request_id: str, **changes: Any) -> pb.MoneyOut:
    usual: dict[str, Any] = {
        "request_id": request_id,
        "locked_msat": 3_003_512,
        "since_ms": NOW_MS - 60_000,
        "blocks_left": 140,
        "hours_left": 23.3,
        "level": pb.HOLD_LEVEL_OK,
        "next": "The SMS comes, or the money comes back.",
        "htlcs": [pb.HtlcOut(channel="812x1x0", peer_alias="bob", peer_online=True)],
    }
    return pb.MoneyOut(**usual | changes)


def state(*requests: pb.Request, **of_status: Any) -> State:
    shown = status(**of_status)
    return told(State(status=shown), Connected(shown, requests, 10), NOW_MS)


def screen(shown: State, columns: int = 80, height: int = 24, now_ms: int = NOW_MS) -> list[str]:
    return [line.plain for line in lines(shown, columns, height, now_ms, UNICODE)]


def line_with(shown: list[str], words: str) -> str:
    (found,) = [line for line in shown if words in line]
    return found


def row_of(shown: list[str], request_id: str) -> str:
    (found,) = [line for line in shown if line[2:].startswith(f"{request_id} ") and line[0] in " ►"]
    return found


BUSY = state(
    a_request(id="ord-held", **NUMBERED),
    a_request(id="ord-new", **ACCEPTED),
    a_request(id="ord-late", **HELD | {"promise_until_ms": NOW_MS - 190_000, "hold_level": pb.HOLD_LEVEL_LATE}),
    out=[out("ord-held"), out("ord-late", level=pb.HOLD_LEVEL_LATE)],
    alarms=["order ord-late: canceled, and the money is still not back"],
    holds=pb.Holds(orders=2, max_orders=4, locked_msat=6_000_000, max_locked_sat=9_000),
)


def test_a_request_is_a_row_with_phase_money_and_both_countdowns() -> None:
    row = row_of(screen(BUSY), "ord-held")
    assert row.split() == [
        *("ord-held", "OpenAI,", "USA", "held,", "waiting", "for", "the…"),
        *("3,004", "21m00s", "140b", "~23h", "ok"),
    ]


def test_a_promise_that_has_passed_counts_up_behind_a_minus() -> None:
    assert "-3m10s" in row_of(screen(BUSY), "ord-late")


def test_the_countdowns_go_on_with_the_clock() -> None:
    assert "20m50s" in row_of(screen(BUSY, now_ms=NOW_MS + 10_000), "ord-held")


def test_the_most_urgent_request_is_first_and_what_has_no_money_out_last() -> None:
    critical = a_request(id="ord-bad", **HELD | {"hold_level": pb.HOLD_LEVEL_CRITICAL})
    shown = screen(state(*BUSY.requests.values(), critical))
    order = [shown.index(row_of(shown, name)) for name in ("ord-bad", "ord-late", "ord-held", "ord-new")]
    assert order == sorted(order)
    assert row_of(shown, "ord-bad").split()[-1] == "CRIT"


def test_lnd_and_the_provider_have_a_line_each() -> None:
    shown = screen(BUSY, columns=100)
    assert line_with(shown, "lnd  ").split() == [
        *("lnd", "ready", "·", "block", "871,000,", "synced", "·", "1,000,000", "sat", "spendable", "·"),
        *("alice", "·", "0.21.0-beta", "·", "regtest"),
    ]
    assert "answered 3s ago · 20 requests/s at most · 3 due, 0.1 s behind" in line_with(shown, "sms4sats")


def test_an_lnd_that_is_away_says_since_when_its_height_is_old() -> None:
    away = state(lnd=pb.LndStatus(state="unreachable", answered_at_ms=NOW_MS - 90_000), not_ready_reason="lnd is away.")
    away.status.ready = False
    shown = screen(away)
    assert "orders are not taken now" in shown[0]
    assert "lnd is away." in shown
    assert "unreachable · as of 1m30s ago · block 871,000" in line_with(shown, "lnd  ")


def test_limits_are_bars_of_what_is_spent_and_what_is_reserved() -> None:
    line = line_with(screen(BUSY, columns=160), "Last 24 h")
    assert "9,091 of 100,000 sat" in line
    drawn = line.split("Last 24 h ")[1].split(" 9,091")[0]
    assert drawn.strip("█▒░") == ""
    assert drawn.startswith("█" * 3 + "▒")


@pytest.mark.parametrize(("spent", "style"), [(70_000_000, GOOD), (90_000_000, ODD), (100_000_000, BAD)])
def test_a_bar_has_the_colour_of_how_full_it_is(spent: int, style: Style) -> None:
    full = state(money=pb.Money(spent_day_msat=spent))
    full.status.money.pending_msat = 0
    (line,) = [line for line in lines(full, 60, 24, NOW_MS, UNICODE) if "Last 24 h" in line.plain]
    assert style in dict(line.parts).values()


def test_caps_of_holds_are_shown_where_there_are_any() -> None:
    assert "2 of 4" in line_with(screen(BUSY), "Holds")
    assert not any("Holds" in line for line in screen(state()))


def test_a_client_sees_its_own_budget_and_nothing_of_the_node() -> None:
    shown = pb.GetStatusResponse(
        ready=True,
        client="alice",
        lnd=pb.LndStatus(state="ready"),
        budget=pb.Budget(
            max_open_orders=3,
            open_orders=1,
            lines=[pb.BudgetLine(period="day", limit_sat=10_000, spent_msat=2_000_000, reserved_msat=3_000_000)],
        ),
    )
    lines_ = screen(State(status=shown))
    assert lines_[0].startswith("holdpay · alice  orders are taken")
    assert "1 of 3" in line_with(lines_, "Open")
    assert "5,000 of 10,000 sat" in line_with(lines_, "Day")
    assert not any("block" in line or "due" in line for line in lines_)


def test_the_selected_request_says_what_comes_next_and_where_its_htlc_is() -> None:
    offline = pb.HtlcOut(channel="9x9x9", peer_alias="carol", peer_online=False)
    warned = HELD | {"hold_level": pb.HOLD_LEVEL_WARNING, "hold_why": "the peer is offline"}
    shown = screen(state(a_request(**warned), out=[out(a_request().id, htlcs=[offline])]))
    assert "Warning: the peer is offline" in shown
    assert "Next: The SMS comes, or the money comes back." in shown
    assert "By channel 9x9x9 to carol (OFFLINE)" in shown


def test_the_last_events_are_told_the_latest_first() -> None:
    shown = BUSY
    for update in updates(HELD, NUMBERED, first_cursor=11):
        assert isinstance(update, pb.RequestUpdate)
        shown = told(shown, Updated(update), NOW_MS)
    lines_ = screen(shown)
    first = lines_.index("LAST EVENTS") + 1
    assert lines_[first].endswith("held, waiting for the SMS; the number is +15550001111")
    assert "event 11: held, a number is being found" in lines_[first + 1]


def test_an_event_of_another_day_has_its_date() -> None:
    (update,) = updates(HELD, first_cursor=11)
    assert isinstance(update, pb.RequestUpdate)
    shown = told(BUSY, Updated(update), NOW_MS)
    at = [line_with(screen(shown, now_ms=NOW_MS + days * 86_400_000 + 20_000), "event 11") for days in (0, 2)]
    date = render.date_time(update.at_ms)
    assert at[0].startswith(f"{date[11:]} ")
    assert at[1].startswith(f"{date[5:16]} ord")


def test_a_daemon_that_is_away_is_told_with_what_it_means() -> None:
    shown = screen(told(BUSY, Lost("Nobody answers."), NOW_MS), now_ms=NOW_MS + 5000)
    assert "THE DAEMON IS AWAY for 5s" in shown[0]
    assert "What is below is as it was before. Nobody answers." in shown


def test_a_cancel_asks_before_it_is_done() -> None:
    assert screen(replace(BUSY, canceling="ord-held"))[-1] == "Cancel ord-held? y: yes, else: no"


LONG = pb.ExplainRequestResponse(
    request=a_request(),
    summary="It is open.",
    money="3,000 sat are locked.",
    next="The SMS comes.",
    history=[pb.HistoryEntry(at_ms=NOW_MS, text=f"thing {n} happened") for n in range(100)],
)


def test_an_explanation_is_turned_to_its_end_and_no_further() -> None:
    page = fitted(replace(BUSY, page=Page(LONG, 10_000)), *SIZE)
    shown = screen(page)
    assert shown[-2].endswith("thing 99 happened")
    assert shown[1].endswith("thing 78 happened")


def test_an_explanation_begins_with_where_the_money_is() -> None:
    shown = screen(replace(BUSY, page=Page(LONG)))
    assert "Money  3,000 sat are locked." in shown[:5]


@pytest.mark.parametrize("columns", [1, 2, 5, 20, 40, 79, 80, 132, 250])
@pytest.mark.parametrize("height", [1, 2, 3, 5, 10, 24, 60])
def test_it_fits_every_screen(columns: int, height: int) -> None:
    views = [BUSY, told(BUSY, Lost("No."), NOW_MS), replace(BUSY, page=Page(LONG)), replace(BUSY, said="word " * 50)]
    alarmed = state(*BUSY.requests.values(), alarms=["something is wrong"] * 50)
    for view in [*views, state(), alarmed, replace(BUSY, canceling="ord-held")]:
        shown = lines(view, columns, height, NOW_MS, UNICODE)
        assert len(shown) == height
        assert max(line.columns for line in shown) <= columns
        assert height == 1 or columns < 6 or shown[-1].plain.startswith(("↑↓ ", "Cancel"))


def test_on_80_by_24_all_parts_are_there() -> None:
    shown = screen(BUSY)
    for words in ("holdpay", "ALARM", "lnd", "sms4sats", "Pending", "ord-held", "Next:", "LAST EVENTS", "q quit"):
        assert any(words in line for line in shown), words


def test_on_40_by_10_requests_alarm_and_keys_are_left() -> None:
    shown = screen(BUSY, 40, 10)
    for words in ("holdpay", "ALARM", "ord-held", "ord-new", "ord-late", "21m00s", "enter explain", "q quit"):
        assert any(words in line for line in shown), words


def test_a_larger_screen_shows_more_requests_and_events() -> None:
    many = state(*(a_request(id=f"ord-{n:04}", **HELD) for n in range(60)))

    def count(height: int) -> int:
        return sum("  ord-" in line or "► ord-" in line for line in screen(many, height=height))

    assert (count(24), count(80)) == (12, 60)


def test_the_selected_one_is_in_sight_however_far_down() -> None:
    many = state(*(a_request(id=f"ord-{n:04}", created_at_ms=NOW_MS + n) for n in range(60)))
    for n in (0, 30, 59):
        assert any(line.startswith(f"► ord-{n:04}") for line in screen(replace(many, selected=f"ord-{n:04}")))


def test_requests_that_have_no_room_are_counted() -> None:
    many = state(*(a_request(id=f"ord-{n:04}", created_at_ms=NOW_MS + n) for n in range(60)))
    assert any(line.startswith("  1-12 of 60 ") for line in screen(many))
    assert any(line.startswith("  49-60 of 60 ") for line in screen(replace(many, selected="ord-0059")))
    assert any(line.startswith("  ORDER ") for line in screen(BUSY))


def test_a_request_that_ended_stays_for_a_minute() -> None:
    shown = state(a_request(**ended(pb.END_REFUNDED)))
    closed_ms = a_request(**ended(pb.END_REFUNDED)).closed_at_ms
    assert any("refunded" in line for line in screen(shown, now_ms=closed_ms + 59_000))
    assert any("nothing is open" in line for line in screen(shown, now_ms=closed_ms + 61_000))


def test_a_terminal_without_unicode_gets_ascii() -> None:
    for line in lines(BUSY, 80, 24, NOW_MS, ASCII):
        assert line.plain.isascii()


hostile = st.text(min_size=0, max_size=60) | st.sampled_from(
    [
        "\x1b[2J\x1b[H",
        "\x1b]0;owned\x07",
        "\x9b31m",
        "a\rb",
        "\u202eevil",
        "数字" * 30,
        "e\u0301" * 40,
        "x\n\ny",
        "\x00",
    ]
)


@given(hostile, st.integers(1, 130), st.integers(1, 40))
def test_no_text_of_others_breaks_the_screen(words: str, columns: int, height: int) -> None:
    """The provider's, lnd's and other clients' words: no control character gets through, no line gets longer."""
    request = a_request(
        **NUMBERED | {"number": words, "phase": words, "what": words, "reason": words, "hold_why": words},
        alarms=[words],
        client=words,
    )
    shown = state(
        request,
        out=[out(request.id, next=words, htlcs=[pb.HtlcOut(channel=words, peer_alias=words)])],
        alarms=[words],
        not_ready_reason=words,
        provider=pb.ProviderStatus(url=words, last_error=words),
        lnd=pb.LndStatus(alias=words, state=words, version=words, network=words),
    )
    told_of = pb.RequestUpdate(cursor=20, at_ms=NOW_MS, event=words, request=request)
    reply = pb.ExplainRequestResponse(
        request=request, summary=words, money=words, next=words, history=[pb.HistoryEntry(text=words)]
    )
    shown = replace(told(told(shown, Updated(told_of), NOW_MS), Lost(words), NOW_MS), said=words)
    for view in (shown, replace(shown, page=Page(reply))):
        for line in lines(view, columns, height, NOW_MS, UNICODE):
            assert all(char.isprintable() for char in line.plain)
            assert line.columns <= columns


@given(st.text(), st.integers(2, 60))
def test_wrapped_words_are_all_there(words: str, columns: int) -> None:
    joined = "".join("".join(wrapped(words, columns)).split())
    assert joined == "".join(render.plain(words).split())


def test_a_bar_shows_whatever_is_more_than_nothing_and_never_more_than_all() -> None:
    parts = (("█", 1), ("▒", 1))
    assert bar(10, parts, 1000, "░") == "█░░░░░░░░░"
    assert bar(4, (("█", 500), ("▒", 1500)), 1000, "░") == "██▒▒"
    assert bar(4, (("█", 0), ("▒", 0)), 0, "░") == "████"


@pytest.mark.parametrize(("words", "columns"), [("abc", 3), ("数字", 4), ("e\u0301", 1), ("►█", 2), ("ｱ", 1), ("", 0)])
def test_characters_are_counted_by_the_columns_that_they_take(words: str, columns: int) -> None:
    assert columns_of(words) == columns
