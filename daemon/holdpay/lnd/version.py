"""Which lnd releases holdpay knows."""

from __future__ import annotations

import re
from typing import Final

OLDEST: Final = (0, 18, 3)
"""Payments of older ones could get stuck (lnd #8174)."""
NEWEST_TRIED: Final = (0, 21)
# Attempts that were out at a time-out stayed unresolved until a restart (lnd #10141, fixed in 0.19.3), and a held
# HTLC outlives the time-out as a rule (core/policy.py, dispatch_spec).
_UNRESOLVED_SINCE: Final = (0, 19, 0)
_UNRESOLVED_UNTIL: Final = (0, 19, 3)

Version = tuple[int, int, int]


def parse_version(text: str) -> Version | None:
    """GetInfo's version, for example "0.21.0-beta.rc1 commit=v0.21.0-beta"; None if it does not look like one."""
    match = re.match(r"v?(\d{1,4})\.(\d{1,4})\.(\d{1,4})", text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def version_warning(text: str) -> str:
    """A warning in the two sentences of every message, or "" for a release that was tried."""
    version = parse_version(text)
    if version is None:
        return f'lnd calls its version "{text[:40]}", which holdpay cannot read. See that it is 0.18.3 or later.'
    if version[:2] > NEWEST_TRIED:
        return f"lnd {_dotted(version)} is newer than any that holdpay was tried with (0.21). Look for a newer holdpay."
    return ""


def too_old_text(text: str) -> str:
    """Why a release must not pay, in two sentences; "" if it may, or cannot be read."""
    version = parse_version(text)
    if version is not None and version < OLDEST:
        return f"lnd {_dotted(version)} is too old: payments could get stuck before {_dotted(OLDEST)}. Upgrade lnd."
    if version is not None and _UNRESOLVED_SINCE <= version < _UNRESOLVED_UNTIL:
        return (
            f"lnd {_dotted(version)} leaves a payment that is held for long unresolved until it is restarted."
            f" Upgrade lnd to {_dotted(_UNRESOLVED_UNTIL)} or later."
        )
    return ""


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))
