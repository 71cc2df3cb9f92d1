"""Bakes holdpay's macaroon over gRPC, by the right of another one."""

from __future__ import annotations

from dataclasses import replace

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay.core.lightning import NodeIdentity
from holdpay.errors import LndDenied, LndRefused, LndUnavailable
from holdpay.lnd.link import Link
from holdpay.lnd.macaroon import RIGHTS, missing_rights
from holdpay.lnd.settings import LndSettings
from holdpay.ports import Clock


async def bake(settings: LndSettings, clock: Clock, root_key_id: int) -> tuple[bytes, NodeIdentity]:
    """A macaroon with ``RIGHTS`` and no more, tried at the node that baked it.

    ``settings``: with a macaroon that may bake, lnd's admin.macaroon say. Raises ConfigError for the certificate,
    LndError's children.
    """
    request = lnrpc.BakeMacaroonRequest(
        permissions=[lnrpc.MacaroonPermission(entity="uri", action=right.removeprefix("uri:")) for right in RIGHTS],
        root_key_id=root_key_id,
    )
    link = Link(settings, clock, on_break=lambda: None)
    try:
        reply = await link.ask_patiently(lambda connection: connection.bake(request))
    except LndDenied:
        raise LndDenied(
            "lnd does not let this macaroon bake another. Name lnd's own admin.macaroon with --admin-macaroon (in"
            " data/chain/bitcoin/NETWORK of lnd's directory)."
        ) from None
    finally:
        await link.close()
    baked = bytes.fromhex(reply.macaroon)
    missing = missing_rights(baked)
    if missing is None:
        raise LndRefused("lnd baked a macaroon that cannot be read. Nothing was written; bake one with lncli.")
    if missing:
        raise LndRefused(
            f"lnd baked a macaroon that lacks {', '.join(missing)}. Nothing was written; see that lnd is a release that"
            " holdpay knows."
        )
    return baked, await _try(replace(settings, macaroon=baked), clock)


async def _try(settings: LndSettings, clock: Clock) -> NodeIdentity:
    link = Link(settings, clock, on_break=lambda: None)
    try:
        identity = (await link.verified(afresh=True)).identity
    finally:
        await link.close()
    if identity is None:
        raise LndUnavailable(
            "The connection to lnd broke while the new macaroon was tried. Try again; nothing was written."
        )
    return identity
