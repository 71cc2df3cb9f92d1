"""The part ``scale``, with 20,000 closed orders: no figure is over twice its goal, the machine's own noise aside."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench import scale
from tests.bench.process import MAX_STALL_MS
from tests.bench.scale import Called, Scale, Scenario, Size

SCENARIO = Scenario(closed=20_000, open=1_000, calls=50, max_start_s=1.0)
NOISE = 5
"""A start is also how busy the machine was; a single turn of the loop even more so."""


@pytest.fixture(scope="module")
def found() -> Size:
    return asyncio.run(scale.measure(Path(sys.executable), (SCENARIO,))).sizes[0]


def test_a_closed_order_is_small(found: Size) -> None:
    assert 2_000 < found.bytes_of_closed <= scale.MAX_BYTES


def test_a_daemon_with_many_closed_orders_starts_soon(found: Size) -> None:
    assert 0 < found.start_s <= NOISE * SCENARIO.max_start_s


def test_whoever_asks_has_an_answer_soon(found: Size) -> None:
    assert len(found.calls) == 7
    assert {call.name: call.p50_ms for call in found.calls if not 0 < call.p50_ms <= 2 * scale.MAX_CALL_MS} == {}


def test_erasing_holds_up_nothing_for_long(found: Size) -> None:
    assert found.erased >= scale.ERASED
    assert 0 < found.erasing_stall_ms <= NOISE * 2 * MAX_STALL_MS, "to write the file anew took a second"


def test_each_figure_can_miss_its_goal() -> None:
    call = Called(name="GetStatus", p50_ms=1.0, p99_ms=20.0)
    size = Size(scenario=SCENARIO, bytes_of_closed=6_000, start_s=1.0, erased=9, erasing_stall_ms=25.0, calls=(call,))
    assert all(row.is_met for row in Scale((size,)).rows())
    worse = replace(
        size, bytes_of_closed=6_001, start_s=1.1, erasing_stall_ms=25.1, calls=(replace(call, p99_ms=20.1),)
    )
    assert not any(row.is_met for row in Scale((worse,)).rows())
