"""Puts money into the prepaid account when it runs low, if the configuration wants it. Off by default.

A top-up is an order like any other: vetted, inside the limits, followed to its end. There is at most one open order for
money of the account at a time, and a low balance starts at most one in ``EVERY_S``: a balance that does not show what
was paid must not empty the node.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from holdpay.core.kinds.spec import KindName
from holdpay.engine.account import Account
from holdpay.engine.desk import Desk
from holdpay.engine.engine import Engine
from holdpay.engine.wanted import Asked, FundWanted
from holdpay.errors import HoldpayError

EVERY_S = 3600
KEY_PREFIX = "top-up-"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopUpRule:
    """Below ``below_sat`` an order over ``amount_sat`` is made."""

    below_sat: int
    amount_sat: int


class TopUp:
    """Looks at the balance each time that ``look`` is called."""

    def __init__(self, engine: Engine, desk: Desk, account: Account, rule: TopUpRule) -> None:
        self._engine = engine
        self._desk = desk
        self._account = account
        self._rule = rule
        self._failing = ""

    async def look(self) -> None:
        """Orders money for the account if it has too little. What cannot be ordered now is logged once, and tried
        again with the next look."""
        try:
            await self._look()
        except HoldpayError as error:
            if error.message != self._failing:
                log.warning("the prepaid account cannot be topped up now", error=error.message)
            self._failing = error.message
        else:
            self._failing = ""

    async def _look(self) -> None:
        if self._has_begun_one():
            return
        balance_sat = (await self._account.balance()).balance_sat
        # Looked at again: a person may have ordered one while the provider was asked.
        if balance_sat >= self._rule.below_sat or self._has_begun_one():
            return
        log.info("the prepaid account is topped up", balance_sat=balance_sat, amount_sat=self._rule.amount_sat)
        key = f"{KEY_PREFIX}{self._engine.clock.now_ms()}"
        await self._desk.submit(Asked(key=key), FundWanted(amount_sat=self._rule.amount_sat))

    def _has_begun_one(self) -> bool:
        """Whether an order for money of the account is open, or one of ours was made lately."""
        if self._engine.store.has_open(KindName.FUND):
            return True
        since_ms = self._engine.clock.now_ms() - EVERY_S * 1000
        return self._engine.store.has_recent(KindName.FUND, since_ms, KEY_PREFIX)
