"""How sums are written."""

from __future__ import annotations


def sat(msat: int) -> str:
    """``2001002`` → ``2,001.002 sat``."""
    whole, rest = divmod(msat, 1000)
    return f"{whole:,}.{rest:03d} sat" if rest else f"{whole:,} sat"
