"""An SMS or an e-mail that the provider sends.

It is charged when it was sent: the hold invoice settles then. Whether it was delivered is told later, so the order
stays open until then, for ``FOLLOW_S`` at most. The provider documents neither a promise nor a way to cancel, and none
is assumed: the alarms about a slow one are ours.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from holdpay.core.events import ProviderStatus, SendStatus
from holdpay.core.items import Item, ItemKind, Keeper, texts
from holdpay.core.kinds.spec import KindName, Placing, Spec, Words, prepaid, signal_of
from holdpay.core.states import OrderSignal

if TYPE_CHECKING:
    from holdpay.core.model import Order
    from holdpay.core.policy import Policy


FOLLOW_S = 3600
"""A phone that was off for an hour gets its SMS without us."""
_SENT = frozenset({SendStatus.SENT.value, SendStatus.DELIVERED.value})
_LAST_WORDS = frozenset({SendStatus.DELIVERED.value, SendStatus.FAILED.value})
_POLL_AFTER = 0.25
"""Of the time that has passed since it was sent."""
_POLL_MIN_S, _POLL_MAX_S = 5.0, 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageSpec(Spec):
    """What both have in common. ``message``: at most 140 characters. Erased with the items: ``message`` and the
    recipient."""

    outlives_delivery: ClassVar[bool] = True

    message: str
    webhook_url: str | None = None

    @property
    @abstractmethod
    def recipient(self) -> tuple[str, str]:
        """The field of the request, and its value."""

    @property
    @abstractmethod
    def path(self) -> str:
        """The endpoint."""

    def placing(self, *, is_prepaid: bool) -> Placing:
        name, value = self.recipient
        body: dict[str, str | int | bool] = {"message": self.message, name: value}
        if self.webhook_url is not None:
            body["webhookUrl"] = self.webhook_url
        return prepaid(self.path, body) if is_prepaid else Placing(path=self.path, body=body)

    def with_webhook(self, make_url: Callable[[], str]) -> Self:
        return self if self.webhook_url is not None else replace(self, webhook_url=make_url())

    def comes_next(self, order: Order) -> str:
        return "It is sent next, and charged only then."

    def after_delivery(self, order: Order) -> str:
        return f"The provider is asked for up to {FOLLOW_S // 60} min whether it was delivered; then the order closes."

    def keep(self, keeper: Keeper, status: ProviderStatus) -> None:
        if status.send_status is not None:
            keeper.sending(status.send_status.value)

    def is_delivered(self, items: tuple[Item, ...]) -> bool:
        return not _SENT.isdisjoint(texts(items, ItemKind.SENDING))

    def is_taken_back(self, items: tuple[Item, ...]) -> bool:
        return texts(items, ItemKind.SENDING)[-1:] == (SendStatus.FAILED.value,)

    def signal(self, status: ProviderStatus) -> OrderSignal:
        if status.send_status is not None and status.send_status.value in _SENT:
            return OrderSignal.FULFILLED
        if status.send_status is SendStatus.FAILED:
            return OrderSignal.OVER
        return signal_of(status)

    def followed_until_ms(self, order: Order) -> int | None:
        said = texts(order.items, ItemKind.SENDING)
        return None if said and said[-1] in _LAST_WORDS else order.state_since_ms + FOLLOW_S * 1000

    def follow_poll_s(self, order: Order, policy: Policy, now_ms: int) -> float:
        return min(max((now_ms - order.state_since_ms) / 1000 * _POLL_AFTER, _POLL_MIN_S), _POLL_MAX_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmsSpec(MessageSpec):
    """``phone``: E.164, "+19871234567". ``ref``: a Lightning Address that earns a share."""

    words: ClassVar[Words] = Words(
        thing="the SMS", got="SMS sent", finding="the SMS is being sent", waiting="the SMS is being sent"
    )

    kind: Literal[KindName.SMS] = KindName.SMS
    phone: str
    ref: str | None = None

    @property
    def what(self) -> str:
        return f"an SMS to {self.phone}" if self.phone else "an SMS"

    @property
    def recipient(self) -> tuple[str, str]:
        return "phone", self.phone

    @property
    def path(self) -> str:
        return "/createsendorder"

    def without_secrets(self) -> Self:
        return replace(self, message="", phone="", webhook_url=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailSpec(MessageSpec):
    """``address``: of the one recipient."""

    words: ClassVar[Words] = Words(
        thing="the e-mail", got="e-mail sent", finding="the e-mail is being sent", waiting="the e-mail is being sent"
    )

    kind: Literal[KindName.EMAIL] = KindName.EMAIL
    address: str

    @property
    def what(self) -> str:
        return f"an e-mail to {self.address}" if self.address else "an e-mail"

    @property
    def recipient(self) -> tuple[str, str]:
        return "address", self.address

    @property
    def path(self) -> str:
        return "/createemailsendorder"

    def without_secrets(self) -> Self:
        return replace(self, message="", address="", webhook_url=None)
