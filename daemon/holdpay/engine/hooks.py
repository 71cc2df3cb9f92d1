"""The daemon's own webhooks: URLs under which the provider hints that an order has news.

A URL is part of the order's spec, so it is durable with it. Whoever knows it can make the daemon ask the provider about
one order, once a second at most, and no more than that: what is sent there is never read.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

from holdpay.core.model import Order

SECRET_BYTES = 32


class Webhooks:
    """Which open order has which secret."""

    def __init__(self, public_url: str) -> None:
        """``public_url``: where the provider reaches the listener, without a slash at its end."""
        self.is_up: Callable[[], bool] = lambda: False
        """Whether the listener serves now."""
        self._prefix = f"{public_url}/"
        self._orders: dict[bytes, str] = {}

    def new_url(self) -> str:
        """Of one order."""
        return self._prefix + secrets.token_urlsafe(SECRET_BYTES)

    def opened(self, order: Order) -> None:
        """Hints are for an order from now on, if its URL is one of ours: under the public URL of now."""
        if (secret := self._secret(order)) is not None:
            self._orders[_digest(secret)] = order.id

    def closed(self, order: Order) -> None:
        """Its URL is nobody's any more."""
        if (secret := self._secret(order)) is not None:
            self._orders.pop(_digest(secret), None)

    def is_told(self, order: Order) -> bool:
        """Whether hints about the order reach us, as far as it depends on this machine."""
        return self._secret(order) is not None and self.is_up()

    def find(self, secret: str) -> str | None:
        """The id of the open order that has it."""
        return self._orders.get(_digest(secret))

    def _secret(self, order: Order) -> str | None:
        url = order.spec.webhook_url
        return url.removeprefix(self._prefix) if url is not None and url.startswith(self._prefix) else None


def _digest(secret: str) -> bytes:
    """Compared in its place: how long a look-up takes tells nothing of how much of a guess was right."""
    return hashlib.sha256(secret.encode()).digest()
