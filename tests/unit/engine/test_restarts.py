"""A duty that died of a defect of ours is started again after its wait, whatever happened to its order just before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdpay.core.charge import ChargeState
from holdpay.core.states import HtlcState
from holdpay.engine.supervisor import RESTART_AFTER_S
from holdpay.engine.wanted import Asked, CodeWanted
from tests.unit.engine.desks import desk_of
from tests.unit.engine.world import World


def _dies(*_: Any) -> Any:
    raise ZeroDivisionError("planted")


async def test_a_payment_whose_task_dies_right_after_its_intent_is_looked_at_again_after_half_a_minute(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.lnd, "send", _dies)
    order_id = world.request()
    await world.until(lambda: world.order(order_id).htlc is HtlcState.DISPATCHING)
    await asyncio.sleep(RESTART_AFTER_S - 1)
    assert world.lnd.tracks == []
    await asyncio.sleep(3)
    assert len(world.lnd.tracks) == 1


async def test_a_charge_whose_task_dies_right_after_its_intent_is_known_to_be_unknown_after_half_a_minute(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.provider, "place", _dies)
    asked, wanted = Asked(key="k", is_prepaid=True), CodeWanted(countries=("Russia",), service="OpenAI")
    order_id = (await desk_of(world.engine).submit(asked, wanted)).id
    await asyncio.sleep(RESTART_AFTER_S + 3)
    charge = world.order(order_id).charge
    assert charge is not None
    assert charge.state is ChargeState.UNKNOWN
