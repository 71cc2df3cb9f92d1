"""From the sandbox node's model to LND's messages and back. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from holdpay._pb.lnd import lightning_pb2, router_pb2
from holdpay.sandbox.bolt11 import Invoice
from holdpay.sandbox.lnd_model import Attempt, Payment, PaymentStatus, Route
from holdpay.sandbox.lnd_network import CHANNEL_RESERVE_DIVISOR, Channel, Network, OutgoingHtlc
from holdpay.sandbox.lnd_node import LndNode
from holdpay.sandbox.lnd_routing import DEFAULT_FINAL_CLTV_DELTA, MAX_TIME_LOCK_BLOCKS, Refusal, RouteQuery, SendRequest

# lnd: lnwallet DefaultRoutingFeeLimitForAmount.
_FULL_FEE_UP_TO_MSAT = 1_000_000
_FEE_PERCENT_ABOVE = 5
# lnd: lnwire/features.go, the ones that an invoice of ours can have.
_FEATURE_NAMES = {8: "tlv-onion", 14: "payment-addr", 16: "multi-path-payments", 30: "amp", 48: "payment-metadata"}
_DEFAULT_MAX_PAYMENTS = 100  # lnd 0.21: payments/db/query.go DefaultMaxPayments; 0.18 lists all
_COMMITMENT_SENT = "ChanStatusCommitBroadcasted"  # lnd: channeldb/channel.go
_PEER_ALIAS = "bob"
_NETWORKS = {"testnet3": "testnet"}  # lnd: lncfg.NormalizeNetwork


def send_request(message: router_pb2.SendPaymentRequest) -> SendRequest:
    return SendRequest(
        payment_request=message.payment_request,
        amt_sat=message.amt,
        amt_msat=message.amt_msat,
        timeout_s=message.timeout_seconds,
        fee_limit_sat=message.fee_limit_sat,
        fee_limit_msat=message.fee_limit_msat,
        cltv_limit=message.cltv_limit,
        max_parts=message.max_parts,
        max_shard_size_msat=message.max_shard_size_msat,
        time_pref=message.time_pref,
        outgoing_chan_ids=tuple(message.outgoing_chan_ids),
        last_hop_pubkey=message.last_hop_pubkey,
        cancelable=message.cancelable,
    )


def payment(model: Payment) -> lightning_pb2.Payment:
    # LND shows INITIATED as IN_FLIGHT unless routerrpc.usestatusinitiated is set.
    status = PaymentStatus.IN_FLIGHT if model.status is PaymentStatus.INITIATED else model.status
    return lightning_pb2.Payment(
        payment_hash=model.payment_hash.hex(),
        payment_preimage=model.preimage.hex(),
        value_sat=model.value_msat // 1000,
        value_msat=model.value_msat,
        payment_request=model.payment_request,
        status=lightning_pb2.Payment.PaymentStatus.ValueType(status),
        fee_sat=model.fee_msat // 1000,
        fee_msat=model.fee_msat,
        creation_time_ns=model.creation_time_ns,
        htlcs=[attempt(one) for one in model.attempts],
        payment_index=model.payment_index,
        failure_reason=lightning_pb2.PaymentFailureReason.ValueType(model.failure_reason),
    )


def attempt(model: Attempt) -> lightning_pb2.HTLCAttempt:
    message = lightning_pb2.HTLCAttempt(
        status=lightning_pb2.HTLCAttempt.HTLCStatus.ValueType(model.status),
        route=route(model.route),
        attempt_time_ns=model.attempt_time_ns,
        resolve_time_ns=model.resolve_time_ns,
        preimage=model.preimage or b"",
        attempt_id=model.attempt_id,
    )
    if model.failure is not None:
        message.failure.code = lightning_pb2.Failure.FailureCode.ValueType(model.failure.code)
        message.failure.failure_source_index = model.failure.source_index
        message.failure.height = model.failure.height
    return message


def route(model: Route) -> lightning_pb2.Route:
    return lightning_pb2.Route(
        total_time_lock=model.total_time_lock_height,
        total_fees_msat=model.total_fees_msat,
        total_amt_msat=model.total_amt_msat,
        hops=[
            lightning_pb2.Hop(
                chan_id=hop.chan_id,
                expiry=hop.expiry_height,
                amt_to_forward_msat=hop.amt_to_forward_msat,
                fee_msat=hop.fee_msat,
                pub_key=hop.pubkey,
            )
            for hop in model.hops
        ],
    )


def pay_req(invoice: Invoice) -> lightning_pb2.PayReq:
    terms = invoice.terms
    amount_msat = terms.amount_msat or 0
    return lightning_pb2.PayReq(
        destination=invoice.payee_pubkey.hex(),
        payment_hash=terms.payment_hash.hex(),
        num_satoshis=amount_msat // 1000,
        num_msat=amount_msat,
        timestamp=terms.timestamp_s,
        expiry=terms.expiry_s,
        description=terms.description,
        cltv_expiry=terms.min_final_cltv_delta,
        payment_addr=terms.payment_secret or bytes(32),
        features={bit: _feature(bit) for bit in sorted(terms.feature_bits)},
    )


def _feature(bit: int) -> lightning_pb2.Feature:
    name = _FEATURE_NAMES.get(bit & ~1)
    return lightning_pb2.Feature(name=name or "unknown", is_required=bit % 2 == 0, is_known=name is not None)


def info(node: LndNode, *, version: str, alias: str, synced: bool, now_s: float) -> lightning_pb2.GetInfoResponse:
    network = node.network
    is_up = network.is_online("peer")
    count = len(network.channels)
    return lightning_pb2.GetInfoResponse(
        identity_pubkey=node.pubkey,
        alias=alias,
        num_active_channels=count if is_up else 0,
        num_inactive_channels=0 if is_up else count,
        num_peers=int(is_up),
        block_height=network.height,
        synced_to_chain=synced,
        best_header_timestamp=int(now_s),
        version=version,
        chains=[lightning_pb2.Chain(network=_NETWORKS.get(node.network_name, node.network_name))],
    )


def channels(network: Network, request: lightning_pb2.ListChannelsRequest) -> lightning_pb2.ListChannelsResponse:
    is_active = network.is_online("peer")
    is_hidden = (request.active_only and not is_active) or (request.inactive_only and is_active)
    is_other = bool(request.peer) and request.peer.hex() != network.peer_pubkey
    shown = [] if is_hidden or is_other else network.channels.values()
    alias = _PEER_ALIAS if request.peer_alias_lookup else ""
    return lightning_pb2.ListChannelsResponse(
        channels=[_channel(network, one, active=is_active, peer_alias=alias) for one in shown]
    )


def pending_channels(network: Network) -> lightning_pb2.PendingChannelsResponse:
    """Those that are being closed by force. The sandbox resolves their HTLCs as soon as the closing is confirmed."""
    shown = lightning_pb2.PendingChannelsResponse.PendingChannel
    waiting = lightning_pb2.PendingChannelsResponse.WaitingCloseChannel
    return lightning_pb2.PendingChannelsResponse(
        waiting_close_channels=[
            waiting(channel=shown(channel_point=_channel_point(chan_id), chan_status_flags=_COMMITMENT_SENT))
            for chan_id in network.closing
        ]
    )


def _channel_point(chan_id: int) -> str:
    return f"{chan_id:064x}:0"


def _channel(network: Network, channel: Channel, *, active: bool, peer_alias: str) -> lightning_pb2.Channel:
    pending = [_htlc(htlc) for htlc in channel.pending.values()]
    return lightning_pb2.Channel(
        active=active,
        remote_pubkey=network.peer_pubkey,
        channel_point=_channel_point(channel.chan_id),
        chan_id=channel.chan_id,
        capacity=channel.capacity_sat,
        local_balance=channel.local_msat // 1000,
        remote_balance=channel.remote_msat // 1000,
        unsettled_balance=sum(htlc.amount for htlc in pending),
        pending_htlcs=pending,
        local_constraints=lightning_pb2.ChannelConstraints(
            chan_reserve_sat=channel.capacity_sat // CHANNEL_RESERVE_DIVISOR
        ),
        peer_alias=peer_alias,
    )


def _htlc(htlc: OutgoingHtlc) -> lightning_pb2.HTLC:
    return lightning_pb2.HTLC(
        incoming=False,
        amount=htlc.amount_msat // 1000,
        hash_lock=htlc.payment_hash,
        expiration_height=htlc.expiry_height,
        htlc_index=htlc.htlc_index,
        locked_in=htlc.is_locked_in,
    )


def balance(network: Network) -> lightning_pb2.ChannelBalanceResponse:
    present = network.channels.values()
    return lightning_pb2.ChannelBalanceResponse(
        local_balance=_amount(sum(channel.local_msat for channel in present)),
        remote_balance=_amount(sum(channel.remote_msat for channel in present)),
        unsettled_local_balance=_amount(0),
        unsettled_remote_balance=_amount(sum(channel.unsettled_msat for channel in present)),
    )


def _amount(msat: int) -> lightning_pb2.Amount:
    return lightning_pb2.Amount(sat=msat // 1000, msat=msat)


def route_query(message: lightning_pb2.QueryRoutesRequest) -> RouteQuery:
    """Raises Refusal."""
    final_cltv_delta = message.final_cltv_delta or DEFAULT_FINAL_CLTV_DELTA
    cltv_limit = message.cltv_limit or MAX_TIME_LOCK_BLOCKS
    if cltv_limit <= final_cltv_delta:
        raise Refusal(f"cltv limit {cltv_limit} should be greater than {final_cltv_delta}")
    return RouteQuery(
        payee_pubkey=message.pub_key,
        amount_msat=message.amt_msat,
        fee_limit_msat=_fee_limit_msat(message),
        final_cltv_delta=final_cltv_delta,
        cltv_limit=cltv_limit,
    )


def _fee_limit_msat(message: lightning_pb2.QueryRoutesRequest) -> int:
    limit = message.fee_limit
    match limit.WhichOneof("limit"):
        case "fixed":
            return limit.fixed * 1000
        case "fixed_msat":
            return limit.fixed_msat
        case "percent":
            return message.amt_msat * limit.percent // 100
        case _:
            is_small = message.amt_msat <= _FULL_FEE_UP_TO_MSAT
            return message.amt_msat if is_small else message.amt_msat * _FEE_PERCENT_ABOVE // 100


def node_info(node: LndNode, alias: str, pubkey: str) -> lightning_pb2.NodeInfo | None:
    """None: the graph does not have it."""
    graph = node.network.graph(node.pubkey)
    ours = len(graph.channels)
    known = {node.pubkey: (alias, ours), graph.peer_pubkey: ("bob", ours + 1), graph.payee_pubkey: ("carol", 1)}
    if pubkey not in known:
        return None
    name, count = known[pubkey]
    return lightning_pb2.NodeInfo(node=lightning_pb2.LightningNode(pub_key=pubkey, alias=name), num_channels=count)


def payments_page(
    payments: Sequence[Payment], request: lightning_pb2.ListPaymentsRequest
) -> lightning_pb2.ListPaymentsResponse:
    """`payments` in rising order of payment_index."""
    page = [one for one in payments if _is_listed(one, request)]
    count = request.max_payments or _DEFAULT_MAX_PAYMENTS
    page = page[-count:] if request.reversed else page[:count]
    return lightning_pb2.ListPaymentsResponse(
        payments=[payment(one) for one in page],
        first_index_offset=page[0].payment_index if page else 0,
        last_index_offset=page[-1].payment_index if page else 0,
    )


def _is_listed(model: Payment, request: lightning_pb2.ListPaymentsRequest) -> bool:
    created_s = model.creation_time_ns // 1_000_000_000
    return (
        _is_beyond_offset(model.payment_index, request)
        and (request.include_incomplete or model.status is PaymentStatus.SUCCEEDED)
        and created_s >= request.creation_date_start
        and (not request.creation_date_end or created_s <= request.creation_date_end)
    )


def _is_beyond_offset(index: int, request: lightning_pb2.ListPaymentsRequest) -> bool:
    if request.reversed:
        return not request.index_offset or index < request.index_offset
    return index > request.index_offset
