"""A rented number: the number at once, then each message that comes to it, until the rental ends.

The number comes when it was paid for, and nothing says when the hold invoice settles: it is watched until it does.
From then on, or from the first message on, the order is fulfilled; it stays open until the rental ends, and the
provider is asked for messages politely: minutes apart, sooner after one came. What a reply looks like is not
documented. Both shapes that are likely are read: one ``code`` that changes, and a list of messages. A code and the
text that it is a word of are one message, whichever comes first: the text is kept.

What cannot be known, since no message has a name. Of a ``code`` that changes: whether the same one came once more, and
what came and went between two requests. Of a list: whether it leaves out older messages and has the same texts as
before once more, if all that it shows is known in that order; and of the same texts in one list with its newest first,
in which order they came. A list that is sorted by something else than time may then tell one twice.

How long a rental runs is what ``/getRentalCountries`` said when it was ordered (``weeks``), counted from the number, or
what a reply says of its end, if that can be. Nobody says when the clock starts, and ours may have been wrong at that
time: so it is asked for until both are over, and ``LONGER_S`` longer; it does not end before it was asked once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from holdpay.core.events import ProviderStatus
from holdpay.core.items import Item, ItemKind, Keeper, texts
from holdpay.core.kinds.spec import KindName, Placing, Spec, Words, prepaid, signal_of
from holdpay.core.states import HtlcState, OrderSignal

if TYPE_CHECKING:
    from holdpay.core.model import Order
    from holdpay.core.policy import Policy


WEEK_S = 7 * 24 * 3600
LONGER_S = 24 * 3600
"""Past its end a message may still be told; and a clock that was wrong was so by less, as a rule."""
UNKNOWN_WEEKS = 1
"""Where the provider named no duration."""
MAX_WEEKS = 52
"""There its word about the end may be so far away."""
_FIRST = frozenset({ItemKind.NUMBER, ItemKind.MESSAGE})
_POLL_SOON_S, _POLL_MAX_S, _POLL_LATE_S = 15.0, 300.0, 900.0
_SOON_FOR_S = 600
"""After a message the next one is often near: people log in and confirm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RentalSpec(Spec):
    """``country``: the provider's number, 0 is a real one; None where a recovered order's is not known. ``service``:
    the short code, "full" for any. ``weeks``: how long; None: the provider named none."""

    words: ClassVar[Words] = Words(
        thing="the number", got="number rented", finding="a number is being found", waiting="the number is there"
    )
    may_be_canceled: ClassVar[bool] = True
    outlives_delivery: ClassVar[bool] = True

    kind: Literal[KindName.RENTAL] = KindName.RENTAL
    country: int | None
    country_name: str
    service: str
    service_name: str
    weeks: int | None
    ref: str | None = None

    @property
    def what(self) -> str:
        if self.country is None:
            return "a rented number, nobody knows any more of which service and country"
        long = "" if self.weeks is None else f" for {self.weeks} week{'s' if self.weeks != 1 else ''}"
        for_what = "" if self.service == "full" else f", for {self.service_name or self.service}"
        return f"a number rented in {self.country_name}{long}{for_what}"

    def placing(self, *, is_prepaid: bool) -> Placing:
        assert self.country is not None
        body: dict[str, str | int | bool] = {"country": self.country, "service": self.service, "isRental": True}
        if self.ref is not None:
            body["ref"] = self.ref
        return prepaid("/createorder", body) if is_prepaid else Placing(path="/createorder", body=body)

    def comes_next(self, order: Order) -> str:
        if order.number is None:
            return "A number comes next; messages to it are handed over as they come."
        return f"The number is +{order.number}: messages to it are handed over as they come."

    def after_delivery(self, order: Order) -> str:
        if order.number is None:
            return "Messages to the number are handed over as they come."
        return f"Messages to +{order.number} are handed over as they come, until the rental ends."

    def keep(self, keeper: Keeper, status: ProviderStatus) -> None:
        if status.number is not None:
            keeper.number(status.number)
        keeper.messages(status.messages)
        if status.code is not None:
            keeper.message_of_code(status.code, may_lack_zeros=status.code_may_lack_zeros)
        longest_ms = (self.weeks or MAX_WEEKS) * WEEK_S * 1000 + LONGER_S * 1000
        if status.ends_at_ms is not None and keeper.now_ms < status.ends_at_ms <= keeper.now_ms + longest_ms:
            keeper.end(status.ends_at_ms)

    def is_delivered(self, items: tuple[Item, ...]) -> bool:
        return bool(texts(items, ItemKind.MESSAGE))

    def signal(self, status: ProviderStatus) -> OrderSignal:
        if status.code is not None or status.messages:
            return OrderSignal.FULFILLED
        if status.error is None and status.number is not None:
            return OrderSignal.NUMBER
        return signal_of(status)

    def is_delivered_by_settlement(self, order: Order) -> bool:
        return order.number is not None

    def ends_at_ms(self, order: Order) -> int | None:
        """When the rental ends, as far as known: in the provider's words, else by our own count. None: neither a number
        nor a message is here yet."""
        said = texts(order.items, ItemKind.END)
        return int(said[0]) if said else self._counted_end_ms(order)

    def _counted_end_ms(self, order: Order) -> int | None:
        seen_at_ms = next((item.seen_at_ms for item in order.items if item.kind in _FIRST), None)
        if seen_at_ms is None:
            return None
        # A wall clock that was ahead then and was set back since: the order's own times were moved back with it.
        return min(seen_at_ms, order.state_since_ms) + (self.weeks or UNKNOWN_WEEKS) * WEEK_S * 1000

    def followed_until_ms(self, order: Order) -> int | None:
        ends = [at_ms for at_ms in (self.ends_at_ms(order), self._counted_end_ms(order)) if at_ms is not None]
        return max(ends) + LONGER_S * 1000 if ends else None

    def follow_poll_s(self, order: Order, policy: Policy, now_ms: int) -> float:
        latest_ms = max((item.seen_at_ms for item in order.items), default=0)
        is_paid_for = order.htlc is HtlcState.SETTLED or order.charge is not None
        is_soon = is_paid_for and 0 <= now_ms - latest_ms < _SOON_FOR_S * 1000
        ends_at_ms = self.ends_at_ms(order)
        is_over = ends_at_ms is not None and now_ms > ends_at_ms
        return _POLL_SOON_S if is_soon else _POLL_LATE_S if is_over else _POLL_MAX_S
