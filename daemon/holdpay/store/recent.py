"""The latest updates of requests that began in this process: who follows one is told of them without the database."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from holdpay.ports import Update

MOST_REQUESTS: Final = 256
MOST_UPDATES: Final = 32
"""Of one request: some 1 KB each."""


class Recent:
    """Of a request it has all updates, or none: then the journal is read."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, list[Update]] = OrderedDict()

    def began(self, update: Update) -> None:
        """The first of a request."""
        self._of[update.order.request.id] = [update]
        if len(self._of) > MOST_REQUESTS:
            self._of.popitem(last=False)

    def came(self, update: Update) -> None:
        """Another one, in turn."""
        request_id = update.order.request.id
        known = self._of.get(request_id, [])
        if len(known) == MOST_UPDATES:
            self.forget(request_id)
        elif known:
            known.append(update)
            self._of.move_to_end(request_id)

    def after(self, cursor: int, request_id: str) -> list[Update] | None:
        """None: only the journal has them."""
        known = self._of.get(request_id)
        return None if known is None else [update for update in known if update.cursor > cursor]

    def forget(self, request_id: str) -> None:
        """A next order of it comes, say: with each of its updates come the orders before."""
        self._of.pop(request_id, None)

    def forget_all(self) -> None:
        """What was erased must not be told from here."""
        self._of.clear()
