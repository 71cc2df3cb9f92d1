"""The prepaid account at the provider, for whoever asks, and an eye on its balance."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog

from holdpay.errors import ProviderError
from holdpay.ports import Balance, Funding, PrepaidAccount

log = structlog.get_logger(__name__)


class Account:
    """``warn_below_sat``: a balance under it is an alarm, once it was seen; None: none is."""

    def __init__(self, provider: PrepaidAccount, warn_below_sat: int | None) -> None:
        self._provider = provider
        self._warn_below_sat = warn_below_sat
        self._seen: Balance | None = None
        self._failing = ""

    async def balance(self) -> Balance:
        """As the provider says now. Raises ProviderError."""
        was_low = bool(self.alarms())
        self._seen = await self._provider.balance()
        self._failing = ""
        if (alarms := self.alarms()) and not was_low:
            log.warning("alarm", text=alarms[0])
        return self._seen

    async def funding(self) -> Funding:
        """What was paid into it. Raises ProviderError."""
        return await self._provider.funding()

    async def look(self) -> None:
        """Asks for the balance, for the alarm. A provider that cannot be asked is no defect of ours."""
        try:
            await self.balance()
        except ProviderError as error:
            if error.message != self._failing:
                log.warning("the prepaid balance cannot be seen", error=error.message)
            self._failing = error.message

    def alarms(self) -> list[str]:
        """A sentence with what to do next, if the balance was low when last seen."""
        seen, least_sat = self._seen, self._warn_below_sat
        if seen is None or least_sat is None or seen.balance_sat >= least_sat:
            return []
        at = datetime.fromtimestamp(seen.asked_at_ms / 1000, UTC)
        has = f"The prepaid account has {seen.balance_sat:,} sat (seen {at:%Y-%m-%dT%H:%M:%SZ})"
        return [f"{has}, and provider.warn_balance_below_sat is {least_sat:,}. Put money into it, or lower the key."]
