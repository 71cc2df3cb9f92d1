"""Mistakes that a tired engineer could make around the core, each as a patch of the real engine or store."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from unittest.mock import patch

from holdpay.core import events as ev
from holdpay.core import machine, step
from holdpay.core.charge import ChargeState
from holdpay.core.duties import Duty, spec_of
from holdpay.core.items import Item, ItemKind, Keeper
from holdpay.core.lightning import LndMessage, Lost, NodeIdentity
from holdpay.core.model import Order
from holdpay.core.outstanding import NOTHING
from holdpay.core.states import End, OrderState
from holdpay.engine import asking, performers, ways
from holdpay.engine.asking import Asker
from holdpay.engine.desk import Desk
from holdpay.engine.engine import Engine
from holdpay.engine.performers import Followed, Performers
from holdpay.engine.supervisor import Key, Supervisor
from holdpay.engine.tally import Tally
from holdpay.engine.turn import Making, Posted
from holdpay.engine.wanted import Asked, Wanted
from holdpay.errors import ProviderError, ProviderUnavailable, StoreError
from holdpay.ports import Change, Limits, Slot, Update
from holdpay.store import budgets
from holdpay.store import store as store_module
from holdpay.store.changes import change
from holdpay.store.database import transaction
from holdpay.store.outstanding import OutstandingOf
from holdpay.store.rows import to_row
from holdpay.store.store import SqliteStore
from tests.simulation.core import Outcome
from tests.simulation.shell import ShellSimulation
from tests.simulation.shell_faults import ShellFaults, draw_shell

Plant = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Bug:
    """A mistake, and the fault without which it cannot show, with the least chance that is worth a run."""

    plant: Plant
    fault: str | None
    least_chance: float

    def may_show(self, faults: ShellFaults) -> bool:
        return self.fault is None or getattr(faults, self.fault) >= self.least_chance


BUGS: dict[str, Bug] = {}


def bug(fault: str | None = None, least_chance: float = 0.001) -> Callable[[Plant], Plant]:
    def register(plant: Plant) -> Plant:
        BUGS[plant.__name__] = Bug(plant, fault, least_chance)
        return plant

    return register


def hunt(name: str, seeds: range) -> Outcome | None:
    """The first seed that catches the bug."""
    with BUGS[name].plant():
        for seed in seeds:
            if BUGS[name].may_show(draw_shell(Random(seed))):
                outcome = ShellSimulation(seed).run()
                if outcome.violation:
                    return outcome
    return None


# --- commit, then act -----------------------------------------------------------------------------------------------


@bug()
def a_payment_is_sent_before_the_commit() -> AbstractContextManager[Any]:
    """What is sent is written down afterwards."""

    async def not_yet(self: Performers, order_id: str, payer: NodeIdentity) -> None:
        return None

    async def hasty(self: Performers, order: Order) -> Followed:
        assert order.payment is not None
        payer = NodeIdentity(order.payment.node_pubkey, order.payment.node_network)
        if self._engine.node.identity != payer:
            return Followed(may_go_on=False)
        spec = spec_of(order, self._engine.policy, self._engine.clock.now_ms())
        stream = self._engine.node.send(spec, payer)
        first = await anext(stream)
        await self._engine.apply(order.id, ev.DispatchIntended(payer))
        await self._engine.apply(order.id, performers._event_of(first))
        return await self._follow(order.id, stream)

    return patch.multiple(Performers, _intend=not_yet, _dispatch=hasty)


@bug("store_error", 0.1)
def a_failed_commit_is_logged_and_ignored() -> AbstractContextManager[Any]:
    """The database has hiccups, and the daemon is busy."""
    step = Engine._step

    def careless(self: Engine, batch: Sequence[Posted]) -> None:
        now_ms = self.clock.now_ms()
        try:
            step(self, batch)
        except StoreError:
            made: list[Change] = []
            deque(self._changes_of(batch, made, now_ms), maxlen=0)
            self._act(batch, made, now_ms)
            self._ahead = {}

    @contextlib.contextmanager
    def planted() -> Iterator[None]:
        with patch.object(Engine, "_step", careless), patch.object(Supervisor, "fail", lambda self, error: None):
            yield

    return planted()


@bug("store_error", 0.1)
def the_others_go_on_after_a_failed_commit() -> AbstractContextManager[Any]:
    """The process ends soon enough."""

    @contextlib.contextmanager
    def ending(self: Engine) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            self._supervisor.fail(error)
            raise

    return patch.object(Engine, "_ending_the_process", ending)


@bug()
def a_code_is_kept_in_memory_until_the_next_commit() -> AbstractContextManager[Any]:
    """The client has it; the next step will store it anyway."""
    apply = Engine.apply

    async def lazy(self: Engine, order_id: str, event: ev.Event | Making, raw: str | None = None) -> Order:
        order = self._open.get(order_id)
        if order is not None and isinstance(event, ev.ProviderReplied) and event.status.code is not None:
            keeper = Keeper(order.items, self.clock.now_ms())
            order.spec.keep(keeper, event.status)
            self._open[order_id] = replace(order, items=keeper.items)
            return self._open[order_id]
        return await apply(self, order_id, event, raw)

    return patch.object(Engine, "apply", lazy)


# --- the events of one turn together --------------------------------------------------------------------------------


@bug()
def a_step_is_acted_upon_before_it_is_on_disk() -> AbstractContextManager[Any]:
    """The disk is slow, so it is written a moment later."""

    def hasty(self: Engine, batch: Sequence[Posted]) -> None:
        now_ms = self.clock.now_ms()
        made: list[Change] = []
        deque(self._changes_of(batch, made, now_ms), maxlen=0)
        self._act(batch, made, now_ms)
        self._ahead = {}
        asyncio.get_running_loop().call_later(0.05, write, self, made, now_ms)

    def write(self: Engine, made: list[Change], now_ms: int) -> None:
        with contextlib.suppress(StoreError), self._ending_the_process():
            self.store.commit_all(made, now_ms)

    return patch.object(Engine, "_step", hasty)


@bug()
def of_several_changes_only_the_first_is_written() -> AbstractContextManager[Any]:
    """There is one transaction, and one row."""
    commit_all = SqliteStore.commit_all

    def first(self: SqliteStore, changes: Iterable[Change], now_ms: int) -> list[int]:
        return commit_all(self, list(changes)[:1], now_ms)

    return patch.object(SqliteStore, "commit_all", first)


@bug()
def an_orders_second_event_is_decided_against_the_order_before_both() -> AbstractContextManager[Any]:
    """What is in memory is what is on disk."""
    return patch.object(Engine, "_latest", lambda self, order_id: self._open.get(order_id))


# --- the database ---------------------------------------------------------------------------------------------------


@bug("crash")
def order_and_journal_are_two_transactions() -> AbstractContextManager[Any]:
    """Each is a transaction, so both are durable."""
    commit_all = SqliteStore.commit_all

    def twice(self: SqliteStore, changes: Iterable[Change], now_ms: int) -> list[int]:
        changes = list(changes)
        with transaction(self._conn):
            for made in changes:
                before, after = made.before, made.step.order
                self._update(self._row(before.id), before, after, change(before, after).order)
        return commit_all(self, changes, now_ms)

    return patch.object(SqliteStore, "commit_all", twice)


@bug()
def a_commit_is_a_savepoint_of_an_open_transaction() -> AbstractContextManager[Any]:
    """It ends without an error, and is gone after a kill."""

    @contextlib.contextmanager
    def nested(conn: Any) -> Iterator[None]:
        if not conn.in_transaction:
            conn.execute("BEGIN")
        conn.execute("SAVEPOINT step")
        try:
            yield
        except BaseException:
            conn.execute("ROLLBACK TO step")
            raise
        conn.execute("RELEASE step")

    return patch.object(store_module, "transaction", nested)


@bug()
def attempts_are_not_stored() -> AbstractContextManager[Any]:
    """LND has them."""
    write = SqliteStore._write_change

    def frugal(self: SqliteStore, made: Change, now_ms: int) -> Update:
        return write(self, replace(made, step=replace(made.step, attempts=())), now_ms)

    return patch.object(SqliteStore, "_write_change", frugal)


@bug()
def a_message_is_lost_on_restart() -> AbstractContextManager[Any]:
    """Items are written once, with the first that comes."""
    write = SqliteStore._write_items

    def once(self: SqliteStore, row: Any, before: tuple[Item, ...], after: Order, cursor: int) -> None:
        if not any(item.kind is ItemKind.MESSAGE for item in before):
            write(self, row, before, after, cursor)

    return patch.object(SqliteStore, "_write_items", once)


@bug()
def a_charge_is_written_once() -> AbstractContextManager[Any]:
    """With its intent; what becomes of it stands in the journal."""
    return patch.object(
        SqliteStore, "_write_charge", lambda self, row, before, after, changed: _first(self, row.no, before, after)
    )


def _first(store: SqliteStore, no: int, before: Order | None, after: Order) -> None:
    if after.charge is not None and (before is None or before.charge is None):
        store._add("charges", {"order_no": no, **to_row(after.charge)})


# --- the supervisor -------------------------------------------------------------------------------------------------


def _never_ends(is_believed_alive: Callable[[asyncio.Task[None]], bool]) -> AbstractContextManager[Any]:
    ended = Supervisor._ended

    def forgetful(self: Supervisor, key: Key, task: asyncio.Task[None]) -> None:
        if not is_believed_alive(task):
            ended(self, key, task)

    return patch.object(Supervisor, "_ended", forgetful)


@bug("defect")
def a_duty_that_died_is_not_started_again() -> AbstractContextManager[Any]:
    """Its task is still in the table."""
    return _never_ends(lambda task: not task.cancelled() and isinstance(task.exception(), RuntimeError))


@bug("stray_cancel", 0.02)
def a_closed_channel_ends_the_duty() -> AbstractContextManager[Any]:
    """CancelledError means that somebody wanted it to end."""
    return _never_ends(lambda task: task.cancelled())


@bug()
def two_tasks_do_the_same_duty() -> AbstractContextManager[Any]:
    """Each reconcile starts the payment's duty, whether it runs or not."""
    start = Supervisor._start

    def eager(self: Supervisor, key: Key) -> None:
        start(self, key)
        if key[1] is Duty.PAY and not self._is_over:
            twin = asyncio.create_task(self._performers.perform(*key), name=f"{key[1].value} {key[0]} again")
            self._stopped.add(twin)

    return patch.object(Supervisor, "_start", eager)


@bug("stop")
def stopping_leaves_tasks_behind() -> AbstractContextManager[Any]:
    """The loop ends soon."""

    async def quick(self: Supervisor) -> None:
        self._is_over = True

    return patch.object(Supervisor, "stop", quick)


# --- engine and performers ------------------------------------------------------------------------------------------


@bug()
def open_orders_are_not_taken_over() -> AbstractContextManager[Any]:
    """New orders work fine."""
    return patch.object(Engine, "take_over", lambda self: None)


@bug()
def only_orders_that_were_paid_are_taken_over() -> AbstractContextManager[Any]:
    """Without an invoice there is nothing to lose."""
    open_orders = SqliteStore.open_orders

    def paid(self: SqliteStore) -> list[Order]:
        return [order for order in open_orders(self) if order.payment is not None]

    return patch.object(SqliteStore, "open_orders", paid)


@bug("garbage", 0.02)
def a_poll_that_failed_waits_for_ever() -> AbstractContextManager[Any]:
    """After an error the next poll waits for a change of the order, which only a poll could bring."""
    return patch.object(asking, "PROVIDER_RETRY_S", (10**9,))


@bug()
def a_question_that_was_answered_is_the_last_one() -> AbstractContextManager[Any]:
    """The next one comes with the next change of the order."""

    def forgetful(self: Asker, entry: asking._Entry, slot: Slot) -> None:
        slot.done()
        entry.is_out = False

    return patch.object(Asker, "_ended", forgetful)


@bug("wrong_node")
def a_node_that_cannot_be_asked_is_asked_again_at_once() -> AbstractContextManager[Any]:
    """It will be back any moment."""
    return patch.object(performers, "LND_RETRY_S", (0,))


@bug()
def a_lost_stream_is_not_taken_up_again() -> AbstractContextManager[Any]:
    """The payment's duty ends with its stream."""
    follow = Performers._follow

    async def content(self: Performers, order_id: str, stream: AsyncGenerator[LndMessage, None]) -> Followed:
        followed = await follow(self, order_id, stream)
        if not followed.may_go_on:
            await asyncio.Event().wait()
        return followed

    return patch.object(Performers, "_follow", content)


@bug("lnd_down", 0.1)
def an_unreachable_lnd_is_taken_for_a_failed_payment() -> AbstractContextManager[Any]:
    """A Track that could not even be asked says that the payment is not there."""
    event_of = performers._event_of

    def hasty(message: LndMessage) -> ev.Event:
        return ev.PaymentNotFound() if isinstance(message, Lost) else event_of(message)

    return patch.object(performers, "_event_of", hasty)


@bug()
def a_client_that_leaves_cancels_its_order() -> AbstractContextManager[Any]:
    """The request was canceled, so its order is forgotten."""
    request = Engine.request

    def forgetting(self: Engine, *args: Any) -> Order:
        recorded = request(self, *args)
        if len(self._open) > 1:
            del self._open[next(iter(self._open))]
        return recorded

    return patch.object(Engine, "request", forgetting)


@bug()
def fulfilled_orders_are_not_taken_over() -> AbstractContextManager[Any]:
    """What was bought is here."""
    open_orders = SqliteStore.open_orders

    def waiting(self: SqliteStore) -> list[Order]:
        return [order for order in open_orders(self) if order.state is not OrderState.DELIVERED]

    return patch.object(SqliteStore, "open_orders", waiting)


# --- what is counted -------------------------------------------------------------------------------------------------


@bug()
def what_comes_back_is_still_counted_as_out() -> AbstractContextManager[Any]:
    """What goes out is added."""
    changed = Tally.changed

    def adding(self: Tally, before: Order | None, after: Order | None) -> None:
        if after is not None:
            changed(self, before, after)

    return patch.object(Tally, "changed", adding)


@bug()
def what_an_ended_order_might_have_cost_is_given_free_twice() -> AbstractContextManager[Any]:
    """When its money is back, and when it is closed."""
    carried = OutstandingOf.changed

    def generous(self: OutstandingOf, before: Order | None, after: Order) -> None:
        carried(self, before, after)
        if before is not None and after.is_closed and not before.is_closed:
            carried(self, before, after)

    return patch.object(OutstandingOf, "changed", generous)


@bug("kill", 0.03)
def what_was_open_before_a_restart_may_cost_nothing() -> AbstractContextManager[Any]:
    """What this process has made is what counts."""
    begin = OutstandingOf.__init__

    def fresh(self: OutstandingOf, conn: Any) -> None:
        begin(self, conn)
        self._known = {}

    return patch.object(OutstandingOf, "__init__", fresh)


# --- the account ----------------------------------------------------------------------------------------------------


@bug()
def a_prepaid_order_is_placed_before_the_commit() -> AbstractContextManager[Any]:
    """What is placed is written down afterwards."""

    async def hasty(self: Performers, order: Order) -> None:
        reply = await self._engine.provider.place(order.spec.placing(is_prepaid=True))
        await self._engine.apply(order.id, ev.ChargeIntended(None))
        await self._engine.apply(order.id, ev.OrderPlaced(reply.value.provider_order_id, None), raw=reply.raw)

    return patch.object(Performers, "_place_prepaid", hasty)


@bug("lost_reply", 0.1)
def a_lost_reply_of_a_prepaid_order_is_taken_for_a_no() -> AbstractContextManager[Any]:
    """No answer came, so nothing was ordered."""
    failed = performers._charging_failed
    return patch.object(performers, "_charging_failed", lambda error: replace(failed(error), is_sure=True))


@bug("error_after", 0.3)
def a_failure_that_names_a_pause_is_taken_for_a_no() -> AbstractContextManager[Any]:
    """It says when to come back, so it has done nothing."""
    failed = performers._charging_failed

    def hasty(error: ProviderError) -> ev.PlacingFailed:
        names_pause = isinstance(error, ProviderUnavailable) and error.retry_after_s is not None
        return replace(failed(error), is_sure=True) if names_pause else failed(error)

    return patch.object(performers, "_charging_failed", hasty)


@bug("defect", 0.1)
def a_prepaid_order_is_placed_again_by_the_next_task() -> AbstractContextManager[Any]:
    """The intent is on disk, so it may be placed."""
    place = Performers._place_prepaid

    async def again(self: Performers, order: Order) -> None:
        if order.charge is not None and order.charge.state is ChargeState.INTENDED:
            await self._charge(order)
        else:
            await place(self, order)

    return patch.object(Performers, "_place_prepaid", again)


@bug("lost_reply", 0.1)
def a_balance_that_another_order_moved_is_believed() -> AbstractContextManager[Any]:
    """The balance is what it was."""
    return patch.object(SqliteStore, "has_moved_balance_since", lambda self, at_ms, besides: False)


@bug()
def any_client_may_put_money_into_the_account() -> AbstractContextManager[Any]:
    """Its budget bounds that, too."""
    return patch.object(Desk, "_check_allowed", lambda self, asked, wanted: None)


# --- places for holds -------------------------------------------------------------------------------------------------


@bug()
def a_place_is_given_before_the_commit() -> AbstractContextManager[Any]:
    """There is room: the order goes on, and the next step will write it down."""

    def hasty(self: Engine) -> None:
        for order_id in self.places.oldest(1):
            order = self._open[order_id]
            if self.places.full(order.reserved_msat) is None:
                after = replace(order, waiting_since_ms=None)
                self.tally.changed(order, after)
                self.places.changed(order, after)
                self._open[order_id] = after
                self._reconcile(order_id)

    return patch.object(Engine, "_give_place", hasty)


@bug()
def two_orders_get_the_same_place() -> AbstractContextManager[Any]:
    """Both are told of it in the same turn."""

    def generous(self: Engine) -> None:
        for order_id in self.places.oldest(2):
            if self.places.full(self._open[order_id].reserved_msat) is None:
                self._turn.post(Posted(order_id=order_id, event=ev.PlaceGiven()))

    return patch.object(Engine, "_give_place", generous)


@bug()
def a_closed_order_keeps_its_place() -> AbstractContextManager[Any]:
    """What has ended is counted no more, but for its place."""
    changed = Tally.changed

    def careless(self: Tally, before: Order | None, after: Order | None) -> None:
        placed = self.placed
        changed(self, before, after)
        if after is None:
            self.placed = max(placed, self.placed)

    return patch.object(Tally, "changed", careless)


@bug()
def what_lnd_has_not_told_of_yet_is_on_no_channel() -> AbstractContextManager[Any]:
    """A payment counts where its attempts are."""
    parts = ways._parts
    return patch.object(ways, "_parts", lambda *of: [part for part in parts(*of) if part[0] is not None])


# --- budgets ----------------------------------------------------------------------------------------------------------


@bug()
def a_budget_counts_only_what_is_spent() -> AbstractContextManager[Any]:
    """What is pending is no money spent."""
    return patch.object(OutstandingOf, "client", lambda self, client: NOTHING)


@bug()
def an_order_that_follows_another_needs_no_room() -> AbstractContextManager[Any]:
    """The one before it had its room, and cost nothing."""
    check = SqliteStore._check_limits

    def of_first_ones(self: SqliteStore, order: Order, limits: Limits, now_ms: int) -> None:
        if order.nth == 1:
            check(self, order, limits, now_ms)

    return patch.object(SqliteStore, "_check_limits", of_first_ones)


@bug()
def only_a_clients_own_limits_are_looked_at() -> AbstractContextManager[Any]:
    """They are the tighter ones."""
    return patch.object(Limits, "reached_by", lambda *of: None)


@bug()
def a_budget_is_looked_at_before_the_provider_is_asked() -> AbstractContextManager[Any]:
    """Why ask for the price if there is no budget left?"""
    submit = Desk.submit

    async def early(self: Desk, asked: Asked, wanted: Wanted) -> Order:
        engine, budget = self._engine, self._engine.limits.budgets.get(asked.client)
        if budget is not None and engine.store.find_key(asked.key, asked.client) is None:
            reached = engine.store.over_budget(budget, engine.clock.now_ms(), 2_060_000, 20_000)
            if reached is not None:
                raise reached
        return await submit(self, asked, wanted)

    def all_together(self: SqliteStore, order: Order, limits: Limits, now_ms: int) -> None:
        if (reached := limits.reached_by(self.totals(now_ms), order.reserved_msat)) is not None:
            raise reached

    @contextlib.contextmanager
    def planted() -> Iterator[None]:
        with patch.object(Desk, "submit", early), patch.object(SqliteStore, "_check_limits", all_together):
            yield

    return planted()


@bug()
def what_was_reserved_counts_also_when_the_money_is_back() -> AbstractContextManager[Any]:
    """What was reserved once was as good as spent."""
    ever = budgets.SPENT_BY_CLIENT.replace("what = 'spend'", "what IN ('spend', 'reserve')")
    return patch.object(budgets, "SPENT_BY_CLIENT", ever)


# --- requests that go on ----------------------------------------------------------------------------------------------


@bug()
def the_next_order_is_made_as_soon_as_the_provider_says_canceled() -> AbstractContextManager[Any]:
    """The money will come back in seconds."""
    answered = machine._cancel_answered

    def hasty(order: Order, event: ev.CancelAnswered, ctx: Any) -> Order:
        after = answered(order, event, ctx)
        is_moving_on = event.accepted and order.moved_on is not None and after.state is OrderState.CANCELED
        return step.close(after, End.REFUNDED, "canceled", ctx) if is_moving_on else after

    return patch.dict(machine._HANDLERS, {ev.CancelAnswered: hasty})


@bug()
def whatever_an_order_ended_with_the_next_one_follows() -> AbstractContextManager[Any]:
    """A request has so many attempts: a late code of an earlier order is not looked at."""

    def always(order: Order, now_ms: int) -> bool:
        return order.request.strategy is not None and order.request.strategy.may_follow(order, now_ms)

    return patch.object(machine, "goes_on", always)
