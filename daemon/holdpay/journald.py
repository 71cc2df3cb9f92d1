"""The log where systemd's journal is at the other end of stderr: records with fields, by which one can ask for them.

journalctl MESSAGE_ID=... ORDER_ID=...

The protocol is one datagram of ``KEY=value`` lines for each record (systemd: docs/JOURNAL_NATIVE_PROTOCOL.md), so no
library is needed for it.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

SOCKET: Final = Path("/run/systemd/journal/socket")
MAX_MESSAGE_CHARS: Final = 32 * 1024
"""A datagram has room for more, also if each takes four bytes; only a traceback without end is longer."""

MESSAGE_IDS: Final = {
    "order accepted": "0165da9a79e44babba71f5453360b47f",
    "order closed": "b10f9d989a504e0fba08c74c1d51c614",
    "alarm": "5777ca68471547ec8a97e9e17194ab8e",
    "lnd": "5bdbdd14b0dc4e6abf107a37783edd39",
    "the daemon must end": "4d8bf15980454fc08d9b038781158da7",
}
"""Of the records that one looks for, by what they say. They are part of the interface, and stay."""
_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""syslog(3)."""
_OURS: Final = "holdpay"


def is_journal(environ: Mapping[str, str] | None = None, fd: int = 2) -> bool:
    """Whether stderr is the journal, and not a pipe or a file that it was turned to since (JOURNAL_STREAM,
    systemd.exec(5))."""
    named = (os.environ if environ is None else environ).get("JOURNAL_STREAM", "")
    try:
        info = os.fstat(fd)
    except OSError:
        return False
    return named == f"{info.st_dev}:{info.st_ino}"


def fields(event: Mapping[str, Any], message: str) -> dict[str, str]:
    """Of a record that was redacted, whose text is ``message``."""
    found = {
        "MESSAGE": message[:MAX_MESSAGE_CHARS],
        "PRIORITY": str(_PRIORITIES.get(str(event.get("level")), 6)),
        "SYSLOG_IDENTIFIER": "holdpayd",
        "LOGGER": str(event.get("logger", "")),
    }
    order_id = event.get("order_id") or event.get("order")
    if order_id:
        found["ORDER_ID"] = str(order_id)
    message_id = MESSAGE_IDS.get(str(event.get("event")))
    if message_id is not None and found["LOGGER"].split(".")[0] == _OURS:
        found["MESSAGE_ID"] = message_id
    return found


def datagram(found: Mapping[str, str]) -> bytes:
    """A value with a line break has its length before it, so that nothing in it looks like another field."""
    parts = []
    for key, text in found.items():
        value = text.encode(errors="replace")
        if b"\n" in value:
            parts.append(key.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n")
        else:
            parts.append(f"{key}=".encode() + value + b"\n")
    return b"".join(parts)


class Journal:
    """A ``log.Sink``. What the journal does not take at once goes to stderr, as it would without this."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def write(self, event: Mapping[str, Any], text: str) -> None:
        """See ``log.Sink``."""
        found = fields(event, text)
        try:
            self._socket.sendto(datagram(found), self._path)
        except OSError:
            sys.stderr.write(f"<{found['PRIORITY']}>{found['MESSAGE']}\n")
            sys.stderr.flush()

    def close(self) -> None:
        """See ``log.Sink``."""
        self._socket.close()
