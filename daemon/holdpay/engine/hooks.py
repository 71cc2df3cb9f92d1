"""The daemon's own webhooks: URLs under which the provider hints that an order has news.

A URL is part of the order's spec, so it is durable with it. Whoever knows it can make the daemon ask the provider about
one order, once a second at most, and no more than that: what is sent there is never read.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

import structlog

from holdpay.core.model import Order

SECRET_BYTES = 32
MAX_SILENT = 5
"""So many orders in a row were delivered without a webhook: it is the URL, or the way to it."""

log = structlog.get_logger(__name__)


class Webhooks:
    """Which open order has which secret."""

    def __init__(self, public_url: str) -> None:
        """``public_url``: where the provider reaches the listener, without a slash at its end."""
        self.is_up: Callable[[], bool] = lambda: False
        """Whether the listener serves now."""
        self._prefix = f"{public_url}/"
        self._orders: dict[bytes, str] = {}
        self._told: set[str] = set()
        """Of the open orders, those of which one came."""
        self._silent_count = 0
        """Orders in a row, since one came, that were delivered and of which none came."""

    def new_url(self) -> str:
        """Of one order."""
        return self._prefix + secrets.token_urlsafe(SECRET_BYTES)

    def opened(self, order: Order) -> None:
        """Hints are for an order from now on, if its URL is one of ours: under the public URL of now."""
        if (secret := self._secret(order)) is not None:
            self._orders[_digest(secret)] = order.id

    def closed(self, order: Order) -> None:
        """Its URL is nobody's any more."""
        if (secret := self._secret(order)) is None:
            return
        self._orders.pop(_digest(secret), None)
        if order.id not in self._told and order.is_delivered:
            self._silent_count += 1
            if self._silent_count == MAX_SILENT:
                log.warning("alarm", text=_NONE_CAME)
        self._told.discard(order.id)

    def is_told(self, order: Order) -> bool:
        """Whether hints about the order reach us, as far as it depends on this machine."""
        return self._secret(order) is not None and self.is_up()

    def arrived(self, secret: str) -> str | None:
        """A webhook came with this secret: the id of the open order that has it. None: nobody has."""
        order_id = self._orders.get(_digest(secret))
        if order_id is not None:
            self._told.add(order_id)
            self._silent_count = 0
        return order_id

    def alarms(self) -> tuple[str, ...]:
        """What an operator should look at."""
        if self._silent_count < MAX_SILENT:
            return ()
        return (_NONE_CAME,)

    def _secret(self, order: Order) -> str | None:
        url = order.spec.webhook_url
        return url.removeprefix(self._prefix) if url is not None and url.startswith(self._prefix) else None


_NONE_CAME = (
    f"no webhook has arrived for the last {MAX_SILENT} orders that were sent; see that webhook.public_url is right, and"
    " that the reverse proxy passes it on to webhook.listen"
)


def _digest(secret: str) -> bytes:
    """Compared in its place: how long a look-up takes tells nothing of how much of a guess was right."""
    return hashlib.sha256(secret.encode()).digest()
