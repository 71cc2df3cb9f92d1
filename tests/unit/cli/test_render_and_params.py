"""How values look, and how they are read."""

from __future__ import annotations

import io

import pytest

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli import exit_codes, render
from holdpay.cli.params import parse_duration_s
from holdpay.cli.progress import Live, Screen, changes
from tests.unit.cli.fake_daemon import DELIVERED, HELD, NOW_MS, NUMBERED, SETTLED, FakeClock, a_request, ended


@pytest.mark.parametrize(
    ("amount_msat", "text"),
    [
        (0, "0 sat"),
        (1, "0.001 sat"),
        (1_500, "1.5 sat"),
        (3_003_512, "3,003.512 sat"),
        (3_000_000, "3,000 sat"),
        (10_000, "10 sat"),
    ],
)
def test_msat_are_shown_in_sat_with_up_to_three_decimals(amount_msat: int, text: str) -> None:
    assert render.msat(amount_msat) == text


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [(-5, "0.0s"), (400, "0.4s"), (59_990, "59.9s"), (185_000, "3m05s"), (7_620_000, "2h07m"), (273_600_000, "3d04h")],
)
def test_a_length_of_time_is_short(duration_ms: int, text: str) -> None:
    assert render.span(duration_ms) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("0.2s", 0.2),
        ("2d", 172_800),
        ("25", None),
        ("", None),
        ("10 m", None),
    ],
)
def test_a_length_of_time_needs_its_unit(text: str, expected: float | None) -> None:
    assert parse_duration_s(text) == expected


def test_an_enum_value_of_a_newer_daemon_does_not_end_the_command() -> None:
    newer = pb.Request.FromString(pb.Request(end=pb.END_REFUNDED).SerializeToString().replace(b"\x03", b"\x63"))
    assert render.enum_text(newer, "end") == "99"
    assert exit_codes.of_end("99") is exit_codes.ExitCode.UNEXPECTED


def test_every_end_of_the_interface_has_an_exit_code_and_words() -> None:
    for number in pb.End.values():
        if number == pb.END_UNSPECIFIED:
            continue
        order = a_request(**ended(number))
        end = render.enum_text(order, "end")
        assert exit_codes.of_end(end) is not exit_codes.ExitCode.UNEXPECTED
        assert list(changes(None, order))[-1].startswith(("done: ", "over: "))


def test_nothing_new_says_nothing() -> None:
    order = a_request(**HELD)
    assert list(changes(order, order)) == []


def test_money_that_is_back_is_said() -> None:
    lines = list(changes(a_request(**HELD), a_request(**ended(pb.END_REFUNDED))))
    assert "nothing is locked any more" in lines
    assert lines[-1] == "over: the code did not come; the money is back"


def test_a_payment_just_being_sent_locks_nothing_yet_on_the_screen() -> None:
    sending = a_request(htlc=pb.HTLC_STATE_DISPATCHING, locked_msat=3_003_512, phase="sending")
    assert list(changes(None, sending)) == ["sending"]
    shown = list(changes(sending, a_request(htlc=pb.HTLC_STATE_UNKNOWN, locked_msat=3_003_512, phase="sending")))
    assert shown == ["3,003.512 sat locked"]


def test_settled_money_is_not_called_back() -> None:
    lines = list(changes(a_request(**DELIVERED), a_request(**SETTLED)))
    assert "spent 3,003.512 sat, 3.512 sat of it routing fee" in lines
    assert "nothing is locked any more" not in lines


def test_a_number_that_is_replaced_is_said_with_the_one_that_is_dead() -> None:
    replaced = a_request(**NUMBERED | {"number": "15550002222", "earlier_numbers": ["15550001111"]})
    lines = list(changes(a_request(**NUMBERED), replaced))
    assert lines == ["the provider replaced the number: it is +15550002222 now, no longer +15550001111"]
    assert "the number is +15550002222; it replaced +15550001111" in list(changes(None, replaced))


def test_a_second_code_and_a_reply_that_could_not_be_read_are_said_without_what_is_in_them() -> None:
    numbered = a_request(**NUMBERED)
    odd = a_request(**NUMBERED | {"unread": "code 998877"})
    (line,) = changes(numbered, odd)
    assert line == f"the provider's reply could not be read; see it with `holdpay orders show {odd.id}`"
    delivered = a_request(**DELIVERED)
    first = list(changes(numbered, delivered))
    assert not any("another code" in line for line in first)
    assert list(changes(delivered, a_request(**DELIVERED | {"unread": "{"}))) == [], "what counts is here"
    (line,) = changes(delivered, a_request(**DELIVERED | {"later_codes": ["998877"]}))
    assert line == f"the provider sent another code; the first one counts, `holdpay orders show {odd.id}` shows all"


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_live_line_under_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream, clock = Tty(), FakeClock()
    screen = Screen(stream, clock)
    screen.live(Live("held, waiting for the SMS", NOW_MS - 5000))
    screen.line("the number is +1555")
    screen.close()
    shown = stream.getvalue()
    assert shown.count("    5.0s  held, waiting for the SMS …") == 2
    assert shown.endswith("\r\x1b[K")


@pytest.mark.parametrize(("stream", "term"), [(io.StringIO(), "xterm"), (Tty(), "dumb")])
def test_a_file_and_a_dumb_terminal_get_plain_lines_only(
    stream: io.StringIO, term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    screen = Screen(stream, FakeClock())
    screen.live(Live("held", NOW_MS))
    screen.line("the number is +1555")
    screen.close()
    assert stream.getvalue() == "the number is +1555\n"
