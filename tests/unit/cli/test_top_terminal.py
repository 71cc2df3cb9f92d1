"""The terminal of `holdpay top`: keys out of bytes, lines onto the screen, and all as it was before it."""

from __future__ import annotations

import os
import select
import signal
import termios
import threading

import pytest

from holdpay.cli.top.terminal import Terminal, decode
from holdpay.cli.top.text import BAD, Line, text
from tests.unit.cli.conftest import Pty


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"jk", ["j", "k"]),
        (b"\x1b[A\x1b[B", ["up", "down"]),
        (b"\x1bOA\x1bOB", ["up", "down"]),
        (b"\x1b[5~\x1b[6~", ["pageup", "pagedown"]),
        (b"\x1b[H\x1b[F\x1b[1~\x1b[4~", ["home", "end", "home", "end"]),
        (b"\r\n", ["enter", "enter"]),
        (b"\x1b[200~y\x1b[201~", []),
        (b"c\x1b[200~you\x1b[A\r\n\x1b[201~q", ["c", "q"]),
        (b"\x1b[201~q", ["q"]),
        (b"\x1b[1;5Aq", ["q"]),
        ("ÿ€q".encode(), ["q"]),
        (b"\x00\x01q", ["q"]),
    ],
)
def test_keys_are_read_from_what_a_terminal_sends(data: bytes, keys: list[str]) -> None:
    assert decode(data) == (keys, b"")


@pytest.mark.parametrize("data", [b"\x1b", b"\x1b[", b"\x1b[1", b"\x1bO"])
def test_the_beginning_of_a_key_waits_for_its_end(data: bytes) -> None:
    assert decode(b"q" + data) == (["q"], data)


@pytest.mark.parametrize("at", range(7, 24))
def test_what_is_pasted_is_no_key_wherever_it_comes_apart(at: int) -> None:
    whole = b"c\x1b[200~poli\x1bcy\x1b[201~q"
    keys, rest = decode(whole[:at])
    more, rest = decode(rest + whole[at:])
    assert (keys + more, rest) == (["c", "q"], b"")


def test_of_a_long_text_that_is_being_pasted_little_is_kept() -> None:
    keys, rest = decode(b"\x1b[200~" + b"y" * 100_000)
    assert (keys, len(rest) < 20) == ([], True)
    assert decode(rest + b"\x1b[201~q") == (["q"], b"")


def test_it_is_left_as_it_was(device: Pty) -> None:
    before, terminal = device.attributes(), device.terminal()
    terminal.enter()
    assert device.attributes() != before
    assert device.output() == "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[?2004h\x1b[2J"
    terminal.leave()
    assert device.attributes() == before
    assert device.output() == "\x1b[?2004l\x1b[?7h\x1b[?25h\x1b[?1049l"


def test_leaving_twice_or_what_was_not_entered_changes_nothing(device: Pty) -> None:
    terminal = device.terminal()
    terminal.leave()
    assert device.output() == ""
    terminal.enter()
    terminal.leave()
    device.output()
    terminal.leave()
    assert device.output() == ""


def test_an_interrupt_while_it_is_left_comes_after_it_is_left(device: Pty, monkeypatch: pytest.MonkeyPatch) -> None:
    is_over = threading.Event()
    other = threading.Thread(target=is_over.wait, daemon=True)  # as those that ask the daemon: it may take the signal
    other.start()
    before, terminal = device.attributes(), device.terminal()
    terminal.enter()
    write = terminal._write

    def interrupted(words: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        select.select([terminal._news], [], [], 5)  # until some thread has taken it
        write(words)

    monkeypatch.setattr(terminal, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        terminal.leave()
    is_over.set()
    assert device.attributes() == before
    assert device.output().endswith("\x1b[?1049l")


def test_only_lines_that_changed_are_written_again(device: Pty) -> None:
    terminal = device.terminal()
    terminal.enter()
    terminal.draw([text("one"), text("two")])
    device.output()
    terminal.draw([text("one"), text("three")])
    assert device.output() == "\x1b[2;1H\x1b[Kthree"
    terminal.draw([text("one")])
    terminal.draw([text("one"), text("three")])
    terminal.leave()


def colours(device: Pty, line: Line) -> str:
    return shown_of(device, device.terminal(), line)


def shown_of(device: Pty, terminal: Terminal, line: Line) -> str:
    terminal.enter()
    device.output()
    terminal.draw([line])
    shown = device.output()
    terminal.leave()
    return shown


def test_colour_is_there_where_it_is_wanted(device: Pty, monkeypatch: pytest.MonkeyPatch) -> None:
    line = text(("bad", BAD))
    assert "\x1b[1;31mbad" in colours(device, line)
    monkeypatch.setenv("NO_COLOR", "1")
    shown = colours(device, line)
    assert "\x1b[1mbad" in shown
    assert "31m" not in shown


def test_escape_sequences_of_others_are_harmless_on_the_screen(device: Pty) -> None:
    shown = colours(device, text("a\x1b]0;owned\x07b\x9b31mc\r\nd"))
    assert shown.endswith("a\ufffd]0;owned\ufffdb\ufffd31mc\ufffd\ufffdd")


def test_keys_come_through_and_half_a_key_is_waited_for(device: Pty) -> None:
    terminal = device.terminal()
    terminal.enter()
    device.press(b"j\x1b[A")
    assert terminal.wait(5) == ["j", "up"]
    device.press(b"\x1b")
    assert terminal.wait(5) == ["escape"]
    assert terminal.wait(0) == []
    terminal.leave()


def test_nothing_is_a_key_until_a_pasted_text_has_ended_however_long_that_takes(device: Pty) -> None:
    terminal = device.terminal()
    terminal.enter()
    device.press(b"\x1b[200~po")
    assert terminal.wait(5) == []
    device.press(b"cy")
    assert terminal.wait(5) == []
    device.press(b"\x1b[201~q")
    assert terminal.wait(5) == ["q"]
    terminal.leave()


def test_what_was_typed_before_it_was_put_aside_is_not_waited_for(device: Pty, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[str] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: stopped.append(device.output()[-6:]))
    os.set_blocking(device.program, False)
    terminal = device.terminal()
    terminal.enter()
    device.press(b"x")
    terminal._stop_later(signal.SIGTSTP, None)
    assert terminal.wait(5) == []
    assert stopped == ["?1049l"]
    assert device.output().endswith("\x1b[2J")
    terminal.leave()


def test_another_thread_ends_the_wait(device: Pty) -> None:
    terminal = device.terminal()
    terminal.enter()
    terminal.wake()
    assert terminal.wait(60) == []
    terminal.leave()


def test_a_terminal_that_is_gone_ends_the_view(monkeypatch: pytest.MonkeyPatch, device: Pty) -> None:
    terminal = device.terminal()
    terminal.enter()
    monkeypatch.setattr(os, "read", lambda fd, size: b"")
    terminal.wake()
    device.press(b"x")
    with pytest.raises(EOFError):
        terminal.wait(5)
    terminal.leave()


def test_a_terminal_that_goes_in_the_middle_of_a_key_ends_the_view(
    monkeypatch: pytest.MonkeyPatch, device: Pty
) -> None:
    terminal = device.terminal()
    terminal.enter()
    device.press(b"xx")
    sent = iter([b"\x1b", b""])
    monkeypatch.setattr(os, "read", lambda fd, size: next(sent))
    with pytest.raises(EOFError):
        terminal.wait(5)
    terminal.leave()


def test_its_size_is_the_terminals(device: Pty, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = device.terminal()
    termios.tcsetwinsize(device.program, (10, 40))
    assert terminal.size == (40, 10)
    termios.tcsetwinsize(device.program, (0, 0))
    assert terminal.size == (80, 24)


def test_another_size_draws_all_of_it_again(device: Pty) -> None:
    terminal = device.terminal()
    terminal.enter()
    terminal.draw([text("one")])
    device.output()
    termios.tcsetwinsize(device.program, (10, 40))
    terminal.draw([text("one")])
    assert device.output() == "\x1b[2J\x1b[1;1H\x1b[Kone"
    terminal.leave()


def test_what_a_terminal_cannot_encode_does_not_end_the_view(device: Pty) -> None:
    terminal = device.terminal("ascii")
    assert not terminal.is_unicode
    assert shown_of(device, terminal, text("数")).endswith("?")
