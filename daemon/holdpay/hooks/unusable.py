"""A hook that this machine cannot tell anything, as long as something is missing."""

from __future__ import annotations

from holdpay.hooks.sending import Message, Trouble
from holdpay.hooks.settings import Unusable


class NoSender:
    """It keeps its place, and what comes meanwhile waits for it."""

    def __init__(self, target: Unusable) -> None:
        self._unusable = target

    @property
    def target(self) -> str:
        return self._unusable.leads_to

    async def send(self, message: Message) -> Trouble | None:
        """See Sender."""
        return Trouble(f"is not usable: {self._unusable.why}")

    async def close(self) -> None:
        """There is nothing to close."""
