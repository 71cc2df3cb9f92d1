"""Tells hooks what is in no row of the journal: alarms, whether lnd can pay, limits that are nearly used up.

It goes by the state as it is, so that what began while nothing could be written down is told all the same. A daemon
that is started anew tells again of what still lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from holdpay.core.budget import WARN_PERCENT, Used
from holdpay.core.hooks import Topic
from holdpay.core.states import HoldLevel
from holdpay.engine.account import Account
from holdpay.engine.engine import Engine
from holdpay.ports import NodeState

LND_GRACE_S: Final = 60
"""lnd is restarted, and falls a block behind, now and then."""
AGAIN_AFTER_S: Final = 3600
"""A limit that is used up again, and not before, is told again."""

Tell = Callable[[Topic, Mapping[str, Any]], None]


class Notices:
    """``tell``: where it is written down. ``last_told``: which of some topics was told last, also by an earlier
    process; None: none of them."""

    def __init__(
        self, engine: Engine, account: Account, tell: Tell, last_told: Callable[[Iterable[Topic]], Topic | None]
    ) -> None:
        self._engine = engine
        self._account = account
        self._tell = tell
        self._last_told = last_told
        self._is_lnd_told: bool | None = None
        """Whether hooks think that lnd cannot pay. None: the disk says it, and was not asked yet."""
        self._not_ready_since_ms: int | None = None
        self._alarms: set[str] = set()
        self._limits_told_at_ms: dict[str, int] = {}

    def alarm(self, request_id: str | None, level: HoldLevel, text: str) -> None:
        """See Engine.on_alarm."""
        self._tell(Topic.ALARM, {"level": level.value, "text": text, "request_id": request_id})

    def nobody_listens(self) -> None:
        """There is no hook. Those that come later were told nothing, and are told what lasts then."""
        self._is_lnd_told = False
        self._not_ready_since_ms = None
        self._alarms = set()
        self._limits_told_at_ms = {}

    def look(self) -> None:
        """To be called every few seconds."""
        now_ms = self._engine.clock.now_ms()
        self._look_at_lnd(now_ms)
        self._look_at_alarms()
        self._look_at_limits(now_ms)

    def _look_at_lnd(self, now_ms: int) -> None:
        status = self._engine.node_status()
        is_ready = status.state is NodeState.READY
        if is_ready:
            self._not_ready_since_ms = None
        elif self._not_ready_since_ms is None:
            self._not_ready_since_ms = now_ms
        if self._is_lnd_told is None:
            self._is_lnd_told = self._last_told((Topic.LND_NOT_READY, Topic.LND_READY)) is Topic.LND_NOT_READY
        facts = {"state": status.state.value, "detail": status.detail}
        since_ms = self._not_ready_since_ms
        if is_ready and self._is_lnd_told:
            self._is_lnd_told = False
            self._tell(Topic.LND_READY, facts)
        elif since_ms is not None and not self._is_lnd_told and now_ms - since_ms >= LND_GRACE_S * 1000:
            self._is_lnd_told = True
            self._tell(Topic.LND_NOT_READY, facts)

    def _look_at_alarms(self) -> None:
        """Those that are about no order."""
        of_webhooks = () if self._engine.webhooks is None else self._engine.webhooks.alarms()
        of_configuration = self._engine.alarms_of_configuration
        found = {_kind_of(text): text for text in (*of_configuration, *of_webhooks, *self._account.alarms())}
        for kind in found.keys() - self._alarms:
            self.alarm(None, HoldLevel.WARNING, found[kind])
        self._alarms = set(found)

    def _look_at_limits(self, now_ms: int) -> None:
        for limit, used_msat, limit_sat in self._used():
            if used_msat < limit_sat * 10 * WARN_PERCENT:
                continue
            told_at_ms = self._limits_told_at_ms.get(limit)
            self._limits_told_at_ms[limit] = now_ms
            # As long as it is used up it is told once.
            if told_at_ms is None or now_ms - told_at_ms >= AGAIN_AFTER_S * 1000:
                self._tell_limit(limit, used_msat, limit_sat)

    def budget_is_near(self, used: Used) -> None:
        """See BudgetWarnings."""
        self._tell_limit(used.line.limit, used.used_msat, used.line.limit_sat)

    def _tell_limit(self, limit: str, used_msat: int, limit_sat: int) -> None:
        percent = used_msat // (limit_sat * 10) if limit_sat else 100
        facts = {"limit": limit, "limit_sat": limit_sat, "used_msat": used_msat, "percent": percent}
        self._tell(Topic.LIMIT_NEAR, facts)

    def _used(self) -> Iterator[tuple[str, int, int]]:
        """Each limit of all clients together, what counts in it in msat, and the limit."""
        totals, limits = self._engine.totals(), self._engine.limits
        yield "limits.max_pending_sat", totals.pending_msat, limits.max_pending_sat
        day_msat = totals.pending_msat + totals.spent_day_msat
        yield "limits.max_spend_per_day_sat", day_msat, limits.max_spend_per_day_sat


def _kind_of(text: str) -> str:
    """An alarm without its numbers, which change while it lasts."""
    return "".join(character for character in text if not character.isdecimal())
