"""What the doctor asks lnd, and what bakes its macaroon, on the sandbox's lnd and on real ones."""

from __future__ import annotations

import pytest

from holdpay.clock import SystemClock
from holdpay.errors import LndDenied
from holdpay.lnd.bakery import bake
from holdpay.lnd.exam import TRIED, LndExam
from holdpay.lnd.macaroon import RIGHTS, missing_rights
from tests.contract.adapter import lnd_settings
from tests.contract.worlds import World

URIS = [right.removeprefix("uri:") for right in RIGHTS]
METHODS = [right.rpartition("/")[2] for right in RIGHTS]


async def baked(world: World, root_key_id: int = 0, macaroon_hex: str | None = None) -> bytes:
    macaroon, _ = await bake(lnd_settings(world, macaroon_hex), SystemClock(), root_key_id)
    return macaroon


async def test_the_least_macaroon_is_baked_and_has_every_right_that_is_documented_and_no_other(world: World) -> None:
    macaroon = await baked(world)
    assert missing_rights(macaroon) == ()
    with pytest.raises(LndDenied, match="--admin-macaroon"):
        await baked(world, macaroon_hex=macaroon.hex())


async def test_it_is_tried_at_the_node_that_baked_it(world: World) -> None:
    _, node = await bake(lnd_settings(world), SystemClock(), 77)
    async with LndExam(lnd_settings(world), SystemClock()) as exam:
        assert (await exam.node()).identity == node


async def test_what_the_exam_sees_of_the_node_is_its_own_word(world: World) -> None:
    async with LndExam(lnd_settings(world, (await baked(world)).hex()), SystemClock()) as exam:
        node, sendable = await exam.node(), await exam.sendable()
    assert (len(node.pubkey), node.too_old) == (66, "")
    assert node.block_height > 0
    assert node.block_at_ms > 0
    assert sendable.channel_count > 0
    assert (sendable.away_count, sendable.away_msat) == (0, 0)
    assert sendable.total_msat > 0


async def test_lnd_denies_exactly_the_methods_that_the_macaroon_itself_does_not_name(world: World) -> None:
    narrow = await world.bake(URIS[::2])
    missing = missing_rights(bytes.fromhex(narrow))
    assert missing == tuple(METHODS[1::2])
    async with LndExam(lnd_settings(world, narrow), SystemClock()) as exam:
        assert await exam.denied(METHODS) == tuple(method for method in missing if method in TRIED)
    async with LndExam(lnd_settings(world, (await baked(world)).hex()), SystemClock()) as exam:
        assert await exam.denied(METHODS) == ()
