"""What becomes of a ^C while the main thread waits for an answer."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import closing

import pytest

from holdpay.cli import background

PATIENCE_S = 60
"""Only a ^C that is lost takes so long."""


@pytest.fixture(autouse=True)
def _interrupts_raise() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_that_does_not_reach_the_main_threads_wait_ends_it_all_the_same() -> None:
    """As one that comes right before the wait begins."""
    stopped, was_stopped_in_time = threading.Event(), threading.Event()

    def produce() -> Generator[int, None, None]:
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        if stopped.wait(PATIENCE_S):
            was_stopped_in_time.set()
        yield 1

    with pytest.raises(KeyboardInterrupt), closing(background.stream(produce, stopped.set)) as items:
        next(items)
    assert was_stopped_in_time.wait(PATIENCE_S)
