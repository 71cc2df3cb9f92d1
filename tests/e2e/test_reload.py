"""SIGHUP: what changes while the daemon runs, and what it says of the rest."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from holdpay.sandbox.files import write_private
from tests.e2e.shop import FOR_EVER_S, QUICK, Shop, open_shop
from tests.harness import enum_name, is_over


@pytest_asyncio.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path, extra_config=QUICK) as opened:
        yield opened


async def _reloaded(shop: Shop, path: Path, old: str, new: str, wanted: str) -> str:
    """The log since, once it has ``wanted``."""
    text = path.read_text()
    assert old in text
    path.unlink()
    write_private(path, text.replace(old, new).encode())
    before = len(shop.daemon.log())
    os.kill(shop.daemon.pid, signal.SIGHUP)
    async with asyncio.timeout(60):
        while wanted not in shop.daemon.log()[before:]:
            await asyncio.sleep(0.05)
    return shop.daemon.log()[before:]


async def test_limits_and_the_log_level_change_at_once_and_the_rest_is_named(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    said = await _reloaded(shop, path, "max_open_orders = 100", "max_open_orders = 7", "was read again")
    assert 'in_effect=["limits.max_open_orders"]' in said
    assert "needs a restart" not in said
    assert (await shop.daemon.status()).money.max_open_orders == 7
    said = await _reloaded(shop, path, "settled_grace_s = 30", "settled_grace_s = 40", "needs a restart")
    assert 'keys=["payment.settled_grace_s"]' in said
    assert (await shop.daemon.status()).money.max_open_orders == 7
    order = await shop.daemon.order()
    assert order.id


async def test_a_lowered_limit_holds_for_an_order_that_waits_for_its_place(tmp_path: Path) -> None:
    async with open_shop(tmp_path, extra_config=f"{QUICK}[holds]\nmax_orders = 1\n") as shop:
        shop.next_order(code_after_s=FOR_EVER_S, gives_up_after_s=FOR_EVER_S)
        held, waiting = await shop.held(), await shop.daemon.order()
        await _reloaded(shop, tmp_path / "config.toml", "max_open_orders = 100", "max_open_orders = 1", "order closed")
        over = await shop.daemon.get(waiting.id)
        assert enum_name(over, "end") == "NO_PLACE"
        assert over.reason.startswith("limits.max_open_orders leaves no room for it any more.")
        assert len(shop.world.provider.orders) == 1
        await shop.deliver(held)
        await shop.daemon.until(held.id, is_over)


async def test_a_configuration_that_cannot_be_used_changes_nothing(shop: Shop, tmp_path: Path) -> None:
    wrong = "max_open_orders = 7\nmax_opne_orders = 8"
    said = await _reloaded(shop, tmp_path / "config.toml", "max_open_orders = 100", wrong, "nothing has changed")
    assert "max_opne_orders" in said
    assert (await shop.daemon.status()).money.max_open_orders == 100
