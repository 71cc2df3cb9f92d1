"""The part ``clients``, with more streams than calls have room for: nobody who asks waits for them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from holdpay.rpc.server import MAX_CALLS
from tests.bench import clients
from tests.bench.clients import MAX_P99_MS, Clients

STREAMS = MAX_CALLS + 50


@pytest.fixture(scope="module")
def found() -> Clients:
    return asyncio.run(clients.measure(Path(sys.executable), STREAMS, orders=50, calls=20))


def test_a_call_is_answered_whoever_else_follows_orders(found: Clients) -> None:
    assert found.among.streams == STREAMS
    for alone, among in zip(found.alone.answers, found.among.answers, strict=True):
        assert among.median_ms <= 2 * MAX_P99_MS + alone.median_ms, among.call


def test_a_stream_in_which_nothing_comes_costs_little(found: Clients) -> None:
    assert found.kb_per_stream <= 150
    assert found.among.idle.core_percent <= 10
