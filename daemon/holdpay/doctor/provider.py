"""The looks at the provider: its price list, and the balance of the prepaid account. Neither changes anything."""

from __future__ import annotations

import time
from random import Random
from typing import Final
from urllib.parse import urlsplit

from holdpay.app import provider_settings
from holdpay.clock import SystemClock
from holdpay.config import Settings
from holdpay.doctor.seen import ProviderSeen
from holdpay.sms4sats.client import Sms4Sats

PROVIDER_S: Final = 20.0
"""Tor takes its time."""


async def look_at_provider(settings: Settings, clock: SystemClock) -> ProviderSeen:
    """Raises ProviderError."""
    provider = _provider(settings, clock)
    began_s = time.monotonic()
    try:
        await provider.prices()
    finally:
        await provider.aclose()
    return ProviderSeen(
        url=settings.provider.base_url,
        proxy=_bare(settings.provider.proxy),
        took_ms=round((time.monotonic() - began_s) * 1000),
        ahead_ms=provider.ahead_ms,
    )


async def look_at_account(settings: Settings, clock: SystemClock) -> int:
    """Its balance in sat. Raises ProviderError."""
    provider = _provider(settings, clock)
    try:
        return (await provider.balance()).balance_sat
    finally:
        await provider.aclose()


def _provider(settings: Settings, clock: SystemClock) -> Sms4Sats:
    return Sms4Sats(provider_settings(settings), clock, Random())  # noqa: S311 - jitter


def _bare(proxy: str | None) -> str:
    """Without user and password."""
    if proxy is None:
        return ""
    url = urlsplit(proxy)
    return f"{url.scheme}://{url.hostname}:{url.port}"
