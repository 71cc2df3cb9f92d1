"""How LND checks a request to pay and finds a route. Pure.

Texts and order of the checks: lnd: lnrpc/routerrpc/router_backend.go extractIntentFromSendRequest. Routes and shards:
lnd: routing/payment_session.go RequestRoute. The world is the smallest one in which a hop charges a fee, fails or goes
away: we - (channels) - peer - payee.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from holdpay.sandbox.bolt11 import BASIC_MPP_OPTIONAL, Invoice
from holdpay.sandbox.lnd_model import FailureCode, FailureReason, Hop, Route

BLOCK_PADDING = 3
MAX_TIME_LOCK_BLOCKS = 2016
DEFAULT_FINAL_CLTV_DELTA = 80
DEFAULT_TIMEOUT_S = 60
DEFAULT_MAX_PARTS = 16
MIN_SHARD_MSAT = 10_000_000
# LND leaves out a pair of nodes after a failure for about this long (measured on lnd 0.20 and 0.21).
MISSION_CONTROL_S = 180.0

# The (basic) multi-part feature may be set as the required or as the optional bit.
_MPP_BITS = {BASIC_MPP_OPTIONAL - 1, BASIC_MPP_OPTIONAL}


class Refusal(Exception):
    """LND refuses the request before it stores anything; the text is LND's, the gRPC code UNKNOWN."""


class NoRoute(Exception):
    """No route; `reason` is what LND writes on the payment, the text what QueryRoutes answers."""

    def __init__(self, reason: FailureReason) -> None:
        is_balance = reason is FailureReason.INSUFFICIENT_BALANCE
        super().__init__("insufficient local balance" if is_balance else "unable to find a path to destination")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class SendRequest:
    """SendPaymentV2's fields that matter here; 0 and empty mean absent."""

    payment_request: str
    amt_sat: int = 0
    amt_msat: int = 0
    timeout_s: int = 0
    fee_limit_sat: int = 0
    fee_limit_msat: int = 0
    cltv_limit: int = 0
    max_parts: int = 0
    max_shard_size_msat: int = 0
    time_pref: float = 0.0
    outgoing_chan_ids: tuple[int, ...] = ()
    last_hop_pubkey: bytes = b""
    cancelable: bool = False


@dataclass(frozen=True, slots=True)
class Intent:
    """A request that passed the checks."""

    invoice: Invoice
    payment_request: str
    payment_secret: bytes
    amount_msat: int
    timeout_s: int
    fee_limit_msat: int
    cltv_limit: int
    max_parts: int
    max_shard_msat: int | None
    outgoing_chan_ids: tuple[int, ...]
    last_hop_pubkey: str
    cancelable: bool

    @property
    def payment_hash(self) -> bytes:
        return self.invoice.terms.payment_hash


def vet(request: SendRequest, decode: Callable[[str], Invoice], own_pubkey: bytes, now_s: float) -> Intent:
    """LND's checks before anything is stored, in LND's order.

    Raises Refusal, and InvoiceError from `decode`.
    """
    if not -1 <= request.time_pref <= 1:
        raise Refusal("time preference out of range")
    if request.cltv_limit > MAX_TIME_LOCK_BLOCKS:
        raise Refusal(f"total time lock of {request.cltv_limit} exceeds max allowed {MAX_TIME_LOCK_BLOCKS}")
    fee_limit_msat = _one_amount_msat(request.fee_limit_sat, request.fee_limit_msat)
    requested_msat = _one_amount_msat(request.amt_sat, request.amt_msat)
    invoice = decode(request.payment_request)
    terms = invoice.terms
    if now_s > terms.valid_until_s:
        raise Refusal(f"invoice expired. Valid until {go_time(terms.valid_until_s)}")
    if terms.payment_secret is None:
        raise Refusal("payment request must contain either a payment address or blinded paths")
    amount_msat = _amount_to_pay_msat(terms.amount_msat, requested_msat)
    max_parts = (request.max_parts or DEFAULT_MAX_PARTS) if terms.feature_bits & _MPP_BITS else 1
    _check_shards(amount_msat, max_parts, request.max_shard_size_msat)
    cltv_limit = request.cltv_limit or MAX_TIME_LOCK_BLOCKS
    _check_cltv_limit(cltv_limit, terms.min_final_cltv_delta + BLOCK_PADDING)
    if invoice.payee_pubkey == own_pubkey:
        raise Refusal("self-payments not allowed")
    return Intent(
        invoice=invoice,
        payment_request=request.payment_request,
        payment_secret=terms.payment_secret,
        amount_msat=amount_msat,
        timeout_s=request.timeout_s or DEFAULT_TIMEOUT_S,
        fee_limit_msat=fee_limit_msat,
        cltv_limit=cltv_limit,
        max_parts=max_parts,
        max_shard_msat=request.max_shard_size_msat or None,
        outgoing_chan_ids=request.outgoing_chan_ids,
        last_hop_pubkey=request.last_hop_pubkey.hex(),
        cancelable=request.cancelable,
    )


def _one_amount_msat(sat: int, msat: int) -> int:
    if sat and msat:
        raise Refusal("sat and msat arguments are mutually exclusive")
    if sat < 0 or msat < 0:
        raise Refusal("amount cannot be negative")
    return sat * 1000 or msat


def _amount_to_pay_msat(invoice_msat: int | None, requested_msat: int) -> int:
    if invoice_msat is None and not requested_msat:
        raise Refusal("amount must be specified when paying a zero amount invoice")
    if invoice_msat is not None and requested_msat:
        raise Refusal("amount must not be specified when paying a non-zero amount invoice")
    return invoice_msat or requested_msat


def _check_shards(amount_msat: int, max_parts: int, max_shard_msat: int) -> None:
    if max_shard_msat and amount_msat > max_shard_msat * max_parts:
        raise Refusal(
            f"payment amount {amount_msat} mSAT exceeds maximum possible amount {max_shard_msat * max_parts} mSAT "
            f"with max_parts={max_parts} and max_shard_size_msat={max_shard_msat} mSAT"
        )


def _check_cltv_limit(cltv_limit: int, least: int) -> None:
    if cltv_limit <= least:
        raise Refusal(f"cltv limit {cltv_limit} should be greater than {least}")


def go_time(seconds: int) -> str:
    """A time as Go prints it: "2026-11-22 04:59:01 +0000 UTC"."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S +0000 UTC")


class MissionControl:
    """Which pairs of nodes failed lately."""

    def __init__(self, avoid_s: float = MISSION_CONTROL_S) -> None:
        self._avoid_s = avoid_s
        self._failed_at_s: dict[tuple[str, str], float] = {}

    def avoids(self, pair: tuple[str, str], now_s: float) -> bool:
        failed_at_s = self._failed_at_s.get(pair)
        return failed_at_s is not None and now_s - failed_at_s < self._avoid_s

    def succeeded(self, route: Route, own_pubkey: str) -> None:
        for pair in _pairs(route, own_pubkey):
            self._failed_at_s.pop(pair, None)

    def failed(
        self, route: Route, own_pubkey: str, code: FailureCode, source_index: int, now_s: float
    ) -> FailureReason | None:
        """Learn from a failed attempt; the reason to end the whole payment with, if it is one.

        lnd: routing/result_interpretation.go. A failure of our own channel teaches nothing; one on the way is blamed
        on the pair after the node that said so; the payee's word is final, except that it waited for other shards.
        """
        if source_index == 0:
            return None
        if source_index < len(route.hops):
            self._failed_at_s[_pairs(route, own_pubkey)[source_index]] = now_s
            return None
        if code is FailureCode.MPP_TIMEOUT:
            return None
        is_details = code is FailureCode.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS
        return FailureReason.INCORRECT_PAYMENT_DETAILS if is_details else FailureReason.ERROR


def _pairs(route: Route, own_pubkey: str) -> list[tuple[str, str]]:
    nodes = [own_pubkey, *(hop.pubkey for hop in route.hops)]
    return list(pairwise(nodes))


@dataclass(frozen=True, slots=True)
class OurChannel:
    """One of our channels to the peer, as path finding sees it."""

    chan_id: int
    bandwidth_msat: int  # 0 while the peer is away


@dataclass(frozen=True, slots=True)
class Graph:
    """The world as our node knows it."""

    own_pubkey: str
    peer_pubkey: str
    payee_pubkey: str
    last_chan_id: int  # the channel between the peer and the payee
    channels: Sequence[OurChannel]
    height: int
    # What the peer asks for forwarding: LND's defaults.
    fee_base_msat: int = 1000
    fee_rate_ppm: int = 1
    cltv_delta: int = 80

    def fee_msat(self, amount_msat: int) -> int:
        return self.fee_base_msat + amount_msat * self.fee_rate_ppm // 1_000_000


@dataclass(frozen=True, slots=True)
class RouteQuery:
    payee_pubkey: str
    amount_msat: int
    fee_limit_msat: int
    final_cltv_delta: int  # padding included
    cltv_limit: int
    outgoing_chan_ids: tuple[int, ...] = ()
    last_hop_pubkey: str = ""
    # How many shards may follow this one; more than 0 allows to split the amount.
    further_shards: int = 0


Avoids = Callable[[tuple[str, str]], bool]


def find_route(graph: Graph, query: RouteQuery, avoids: Avoids) -> Route:
    """A route for the amount, or for half of it, a quarter … while shards are left.

    Raises NoRoute.
    """
    usable = [c for c in graph.channels if not query.outgoing_chan_ids or c.chan_id in query.outgoing_chan_ids]
    amount_msat = query.amount_msat
    while True:
        if sum(channel.bandwidth_msat for channel in usable) < amount_msat:
            raise NoRoute(FailureReason.INSUFFICIENT_BALANCE)
        route = _one_route(graph, query, amount_msat, usable, avoids)
        if route is not None:
            return route
        amount_msat //= 2
        if not query.further_shards or amount_msat < MIN_SHARD_MSAT:
            raise NoRoute(FailureReason.NO_ROUTE)


def _one_route(
    graph: Graph, query: RouteQuery, amount_msat: int, channels: Sequence[OurChannel], avoids: Avoids
) -> Route | None:
    if query.payee_pubkey == graph.peer_pubkey and not query.last_hop_pubkey:
        return _to_the_peer(graph, query, amount_msat, channels, avoids)
    fee_msat = graph.fee_msat(amount_msat)
    total_msat = amount_msat + fee_msat
    is_known = query.payee_pubkey == graph.payee_pubkey and query.last_hop_pubkey in ("", graph.peer_pubkey)
    is_affordable = fee_msat <= query.fee_limit_msat and query.final_cltv_delta + graph.cltv_delta <= query.cltv_limit
    pairs = ((graph.own_pubkey, graph.peer_pubkey), (graph.peer_pubkey, graph.payee_pubkey))
    fitting = [channel for channel in channels if channel.bandwidth_msat >= total_msat]
    if not (is_known and is_affordable and fitting) or any(avoids(pair) for pair in pairs):
        return None
    first = max(fitting, key=lambda channel: channel.bandwidth_msat)
    final_height = graph.height + query.final_cltv_delta
    return Route(
        total_time_lock_height=final_height + graph.cltv_delta,
        total_amt_msat=total_msat,
        hops=(
            Hop(first.chan_id, graph.peer_pubkey, amount_msat, fee_msat, final_height),
            Hop(graph.last_chan_id, graph.payee_pubkey, amount_msat, 0, final_height),
        ),
    )


def _to_the_peer(
    graph: Graph, query: RouteQuery, amount_msat: int, channels: Sequence[OurChannel], avoids: Avoids
) -> Route | None:
    """Nobody forwards it, so it costs nothing."""
    fitting = [channel for channel in channels if channel.bandwidth_msat >= amount_msat]
    is_short = query.final_cltv_delta <= query.cltv_limit
    if not fitting or not is_short or avoids((graph.own_pubkey, graph.peer_pubkey)):
        return None
    first = max(fitting, key=lambda channel: channel.bandwidth_msat)
    height = graph.height + query.final_cltv_delta
    hop = Hop(first.chan_id, graph.peer_pubkey, amount_msat, 0, height)
    return Route(total_time_lock_height=height, total_amt_msat=amount_msat, hops=(hop,))
