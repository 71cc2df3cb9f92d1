"""How many clients may follow orders at once. Those who only ask never wait for them: each kind has room of its own."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Collection, Iterator
from typing import Final

from holdpay.errors import TooManyStreams

MAX_STREAMS: Final = 4_000
SPARE_FILES: Final = 256
"""Of the process, for the database, lnd, the provider and clients that only ask."""


class Streams:
    """``most``: at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open = 0

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """A stream is open meanwhile. Raises TooManyStreams."""
        if self._open >= self._most:
            raise TooManyStreams(
                f"{self._open:,} clients follow orders, and the daemon has room for {self._most:,}. End some of them,"
                " or ask with GetRequest.",
                max_streams=self._most,
            )
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


def shares(clients: Collection[str]) -> dict[str, Streams]:
    """The room for streams, divided: none of them, the operator included, can be shut out by another."""
    most = max(1, room_for_streams() // len(clients))
    return {client: Streams(most) for client in clients}


def room_for_streams() -> int:
    """MAX_STREAMS, or fewer where the system lets the process have too few open files: each may be a connection of its
    own, and without a file left neither lnd nor the provider could be asked. Takes as many files as the system allows.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_STREAMS + SPARE_FILES
    with contextlib.suppress(OSError, ValueError):
        soft_too = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < soft_too:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft_too, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_STREAMS if soft == resource.RLIM_INFINITY else max(1, min(MAX_STREAMS, soft - SPARE_FILES))
