"""What is to be thought of the provider, its account, and this machine's clock. Pure."""

from __future__ import annotations

from typing import Final

from holdpay.doctor.findings import Finding, Unseen, failed, ok, unseen, warning
from holdpay.doctor.seen import ProviderSeen

SLOW_MS: Final = 3_000
OFF_MS: Final = 15_000
TOO_FAR_OFF_MS: Final = 60_000
"""payment.min_expiry_left_s by default: hold invoices are judged by the clock, and so are the moments to cancel."""
FUTURE_BLOCK_MS: Final = 2 * 3600 * 1000
"""What the chain's rules allow a block to be ahead of the clocks of those who accept it."""


def judge_provider(seen: ProviderSeen | Unseen) -> Finding:
    check = "provider"
    if isinstance(seen, Unseen):
        return unseen(check, seen)
    way = f" by the proxy {seen.proxy}" if seen.proxy else ""
    text = f"{seen.url} told its prices{way} in {seen.took_ms / 1000:.1f} s"
    if seen.took_ms > SLOW_MS:
        todo = "See the proxy and the network; or the provider has much to do: codes come later then."
        return warning(check, f"{text}, which is slow.", todo)
    return ok(check, f"{text}.")


def judge_account(balance_sat: int | Unseen, warn_below_sat: int | None) -> Finding:
    """Of a prepaid account whose key is configured."""
    check = "account"
    if isinstance(balance_sat, Unseen):
        return unseen(check, balance_sat)
    text = f"The provider knows the API key; the prepaid account has {balance_sat:,} sat"
    if warn_below_sat is not None and balance_sat < warn_below_sat:
        text = f"{text}, less than provider.warn_balance_below_sat ({warn_below_sat:,})."
        return warning(check, text, "Put money into it: `holdpay account fund AMOUNT`.")
    return ok(check, f"{text}.")


def judge_clock(provider: ProviderSeen | Unseen, block_at_ms: int | None, now_ms: int) -> Finding:
    """Against the provider's Date header and the time of lnd's latest block (None: lnd told none)."""
    check = "clock"
    todo = "Set it (`timedatectl set-ntp true`), then restart holdpayd."
    if block_at_ms is not None and block_at_ms - now_ms > FUTURE_BLOCK_MS:
        behind = _span(block_at_ms - now_ms)
        return failed(check, f"lnd's latest block is {behind} in the future: this machine's clock is behind.", todo)
    if isinstance(provider, Unseen) or provider.ahead_ms is None:
        if block_at_ms is None:
            return warning(
                check,
                "There was nobody to compare this machine's clock with.",
                "Mend what failed here and run this again; `timedatectl` says whether the clock is kept.",
            )
        return ok(check, "It is not behind lnd's latest block; the provider told no time.")
    off_ms = max(0, abs(provider.ahead_ms) - provider.took_ms)
    way = "behind" if provider.ahead_ms > 0 else "ahead of"
    text = f"This machine's clock is {_span(abs(provider.ahead_ms))} {way} the provider's"
    if off_ms > TOO_FAR_OFF_MS:
        return failed(check, f"{text}: hold invoices would be taken for expired, or paid too late.", todo)
    if off_ms > OFF_MS:
        return warning(check, f"{text}.", todo)
    return ok(check, "It agrees with the provider's.")


def _span(ms: int) -> str:
    seconds = ms // 1000
    if seconds < 120:
        return f"{seconds} s"
    minutes = seconds // 60
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
