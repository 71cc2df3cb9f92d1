"""The one line on a terminal that says how a wait goes; and that nobody else sees anything of it."""

from __future__ import annotations

import io
from typing import Any

import pytest

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli.app import App
from holdpay.cli.follow import TextView
from holdpay.cli.progress import Countdown, Live, Screen, countdown
from holdpay.cli.top.text import columns_of
from tests.unit.cli.fake_daemon import ACCEPTED, DELIVERED, HELD, NOW_MS, NUMBERED, FakeClock, a_request, updates

SIGNS = ("█", "░")
PROMISE = Countdown("the promised end", NOW_MS, NOW_MS + 1_200_000)


def words(live: Live, *, after_s: int = 0, columns: int = 100) -> str:
    return live.words(NOW_MS + after_s * 1000, columns, SIGNS)


def test_the_line_has_the_time_the_phase_and_a_bar_to_the_promise() -> None:
    shown = words(Live("held, waiting for the SMS", NOW_MS, PROMISE), after_s=600)
    assert shown == f"  10m00s  held, waiting for the SMS …  {'█' * 12}{'░' * 12} 10m00s to the promised end"


def test_the_bar_is_full_when_the_promise_has_passed_and_the_line_says_since_when() -> None:
    shown = words(Live("held", NOW_MS, PROMISE), after_s=1300)
    assert shown.endswith(f"{'█' * 24} the promised end passed 1m40s ago")


def test_it_is_cut_by_columns_where_signs_take_two() -> None:
    shown = words(Live("等待短信的到来", NOW_MS, PROMISE), after_s=600, columns=20)
    assert columns_of(shown) == 20
    assert shown == "  10m00s  等待短信的"
    assert columns_of(words(Live("等待短信", NOW_MS, PROMISE), after_s=600, columns=60)) <= 60


def test_as_in_the_other_view_more_than_nothing_of_the_bar_is_seen() -> None:
    assert "█░░░" in words(Live("held", NOW_MS, PROMISE), after_s=1)


def test_where_nothing_is_promised_there_is_no_bar() -> None:
    assert words(Live("ordering at the provider", NOW_MS), after_s=3) == "    3.0s  ordering at the provider …"


@pytest.mark.parametrize("columns", [1, 10, 40, 60, 79, 200])
def test_it_never_takes_more_than_the_line(columns: int) -> None:
    assert len(words(Live("held, waiting for the SMS", NOW_MS, PROMISE), columns=columns)) <= columns


def test_a_short_line_gives_up_the_bar_before_the_countdown() -> None:
    shown = words(Live("held, waiting for the SMS", NOW_MS, PROMISE), columns=65)
    assert shown.endswith("…  20m00s to the promised end")


@pytest.mark.parametrize(
    ("stage", "strategy", "expected"),
    [
        (ACCEPTED, {}, None),
        (HELD, {}, ("the promised end", NOW_MS + 5000, NOW_MS + 1_260_000)),
        (HELD, {"within_s": 600}, ("the end of --within", NOW_MS, NOW_MS + 600_000)),
        (HELD, {"within_s": 6000}, ("the promised end", NOW_MS + 5000, NOW_MS + 1_260_000)),
        (ACCEPTED, {"within_s": 600}, ("the end of --within", NOW_MS, NOW_MS + 600_000)),
        (HELD, {"number_within_s": 120}, ("the end of --number-within", NOW_MS + 5000, NOW_MS + 125_000)),
        (NUMBERED, {"number_within_s": 120}, ("the promised end", NOW_MS + 5000, NOW_MS + 1_260_000)),
        (NUMBERED, {"sms_within_s": 180}, ("the end of --sms-within", NOW_MS + 5000, NOW_MS + 185_000)),
    ],
)
def test_the_bar_is_to_the_earliest_end_of_the_wait(
    stage: dict[str, Any], strategy: dict[str, int], expected: tuple[str, int, int] | None
) -> None:
    request = a_request(**stage, strategy=pb.Strategy(**strategy))
    end = countdown(request, NOW_MS + 5000 if stage is not ACCEPTED else None)
    assert end == (None if expected is None else Countdown(*expected))


class Tty(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def told(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a wait for a code writes to this stderr."""
    monkeypatch.setattr("sys.stderr", stream)
    view = TextView(App(None, FakeClock()))
    stages = updates(ACCEPTED, HELD, NUMBERED, DELIVERED)
    requests = [stage for stage in stages if isinstance(stage, pb.RequestUpdate)]
    view.accepted(requests[0].request)
    for update in requests:
        view.update(update)
    view.close()
    return stream.getvalue()


def lines_of(output: str) -> list[str]:
    """What stays on the screen: the live line is written over."""
    return [line.rsplit("\r\x1b[K", 1)[-1] for line in output.split("\n")]


def test_on_a_terminal_the_phase_is_in_the_live_line_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    shown = told(Tty(), monkeypatch)
    assert "held, waiting for the SMS …  " in shown
    assert "to the promised end" in shown
    left = lines_of(shown)
    assert not any("held, waiting for the SMS" in line for line in left)
    assert "    3.0s  the number is +15550001111" in left
    assert left[-1] == ""


@pytest.mark.parametrize(
    ("stream", "term"), [(io.StringIO(), "xterm"), (Tty(), "dumb"), (Tty(), "unknown"), (Tty(), "")]
)
def test_elsewhere_each_phase_is_a_line_and_nothing_is_written_over(
    stream: io.StringIO, term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    assert told(stream, monkeypatch).splitlines()[2:] == [
        "    1.0s  asking the provider",
        "    2.0s  held, a number is being found",
        "    2.0s  3,003.512 sat locked; the provider promises an end by "
        + _clock_time(NOW_MS + 1_260_000)
        + "; block 871,234 ends it at the latest",
        "    3.0s  held, waiting for the SMS",
        "    3.0s  the number is +15550001111",
        "    4.0s  the code is here, settling",
    ]


def _clock_time(at_ms: int) -> str:
    from holdpay.cli import render

    return render.clock_time(at_ms)


def test_the_time_of_the_bar_begins_anew_with_each_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", Tty())
    view = TextView(App(None, FakeClock()))
    back = HELD | {"locked_msat": 0}
    ends = []
    for update in updates(HELD, NUMBERED, back, HELD):
        assert isinstance(update, pb.RequestUpdate)
        view.update(update)
        shown = view._screen._shown
        assert shown is not None
        ends.append(None if shown.end is None else shown.end.from_ms - NOW_MS)
    view.close()
    assert ends == [1000, 1000, None, 4000]


def test_a_terminal_that_is_gone_does_not_end_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(Tty):
        def write(self, text: str) -> int:
            raise OSError

    monkeypatch.setenv("TERM", "xterm")
    screen = Screen(Gone(), FakeClock())
    screen.live(Live("held", NOW_MS))
    screen.line("a line")
    screen.close()
