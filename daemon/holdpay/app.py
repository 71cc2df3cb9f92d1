"""The composition root: config → adapters → engine → RPC. The only module that knows every concrete class."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import structlog

from holdpay import __version__, garbage
from holdpay.background import Background
from holdpay.clock import SystemClock
from holdpay.config import Settings, load, read_key
from holdpay.config.changes import changed_keys, is_at_once
from holdpay.config.settings import HookSection
from holdpay.core.model import OPERATOR
from holdpay.engine.account import Account
from holdpay.engine.desk import Desk
from holdpay.engine.engine import Engine
from holdpay.engine.hooks import Webhooks
from holdpay.engine.notices import Notices
from holdpay.engine.top_up import TopUp, TopUpRule
from holdpay.errors import ConfigError, HoldpayError, StoreError
from holdpay.hooks.manager import Hooks
from holdpay.hooks.settings import Command, Hook, Unusable, Url, shown
from holdpay.listener import PROXY_SOCKET_MODE, Listener, Respond, hinting
from holdpay.lnd.node import LndNode
from holdpay.lnd.settings import LndSettings
from holdpay.lock import SOCKET_MODE, SocketClaim, StateLock, check_apart
from holdpay.log import configure
from holdpay.notify import Notifier
from holdpay.ports import Clock, HookStore, NodeState
from holdpay.rpc.catalog import CatalogCalls
from holdpay.rpc.feed import Feed
from holdpay.rpc.server import RpcServers
from holdpay.rpc.service import About, HoldpayService
from holdpay.rpc.streams import shares
from holdpay.sms4sats.client import Sms4Sats, Sms4SatsSettings
from holdpay.sms4sats.directory import RETRY_S, KeptDirectory
from holdpay.store.aside import LOG_MAX_BYTES, FileCheck
from holdpay.store.store import SqliteStore

if TYPE_CHECKING:
    from holdpay.metrics import Metrics

DATABASE = "holdpay.db"
EXIT_UNEXPECTED = 1
PROVIDER_TIMEOUT_S = 15.0
CLOCK_SET_S = 60
DAY_S = 24 * 3600
ERASE_EVERY_S = 3600
CHECKPOINT_EVERY = 100
"""Orders that are erased."""
LOG_EVERY_S = 1
TELL_SILENT_S = 60
BALANCE_EVERY_S = 600
GUARD_EVERY_S = 1
"""Whether a look at the channels is due."""
GUARD_SILENT_S = 300
"""A look at them may take a busy node a minute, and is tried three times."""
LISTENER_EVERY_S = 10
NOTICES_EVERY_S = 5
NOTICES_SILENT_S = 60
LOOP_SILENT_S = 60
PLACE_EVERY_S = 5

log = structlog.get_logger(__name__)


def run(settings: Settings, config_path: Path) -> int:
    """Serves until a signal. Returns the exit code.

    Raises ConfigError or AlreadyRunning at start, and StoreError or InvariantViolation also later.
    """
    configure(settings.daemon.log_format, settings.daemon.log_level)
    for warning in settings.warnings():
        log.warning("configuration", warning=warning)
    with StateLock(settings.daemon.state_dir), contextlib.ExitStack() as stack:
        claims = {client: stack.enter_context(claim) for client, claim in _sockets(settings)}
        return asyncio.run(_Daemon(settings, config_path, claims).serve())


def _sockets(settings: Settings) -> Iterator[tuple[str, SocketClaim]]:
    """The operator's, and that of each client."""
    yield OPERATOR, SocketClaim(settings.daemon.socket)
    for client in settings.client:
        key = f"client.{client.name}.socket"
        yield client.name, SocketClaim(settings.socket_of(client), key, client.group)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the daemon is made of."""

    engine: Engine
    store: SqliteStore
    node: LndNode
    account: Account
    directory: KeptDirectory
    servers: RpcServers
    top_up: TopUp | None
    """None: the configuration wants none."""
    listeners: Sequence[tuple[str, Listener]]
    """For webhooks and metrics, as far as they are wanted, with their names."""
    metrics: Metrics | None
    hooks: Hooks
    notices: Notices


class _Daemon:
    def __init__(self, settings: Settings, config_path: Path, claims: Mapping[str, SocketClaim]) -> None:
        self._settings = settings
        self._config_path = config_path
        self._claims = claims
        """By who asks there."""
        self._clock = SystemClock()
        self._notifier = Notifier.from_environment()
        self._feed = Feed()
        self._lnd_words = ""
        self._is_clock_set = False
        self._read = settings
        """What was read last; ``_settings`` is what the parts were built with."""

    async def serve(self) -> int:
        stop = _stop_signal()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, log.warning, "still starting: reload once it serves")
        async with contextlib.AsyncExitStack() as stack:
            words = "starting; the database is read, or brought up to date"
            with self._notifier.starting(words), garbage.starting():
                parts = await self._build(stack)
                engine, node, servers = parts.engine, parts.node, parts.servers
                self._configure_hooks(parts, self._settings)
                engine.take_over()
                servers.bind({client: claim.binding() for client, claim in self._claims.items()})
                check_apart(self._claims.values())
                await servers.start()
            self._notifier.ready(f"holdpayd {__version__} serves on {self._settings.daemon.socket}")
            log.info("serving", version=__version__, socket=str(self._settings.daemon.socket))
            loop.add_signal_handler(signal.SIGHUP, self._reload, parts)
            running = asyncio.create_task(engine.run(), name="engine")
            tasks = [
                Background("lnd state", lambda: self._tell_lnd_state(engine, servers), TELL_SILENT_S, self._clock),
                Background(
                    "erase old codes",
                    lambda: self._erase_old_codes(engine),
                    2 * ERASE_EVERY_S,
                    self._clock,
                    every_s=ERASE_EVERY_S,
                ),
                Background("hold guard", engine.guard.look, GUARD_SILENT_S, self._clock, every_s=GUARD_EVERY_S),
                Background("countries", parts.directory.refresh, 3 * RETRY_S, self._clock, every_s=RETRY_S),
            ]
            if self._settings.provider.api_key_file and self._settings.provider.warn_balance_below_sat:
                tasks.append(
                    Background("balance", parts.account.look, 3 * BALANCE_EVERY_S, self._clock, every_s=BALANCE_EVERY_S)
                )
            if parts.top_up is not None:
                tasks.append(
                    Background("top-up", parts.top_up.look, 3 * BALANCE_EVERY_S, self._clock, every_s=BALANCE_EVERY_S)
                )
            tasks += [
                Background(name, listener.keep, 3 * LISTENER_EVERY_S, self._clock, every_s=LISTENER_EVERY_S)
                for name, listener in parts.listeners
            ]
            if parts.metrics is not None:
                tasks.append(Background("event loop", parts.metrics.time_loop, LOOP_SILENT_S, self._clock))
            tasks.append(
                Background(
                    "database log",
                    lambda: _shorten_log(parts.store),
                    60 * LOG_EVERY_S,
                    self._clock,
                    every_s=LOG_EVERY_S,
                )
            )
            # None of these: what hooks are told is no reason to refuse orders, nor to end the daemon.
            beside = Background(
                "notices", lambda: _notice(parts), NOTICES_SILENT_S, self._clock, every_s=NOTICES_EVERY_S
            )
            failing = (
                running,
                asyncio.create_task(_until_damaged(self._settings.daemon.state_dir / DATABASE), name="database check"),
                asyncio.create_task(_until_moved(parts.store, self._clock), name="database place"),
            )
            engine.on_pass = lambda: self._passed(node, tasks)
            engine.trouble = lambda: _trouble(tasks)
            try:
                await asyncio.wait({*failing, asyncio.ensure_future(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
                return self._verdict(failing)
            finally:
                await self._leave(servers, failing, [*tasks, beside])

    async def _build(self, stack: contextlib.AsyncExitStack) -> _Parts:
        settings, rng = self._settings, Random()  # noqa: S311 - jitter
        store = SqliteStore(settings.daemon.state_dir / DATABASE)
        stack.callback(store.close)
        store.on_commit = self._feed.committed
        hooks = Hooks(
            lambda: _hook_store(store),
            lambda: self._feed.next_commit(None),
            self._clock,
            rng,
        )
        stack.push_async_callback(hooks.stop)
        provider = Sms4Sats(provider_settings(settings), self._clock, rng)
        stack.push_async_callback(provider.aclose)
        webhooks = None if settings.webhook.public_url is None else Webhooks(settings.webhook.public_url)
        node = LndNode(lnd_settings(settings), self._clock)
        await node.start()
        stack.push_async_callback(node.close)
        engine = Engine(
            store=store,
            node=node,
            provider=provider,
            policy=settings.policy(),
            limits=settings.order_limits(),
            clock=self._clock,
            rng=rng,
            webhooks=webhooks,
            guard_look_every_s=settings.guard.look_every_s,
            caps=settings.hold_caps(),
        )
        directory = KeptDirectory(provider, self._clock, settings.daemon.state_dir)
        provider.on_services = directory.saw_services
        about = About(
            started_at_ms=self._clock.now_ms(),
            state_dir=str(settings.daemon.state_dir),
            config_path=str(self._config_path),
        )
        account = Account(provider, settings.provider.warn_balance_below_sat)
        notices = Notices(engine, account, hooks.tell, hooks.last_told)
        engine.on_alarm, engine.budget_warnings.on_near = notices.alarm, notices.budget_is_near
        desk = Desk(engine, directory, account, settings.provider.ref)
        rule = _top_up_rule(settings)
        service = functools.partial(
            HoldpayService,
            engine=engine,
            desk=desk,
            catalog=CatalogCalls(directory, provider),
            account=account,
            feed=self._feed,
            about=about,
            hooks=hooks,
        )
        streams = shares(self._claims)
        servers = RpcServers({client: service(client=client, streams=streams[client]) for client in self._claims})
        top_up = None if rule is None else TopUp(engine, desk, account, rule)
        listeners = []
        if webhooks is not None and settings.webhook.listen is not None:
            heard = await _listen(
                stack, settings.webhook.listen, hinting(engine.hint), "webhook.listen", PROXY_SOCKET_MODE
            )
            webhooks.is_up = lambda: heard.is_up
            listeners.append(("webhooks", heard))
        metrics = None
        if settings.metrics.listen is not None:
            metrics = _metrics(engine, desk, account, provider, hooks)
            scraped = await _listen(stack, settings.metrics.listen, metrics.respond, "metrics.listen", SOCKET_MODE)
            listeners.append(("metrics", scraped))
        return _Parts(
            engine=engine,
            store=store,
            node=node,
            account=account,
            directory=directory,
            servers=servers,
            top_up=top_up,
            listeners=listeners,
            metrics=metrics,
            hooks=hooks,
            notices=notices,
        )

    def _configure_hooks(self, parts: _Parts, settings: Settings) -> None:
        """Trouble with them is no reason to hold up orders."""
        try:
            parts.hooks.configure(_hooks(settings))
            parts.store.keep_hooks(hook.name for hook in settings.hook)
        except StoreError as error:
            log.error("hooks cannot be set up; reload or restart holdpayd to try again", error=str(error))
            alarm = f"not all hooks could be set up, and `systemctl reload holdpayd` tries again: {error}"
            parts.engine.alarms_of_configuration = (alarm,)
        else:
            parts.engine.alarms_of_configuration = ()
        if not parts.hooks.is_any:
            parts.notices.nobody_listens()

    def _reload(self, parts: _Parts) -> None:
        """SIGHUP: what may change while it runs does; of the rest it is said that it needs a restart. A configuration
        that cannot be used changes nothing."""
        try:
            settings = load(self._config_path)
        except ConfigError as error:
            log.error("the configuration was not read again: nothing has changed", problems=list(error.problems))
            parts.engine.alarms_of_configuration = (_NOT_READ_AGAIN,)
            return
        configure(self._settings.daemon.log_format, settings.daemon.log_level)
        engine = parts.engine
        limits, before = settings.order_limits(), engine.limits
        # One that is gone from the configuration still has its socket, and keeps its budget as long.
        budgets = {client: limits.budgets.get(client, budget) for client, budget in before.budgets.items()}
        engine.take_limits(replace(limits, budgets=budgets))
        self._configure_hooks(parts, settings)
        built = self._settings
        taken = [key for key in changed_keys(self._read, settings) if is_at_once(key, built, settings)]
        log.info("the configuration was read again", in_effect=taken)
        if later := [key for key in changed_keys(built, settings) if not is_at_once(key, built, settings)]:
            log.warning("what was changed there needs a restart", keys=later)
        self._read = settings

    def _passed(self, node: LndNode, tasks: Sequence[Background]) -> None:
        """systemd ends a daemon whose engine stands still, or one of whose tasks is dead."""
        garbage.look_at_many_young()
        if node.is_watched and all(task.is_alive for task in tasks):
            self._notifier.watchdog()

    async def _tell_lnd_state(self, engine: Engine, servers: RpcServers) -> None:
        """systemd's STATUS line, the health service and the log say what lnd's state is, when it changes."""
        status = engine.node_status()
        words = f"lnd {status.alias or status.address} is {status.state.value}. {status.detail}".strip()
        if words != self._lnd_words:
            log.info("lnd", state=status.state.value, detail=status.detail, version=status.version)
            self._notifier.status(words)
            await servers.set_lnd_usable(status.state is NodeState.READY)
            self._lnd_words = words
        self._look_at_wall_clock()
        await self._clock.sleep(1)

    async def _erase_old_codes(self, engine: Engine) -> None:
        """Accounts need neither code nor number; a database that still has them is worth stealing."""
        closed_before_ms = self._clock.now_ms() - self._settings.daemon.retain_codes_days * DAY_S * 1000
        await asyncio.to_thread(engine.store.erase_in_copies, closed_before_ms, self._clock.now_ms())
        count = 0
        for erased in engine.erase_codes(closed_before_ms):
            count += erased
            if count % CHECKPOINT_EVERY == 0 or not erased:
                await asyncio.to_thread(engine.store.checkpoint)
            await self._clock.sleep(0)
        if count:
            log.info("codes and numbers of old orders erased", orders=count)

    def _look_at_wall_clock(self) -> None:
        is_set = abs(self._clock.wall_ahead_ms()) > CLOCK_SET_S * 1000
        if is_set and not self._is_clock_set:
            log.warning("the wall clock was set; times go on as before. Restart holdpayd at leisure to take it over")
        self._is_clock_set = is_set

    def _verdict(self, failing: Sequence[asyncio.Task[None]]) -> int:
        ended = next((task for task in failing if task.done()), None)
        if ended is None:
            log.info("stopping", reason="signal")
            return 0
        error = ended.exception()
        log.critical("the daemon must end", error=str(error), exc_info=error)
        if isinstance(error, HoldpayError):
            raise error
        return EXIT_UNEXPECTED

    async def _leave(
        self, servers: RpcServers, failing: Sequence[asyncio.Task[None]], tasks: Sequence[Background]
    ) -> None:
        """Streams are told first. Nothing here touches an HTLC: what is in flight goes on, and is found again."""
        self._notifier.stopping("stopping; payments in flight go on and are found again at the next start")
        self._feed.stop()
        await servers.stop(self._settings.daemon.shutdown_wait_s)
        for ending in failing:
            ending.cancel()
        await asyncio.gather(*failing, return_exceptions=True)
        for task in tasks:
            await task.stop()
        log.info("stopped")


async def _listen(
    stack: contextlib.AsyncExitStack, listen: str | Path, respond: Respond, key: str, socket_mode: int
) -> Listener:
    if isinstance(listen, Path):
        stack.enter_context(SocketClaim(listen, key=key))
    listener = Listener(listen, respond, key, socket_mode)
    await listener.start()
    stack.push_async_callback(listener.stop)
    return listener


def _metrics(engine: Engine, desk: Desk, account: Account, provider: Sms4Sats, hooks: Hooks) -> Metrics:
    # Imported where it is wanted: its package takes 3 MB, and some tens of ms.
    from holdpay.metrics import Metrics

    metrics = Metrics(engine, desk, account, hooks)
    engine.on_requested, engine.on_closed = metrics.requested, metrics.closed
    provider.on_answer = metrics.answered
    return metrics


def _hook_store(store: SqliteStore) -> HookStore:
    # Imported where it is wanted: most have no hooks.
    from holdpay.store.hooks import SqliteHookStore

    return SqliteHookStore(store)


async def _notice(parts: _Parts) -> None:
    """What lnd, limits and the like are, for hooks, if there are any."""
    if parts.hooks.is_any:
        parts.notices.look()


async def _until_damaged(path: Path) -> None:
    """Never ends, but for a database that is damaged. Raises StoreError."""
    check = FileCheck(path)
    if check.is_due:
        log.info("the database is read beside the work, since it was not closed the last time")
        await check.run()
        log.info("the database is sound")
    await asyncio.Event().wait()


async def _until_moved(store: SqliteStore, clock: Clock) -> None:
    """Never ends, but for a database that lies elsewhere now: before something is to be written to it. Raises
    StoreError."""
    while True:
        store.check_place()
        await clock.sleep(PLACE_EVERY_S)


async def _shorten_log(store: SqliteStore) -> None:
    await asyncio.to_thread(store.checkpoint, least_bytes=LOG_MAX_BYTES)


def _trouble(tasks: Sequence[Background]) -> str:
    """Which task is not well, with what to do. Empty: none."""
    names = ", ".join(task.name for task in tasks if not task.is_well)
    return names and f"A task of holdpayd fails ({names}). See its log; restart it, and please report this."


_NOT_READ_AGAIN = (
    "the configuration was not read again, since it cannot be used, and the one of before counts: `holdpayd"
    " --check-config` says what is wrong; then `systemctl reload holdpayd`"
)


def _stop_signal() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; the second leaves at once, which is as safe as a crash."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stopping() -> None:
        if stop.is_set():
            os._exit(128 + signal.SIGTERM)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping)
    return stop


def lnd_settings(settings: Settings) -> LndSettings:
    """For the adapter; reads the macaroon."""
    return LndSettings(
        address=settings.lnd.address,
        macaroon=settings.lnd.macaroon.read_bytes(),
        tls_cert_path=settings.lnd.tls_cert,
        tls_server_name=settings.lnd.tls_server_name,
    )


def provider_settings(settings: Settings) -> Sms4SatsSettings:
    """For the adapter; reads the API key."""
    key_file = settings.provider.api_key_file
    return Sms4SatsSettings(
        url=settings.provider.base_url,
        proxy=settings.provider.proxy,
        ca_file=None,
        api_key=None if key_file is None else read_key(key_file),
        timeout_s=PROVIDER_TIMEOUT_S,
        max_requests_per_s=settings.provider.max_requests_per_s,
    )


def _hooks(settings: Settings) -> list[Hook]:
    """Reads their secrets."""
    return [
        Hook(
            name=hook.name,
            topics=hook.events,
            include_secrets=hook.include_secrets,
            target=_target(hook, settings.provider.proxy),
        )
        for hook in settings.hook
    ]


def _target(hook: HookSection, proxy: str | None) -> Url | Command | Unusable:
    leads_to = hook.command[0] if hook.command else shown(hook.url or "")
    try:
        secret = hook.found()
    except ValueError as error:
        return Unusable(leads_to=leads_to, why=str(error))
    if hook.command is not None:
        return Command(argv=hook.command, timeout_s=hook.timeout_s)
    assert hook.url is not None
    return Url(
        url=hook.url,
        secret=secret,
        proxy=proxy if hook.use_provider_proxy else None,
        timeout_s=hook.timeout_s,
    )


def _top_up_rule(settings: Settings) -> TopUpRule | None:
    below_sat, amount_sat = settings.provider.top_up_below_sat, settings.provider.top_up_amount_sat
    if settings.provider.api_key_file is None or below_sat is None or amount_sat is None:
        return None
    return TopUpRule(below_sat=below_sat, amount_sat=amount_sat)
