"""What LND knows of the ways to a payee, as values: looked up before an order is made, and after its payment failed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteQuery:
    """What a payment would ask for."""

    payee: str
    """Pubkey, 66 hex digits."""
    amount_msat: int
    """What is to arrive."""
    fee_limit_msat: int | None
    """None: whatever it costs."""
    final_cltv_delta: int
    """As the invoice asks, without LND's padding."""
    cltv_limit: int
    """Blocks from now that the route may lock the money for at most."""
    max_parts: int = 1
    avoids_failed: bool = True
    """As a payment does now. False: what LND learnt of failures is left aside, since it forgets that in minutes."""
    is_route_enough: bool = False
    """Where there is a route within the limits, nothing else is to be known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The one that LND would take, by price and by how likely it works."""

    fee_msat: int
    """Of all parts together."""
    lock_blocks: int
    """From now until our own HTLC expires."""
    hops: tuple[str, ...]
    """Pubkeys from our first peer to the payee."""
    first_channel: str
    """Short id of our channel, as ``lightning.short_channel_id`` writes it."""
    parts: int = 1
    """As many times the same: the whole amount fits through none. An estimate then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflinePeer:
    """A peer of ours with which no channel can be used now."""

    pubkey: str
    alias: str
    """Empty: none is known."""
    largest_msat: int
    """Of its channels the most that one could send if the peer were there."""
    total_msat: int
    """That all of them could."""

    @property
    def name(self) -> str:
        """For people."""
        return node_name(self.pubkey, self.alias)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbound:
    """What the node can send now: without what must stay in each channel (reserve, commitment fee)."""

    largest_msat: int
    """Over the one channel that can send most."""
    total_msat: int
    """Over all of them."""
    channel_count: int
    """Open ones, also those that cannot be used now."""
    offline: tuple[OfflinePeer, ...] = ()
    """Those that could send most first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PayeeNode:
    """What the graph has of the payee."""

    is_in_graph: bool
    alias: str = ""
    channel_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteLook:
    """What LND knows of a way to the payee of a ``RouteQuery``. Its mission control is asked for, and never reset;
    nothing is sent. What is None is not known; ``unknown`` says why."""

    is_route_known: bool
    """QueryRoutes answered all that it was asked. False: all routes are None, and that means nothing."""
    route: Route | None = None
    """Within the limits."""
    dearer: Route | None = None
    """Within the time lock, whatever its fee; where there is none within both."""
    longer: Route | None = None
    """Whatever its fee and time lock; where there is none otherwise."""
    avoided: Route | None = None
    """The one that there would be within the limits if LND did not avoid what failed lately, for some minutes; where
    there is none otherwise."""
    outbound: Outbound | None = None
    payee: PayeeNode | None = None
    unknown: tuple[str, ...] = ()
    """What LND could not be asked: a sentence each, without its end."""


def node_name(pubkey: str, alias: str) -> str:
    """``bob (02ab…)``, or the pubkey's beginning alone."""
    short = f"{pubkey[:10]}…"
    # An alias is a stranger's text.
    said = "".join(each for each in alias if each.isprintable()).strip()
    return f"{said} ({short})" if said else short
