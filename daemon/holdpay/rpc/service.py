"""The Holdpay service: reads the request, asks the desk, the engine or the store, writes the answer."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from holdpay import __version__
from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay._pb.v1 import holdpay_pb2_grpc as pb_grpc
from holdpay.core import guard
from holdpay.core.budget import Budget
from holdpay.core.explain import Beside, Explanation, explain
from holdpay.core.history import Moment, history
from holdpay.core.machine import may_be_canceled
from holdpay.core.model import OPERATOR, Order
from holdpay.core.stats import lines
from holdpay.engine.account import Account
from holdpay.engine.desk import Desk
from holdpay.engine.engine import Engine
from holdpay.errors import InvalidRequest, NotAllowed, OrderNotFound
from holdpay.ports import MOST_OUTCOMES, HookDesk, MoneyTotals, NodeState, OrderFilter, Update
from holdpay.rpc import convert
from holdpay.rpc.budget import budget_to_pb
from holdpay.rpc.catalog import CatalogCalls
from holdpay.rpc.checks import answer_to_pb
from holdpay.rpc.feed import Feed
from holdpay.rpc.hooks import hook_to_pb
from holdpay.rpc.kinds import asked_from_pb, kind_from_pb, wanted_from_pb
from holdpay.rpc.stats import stats_by_from_pb, stats_to_pb
from holdpay.rpc.status import Context, stream, unary
from holdpay.rpc.streams import Streams

BATCH = 100
DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 64
"""It holds up the event loop, and whoever waits for it, for some 6 ms."""
MAX_PAGE_BYTES = 2 * 1024 * 1024
MAX_HISTORY = 500
MAX_OUT = 20
MAX_BUDGET_ORDERS = 500
_TOKEN = re.compile(r"([0-9]{1,18}):([a-z0-9-]{1,64})")
"""Where a page ended: created_at_ms (SQLite's integers have 64 bits) and request id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What GetStatus says of the process itself."""

    started_at_ms: int
    state_dir: str
    config_path: str


class HoldpayService(pb_grpc.HoldpayServicer):
    """See protos/holdpay/v1/holdpay.proto for the contract of each method."""

    def __init__(
        self,
        *,
        engine: Engine,
        desk: Desk,
        catalog: CatalogCalls,
        account: Account,
        feed: Feed,
        streams: Streams,
        about: About,
        hooks: HookDesk,
        client: str = OPERATOR,
    ) -> None:
        """``client``: who asks on this service's socket."""
        self._client = client
        self._sees = None if client == OPERATOR else client
        """Whose requests it may have. None: everybody's."""
        self._engine = engine
        self._desk = desk
        self._catalog = catalog
        self._account = account
        self._feed = feed
        self._streams = streams
        self._about = about
        self._hooks = hooks
        self._one_at_a_time = asyncio.Lock()
        """Of what takes seconds in another thread."""

    # --- requests -----------------------------------------------------------------------------------------------------

    @stream
    async def Submit(self, request: pb.SubmitRequest, context: Context) -> AsyncGenerator[pb.RequestUpdates, None]:
        with self._streams.one():
            order = await self._desk.submit(asked_from_pb(request, self._client), wanted_from_pb(request))
            with self._engine.watching(order.request.id):
                async for updates in self._updates(0, order.request.id):
                    yield updates

    @unary
    async def CheckRequest(self, request: pb.SubmitRequest, context: Context) -> pb.CheckReport:
        return answer_to_pb(await self._desk.check(asked_from_pb(request, self._client), wanted_from_pb(request)))

    @unary
    async def VetInvoice(self, request: pb.VetInvoiceRequest, context: Context) -> pb.CheckReport:
        max_price_sat = request.max_price_sat if request.HasField("max_price_sat") else None
        max_fee_sat = request.max_fee_sat if request.HasField("max_fee_sat") else None
        return answer_to_pb(await self._desk.vet(request.invoice, max_price_sat, max_fee_sat, self._client))

    @unary
    async def GetRequest(self, request: pb.GetRequestRequest, context: Context) -> pb.Request:
        if request.WhichOneof("by") != "idempotency_key":
            return self._whole(self._orders(request.request_id))
        found = self._engine.store.find_key(request.idempotency_key, self._client)
        if found is None:
            raise OrderNotFound("There is no order of this idempotency key.")
        return self._whole(self._all_of(found))

    @unary
    async def ListRequests(self, request: pb.ListRequestsRequest, context: Context) -> pb.ListRequestsResponse:
        _check_filter(request)
        if self._sees is not None and request.client not in {"", self._sees}:
            return pb.ListRequestsResponse()
        page_size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        orders = self._engine.store.list_orders(
            OrderFilter(
                client=self._sees or request.client or None,
                open_only=request.open_only,
                closed_only=request.closed_only,
                kind=kind_from_pb(request.kind) or "",
                end=convert.end_from_pb(request.end),
                created_from_ms=request.created_from_ms if request.HasField("created_from_ms") else None,
                created_before_ms=request.created_before_ms if request.HasField("created_before_ms") else None,
                before=_read_token(request.page_token),
                limit=page_size + 1,
            )
        )
        requests: list[pb.Request] = []
        size, cursor = 0, self._engine.store.last_cursor()
        for order in orders[:page_size]:
            requests.append(self._to_pb(self._all_of(order), cursor))
            size += requests[-1].ByteSize()
            if size > MAX_PAGE_BYTES:
                break
        is_more = len(orders) > len(requests)
        token = _write_token(orders[len(requests) - 1]) if is_more else ""
        return pb.ListRequestsResponse(requests=requests, next_page_token=token)

    @unary
    async def ListItems(self, request: pb.ListItemsRequest, context: Context) -> pb.ListItemsResponse:
        return convert.items_after(convert.items_of(self._orders(request.request_id)), request.after_seq)

    @stream
    async def WatchRequests(
        self, request: pb.WatchRequestsRequest, context: Context
    ) -> AsyncGenerator[pb.RequestUpdates, None]:
        store = self._engine.store
        request_id = store.request_id(request.request_id, self._sees) if request.request_id else None
        after = request.after_cursor if request.HasField("after_cursor") else store.last_cursor()
        if after < 0:
            raise InvalidRequest("A cursor is never negative. Use 0 to read from the beginning.", field="after_cursor")
        if request_id is None and after > (last := store.last_cursor()):
            raise InvalidRequest(
                f"Cursor {after} is ahead of the journal, which ends at {last}: it is of an earlier database."
                " Use 0 to read from the beginning.",
                field="after_cursor",
                last_cursor=last,
            )
        watching = contextlib.nullcontext() if request_id is None else self._engine.watching(request_id)
        with self._streams.one(), watching:
            async for updates in self._updates(after, request_id):
                yield updates

    async def _updates(self, after_cursor: int, request_id: str | None) -> AsyncGenerator[pb.RequestUpdates, None]:
        """Journal rows, then new ones as they come, told together; of one request up to its terminal one."""
        cursor, store = after_cursor, self._engine.store
        while True:
            commit = self._feed.next_commit(request_id, self._sees)
            if request_id is None:
                updates = store.updates(cursor, None, BATCH, self._sees)
            else:
                updates = _to_the_end(store.request_updates(cursor, request_id, BATCH))
            for message in convert.in_few(self._to_update(update) for update in updates):
                yield message
            if updates:
                cursor = updates[-1].cursor
                if request_id is not None and updates[-1].order.ends_request:
                    return
            if self._feed.is_stopping:
                last = pb.RequestUpdate(cursor=cursor, at_ms=self._engine.clock.now_ms(), shutting_down=True)
                yield pb.RequestUpdates(updates=[last])
                return
            if request_id is not None and not updates and not self._engine.is_live(request_id):
                # Nothing more will come: the cursor lies at or behind the terminal update.
                return
            if len(updates) < BATCH:
                await commit.wait()

    def _to_update(self, update: Update) -> pb.RequestUpdate:
        return convert.update_to_pb(update, self._engine.policy, self._queue(update.order))

    @unary
    async def CancelRequest(self, request: pb.CancelRequestRequest, context: Context) -> pb.CancelRequestResponse:
        order = await self._engine.cancel(request.request_id, self._sees)
        return pb.CancelRequestResponse(
            request=self._to_pb(self._all_of(order)),
            message=self._cancel_message(order),
            too_late=_is_too_late(order),
        )

    def _cancel_message(self, order: Order) -> str:
        words = self._explain(order)
        if order.is_closed and not order.is_cancel_wanted_by_client:
            return f"It was over before, and there is nothing to cancel. {words.summary} {words.money}"
        if order.is_closed:
            return f"{words.summary} {words.money}"
        if order.cancel_wanted_at_ms is None and not order.is_delivered and not may_be_canceled(order):
            return (
                "It cannot be canceled: the provider has no cancel for orders of this kind, and it is paid for."
                f" {words.summary} {words.next}"
            )
        if order.cancel_wanted_at_ms is None:
            return f"It is too late to cancel. {words.summary} {words.next}"
        return words.next

    @unary
    async def ExplainRequest(self, request: pb.ExplainRequestRequest, context: Context) -> pb.ExplainRequestResponse:
        orders = self._orders(request.request_id)
        words = self._explain(orders[-1], self._lnd_trouble())
        rows = self._engine.store.request_updates(0, orders[-1].request.id, MAX_HISTORY)
        lines = history(Moment(row.at_ms, row.event, row.order, row.notes) for row in rows)
        return pb.ExplainRequestResponse(
            request=self._whole(orders),
            summary=words.summary,
            money=words.money,
            next=words.next,
            history=[pb.HistoryEntry(at_ms=line.at_ms, text=line.text) for line in lines],
        )

    def _explain(self, order: Order, lnd_trouble: str = "") -> Explanation:
        engine = self._engine
        height = engine.node.status.block_height
        held_up_by = engine.held_up_by(order.id) or engine.places.words(order, self._client)
        words = explain(order, engine.policy, engine.clock.now_ms(), lnd_trouble, height, held_up_by)
        where = guard.where(engine.guard.sight(order))
        return replace(words, money=f"{words.money} {where}") if where else words

    def _lnd_trouble(self) -> str:
        status = self._engine.node_status()
        return "" if status.state in {NodeState.READY, NodeState.SYNCING} else status.detail

    # --- what can be bought -------------------------------------------------------------------------------------------

    @unary
    async def ListCountries(self, request: pb.ListCountriesRequest, context: Context) -> pb.ListCountriesResponse:
        return self._catalog.list_countries()

    @unary
    async def ListServices(self, request: pb.ListServicesRequest, context: Context) -> pb.ListServicesResponse:
        return await self._catalog.list_services(request)

    @unary
    async def GetPrices(self, request: pb.GetPricesRequest, context: Context) -> pb.GetPricesResponse:
        return await self._catalog.get_prices(request)

    @unary
    async def ListRentals(self, request: pb.ListRentalsRequest, context: Context) -> pb.ListRentalsResponse:
        return await self._catalog.list_rentals(request)

    # --- the prepaid account ------------------------------------------------------------------------------------------

    @unary
    async def GetAccount(self, request: pb.GetAccountRequest, context: Context) -> pb.GetAccountResponse:
        self._check_account()
        return convert.balance_to_pb(await self._account.balance())

    @unary
    async def ListFunding(self, request: pb.ListFundingRequest, context: Context) -> pb.ListFundingResponse:
        self._check_account()
        return convert.funding_to_pb(await self._account.funding(), with_preimages=request.with_preimages)

    def _check_account(self) -> None:
        """Raises NotAllowed."""
        budget = self._engine.limits.budgets.get(self._client)
        if budget is not None:
            budget.check_may_fund()

    # --- budgets ------------------------------------------------------------------------------------------------------

    @unary
    async def GetBudget(self, request: pb.GetBudgetRequest, context: Context) -> pb.GetBudgetResponse:
        budgets = self._engine.limits.budgets
        wanted = request.client or self._client
        if self._sees not in {None, wanted} or (wanted and wanted not in budgets):
            raise InvalidRequest(f"There is no client {request.client} in the configuration.", field="client")
        found = [budgets[wanted]] if wanted else budgets.values()
        return pb.GetBudgetResponse(budgets=[self._budget(budget, with_orders=request.orders) for budget in found])

    def _budget(self, budget: Budget, *, with_orders: bool = False) -> pb.Budget:
        store, now_ms = self._engine.store, self._engine.clock.now_ms()
        entries = store.budget_entries(budget, now_ms, MAX_BUDGET_ORDERS + 1) if with_orders else []
        is_more = len(entries) > MAX_BUDGET_ORDERS
        return budget_to_pb(store.budget_usage(budget, now_ms), entries[:MAX_BUDGET_ORDERS], is_more=is_more)

    # --- statistics ---------------------------------------------------------------------------------------------------

    @unary
    async def GetStats(self, request: pb.GetStatsRequest, context: Context) -> pb.GetStatsResponse:
        by = stats_by_from_pb(request.by)
        async with self._one_at_a_time:
            outcomes = await asyncio.to_thread(self._engine.store.outcomes, request.since_ms, self._sees)
        return stats_to_pb(lines(outcomes, by), is_more=len(outcomes) >= MOST_OUTCOMES)

    # --- hooks --------------------------------------------------------------------------------------------------------

    @unary
    async def ListHooks(self, request: pb.ListHooksRequest, context: Context) -> pb.ListHooksResponse:
        self._check_operator()
        return pb.ListHooksResponse(hooks=[hook_to_pb(hook) for hook in self._hooks.sights()])

    @unary
    async def TestHook(self, request: pb.TestHookRequest, context: Context) -> pb.TestHookResponse:
        self._check_operator()
        trial = await self._hooks.test(request.name)
        return pb.TestHookResponse(trouble=trial.trouble, took_ms=trial.took_ms)

    @unary
    async def ReplayHook(self, request: pb.ReplayHookRequest, context: Context) -> pb.Hook:
        self._check_operator()
        if request.skip:
            return hook_to_pb(await self._hooks.skip(request.name))
        after_cursor = request.after_cursor if request.HasField("after_cursor") else None
        since_ms = request.since_ms if request.HasField("since_ms") else None
        return hook_to_pb(self._hooks.replay(request.name, after_cursor, since_ms))

    def _check_operator(self) -> None:
        """Raises NotAllowed."""
        if self._sees is not None:
            raise NotAllowed("Hooks are the operator's. Ask on the daemon's own socket.", client=self._sees)

    # --- the daemon ---------------------------------------------------------------------------------------------------

    @unary
    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        return self._status() if self._sees is None else self._status_of(self._sees)

    def _status_of(self, client: str) -> pb.GetStatusResponse:
        """What concerns a client: nobody else's orders, and of the node only whether it pays."""
        engine, now_ms = self._engine, self._engine.clock.now_ms()
        node, budget = engine.node_status(), self._budget(engine.limits.budgets[client])
        out = engine.orders_out(engine.tally.out, client)
        reason = self._desk.reason_against_orders(client)
        health = engine.provider.health
        return pb.GetStatusResponse(
            version=__version__,
            started_at_ms=self._about.started_at_ms,
            lnd=pb.LndStatus(state=node.state.value, network=node.identity.network if node.identity else ""),
            provider=pb.ProviderStatus(answered_at_ms=health.answered_at_ms),
            ready=not reason,
            not_ready_reason=reason,
            open_orders=budget.open_orders,
            alarms=[*engine.alarms_of_orders(client), *budget.warnings],
            out=self._out_to_pb(out[:MAX_OUT], now_ms),
            more_out=len(out[MAX_OUT:]),
            client=client,
            budget=budget,
        )

    def _status(self) -> pb.GetStatusResponse:
        now_ms = self._engine.clock.now_ms()
        health = self._engine.provider.health
        node, totals = self._engine.node_status(), self._engine.totals()
        out = self._engine.orders_out(MAX_OUT)
        reason = self._desk.reason_against_orders()
        return pb.GetStatusResponse(
            version=__version__,
            started_at_ms=self._about.started_at_ms,
            lnd=convert.node_to_pb(node),
            provider=pb.ProviderStatus(
                url=health.url,
                answered_at_ms=health.answered_at_ms,
                last_error=health.last_error,
                requests=health.request_count,
                requests_per_s=health.requests_per_s,
                due_questions=self._engine.asker.due_count(),
                question_delay_s=self._engine.asker.delay_s(health.requests_per_s),
            ),
            money=self._money(totals),
            ready=not reason,
            not_ready_reason=reason,
            open_orders=totals.open_orders,
            alarms=[
                *self._engine.alarms(),
                *self._account.alarms(),
                *self._hooks.alarms(),
            ],
            state_dir=self._about.state_dir,
            config_path=self._about.config_path,
            out=self._out_to_pb(out, now_ms),
            more_out=self._engine.tally.out - len(out),
            holds=convert.holds_to_pb(
                self._engine.places, self._engine.tally, self._engine.first_waiting(MAX_OUT), self._engine.policy
            ),
        )

    def _out_to_pb(self, out: Sequence[Order], now_ms: int) -> list[pb.MoneyOut]:
        engine = self._engine
        return [convert.money_out_to_pb(order, engine.policy, now_ms, engine.guard.sight(order)) for order in out]

    def _money(self, totals: MoneyTotals) -> pb.Money:
        limits = self._engine.limits
        besides = self._engine.tally.besides
        return pb.Money(
            pending_msat=totals.pending_msat,
            max_pending_sat=limits.max_pending_sat,
            spent_day_msat=totals.spent_day_msat,
            max_spend_per_day_sat=limits.max_spend_per_day_sat,
            max_open_orders=limits.max_open_orders,
            locked_msat=self._engine.tally.locked_msat,
            settled_orders=totals.settled_orders,
            followed_orders=besides[Beside.FOLLOWED],
            perhaps_charged_orders=besides[Beside.PERHAPS_CHARGED],
            returning_orders=besides[Beside.RETURNING],
        )

    def _queue(self, order: Order) -> convert.Queue | None:
        """Where it waits now, also if it is told of as it was earlier."""
        if not order.is_waiting:
            return None
        places = self._engine.places
        position = places.position(order)
        return None if position is None else convert.Queue(position, places.words(order, self._client))

    def _orders(self, named: str) -> list[Order]:
        """Of the request that is named so. Raises OrderNotFound."""
        return self._engine.store.orders_of(self._engine.store.request_id(named, self._sees))

    def _all_of(self, order: Order) -> list[Order]:
        """The orders of the request of which this one is the last."""
        return [order] if order.nth == 1 else self._engine.store.orders_of(order.request.id)

    def _whole(self, orders: Sequence[Order]) -> pb.Request:
        """With their dispatches."""
        return convert.add_tries(self._to_pb(orders), [self._engine.store.dispatches(order.id) for order in orders])

    def _to_pb(self, orders: Sequence[Order], cursor: int | None = None) -> pb.Request:
        """Orders that were read right now: nothing was committed since. ``cursor``: the last one, if it is known."""
        engine = self._engine
        sight = engine.guard.sight(orders[-1])
        queue = self._queue(orders[-1])
        cursor = engine.store.last_cursor() if cursor is None else cursor
        message = convert.request_to_pb(orders, engine.policy, engine.clock.now_ms(), cursor, sight, queue)
        return convert.add_wait(message, orders[-1], engine.why_unpaid(orders[-1]))


def _is_too_late(order: Order) -> bool:
    """Whether the wish to cancel, recorded as far as it makes sense, changes nothing about an order."""
    return order.is_delivered or not order.is_cancel_wanted_by_client


def _to_the_end(updates: list[Update]) -> list[Update]:
    """Of one request: nothing is told of it behind its terminal update."""
    ends = (at for at, update in enumerate(updates, start=1) if update.order.ends_request)
    return updates[: next(ends, len(updates))]


def _check_filter(request: pb.ListRequestsRequest) -> None:
    """Raises InvalidRequest for a filter that no order can pass, or that this version does not know."""
    if request.open_only and request.closed_only:
        raise InvalidRequest("No order is open and closed. Set open_only, closed_only or neither.", field="closed_only")
    if request.open_only and request.end:
        raise InvalidRequest("No open order has an end. Set end or open_only, not both.", field="end")
    has_bounds = request.HasField("created_from_ms") and request.HasField("created_before_ms")
    if has_bounds and request.created_from_ms >= request.created_before_ms:
        raise InvalidRequest(
            "No order is created at or after created_from_ms and before created_before_ms. Set a later"
            " created_before_ms.",
            field="created_before_ms",
        )


def _write_token(order: Order) -> str:
    return base64.urlsafe_b64encode(f"{order.request.created_at_ms}:{order.request.id}".encode()).decode()


def _read_token(token: str) -> tuple[int, str] | None:
    if not token:
        return None
    try:
        text = base64.urlsafe_b64decode(token.encode()).decode()
    except (binascii.Error, ValueError):
        text = ""
    parts = _TOKEN.fullmatch(text)
    if parts is None:
        raise InvalidRequest("This page token is not one of ours. Begin again with the first page.", field="page_token")
    return int(parts[1]), parts[2]
