"""What a Prometheus server scrapes: the state as it is, and what this process has counted since its start.

Names follow Prometheus' rules (base units, ``_total`` for what only grows). No label holds anything from outside:
kinds, ends, states, endpoints and outcomes are lists of ours. No order, number, code, hash or client is named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, StateSetMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from holdpay import __version__
from holdpay.core.model import Order
from holdpay.core.states import HoldLevel
from holdpay.engine.account import Account
from holdpay.engine.desk import Desk
from holdpay.engine.engine import Engine
from holdpay.listener import Answer
from holdpay.ports import HookDesk, HookSight, NodeState, NodeStatus, ProviderHealth

PATH: Final = "/metrics"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

LOOP_LOOK_S: Final = 0.25
"""How often the event loop is timed."""
_STALLS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_ANSWERS_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0)


class Metrics:
    """``respond`` answers a scrape; ``requested``, ``closed`` and ``answered`` are told of what is counted."""

    def __init__(self, engine: Engine, desk: Desk, account: Account, hooks: HookDesk) -> None:
        self._registry = registry = CollectorRegistry(auto_describe=False)
        self._requested = Counter(
            "holdpay_requests", "Requests that were recorded.", ["kind", "funding"], registry=registry
        )
        self._closed = Counter("holdpay_orders_closed", "Orders that ended.", ["kind", "end"], registry=registry)
        self._spent_sat = Counter(
            "holdpay_spent_sat", "Sat that closed orders cost, routing fees included.", ["kind"], registry=registry
        )
        self._fees_sat = Counter(
            "holdpay_routing_fees_sat", "Routing fees of closed orders, in sat.", registry=registry
        )
        self._answers = Histogram(
            "holdpay_provider_request_duration_seconds",
            "How long the provider took, by endpoint and outcome.",
            ["endpoint", "outcome"],
            buckets=_ANSWERS_S,
            registry=registry,
        )
        self._stalls = Histogram(
            "holdpay_event_loop_delay_seconds",
            "How much later than due the event loop came to a timer.",
            buckets=_STALLS_S,
            registry=registry,
        )
        registry.register(_State(engine, desk, account, hooks))
        ProcessCollector(registry=registry)

    def requested(self, order: Order) -> None:
        """A request was recorded."""
        funding = "prepaid" if order.request.is_prepaid else "hold"
        self._requested.labels(order.spec.kind.value, funding).inc()

    def closed(self, order: Order) -> None:
        """An order ended."""
        kind = order.spec.kind.value
        self._closed.labels(kind, order.end.value if order.end else "").inc()
        self._spent_sat.labels(kind).inc(order.spent_msat / 1000)
        if order.payment is not None and order.spent_msat:
            self._fees_sat.inc(order.payment.fee_msat / 1000)

    def answered(self, endpoint: str, outcome: str, after_s: float) -> None:
        """The provider answered, or did not."""
        self._answers.labels(endpoint, outcome).observe(after_s)

    async def time_loop(self) -> None:
        """One look at how late the event loop is."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + LOOP_LOOK_S
        await asyncio.sleep(LOOP_LOOK_S)
        self._stalls.observe(max(0.0, loop.time() - due_s))

    def respond(self, method: str, target: str) -> Answer:
        """To a scrape; anything else is not found."""
        if method != "GET" or target.partition("?")[0] != PATH:
            return Answer(HTTPStatus.NOT_FOUND)
        return Answer(HTTPStatus.OK, generate_latest(self._registry), CONTENT_TYPE)


class _State(Collector):
    """What is read when it is asked for."""

    def __init__(self, engine: Engine, desk: Desk, account: Account, hooks: HookDesk) -> None:
        self._engine = engine
        self._hooks = hooks
        self._desk = desk
        self._account = account

    def collect(self) -> Iterable[Metric]:
        yield InfoMetricFamily("holdpay_build", "The release.", {"version": __version__})
        yield _gauge("holdpay_ready", "1 while a new order would be taken.", not self._desk.reason_against_orders())
        alarms = len(self._engine.alarms()) + len(self._account.alarms()) + len(self._hooks.alarms())
        yield _gauge("holdpay_alarms", "What an operator should look at.", alarms)
        yield from self._money()
        yield from _lnd(self._engine.node_status())
        yield from self._provider(self._engine.provider.health)
        yield from self._of_hooks()
        yield CounterMetricFamily(
            "holdpay_database_commits", "Transactions that were made durable.", self._engine.store.commit_count
        )

    def _of_hooks(self) -> Iterator[Metric]:
        hooks, now_ms = self._hooks.sights(), self._engine.clock.now_ms()
        waiting_s = [(now_ms - hook.waiting_since_ms) / 1000 for hook in hooks if hook.waiting_since_ms is not None]
        yield _gauge("holdpay_hooks", "Hooks of the configuration.", len(hooks))
        yield _gauge("holdpay_hooks_failing", "Those that are tried again.", sum(map(_is_failing, hooks)))
        yield _gauge("holdpay_hooks_dead", "Those that are told nothing any more.", sum(map(_is_dead, hooks)))
        unusable = sum(bool(hook.unusable) for hook in hooks)
        yield _gauge("holdpay_hooks_unusable", "Those whose secret or program is missing.", unusable)
        oldest = "How old the oldest is of what they are to be told next; 0: they have all."
        yield _gauge("holdpay_hook_delay_seconds", oldest, max(0.0, max(waiting_s, default=0.0)))
        yield CounterMetricFamily("holdpay_hook_deliveries", "Acknowledged deliveries.", self._hooks.delivery_count)
        yield CounterMetricFamily("holdpay_hook_failures", "Deliveries in vain.", self._hooks.failure_count)

    def _money(self) -> Iterator[Metric]:
        totals, tally, limits = self._engine.totals(), self._engine.tally, self._engine.limits
        yield _gauge("holdpay_orders_open", "Open orders that limits.max_open_orders counts.", totals.open_orders)
        yield _gauge("holdpay_orders_open_limit", "limits.max_open_orders.", limits.max_open_orders)
        yield _gauge("holdpay_orders_settled_open", "Open orders that are paid, or perhaps.", totals.settled_orders)
        yield _gauge("holdpay_pending_sat", "Sat that are out or reserved.", totals.pending_msat / 1000)
        yield _gauge("holdpay_pending_limit_sat", "limits.max_pending_sat.", limits.max_pending_sat)
        within_day_sat = (totals.pending_msat + totals.spent_day_msat) / 1000
        yield _gauge("holdpay_day_sat", "Sat spent in the last 24 hours, and pending.", within_day_sat)
        yield _gauge("holdpay_day_limit_sat", "limits.max_spend_per_day_sat.", limits.max_spend_per_day_sat)
        yield _gauge("holdpay_holds", "Orders whose HTLC is, or may be, out.", tally.out)
        by_level = GaugeMetricFamily("holdpay_holds_by_level", "The same by how urgent they are.", labels=["level"])
        for level in HoldLevel:
            by_level.add_metric([level.value], tally.levels[level])
        yield by_level
        yield _gauge("holdpay_orders_waiting", "Orders that wait for a place ([holds]).", self._engine.places.waiting)
        yield _gauge("holdpay_locked_sat", "Sat in HTLCs that are, or may be, out.", tally.locked_msat / 1000)
        yield _gauge("holdpay_oldest_hold_seconds", "Since when the oldest is out; 0: none is.", self._oldest_s())

    def _oldest_s(self) -> float:
        now_ms = self._engine.clock.now_ms()
        since = [o.payment.money_out_since_ms for o in self._engine.orders_out(1) if o.payment is not None]
        return max((now_ms - at_ms for at_ms in since if at_ms is not None), default=0) / 1000

    def _provider(self, health: ProviderHealth) -> Iterator[Metric]:
        asker = self._engine.asker
        yield CounterMetricFamily("holdpay_provider_requests", "Requests to the provider.", health.request_count)
        yield _gauge("holdpay_provider_rate_limit", "Requests a second at most, now.", health.requests_per_s)
        yield _gauge(
            "holdpay_provider_answered_timestamp_seconds", "Its last answer; 0: none.", _s(health.answered_at_ms)
        )
        yield _gauge("holdpay_questions_due", "Questions about orders that wait for their turn.", asker.due_count())
        delay_s = asker.delay_s(health.requests_per_s)
        yield _gauge("holdpay_question_delay_seconds", "How long one that falls due now would wait.", delay_s)


def _lnd(status: NodeStatus) -> Iterator[Metric]:
    states = {state.value: state is status.state for state in NodeState}
    yield StateSetMetricFamily("holdpay_lnd_state", "How usable lnd is.", states)
    yield _gauge("holdpay_lnd_block_height", "lnd's latest block; 0: not known.", status.block_height)
    yield _gauge("holdpay_lnd_answered_timestamp_seconds", "lnd's last answer; 0: none.", _s(status.answered_at_ms))
    if status.local_balance_sat is not None:
        yield _gauge("holdpay_lnd_local_balance_sat", "Spendable over active channels.", status.local_balance_sat)


def _is_failing(hook: HookSight) -> bool:
    return hook.state.failing_since_ms is not None and not _is_dead(hook) and not hook.unusable


def _is_dead(hook: HookSight) -> bool:
    return hook.state.dead_at_ms is not None


def _gauge(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, words, value)


def _s(at_ms: int | None) -> float:
    return (at_ms or 0) / 1000
