"""Orders that lnd's own word would never end: when it and its channels are asked, and what is told of that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.core.lightning import LndMessage, Lost, NotKnown, Reported
from holdpay.core.states import End, HtlcState, OrderState
from holdpay.errors import LndDenied
from holdpay.rpc.service import HoldpayService
from tests.fakes import Story
from tests.unit.build import POLICY
from tests.unit.engine.world import World

EXPIRY_HEIGHT = 800_163
"""Of the HTLC that the fake lnd sends."""
HOUR_S = 3600
SILENT = Story(number_after_s=None, code_after_s=None)


async def held(world: World) -> str:
    """An order whose HTLC the provider holds, and goes on holding."""
    world.provider.story = SILENT
    order_id = world.request()
    await world.until(lambda: world.order(order_id).state is OrderState.PAID)
    return order_id


async def lost_record(world: World) -> str:
    """Likewise, and lnd's record of it is gone."""
    order_id = await held(world)
    del world.lnd.records[world.theirs.payment_hash]
    world.lnd.break_streams()
    await world.until(lambda: _gone_since_ms(world, order_id) is not None)
    await asyncio.sleep(1)
    return order_id


def _gone_since_ms(world: World, order_id: str) -> int | None:
    payment = world.order(order_id).payment
    return payment.gone_since_ms if payment else None


async def told(world: World, order_id: str) -> str:
    """What ExplainRequest says comes next."""
    unused = cast(Any, None)
    service = HoldpayService(
        engine=world.engine,
        desk=unused,
        catalog=unused,
        account=unused,
        feed=unused,
        streams=unused,
        about=unused,
        hooks=unused,
    )
    return (await service.ExplainRequest(pb.ExplainRequestRequest(request_id=order_id), unused)).next


# --- how often lnd is asked ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "per_hour"),
    [({}, 12), ({"retrack_s": 60, "prove_absent_s": 600}, 6), ({"retrack_s": 600, "prove_absent_s": 5}, 6)],
    ids=["both as they are", "proving takes longer", "tracking anew takes longer"],
)
async def test_a_lost_record_is_asked_for_a_few_times_an_hour(
    tmp_path: Path, changes: dict[str, int], per_hour: int
) -> None:
    world = World(tmp_path / "holdpay.db", policy=replace(POLICY, **changes))  # type: ignore[arg-type]
    world.start()
    await lost_record(world)
    before = len(world.lnd.tracks)
    await asyncio.sleep(HOUR_S)
    assert len(world.lnd.tracks) - before in {per_hour - 1, per_hour}
    await world.close()


async def test_past_the_expiry_height_the_channels_are_looked_at_no_oftener_than_lnd_is_asked(world: World) -> None:
    order_id = await lost_record(world)
    world.lnd.block_height, world.lnd.carried = EXPIRY_HEIGHT + 1, {world.theirs.payment_hash}
    await asyncio.sleep(HOUR_S)
    assert 10 <= len(world.lnd.looks) <= 13
    assert not world.order(order_id).is_closed


# --- only beside lnd's own word -----------------------------------------------------------------------------------


def lost(world: World) -> tuple[LndMessage, ...]:
    return (Lost("stream removed"),)


def in_flight_then_lost(world: World) -> tuple[LndMessage, ...]:
    return (Reported(world.lnd.records[world.theirs.payment_hash], live=False), Lost("stream removed"))


def no_word(world: World) -> tuple[LndMessage, ...]:
    return ()


@pytest.mark.parametrize("says", [lost, in_flight_then_lost, no_word])
async def test_a_track_that_tells_nothing_in_the_end_looks_at_no_channel_and_closes_nothing(
    world: World, says: Callable[[World], tuple[LndMessage, ...]]
) -> None:
    order_id = await held(world)
    world.lnd.block_height = 2**31 - 1
    world.lnd.next_tracks.extend([says(world)] * 2_000)
    world.lnd.break_streams()
    await asyncio.sleep(3 * HOUR_S)
    assert len(world.lnd.tracks) > 300
    assert world.lnd.looks == []
    assert not world.order(order_id).is_closed


async def test_a_track_that_stays_open_and_silent_looks_at_no_channel_and_closes_nothing(world: World) -> None:
    order_id = await lost_record(world)
    asked: list[str] = []

    async def hangs(payment_hash: str, payer: object) -> AsyncGenerator[LndMessage, None]:
        asked.append(payment_hash)
        await asyncio.Event().wait()
        yield NotKnown()

    world.lnd.track = hangs  # type: ignore[method-assign]
    world.lnd.block_height = 2**31 - 1
    await asyncio.sleep(3 * HOUR_S)
    assert len(asked) > 10
    assert world.lnd.looks == []
    assert not world.order(order_id).is_closed


async def test_once_lnd_says_it_again_the_channels_are_looked_at_and_the_order_closes(world: World) -> None:
    order_id = await lost_record(world)
    world.lnd.block_height = EXPIRY_HEIGHT + 1
    world.lnd.next_tracks.extend([lost(world)] * 3)
    closed = await world.until_closed(order_id)
    assert (closed.htlc, closed.end, len(world.lnd.looks)) == (HtlcState.GONE, End.OUTCOME_UNKNOWN, 2)


# --- what is in the way is told -----------------------------------------------------------------------------------

DENIED = "The macaroon may not call PendingChannels."


async def stuck(world: World, order_id: str) -> str:
    """What is in the way after an hour past the expiry height; ExplainRequest says the same."""
    world.lnd.block_height = EXPIRY_HEIGHT + 1
    await asyncio.sleep(HOUR_S)
    assert not world.order(order_id).is_closed
    found = world.engine.held_up_by(order_id)
    assert f"Now this is in the way: {found.rstrip('.')}." in await told(world, order_id)
    return found


def denied(world: World) -> None:
    world.lnd.look_error = LndDenied(DENIED)


def carried(world: World) -> None:
    world.lnd.carried = {world.theirs.payment_hash}


def closing(world: World) -> None:
    world.lnd.is_maybe_closing = True


IN_THE_WAY: dict[Callable[[World], None], str] = {
    denied: f"lnd's channels cannot be looked at: {DENIED}",
    carried: "a channel carries its HTLC",
    closing: "a channel is being closed that may carry its HTLC",
}
EVERY = pytest.mark.parametrize("cause", IN_THE_WAY)


@EVERY
async def test_what_is_in_the_way_of_an_orders_end_is_told(world: World, cause: Callable[[World], None]) -> None:
    order_id = await lost_record(world)
    assert "in the way" not in await told(world, order_id)
    cause(world)
    assert await stuck(world, order_id) == IN_THE_WAY[cause]


@EVERY
async def test_it_is_told_no_longer_once_nothing_is_in_the_way(world: World, cause: Callable[[World], None]) -> None:
    order_id = await lost_record(world)
    cause(world)
    assert await stuck(world, order_id)
    world.lnd.look_error, world.lnd.carried, world.lnd.is_maybe_closing = None, set(), False
    count = len(world.lnd.looks)
    await world.until(lambda: len(world.lnd.looks) > count)
    await asyncio.sleep(1)
    assert not world.order(order_id).is_closed, "one look proves nothing"
    assert world.engine.held_up_by(order_id) == ""
    assert "in the way" not in await told(world, order_id)
    await world.until_closed(order_id)
    assert world.engine.held_up_by(order_id) == ""


@EVERY
async def test_it_is_told_no_longer_once_lnd_says_itself_how_it_ended(
    world: World, cause: Callable[[World], None]
) -> None:
    order_id = await lost_record(world)
    cause(world)
    assert await stuck(world, order_id)
    theirs = world.theirs
    world.lnd.settle(theirs.payment_hash, theirs.preimage)
    await world.until(lambda: world.order(order_id).htlc is HtlcState.SETTLED)
    await asyncio.sleep(1)
    assert not world.order(order_id).is_closed, "the code is due"
    assert world.engine.held_up_by(order_id) == ""
    assert "in the way" not in await told(world, order_id)


@EVERY
async def test_it_is_told_no_longer_once_lnd_names_a_later_expiry_height(
    world: World, cause: Callable[[World], None]
) -> None:
    order_id = await held(world)
    cause(world)
    world.lnd.break_streams()
    assert await stuck(world, order_id)
    out = world.lnd.records[world.theirs.payment_hash]
    later = replace(out.attempts[0], attempt_id=2, expiry_height=EXPIRY_HEIGHT + 100)
    world.lnd.say(world.theirs.payment_hash, replace(out, attempts=(*out.attempts, later)))
    await asyncio.sleep(2 * POLICY.retrack_s)
    assert not world.order(order_id).is_closed
    assert world.engine.held_up_by(order_id) == ""


@EVERY
async def test_nothing_is_kept_of_it_when_the_order_ends(world: World, cause: Callable[[World], None]) -> None:
    order_id = await held(world)
    cause(world)
    world.lnd.break_streams()
    assert await stuck(world, order_id)
    theirs = world.theirs
    theirs.status = replace(theirs.status, number="15551234567", code="012345")
    await world.until(lambda: world.order(order_id).state is OrderState.DELIVERED)
    assert world.engine.held_up_by(order_id)
    world.lnd.settle(theirs.payment_hash, theirs.preimage)
    closed = await world.until_closed(order_id)
    await asyncio.sleep(1)
    assert closed.end is End.FULFILLED
    assert world.engine.held_up_by(order_id) == ""
