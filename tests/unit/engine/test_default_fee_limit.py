"""The fee limit of a client that names none is made for the dearest invoice allowed, not for the quoted one."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from pathlib import Path

from holdpay.core.states import End
from holdpay.engine.wanted import Asked, CodeWanted
from holdpay.ports import Prices
from tests.fakes import HOP_DOWN, START_MS, Send
from tests.unit.build import POLICY
from tests.unit.engine.desks import desk_of
from tests.unit.engine.world import World


async def test_an_invoice_at_the_price_limit_may_cost_the_usual_percentage_of_its_own_amount(tmp_path: Path) -> None:
    tolerant = replace(POLICY, price_tolerance_percent=50.0, fee_limit_percent=1.0, fee_limit_floor_sat=1)
    world = World(tmp_path / "holdpay.db", policy=tolerant)
    world.start()
    world.provider.price = Prices(receive_sat=None, exact_sat=4_000, asked_at_ms=START_MS)
    world.provider.amount_msat = 6_000_000
    world.lnd.next_sends = deque([Send(fails=HOP_DOWN)])

    recorded = await desk_of(world.engine).submit(Asked(key="k"), CodeWanted(countries=("Russia",), service="OpenAI"))
    order = await world.until_closed(recorded.id)

    assert (order.end, order.max_price_sat) == (End.FULFILLED, 6_000)
    _, last = world.lnd.sends[-1]
    assert last.fee_limit_msat == 60_000
    await world.close()
