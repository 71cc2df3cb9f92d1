"""GetStatus, which monitoring asks every few seconds, is told from memory."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import grpc
import pytest

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.core.model import OPERATOR
from holdpay.engine.account import Account
from holdpay.engine.desk import Desk
from holdpay.hooks.manager import Hooks
from holdpay.rpc.service import About, HoldpayService
from tests.unit.engine.world import World

UNUSED = cast(Any, None)


def _service(world: World, client: str = OPERATOR) -> HoldpayService:
    account = Account(cast(Any, world.provider), warn_below_sat=None)
    return HoldpayService(
        engine=world.engine,
        desk=Desk(world.engine, UNUSED, account),
        catalog=UNUSED,
        account=account,
        feed=UNUSED,
        streams=UNUSED,
        about=About(started_at_ms=0, state_dir="", config_path=""),
        hooks=Hooks(UNUSED, UNUSED, world.clock, UNUSED),
        client=client,
    )


async def test_the_status_reads_no_order_from_the_database(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2, 3):
        world.request(number)
    await asyncio.sleep(5)
    for read in ("open_orders", "list_orders", "get", "updates"):
        monkeypatch.setattr(world.store, read, _never)
    status = await _service(world).GetStatus(pb.GetStatusRequest(), UNUSED)
    assert status.open_orders == 3
    assert [money.request_id for money in status.out] == ["order00001", "order00002", "order00003"]
    assert status.money.locked_msat == sum(money.locked_msat for money in status.out) > 0


def _never(*given: object) -> None:
    raise AssertionError("the database was asked")


class _Refused(Exception):
    """What a context does with a status."""


class _Context:
    async def abort(self, code: grpc.StatusCode, *rest: object) -> None:
        raise _Refused(code)


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("ListHooks", pb.ListHooksRequest()),
        ("TestHook", pb.TestHookRequest(name="shop")),
        ("ReplayHook", pb.ReplayHookRequest(name="shop")),
    ],
)
async def test_hooks_are_the_operators_alone(world: World, method: str, request_: Any) -> None:
    with pytest.raises(_Refused) as refused:
        await getattr(_service(world, client="ann"), method)(request_, cast(Any, _Context()))
    assert refused.value.args == (grpc.StatusCode.PERMISSION_DENIED,)
    assert (await _service(world).ListHooks(pb.ListHooksRequest(), UNUSED)).hooks == []
