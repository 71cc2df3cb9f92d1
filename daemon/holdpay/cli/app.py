"""What every command gets: the chosen socket, and a clock that tests replace."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from holdpay.cli.sockets import find_socket

if TYPE_CHECKING:
    from holdpay.cli.client import Client


class Clock:
    """Time for people (`now_ms`) and for deadlines (`monotonic_s`)."""

    def now_ms(self) -> int:
        """Unix time in milliseconds; the daemon's times can be compared with it, it runs on the same machine."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()

    def sleep(self, duration_s: float) -> None:
        time.sleep(duration_s)


@dataclass(frozen=True, slots=True)
class App:
    socket: str | None
    """As given with --socket or HOLDPAY_SOCKET; None: look at the default places."""
    clock: Clock

    def connect(self) -> Client:
        """A connection to the daemon, for a `with` block. Raises Unreachable."""
        from holdpay.cli.client import Client  # late: grpc takes longer to import than --help may take

        return Client(find_socket(self.socket))


pass_app = click.make_pass_decorator(App)
