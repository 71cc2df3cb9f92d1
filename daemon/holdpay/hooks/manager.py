"""All hooks: which there are, what wakes them, what they are told beside the journal, and what people ask of them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any, Final

import structlog

from holdpay.background import Background
from holdpay.core.hooks import TEST, Happening, HookState, Notice, Position, Topic
from holdpay.errors import InvalidRequest, StoreError
from holdpay.hooks.command import CommandSender
from holdpay.hooks.delivering import Delivering, Skip
from holdpay.hooks.sending import Sender, message_of
from holdpay.hooks.settings import Hook, Unusable, Url
from holdpay.hooks.unusable import NoSender
from holdpay.ports import Clock, HookSight, HookStore, HookTrial

GATHER_S: Final = 0.1
LOOK_EVERY_S: Final = 60
"""Nothing is missed in between: it is for what was written by another program."""
MOST_GATHERED: Final = 1_000
"""Notices that wait for the disk. Of more the oldest go."""
TOLD_FAILING_S: Final = 15 * 60
"""A hook that fails for so long is an alarm."""

log = structlog.get_logger(__name__)


class _Running:
    """A hook and its task. ``wake``: something may have happened that it is to be told."""

    def __init__(self, delivering: Delivering, next_commit: Callable[[], asyncio.Event], clock: Clock) -> None:
        self.delivering = delivering
        self._next_commit = next_commit
        self._is_woken = asyncio.Event()
        name = delivering.hook.name
        self._task = Background(f"hook {name}", self._turn, float("inf"), clock)

    def wake(self) -> None:
        self._is_woken.set()

    async def _turn(self) -> None:
        commit = self._next_commit()
        self._is_woken.clear()
        wait_s = await self.delivering.turn()
        if wait_s == 0:
            return
        # What was tried in vain is not tried sooner because more has happened.
        events = (commit, self._is_woken) if wait_s is None else (self._is_woken,)
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            timeout_s = LOOK_EVERY_S if wait_s is None else wait_s
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        if commit.is_set():
            # A busy journal is looked at some times a second, not at each of its rows.
            await asyncio.sleep(GATHER_S)

    async def stop(self) -> None:
        await self._task.stop()
        await self.delivering.sender.close()


class Hooks:
    """``HookDesk``. Nothing here is waited for by anybody else, and nothing is opened before there is a hook."""

    def __init__(
        self,
        open_store: Callable[[], HookStore],
        next_commit: Callable[[], asyncio.Event],
        clock: Clock,
        rng: Random,
    ) -> None:
        """``next_commit``: set once the journal has grown."""
        self._open_store = open_store
        self._next_commit = next_commit
        self._clock = clock
        self._rng = rng
        self._store: HookStore | None = None
        self._running: dict[str, _Running] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._gathered: deque[Notice] = deque(maxlen=MOST_GATHERED)
        self._is_gathered = asyncio.Event()
        self._writer: Background | None = None
        self.delivery_count = 0
        """Acknowledged by this process's hooks."""
        self.failure_count = 0

    def configure(self, hooks: Sequence[Hook]) -> None:
        """These and no others run from now on. One that has changed goes on where it is, and one that is not usable
        stays there. Raises StoreError."""
        wanted = {hook.name: hook for hook in hooks}
        for name in [name for name, running in self._running.items() if running.delivering.hook != wanted.get(name)]:
            self._leave(self._running.pop(name))
        for name, hook in wanted.items():
            if name not in self._running:
                self._running[name] = self._begun(hook)
                self._tell_alarms(_alarms_of(hook))
            for text in _alarms_of(hook):
                log.error("alarm", hook=name, text=text)
        if self._running and self._writer is None:
            self._writer = Background("notices for hooks", self._write, float("inf"), self._clock)

    def _begun(self, hook: Hook) -> _Running:
        if self._store is None:
            self._store = self._open_store()
        self._store.begin(hook.name)
        delivering = Delivering(hook, _sender(hook), self._store, self._clock, self._rng)
        delivering.on_done = self._done
        delivering.on_dead = self._dead
        return _Running(delivering, self._next_commit, self._clock)

    def _leave(self, running: _Running) -> None:
        task = asyncio.create_task(running.stop())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def stop(self) -> None:
        """What is on its way is told again after the next start."""
        for name in list(self._running):
            self._leave(self._running.pop(name))
        await asyncio.gather(*self._leaving)
        if self._writer is not None:
            await self._writer.stop()
            try:
                self._write_gathered()
            except StoreError as error:
                log.warning("hooks miss what was to be told last", notices=len(self._gathered), error=error.message)
        if self._store is not None:
            self._store.close()

    def _done(self, is_acknowledged: bool) -> None:
        if is_acknowledged:
            self.delivery_count += 1
        else:
            self.failure_count += 1

    # --- notices ------------------------------------------------------------------------------------------------------

    @property
    def is_any(self) -> bool:
        return bool(self._running)

    def tell(self, topic: Topic, data: Mapping[str, Any]) -> None:
        """To be called in the event loop; it is on disk soon after."""
        if self.is_any:
            self._gathered.append(Notice(topic=topic, at_ms=self._clock.now_ms(), data=data))
            self._is_gathered.set()

    def last_told(self, topics: Iterable[Topic]) -> Topic | None:
        """The latest of these, of this process or one before it."""
        topics = tuple(topics)
        of_now = [notice.topic for notice in self._gathered if notice.topic in topics]
        if of_now or self._store is None:
            return of_now[-1] if of_now else None
        found = self._store.last_notice(topics)
        return None if found is None else found.topic

    async def _write(self) -> None:
        await self._is_gathered.wait()
        self._is_gathered.clear()
        self._write_gathered()

    def _write_gathered(self) -> None:
        notices = list(self._gathered)
        if not notices or self._store is None:
            return
        try:
            self._store.add_notices(notices)
        except BaseException:
            self._is_gathered.set()
            raise
        for _ in notices:
            self._gathered.popleft()
        for running in self._running.values():
            running.wake()

    def _dead(self, state: HookState) -> None:
        log.error("alarm", hook=state.name, text=_alarm(state))
        self._tell_alarms([_alarm(state)])

    def _tell_alarms(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.tell(Topic.ALARM, {"level": "warning", "text": text, "request_id": None})

    # --- what people ask ----------------------------------------------------------------------------------------------

    def sights(self) -> list[HookSight]:
        """See HookDesk."""
        return [self._sight(running) for running in self._running.values()]

    def _sight(self, running: _Running) -> HookSight:
        delivering = running.delivering
        return HookSight(
            state=delivering.state,
            target=delivering.sender.target,
            topics=delivering.hook.topics,
            has_secrets=delivering.hook.include_secrets,
            waiting_since_ms=delivering.waiting_since_ms,
            unusable=_why_unusable(delivering.hook),
        )

    def alarms(self) -> list[str]:
        """See HookDesk."""
        now_ms = self._clock.now_ms()
        found = []
        for running in self._running.values():
            hook, state = running.delivering.hook, running.delivering.state
            found += _alarms_of(hook) or ([_alarm(state)] if _is_alarm(state, now_ms) else [])
        return found

    async def test(self, name: str) -> HookTrial:
        """See HookDesk."""
        delivering = self._named(name).delivering
        data = {"hook": name, "text": "a test of `holdpay hooks test`"}
        happening = Happening(type=TEST, at_ms=self._clock.now_ms(), key=secrets.token_hex(8), data=data)
        began_s = time.monotonic()
        trouble = await delivering.sender.send(message_of(happening, self._clock, include_secrets=False))
        took_ms = int((time.monotonic() - began_s) * 1000)
        return HookTrial(trouble="" if trouble is None else trouble.text, took_ms=took_ms)

    def replay(self, name: str, after_cursor: int | None, since_ms: int | None) -> HookSight:
        """See HookDesk."""
        running = self._named(name)
        store = self._store
        assert store is not None
        state = running.delivering.state
        position = state.position
        if since_ms is not None:
            after_cursor = store.cursor_before(since_ms)
        if after_cursor is not None:
            position = self._position(store, after_cursor)
        store.change(state, state.replayed(position))
        return self._goes_on(running)

    async def skip(self, name: str) -> HookSight:
        """See HookDesk."""
        running = self._named(name)
        skip = await running.delivering.skip()
        if skip is not Skip.DONE:
            raise InvalidRequest(f"{_WHY_NOT[skip].format(name=name)} See `holdpay hooks list`.", field="skip")
        return self._goes_on(running)

    def _goes_on(self, running: _Running) -> HookSight:
        sight = self._sight(running)
        log.info("a hook goes on", hook=sight.state.name, after_cursor=sight.state.position.cursor)
        running.wake()
        return sight

    def _position(self, store: HookStore, after_cursor: int) -> Position:
        last = store.last_cursor()
        if not 0 <= after_cursor <= last:
            raise InvalidRequest(
                f"There is no row {after_cursor} in the journal, which ends at {last}. Use 0 to begin at its start.",
                field="after_cursor",
                last_cursor=last,
            )
        return store.position_at(after_cursor)

    def _named(self, name: str) -> _Running:
        if name not in self._running:
            known = ", ".join(self._running) or "there are none"
            raise InvalidRequest(f"There is no hook {name!r} in the configuration. Known: {known}.", field="name")
        return self._running[name]


_WHY_NOT: Final = {
    Skip.NOTHING_FAILED: "There is nothing that hook {name} was told in vain, so nothing to skip.",
    Skip.GONE_ON: "Hook {name} went on behind what it was told in vain just now, so nothing was skipped.",
}


def _sender(hook: Hook) -> Sender:
    if isinstance(hook.target, Unusable):
        return NoSender(hook.target)
    if not isinstance(hook.target, Url):
        return CommandSender(hook.target)
    # Imported where it is wanted: httpx takes 5 MB, and some tens of ms.
    from holdpay.hooks.http import HttpSender

    return HttpSender(hook.target)


def _why_unusable(hook: Hook) -> str:
    return hook.target.why if isinstance(hook.target, Unusable) else ""


def _alarms_of(hook: Hook) -> list[str]:
    """Whatever its state on disk is."""
    if not (why := _why_unusable(hook)):
        return []
    return [f"hook {hook.name} is not usable: {why}; then `systemctl reload holdpayd`; meanwhile nothing is lost"]


def _is_alarm(state: HookState, now_ms: int) -> bool:
    since_ms = state.failing_since_ms
    return state.dead_at_ms is not None or (since_ms is not None and now_ms - since_ms > TOLD_FAILING_S * 1000)


def _alarm(state: HookState) -> str:
    if state.dead_at_ms is not None:
        return (
            f"hook {state.name} is dead, since it {state.trouble}: nothing is told to it, and nothing is lost; mend it,"
            f" then `holdpay hooks replay {state.name}`"
        )
    return (
        f"hook {state.name} has failed {state.attempt_count:,} times in a row, since it {state.trouble};"
        " it is tried again: see `holdpay hooks list`"
    )
