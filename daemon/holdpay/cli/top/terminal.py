"""The terminal as a screen with keys, and as it was before when it is left, however that comes about."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import termios
import tty
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TextIO

from holdpay.cli import render
from holdpay.cli.top.text import Line

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[?2004h\x1b[2J"
_LEAVE = "\x1b[?2004l\x1b[?7h\x1b[?25h\x1b[?1049l"
"""The other screen; no cursor; no line goes on in the next one; pasted text is marked as that (xterm, "Bracketed
Paste Mode"), and is no input here. Terminals that know no such mode pass over it."""
_PASTE, _PASTE_END = b"\x1b[200~", b"\x1b[201~"
ESCAPE_S = 0.05
"""The bytes of one key come within it, even from afar; after it an escape is the key Esc."""

_SEQUENCE = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|O[@-~])")
_UNFINISHED = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*|O)?")
_NAMES = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "pageup",
    b"\x1b[6~": "pagedown",
    b"\x1b[H": "home",
    b"\x1bOH": "home",
    b"\x1b[1~": "home",
    b"\x1b[F": "end",
    b"\x1bOF": "end",
    b"\x1b[4~": "end",
    b"\x1b": "escape",
    b"\r": "enter",
    b"\n": "enter",
    b"\x0c": "redraw",
}


def decode(data: bytes) -> tuple[list[str], bytes]:
    """The keys in what a terminal sent, and the beginning of one, or of a pasted text, that is not all here. Those
    without a name that are no ASCII characters are passed over, and so is pasted text."""
    keys: list[str] = []
    while data:
        if data.startswith(_PASTE):
            pasted, end, data = data[len(_PASTE) :].partition(_PASTE_END)
            if not end:
                # Of a long text no more is kept than may be the beginning of its end.
                return keys, _PASTE + pasted[1 - len(_PASTE_END) :]
            continue
        sequence = _SEQUENCE.match(data)
        if sequence is None and _UNFINISHED.fullmatch(data):
            return keys, data
        part = data[:1] if sequence is None else sequence[0]
        data = data[len(part) :]
        name = _NAMES.get(part, part.decode() if part.isascii() and part.decode().isprintable() else "")
        keys += [name] if name else []
    return keys, b""


class Terminal:
    """``enter`` it in a ``try`` whose ``finally`` leaves it. The main thread's only: but for ``wake``."""

    def __init__(self, stdin: TextIO, stdout: TextIO) -> None:
        self._in, self._out = stdin.fileno(), stdout.fileno()
        self._encoding = stdout.encoding or "ascii"
        self.is_unicode = render.is_utf8(stdout)
        self._has_colour = not os.environ.get("NO_COLOR")
        self._saved: list[int | list[bytes | int]] | None = None
        self._rest = b""
        self._shown: list[str] = []
        self._shown_size = (0, 0)
        self._is_stop_wanted = False
        self._news, self._bell = os.pipe()
        os.set_blocking(self._news, False)
        os.set_blocking(self._bell, False)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines; 80 × 24 where nobody knows."""
        with contextlib.suppress(OSError):
            columns, lines = os.get_terminal_size(self._out)
            if columns and lines:
                return columns, lines
        return 80, 24

    def enter(self) -> None:
        signal.set_wakeup_fd(self._bell, warn_on_full_buffer=False)
        signal.signal(signal.SIGWINCH, _nothing)
        signal.signal(signal.SIGTSTP, self._stop_later)
        self._saved = termios.tcgetattr(self._in)
        tty.setcbreak(self._in)
        self._write(_ENTER)
        self._shown, self._rest = [], b""

    def leave(self) -> None:
        """As it was before. Again changes nothing. A terminal that is gone cannot be restored, and needs not."""
        saved, self._saved = self._saved, None
        if saved is None:
            return
        with _undisturbed(), contextlib.suppress(OSError, termios.error):
            self._write(_LEAVE)
            # What was typed for the view is not meant for the shell.
            termios.tcsetattr(self._in, termios.TCSAFLUSH, saved)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)

    def wake(self) -> None:
        """Ends ``wait``. Any thread may."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._bell, b"\0")

    def wait(self, timeout_s: float) -> list[str]:
        """The keys that were pressed; after the time, a change of size or a ``wake`` perhaps none. Raises EOFError when
        the terminal is gone."""
        ready, _, _ = select.select([self._in, self._news], [], [], timeout_s)
        if self._news in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._news, 4096)
        if self._is_stop_wanted:
            self._stop()
            return []  # what was typed before is gone
        return self._keys() if self._in in ready else []

    def draw(self, lines: Sequence[Line]) -> None:
        """Shows ``lines`` from the top, and writes those that are not shown yet."""
        if self.size != self._shown_size:
            self._shown, self._shown_size = [], self.size
            self._write("\x1b[2J")
        fresh = [line.coded(has_colour=self._has_colour) for line in lines]
        known = self._shown + [""] * (len(fresh) - len(self._shown))
        changed = [f"\x1b[{at};1H\x1b[K{line}" for at, line in enumerate(fresh, start=1) if line != known[at - 1]]
        self._write("".join(changed))
        self._shown = fresh

    def _keys(self) -> list[str]:
        keys, self._rest = decode(self._rest + self._read())
        if "redraw" in keys:  # ^L, after another program wrote on the screen
            self._shown_size = (0, 0)
        while self._rest:
            if not select.select([self._in], [], [], ESCAPE_S)[0]:
                if self._rest.startswith(_PASTE):
                    break  # its end comes, and until then nothing is a key
                keys += ["escape"] if self._rest == b"\x1b" else []
                self._rest = b""
                break
            more, self._rest = decode(self._rest + self._read())
            keys += more
        return keys

    def _read(self) -> bytes:
        """Never nothing. Raises EOFError."""
        data = os.read(self._in, 4096)  # as much as Linux keeps of what was typed
        if not data:
            raise EOFError
        return data

    def _write(self, text: str) -> None:
        data = text.encode(self._encoding, errors="replace")
        while data:
            try:
                data = data[os.write(self._out, data) :]
            except BlockingIOError:  # another program made it so, for all that share the terminal
                select.select([], [self._out], [])

    def _stop_later(self, number: int, frame: FrameType | None) -> None:
        self._is_stop_wanted = True

    def _stop(self) -> None:
        """^Z: the shell gets its terminal, and ``fg`` brings the view back."""
        self._is_stop_wanted = False
        self.leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.enter()


def _nothing(number: int, frame: FrameType | None) -> None:
    """For a signal that only has to end a wait."""


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """No ^C and no SIGTERM in between: they come right after. By handlers, as what one thread blocks another takes."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)
