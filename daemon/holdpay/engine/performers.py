"""The duties: each does the I/O for one order and posts what happened as events. None of them decides anything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from holdpay.core import events as ev
from holdpay.core.charge import ChargeState
from holdpay.core.duties import (
    Dispatch,
    Duty,
    Place,
    Track,
    Vet,
    duties,
    next_payment_action,
    retrack_at_ms,
    spec_of,
    wants_look,
)
from holdpay.core.lightning import Invoice, LndMessage, Lost, NodeIdentity, NotKnown, Refused, Reported
from holdpay.core.model import Order, Payment
from holdpay.core.policy import route_query
from holdpay.core.routes import RouteLook, RouteQuery
from holdpay.core.states import HtlcState
from holdpay.errors import (
    LndError,
    LndRefused,
    ProviderError,
    ProviderProtocolError,
    ProviderRefused,
    ProviderUnavailable,
)
from holdpay.ports import Lane

if TYPE_CHECKING:
    from holdpay.engine.engine import Engine

DECODED_WITHIN_S = 0.25
"""How long an order that the provider has just made waits for LND's reading of its hold invoice, to come with it in one
commit. A node next door takes a millisecond."""
LND_RETRY_S = (1, 2, 4, 8, 15)
HEALTHY_S = 30
"""A stream that lived this long was healthy: what comes after it is a new failure, not the next one."""
BALANCE_S = (30, 60, 120, 300, 600, 1800)
"""Between two looks at the account's balance after a reply was lost."""
BALANCE_LATE_S = 600
"""How late the balance may follow what the provider, or lnd, said of another order."""
MAX_CANCEL_REPLIES = 10
"""Different ones that are kept raw: a provider that words every refusal anew must not fill the disk."""

log = structlog.get_logger(__name__)


class Backoff:
    """Growing waits between failures of the same kind; the last one repeats."""

    def __init__(self, delays_s: tuple[int, ...]) -> None:
        self._delays_s = delays_s
        self._failures = 0

    def next_s(self) -> int:
        self._failures += 1
        return self._delays_s[min(self._failures, len(self._delays_s)) - 1]

    def reset(self) -> None:
        self._failures = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """How the reading of a payment stream ended. ``last``: its last message; None if there was none.

    Where it may not go on it had better pause: lnd could be asked at once and would say the same again.
    """

    may_go_on: bool
    last: LndMessage | None = None


@dataclass(frozen=True, slots=True)
class Intended:
    """A payment whose intent is on disk. ``order``: as it was then; None if it was not intended after all.
    ``by_channels``: by which it may leave; empty: by any."""

    order: Order | None
    payer: NodeIdentity
    by_channels: tuple[int, ...] = ()


class Performers:
    """One coroutine per duty."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._held_up: dict[str, str] = {}
        """By order: see ``held_up_by``."""

    def perform(self, order_id: str, duty: Duty) -> Coroutine[Any, Any, None]:
        """The coroutine that does a duty; it ends when the duty is over."""
        table = {
            Duty.PLACE: self._place,
            Duty.PAY: self._pay,
            Duty.POLL: self._poll,
            Duty.BALANCE: self._prove_by_balance,
            Duty.CANCEL: self._cancel,
            Duty.DIAGNOSE: self._diagnose,
            Duty.NEXT: self._next,
        }
        return table[duty](order_id)

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _order(self, order_id: str, duty: Duty) -> Order | None:
        """The order, as long as the duty is wanted."""
        order = self._engine.order(order_id)
        return order if order is not None and duty in duties(order) else None

    def _now_ms(self) -> int:
        return self._engine.clock.now_ms()

    async def _until(self, order_id: str, at_ms: int | None) -> None:
        """Waits for the time, or for any change of the order."""
        await self._engine.until_changed(order_id, None if at_ms is None else max(0, at_ms - self._now_ms()) / 1000)

    async def _pause(self, delay_s: float) -> None:
        await self._engine.clock.sleep(delay_s)

    # --- PLACE --------------------------------------------------------------------------------------------------------

    async def _place(self, order_id: str) -> None:
        while (order := self._order(order_id, Duty.PLACE)) is not None:
            if order.place_at_ms > self._now_ms():
                await self._until(order_id, order.place_at_ms)
            else:
                await self._place_prepaid(order)

    async def _place_prepaid(self, order: Order) -> None:
        """Commits the intent and places, once: what came of a lost reply is never found out by asking again, and only
        a balance that was known before can prove it."""
        if order.charge is not None and order.charge.state is ChargeState.INTENDED:
            # A task before this one died at it.
            lost = ev.PlacingFailed("the answer was lost", may_retry=False, is_sure=False)
            if (await self._engine.apply(order.id, lost)).charge == order.charge:
                # Only in quarantine: what breaks a law is not written, and only a person's word changes it.
                await self._until(order.id, None)
            return
        async with self._engine.one_charge_at_a_time:
            try:
                balance = await self._engine.provider.balance()
            except ProviderError as error:
                failed = _placing_failed(error)
                text = f"the balance of the account is not known: {failed.text}"
                await self._engine.apply(order.id, replace(failed, text=text), raw=_raw(error))
                return
            intended = await self._engine.intend(
                order.id, ev.ChargeIntended(balance.balance_sat), lambda now: now is order
            )
            if intended is None or intended.is_quarantined:
                return
            if intended.charge is not None and intended.charge.state is ChargeState.INTENDED:
                await self._charge(intended)
                return
        # It is not wanted any more, or its time is over: a pass closes it.
        await self._until(order.id, None)

    async def _charge(self, order: Order) -> None:
        try:
            reply = await self._engine.provider.place(order.spec.placing(is_prepaid=True))
        except ProviderError as error:
            await self._engine.apply(order.id, _charging_failed(error), raw=_raw(error))
        else:
            await self._engine.apply(order.id, ev.OrderPlaced(reply.value.provider_order_id, None), raw=reply.raw)

    # --- BALANCE ------------------------------------------------------------------------------------------------------

    async def _prove_by_balance(self, order_id: str) -> None:
        backoff = Backoff(BALANCE_S)
        while (order := self._order(order_id, Duty.BALANCE)) is not None:
            assert order.charge is not None
            try:
                balance = await self._engine.provider.balance()
            except ProviderError as error:
                log.warning("the balance of the account is not known", order_id=order_id, error=error.message)
            else:
                since_ms = order.charge.intended_at_ms - BALANCE_LATE_S * 1000
                await self._engine.apply(order_id, partial(self._balance_seen, balance.balance_sat, since_ms))
            await self._pause(max(backoff.next_s(), self._engine.policy.prove_absent_s))

    def _balance_seen(self, balance_sat: int, since_ms: int, order: Order) -> ev.Event:
        is_alone = not self._engine.store.has_moved_balance_since(since_ms, besides=order.id)
        return ev.BalanceSeen(balance_sat, is_alone)

    # --- PAY ----------------------------------------------------------------------------------------------------------

    async def _pay(self, order_id: str) -> None:
        try:
            await self._pay_and_follow(order_id)
        finally:
            self._held_up.pop(order_id, None)

    async def _pay_and_follow(self, order_id: str) -> None:
        backoff = Backoff(LND_RETRY_S)
        while (order := self._order(order_id, Duty.PAY)) is not None:
            began_ms = self._now_ms()
            action = next_payment_action(order, self._engine.policy, began_ms)
            if isinstance(action, Place) and action.at_ms <= began_ms:
                followed = await self._sent(await self._place_for_invoice(order))
            elif isinstance(action, Vet):
                decoding = self._engine.node.decode(action.payreq)
                followed = await self._sent(await self._vet(order_id, action.payreq, decoding))
            elif isinstance(action, Dispatch):
                followed = await self._sent(await self._dispatch(order))
            elif isinstance(action, Track) and action.at_ms <= self._now_ms():
                assert order.payment is not None
                stream = self._engine.node.track(order.payment.payment_hash, _payer(order.payment))
                followed = await self._follow(order_id, stream)
                await self._look_for_htlc(order_id, followed.last)
            else:
                await self._until(order_id, action.at_ms)
                continue
            quiet_s = self._quiet_s(order_id)
            if followed.may_go_on or self._now_ms() - began_ms > HEALTHY_S * 1000:
                backoff.reset()
            if quiet_s or not followed.may_go_on:
                await self._pause(quiet_s or backoff.next_s())
            if isinstance(followed.last, Lost):
                await self._until_back(order_id)

    async def _until_back(self, order_id: str) -> None:
        """Waits for the node that pays it, which was lost."""
        order = self._engine.order(order_id)
        if order is not None and order.payment is not None:
            await self._engine.node.until_back(_payer(order.payment))

    async def _place_for_invoice(self, order: Order) -> Intended | Followed:
        """What LND makes of the hold invoice goes into the same commit as the order, if it says so at once; then see
        ``_vet``. A crash before that forgets an order that nobody has paid, and another one is made."""
        try:
            reply = await self._engine.provider.place(order.spec.placing(is_prepaid=False))
        except ProviderError as error:
            await self._engine.apply(order.id, _placing_failed(error), raw=_raw(error))
            return Followed(may_go_on=True)
        payreq = reply.value.payreq
        assert payreq is not None
        placed = ev.OrderPlaced(reply.value.provider_order_id, payreq)
        decoding = asyncio.ensure_future(self._engine.node.decode(payreq))
        begun: list[asyncio.Future[Any]] = [decoding]
        try:
            try:
                await asyncio.wait({decoding}, timeout=DECODED_WITHIN_S)
            finally:
                # Also where the process ends meanwhile: what is posted until then is written down.
                begun.append(placing := self._engine.post(order.id, placed, reply.raw))
            vetted = await self._vet(order.id, payreq, decoding)
            await placing  # what could not be written down is not ordered again at once
            return vetted
        finally:
            decoding.cancel()
            # Waits for their end and takes what they ended with, or asyncio would log that nobody did.
            await asyncio.gather(*begun, return_exceptions=True)

    async def _vet(
        self, order_id: str, payreq: str, decoding: Awaitable[tuple[Invoice, NodeIdentity]]
    ) -> Intended | Followed:
        """What vetting makes of the hold invoice and the intent to pay are one commit, where it may be sent at once."""
        try:
            invoice, node = await decoding
        except LndRefused as error:
            await self._engine.apply(order_id, ev.InvoiceUndecodable(error.message))
            return Followed(may_go_on=True)
        except LndError as error:
            log.warning("lnd cannot decode now", order_id=order_id, error=error.message)
            self._held_up.pop(order_id, None)
            return Followed(may_go_on=False)
        if why_not := self._engine.why_not_from(node):
            log.warning("lnd is another node than the one that paid open orders", order_id=order_id)
            self._held_up[order_id] = why_not
            return Followed(may_go_on=False)
        self._held_up.pop(order_id, None)
        vetting = self._engine.post(order_id, partial(self._decoded, payreq, invoice, node))
        if self._engine.ways.is_capped:
            await vetting
            return Followed(may_go_on=True)  # by which channels it may leave is asked first
        _, intended = await asyncio.gather(vetting, self._intend(order_id, node))
        return Intended(intended, node)

    def _decoded(self, payreq: str, invoice: Invoice, node: NodeIdentity, order: Order) -> ev.Event | None:
        """Looked up when it is decided: of two orders at once the first one has it. None: it is not its invoice."""
        if order.payreq != payreq:
            return None
        store, theirs = self._engine.store, order.provider_order_id
        seen = store.has_payment_hash(invoice.payment_hash) or (
            theirs is not None and store.has_provider_order(theirs, besides=order.id)
        )
        standing = self._engine.standing_of(invoice.payee)
        return ev.InvoiceDecoded(invoice, node, seen, self._engine.clock.wall_ahead_ms(), standing)

    def _quiet_s(self, order_id: str) -> float:
        """LND knows nothing of the payment: how long until asking again may prove something, or could tell more.

        Slept through, not read off the wall clock: that may be set forward meanwhile.
        """
        order = self._engine.order(order_id)
        if order is None or order.payment is None:
            return 0
        if order.payment.gone_since_ms is not None:
            return max(self._engine.policy.retrack_s, self._engine.policy.prove_absent_s)
        return 0 if order.payment.absent_since_ms is None else self._engine.policy.prove_absent_s

    async def _look_for_htlc(self, order_id: str, said: LndMessage | None) -> None:
        """Where the word that LND has just given will never end the order, its channels are asked."""
        order = self._engine.order(order_id)
        height = self._engine.node.status.block_height
        if order is None or not isinstance(said, Reported | NotKnown):
            return
        if not wants_look(order, self._engine.policy, height, self._now_ms()):
            self._held_up.pop(order_id, None)
            return
        assert order.payment is not None
        try:
            look = await self._engine.node.look_for_htlc(order.payment.payment_hash, _payer(order.payment))
        except LndError as error:
            log.warning("lnd's channels cannot be looked at now", order_id=order_id, error=error.message)
            self._held_up[order_id] = f"lnd's channels cannot be looked at: {error.message}"
        else:
            self._held_up[order_id] = look.holds_up
            await self._engine.apply(order_id, ev.HtlcLookedFor(look))

    def held_up_by(self, order_id: str) -> str:
        """What the latest look at the channels found in the way of a payment, or of an order's end; empty: nothing, or
        no look."""
        return self._held_up.get(order_id, "")

    async def _dispatch(self, order: Order) -> Intended | Followed:
        """Commits the intent."""
        assert order.payment is not None
        payer = _payer(order.payment)
        if not self._may_send_from(payer):
            self._held_up[order.id] = self._why_not_sent_from(payer)
            return Followed(may_go_on=False)
        async with self._engine.ways.one_at_a_time if self._engine.ways.is_capped else contextlib.nullcontext():
            by_channels = await self._channels_with_room(order, payer)
            if by_channels is None:
                return Followed(may_go_on=False)  # looked at again soon; its time to pay goes on
            intended = await self._intend(order.id, payer)
        return Intended(intended, payer, by_channels)

    def _may_send_from(self, payer: NodeIdentity) -> bool:
        return self._engine.node.identity == payer and self._engine.may_pay_from(payer)

    def _why_not_sent_from(self, payer: NodeIdentity) -> str:
        """Empty: lnd's state says it."""
        now = self._engine.node.identity
        if now is None or now == payer:
            return self._engine.why_not_from(now)
        return (
            f"The node at lnd.address is {now.pubkey[:16]}…, and its hold invoice was taken for {payer.pubkey[:16]}…,"
            " which alone may pay it. Point lnd.address at that node again, or cancel it."
        )

    def _intend(self, order_id: str, payer: NodeIdentity) -> Awaitable[Order | None]:
        """The intent to pay, if it is still to be paid, from there, when that is decided. See ``Engine.intend``."""

        def is_allowed(now: Order) -> bool:
            if not self._may_send_from(payer):
                return False
            return isinstance(next_payment_action(now, self._engine.policy, self._now_ms()), Dispatch)

        return self._engine.intend(order_id, ev.DispatchIntended(payer), is_allowed)

    async def _sent(self, made: Intended | Followed) -> Followed:
        """Sends what was intended, once; see ``_follow``."""
        if isinstance(made, Followed):
            return made
        order = made.order
        if order is None:
            return Followed(may_go_on=True)  # it has changed meanwhile, or the node has: it is looked at again
        if order.htlc is not HtlcState.DISPATCHING or order.is_quarantined:
            return Followed(may_go_on=False)  # its time is over, or more was said of it in the same step
        spec = replace(spec_of(order, self._engine.policy, self._now_ms()), outgoing_chan_ids=made.by_channels)
        return await self._follow(order.id, self._engine.node.send(spec, made.payer))

    async def _channels_with_room(self, order: Order, payer: NodeIdentity) -> tuple[int, ...] | None:
        """Where it may leave; see ``Ways.choose``. None: nowhere now, and why is told."""
        self._held_up.pop(order.id, None)
        if not self._engine.ways.is_capped:
            return ()
        try:
            by_channels = await self._engine.ways.choose(order, self._engine.guard, payer)
        except LndError as error:
            why = error.message.rstrip(".")
            self._held_up[order.id] = f"a channel holds as much as it may, and the others are not known: {why}"
            return None
        if by_channels is None:
            self._held_up[order.id] = (
                "no channel has room for it (holds.max_channel_orders, holds.max_channel_locked_sat)"
            )
        return by_channels

    async def _follow(self, order_id: str, stream: AsyncGenerator[LndMessage, None]) -> Followed:
        """Posts what a payment stream says until it ends or is silent too long."""
        last: LndMessage | None = None
        limit = asyncio.timeout(None)
        try:
            async with limit:
                silence = _Silence(self._engine, order_id, limit)
                with self._engine.listening(order_id, silence.look):
                    async for last in stream:
                        silence.heard()
                        await self._engine.apply(order_id, _event_of(last))
                        if self._engine.order(order_id) is None:
                            return Followed(may_go_on=True, last=last)
        except LndError as error:
            await self._engine.apply(order_id, ev.TrackingLost(error.message))
            return Followed(may_go_on=False)
        except TimeoutError:
            if not limit.expired():
                raise
            return Followed(may_go_on=True, last=last)
        finally:
            await stream.aclose()
        order = self._engine.order(order_id)
        return Followed(may_go_on=isinstance(last, Refused) or order is None or not order.is_money_out, last=last)

    # --- POLL ---------------------------------------------------------------------------------------------------------

    async def _poll(self, order_id: str) -> None:
        """One question, in a slot that the scheduler has taken."""
        order = self._order(order_id, Duty.POLL)
        if order is not None:
            await self._ask(order)

    async def _ask(self, order: Order) -> None:
        """One status request. A pause that the provider asks for is its adapter's."""
        assert order.provider_order_id is not None
        asker = self._engine.asker
        asked_at_ms = self._now_ms()
        asker.asking(order.id)
        try:
            reply = await self._engine.provider.order_status(order.provider_order_id)
        except ProviderUnavailable as error:
            log.warning("provider unavailable", order_id=order.id, error=error.message)
            asker.answered(order.id, error)
            # An answer goes into the journal, once for as long as it stays the same; silence does not.
            if error.raw is not None and asker.is_new_failure(order.id, error.message):
                await self._engine.apply(order.id, ev.ProviderFailed(error.message), raw=error.raw)
        except ProviderError as error:
            asker.answered(order.id, error)
            unread = error.unread if isinstance(error, ProviderProtocolError) else None
            await self._engine.apply(order.id, ev.ProviderConfused(error.message, unread), raw=_raw(error))
        else:
            asker.answered(order.id, None)
            await self._engine.apply(order.id, ev.ProviderReplied(asked_at_ms, reply.value), raw=reply.raw)

    # --- CANCEL -------------------------------------------------------------------------------------------------------

    async def _cancel(self, order_id: str) -> None:
        answers: set[str] = set()
        while (order := self._order(order_id, Duty.CANCEL)) is not None:
            assert order.cancel_at_ms is not None
            if order.cancel_at_ms > self._now_ms():
                await self._until(order_id, order.cancel_at_ms)
                continue
            # A code that came first wins: look before asking.
            with await self._engine.provider.slot(Lane.CANCEL):
                await self._ask(order)
            if self._order(order_id, Duty.CANCEL) is None:
                return
            event, raw = await self._ask_to_cancel(order)
            is_new = event.text not in answers and len(answers) < MAX_CANCEL_REPLIES
            if is_new:
                answers.add(event.text)
            answered = await self._engine.apply(order_id, event, raw=raw if is_new else None)
            if answered.cancel_at_ms == order.cancel_at_ms:
                # Only in quarantine: an answer that contradicts us once more changes nothing.
                await self._pause(self._engine.policy.cancel_retry_s)

    # --- NEXT ---------------------------------------------------------------------------------------------------------

    async def _next(self, order_id: str) -> None:
        while (order := self._order(order_id, Duty.NEXT)) is not None:
            if self._engine.next_orders is None:
                await self._until(order_id, None)
            else:
                await self._engine.next_orders.make(order)

    async def _ask_to_cancel(self, order: Order) -> tuple[ev.CancelAnswered, str | None]:
        """The answer, and the raw reply behind it."""
        assert order.provider_order_id is not None
        try:
            reply = await self._engine.provider.cancel(order.provider_order_id)
        except ProviderError as error:
            accepted = False if isinstance(error, ProviderRefused) else None
            return ev.CancelAnswered(accepted, error.message), _raw(error)
        return ev.CancelAnswered(accepted=True, text=""), reply.raw

    # --- DIAGNOSE -----------------------------------------------------------------------------------------------------

    async def _diagnose(self, order_id: str) -> None:
        """One look for each failed dispatch that no other one follows at once."""
        while (order := self._order(order_id, Duty.DIAGNOSE)) is not None:
            assert order.payment is not None
            query = route_query(order, order.payment, self._engine.policy)
            look = await self._engine.node.look_for_route(query, _payer(order.payment))
            is_full = self._is_by_full_channel(look, query)
            await self._engine.apply(order_id, ev.RouteLookedFor(order.payment.dispatch_count, look, is_full))

    def _is_by_full_channel(self, look: RouteLook, query: RouteQuery) -> bool:
        """LND looks over all channels: QueryRoutes of older ones takes one channel at most."""
        route = look.route or look.dearer or look.longer or look.avoided
        msat = query.amount_msat + (query.fee_limit_msat or 0)
        return route is not None and self._engine.ways.is_full(route.first_channel, msat)


class _Silence:
    """How long a payment stream may say nothing: counted from its latest message, and moved by what becomes of the
    order. See ``retrack_at_ms``."""

    def __init__(self, engine: Engine, order_id: str, limit: asyncio.Timeout) -> None:
        self._engine = engine
        self._order_id = order_id
        self._limit = limit
        self._opened_at_ms = self._heard_at_ms = engine.clock.now_ms()
        self.look()

    def heard(self) -> None:
        self._heard_at_ms = self._engine.clock.now_ms()
        self.look()

    def look(self) -> None:
        """Sets when it is over anew."""
        order = self._engine.order(self._order_id)
        if order is None or self._limit.expired():
            return
        now_ms = self._engine.clock.now_ms()
        # Nothing was heard in the future: the wall clock was set back, and silence is watched all the same.
        self._heard_at_ms = min(self._heard_at_ms, now_ms)
        until_ms = retrack_at_ms(order, self._opened_at_ms, self._heard_at_ms, self._engine.policy)
        self._limit.reschedule(asyncio.get_running_loop().time() + max(0, until_ms - now_ms) / 1000)


def _payer(payment: Payment) -> NodeIdentity:
    return NodeIdentity(payment.node_pubkey, payment.node_network)


def _placing_failed(error: ProviderError) -> ev.PlacingFailed:
    wait_s = (error.retry_after_s or 0) if isinstance(error, ProviderUnavailable) else 0
    return ev.PlacingFailed(error.message, may_retry=not isinstance(error, ProviderRefused), wait_s=wait_s)


def _charging_failed(error: ProviderError) -> ev.PlacingFailed:
    """Only a no that is one says that nothing was spent: what failed on the way, or inside the provider, may be."""
    is_turned_away = isinstance(error, ProviderUnavailable) and error.is_turned_away
    is_sure = isinstance(error, ProviderRefused) or is_turned_away
    return replace(_placing_failed(error), is_sure=is_sure)


def _raw(error: ProviderError) -> str | None:
    if isinstance(error, ProviderRefused | ProviderProtocolError | ProviderUnavailable):
        return error.raw
    return None


def _event_of(message: LndMessage) -> ev.Event:
    match message:
        case Reported(update=update, live=live):
            return ev.PaymentReported(update, live)
        case Refused(text=text, has_hash=has_hash):
            return ev.SendRefused(text, has_hash)
        case NotKnown():
            return ev.PaymentNotFound()
        case Lost(text=text):
            return ev.TrackingLost(text)
