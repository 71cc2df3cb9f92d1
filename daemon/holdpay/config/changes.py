"""What of a configuration that was read again takes effect at once, and what needs a restart."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel

from holdpay.config.settings import Settings

LISTS: Final = ("client", "hook")
"""Sections of which there may be several, told apart by name."""
AT_ONCE: Final = frozenset(
    {
        "daemon.log_level",
        "limits.max_open_orders",
        "limits.max_pending_sat",
        "limits.max_spend_per_day_sat",
    }
)
"""Keys that a SIGHUP brings into effect, besides the budgets of clients and all of hooks. All others are what parts of
the daemon were built with."""
_OF_A_SOCKET: Final = frozenset({"name", "group", "socket"})
"""Keys of a client that need a restart, as does all of one that is new or gone."""


def is_at_once(key: str, before: Settings, after: Settings) -> bool:
    """Whether a SIGHUP brings a key, as ``changed_keys`` names it, into effect."""
    if key.startswith("hook."):
        return True
    if not key.startswith("client."):
        return key in AT_ONCE
    _, name, of_client = key.split(".")
    is_kept = all(name in {client.name for client in settings.client} for settings in (before, after))
    return is_kept and of_client not in _OF_A_SOCKET


def changed_keys(before: Settings, after: Settings) -> tuple[str, ...]:
    """Those whose values differ, in the order of the configuration. Those of LISTS are told apart by name."""
    was, now = _values(before), _values(after)
    return tuple(key for key in {**was, **now} if was.get(key) != now.get(key))


def _values(settings: Settings) -> dict[str, object]:
    sections: dict[str, BaseModel] = {}
    for name in type(settings).model_fields:
        if name in LISTS:
            sections |= {f"{name}.{each.name}": each for each in getattr(settings, name)}
        else:
            sections[name] = getattr(settings, name)
    return {f"{name}.{key}": getattr(each, key) for name, each in sections.items() for key in type(each).model_fields}
