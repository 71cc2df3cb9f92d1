"""LND's messages as the core's values, and back. Pure. A number that a later LND may invent never fails here."""

from __future__ import annotations

from typing import Final

from holdpay._pb.lnd import lightning_pb2 as lnrpc
from holdpay._pb.lnd import router_pb2 as routerrpc
from holdpay.core.lightning import (
    Attempt,
    AttemptStatus,
    DispatchSpec,
    FailureReason,
    Invoice,
    NodeIdentity,
    OfferedHtlc,
    OpenChannel,
    PaymentStatus,
    PaymentUpdate,
    StoredPayment,
    short_channel_id,
)
from holdpay.core.policy import CLTV_PADDING_DELTA
from holdpay.core.routes import Route, RouteQuery

_NS_PER_MS: Final = 1_000_000
_NO_PREIMAGE: Final = "0" * 64
_MAX_INT64: Final = 2**63 - 1
"""SQLite's largest: LND's indexes are unsigned, and a message that cannot be stored would be lost."""
_NO_ALIAS = "unable to lookup peer alias"
_COOPERATIVE: Final = "ChanStatusCoopBroadcasted"
"""lnd: channeldb/channel.go, ChannelStatus."""
_WEIGHT_NOT_SHOWN: Final = 8
"""LND reckons with so much more for a commitment than it shows (seen on 0.18.5 and 0.21.0)."""
_HTLC_WEIGHT: Final = 172
"""lnd: input/size.go, HTLCWeight."""
_MAX_EXPIRY_S: Final = 100 * 365 * 86_400
"""BOLT11 sets no bound to an invoice's expiry."""

# By number: an old stub cannot name a new member. Everything else (0 UNKNOWN, 4 INITIATED, ...) may have money out.
_PAYMENT_STATUS: Final = {
    int(lnrpc.Payment.SUCCEEDED): PaymentStatus.SUCCEEDED,
    int(lnrpc.Payment.FAILED): PaymentStatus.FAILED,
}
_ATTEMPT_STATUS: Final = {
    int(lnrpc.HTLCAttempt.SUCCEEDED): AttemptStatus.SUCCEEDED,
    int(lnrpc.HTLCAttempt.FAILED): AttemptStatus.FAILED,
}
_FAILURE_REASON: Final = {
    int(lnrpc.FAILURE_REASON_NONE): FailureReason.NONE,
    int(lnrpc.FAILURE_REASON_TIMEOUT): FailureReason.TIMEOUT,
    int(lnrpc.FAILURE_REASON_NO_ROUTE): FailureReason.NO_ROUTE,
    int(lnrpc.FAILURE_REASON_ERROR): FailureReason.ERROR,
    int(lnrpc.FAILURE_REASON_INCORRECT_PAYMENT_DETAILS): FailureReason.INCORRECT_PAYMENT_DETAILS,
    int(lnrpc.FAILURE_REASON_INSUFFICIENT_BALANCE): FailureReason.INSUFFICIENT_BALANCE,
    int(lnrpc.FAILURE_REASON_CANCELED): FailureReason.CANCELED,
}


def to_identity(info: lnrpc.GetInfoResponse) -> NodeIdentity:
    """Which node answered. The network is "" if it names no chain (no lnd does that)."""
    return NodeIdentity(info.identity_pubkey, info.chains[0].network if info.chains else "")


def to_invoice(payreq: lnrpc.PayReq) -> Invoice:
    """A decoded BOLT11 invoice. LND shows a missing payment address as nothing, or as 32 zero bytes."""
    return Invoice(
        payment_hash=payreq.payment_hash,
        payee=payreq.destination,
        amount_msat=payreq.num_msat,
        created_at_ms=payreq.timestamp * 1000,
        expiry_s=min(payreq.expiry, _MAX_EXPIRY_S),
        final_cltv_delta=payreq.cltv_expiry,
        has_payment_address=any(payreq.payment_addr),
        memo=payreq.description,
    )


def to_update(payment: lnrpc.Payment) -> PaymentUpdate:
    """One snapshot of a payment stream. ``status`` alone decides: the other fields may be set early or overwritten."""
    preimage = payment.payment_preimage
    return PaymentUpdate(
        status=_PAYMENT_STATUS.get(payment.status, PaymentStatus.IN_FLIGHT),
        failure_reason=_FAILURE_REASON.get(payment.failure_reason, FailureReason.OTHER),
        attempts=tuple(_to_attempt(htlc) for htlc in payment.htlcs),
        fee_msat=payment.fee_msat,
        preimage=None if preimage in {"", _NO_PREIMAGE} else preimage,
        payment_index=min(payment.payment_index, _MAX_INT64),
        created_at_ms=payment.creation_time_ns // _NS_PER_MS or None,
    )


def to_stored(payment: lnrpc.Payment) -> StoredPayment:
    """One entry of ListPayments."""
    hops = [htlc.route.hops for htlc in payment.htlcs if htlc.route.hops]
    return StoredPayment(
        payment_hash=payment.payment_hash,
        payreq=payment.payment_request,
        amount_msat=payment.value_msat,
        created_at_ms=payment.creation_time_ns // _NS_PER_MS,
        last_node=hops[0][-1].pub_key if hops else None,
        leaves_by=tuple(
            htlc.route.hops[0].chan_id
            for htlc in payment.htlcs
            if htlc.status == lnrpc.HTLCAttempt.IN_FLIGHT and htlc.route.hops
        ),
        update=to_update(payment),
    )


def to_channel(channel: lnrpc.Channel) -> OpenChannel:
    """One entry of ListChannels."""
    return OpenChannel(
        chan_id=channel.chan_id,
        is_active=channel.active,
        offered=tuple(
            OfferedHtlc(htlc.hash_lock.hex(), htlc.expiration_height)
            for htlc in channel.pending_htlcs
            if not htlc.incoming
        ),
        peer_pubkey=channel.remote_pubkey,
        peer_alias=alias_of(channel),
    )


def alias_of(channel: lnrpc.Channel) -> str:
    """The name of its peer; empty where the graph has none. lnd puts an error in its place then (lnd: rpcserver.go
    createRPCOpenChannel)."""
    return "" if channel.peer_alias.startswith(_NO_ALIAS) else channel.peer_alias


def may_carry_out(pending: lnrpc.PendingChannelsResponse) -> bool:
    """Whether a channel that is being closed may still carry an HTLC that we offered.

    They name no payment hash, and one whose closing is not confirmed names no HTLC at all (lnd: rpcserver.go
    fetchWaitingCloseChannels), so all of them count but those that close by agreement, which have none.
    """
    is_waiting = any(
        _COOPERATIVE not in channel.channel.chan_status_flags for channel in pending.waiting_close_channels
    )
    forced = pending.pending_force_closing_channels
    return is_waiting or any(not htlc.incoming for channel in forced for htlc in channel.pending_htlcs)


def _to_attempt(htlc: lnrpc.HTLCAttempt) -> Attempt:
    hops = htlc.route.hops
    failed_hop, failed_channel = _where_it_failed(htlc)
    return Attempt(
        attempt_id=min(htlc.attempt_id, _MAX_INT64),
        status=_ATTEMPT_STATUS.get(htlc.status, AttemptStatus.IN_FLIGHT),
        amount_msat=hops[-1].amt_to_forward_msat if hops else 0,
        fee_msat=htlc.route.total_fees_msat,
        expiry_height=htlc.route.total_time_lock,
        hop_count=len(hops),
        attempted_at_ms=htlc.attempt_time_ns // _NS_PER_MS,
        resolved_at_ms=htlc.resolve_time_ns // _NS_PER_MS or None,
        failure_code=htlc.failure.code,
        failure_source_index=htlc.failure.failure_source_index,
        first_hop=(hops[0].pub_key or None) if hops else None,
        first_channel=_channel_name(hops[0]) if hops else None,
        failed_hop=failed_hop,
        failed_channel=failed_channel,
    )


def _where_it_failed(htlc: lnrpc.HTLCAttempt) -> tuple[str | None, str | None]:
    """The node that said so, and the channel that it had to forward through: the one that leads to the next hop."""
    hops, source = htlc.route.hops, htlc.failure.failure_source_index
    if htlc.status != lnrpc.HTLCAttempt.FAILED or not htlc.HasField("failure"):
        return None, None
    hop = hops[source - 1].pub_key or None if 0 < source <= len(hops) else None
    return hop, _channel_name(hops[source]) if source < len(hops) else None


def _channel_name(hop: lnrpc.Hop) -> str | None:
    return short_channel_id(hop.chan_id) if hop.chan_id else None


def sendable_msat(channel: lnrpc.Channel) -> int:
    """What a channel of ours can send, whether its peer is there or not, as LND itself reckons it.

    lnd: lnwallet/channel.go availableCommitmentBalance, CalcFeeBuffer: the reserve stays, and who opened the channel
    keeps twice the fee of the commitment with two more HTLCs.
    """
    balance_sat = channel.local_balance - channel.local_constraints.chan_reserve_sat
    if channel.initiator:
        weight = channel.commit_weight + _WEIGHT_NOT_SHOWN
        paid_sat = channel.fee_per_kw * weight // 1000
        kept_sat = 2 * channel.fee_per_kw * (weight + 2 * _HTLC_WEIGHT) // 1000
        balance_sat -= kept_sat - paid_sat
    return max(0, balance_sat * 1000)


def to_routes_request(
    query: RouteQuery, *, within_fee: bool, within_lock: bool, avoids_failed: bool
) -> lnrpc.QueryRoutesRequest:
    """QueryRoutes for one part of a payment, with all or some of its limits. LND pads the final delta of a payment."""
    fee_limit_msat = query.fee_limit_msat if within_fee else None
    return lnrpc.QueryRoutesRequest(
        pub_key=query.payee,
        amt_msat=query.amount_msat,
        fee_limit=lnrpc.FeeLimit(fixed_msat=_MAX_INT64 if fee_limit_msat is None else fee_limit_msat),
        final_cltv_delta=query.final_cltv_delta + CLTV_PADDING_DELTA,
        cltv_limit=query.cltv_limit if within_lock else 0,
        use_mission_control=avoids_failed,
    )


def to_route(route: lnrpc.Route, parts: int, block_height: int) -> Route:
    """A route that QueryRoutes found at ``block_height``."""
    return Route(
        fee_msat=route.total_fees_msat * parts,
        lock_blocks=route.total_time_lock - block_height,
        hops=tuple(hop.pub_key for hop in route.hops),
        first_channel=short_channel_id(route.hops[0].chan_id) if route.hops else "",
        parts=parts,
    )


def to_send_request(spec: DispatchSpec) -> routerrpc.SendPaymentRequest:
    """SendPaymentV2 with every option said. The amount is the invoice's: LND refuses a second opinion."""
    return routerrpc.SendPaymentRequest(
        payment_request=spec.payreq,
        timeout_seconds=spec.timeout_s,
        fee_limit_msat=spec.fee_limit_msat,
        cltv_limit=spec.cltv_limit,
        outgoing_chan_ids=spec.outgoing_chan_ids,
        max_parts=spec.max_parts,
        no_inflight_updates=False,
        time_pref=0.0,
        cancelable=False,
    )


def to_track_request(payment_hash: str) -> routerrpc.TrackPaymentRequest:
    """TrackPaymentV2 by hash (hex)."""
    return routerrpc.TrackPaymentRequest(payment_hash=bytes.fromhex(payment_hash), no_inflight_updates=False)


def to_track_all_request() -> routerrpc.TrackPaymentsRequest:
    """TrackPayments, with the changes on the way: a failed attempt is only told while it happens."""
    return routerrpc.TrackPaymentsRequest(no_inflight_updates=False)
