"""stdout of both programs: what cannot be written is an error of its own, whoever writes it, also click.

Nothing heavy is imported: this loads at every start of a command.
"""

from __future__ import annotations

import codecs
import io
import os
import sys


class OutputLost(Exception):
    """stdout is closed, or what it goes to is full; the message says which."""

    is_reader_gone = False
    """As with `| head -1`, where nobody needs to hear of it."""

    @property
    def sentence(self) -> str:
        """For people; empty where nobody needs to hear of it."""
        return "" if self.is_reader_gone else f"The output could not be written ({self})."


def guard_stdout() -> None:
    """From here on what cannot be written to stdout raises OutputLost: what was paid for must not vanish without a
    word. No terminal is too old for a character."""
    if sys.stdout is None:
        sys.stdout = _Closed()
    elif isinstance(sys.stdout, io.TextIOWrapper):
        given = sys.stdout
        # In place of a stream in ASCII click puts one of its own, in UTF-8, and past this one.
        encoding = "utf-8" if codecs.lookup(given.encoding).name == "ascii" else given.encoding
        sys.stdout = _Guarded(given.buffer, encoding, errors="backslashreplace", line_buffering=given.line_buffering)


class _Guarded(io.TextIOWrapper):
    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise self._lost(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise self._lost(error) from error

    def _lost(self, error: OSError) -> OutputLost:
        # What could not be written is still in the buffer: Python would try again at its end, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
        lost = OutputLost(error.strerror or str(error))
        lost.is_reader_gone = isinstance(error, BrokenPipeError)
        return lost


class _Closed(io.TextIOBase):
    encoding = "utf-8"

    def write(self, text: str) -> int:
        raise OutputLost("stdout is closed")
