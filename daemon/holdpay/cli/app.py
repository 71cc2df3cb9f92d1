"""What every command gets: the chosen socket, and a clock that tests replace."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import click

from holdpay.cli.sockets import find_socket

if TYPE_CHECKING:
    from holdpay.cli.client import Client


T = TypeVar("T")


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

    def call(self, question: Callable[[Client], T]) -> T:
        """What `question` gets from a connection of its own. Raises Unreachable, and Failure as the daemon refuses."""
        # late: grpc takes longer to import than --help may take
        from holdpay.cli.background import once
        from holdpay.cli.client import Client

        def ask() -> T:
            with Client(find_socket(self.socket)) as client:
                return question(client)

        return once(ask)


pass_app = click.make_pass_decorator(App)
