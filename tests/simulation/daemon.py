"""The daemon of the core simulation: holdpay's pure core, driven by the heap instead of tasks.

It keeps the shell's rules (one action per order and duty, commit before act, nothing in memory survives a crash) and
decides nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from holdpay.core import duties as core_duties
from holdpay.core import events as ev
from holdpay.core import machine
from holdpay.core.asking import Learned, next_question
from holdpay.core.charge import Charge, ChargeState
from holdpay.core.deadlines import next_deadline_ms
from holdpay.core.duties import Dispatch, Duty, Place, Track, Vet
from holdpay.core.guard import alarms
from holdpay.core.items import ItemKind, texts
from holdpay.core.kinds.spec import KindName
from holdpay.core.lightning import LndMessage, Lost, NodeIdentity, NotKnown, Refused, Reported
from holdpay.core.machine import half
from holdpay.core.model import Order
from holdpay.core.outstanding import NOTHING, Outstanding, outstanding
from holdpay.core.policy import Policy
from holdpay.core.routes import RouteLook
from holdpay.core.states import OrderState
from holdpay.engine.performers import BALANCE_LATE_S
from holdpay.errors import LimitExceeded
from tests.simulation.auditor import Auditor, Violation
from tests.simulation.budgets import BudgetBook
from tests.simulation.faults import Faults
from tests.simulation.heap import Heap
from tests.simulation.parties import LATE_SEND_MS, SimLnd
from tests.simulation.provider import SimProvider, Spend
from tests.simulation.purse import Purse, added_up
from tests.simulation.story import short
from tests.simulation.turns import last_of, next_order

NODE = NodeIdentity("03" + "22" * 32, "simnet")
TICKS_MS = ((40 * 60_000, 5_000), (6 * 3_600_000, 600_000), (10**12, 3_600_000))
"""Until an order has this age deadlines are seen within that time."""
CALM_POLL_MS = 60 * 60_000
NOTHING_LEARNED = Learned()
"""A number that is rented for weeks is asked for no sooner, once faults have stopped."""
BALANCE_MS = (30_000, 30_000, 120_000, 600_000, 1_800_000)
Key = tuple[str, Duty]


class Crash(Exception):
    """The process is gone, with all that it had in memory."""


@dataclass(slots=True)
class Row:
    """One journal row."""

    at_ms: int
    order_id: str
    event: ev.Event
    after: Order


@dataclass(frozen=True, slots=True)
class Looked:
    """What was seen of an order the last time that time was let pass for it."""

    order: Order
    next_ms: int | None
    alarms: tuple[str, ...]


@dataclass(slots=True)
class Memory:
    """What a crash takes away."""

    running: set[Key] = field(default_factory=set)
    waiting: dict[Key, Callable[[], None]] = field(default_factory=dict)
    asked_at_ms: dict[str, int] = field(default_factory=dict)
    failures: dict[Key, int] = field(default_factory=dict)
    looked_at: dict[str, Looked] = field(default_factory=dict)
    may_cost: dict[str, Outstanding] = field(default_factory=dict)
    """What the open orders of each client may still cost."""
    is_ticking: bool = False
    is_charging: bool = False
    """A balance before and after is to tell of one charge only."""


class SimDaemon:
    """``orders`` and ``journal`` are the disk; ``memory`` is everything else."""

    def __init__(
        self, heap: Heap, faults: Faults, policy: Policy, lnd: SimLnd, provider: SimProvider, auditor: Auditor
    ) -> None:
        self.heap = heap
        self.faults = faults
        self.policy = policy
        self.lnd = lnd
        self.provider = provider
        self.auditor = auditor
        self.purse = Purse()
        self.budget_book: BudgetBook | None = None
        self.orders: dict[str, Order] = {}
        self.journal: list[Row] = []
        self.memory = Memory()
        self.is_up = True
        self.tell: Callable[[str], None] = lambda line: None
        self.is_traced = False
        self.crash_count = 0
        self.sends = 0

    # --- the process --------------------------------------------------------------------------------------------------

    def request(self, order: Order) -> LimitExceeded | None:
        """Records it, and begins it; or says which limit leaves no room for it."""
        if order.id in self.orders:
            return None
        reached = self.purse.reached_by(order, self.memory.may_cost, self.heap.now_ms)
        if reached is None:
            self._guard(lambda: self._record(order))
        return reached

    def _record(self, order: Order) -> None:
        # Without limits nobody asks again.
        crash = self.purse.limits is not None and self.faults.hits(self.heap.rng, "crash")
        if not crash or self.heap.rng.random() < 0.5:
            self._write(None, order)
        if crash:
            raise Crash
        self._reconcile(order.id)
        self.begin_ticking()

    def _write(self, before: Order | None, after: Order) -> None:
        """The order, and what is booked of it, in one transaction."""
        self.orders[after.id] = after
        if self.purse.limits is not None and self.budget_book is not None:
            self.purse.written(before, after, self.heap.now_ms)
            client, known = after.request.client, self.memory.may_cost
            known[client] = known.get(client, NOTHING) + outstanding(after) - outstanding(before)
            self.budget_book.look(self.orders.values())

    def cancel(self, order_id: str) -> None:
        """Of a request, by the id of its first order."""
        self._guard(lambda: self._wish(last_of(self.orders, order_id)))

    def _wish(self, order: Order) -> None:
        self.apply(order.id, ev.CancelRequested())
        if order.spec.kind is KindName.CODE:
            self.auditor.wished(order.request.id)

    def resolve(self, order_id: str, event: ev.Resolved) -> None:
        """An operator's word."""
        if self.is_up:
            self._guard(lambda: self.apply(order_id, event))

    def later(self, delay_ms: int, action: Callable[[], object]) -> None:
        """An action of this process: it does not happen if the process is gone by then."""
        memory = self.memory
        self.heap.after(delay_ms, lambda: self._guard(action) if self.memory is memory and self.is_up else None)

    def _guard(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Crash:
            self.crash()

    def crash(self) -> None:
        self.tell("the daemon dies")
        self.crash_count += 1
        self.is_up = False
        self.memory = Memory()
        self.heap.after(self.heap.rng.choice((0, 500, 5_000, 120_000)), self._start)

    def _start(self) -> None:
        self.tell("the daemon starts")
        self.is_up = True
        self.memory = Memory(may_cost=added_up(self.orders.values()))
        self._guard(self._take_over)

    def _take_over(self) -> None:
        for order_id in list(self.orders):
            self.apply(order_id, ev.DaemonRestarted())
            self._reconcile(order_id)
        self.begin_ticking()

    def begin_ticking(self) -> None:
        """Until nothing is open any more."""
        if not self.memory.is_ticking:
            self.memory.is_ticking = True
            self.later(1_000, self._tick)

    def _tick(self) -> None:
        is_any_open = False
        for order_id, order in list(self.orders.items()):
            if not order.is_closed or order.is_going_on:
                is_any_open = True
                self._look(order)
                self._reconcile(order_id)
        age_ms = self.heap.now_ms - min((o.created_at_ms for o in self.orders.values()), default=self.heap.now_ms)
        self.memory.is_ticking = is_any_open or not self.orders
        if self.memory.is_ticking:
            self.later(next(wait_ms for until_ms, wait_ms in TICKS_MS if age_ms < until_ms), self._tick)

    def _look(self, order: Order) -> None:
        """As the engine does, which looks at an order only when it has changed or its deadline has come."""
        now_ms, memory = self.heap.now_ms, self.memory
        found = alarms(order, self.policy, now_ms)
        known = memory.looked_at.get(order.id)
        if known is not None and known.order is order and (known.next_ms is None or now_ms < known.next_ms):
            is_changed = machine.decide(order, ev.TimePassed(), self.policy, now_ms).is_change
            if is_changed or found != known.alarms:
                raise Violation(f"order {order.id} has a deadline that nobody looks at: {found} after {known.alarms}")
            return
        memory.looked_at[order.id] = Looked(order, next_deadline_ms(order, self.policy, now_ms), found)
        self.apply(order.id, ev.TimePassed())

    # --- one step -----------------------------------------------------------------------------------------------------

    def apply(self, order_id: str, event: ev.Event) -> Order:
        before = self.orders[order_id]
        step = machine.decide(before, event, self.policy, self.heap.now_ms)
        if not step.is_change:
            return before
        crash = self.faults.hits(self.heap.rng, "crash")
        is_written = not crash or self.heap.rng.random() < 0.5
        if is_written:
            self._write(before, step.order)
            self.journal.append(Row(self.heap.now_ms, order_id, event, step.order))
            if self.is_traced:
                after = f"{step.order.state} × {half(step.order)} {step.order.end or ''}"
                self.tell(f"{order_id} {short(event)} → {after}".strip())
            self.auditor.committed(before, event, step.order)
        if crash:
            raise Crash
        for key in [key for key in self.memory.waiting if key[0] == order_id]:
            self.later(0, self.memory.waiting.pop(key))
        self._reconcile(order_id)
        return step.order

    def _reconcile(self, order_id: str) -> None:
        wanted = core_duties.duties(self.orders[order_id])
        for duty in Duty:
            key = (order_id, duty)
            if duty in wanted and key not in self.memory.running:
                self.memory.running.add(key)
                self.later(0, lambda k=key: self._perform(k))  # type: ignore[misc]

    def _perform(self, key: Key) -> None:
        """One turn of a duty; each turn ends by asking for the next, or by ending the duty."""
        order = self.orders[key[0]]
        if key[1] not in core_duties.duties(order):
            self.memory.running.discard(key)
            self.memory.waiting.pop(key, None)
            return
        {
            Duty.PLACE: self._place,
            Duty.PAY: self._pay,
            Duty.POLL: self._poll,
            Duty.BALANCE: self._prove_by_balance,
            Duty.CANCEL: self._cancel,
            Duty.DIAGNOSE: self._diagnose,
            Duty.NEXT: self._next,
        }[key[1]](key, order)

    def _again(self, key: Key, delay_ms: int = 0) -> None:
        self.later(delay_ms, lambda: self._perform(key))

    def _wait(self, key: Key, at_ms: int | None) -> None:
        """Until the time, or a change of the order: whatever comes first."""
        turned = False

        def turn() -> None:
            nonlocal turned
            if not turned:
                turned = True
                self.memory.waiting.pop(key, None)
                self._perform(key)

        self.memory.waiting[key] = turn
        if at_ms is not None:
            self.later(max(1, at_ms - self.heap.now_ms), turn)

    def _back_off(self, key: Key, least_ms: int = 0) -> None:
        failures = self.memory.failures.get(key, 0) + 1
        self.memory.failures[key] = failures
        self._again(key, max(least_ms, min(1_000 * 2**failures, 60_000)))

    # --- the duties ---------------------------------------------------------------------------------------------------

    def _place(self, key: Key, order: Order) -> None:
        if order.place_at_ms > self.heap.now_ms:
            self._wait(key, order.place_at_ms)
        else:
            self._place_prepaid(key, order)

    def _place_for_invoice(self, key: Key, order: Order) -> None:
        if self.faults.hits(self.heap.rng, "provider_error"):
            self._answer(key, ev.PlacingFailed("unable to save data", may_retry=True))
            return
        placed = self.provider.place(order.spec.placing(is_prepaid=False))
        if placed is None:
            self._answer(key, ev.PlacingFailed("no", may_retry=False))
        elif self.faults.hits(self.heap.rng, "lost_reply"):
            self._answer(key, ev.PlacingFailed("no answer", may_retry=True))
        else:
            self._answer(key, ev.OrderPlaced(placed.id, placed.id))

    def _place_prepaid(self, key: Key, order: Order) -> None:
        if order.charge is not None and order.charge.state is ChargeState.INTENDED:
            return  # its answer is on the way
        if self.memory.is_charging:
            self._again(key, 1_000)
            return
        self.memory.is_charging = True
        is_unknown = self.faults.hits(self.heap.rng, "provider_error")
        balance_sat = None if is_unknown else self.provider.balance_sat
        self.later(self.heap.rng.randrange(300), lambda: self._charge(key, balance_sat))

    def _charge(self, key: Key, balance_sat: int | None) -> None:
        before = self.orders[key[0]]
        order = self.apply(key[0], ev.ChargeIntended(balance_sat))
        if order.charge is None or order.charge == before.charge:
            self.memory.is_charging = False
            self._wait(key, None)
            return
        if self.faults.hits(self.heap.rng, "crash"):
            raise Crash
        self.auditor.placing(order)
        placing = order.spec.placing(is_prepaid=True)
        spend = self.provider.announce(placing, order.id)
        self._answer(key, self._charged(order, spend))

    def _charged(self, order: Order, spend: Spend) -> ev.Event:
        """What its sender hears of a placing from the account, whatever became of it."""
        rng, placing = self.heap.rng, order.spec.placing(is_prepaid=True)
        lost = ev.PlacingFailed("no answer", may_retry=True, is_sure=False)
        if self.faults.hits(rng, "provider_error"):
            spend.state = "refused"
            return ev.PlacingFailed("too many requests", may_retry=True, wait_s=5, is_sure=rng.random() < 0.5)
        if self.faults.hits(rng, "never_placed"):
            spend.state = "lost"
            return lost
        if self.faults.hits(rng, "late_placing"):
            self.heap.after(rng.randrange(LATE_SEND_MS), lambda: self.provider.place_prepaid(placing, spend))
            return lost
        placed = self.provider.place_prepaid(placing, spend)
        if self.faults.hits(rng, "error_after"):
            return ev.PlacingFailed("unable to save data", may_retry=True, is_sure=False)
        if self.faults.hits(rng, "lost_reply"):
            return lost
        if placed is None:
            return ev.PlacingFailed("balance too low", may_retry=False)
        return ev.OrderPlaced(placed.id, None)

    def _prove_by_balance(self, key: Key, order: Order) -> None:
        failures = self.memory.failures[key] = self.memory.failures.get(key, -1) + 1
        again_ms = BALANCE_MS[min(failures, len(BALANCE_MS) - 1)]
        if self.faults.hits(self.heap.rng, "provider_error") or self.faults.hits(self.heap.rng, "lost_reply"):
            self._again(key, again_ms)
            return
        balance_sat = self.provider.balance_sat

        def arrive() -> None:
            now = self.orders[order.id]
            if now.charge is not None:
                is_alone = not self._has_moved_balance_since(
                    now.charge.intended_at_ms - BALANCE_LATE_S * 1000, order.id
                )
                self.apply(order.id, ev.BalanceSeen(balance_sat, is_alone))
            self._again(key, again_ms)

        self.later(self.heap.rng.randrange(300), arrive)

    def _has_moved_balance_since(self, at_ms: int, besides: str) -> bool:
        """As the store says it."""
        others = [order for order in self.orders.values() if order.id != besides]
        own = self.orders[besides].charge
        assert own is not None
        charged = [order for order in others if order.charge is not None and not _is_proven_with(order.charge, own)]
        charges = [order.charge for order in charged if order.charge is not None]
        open_questions = [order.charge for order in others if order.charge is not None and not order.is_closed]
        together = [c for c in open_questions if c.state is ChargeState.UNKNOWN and _is_proven_with(c, own)]
        at_ms -= max([0, *(own.intended_at_ms - c.intended_at_ms for c in together)])
        funding = [order for order in others if order.spec.kind.value == "fund"]
        is_funded = any(order.closed_at_ms is None or order.closed_at_ms >= at_ms for order in funding)
        is_returned = any(_may_return(order, at_ms) for order in charged)
        return is_funded or is_returned or any(charge.since_ms >= at_ms for charge in charges)

    def _answer(self, key: Key, event: ev.Event, delay_ms: int | None = None) -> None:
        """A reply on its way to this process."""
        delay_ms = self.heap.rng.randrange(300) if delay_ms is None else delay_ms

        def arrive() -> None:
            if key[1] is Duty.PLACE:
                self.memory.is_charging = False
            self.apply(key[0], event)
            self._perform(key)

        self.later(delay_ms, arrive)

    def _vet(self, key: Key, payreq: str) -> None:
        if self.lnd.is_down:
            self._back_off(key)
            return
        invoice = self.lnd.truths[payreq].invoice
        self._answer(key, ev.InvoiceDecoded(invoice, NODE, seen_before=False), 5)

    def _pay(self, key: Key, order: Order) -> None:
        action = core_duties.next_payment_action(order, self.policy, self.heap.now_ms)
        if isinstance(action, Place) and action.at_ms <= self.heap.now_ms:
            self._place_for_invoice(key, order)
        elif isinstance(action, Vet):
            self._vet(key, action.payreq)
        elif isinstance(action, Dispatch):
            order = self.apply(order.id, ev.DispatchIntended(NODE))
            if self.faults.hits(self.heap.rng, "crash"):
                raise Crash
            self.sends += 1
            stream = Stream(self, key)
            spec = core_duties.spec_of(order, self.policy, self.heap.now_ms)
            self.auditor.sent(spec.payment_hash)
            self.lnd.send(spec, stream.hear)
        elif isinstance(action, Track) and action.at_ms <= self.heap.now_ms:
            assert order.payment is not None
            self._look_and_track(key, order, order.payment.payment_hash)
        else:
            self._wait(key, action.at_ms)

    def _look_and_track(self, key: Key, order: Order, payment_hash: str) -> None:
        if core_duties.wants_look(order, self.policy, self.lnd.height, self.heap.now_ms) and not self.lnd.is_down:
            order = self.apply(order.id, ev.HtlcLookedFor(self.lnd.look(payment_hash)))
            if Duty.PAY not in core_duties.duties(order):
                self._again(key)
                return
        stream = Stream(self, key)
        self.lnd.track(payment_hash, stream.hear)

    def _poll(self, key: Key, order: Order) -> None:
        now_ms = self.heap.now_ms
        asked_at_ms = self.memory.asked_at_ms.get(order.id)
        at_ms = next_question(order, asked_at_ms, self.policy, now_ms, learned=NOTHING_LEARNED).at_ms
        if self.faults.is_calm and order.state is OrderState.DELIVERED and order.spec.kind is KindName.RENTAL:
            at_ms = max(at_ms, self.memory.asked_at_ms.get(order.id, 0) + CALM_POLL_MS)
        if at_ms > now_ms:
            self._wait(key, at_ms)
            return
        self.memory.asked_at_ms[order.id] = now_ms
        if self.faults.hits(self.heap.rng, "provider_error") or self.faults.hits(self.heap.rng, "lost_reply"):
            self._back_off(key)
            return
        self.memory.failures.pop(key, None)
        self._answer(key, self._status(order), 20_000 if self.faults.hits(self.heap.rng, "stale_reply") else None)

    def _status(self, order: Order) -> ev.ProviderReplied:
        assert order.provider_order_id is not None
        return ev.ProviderReplied(self.heap.now_ms, self.provider.status(order.provider_order_id))

    def _cancel(self, key: Key, order: Order) -> None:
        assert order.cancel_at_ms is not None
        assert order.provider_order_id is not None
        if order.cancel_at_ms > self.heap.now_ms:
            self._wait(key, order.cancel_at_ms)
            return
        order = self.apply(order.id, self._status(order))
        if Duty.CANCEL not in core_duties.duties(order):
            self._again(key)
            return
        accepted: bool | None = self.provider.cancel(order.provider_order_id or "")
        if self.faults.hits(self.heap.rng, "lost_reply"):
            accepted = None
        self._answer(key, ev.CancelAnswered(accepted, "" if accepted else "too early"))

    def _diagnose(self, key: Key, order: Order) -> None:
        """LND may be away, or slow: then nothing is known, late."""
        assert order.payment is not None
        rng, dispatch = self.heap.rng, order.payment.dispatch_count
        look = RouteLook(is_route_known=not self.lnd.is_down and rng.random() < 0.7)
        self._answer(key, ev.RouteLookedFor(dispatch, look), rng.choice((50, 8_000, 20_000)))

    def _next(self, key: Key, order: Order) -> None:
        """Something is in the way as a rule: the provider, lnd, a limit."""
        rng = self.heap.rng
        if rng.random() < 0.7:
            self._again(key, rng.randrange(120_000))
        elif rng.random() < 0.1:
            self.apply(order.id, ev.NoNextOrder("no country has numbers"))
            self._again(key)
        else:
            self._follow(order, next_order(order, self.policy, self.heap.now_ms))
            self._again(key)

    def _follow(self, before: Order, after: Order) -> None:
        """Both in one transaction."""
        if self.purse.reached_by(after, self.memory.may_cost, self.heap.now_ms) is not None:
            return
        event = ev.NextOrdered()
        step = machine.decide(before, event, self.policy, self.heap.now_ms)
        crash = self.faults.hits(self.heap.rng, "crash")
        if not crash or self.heap.rng.random() < 0.5:
            self.auditor.committed(before, event, step.order)
            self.auditor.next_made(after, self.orders.values())
            self._write(before, step.order)
            self.journal.append(Row(self.heap.now_ms, before.id, event, step.order))
            self._write(None, after)
            self.tell(f"{before.id} is followed by {after.id}")
        if crash:
            raise Crash
        self._reconcile(after.id)


class Stream:
    """A payment stream that this process reads, until it ends or is silent too long."""

    def __init__(self, daemon: SimDaemon, key: Key) -> None:
        self._daemon = daemon
        self._key = key
        self._is_open = True
        self._memory = daemon.memory
        self._opened_ms = self._heard_ms = daemon.heap.now_ms
        self._watch()

    def hear(self, message: LndMessage) -> None:
        """LND's side calls this; a process that is gone hears nothing."""
        daemon = self._daemon
        if daemon.memory is self._memory and daemon.is_up:
            daemon.later(daemon.heap.rng.randrange(20), lambda: self._take(message))
            if isinstance(message, Reported) and daemon.faults.hits(daemon.heap.rng, "late_update"):
                # Once more, after what came later: whatever reads it must not depend on the order.
                sent = daemon.sends
                daemon.later(daemon.heap.rng.randrange(10_000), lambda: self._late(message, sent))

    def _late(self, message: LndMessage, sent: int) -> None:
        # The words of a dispatch do not outlive it: its stream is closed before the next one.
        if self._daemon.sends == sent:
            self._daemon.apply(self._key[0], _event_of(message))

    def _take(self, message: LndMessage) -> None:
        if not self._is_open:
            return
        self._heard_ms = self._daemon.heap.now_ms
        is_last = not isinstance(message, Reported) or message.update.is_terminal
        self._is_open = not is_last
        order = self._daemon.apply(self._key[0], _event_of(message))
        if not is_last:
            return
        if order.payment is not None and order.payment.gone_since_ms is not None:
            self._daemon._back_off(self._key, self._daemon.policy.retrack_s * 1000)
        elif order.payment is not None and order.payment.absent_since_ms is not None:
            self._daemon._back_off(self._key, self._daemon.policy.prove_absent_s * 1000)
        elif isinstance(message, Lost | NotKnown):
            self._daemon._back_off(self._key)
        else:
            self._daemon._again(self._key)

    def _watch(self) -> None:
        order = self._daemon.orders[self._key[0]]
        until_ms = core_duties.retrack_at_ms(order, self._opened_ms, self._heard_ms, self._daemon.policy)
        self._daemon.later(max(1_000, until_ms - self._daemon.heap.now_ms), self._look)

    def _look(self) -> None:
        if not self._is_open:
            return
        order = self._daemon.orders[self._key[0]]
        until_ms = core_duties.retrack_at_ms(order, self._opened_ms, self._heard_ms, self._daemon.policy)
        if self._daemon.heap.now_ms >= until_ms:
            self._is_open = False
            self._daemon._perform(self._key)
        else:
            self._watch()


def _is_proven_with(other: Charge, own: Charge) -> bool:
    """If the balance is what it was before ``own``, the other was not charged either."""
    is_open_question = other.state in {ChargeState.UNKNOWN, ChargeState.REFUSED}
    return is_open_question and other.balance_before_sat == own.balance_before_sat


def _may_return(order: Order, at_ms: int) -> bool:
    """Its price may go back before anybody says so."""
    if order.spec.kind in {KindName.SMS, KindName.EMAIL} and texts(order.items, ItemKind.SENDING)[-1:] != (
        "delivered",
    ):
        return order.closed_at_ms is None or order.closed_at_ms >= at_ms
    return not order.is_closed and order.state is not OrderState.DELIVERED


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
