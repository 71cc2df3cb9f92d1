"""A rented number: the number at once, then each message that comes to it, until the rental ends.

The number comes when it was paid for, and nothing says when the hold invoice settles: it is watched until it does.
From then on, or from the first message on, the order is fulfilled; it stays open until the rental ends, and the
provider is asked for messages politely: minutes apart, sooner after one came. What a reply looks like is not
documented. Both shapes that are likely are read: one ``code`` that changes, and a list of messages.

How long a rental runs is what ``/getRentalCountries`` said when it was ordered (``weeks``), counted from the number; it
is asked for a while longer, since nobody says when the clock starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from holdpay.core.events import ProviderStatus
from holdpay.core.items import Item, ItemKind, Keeper, texts, words
from holdpay.core.kinds.spec import KindName, Placing, Spec, Words, prepaid, signal_of
from holdpay.core.states import HtlcState, OrderSignal

if TYPE_CHECKING:
    from holdpay.core.model import Order
    from holdpay.core.policy import Policy


WEEK_S = 7 * 24 * 3600
LONGER_S = 3600
"""Past its end a message may still be told."""
UNKNOWN_WEEKS = 1
"""Where the provider named no duration."""
_FIRST = frozenset({ItemKind.NUMBER, ItemKind.MESSAGE})
_POLL_SOON_S, _POLL_MAX_S = 15.0, 300.0
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
        keeper.messages(_messages(status))

    def is_delivered(self, items: tuple[Item, ...]) -> bool:
        return bool(texts(items, ItemKind.MESSAGE))

    def signal(self, status: ProviderStatus) -> OrderSignal:
        if _messages(status):
            return OrderSignal.FULFILLED
        if status.error is None and status.number is not None:
            return OrderSignal.NUMBER
        return signal_of(status)

    def is_delivered_by_settlement(self, order: Order) -> bool:
        return order.number is not None

    def ends_at_ms(self, order: Order) -> int | None:
        """When the rental ends, as far as known. None: neither a number nor a message is here yet."""
        began_ms = next((item.seen_at_ms for item in order.items if item.kind in _FIRST), None)
        return None if began_ms is None else began_ms + (self.weeks or UNKNOWN_WEEKS) * WEEK_S * 1000

    def followed_until_ms(self, order: Order) -> int | None:
        ends_at_ms = self.ends_at_ms(order)
        return None if ends_at_ms is None else ends_at_ms + LONGER_S * 1000

    def follow_poll_s(self, order: Order, policy: Policy, now_ms: int) -> float:
        latest_ms = max((item.seen_at_ms for item in order.items), default=0)
        is_paid_for = order.htlc is HtlcState.SETTLED or order.charge is not None
        is_soon = is_paid_for and 0 <= now_ms - latest_ms < _SOON_FOR_S * 1000
        return _POLL_SOON_S if is_soon else _POLL_MAX_S


def _messages(status: ProviderStatus) -> tuple[str, ...]:
    """A code that the list has, too, is one of its messages and no other."""
    code = status.code
    if code is None or any(code in text and code in words(text) for text in status.messages):
        return status.messages
    return (*status.messages, code)
