"""One hook: what it is to be told next, the try, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from random import Random
from typing import Final

import structlog

from holdpay.core.hooks import MAX_DELAY_S, Happening, HookState, Position, first_wanted
from holdpay.hooks.sending import Sender, Trouble, message_of
from holdpay.hooks.settings import Hook, Unusable
from holdpay.ports import Clock, HookStore

BATCH: Final = 50
"""Rows of the journal in one turn of the event loop, which they hold up for some milliseconds."""
PASSED_UNSAVED: Final = 1_000
"""Rows that do not concern the hook are read again after a restart, but no more of them than this."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Next:
    """What is to be told, and where the hook is afterwards. ``happening`` None: nothing."""

    happening: Happening | None
    position: Position


class Skip(Enum):
    """What became of the wish to go on behind what was tried in vain."""

    DONE = auto()
    NOTHING_FAILED = auto()
    GONE_ON = auto()
    """A try that was on its way meanwhile was acknowledged, or somebody else set the hook on."""


class Delivering:
    """In order and at least once: a position is left when its happening was acknowledged, never sooner."""

    def __init__(self, hook: Hook, sender: Sender, store: HookStore, clock: Clock, rng: Random) -> None:
        self.hook = hook
        self.sender = sender
        self._store = store
        self._clock = clock
        self._rng = rng
        self._read = (Position(cursor=-1), Position(cursor=-1))
        """The position on disk, and how far what follows it was read and does not concern the hook."""
        self.waiting_since_ms: int | None = None
        """Of when what comes next is. None: nothing that is known."""
        self.on_done: Callable[[bool], None] = lambda is_acknowledged: None
        """A try is over."""
        self.on_dead: Callable[[HookState], None] = lambda state: None

    @property
    def state(self) -> HookState:
        """On disk."""
        return self._store.state(self.hook.name)

    async def turn(self) -> float | None:
        """Tells what comes next, if it is due. Returns the seconds until the next turn; None: when something has
        happened. Raises StoreError: then it may be told again."""
        state, now_ms = self.state, self._clock.now_ms()
        if isinstance(self.hook.target, Unusable) or state.dead_at_ms is not None:
            return MAX_DELAY_S
        if wait_ms := state.wait_ms(now_ms):
            return wait_ms / 1000
        found = await self._next(state)
        if found.happening is None:
            self.waiting_since_ms = None
            return None
        self.waiting_since_ms = found.happening.at_ms
        trouble = await self._send(found.happening)
        self._record(state, found.position, trouble)
        return 0

    async def skip(self) -> Skip:
        """Goes on behind what was tried in vain, which is not told then. Raises StoreError."""
        state = self.state
        if not state.attempt_count:
            return Skip.NOTHING_FAILED
        found = await self._search(state.position)
        if found.happening is None:
            return Skip.NOTHING_FAILED
        return Skip.DONE if self._store.change(state, state.replayed(found.position)) else Skip.GONE_ON

    async def _next(self, state: HookState) -> _Next:
        known, position = self._read
        if known != state.position:
            position = state.position
        found = await self._search(position)
        if found.happening is None:
            self._read = (state.position, found.position)
            if found.position.cursor - state.position.cursor >= PASSED_UNSAVED:
                self._store.change(state, state.passed(found.position))
        return found

    async def _search(self, position: Position) -> _Next:
        store, topics = self._store, self.hook.topics
        while True:
            notice = store.next_notice(position.notice)
            news, read_to = store.news(position.cursor, BATCH)
            is_all = news is None and read_to == position.cursor
            position = position.after_rows(read_to)
            if notice is not None and (is_all or (news is not None and news.cursor > notice.after_cursor)):
                position = position.after_notice(notice.number)
                if notice.topic in topics:
                    return _Next(notice.happening(), position)
            elif is_all:
                return _Next(None, position)
            elif news is not None:
                if (found := first_wanted(news, position, topics)) is not None:
                    return _Next(*found)
                position = position.after_rows(news.cursor)
            await asyncio.sleep(0)

    async def _send(self, happening: Happening) -> Trouble | None:
        message = message_of(happening, self._clock, include_secrets=self.hook.include_secrets)
        return await self.sender.send(message)

    def _record(self, state: HookState, position: Position, trouble: Trouble | None) -> None:
        now_ms = self._clock.now_ms()
        self.on_done(trouble is None)
        if trouble is None:
            self._tell_recovery(state)
            self._store.change(state, state.delivered(position, now_ms))
            return
        jitter = self._rng.uniform(0.8, 1.2)
        after = state.failed(trouble.text, now_ms, jitter, is_final=trouble.is_final)
        if not self._store.change(state, after):
            return
        if after.dead_at_ms is not None:
            self.on_dead(after)
        elif not state.attempt_count:
            log.warning("a hook fails; it is tried again", hook=state.name, trouble=trouble.text)

    def _tell_recovery(self, state: HookState) -> None:
        if state.attempt_count:
            log.info("a hook works again", hook=state.name, tries=state.attempt_count + 1)
