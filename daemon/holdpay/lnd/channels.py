"""Where an HTLC is, by the word of the node's channels."""

from __future__ import annotations

import asyncio

from holdpay.core.lightning import HtlcLook, NodeIdentity, OpenChannel
from holdpay.errors import LndUnavailable
from holdpay.lnd.connection import Connection
from holdpay.lnd.convert import may_carry_out, to_channel
from holdpay.lnd.link import Link


async def look_for_htlc(link: Link, payment_hash: str, payer: NodeIdentity) -> HtlcLook:
    """Looks at the channels of ``payer`` for an HTLC with this hash (hex). Raises LndError's children.

    The height is asked for first, so that it is never ahead of what the channels say; the open channels before those
    that are being closed, so that one that moves from the first list to the second is not missed.
    """
    connection = await link.verified(afresh=True)
    info = connection.info
    channels = await link.ask_patiently(Connection.channels)
    pending = await link.ask_patiently(Connection.pending_channels)
    if info is None or link.current.identity != payer or connection is not link.current:
        raise LndUnavailable("Another node answers at lnd.address, or the connection changed meanwhile.")
    is_open_in = any(payment_hash in to_channel(channel).paying for channel in channels.channels)
    return HtlcLook(
        block_height=info.block_height,
        is_synced=info.synced_to_chain,
        is_in_channel=is_open_in,
        is_maybe_closing=may_carry_out(pending),
    )


async def open_channels(link: Link, payer: NodeIdentity) -> tuple[OpenChannel, ...]:
    """Of the node ``payer``, from one ListChannels. Raises LndError's children."""
    connection = await link.verified()
    reply = await link.ask_patiently(Connection.channels)
    if link.current.identity != payer or connection is not link.current:
        raise LndUnavailable("Another node answers at lnd.address, or the connection changed meanwhile.")
    found = []
    for channel in reply.channels:
        found.append(to_channel(channel))
        # Each may hold some hundreds of HTLCs, which take a millisecond or two: others have their turn between.
        await asyncio.sleep(0)
    return tuple(found)
