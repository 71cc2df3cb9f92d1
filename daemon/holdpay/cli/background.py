"""Keeps gRPC off the main thread.

^C arrives wherever the main thread happens to be. Inside gRPC it can leave a call half made, and closing the channel
then waits for that call for ever (seen with grpcio 1.85). So the main thread only waits on a queue.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")

FAREWELL_S = 0.5
"""For a thread that was told to stop. It is a daemon thread: whoever does not make it is left behind."""
GLANCE_S = 0.2
"""A signal that comes right before the main thread's wait begins, or to another thread, does not end that wait. So the
wait is cut into short ones, and between two of them Python sees to signals."""


@dataclass(frozen=True, slots=True)
class _Item(Generic[T]):
    value: T


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


class Overdue(Exception):
    """`produce` did not keep its time."""


def stream(
    produce: Callable[[], Generator[T, None, None]],
    stop: Callable[[], None],
    remaining_s: Callable[[], float | None] = lambda: None,
) -> Generator[T, None, None]:
    """What `produce` yields, each item when it is asked for, made in a thread of its own; its errors are raised here.

    `stop` must end its waiting for an item; then it is closed, in its own thread. `remaining_s` is the time that
    `produce` has at most, None: any. Raises Overdue when it takes longer: gRPC does not always keep a call's deadline
    (seen with grpcio 1.85, when the server goes away while the call begins).
    """
    asked = threading.Semaphore(0)
    is_over = threading.Event()
    box: SimpleQueue[_Item[T] | _End] = SimpleQueue()

    def work() -> None:
        try:
            with closing(produce()) as items:
                while asked.acquire() and not is_over.is_set():
                    box.put(_Item(next(items)))
        except StopIteration:
            box.put(_End(None))
        except BaseException as error:  # noqa: BLE001 - it is raised again in the thread that waits
            box.put(_End(error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            asked.release()
            got = _wait(box, remaining_s)
            if isinstance(got, _Item):
                yield got.value
            elif got.error is not None:
                raise got.error
            else:
                return
    finally:
        is_over.set()
        stop()
        asked.release()
        thread.join(FAREWELL_S)


def _wait(box: SimpleQueue[_Item[T] | _End], remaining_s: Callable[[], float | None]) -> _Item[T] | _End:
    """The next item. Raises Overdue."""
    while True:
        left_s = remaining_s()
        with suppress(Empty):
            return box.get(timeout=GLANCE_S)
        if left_s is not None and left_s < -FAREWELL_S:
            raise Overdue


def once(work: Callable[[], T]) -> T:
    """The result of `work`, made in a thread of its own. A ^C leaves it alone with its work."""

    def produce() -> Generator[T, None, None]:
        yield work()

    with closing(stream(produce, lambda: None)) as results:
        return next(results)
