"""`holdpayd resolve`: an operator says how a payment ended where LND cannot any more, whether the prepaid account was
charged where the provider's reply was lost, or ends a quarantined order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from holdpay.app import lnd_settings
from holdpay.audit.against_lnd import is_of_node
from holdpay.audit.database import is_there
from holdpay.audit.laws import is_hash
from holdpay.audit.recover import database_path
from holdpay.clock import SystemClock
from holdpay.config import Settings
from holdpay.core.charge import PERHAPS_CHARGED, Charge, ChargeState
from holdpay.core.events import Resolution, Resolved
from holdpay.core.explain import explain
from holdpay.core.hold import misfit
from holdpay.core.lightning import (
    AttemptStatus,
    HtlcLook,
    LndMessage,
    Lost,
    NodeIdentity,
    NotKnown,
    PaymentStatus,
    Reported,
    preimage_fits,
)
from holdpay.core.machine import decide
from holdpay.core.model import Order, Payment
from holdpay.core.policy import Policy, latest_expiry_height
from holdpay.core.states import HtlcState, OrderState
from holdpay.errors import ConfigError, HoldpayError, LndError
from holdpay.lnd.ledger import LndLedger
from holdpay.lock import StateLock
from holdpay.store.store import SqliteStore

START: Final = "Start holdpayd: it records that by itself."


class ResolveRefused(HoldpayError):
    """LND can still say how the payment ended, or there is nothing to resolve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LndView:
    """What lnd says of one payment now.

    ``node``: who answers; None: nobody. ``said``: the first word of Track, where ``node`` is the one that paid.
    ``look``: what its channels say; None: they could not be looked at. ``trouble``: why something is missing here.
    """

    node: NodeIdentity | None = None
    said: LndMessage | None = None
    look: HtlcLook | None = None
    trouble: str = ""


@contextmanager
def books(settings: Settings) -> Iterator[SqliteStore]:
    """The daemon's database, for as long as no daemon has it. Raises ResolveRefused, AlreadyRunning, StoreError."""
    path = database_path(settings)
    if not is_there(path):
        raise ResolveRefused(f"There is no database {path}. See that --config names the daemon's configuration.")
    with StateLock(settings.daemon.state_dir), closing(SqliteStore(path)) as store:
        yield store


def payment_of(order: Order) -> Payment | None:
    """The payment that can be resolved; None: a quarantined order, or one that is paid from the account, has none.

    Raises ResolveRefused if the order is closed, or ends by itself.
    """
    if order.is_closed or not (order.is_money_out or _is_perhaps_charged(order) or order.is_quarantined):
        raise ResolveRefused(
            f"No money of order {order.id} is out, so there is nothing to resolve."
            f" `holdpay orders explain {order.id}` says how it stands."
        )
    return order.payment


def _is_perhaps_charged(order: Order) -> bool:
    return order.charge is not None and order.charge.state in PERHAPS_CHARGED


async def look(settings: Settings, clock: SystemClock, payment: Payment | None) -> LndView:
    """Asks lnd about the payment, and its channels about the HTLC. What could not be asked is left out."""
    view = LndView()
    if payment is None:
        return view
    try:
        async with LndLedger(lnd_settings(settings), clock) as ledger:
            view = LndView(node=await ledger.identity())
            if view.node is None or not is_of_node(payment, view.node):
                return view
            view = replace(view, said=await ledger.payment(payment.payment_hash))
            return replace(view, look=await ledger.look_for_htlc(payment.payment_hash))
    except LndError as error:
        return replace(view, trouble=error.message)
    except ConfigError as error:
        # A node that is gone may have taken its certificate along.
        return replace(view, trouble=" ".join(error.problems))


# --- what is known --------------------------------------------------------------------------------------------------


def known(order: Order, view: LndView, policy: Policy, now_ms: int) -> Iterator[str]:
    """What an operator should know before he says anything, a line each."""
    payment = payment_of(order)
    words = explain(order, policy, now_ms, block_height=view.look.block_height if view.look else 0)
    yield words.summary
    yield words.money
    if order.charge is not None:
        yield from _known_of_the_charge(order, order.charge)
    if payment is None:
        return
    if order.is_quarantined:
        yield f"Recorded: the order is {_plain(order.state)}, its payment {_plain(order.htlc)}."
    yield f"It was paid from node {payment.node_pubkey[:16]}… on {payment.node_network}."
    yield f"lnd: {_view_words(view)}"


def _known_of_the_charge(order: Order, charge: Charge) -> Iterator[str]:
    yield f"Recorded: the order is {_plain(order.state)}, its charge of the prepaid account {_plain(charge.state)}."
    at = datetime.fromtimestamp(charge.intended_at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    before = "was not known" if charge.balance_before_sat is None else f"was {charge.balance_before_sat:,} sat"
    yield (
        f"It was placed at {at} UTC for {charge.amount_sat:,} sat, and the balance {before} right before."
        " Compare that with the balance now, and with what else was ordered since."
    )


def _plain(state: OrderState | HtlcState | ChargeState) -> str:
    return state.value.replace("_", " ")


def _view_words(view: LndView) -> str:
    if view.node is None:
        return f"it could not be asked. {view.trouble}"
    if view.said is None:
        return f"node {view.node.pubkey[:16]}… answers, which is another one and knows nothing of it."
    if view.look is None:
        return f"{_said_words(view.said)}; its channels could not be looked at. {view.trouble}"
    carried = view.look.holds_up or "no channel carries its HTLC"
    return f"{_said_words(view.said)}; {carried}; the chain is at block {view.look.block_height:,}."


def _said_words(said: LndMessage) -> str:
    if isinstance(said, Reported):
        return f"the payment is {said.update.status.value.replace('_', ' ')}"
    return "it has no record of the payment" if isinstance(said, NotKnown) else "it did not say"


# --- whether a person may say it --------------------------------------------------------------------------------------


def objection(order: Order, view: LndView, event: Resolved, policy: Policy, *, is_node_retired: bool) -> str:
    """Why the operator's word is not taken: one sentence what stands against it, one what to do. Empty: nothing."""
    payment = payment_of(order)
    if order.is_quarantined and order.charge is None and (why_not := misfit(order, event)):
        return f"{why_not} Say what fits it: see `holdpayd resolve --help`."
    if why_not := _objection_to_the_proof(order, event):
        return why_not
    if payment is None:
        return ""
    if view.said is not None:
        if is_node_retired:
            return "The node that paid answers at lnd.address. Leave out --node-retired."
        if order.is_quarantined:
            return _objection_in_quarantine(payment, view.said, view, event, policy)
        return _objection_of_the_payer(payment, view.said, view, event, policy)
    if is_node_retired:
        return ""
    retired = f"If node {payment.node_pubkey[:16]}… is gone for good, say so with --node-retired."
    if view.node is None:
        return f"lnd cannot be asked, and may still know how the payment ended: {view.trouble} {retired}"
    return f"Another node paid, and may still know how the payment ended. Point lnd.address at it. {retired}"


def _objection_to_the_proof(order: Order, event: Resolved) -> str:
    """A preimage goes with the settling of a hold invoice, and only with it."""
    if order.payment is None:
        without = "It has no hold invoice, so there is no preimage. Say --settled without one."
        return without if event.preimage is not None else ""
    if event.resolution is not Resolution.SETTLED or _fits(event.preimage, order.payment.payment_hash):
        return ""
    if event.preimage is None:
        return "It was paid by a hold invoice: only a preimage proves that it is spent. Say --settled PREIMAGE."
    return "The preimage does not fit the payment hash of the order. Give the 64 hex digits of the right one."


def _objection_of_the_payer(payment: Payment, said: LndMessage, view: LndView, event: Resolved, policy: Policy) -> str:
    if isinstance(said, Reported) and said.update.is_terminal:
        return f"lnd says how it ended: {_said_words(said)}. {START}"
    if not isinstance(said, Reported | NotKnown):
        trouble = said.text if isinstance(said, Lost) else ""
        return f"lnd did not say what became of the payment: {trouble} Run this again."
    if isinstance(said, NotKnown) and not payment.is_known_to_lnd:
        return f"lnd never had the payment, as it says now. {START}"
    if view.look is None:
        return f"lnd's channels could not be looked at: {view.trouble}"
    return _objection_of_the_channels(payment, said, view.look, event, policy)


def _objection_in_quarantine(payment: Payment, said: LndMessage, view: LndView, event: Resolved, policy: Policy) -> str:
    """As of any other order, but that holdpayd may not be able to record what lnd says: then the operator says it."""
    if isinstance(said, Reported) and said.update.is_terminal:
        is_failed = said.update.status is PaymentStatus.FAILED
        if event.resolution is Resolution.SETTLED or (is_failed and event.resolution is Resolution.FAILED):
            return ""
        return f"lnd says how it ended: {_said_words(said)}. Say {'--failed' if is_failed else '--settled PREIMAGE'}."
    if isinstance(said, NotKnown) and view.look is not None and not view.look.is_in_channel:
        is_height_known = latest_expiry_height(payment, policy) is not None
        # lnd never had it; or nobody can say any more until when to wait, and it counts as spent.
        if not payment.is_known_to_lnd or (not is_height_known and event.resolution is Resolution.WRITTEN_OFF):
            return ""
    if payment.expiry_height is None and isinstance(said, Reported):
        out = [a.expiry_height for a in said.update.attempts if a.status is not AttemptStatus.FAILED]
        payment = replace(payment, expiry_height=max(out, default=None))
    return _objection_of_the_payer(payment, said, view, event, policy)


def _objection_of_the_channels(
    payment: Payment, said: LndMessage, look: HtlcLook, event: Resolved, policy: Policy
) -> str:
    if look.is_in_channel:
        return "A channel carries the HTLC. Only the payee or the chain ends it; holdpayd records how."
    if isinstance(said, NotKnown) and event.resolution is Resolution.SETTLED:
        return ""  # the preimage is the proof
    until_height = latest_expiry_height(_with_a_height(payment, look), policy)
    if until_height is None or look.block_height <= until_height:
        until = f" until block {until_height:,}" if until_height is not None else ""
        return f"An HTLC of it can be out{until}; the chain is at block {look.block_height:,}. Wait for that."
    if look.is_maybe_closing and event.resolution is Resolution.FAILED:
        return (
            "A channel is being closed that may carry its HTLC, so nobody can say that the money is back."
            " Wait for that channel, or write it off."
        )
    return ""


def _with_a_height(payment: Payment, look: HtlcLook) -> Payment:
    """Where nobody has looked at the channels yet, an HTLC's longest life is counted from now on."""
    if payment.first_look_height is not None or not look.is_synced:
        return payment
    return replace(payment, first_look_height=look.block_height)


def _fits(preimage: str | None, payment_hash: str) -> bool:
    return preimage is not None and is_hash(preimage) and preimage_fits(preimage, payment_hash)


def record(store: SqliteStore, order: Order, event: Resolved, policy: Policy, now_ms: int) -> Order:
    """Writes the operator's word into the journal and what follows from it. Returns the order as it is then."""
    step = decide(order, event, policy, now_ms)
    if not step.order.is_closed and step.order.htlc is order.htlc:
        raise ResolveRefused(f"Order {order.id} has no payment that could be resolved so. Nothing was written.")
    store.commit(order, event, step, None, now_ms)
    return step.order


def outcome(order: Order) -> str:
    """One sentence about what was written."""
    if order.htlc is HtlcState.SETTLED and not order.is_closed:
        return f"Order {order.id} is settled; holdpayd goes on asking for {order.spec.words.thing}. Start it."
    return (
        f"Order {order.id} is closed: {order.end.value.replace('_', ' ') if order.end else ''}. Start holdpayd again."
    )
