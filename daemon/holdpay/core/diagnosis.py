"""Why a payment failed, in a sentence that can be acted upon. Pure.

LND names one reason for many causes: a fee limit, a time lock, the graph and what it avoids for a while are all
NO_ROUTE, and a peer that is away is INSUFFICIENT_BALANCE. What it knows of the ways to the payee (``routes.RouteLook``)
tells them apart. Where that is not known, the reason alone has to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from holdpay.core.lightning import FailureReason
from holdpay.core.routes import OfflinePeer, Outbound, Route, RouteLook, RouteQuery, node_name

_UNITS = 1000


class Cause(StrEnum):
    """What was in the way of a payment."""

    FEE_LIMIT = "fee_limit"
    """A route exists, and it costs more than may be paid for it."""
    OUTBOUND = "outbound"
    """The channels that can be used hold too little on our side."""
    PEER_OFFLINE = "peer_offline"
    """They would do, if a peer were there."""
    PAYEE_UNKNOWN = "payee_unknown"
    """The graph does not have the payee."""
    TIME_LOCK = "time_lock"
    """A route exists, and it locks the money for longer than it may."""
    HOP_FAILED = "hop_failed"
    """A node on the way failed it, or failed lately and is avoided."""
    NO_ROUTE = "no_route"
    """The graph has no way to the payee, whatever it costs; or nobody can say more."""
    LND = "lnd"
    """lnd refused it, canceled it, or erred."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """``text``: one sentence what is in the way, and what would help; without its end."""

    cause: Cause
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedHop:
    """Where the latest HTLC attempt failed."""

    place: int
    """0: our own node, 1: our peer, and so on."""
    pubkey: str | None
    channel: str | None
    """Which it had to forward through."""
    code: int
    """BOLT4, in LND's numbering."""
    is_payee: bool = False

    @property
    def in_words(self) -> str:
        """``hop 2, 02ab…, had too little on channel 812x1x0 (TEMPORARY_CHANNEL_FAILURE)``."""
        who = "our own node" if self.place == 0 else f"hop {self.place}"
        if self.is_payee:
            who = "the payee"
        elif self.place and self.pubkey:
            who += f", {node_name(self.pubkey, '')},"
        name, words = _CODES.get(self.code, (f"code {self.code}", "failed it"))
        where = f" on channel {self.channel}" if self.channel else ""
        return f"{who} {words}{where} ({name})"


def without_look(reason: FailureReason, hop: FailedHop | None) -> Diagnosis:
    """As far as the failure itself tells."""
    if reason in _OF_LND:
        return Diagnosis(cause=Cause.LND, text=reason.in_words)
    if hop is not None:
        return Diagnosis(cause=Cause.HOP_FAILED, text=f"{hop.in_words}; no other way was found within the limits")
    cause = Cause.OUTBOUND if reason is FailureReason.INSUFFICIENT_BALANCE else Cause.NO_ROUTE
    return Diagnosis(cause=cause, text=reason.in_words)


def diagnose(
    reason: FailureReason,
    hop: FailedHop | None,
    query: RouteQuery,
    look: RouteLook,
    *,
    is_by_full_channel: bool = False,
) -> Diagnosis:
    """Why a payment failed that would have gone by ``query``. ``hop``: where its latest attempt failed, also if it was
    made by an earlier dispatch: LND avoids it since. ``is_by_full_channel``: the route of the look leaves by a channel
    that may hold no more, which a payment is not given."""
    if reason in _OF_LND:
        return without_look(reason, hop)
    found = in_the_way(query, look)
    by_full = _full(look) if is_by_full_channel else None
    if by_full is not None and (found is None or found.cause in _OF_ROUTES):
        found = by_full
    if hop is None:
        return found or _unexplained(reason, look)
    if found is not None and found.cause in _WAYS_OUT:
        return Diagnosis(cause=found.cause, text=f"{hop.in_words}; {found.text}")
    if look.route is not None:
        return Diagnosis(cause=Cause.HOP_FAILED, text=f"{hop.in_words}; {_way_now(look.route)}")
    if look.avoided is not None:
        text = f"{hop.in_words}; lnd avoids it for some minutes: try again later"
        return Diagnosis(cause=Cause.HOP_FAILED, text=text)
    return without_look(reason, hop)


def in_the_way(query: RouteQuery, look: RouteLook) -> Diagnosis | None:
    """What keeps a payment from being made now, also one that was not tried. None: nothing that is known."""
    outbound = look.outbound
    if outbound is not None and not _is_enough(query, outbound, query.amount_msat):
        return _too_little(query, outbound)
    if look.route is not None or not look.is_route_known:
        unknown = look.payee is not None and not look.payee.is_in_graph and look.route is None
        return _unknown_payee(query) if unknown else None
    if look.dearer is not None:
        return _too_dear(query, look.dearer)
    if look.payee is not None and not look.payee.is_in_graph:
        return _unknown_payee(query)
    if look.longer is not None:
        return _too_long(query, look.longer)
    if look.avoided is not None:
        text = (
            f"a route exists at {sat_up(look.avoided.fee_msat)}, and lnd avoids it for some minutes, since a hop of it"
            " failed lately: try again later"
        )
        return Diagnosis(cause=Cause.HOP_FAILED, text=text)
    if outbound is not None and not _is_enough(query, outbound, query.amount_msat + (query.fee_limit_msat or 1)):
        # The amount alone would fit, and no fee on top of it.
        return _too_little(query, outbound)
    if outbound is not None and _helpers(query, outbound):
        return _offline(query, outbound)
    text = (
        f"lnd's graph has no way to {_payee(query, look)} that can carry {_sat(query.amount_msat)}, whatever it costs;"
        f" {_open_channel(query)}"
    )
    return Diagnosis(cause=Cause.NO_ROUTE, text=text)


def _unexplained(reason: FailureReason, look: RouteLook) -> Diagnosis:
    """Nothing that LND says now is in the way."""
    if look.route is not None:
        return Diagnosis(cause=Cause.NO_ROUTE, text=f"lnd found no route when it was tried; {_way_now(look.route)}")
    found = without_look(reason, None)
    why = f" (why, is not known: {look.unknown[0]})" if look.unknown else ""
    return Diagnosis(cause=found.cause, text=f"{found.text}{why}")


# --- one for each cause ---------------------------------------------------------------------------------------------


def _too_dear(query: RouteQuery, dearer: Route) -> Diagnosis:
    limit = _sat(query.fee_limit_msat or 0)
    text = f"a route exists at {sat_up(dearer.fee_msat)}, your limit is {limit}: allow a higher fee"
    return Diagnosis(cause=Cause.FEE_LIMIT, text=text)


def _too_long(query: RouteQuery, longer: Route) -> Diagnosis:
    text = (
        f"a route exists at {sat_up(longer.fee_msat)}, and could lock the money for {longer.lock_blocks:,} blocks; at"
        f" most {query.cltv_limit:,} are allowed (payment.route_cltv_delta)"
    )
    return Diagnosis(cause=Cause.TIME_LOCK, text=text)


def _unknown_payee(query: RouteQuery) -> Diagnosis:
    text = f"the provider's node {node_name(query.payee, '')} is not in lnd's graph; {_open_channel(query)}"
    return Diagnosis(cause=Cause.PAYEE_UNKNOWN, text=text)


def _too_little(query: RouteQuery, outbound: Outbound) -> Diagnosis:
    if outbound.channel_count == 0:
        return Diagnosis(cause=Cause.OUTBOUND, text=f"your node has no channel; {_open_channel(query)}")
    with_peers = Outbound(
        largest_msat=max([outbound.largest_msat, *(peer.largest_msat for peer in outbound.offline)]),
        total_msat=outbound.total_msat + sum(peer.total_msat for peer in outbound.offline),
        channel_count=outbound.channel_count,
    )
    if outbound.offline and _is_enough(query, with_peers, query.amount_msat):
        return _offline(query, outbound)
    needed = f"{_sat(query.amount_msat)} and the fee have to leave your node"
    if query.max_parts == 1:
        text = f"largest usable channel {_sat(outbound.largest_msat)}, and {needed} through one"
    else:
        text = f"all usable channels together have {_sat(outbound.total_msat)}, and {needed}"
    return Diagnosis(cause=Cause.OUTBOUND, text=f"{text}: open a channel, or shift balance to your side of one")


def _offline(query: RouteQuery, outbound: Outbound) -> Diagnosis:
    peer = next(iter(_helpers(query, outbound)), outbound.offline[0])
    more = len(outbound.offline) - 1
    others = f" ({more} more {'is' if more == 1 else 'are'}, too)" if more else ""
    text = (
        f"your peer {peer.name} is offline{others}, whose channels could send {_sat(peer.total_msat)}; without it the"
        f" largest usable channel has {_sat(outbound.largest_msat)}: reconnect with `lncli connect {peer.pubkey}@HOST`,"
        " or wait until it is back"
    )
    return Diagnosis(cause=Cause.PEER_OFFLINE, text=text)


def _helpers(query: RouteQuery, outbound: Outbound) -> list[OfflinePeer]:
    """Peers that are away, and whose channels could carry the payment alone."""
    return [
        peer
        for peer in outbound.offline
        if (peer.largest_msat if query.max_parts == 1 else peer.total_msat) >= query.amount_msat
    ]


def _is_enough(query: RouteQuery, outbound: Outbound, amount_msat: int) -> bool:
    return (outbound.largest_msat if query.max_parts == 1 else outbound.total_msat) >= amount_msat


def _full(look: RouteLook) -> Diagnosis | None:
    route = look.route or look.dearer or look.longer or look.avoided
    if route is None:
        return None
    text = (
        f"a route exists at {sat_up(route.fee_msat)}, by your channel {route.first_channel}, which may hold no more;"
        " none was found by the others: wait until a hold on it ends, or raise holds.max_channel_orders or"
        " holds.max_channel_locked_sat"
    )
    return Diagnosis(cause=Cause.OUTBOUND, text=text)


def _way_now(route: Route) -> str:
    return f"lnd knows a way now, at {sat_up(route.fee_msat)}: order again"


def _open_channel(query: RouteQuery) -> str:
    return (
        f"open a channel to it: `lncli connect {query.payee}@HOST`, then"
        f" `lncli openchannel --node_key {query.payee} --local_amt SAT`"
    )


def _payee(query: RouteQuery, look: RouteLook) -> str:
    return node_name(query.payee, look.payee.alias if look.payee is not None else "")


def _sat(msat: int) -> str:
    """Rounded down: what there is, and what is allowed."""
    return f"{msat // _UNITS:,} sat"


def sat_up(msat: int) -> str:
    """Rounded up: what it would take."""
    return f"{-(-msat // _UNITS):,} sat"


_WAYS_OUT = frozenset({Cause.FEE_LIMIT, Cause.OUTBOUND, Cause.PEER_OFFLINE, Cause.PAYEE_UNKNOWN})
"""What a person can do something about, whatever hop failed."""
_OF_ROUTES = frozenset({Cause.FEE_LIMIT, Cause.TIME_LOCK, Cause.HOP_FAILED})
"""What a route that was found is short of."""
_OF_LND = frozenset({FailureReason.ERROR, FailureReason.CANCELED, FailureReason.NEVER_SENT})

_CODES = {
    1: ("INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS", "refused it, or canceled the hold invoice"),
    7: ("EXPIRY_TOO_SOON", "found its expiry too near"),
    11: ("AMOUNT_BELOW_MINIMUM", "found it too small"),
    12: ("FEE_INSUFFICIENT", "wanted a higher fee"),
    13: ("INCORRECT_CLTV_EXPIRY", "wanted another CLTV delta"),
    14: ("CHANNEL_DISABLED", "has turned forwarding off"),
    15: ("TEMPORARY_CHANNEL_FAILURE", "had too little"),
    16: ("REQUIRED_NODE_FEATURE_MISSING", "wanted a feature that was not offered"),
    17: ("REQUIRED_CHANNEL_FEATURE_MISSING", "wanted a feature that was not offered"),
    18: ("UNKNOWN_NEXT_PEER", "did not reach the next node"),
    19: ("TEMPORARY_NODE_FAILURE", "was out of order for a while"),
    20: ("PERMANENT_NODE_FAILURE", "is out of order"),
    21: ("PERMANENT_CHANNEL_FAILURE", "closed the channel"),
    22: ("EXPIRY_TOO_FAR", "found its expiry too far away"),
    23: ("MPP_TIMEOUT", "waited in vain for the other parts"),
    24: ("INVALID_ONION_PAYLOAD", "did not understand it"),
    997: ("INTERNAL_FAILURE", "failed it"),
    998: ("UNKNOWN_FAILURE", "failed it, and gave no reason"),
    999: ("UNREADABLE_FAILURE", "or another hop failed it, and the error could not be read"),
}
"""lnrpc Failure.FailureCode, and what it means of a hop that forwards (BOLT4)."""
