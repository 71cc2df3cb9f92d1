"""One step: decide → commit → reconcile, with no await inside, for all events of one turn of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from random import Random
from typing import Any, Protocol

import structlog

from holdpay.core.deadlines import next_deadline_ms
from holdpay.core.duties import Duty, duties
from holdpay.core.events import (
    CancelRequested,
    DaemonRestarted,
    Event,
    HoldLevelChanged,
    InvoiceDecoded,
    NextOrdered,
    OrderQuarantined,
    PlaceDenied,
    PlaceGiven,
    ProviderReplied,
    TimePassed,
)
from holdpay.core.guard import Finding, alarms, findings, worst
from holdpay.core.holds import HoldCaps
from holdpay.core.lightning import NodeIdentity
from holdpay.core.machine import decide
from holdpay.core.model import Order
from holdpay.core.payees import PayeeCheck, Standing
from holdpay.core.policy import Policy
from holdpay.core.states import HoldLevel, OrderState, Succession
from holdpay.core.step import Step
from holdpay.core.tables import phase
from holdpay.engine.agenda import Agenda
from holdpay.engine.asking import Asker
from holdpay.engine.budgets import BudgetWarnings
from holdpay.engine.denials import denials
from holdpay.engine.guard import LOOK_EVERY_S, HoldGuard
from holdpay.engine.hooks import Webhooks
from holdpay.engine.performers import Performers
from holdpay.engine.places import Places
from holdpay.engine.supervisor import Supervisor
from holdpay.engine.tally import Tally
from holdpay.engine.turn import MOST_AT_ONCE, Making, Posted, Turn
from holdpay.engine.ways import Ways
from holdpay.errors import InvariantViolation, StoreError
from holdpay.ports import (
    Change,
    Clock,
    LightningNode,
    Limits,
    MoneyTotals,
    NodeState,
    NodeStatus,
    OrderFilter,
    OrderStore,
    Provider,
)


class NextOrders(Protocol):
    """Implemented by ``next_orders.NextOrders``."""

    async def make(self, before: Order) -> None:
        """Makes the order that comes after ``before``, whose request goes on, or waits for what is in the way. To be
        called again and again until ``before`` has changed."""
        ...


LEARNED_FROM = 200
"""The latest orders for codes from which the scheduler learns, at the start, how soon numbers come."""

PASS_INTERVAL_S = 1.0
"""Deadlines are seen within this time; a completed pass feeds the watchdog."""
LOOKS_AT_ONCE = 100
"""Orders of one pass in one turn of the event loop, which they hold up for some milliseconds."""

ASK_FIRST_S = 3600
"""A deadline that passed while no daemon ran counts once the provider has answered, or has not for so long: it may
have the code by now. A few polls of a late order (``poll_late_max_s``)."""

CLOCK_DOUBT_S = 600
"""After a hold invoice that had expired when it came new orders are refused for so long, or until the clock is set."""

log = structlog.get_logger(__name__)


class Engine:
    """Owns the open orders of this process. Used from the event loop only."""

    def __init__(
        self,
        *,
        store: OrderStore,
        node: LightningNode,
        provider: Provider,
        policy: Policy,
        limits: Limits,
        clock: Clock,
        rng: Random,
        webhooks: Webhooks | None = None,
        guard_look_every_s: float = LOOK_EVERY_S,
        caps: HoldCaps = HoldCaps(),  # noqa: B008 - it cannot be changed
    ) -> None:
        """``webhooks``: where the provider hints at news. None: it is only asked."""
        self.store = store
        self.node = node
        self.provider = provider
        self.policy = policy
        self.limits = limits
        self.clock = clock
        self.rng = rng
        self.webhooks = webhooks
        self.on_pass: Callable[[], None] = lambda: None
        self.on_requested: Callable[[Order], None] = lambda order: None
        """A new request is on disk, with its first order."""
        self.on_closed: Callable[[Order], None] = lambda order: None
        """An order's end is."""
        self.on_alarm: Callable[[str | None, HoldLevel, str], None] = lambda request_id, level, text: None
        """Something that an operator should look at began, or is more or less urgent now; None: it is about no
        request."""
        self.trouble: Callable[[], str] = lambda: ""
        """What is wrong with the daemon around it, so that no new order is taken. Empty: nothing."""
        self.alarms_of_configuration: tuple[str, ...] = ()
        """What is wrong with one that was to come into effect while the daemon runs."""
        self.next_orders: NextOrders | None = None
        """Makes the next order of a request that goes on. None: nobody does yet, and it waits."""
        self._open: dict[str, Order] = {}
        """And those whose request goes on without an open one."""
        self._live: dict[str, str] = {}
        """Of each request that is open, the id of its order in ``_open``."""
        self._ahead: dict[str, Order] = {}
        """What the step that is being taken has made of orders so far. Empty outside of one."""
        self._turn = Turn(self._step)
        self._listeners: dict[str, list[Callable[[], object]]] = {}
        self._watchers: Counter[str] = Counter()
        self.tally = Tally()
        self.places = Places(caps, self.tally)
        self.ways = Ways(self.places)
        self.budget_warnings = BudgetWarnings()
        self._agenda = Agenda()
        self._passed_at_ms = 0
        self._findings: dict[str, tuple[Finding, ...]] = {}
        """Of the orders that have any, as of their latest look."""
        self.guard = HoldGuard(self, guard_look_every_s)
        self._unreadable: list[str] = []
        self._doubt: tuple[int, int] | None = None
        self._ask_first_until_ms: dict[str, int] = {}
        self.one_charge_at_a_time = asyncio.Lock()
        """So that a balance before and after tells of one charge only."""
        self._performers = Performers(self)
        self._supervisor = Supervisor(self._performers, clock, self.quarantine, self._agenda.plan)
        self.asker = Asker(
            self,
            begin=self._supervisor.ask,
            slot=lambda lane: self.provider.slot(lane),
            policy=policy,
            clock=clock,
            rng=rng,
        )

    # --- the life of the engine ---------------------------------------------------------------------------------------

    def take_over(self) -> None:
        """Takes over every order that an earlier process left open; what breaks a law is put aside, and not more."""
        with self._ending_the_process():
            self._unreadable = self.store.quarantine_unreadable(self.clock.now_ms())
        for order_id in self._unreadable:
            text = _unreadable(order_id)
            log.error("alarm", order_id=order_id, urgency=HoldLevel.WARNING.value, text=text)
            self.on_alarm(self.store.request_id(order_id), HoldLevel.WARNING, text)
        for order in reversed(self.store.list_orders(OrderFilter(kind="code", closed_only=True, limit=LEARNED_FROM))):
            self.asker.learned.number_came(order)
        orders = self.store.open_orders()
        for order in orders:
            self._opened(order)
        self._deny_places()
        for first in range(0, len(orders), MOST_AT_ONCE):
            batch = orders[first : first + MOST_AT_ONCE]
            self._step([Posted(order_id=order.id, event=DaemonRestarted()) for order in batch])
        # Their tasks are begun by the first pass, a few in each turn of the event loop.
        for order in self._open.values():
            if Duty.POLL in duties(order):
                self._ask_first_until_ms[order.id] = self.clock.now_ms() + ASK_FIRST_S * 1000
                self.asker.want(order)
        self._give_place()
        log.info("open orders taken over", count=len(self._open))

    async def run(self) -> None:
        """Looks at deadlines and alarms until canceled.

        Raises StoreError, also from any task, or a contradiction of the store: the process must end then.
        """
        self.asker.start()
        try:
            while True:
                await self._pass()
                self.on_pass()
                await self._supervisor.failure(PASS_INTERVAL_S)
        finally:
            # Stopping watches no more; it never touches an HTLC.
            await self.asker.close()
            await self._supervisor.stop()
            self._turn.finish()

    async def _pass(self) -> None:
        now_ms = self.clock.now_ms()
        if now_ms < self._passed_at_ms:
            # The wall clock was set back: what was planned for a time says nothing any more.
            for order_id in self._open:
                self._agenda.plan(order_id, now_ms)
        self._passed_at_ms = now_ms
        due = self._agenda.due(now_ms)
        for first in range(0, len(due), LOOKS_AT_ONCE):
            for order_id in due[first : first + LOOKS_AT_ONCE]:
                order = self._open.get(order_id)
                if order is not None:
                    self._look(order, now_ms)
            await asyncio.sleep(0)

    def _look(self, order: Order, now_ms: int) -> None:
        """What time makes of it, whether its tasks run, and its alarms; then not again before its next deadline, if
        nothing happens to it."""
        self._reconcile(order.id)
        ask_first_until_ms = self._ask_first_until_ms.get(order.id, now_ms)
        if ask_first_until_ms > now_ms:
            self._agenda.plan(order.id, ask_first_until_ms)
        elif self._decided(order, passed := TimePassed(self.why_unpaid(order)), now_ms)[1].is_change:
            self.tell(order.id, passed)
        self._find(order, now_ms)
        next_ms = next_deadline_ms(order, self.policy, now_ms)
        if next_ms is not None:
            self._agenda.plan(order.id, next_ms)

    def why_unpaid(self, order: Order) -> str:
        """What keeps its payment from being sent just now. Empty: nothing that is known, or it is not to be sent."""
        held_up_by = self.held_up_by(order.id)
        if held_up_by or order.state is not OrderState.AWAITING_PAYMENT or order.is_money_out:
            return held_up_by
        status = self.node_status()
        return "" if status.state in {NodeState.READY, NodeState.SYNCING} else status.detail.rstrip(".")

    def _find(self, order: Order, now_ms: int) -> None:
        """What an operator should look at is told when it begins, and the level of a hold when it changes."""
        found = findings(order, self.policy, now_ms, self.guard.sight(order))
        known = _keys(self._findings.get(order.id, ()))
        for finding in found:
            if (finding.key, finding.level) not in known:
                log.warning("alarm", order_id=order.id, urgency=finding.level.value, text=finding.text)
                self.on_alarm(order.request.id, finding.level, finding.text)
        if found:
            self._findings[order.id] = found
        else:
            self._findings.pop(order.id, None)
        if order.payment is not None and order.is_money_out:
            level, why = worst(order, found)
            if level is not order.payment.hold_level:
                self.tell(order.id, HoldLevelChanged(level, why))

    def is_news(self, order_id: str, found: Collection[Finding]) -> bool:
        """Whether that is something else than what its latest look found."""
        return _keys(found) != _keys(self._findings.get(order_id, ()))

    def look_again(self, order_id: str) -> None:
        """It is looked at in the next pass."""
        self._agenda.plan(order_id, self.clock.now_ms())

    # --- one step -----------------------------------------------------------------------------------------------------

    async def apply(self, order_id: str, event: Event | Making, raw: str | None = None) -> Order:
        """Has the event decided, committed and acted upon, together with whatever else is ready in this turn of the
        loop. Returns the order as it is on disk then. A caller that is canceled meanwhile takes nothing back.
        """
        return await self.post(order_id, event, raw)

    def post(self, order_id: str, event: Event | Making, raw: str | None = None) -> asyncio.Future[Order]:
        """As ``apply``, at once: what is posted without an await between comes in one step, in this order."""
        result: asyncio.Future[Order] = asyncio.get_running_loop().create_future()
        if order_id in self._open:
            task = asyncio.current_task()
            self._turn.post(Posted(order_id=order_id, event=event, raw=raw, task=task, result=result))
        else:
            result.set_result(self.store.get(order_id))
        return result

    def tell(self, order_id: str, event: Event | Making, raw: str | None = None) -> None:
        """As ``post``, where nobody waits for what becomes of it."""
        self._turn.post(Posted(order_id=order_id, event=event, raw=raw))

    def intend(self, order_id: str, event: Event, is_allowed: Callable[[Order], bool]) -> Awaitable[Order | None]:
        """As ``post``, for what may only be done to an order as the caller expects it: if ``is_allowed`` says no of the
        order as it is when the event is decided, there is no event, and None is returned."""
        is_made = False

        def made(now: Order) -> Event | None:
            nonlocal is_made
            is_made = is_allowed(now)
            return event if is_made else None

        async def intended(posted: asyncio.Future[Order]) -> Order | None:
            after = await posted
            return after if is_made else None

        return intended(self.post(order_id, made))

    def _step(self, batch: Sequence[Posted]) -> None:
        """Decides, commits, and starts or stops what follows. Raises StoreError, and a contradiction about writing."""
        now_ms = self.clock.now_ms()
        made: list[Change] = []
        self._ahead = {}
        try:
            with self._ending_the_process():
                self.store.commit_all(self._changes_of(batch, made, now_ms), now_ms)
        except (StoreError, InvariantViolation):
            raise
        except Exception as error:  # noqa: BLE001 - what cannot even be written down is no reason to lose the others
            self._step_alone(batch, error)
        else:
            self._act(batch, made, now_ms)
        finally:
            self._ahead = {}

    def _step_alone(self, batch: Sequence[Posted], error: Exception) -> None:
        if len(batch) > 1:
            for posted in batch:
                self._step([posted])
            return
        (posted,) = batch
        log.error("an event could not be written down", order_id=posted.order_id, exc_info=error)
        posted.fail(error)

    def _changes_of(self, batch: Sequence[Posted], made: list[Change], now_ms: int) -> Iterator[Change]:
        """Each against the order as those before it leave it; decided when what came before it is written."""
        for posted in batch:
            order = self._latest(posted.order_id)
            if order is None:
                continue
            try:
                event = posted.made(order)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - a defect of ours about one order, whatever it is
                posted.fail(error)
                continue
            if event is None:
                continue
            event, step = self._decided(order, event, now_ms)
            if step.is_change:
                self._ahead[order.id] = step.order
                made.append(Change(order, event, step, posted.raw))
                yield made[-1]
            elif step.attempts:
                # After a restart, say: nothing new for the disk, and news for this process.
                self.ways.changed(step.order, step.attempts)

    def _latest(self, order_id: str) -> Order | None:
        return self._ahead.get(order_id) or self._open.get(order_id)

    def _act(self, batch: Sequence[Posted], made: Sequence[Change], now_ms: int) -> None:
        """Everything is on disk."""
        for order_id, order in self._ahead.items():
            self.tally.changed(_counted(self._open[order_id]), _counted(order))
            self.places.changed(self._open[order_id], order)
            self._open[order_id] = order
            self._agenda.plan(order_id, now_ms)
        for posted in batch:
            if isinstance(posted.event, ProviderReplied) and self._ask_first_until_ms.pop(posted.order_id, 0):
                self._agenda.plan(posted.order_id, now_ms)
        for change in made:
            if isinstance(change.event, InvoiceDecoded):
                self._doubt_clock(change.event, now_ms)
            self.ways.changed(change.step.order, change.step.attempts)
            _log_step(change.before, change.event, change.step)
        for order_id in self._ahead:
            self._announce(order_id)
            self._reconcile(order_id, {posted.task for posted in batch if posted.order_id == order_id})
        for posted in batch:
            self._answer(posted)
        self._give_place()

    def take_limits(self, limits: Limits) -> None:
        """Of a configuration that was read again."""
        self.limits = limits
        self._deny_places()

    def _deny_places(self) -> None:
        """To those that wait, and that the configuration does not allow any more. Before any place is given: nobody
        would ever get one behind those that are too big for one."""
        waiting = self.first_waiting(self.places.waiting)
        if not waiting:
            return
        now_ms, clients = self.clock.now_ms(), {order.request.client for order in waiting}
        budgets = [budget for client, budget in self.limits.budgets.items() if client in clients]
        # Where it cannot be read, what is not allowed would get its place.
        with self._ending_the_process():
            usages = {budget.client: self.store.budget_usage(budget, now_ms) for budget in budgets}
            totals = self.totals()
        for order, reason in denials(waiting, self.places, self.policy, self.limits, totals, usages):
            self.tell(order.id, PlaceDenied(reason))

    def _give_place(self) -> None:
        """To the order that waited longest, if there is room for it; the next one comes after its commit."""
        for order_id in self.places.oldest(1):
            if self.places.full(self._open[order_id].reserved_msat) is None:
                self.tell(order_id, self._place_if_room)

    def _place_if_room(self, order: Order) -> Event | None:
        """Looked at when it is decided: until then another one may have taken the place."""
        if self.places.position(order) != 1:
            return None
        ahead = Tally()
        for order_id, after in self._ahead.items():
            ahead.changed(_counted(self._open[order_id]), _counted(after))
        return PlaceGiven() if self.places.full(order.reserved_msat, ahead) is None else None

    def _answer(self, posted: Posted) -> None:
        if posted.result is None:
            return
        try:
            posted.answer(self._latest(posted.order_id) or self.store.get(posted.order_id))
        except Exception as error:  # noqa: BLE001 - it is told to whoever waits
            posted.fail(error)

    def _decided(self, order: Order, event: Event, now_ms: int) -> tuple[Event, Step]:
        """What becomes of the order; where we contradict ourselves about it, it is put aside and the others go on."""
        try:
            return event, decide(order, event, self.policy, now_ms)
        except Exception as error:  # noqa: BLE001 - a defect of ours about one order, whatever it is
            aside = _contradiction(order.id, error)
            return aside, decide(order, aside, self.policy, now_ms)

    def quarantine(self, order_id: str, error: Exception) -> None:
        """Puts one order aside, for good, and lets the others go on."""
        self.tell(order_id, _contradiction(order_id, error))

    @contextlib.contextmanager
    def _ending_the_process(self) -> Iterator[None]:
        """A failed commit, or a contradiction about writing, ends the process whoever the caller is (law 1).

        From then on nothing is decided or written any more: what is in memory may not be what is on disk.
        """
        self._supervisor.check()
        try:
            yield
        except (StoreError, InvariantViolation) as error:
            self._supervisor.fail(error)
            raise

    def _opened(self, order: Order) -> None:
        self._open[order.id] = order
        self._live[order.request.id] = order.id
        self.tally.changed(None, _counted(order))
        self.places.changed(None, order)
        self.ways.changed(order)
        self._agenda.plan(order.id, self.clock.now_ms())
        if self.webhooks is not None:
            self.webhooks.opened(order)

    def _reconcile(self, order_id: str, own: Collection[asyncio.Task[Any] | None] = ()) -> None:
        """``own``: tasks that have made this change; one that is over by it ends by itself."""
        order = self._open.get(order_id)
        if order is None:
            return
        wanted = duties(order)
        self._supervisor.reconcile(order_id, wanted, own)
        if Duty.POLL in wanted:
            self.asker.want(order)
        else:
            self.asker.forget(order_id)
        if order.is_closed and not order.is_going_on:
            del self._open[order_id]
            if self._live.get(order.request.id) == order_id:
                del self._live[order.request.id]
            self._agenda.forget(order_id)
            self._findings.pop(order_id, None)
            self._ask_first_until_ms.pop(order_id, None)
            if self.webhooks is not None:
                self.webhooks.closed(order)
            self.on_closed(order)

    def _announce(self, order_id: str) -> None:
        for call in tuple(self._listeners.get(order_id, ())):
            call()

    # --- what performers and the RPC ask ------------------------------------------------------------------------------

    def order(self, order_id: str) -> Order | None:
        """An open order; None once it is closed."""
        return self._open.get(order_id)

    def is_live(self, request_id: str) -> bool:
        """Whether a request is open."""
        return request_id in self._live

    def orders_out(self, most: int, client: str | None = None) -> list[Order]:
        """The oldest of those whose money is, or may be, out, of all or of a client's; ``tally`` says how many there
        are."""
        out = (order for order in self._of(client) if order.is_money_out)
        return list(islice(out, min(most, self.tally.out)))

    def first_waiting(self, most: int) -> list[Order]:
        """Those that wait longest for a place among the holds; ``places`` says how many there are."""
        return [self._open[order_id] for order_id in self.places.oldest(most)]

    def _of(self, client: str | None) -> Iterator[Order]:
        """The open orders, or those of a client."""
        return (order for order in self._open.values() if client is None or order.request.client == client)

    def totals(self) -> MoneyTotals:
        """What the limits look at, as it is on disk; no order is read for it."""
        return self.store.totals(self.clock.now_ms())

    def alarms(self) -> list[str]:
        """What an operator should look at now, of the oldest order first. A new one is seen with the next pass."""
        of_webhooks = () if self.webhooks is None else self.webhooks.alarms()
        return [
            *self.alarms_of_unreadable(),
            *self.alarms_of_configuration,
            *of_webhooks,
            *self.alarms_of_orders(),
        ]

    def alarms_of_orders(self, client: str | None = None) -> list[str]:
        """As far as they are about open orders, or those of a client."""
        having = (self._open[order_id] for order_id in self._findings)
        found = [order for order in having if client is None or order.request.client == client]
        ordered = sorted(found, key=lambda o: (o.created_at_ms, o.id))
        return [text for order in ordered for text in self.alarms_of(order)]

    def alarms_of(self, order: Order) -> tuple[str, ...]:
        """What an operator should look at now, of one order."""
        return alarms(order, self.policy, self.clock.now_ms(), self.guard.sight(order))

    def held_up_by(self, order_id: str) -> str:
        """What is in the way of a payment, or of an order's end, as far as it is known. Empty: nothing."""
        return self._performers.held_up_by(order_id)

    async def until_changed(self, order_id: str, within_s: float | None) -> None:
        """Returns at the next change of the order, or when that time is over."""
        changed = asyncio.Event()
        with contextlib.suppress(TimeoutError), self.listening(order_id, changed.set):
            async with asyncio.timeout(within_s):
                await changed.wait()

    @contextlib.contextmanager
    def listening(self, order_id: str, call: Callable[[], object]) -> Iterator[None]:
        """``call`` is called after each change of the order meanwhile."""
        calls = self._listeners.setdefault(order_id, [])
        calls.append(call)
        try:
            yield
        finally:
            calls.remove(call)
            if not calls:
                del self._listeners[order_id]

    @contextlib.contextmanager
    def watching(self, request_id: str) -> Iterator[None]:
        """A client follows the request meanwhile."""
        self._watchers[request_id] += 1
        self.asker.look_again(self._live.get(request_id, request_id))
        try:
            yield
        finally:
            self._watchers[request_id] -= 1
            if not self._watchers[request_id]:
                del self._watchers[request_id]

    def is_watched(self, order: Order) -> bool:
        """Whether a client follows its request now."""
        return order.request.id in self._watchers

    def hint(self, secret: str) -> bool:
        """What came to one of the daemon's webhooks. False: no open order has it."""
        order_id = None if self.webhooks is None else self.webhooks.arrived(secret)
        if order_id is None:
            return False
        self.asker.hint(order_id)
        return True

    def is_told(self, order: Order) -> bool:
        """Whether the provider hints at news of the order by itself."""
        return self.webhooks is not None and self.webhooks.is_told(order)

    def request(self, order: Order) -> Order:
        """Records a new order and begins it, or has it wait for its place; or returns the first one of its key. Raises
        KeyTaken, and LimitExceeded: where it cannot have a place, and may not wait for one, also if its key is known,
        which the caller looks up."""
        order = self._entering(order)
        with self._ending_the_process():
            recorded = self.store.create(order, self.limits, self.clock.now_ms())
        if recorded.id == order.id:
            self._opened(recorded)
            self.on_requested(recorded)
            log.info("order accepted", order_id=order.id, kind=order.spec.kind.value, max_price_sat=order.max_price_sat)
            self._reconcile(order.id)
            self._look_at_budget(order.request.client)
        return recorded

    def _look_at_budget(self, client: str) -> None:
        """Whether a new order has nearly used it up."""
        budget, now_ms = self.limits.budgets.get(client), self.clock.now_ms()
        if budget is not None:
            self.budget_warnings.look(self.store.budget_usage(budget, now_ms), now_ms)

    def _entering(self, order: Order) -> Order:
        """The same, or as one that waits for a place. Raises LimitExceeded where it may not."""
        full = None if order.request.is_prepaid else self.places.entering(order)
        if full is None:
            return order
        if self.places.is_refused(order):
            raise full
        return replace(order, waiting_since_ms=order.created_at_ms)

    def request_next(self, before: Order, order: Order) -> bool:
        """Records the next order of a request and begins it, or has it wait for its place, if the one before it is
        still as the caller has seen it. Raises LimitExceeded."""
        if self._open.get(before.id) is not before:
            return False
        order, now_ms = self._entering(order), self.clock.now_ms()
        event, step = self._decided(before, NextOrdered(), now_ms)
        with self._ending_the_process():
            self.store.create_next(Change(before, event, step), order, self.limits, now_ms)
        self._open[before.id] = step.order
        self._opened(order)
        log.info("next order of a request", order_id=order.id, nth=order.nth, max_price_sat=order.max_price_sat)
        self._announce(before.id)
        self._reconcile(before.id, {asyncio.current_task()})
        self._reconcile(order.id)
        self._look_at_budget(order.request.client)
        return True

    def _doubt_clock(self, event: InvoiceDecoded, now_ms: int) -> None:
        """A hold invoice is minutes old at most when it comes: one that has expired by then tells of a wrong clock."""
        wall_ahead_ms = event.wall_ahead_ms
        is_expired = event.invoice.expires_at_ms <= now_ms + wall_ahead_ms
        self._doubt = (now_ms + CLOCK_DOUBT_S * 1000, wall_ahead_ms) if is_expired else None

    def clock_trouble(self) -> str:
        """Why every hold invoice would be refused as expired, with what to do. Empty: it would not, as far as known."""
        if self._doubt is None:
            return ""
        until_ms, wall_ahead_ms = self._doubt
        is_set = abs(self.clock.wall_ahead_ms() - wall_ahead_ms) > 60_000
        if is_set or not 0 < until_ms - self.clock.now_ms() <= CLOCK_DOUBT_S * 1000:
            return ""
        return (
            "The latest hold invoice had expired when it came, so this machine's clock is probably wrong."
            " Set it (`timedatectl`); no restart is needed."
        )

    def alarms_of_unreadable(self) -> list[str]:
        """As ``guard.alarms``, of the open orders that cannot even be read."""
        return [_unreadable(order_id) for order_id in self._unreadable]

    async def cancel(self, request_id: str, client: str | None = None) -> Order:
        """Records the wish to cancel, of anybody or of a client that can have its own only. Raises OrderNotFound."""
        request_id = self.store.request_id(request_id, client)
        while True:
            order = await self.apply(self.store.orders_of(request_id)[-1].id, CancelRequested())
            if order.succession is not Succession.FOLLOWED:
                return order
            # The next one was made meanwhile.

    def erase_codes(self, closed_before_ms: int) -> Iterator[int]:
        """Erases codes and numbers of orders that were closed before; see OrderStore. Raises StoreError."""
        steps = self.store.erase_codes(closed_before_ms, self.clock.now_ms())
        while True:
            with self._ending_the_process():
                erased = next(steps, None)
            if erased is None:
                return
            yield erased

    def node_status(self) -> NodeStatus:
        """LND's state as it concerns us: another node than the one that paid open orders is of no use."""
        status = self.node.status
        detail = self.why_not_from(status.identity)
        return replace(status, state=NodeState.WRONG_NODE, detail=detail) if detail else status

    def why_not_from(self, node: NodeIdentity | None) -> str:
        """Why nothing is paid from the node that answers, with what to do. Empty: it may be; see ``may_pay_from``."""
        foreign = self._foreign_payer(node)
        if foreign is None or node is None:
            return ""
        return (
            f"The node at lnd.address is {node.pubkey[:16]}…, and open orders were paid from {foreign.pubkey[:16]}…."
            " Point lnd.address at that node again; nothing is asked or paid until then."
        )

    def standing_of(self, payee: str) -> Standing:
        """What the record of payees says of one, where it decides."""
        is_asked = self.policy.payee_check is PayeeCheck.FIRST_USE
        return self.store.standing_of(payee) if is_asked else Standing.TRUSTED

    def may_pay_from(self, node: NodeIdentity) -> bool:
        """Not while money of an open order is out from another node: nothing new is paid until the operator decides."""
        return self._foreign_payer(node) is None

    def _foreign_payer(self, identity: NodeIdentity | None) -> NodeIdentity | None:
        if identity is None:
            return None
        # Also what this step has made of another order, for an intent that is looked at in it.
        ahead = Tally()
        for order in self._ahead.values():
            ahead.changed(None, order)
        return self.tally.payer_besides(identity) or ahead.payer_besides(identity)


def _unreadable(order_id: str) -> str:
    return f"order {order_id}: quarantined, since its row in the database makes no sense; see `holdpayd check`"


def _keys(found: Collection[Finding]) -> set[tuple[str, HoldLevel]]:
    return {(finding.key, finding.level) for finding in found}


def _counted(order: Order) -> Order | None:
    """As the tally counts them: one that is closed is not open, whatever follows it."""
    return None if order.is_closed else order


def _contradiction(order_id: str, error: Exception) -> OrderQuarantined:
    log.error("holdpay contradicted itself about an order", order_id=order_id, exc_info=error)
    # Another error's own words may hold what is secret.
    if isinstance(error, InvariantViolation):
        return OrderQuarantined(error.message)
    return OrderQuarantined(f"a defect of holdpay ({type(error).__name__})")


def _log_step(before: Order, event: Event, step: Step) -> None:
    order = step.order
    has_moved = (before.state, before.htlc, before.is_closed) != (order.state, order.htlc, order.is_closed)
    # What makes it worse is an alarm.
    is_well_again = isinstance(event, HoldLevelChanged) and event.level is HoldLevel.OK
    if not has_moved and not step.notes and not is_well_again:
        return
    facts: dict[str, object] = {"order_id": order.id}
    if order.payment is not None:
        facts["payment_hash"] = order.payment.payment_hash[:8]
    for note in step.notes:
        log.warning("anomaly", **facts, note=note)
    if is_well_again:
        log.info("the hold is in time again", **facts)
    if not has_moved:
        return
    facts |= {"event_type": type(event).__name__, "state": order.state.value, "htlc": order.htlc.value}
    facts["phase"] = phase(order)
    if order.end is None:
        log.info("order moved", **facts)
    else:
        log.info("order closed", **facts, end=order.end.value, spent_msat=order.spent_msat)
