"""An order in plain words: what happened, where the money is, until which block height, what happens next."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from holdpay.core.amounts import minutes, sat
from holdpay.core.charge import Charge, ChargeState
from holdpay.core.duties import wants_look
from holdpay.core.hold import is_dispatch_planned, was_never_sent, why_given_up
from holdpay.core.lightning import FailureReason
from holdpay.core.machine import may_be_canceled, promise_until_ms
from holdpay.core.model import Order, Payment
from holdpay.core.policy import Policy, latest_expiry_height
from holdpay.core.states import End, FailureClass, HtlcState, OrderState
from holdpay.core.tables import phase


@dataclass(frozen=True, slots=True)
class Explanation:
    """Three sentences or so each."""

    summary: str
    money: str
    next: str


def _soon(duration_ms: int) -> str:
    return f"in {minutes(duration_ms)}" if duration_ms >= 1000 else "now"


class Beside(StrEnum):
    """Why an open order takes no place among the open ones, though it is not over: no HTLC of it is out."""

    DUE = "due"
    """Paid for, and what was ordered is not here yet."""
    FOLLOWED = "followed"
    """Paid for and here, and more may come."""
    PERHAPS_CHARGED = "perhaps charged"
    RETURNING = "returning"
    """Over, and the price goes back to the account."""


def beside(order: Order) -> Beside | None:
    """None: it takes one, or it is closed."""
    if order.is_closed:
        return None
    if order.charge is not None and order.charge.state is not ChargeState.CHARGED:
        return _BESIDE.get(order.charge.state)
    if order.charge is None and order.htlc is not HtlcState.SETTLED:
        return None
    return Beside.FOLLOWED if order.state is OrderState.DELIVERED else Beside.DUE


_BESIDE = {ChargeState.UNKNOWN: Beside.PERHAPS_CHARGED, ChargeState.RETURNED: Beside.RETURNING}


def explain(
    order: Order, policy: Policy, now_ms: int, lnd_trouble: str = "", block_height: int = 0, held_up_by: str = ""
) -> Explanation:
    """The order as it stands. ``lnd_trouble``: why lnd cannot be asked now; empty: it can. ``block_height``: the latest
    that lnd has named; 0: none yet. ``held_up_by``: what the latest look at the channels found in the way of its end.
    """
    money, follows = _money(order, policy, block_height), _next(order, policy, now_ms, block_height)
    if held_up_by and not order.is_closed:
        follows = f"{follows} Now this is in the way: {held_up_by.rstrip('.')}."
    if lnd_trouble and order.is_money_out:
        money = f"{money} lnd cannot be asked now: {lnd_trouble}"
    elif lnd_trouble and not held_up_by and _is_waiting_for_lnd(order):
        follows = f"{follows} lnd cannot be used now: {lnd_trouble}"
    return Explanation(f"{_summary(order)}{_of_the_reply(order)}", money, follows)


def _of_the_reply(order: Order) -> str:
    """What a person has to know of odd replies: nothing that was delivered, but where it is shown."""
    show = f"`holdpay orders show {order.id}`"
    said = []
    if order.unread and not order.is_delivered:
        said.append(f"The provider's reply could not be read; it is shown by {show}.")
    elif order.unread:
        said.append(f"Besides, a reply of the provider could not be read whole; it is shown by {show}.")
    if order.later_codes:
        said.append(f"The provider sent more than one code: the first counts, and {show} shows all.")
    if order.earlier_numbers:
        said.append(f"The provider replaced the number: the latest counts, and {show} shows all.")
    return "".join(f" {sentence}" for sentence in said)


def _is_waiting_for_lnd(order: Order) -> bool:
    """Nothing is out, and lnd has to read the hold invoice or to pay it."""
    is_to_be_read = order.payment is None and order.payreq is not None and not order.is_closed
    return is_to_be_read or is_dispatch_planned(order)


_ENDS = {
    End.FULFILLED: "{got}, and paid for.",
    End.FULFILLED_FREE: "{got}, and nothing was charged.",
    End.REFUNDED: "{thing} did not come, and the money came back.",
    End.CANCELED_UNPAID: "It was canceled before anything was paid.",
    End.INVOICE_REJECTED: "Nothing was paid.",
    End.PROVIDER_REFUSED: "Nothing was ordered, and nothing was paid.",
    End.NO_PLACE: "It waited in vain for a place among the holds; nothing was ordered, and nothing was spent.",
    End.PAYMENT_FAILED: "No payment got through, so nothing was spent.",
    End.CHARGED_UNFULFILLED: "It was charged, and {thing} never came.",
    End.OUTCOME_UNKNOWN: "{thing} did not come, and nobody can say whether it was charged; it counts as spent.",
}


_PERHAPS_PAID = "{got}, and counts as paid for: nobody can say whether it is."


def end_words(order: Order) -> str:
    """One sentence how a closed order ended."""
    assert order.end is not None
    words = order.spec.words
    is_proven = order.htlc is not HtlcState.GONE and (
        order.charge is None or order.charge.state is not ChargeState.UNKNOWN
    )
    ending = _ENDS[order.end] if order.end is not End.FULFILLED or is_proven else _PERHAPS_PAID
    text = ending.format(got=words.got, thing=words.thing)
    return text[0].upper() + text[1:]


_LOST = (
    " Its record was lost and rebuilt from lnd's payment by `holdpayd recover`: who asked for it, its key and its"
    " limits, and when what was ordered came, are not known."
)


_RESTORED = " It was restored from a copy of the database: what happened between the copy and then is not recorded."


def _summary(order: Order) -> str:
    told = _LOST if order.is_recovered else "" if order.restored_at_ms is None else _RESTORED
    nth = f", which is number {order.nth} of its request," if order.nth > 1 else ""
    head = f"Order {order.id}{nth} is for {order.spec.what}.{told}"
    if order.end is not None:
        because = f" Why: {order.reason.rstrip('.')}." if order.reason else ""
        erased = "" if order.erased_at_ms is None else " What was delivered was erased since."
        return f"{head} It is closed. {end_words(order)}{because}{erased}"
    if order.is_quarantined:
        whose = "" if order.is_perhaps_placed else " holdpayd contradicted itself about it, so it is watched and"
        return (
            f"{head} It is quarantined: {order.quarantine_reason.rstrip('.')}.{whose or ' It is watched and'}"
            " nothing is paid for it any more; the other orders go on."
        )
    return f"{head} It is open: {phase(order)}."


def _money_without_invoice(order: Order) -> str:
    if order.is_closed:
        return "No money was sent: there is no hold invoice that could be paid."
    if order.is_perhaps_placed:
        return "No payment is recorded; one may have been sent after the copy was made."
    return "No money was sent."


def _money(order: Order, policy: Policy, block_height: int) -> str:
    payment = order.payment
    if order.request.is_prepaid:
        return _money_of_charge(order.charge)
    if payment is None:
        return _money_without_invoice(order)
    amount = sat(payment.amount_msat)
    if payment.is_paid_before:
        return (
            f"Nothing was spent for this order: your node had paid its hold invoice before, {amount} and"
            f" {sat(payment.fee_msat)} routing fee. The preimage that proves it is stored."
        )
    if payment.htlc is HtlcState.SETTLED:
        return (
            f"{sat(order.spent_msat)} were spent: {amount} for the order and {sat(payment.fee_msat)} routing fee."
            f" The preimage that proves it is stored."
        )
    if payment.htlc is HtlcState.GONE:
        return (
            f"No HTLC is out. Nobody can say whether it was spent: up to {sat(order.spent_msat)} may have been, and are"
            " counted so."
        )
    if order.is_money_out:
        return _money_out(payment, latest_expiry_height(payment, policy), block_height)
    if payment.htlc is HtlcState.FAILED:
        return _money_back(payment)
    if payment.dispatch_count:
        return f"Nothing was spent: lnd twice knew nothing of the payment of {amount}, so it was never sent."
    return f"Nothing was sent. The hold invoice asks {amount}."


def _money_of_charge(charge: Charge | None) -> str:
    if charge is None:
        return "Nothing was taken from the prepaid account."
    amount = sat(charge.amount_sat * 1000)
    return {
        ChargeState.INTENDED: f"{amount} are being taken from the prepaid account.",
        ChargeState.UNKNOWN: (
            f"Perhaps {amount} were taken from the prepaid account: the provider's reply was lost. They count as spent."
        ),
        ChargeState.CHARGED: f"{amount} were taken from the prepaid account, as the price was quoted.",
        ChargeState.REFUSED: "Nothing was taken from the prepaid account.",
        ChargeState.RETURNED: f"{amount} were taken from the prepaid account and go back to it, says the provider.",
    }[charge.state]


def _money_back(payment: Payment) -> str:
    amount = sat(payment.amount_msat)
    reason = payment.failure.reason if payment.failure is not None else FailureReason.NONE
    if reason is FailureReason.BY_OPERATOR:
        return f"Nothing was spent, by the word of an operator: the payment of {amount} failed."
    if reason is FailureReason.NEVER_SENT:
        return (
            f"Nothing was spent: after its expiry height no channel carried the HTLC over {amount}, and the provider"
            " never saw it, so it never left your node."
        )
    return f"Nothing was spent: lnd reported the payment of {amount} as failed, so the whole sum is back."


def _money_out(payment: Payment, until_height: int | None, block_height: int) -> str:
    amount = sat(payment.amount_msat)
    if payment.gone_since_ms is not None:
        return _money_of_a_lost_record(amount, until_height, block_height)
    if payment.htlc is not HtlcState.IN_FLIGHT:
        limit = sat(payment.amount_msat + payment.fee_limit_msat)
        return f"Up to {limit} may be on their way; only lnd can say, and it is being asked."
    if _is_past(payment.expiry_height, block_height):
        return (
            f"lnd calls the payment of {amount} in flight, and the expiry height {payment.expiry_height:,} of its HTLC"
            f" has passed (the chain is at block {block_height:,}), so no HTLC of it should be left."
        )
    height = f" at block height {payment.expiry_height:,}" if payment.expiry_height else " at the HTLC's expiry height"
    fee = f"a fee of {sat(payment.fee_msat)}" if payment.fee_msat else f"up to {sat(payment.fee_limit_msat)} fee"
    return (
        f"{amount} and {fee} are locked in an HTLC of your node. It ends when the provider settles or"
        f" cancels the hold invoice, or{height}; nothing on your side can call it back earlier."
    )


def _is_past(expiry_height: int | None, block_height: int) -> bool:
    return expiry_height is not None and block_height > expiry_height


def _money_of_a_lost_record(amount: str, until_height: int | None, block_height: int) -> str:
    lost = (
        f"lnd has lost its record of the payment of {amount}: it was deleted after it had ended, as a rule, or lnd's"
        " database was set back."
    )
    if until_height is None or not block_height:
        return f"{lost} An HTLC of it may be out still."
    until = f"until block height {until_height:,}"
    if _is_past(until_height, block_height):
        return f"{lost} An HTLC of it could be out {until}, which has passed (the chain is at block {block_height:,})."
    return f"{lost} An HTLC of it can be out {until}; the chain is at {block_height:,}."


_UNTIL_NO_CHANNEL = (
    "The node's channels are looked at, also those being closed; the order closes when none has carried the HTLC for a"
    " while."
)


def _next(order: Order, policy: Policy, now_ms: int, block_height: int) -> str:
    if order.is_going_on:
        return "The request's next order is being made, since nothing was spent for this one."
    if order.is_closed:
        return _after_the_end(order)
    if order.is_quarantined:
        return _next_in_quarantine(order)
    if order.moved_on is not None and order.cancel_at_ms is not None:
        return (
            f"The provider is asked to cancel {_soon(order.cancel_at_ms - now_ms)}, since {order.moved_on}; what comes"
            " first wins. Once the money is back the request goes on, if its strategy says so."
        )
    if order.cancel_wanted_at_ms is not None and order.cancel_at_ms is not None:
        return f"The provider is asked to cancel {_soon(order.cancel_at_ms - now_ms)}; what comes first wins."
    if order.charge is not None:
        return _next_of_charge(order, order.charge, policy, now_ms)
    if order.payment is None:
        return _next_before_payment(order, policy, now_ms)
    if wants_look(order, policy, block_height, now_ms):
        return _UNTIL_NO_CHANNEL
    if order.payment.gone_since_ms is not None and order.is_money_out:
        return f"Nothing is sent again. Once no HTLC of it can be out any more: {_UNTIL_NO_CHANNEL}"
    until_ms = promise_until_ms(order, policy)
    return {
        HtlcState.NONE: _next_payment(order, order.payment, policy, now_ms),
        HtlcState.FAILED: _next_payment(order, order.payment, policy, now_ms),
        HtlcState.DISPATCHING: "lnd is asked until it knows. Nothing is sent a second time meanwhile.",
        HtlcState.UNKNOWN: "lnd is asked until it knows. Nothing is sent a second time meanwhile.",
        HtlcState.IN_FLIGHT: _next_in_flight(order, until_ms, now_ms),
        HtlcState.GONE: "The order closes now.",
        HtlcState.SETTLED: _next_settled(order, policy),
    }[order.payment.htlc]


def _next_of_charge(order: Order, charge: Charge, policy: Policy, now_ms: int) -> str:
    if charge.state is ChargeState.UNKNOWN:
        return (
            "It is not ordered again. The account's balance is asked for: if it is what it was before, nothing was"
            f" spent. Otherwise look at it, and say how it ended with `holdpayd resolve {order.id}`."
        )
    if charge.state is ChargeState.RETURNED:
        until_ms = charge.since_ms + policy.close_unpaid_after_s * 1000
        return f"What comes all the same is handed over; otherwise the order closes {_soon(until_ms - now_ms)}."
    if charge.state is not ChargeState.CHARGED:
        return _next_before_payment(order, policy, now_ms)
    return _next_settled(order, policy) if order.state is OrderState.DELIVERED else order.spec.comes_next(order)


def _next_settled(order: Order, policy: Policy) -> str:
    if order.state is OrderState.DELIVERED:
        return order.spec.after_delivery(order)
    return (
        f"The provider is asked for {order.spec.words.thing} for up to {minutes(policy.settled_grace_s * 1000)}. If it"
        f" does not come, write to its support with the preimage (`holdpay orders show {order.id}`)."
    )


def _next_in_quarantine(order: Order) -> str:
    if order.is_perhaps_placed and was_never_sent(order):
        return (
            "Nothing more is done. If `holdpayd check` shows no payment that the journal does not know, nothing was"
            f" paid for it: `holdpay orders cancel {order.id}` closes it, and you can order again."
        )
    todo = f"Please report it, with what `holdpayd check` says of it (`holdpay orders explain {order.id}`)."
    if was_never_sent(order):
        return f"Nothing more is done. {todo} `holdpay orders cancel {order.id}` closes it: nothing was sent."
    return (
        "lnd and the provider are still asked: what comes is handed over. The order never closes by itself:"
        f" `holdpayd resolve {order.id}` ends it once you know where the money is. {todo}"
    )


def _next_before_payment(order: Order, policy: Policy, now_ms: int) -> str:
    if order.waiting_since_ms is not None:
        until_ms = order.waiting_since_ms + policy.hold_max_wait_s * 1000
        return (
            "It is placed as soon as enough holds have ended, the oldest order first; its time to pay begins then. If"
            f" that is not within {minutes(until_ms - now_ms)}, it closes and nothing is spent."
            f" `holdpay orders cancel {order.id}` ends it at once."
        )
    if order.place_count and order.state is OrderState.REQUESTED:
        wait = _soon(order.place_at_ms - now_ms)
        return f"The order is placed again {wait}; the last try failed ({(order.provider_text or '').rstrip('.')})."
    if order.payreq is not None:
        return "lnd reads the hold invoice next; it is checked before anything is paid."
    if order.request.is_prepaid:
        return "The order is being placed; the price is taken from the prepaid account."
    return "The order is being placed; the hold invoice is checked before anything is paid."


def _next_in_flight(order: Order, until_ms: int | None, now_ms: int) -> str:
    if order.state is OrderState.CANCELED:
        return "The HTLC comes back when the provider's node fails it, in seconds as a rule. Nothing needs to be done."
    if order.state is OrderState.DELIVERED:
        return "The provider settles the hold invoice, and the order closes."
    if order.state is OrderState.AWAITING_PAYMENT:
        return (
            f"The payment has to reach the provider's node. {order.spec.comes_next(order)} A payment that is stuck"
            " comes back by itself, at its expiry height at the latest. Nothing is sent a second time meanwhile."
        )
    head = order.spec.comes_next(order)
    if until_ms is None and order.spec.has_promise:
        return head
    if until_ms is None:
        cancel = f" `holdpay orders cancel {order.id}` asks for the money back." if may_be_canceled(order) else ""
        return f"{head} The provider promises no time for it.{cancel} At its expiry height the HTLC ends."
    if now_ms >= until_ms:
        return f"{head} The provider's promise has passed: write to its support. At its expiry height the HTLC ends."
    return (
        f"{head} If it does not come, the provider promises to return the money within {minutes(until_ms - now_ms)};"
        f" `holdpay orders cancel {order.id}` asks for it earlier."
    )


def failure_words(payment: Payment) -> str:
    """Why the latest dispatch failed, for people. Empty: it did not."""
    if payment.failure is None or payment.htlc is not HtlcState.FAILED:
        return ""
    if payment.diagnosis is not None and not payment.reached_payee:
        return payment.diagnosis.text
    why = payment.failure.reason.in_words
    if payment.failure.failure_class is FailureClass.ROUTING:
        return f"an HTLC failed at a hop on its way, and {why}"
    if payment.failure.failure_class is FailureClass.NO_ATTEMPT and payment.failure.reason is FailureReason.NO_ROUTE:
        return f"nothing was sent: {why}, or lnd avoids a hop that failed lately"
    return why


def trouble(order: Order) -> str:
    """One sentence why an order ended as it did, or what is wrong with it now. Empty: nothing."""
    if order.reason or order.giving_up:
        return order.reason or why_given_up(order)
    return failure_words(order.payment) if order.payment is not None else ""


def _next_payment(order: Order, payment: Payment, policy: Policy, now_ms: int) -> str:
    if order.state is not OrderState.AWAITING_PAYMENT:
        return "Nothing is paid again. The provider is asked until it says what became of the order."
    if order.giving_up is not None:
        return f"No further payment is tried ({why_given_up(order)}); the order closes once the provider confirms."
    if payment.dispatch_count == 0 or payment.dispatch_at_ms is None:
        return "The payment is sent next."
    hint = " A fee limit of 0 finds few routes: order with a higher one." if order.max_fee_sat == 0 else ""
    if payment.failure is not None and payment.failure.failure_class is FailureClass.ROUTING:
        hint += " lnd itself avoids a hop that failed for about three minutes."
    wait = _soon(payment.dispatch_at_ms - now_ms)
    why = failure_words(payment) or "it did not reach lnd"
    return (
        f"Try {payment.dispatch_count} of at most {policy.max_dispatches} failed: {why}. The payment is tried again"
        f" {wait}, with a fee limit of {sat(payment.fee_limit_msat)}, once the provider confirms that it is unpaid; the"
        f" last try begins within {minutes(order.pay_by_ms - now_ms)}.{hint}"
    )


def _after_the_end(order: Order) -> str:
    if order.end in {End.FULFILLED, End.FULFILLED_FREE}:
        return "Nothing: the order is done."
    if order.end is End.OUTCOME_UNKNOWN:
        return (
            "Compare your node's balance, or ask the provider's support with the order id from"
            f" `holdpay orders show {order.id}`, if you want to know. Order again if you still need it."
        )
    if order.end is End.CHARGED_UNFULFILLED:
        proof = "the preimage" if order.charge is None else "what the account's history shows, or the order id"
        return f"Write to the provider's support with {proof} from `holdpay orders show {order.id}`."
    if order.end is End.NO_PLACE:
        return "Look at the reason; order again when there is room (`holdpay status`), or change the configuration."
    if order.end is End.PAYMENT_FAILED:
        return (
            "See `holdpay status` for your outbound balance; a higher fee limit, or a channel to the provider's node,"
            " helps if it happens often. Then order again."
        )
    if order.end is End.INVOICE_REJECTED:
        return (
            "Look at the reason. If the provider's price rose since it was quoted, order again: the new quote counts."
            " If the payee is another one, order nothing until you know why."
        )
    if order.end is End.PROVIDER_REFUSED:
        return "Order again later, or something else."
    return "Nothing is owed either way. Order again if you still need it."
