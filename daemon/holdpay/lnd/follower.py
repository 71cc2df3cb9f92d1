"""What one order hears of its payment: LND's words in LND's order, from whichever call they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeAlias

from holdpay.core.lightning import AttemptStatus, LndMessage, Lost, PaymentUpdate, Reported

Try: TypeAlias = tuple[int, int]
Progress: TypeAlias = tuple[Try, bool, int, int]


class Follower:
    """The messages about one payment, up to exactly one last one.

    A payment stream of its own would tell each state once, in order. Here the same state comes from several calls that
    run side by side, so what is older than the latest word, or the same, is left out.
    """

    __slots__ = (
        "_early",
        "_is_begun",
        "_messages",
        "_progress",
        "_reader",
        "_told",
        "_try",
        "is_heard",
        "is_over",
        "is_owed",
        "payment_hash",
    )

    def __init__(self, payment_hash: str, *, is_sending: bool) -> None:
        """``is_sending``: nothing is told before ``begin``, since what comes before may be of an earlier dispatch, or
        of another program's payment of the same hash."""
        self.payment_hash = payment_hash
        self.is_heard = False
        """The stream of all payments has spoken of it."""
        self.is_owed = False
        """It was sent when that stream had begun for sure, which has to speak of it therefore."""
        self.is_over = False
        self._is_begun = not is_sending
        self._early: list[PaymentUpdate | Lost] = []
        self._messages: list[LndMessage] = []
        self._progress: Progress | None = None
        self._told = 0
        self._try: Try | None = None
        self._reader: asyncio.Future[None] | None = None

    @property
    def has_word(self) -> bool:
        """Whether LND has said anything of the payment."""
        return self._progress is not None

    def begin(self, first: PaymentUpdate | None) -> None:
        """LND's first word to the send itself, which is live, and tells this try from others of the same hash. None: it
        was lost; whose words came before it nobody knows, so they do not count."""
        self._is_begun = True
        early, self._early = self._early, []
        if first is not None:
            self._try = try_of(first)
            self._tell(first, is_live=True)
        for said in early:
            if isinstance(said, Lost):
                self.end(said)
            elif first is not None:
                self._tell(said, is_live=True)

    def tell(self, update: PaymentUpdate, *, is_live: bool) -> None:
        """A snapshot. ``is_live``: of the stream; what came before its first word may have been missed, so that one
        is not."""
        if self._is_begun:
            self._tell(update, is_live=is_live and self.has_word)
        else:
            self._early.append(update)

    def end(self, message: LndMessage) -> None:
        """The last message, unless there was one."""
        if not self._is_begun and isinstance(message, Lost):
            self._early.append(message)
        elif not self.is_over:
            self.is_over = True
            self._put(message)

    async def messages(self) -> AsyncGenerator[LndMessage, None]:
        """All of them to the last one; for one reader."""
        while True:
            while not self._messages:
                self._reader = asyncio.get_running_loop().create_future()
                await self._reader
            message = self._messages.pop(0)
            yield message
            if self.is_over and not self._messages:
                return

    def _tell(self, update: PaymentUpdate, *, is_live: bool) -> None:
        if self._try is not None and try_of(update) != self._try:
            return
        progress, told = progress_of(update), hash(update)
        if self.is_over or (self._progress is not None and progress < self._progress):
            return
        if progress == self._progress and told == self._told:
            return
        self._progress, self._told = progress, told
        self.is_over = update.is_terminal
        self._put(Reported(update, is_live))

    def _put(self, message: LndMessage) -> None:
        self._messages.append(message)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


def progress_of(update: PaymentUpdate) -> Progress:
    """Never falls while LND works at a payment, and rises with each new try of the same hash."""
    resolved = sum(attempt.status is not AttemptStatus.IN_FLIGHT for attempt in update.attempts)
    return try_of(update), update.is_terminal, len(update.attempts), resolved


def try_of(update: PaymentUpdate) -> Try:
    """By its time, too, since an lnd on SQLite may give the index of a try that it replaces to the next one."""
    return update.payment_index, update.created_at_ms or 0
