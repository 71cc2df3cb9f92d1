"""Has LND decode hold invoices, and can begin before the answer may count."""

from __future__ import annotations

import asyncio
from typing import Final

from holdpay.core.lightning import Invoice, NodeIdentity
from holdpay.ports import LightningNode

_TURNS: Final = 2
"""Of the event loop until a call is on its way: one for its task, one for gRPC's."""


class Decoder:
    """``begin`` is worth a millisecond or two before each payment: LND reads while we write to the disk."""

    def __init__(self, node: LightningNode) -> None:
        self._node = node
        self._begun: dict[str, asyncio.Task[tuple[Invoice, NodeIdentity]]] = {}

    async def begin(self, payreq: str) -> None:
        """Asks, and returns when the question is on its way. It only asks: nothing is decided by the answer yet."""
        task = asyncio.create_task(self._node.decode(payreq), name="decode early")
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # perhaps nobody wants it any more
        self._begun[payreq] = task
        try:
            for _ in range(_TURNS):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.forget(payreq)
            raise

    def forget(self, payreq: str) -> None:
        """The answer is not wanted."""
        begun = self._begun.pop(payreq, None)
        if begun is not None:
            begun.cancel()

    async def close(self) -> None:
        """Ends what was begun and is not wanted any more."""
        begun = list(self._begun.values())
        for payreq in list(self._begun):
            self.forget(payreq)
        await asyncio.gather(*begun, return_exceptions=True)

    async def decode(self, payreq: str) -> tuple[Invoice, NodeIdentity]:
        """As ``LightningNode.decode``; what ``begin`` asked is not asked again, once."""
        begun = self._begun.pop(payreq, None)
        return await (begun or self._node.decode(payreq))
