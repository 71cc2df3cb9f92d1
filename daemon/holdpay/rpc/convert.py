"""Domain → protobuf. The only place that knows both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.core.charge import ChargeState
from holdpay.core.diagnosis import Cause, FailedHop
from holdpay.core.dispatches import Dispatched
from holdpay.core.explain import explain, trouble
from holdpay.core.guard import UNSEEN, HtlcSight, Sight, alarms, findings, hours, level_of
from holdpay.core.items import Item, ItemKind
from holdpay.core.kinds import CodeSpec
from holdpay.core.lightning import Attempt, AttemptStatus
from holdpay.core.machine import promise_until_ms, takes_cancel
from holdpay.core.model import Order, Payment
from holdpay.core.policy import Policy
from holdpay.core.states import End, HoldLevel, HtlcState, OrderState
from holdpay.core.tables import phase
from holdpay.engine.places import Places
from holdpay.engine.tally import Tally
from holdpay.errors import InvalidRequest
from holdpay.ports import Balance, CountryInfo, Funding, NodeStatus, Prices, ServiceInfo, Update
from holdpay.rpc.kinds import KINDS, add_understood, strategy_to_pb

_STATES = {state: pb.OrderState.Value(f"ORDER_STATE_{state.name}") for state in OrderState}
_HTLCS = {htlc: pb.HtlcState.Value(f"HTLC_STATE_{htlc.name}") for htlc in HtlcState}
_CHARGES = {charge: pb.ChargeState.Value(f"CHARGE_STATE_{charge.name}") for charge in ChargeState}
_LEVELS = {level: pb.HoldLevel.Value(f"HOLD_LEVEL_{level.name}") for level in HoldLevel}
_CAUSES = {cause: pb.Cause.Value(f"CAUSE_{cause.name}") for cause in Cause}
_ENDS = {end: pb.End.Value(f"END_{end.name}") for end in End}
_ENDS_BACK = {number: end for end, number in _ENDS.items()}
_ITEMS = {
    kind: pb.ITEM_KIND_UNREAD if kind is ItemKind.UNREAD_MAYBE else pb.ItemKind.Value(f"ITEM_KIND_{kind.name}")
    for kind in ItemKind
}


@dataclass(frozen=True, slots=True)
class Queue:
    """Where an order waits for a place among the holds, and in words for what."""

    position: int
    words: str


def end_from_pb(number: int) -> End | None:
    """END_UNSPECIFIED is None. Raises InvalidRequest for a number that this version does not know."""
    if number != pb.END_UNSPECIFIED and number not in _ENDS_BACK:
        raise InvalidRequest(f"There is no end {number}. See End in holdpay.proto.", field="end")
    return _ENDS_BACK.get(pb.End.ValueType(number))


def request_to_pb(
    orders: Sequence[Order],
    policy: Policy,
    at_ms: int,
    cursor: int,
    sight: Sight = UNSEEN,
    queue: Queue | None = None,
) -> pb.Request:
    """A request with its orders as they were, and with what concerned an operator, at ``at_ms``. ``cursor``: what
    happened to it up to there is told. ``sight``: what is seen of the HTLCs of the last order then. ``queue``: where
    that waits now; None: nowhere."""
    order, delivered = orders[-1], items_of(orders)
    items = latest_items(delivered)
    message = pb.Request(
        id=order.request.id,
        kind=KINDS[order.spec.kind],
        client=order.request.client,
        idempotency_key=order.request.key,
        created_at_ms=order.request.created_at_ms,
        prepaid=order.request.is_prepaid,
        what=order.spec.what,
        items=items,
        items_left_out=len(delivered) - len(items),
        orders=[
            _order_to_pb(each, policy, queue if each is order else None, len(items_of(orders[:at])) + 1)
            for at, each in enumerate(orders)
        ],
        fulfilled=any(each.is_delivered for each in orders),
        may_be_canceled=takes_cancel(order),
        cancel_wanted_at_ms=order.cancel_wanted_at_ms if order.is_cancel_wanted_by_client else None,
        closed_at_ms=order.closed_at_ms if order.ends_request else None,
        end=_ENDS[order.end] if order.end and order.ends_request else pb.END_UNSPECIFIED,
        reason=trouble(order),
        alarms=alarms(order, policy, at_ms, sight),
        terminal=order.ends_request,
        erased_at_ms=order.erased_at_ms,
        quarantined_at_ms=order.quarantined_at_ms,
        quarantine_reason=order.quarantine_reason,
        cursor=cursor,
        strategy=strategy_to_pb(order.request.strategy),
        going_on=order.is_going_on,
    )
    add_understood(message, order)
    return message


def add_wait(message: pb.Request, order: Order, why: str) -> pb.Request:
    """What keeps the last order from being paid just now is a part of its phase."""
    is_to_be_paid = order.state is OrderState.AWAITING_PAYMENT and not order.is_closed and not order.is_money_out
    if why and is_to_be_paid:
        message.orders[-1].phase += f"; it waits: {why}"
    return message


def items_of(orders: Sequence[Order]) -> tuple[Item, ...]:
    """All that was delivered for a request."""
    return tuple(item for order in orders for item in order.items)


ITEMS_BYTES = 512 * 1024
"""Of messages and unread replies in one message: gRPC clients take 4 MiB, and those of a rented number may be 16."""
_LONG = frozenset({ItemKind.MESSAGE, ItemKind.UNREAD, ItemKind.UNREAD_MAYBE})


def latest_items(items: Sequence[Item]) -> list[pb.Item]:
    """All but the messages and unread replies before the latest ITEMS_BYTES."""
    found, room = [], ITEMS_BYTES
    for seq, item in reversed(list(enumerate(items, start=1))):
        room -= _size(item)
        if room >= 0 or item.kind not in _LONG:
            found.append(_item_to_pb(seq, item))
    return found[::-1]


def items_after(items: Sequence[Item], after_seq: int) -> pb.ListItemsResponse:
    """So many as fit, at least one if there is one."""
    found, size, at = [], 0, after_seq
    while at < len(items) and size < ITEMS_BYTES:
        size += _size(items[at])
        at += 1
        found.append(_item_to_pb(at, items[at - 1]))
    return pb.ListItemsResponse(items=found, more=at < len(items))


def _size(item: Item) -> int:
    return len(item.text.encode()) + 16 if item.kind in _LONG else 0


def _item_to_pb(seq: int, item: Item) -> pb.Item:
    return pb.Item(
        seq=seq,
        kind=_ITEMS[item.kind],
        text=item.text,
        seen_at_ms=item.seen_at_ms,
        may_lack_zeros=item.may_lack_zeros,
    )


def _order_to_pb(order: Order, policy: Policy, queue: Queue | None, items_from_seq: int) -> pb.Order:
    message = pb.Order(
        id=order.id,
        country=order.spec.country_name if isinstance(order.spec, CodeSpec) else "",
        created_at_ms=order.created_at_ms,
        closed_at_ms=order.closed_at_ms,
        end=_ENDS[order.end] if order.end else pb.END_UNSPECIFIED,
        reason=trouble(order),
        moved_on=order.moved_on or "",
        items_from_seq=items_from_seq,
        state=_STATES[order.state],
        htlc=pb.HTLC_STATE_UNSPECIFIED if order.request.is_prepaid else _HTLCS[order.htlc],
        phase=phase(order) if queue is None else f"waiting: {queue.words}",
        queue_position=None if queue is None else queue.position,
        quote_sat=order.quote_sat,
        max_price_sat=order.max_price_sat,
        max_fee_sat=order.max_fee_sat,
        locked_msat=order.locked_msat,
        spent_msat=order.spent_msat,
        promise_until_ms=promise_until_ms(order, policy) if order.is_money_out else None,
        provider_order_id=order.provider_order_id,
        cancel_from_ms=order.cancel_at_ms,
    )
    if order.payment is not None:
        _add_payment(message, order, order.payment)
    if order.charge is not None:
        message.charge = _CHARGES[order.charge.state]
        message.amount_msat = order.charge.amount_sat * 1000
        if order.charge.balance_before_sat is not None:
            message.balance_before_sat = order.charge.balance_before_sat
    return message


def _add_payment(message: pb.Order, order: Order, payment: Payment) -> None:
    message.amount_msat = payment.amount_msat
    message.payment_hash = payment.payment_hash
    message.dispatches = payment.dispatch_count
    message.paid_before = payment.is_paid_before
    if payment.fee_msat:
        message.fee_msat = payment.fee_msat
    if payment.expiry_height is not None and order.is_money_out:
        message.expiry_height = payment.expiry_height
    if payment.gone_since_ms is not None and order.is_money_out:
        message.gone_since_ms = payment.gone_since_ms
    if order.is_money_out:
        message.hold_level, message.hold_why = _LEVELS[payment.hold_level], payment.hold_why
    if payment.diagnosis is not None and payment.htlc in {HtlcState.NONE, HtlcState.FAILED}:
        message.cause = _CAUSES[payment.diagnosis.cause]
    if payment.preimage is not None:
        message.preimage = payment.preimage
    if payment.dispatch_at_ms is not None and not order.is_closed and order.giving_up is None:
        message.next_dispatch_at_ms = payment.dispatch_at_ms


def add_tries(message: pb.Request, tries: Sequence[Sequence[Dispatched]]) -> pb.Request:
    """The dispatches of each of its orders, which its other parts do not have."""
    for order, of_order in zip(message.orders, tries, strict=True):
        order.tries.extend(_dispatch_to_pb(each) for each in of_order)
    return message


def _dispatch_to_pb(dispatched: Dispatched) -> pb.Dispatch:
    record = dispatched.record
    return pb.Dispatch(
        n=record.n,
        at_ms=record.at_ms,
        fee_limit_msat=record.fee_limit_msat,
        failed_at_ms=record.failed_at_ms,
        failure_reason=record.failure_reason or "",
        failure_class=record.failure_class or "",
        cause=_CAUSES[record.cause] if record.cause else pb.CAUSE_UNSPECIFIED,
        diagnosis=record.diagnosis or "",
        attempts=[_attempt_to_pb(attempt) for attempt in dispatched.attempts],
    )


def _attempt_to_pb(attempt: Attempt) -> pb.HtlcAttempt:
    hop = None
    if attempt.status is AttemptStatus.FAILED:
        hop = FailedHop(
            place=attempt.failure_source_index,
            pubkey=attempt.failed_hop,
            channel=attempt.failed_channel,
            code=attempt.failure_code,
            is_payee=attempt.failed_at_payee,
        )
    return pb.HtlcAttempt(
        status=attempt.status,
        amount_msat=attempt.amount_msat,
        fee_msat=attempt.fee_msat,
        expiry_height=attempt.expiry_height,
        attempted_at_ms=attempt.attempted_at_ms,
        resolved_at_ms=attempt.resolved_at_ms,
        first_hop=attempt.first_hop or "",
        first_channel=attempt.first_channel or "",
        failed_place=None if hop is None else hop.place,
        failed_hop=attempt.failed_hop or "",
        failed_channel=attempt.failed_channel or "",
        failure_code=attempt.failure_code,
        failure="" if hop is None else hop.in_words,
    )


def money_out_to_pb(order: Order, policy: Policy, now_ms: int, sight: Sight) -> pb.MoneyOut:
    """An order with money out, for GetStatus."""
    assert order.payment is not None
    blocks_left = sight.blocks_left(order.payment)
    found = findings(order, policy, now_ms, sight)
    return pb.MoneyOut(
        request_id=order.request.id,
        locked_msat=order.locked_msat,
        since_ms=order.payment.money_out_since_ms or order.payment.htlc_since_ms,
        promise_until_ms=promise_until_ms(order, policy),
        expiry_height=sight.expiry_height(order.payment),
        blocks_left=blocks_left,
        hours_left=None if blocks_left is None else hours(blocks_left),
        phase=phase(order),
        next=explain(order, policy, now_ms, block_height=sight.block_height).next,
        alarms=[finding.text for finding in found],
        level=_LEVELS[level_of(found)],
        htlcs=[_htlc_to_pb(htlc) for htlc in sight.htlcs],
    )


def _htlc_to_pb(htlc: HtlcSight) -> pb.HtlcOut:
    return pb.HtlcOut(
        channel=htlc.channel,
        peer_pubkey=htlc.peer_pubkey,
        peer_alias=htlc.peer_alias,
        peer_online=htlc.is_online,
        peer_offline_since_ms=htlc.offline_since_ms,
        on_channel=htlc.is_on_channel,
        expiry_height=htlc.expiry_height,
    )


def update_to_pb(update: Update, policy: Policy, queue: Queue | None) -> pb.RequestUpdate:
    """One journal row."""
    return pb.RequestUpdate(
        cursor=update.cursor,
        at_ms=update.at_ms,
        event=update.event,
        request=request_to_pb((*update.earlier, update.order), policy, update.at_ms, update.cursor, queue=queue),
    )


UPDATES_BYTES = 2 * 1024 * 1024
"""Of updates in one message: gRPC's clients take 4 MiB, and one update has ITEMS_BYTES of what may be long."""


def in_few(updates: Iterable[pb.RequestUpdate]) -> Iterator[pb.RequestUpdates]:
    """All of them in one message, or in as many as clients need. An update that comes alone costs the daemon and its
    client 0.1 ms each, whatever is in it."""
    told: list[pb.RequestUpdate] = []
    size = 0
    for update in updates:
        size += update.ByteSize()
        if told and size > UPDATES_BYTES:
            yield pb.RequestUpdates(updates=told)
            told, size = [], update.ByteSize()
        told.append(update)
    if told:
        yield pb.RequestUpdates(updates=told)


def holds_to_pb(places: Places, tally: Tally, queue: Sequence[Order], policy: Policy) -> pb.Holds:
    """``queue``: the first of those that wait."""
    return pb.Holds(
        orders=tally.placed,
        max_orders=places.caps.max_orders,
        locked_msat=tally.placed_msat,
        max_locked_sat=places.caps.max_locked_sat,
        waiting=places.waiting,
        queue=[
            pb.WaitingOrder(
                request_id=order.request.id,
                since_ms=order.waiting_since_ms,
                until_ms=order.waiting_since_ms + policy.hold_max_wait_s * 1000,
            )
            for order in queue
            if order.waiting_since_ms is not None
        ],
    )


def country_to_pb(country: CountryInfo) -> pb.Country:
    return pb.Country(
        code=country.code,
        name=country.name,
        aliases=country.aliases,
        rentals=country.has_rentals,
        shown=country.is_shown,
    )


def service_to_pb(service: ServiceInfo) -> pb.Service:
    return pb.Service(code=service.code, name=service.name, stock=service.stock)


def prices_to_pb(prices: Prices) -> pb.GetPricesResponse:
    return pb.GetPricesResponse(
        receive_sat=prices.receive_sat,
        send_sat=prices.send_sat,
        rent_from_sat=prices.rent_from_sat,
        real_phone_sat=prices.real_phone_sat,
        exact_sat=prices.exact_sat,
        asked_at_ms=prices.asked_at_ms,
    )


def balance_to_pb(balance: Balance) -> pb.GetAccountResponse:
    return pb.GetAccountResponse(balance_sat=balance.balance_sat, asked_at_ms=balance.asked_at_ms)


def funding_to_pb(funding: Funding, *, with_preimages: bool) -> pb.ListFundingResponse:
    entries = [
        pb.FundingEntry(
            amount_sat=entry.amount_sat,
            price_sat=entry.price_sat,
            created_at_ms=entry.created_at_ms,
            description=entry.description,
            payment_hash=entry.payment_hash,
            preimage=entry.preimage if with_preimages else "",
        )
        for entry in funding.entries
    ]
    return pb.ListFundingResponse(total_sat=funding.total_sat, entries=entries)


def node_to_pb(status: NodeStatus) -> pb.LndStatus:
    return pb.LndStatus(
        state=status.state.value,
        detail=status.detail,
        version=status.version,
        identity_pubkey=status.identity.pubkey if status.identity else "",
        alias=status.alias,
        network=status.identity.network if status.identity else "",
        block_height=status.block_height,
        synced_to_chain=status.synced_to_chain,
        address=status.address,
        local_balance_sat=status.local_balance_sat,
        answered_at_ms=status.answered_at_ms,
    )
