"""One request, or all, over any number of connections: what to call next, and what an answer means. No I/O.

Whoever has the connection calls ``next_call``, hands on what it hears to ``heard`` and how it ended to ``lost`` or
``ended``, and begins anew after the pause that those return.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.client.errors import Failure, TimedOut, Unreachable
from holdpay.client.types import Update, update_of

FIRST_WAIT_S: Final = 0.25
LONGEST_WAIT_S: Final = 5.0


@dataclass(slots=True, kw_only=True)
class Following:
    """``submit``: a request that is made by following it. Else ``request_id`` is followed, or all if it is empty, after
    the cursor ``after`` (None: from now on). ``is_known``: a daemon has told of it, so one that is away comes back."""

    submit: pb.SubmitRequest | None = None
    request_id: str = ""
    after: int | None = None
    is_known: bool = False
    _wait_s: float = field(default=FIRST_WAIT_S, init=False)
    _is_going_away: bool = field(default=False, init=False)

    def next_call(self) -> pb.SubmitRequest | pb.WatchRequestsRequest:
        """What to call. Once a request is accepted it is only watched, so that no new connection orders anything; until
        then the same key makes sure that it is ordered once."""
        if self.submit is not None and not self.request_id:
            return self.submit
        return pb.WatchRequestsRequest(request_id=self.request_id, after_cursor=self.after)

    def heard(self, message: pb.RequestUpdate) -> Update | None:
        """None: it tells nothing new."""
        self._is_going_away = message.shutting_down
        if not message.HasField("request") or (self.after is not None and message.cursor <= self.after):
            return None
        self._wait_s, self.is_known = FIRST_WAIT_S, True
        self.after = message.cursor
        if self.submit is not None:
            self.request_id = message.request.id
        return update_of(message)

    def lost(self, failure: Failure) -> float:
        """The call failed. Returns how many seconds to wait; raises Refused, TimedOut or, where no daemon ever
        answered, Unreachable."""
        if failure.is_late:
            raise TimedOut(self.request_id)
        if failure.refusal is not None:
            raise failure.refusal
        if not self.is_known and self.submit is None:
            raise Unreachable(f"No holdpayd answers: {failure.words}")
        return self._pause_s()

    def ended(self) -> float | None:
        """The stream ended, and nothing failed. Returns how many seconds to wait until the next call; None: nothing
        more will come, since the request is over."""
        if self.request_id and not self._is_going_away:
            return None
        return self._pause_s()

    def _pause_s(self) -> float:
        wait_s, self._wait_s = self._wait_s, min(self._wait_s * 2, LONGEST_WAIT_S)
        return wait_s
