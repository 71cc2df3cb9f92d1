"""How sums, counts and lengths of time are written."""

from __future__ import annotations


def sat(msat: int) -> str:
    """``2001002`` → ``2,001.002 sat``; with no more decimals than it needs."""
    whole, rest = divmod(msat, 1000)
    decimals = f".{rest:03d}".rstrip("0").rstrip(".")
    return f"{whole:,}{decimals} sat"


def counted(count: int, thing: str) -> str:
    """``1, "order"`` → ``1 order``; ``2`` → ``2 orders``."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def minutes(duration_ms: int) -> str:
    """A rough duration for people."""
    seconds = max(0, duration_ms) // 1000
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 7 * 86_400 else f"{seconds // 86_400} days"
