"""What of a configuration that was read again takes effect at once, and what needs a restart."""

from __future__ import annotations

from typing import Final

from holdpay.config.settings import Settings

AT_ONCE: Final = frozenset(
    {
        "daemon.log_level",
        "limits.max_open_orders",
        "limits.max_pending_sat",
        "limits.max_spend_per_day_sat",
    }
)
"""Keys that a SIGHUP brings into effect. All others are what parts of the daemon were built with."""


def changed_keys(before: Settings, after: Settings) -> tuple[str, ...]:
    """Those whose values differ, in the order of the configuration."""
    return tuple(
        f"{section}.{key}"
        for section in type(before).model_fields
        for key in type(getattr(before, section)).model_fields
        if getattr(getattr(before, section), key) != getattr(getattr(after, section), key)
    )
