"""When the daemon looks for garbage: never at what was there when it came up."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from holdpay import garbage


class Knot:
    """Refers to itself: only a look frees it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The tests' own process goes on as it was."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    gc.enable()


def test_what_is_made_at_the_start_is_not_looked_at_again_and_what_comes_later_is() -> None:
    with garbage.starting():
        assert not gc.isenabled()
        early = weakref.ref(Knot())
    later = weakref.ref(Knot())
    gc.collect()
    assert early() is not None
    assert later() is None


def test_from_then_on_only_the_looks_at_everything_are_seldom() -> None:
    young, middle, _ = gc.get_threshold()
    with garbage.starting():
        pass
    assert gc.isenabled()
    assert gc.get_threshold() == (young, middle, garbage.LOOKS_AT_ALL_EVERY)


def test_a_start_that_fails_leaves_the_looks_on() -> None:
    with pytest.raises(OSError, match="no disk"), garbage.starting():
        raise OSError("no disk")
    assert gc.isenabled()


def test_many_young_objects_are_looked_at_even_if_as_many_were_freed_and_few_are_not() -> None:
    gc.collect()
    gc.disable()
    many: list[list[int]] = [[] for _ in range(garbage.YOUNG_AT_MOST // 2)]
    _, looks, looks_at_all = (generation["collections"] for generation in gc.get_stats())
    garbage.look_at_many_young()
    assert gc.get_stats()[1]["collections"] == looks
    lost = weakref.ref(Knot())
    many += [[] for _ in range(garbage.YOUNG_AT_MOST // 2)]
    garbage.look_at_many_young()
    assert lost() is None
    assert gc.get_stats()[2]["collections"] == looks_at_all
    assert sum(len(gc.get_objects(generation)) for generation in (0, 1)) < garbage.YOUNG_AT_MOST // 2
