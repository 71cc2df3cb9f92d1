"""When the daemon looks for garbage that refers to itself. All other garbage is freed at once, as ever.

CPython looks through all objects whenever a quarter more of them than before has lasted for a while. In a daemon nearly
all live long: such a look takes 30 ms when it is idle, 400 ms with 10,000 open orders, and holds up everything; and it
comes when there is most to do, as when lnd comes back and every order's task goes on. So what is there once the daemon
is up is never looked at again, which leaves 2 ms in ordinary work; and all else seldom. What is young is looked at as
often as ever. There is little to find: an order leaves some ten such objects, and two of them last.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Final

LOOKS_AT_ALL_EVERY: Final = 200
"""Of CPython's looks at what has lasted for some seconds; its own number is 10. Meanwhile 1.4 million objects at most
are made and not freed, 100 MB if each were garbage. In ordinary work it is one look in some 16,000 orders, which leave
3 MB until then; and lnd may go and come back with 10,000 open orders without one."""

YOUNG_AT_MOST: Final = 20_000
"""Objects: a look at so many takes some milliseconds."""


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """What is made meanwhile is kept for good."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        young, middle, _ = gc.get_threshold()
        gc.set_threshold(young, middle, LOOKS_AT_ALL_EVERY)
        gc.enable()


def look_at_many_young() -> None:
    """To be called every second. CPython looks when more was made than freed: while each of 10,000 orders frees as much
    as it makes anew, as when lnd goes away, it would not look for long, and then at all of that at once."""
    if sum(len(gc.get_objects(generation)) for generation in (0, 1)) > YOUNG_AT_MOST:
        gc.collect(1)
