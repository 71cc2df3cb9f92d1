"""What was ordered before the database was lost, where nothing shows what it was: only `holdpayd recover` makes these.

Certain are the payment and the provider's order id. Whatever any kind delivers is kept. The provider settles what it
delivered, so such an order is fulfilled when its hold invoice settles, or when a code, a message or the word comes that
it was sent; and since it may be a rented number, it is asked about for ``FOLLOW_S`` longer. A status of money for the
account is not documented, so an error in it is no word about the money here either: that lnd says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from holdpay.core.events import ProviderStatus, SendStatus
from holdpay.core.items import Item, ItemKind, Keeper, texts
from holdpay.core.kinds.spec import KindName, Placing, Spec, Words
from holdpay.core.states import OrderSignal

if TYPE_CHECKING:
    from holdpay.core.model import Order
    from holdpay.core.policy import Policy

FOLLOW_S = 7 * 24 * 3600
"""The shortest rental."""
_POLL_S = 300.0
_SENT = frozenset({SendStatus.SENT, SendStatus.DELIVERED})
_LAST_WORDS = frozenset({SendStatus.DELIVERED.value, SendStatus.FAILED.value})


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownSpec(Spec):
    """Of an order of which nobody knows what it was for."""

    words: ClassVar[Words] = Words(
        thing="what was ordered",
        got="settled, which the provider does when it delivered",
        finding="waiting for what was ordered",
        waiting="waiting for what was ordered",
    )
    may_be_canceled: ClassVar[bool] = True
    outlives_delivery: ClassVar[bool] = True

    kind: Literal[KindName.UNKNOWN] = KindName.UNKNOWN

    @property
    def what(self) -> str:
        return "something, nobody knows any more what"

    def placing(self, *, is_prepaid: bool) -> Placing:
        raise NotImplementedError("nobody orders what he does not know")

    def comes_next(self, order: Order) -> str:
        return "What comes is handed over."

    def after_delivery(self, order: Order) -> str:
        return f"The provider is asked for {FOLLOW_S // 86_400} days whether more comes; then the order closes."

    def keep(self, keeper: Keeper, status: ProviderStatus) -> None:
        if status.number is not None:
            keeper.number(status.number)
        if status.code is not None:
            keeper.code(status.code, may_lack_zeros=status.code_may_lack_zeros)
        if status.send_status is not None:
            keeper.sending(status.send_status.value)
        keeper.messages(status.messages)

    def is_delivered(self, items: tuple[Item, ...]) -> bool:
        is_sent = not _SENT.isdisjoint(texts(items, ItemKind.SENDING))
        return is_sent or any(item.kind in {ItemKind.CODE, ItemKind.MESSAGE} for item in items)

    def is_taken_back(self, items: tuple[Item, ...]) -> bool:
        return texts(items, ItemKind.SENDING)[-1:] == (SendStatus.FAILED.value,)

    def is_delivered_by_settlement(self, order: Order) -> bool:
        return True

    def signal(self, status: ProviderStatus) -> OrderSignal:
        if status.code is not None or status.messages or status.send_status in _SENT:
            return OrderSignal.FULFILLED
        if status.send_status is SendStatus.FAILED:
            return OrderSignal.OVER
        if status.error is None and status.number is not None:
            return OrderSignal.NUMBER
        return OrderSignal.PAID if status.is_paid else OrderSignal.UNPAID

    def followed_until_ms(self, order: Order) -> int | None:
        is_last_word = not _LAST_WORDS.isdisjoint(texts(order.items, ItemKind.SENDING)[-1:])
        return None if is_last_word else order.state_since_ms + FOLLOW_S * 1000

    def follow_poll_s(self, order: Order, policy: Policy, now_ms: int) -> float:
        return _POLL_S
