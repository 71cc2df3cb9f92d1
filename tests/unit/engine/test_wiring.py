"""The daemon around the engine: systemd hears of it only while everything lives, and what fails takes no new order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from holdpay import app
from holdpay.background import RESTART_AFTER_S
from holdpay.engine.engine import Engine
from holdpay.errors import ConfigError, NotReady, StoreError
from holdpay.store.aside import FileCheck
from holdpay.store.store import SqliteStore
from tests.fakes import FakeClock, FakeLnd, FakeProvider
from tests.unit import build
from tests.unit.engine.desks import desk_of
from tests.unit.engine.world import LIMITS


class _Systemd:
    """A notifier that counts."""

    fed = 0

    def starting(self, text: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def watchdog(self) -> None:
        self.fed += 1

    def ready(self, text: str) -> None: ...

    def status(self, text: str) -> None: ...

    def stopping(self, text: str) -> None: ...


class _Server:
    def bind(self, bindings: object) -> None: ...

    async def start(self) -> None: ...

    async def stop(self, wait_s: float) -> None: ...

    async def set_lnd_usable(self, is_usable: bool) -> None: ...


class _Serving:
    """``_Daemon.serve`` with fakes where sockets and connections would be."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = FakeClock()
        lnd = FakeLnd(clock)
        self.engine = Engine(
            store=SqliteStore(path),
            node=lnd,
            provider=FakeProvider(clock, lnd),
            policy=build.POLICY,
            limits=LIMITS,
            clock=clock,
            rng=Random(1),
        )
        self.node = SimpleNamespace(is_watched=True)
        self.systemd = _Systemd()
        self.stop = asyncio.Event()
        self.no_hooks_count = 0
        """So often the notices were told that nobody listens."""
        self.hooks_set_up: StoreError | None = None
        """What setting up hooks fails with."""
        settings = SimpleNamespace(
            daemon=SimpleNamespace(state_dir=path.parent, socket="a socket", retain_codes_days=30, shutdown_wait_s=1.0),
            provider=SimpleNamespace(api_key_file=None),
            hook=(),
        )
        claims = {"": SimpleNamespace(binding=lambda: None)}
        daemon: Any = app._Daemon(settings, path, claims)  # type: ignore[arg-type]
        daemon._clock, daemon._notifier = clock, self.systemd
        monkeypatch.setattr(app, "_stop_signal", lambda: self.stop)
        monkeypatch.setattr(app, "check_apart", lambda claims: None)

        async def at_once(do: Callable[..., object], *given: object, **named: object) -> None:
            do(*given, **named)  # the virtual clock would not wait for a thread

        monkeypatch.setattr(asyncio, "to_thread", at_once)

        async def nothing_new() -> None:
            """The provider's countries."""

        directory = SimpleNamespace(refresh=nothing_new)

        async def build_it(stack: contextlib.AsyncExitStack) -> Any:
            self.parts: Any = SimpleNamespace(
                engine=self.engine,
                node=self.node,
                account=None,
                directory=directory,
                servers=_Server(),
                top_up=None,
                listeners=(),
                metrics=None,
                store=self.engine.store,
                hooks=SimpleNamespace(is_any=False, configure=self._configure_hooks),
                notices=SimpleNamespace(nobody_listens=self._nobody_listens),
            )
            return self.parts

        monkeypatch.setattr(daemon, "_build", build_it)
        monkeypatch.setattr(app, "load", lambda path: self._read_again(settings))
        monkeypatch.setattr(app, "configure", lambda form, level: None)
        monkeypatch.setattr(app, "changed_keys", lambda before, after: ())
        settings.daemon.log_format = settings.daemon.log_level = None
        settings.order_limits = lambda: LIMITS
        self.problems: list[str] = []
        """Of the configuration that a reload reads."""
        self.daemon = daemon
        self.running = asyncio.create_task(daemon.serve())

    def _nobody_listens(self) -> None:
        self.no_hooks_count += 1

    def _configure_hooks(self, hooks: object) -> None:
        if self.hooks_set_up is not None:
            raise self.hooks_set_up

    def _read_again(self, settings: Any) -> Any:
        if self.problems:
            raise ConfigError(self.problems)
        return settings

    def reload(self) -> None:
        """As SIGHUP does."""
        self.daemon._reload(self.parts)

    async def is_fed(self) -> bool:
        """Whether systemd hears of it now."""
        before = self.systemd.fed
        await asyncio.sleep(5)
        return self.systemd.fed > before


@pytest.fixture
async def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[_Serving]:
    serving = _Serving(tmp_path / "holdpay.db", monkeypatch)
    await asyncio.sleep(1)
    yield serving
    serving.stop.set()
    assert await serving.running == 0
    serving.engine.store.close()  # type: ignore[attr-defined]


async def test_the_watchdog_is_fed_only_while_lnd_is_looked_at(serving: _Serving) -> None:
    assert await serving.is_fed()
    serving.node.is_watched = False
    assert not await serving.is_fed()
    serving.node.is_watched = True
    assert await serving.is_fed()


async def test_a_task_beside_the_orders_that_fails_takes_no_new_order_and_one_that_stays_so_feeds_no_watchdog(
    serving: _Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = desk_of(serving.engine)
    desk.check_ready()

    def fail() -> None:
        raise ValueError("planted")

    with monkeypatch.context() as broken:
        broken.setattr(serving.engine, "node_status", fail)
        await asyncio.sleep(2)
        broken.undo()
        with pytest.raises(NotReady, match=r"A task of holdpayd fails \(lnd state\)"):
            desk.check_ready()
        assert await serving.is_fed(), "once is no death"
    await asyncio.sleep(RESTART_AFTER_S + 2)
    desk.check_ready()
    with monkeypatch.context() as broken:
        broken.setattr(serving.engine, "node_status", fail)
        await asyncio.sleep(app.TELL_SILENT_S + 5)
        assert not await serving.is_fed()
    await asyncio.sleep(RESTART_AFTER_S + 2)
    assert await serving.is_fed()


async def test_a_changed_state_of_lnd_is_one_line_of_the_log(serving: _Serving) -> None:
    await asyncio.sleep(3)
    with capture_logs() as logs:
        serving.engine.node.is_down = True  # type: ignore[attr-defined]
        await asyncio.sleep(5)
        serving.engine.node.is_down = False  # type: ignore[attr-defined]
        await asyncio.sleep(5)
    told = [(entry["event"], entry["state"]) for entry in logs if "state" in entry]
    assert told == [("lnd", "unreachable"), ("lnd", "ready")]


async def test_damage_that_is_found_beside_the_work_ends_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = asyncio.Event()

    async def check(self: object) -> None:
        await found.wait()
        raise StoreError("It is damaged.")

    monkeypatch.setattr(FileCheck, "is_due", True)
    monkeypatch.setattr(FileCheck, "run", check)
    serving = _Serving(tmp_path / "holdpay.db", monkeypatch)
    await asyncio.sleep(1)
    assert await serving.is_fed()
    found.set()
    with pytest.raises(StoreError, match="damaged"):
        await serving.running
    serving.engine.store.close()  # type: ignore[attr-defined]


async def test_a_file_that_is_found_to_be_sound_ends_nothing(
    serving: _Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.sleep(60)
    assert await serving.is_fed()
    assert not serving.running.done()


async def test_a_reload_that_changes_nothing_is_an_alarm_until_one_succeeds(serving: _Serving) -> None:
    serving.reload()
    assert serving.engine.alarms() == []
    serving.problems = ["limits.max_opne_orders is no key."]
    serving.reload()
    (alarm,) = serving.engine.alarms()
    assert "the configuration was not read again" in alarm
    assert "holdpayd --check-config" in alarm
    serving.problems = []
    serving.reload()
    assert serving.engine.alarms() == []


async def test_hooks_that_cannot_be_set_up_are_an_alarm_until_a_reload_sets_them_up(serving: _Serving) -> None:
    serving.hooks_set_up = StoreError("The database is locked. End the program that holds it.")
    serving.reload()
    (alarm,) = serving.engine.alarms()
    assert "not all hooks could be set up, and `systemctl reload holdpayd` tries again" in alarm
    assert "The database is locked." in alarm
    serving.hooks_set_up = None
    serving.reload()
    assert serving.engine.alarms() == []


async def test_as_long_as_there_is_no_hook_the_notices_know_that_nobody_is_told(serving: _Serving) -> None:
    assert serving.no_hooks_count == 1
    serving.parts.hooks.is_any = True
    serving.reload()
    assert serving.no_hooks_count == 1
    serving.parts.hooks.is_any = False
    serving.reload()
    assert serving.no_hooks_count == 2
