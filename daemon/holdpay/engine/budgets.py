"""Says that a budget is nearly used up: once per window, in the log and to who else is to hear of it."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from holdpay.core.budget import WARN_PERCENT, Usage, Used

log = structlog.get_logger(__name__)


class BudgetWarnings:
    """Of all clients. A daemon that is started anew may say it once more."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[int, int]] = {}
        """By limit: when it was told, and until when that holds."""
        self.on_near: Callable[[Used], None] = lambda used: None

    def look(self, usage: Usage, now_ms: int) -> None:
        """To be called when something new counts in the budget."""
        for used in usage.used:
            limit = used.line.limit
            told_at_ms, until_ms = self._told.get(limit, (now_ms, now_ms))
            # Before it was told: the wall clock was set back.
            if not used.is_nearly or told_at_ms <= now_ms < until_ms:
                continue
            self._told[limit] = now_ms, used.window.ends_at_ms or now_ms + used.window.length_ms
            log.warning(
                "a budget is nearly used up",
                client=usage.budget.client,
                limit=limit,
                limit_sat=used.line.limit_sat,
                spent_msat=used.spent_msat,
                reserved_msat=used.reserved_msat,
                percent=WARN_PERCENT,
            )
            self.on_near(used)
