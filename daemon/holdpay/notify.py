"""Tells systemd how the daemon is doing: the datagrams of sd_notify(3), and nothing where there is no NOTIFY_SOCKET.

The protocol is one datagram of ``KEY=value`` lines to one socket, so no library is needed for it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Final

import structlog

_log = structlog.get_logger(__name__)


EXTEND_EVERY_S: Final = 5.0
EXTEND_BY_S: Final = 60


class Notifier:
    """Sends READY, STATUS, WATCHDOG, EXTEND_TIMEOUT_USEC and STOPPING. A message that cannot be
    sent is logged, and stops nothing."""

    __slots__ = ("_address", "watchdog_timeout_s")

    def __init__(self, address: str | None, watchdog_timeout_s: float | None = None) -> None:
        self._address = address
        self.watchdog_timeout_s = watchdog_timeout_s
        """systemd ends the daemon after this long without ``watchdog()``; None: it does not watch."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Notifier:
        """Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID (sd_notify(3), sd_watchdog_enabled(3))."""
        env = os.environ if environ is None else environ
        return cls(env.get("NOTIFY_SOCKET") or None, _watchdog_timeout_s(env))

    def ready(self, status: str) -> None:
        """Config, lock, database and socket stand."""
        self._send("READY=1", _status(status))

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._send(_status(text))

    @contextlib.contextmanager
    def starting(self, what: str) -> Iterator[None]:
        """Meanwhile systemd waits for READY longer than the unit says, and ``systemctl status`` says for what; a start
        that is over soon says nothing. A thread does it: the start may be one long step."""
        is_over = threading.Event()

        def extend() -> None:
            while not is_over.wait(EXTEND_EVERY_S):
                self._send(f"EXTEND_TIMEOUT_USEC={EXTEND_BY_S * 1_000_000}", _status(what))

        thread = threading.Thread(target=extend, name="start takes long", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def watchdog(self) -> None:
        """The engine has completed a pass."""
        self._send("WATCHDOG=1")

    def stopping(self, status: str) -> None:
        """The daemon has begun to stop."""
        self._send("STOPPING=1", _status(status))

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        # A leading @ stands for the NUL byte of an abstract socket.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            _log.warning("systemd could not be told", message=lines[0], reason=str(error))


def _status(text: str) -> str:
    # One line: a line break in a text from outside (a node's alias, say) would begin another assignment.
    return "STATUS=" + " ".join(text.split())


def _watchdog_timeout_s(env: Mapping[str, str]) -> float | None:
    pid = env.get("WATCHDOG_PID")
    if pid and pid != str(os.getpid()):
        return None
    usec = env.get("WATCHDOG_USEC", "")
    return int(usec) / 1_000_000 if usec.isdecimal() and int(usec) > 0 else None
