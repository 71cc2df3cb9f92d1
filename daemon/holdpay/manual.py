"""Where the pages of docs/ lie on this machine, for messages that send somebody there."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(__file__).parent


def page(name: str, heading: str = "") -> str:
    """``"Quarantine" in /opt/holdpay/…/share/doc/holdpay/docs/operations.md``.

    Of an installed holdpay the page below its environment's share/doc/holdpay, else that of the checkout.
    """
    path = Path("docs", name)
    environment = _PACKAGE.parents[3] if len(_PACKAGE.parents) > 3 else _PACKAGE  # lib/python3.X/site-packages/holdpay
    for folder in (environment / "share" / "doc" / "holdpay", _PACKAGE.parents[1]):
        if (folder / path).is_file():
            path = folder / path
            break
    return f'"{heading}" in {path}' if heading else str(path)
