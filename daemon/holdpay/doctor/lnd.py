"""The looks at lnd. Only reading calls are made; what cannot be told from the macaroon itself is tried in vain on
purpose, with questions about nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from holdpay.app import lnd_settings
from holdpay.clock import SystemClock
from holdpay.config import Settings
from holdpay.core.policy import CLTV_PADDING_DELTA
from holdpay.core.routes import RouteLook, RouteQuery
from holdpay.doctor.findings import Unseen
from holdpay.doctor.judge_lnd import Rights
from holdpay.doctor.looking import look
from holdpay.lnd.exam import TRIED, LndExam, NodeSeen, Sendable
from holdpay.lnd.macaroon import RIGHTS, missing_rights

ANSWER_S: Final = 12.0
"""lnd's own answer, with the tries of a connection that breaks."""
CHANNELS_S: Final = 12.0
ROUTES_S: Final = 15.0
"""Each look at a route ends itself before."""
USUAL_FINAL_CLTV_DELTA: Final = 40
"""What the provider's invoices ask."""

_WANTED: Final = tuple(right.rpartition("/")[2] for right in RIGHTS)
_SLOW: Final = Unseen("lnd does not answer in time.", "See lnd's log and its load, and that lnd.address is right.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LndSeen:
    """All but ``node`` and ``rights`` is None where lnd did not answer."""

    node: NodeSeen | Unseen
    rights: Rights
    channels: Sendable | Unseen | None = None
    routes: Mapping[str, RouteLook] | None = None


async def look_at_lnd(settings: Settings, clock: SystemClock, payees: Sequence[str]) -> LndSeen:
    """``payees``: whom to look for a route to. Raises ConfigError for the certificate, OSError for the macaroon."""
    own = lnd_settings(settings)
    denied = missing_rights(own.macaroon)
    rights = Rights(wanted=_WANTED, denied=denied or (), untold=_WANTED if denied is None else ())
    async with LndExam(own, clock) as exam:
        node = await look(exam.node(), ANSWER_S, _SLOW)
        if isinstance(node, Unseen):
            return LndSeen(node=node, rights=rights)
        tried, channels, routes = await asyncio.gather(
            _tried(exam, rights),
            look(exam.sendable(), CHANNELS_S, _SLOW),
            _routes(exam, settings, node, payees),
        )
    return LndSeen(node=node, rights=tried, channels=channels, routes=routes)


async def _tried(exam: LndExam, rights: Rights) -> Rights:
    """What the macaroon does not say lnd says."""
    if not rights.untold:
        return rights
    denied = await look(exam.denied(rights.untold), CHANNELS_S, _SLOW)
    if isinstance(denied, Unseen):
        return rights
    untold = tuple(method for method in rights.untold if method not in TRIED)
    return Rights(wanted=rights.wanted, denied=denied, untold=untold)


async def _routes(exam: LndExam, settings: Settings, node: NodeSeen, payees: Sequence[str]) -> dict[str, RouteLook]:
    found = await asyncio.gather(
        *(look(exam.route(query(settings, payee), node.identity), ROUTES_S, _SLOW) for payee in payees)
    )
    return {payee: _known(each) for payee, each in zip(payees, found, strict=True)}


def _known(found: RouteLook | Unseen) -> RouteLook:
    if isinstance(found, Unseen):
        return RouteLook(is_route_known=False, unknown=(found.text.rstrip("."),))
    return found


def query(settings: Settings, payee: str) -> RouteQuery:
    """For the dearest order that the configuration allows, with the fee limit that it has by itself."""
    policy = settings.policy()
    price_sat = policy.max_price_sat
    return RouteQuery(
        payee=payee,
        amount_msat=price_sat * 1000,
        fee_limit_msat=policy.fee_cap_sat(price_sat) * 1000,
        final_cltv_delta=USUAL_FINAL_CLTV_DELTA,
        cltv_limit=USUAL_FINAL_CLTV_DELTA + CLTV_PADDING_DELTA + policy.route_cltv_delta,
        max_parts=policy.mpp_max_parts if price_sat >= policy.mpp_from_sat else 1,
    )
