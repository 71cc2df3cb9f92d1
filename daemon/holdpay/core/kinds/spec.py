"""What every kind of order answers for itself. Nothing else in the program asks which kind an order is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Self

from holdpay.core.events import ProviderStatus
from holdpay.core.items import Item, Keeper
from holdpay.core.states import OrderSignal

if TYPE_CHECKING:
    from holdpay.core.model import Order
    from holdpay.core.policy import Policy


class KindName(StrEnum):
    """What can be bought."""

    CODE = "code"
    RENTAL = "rental"
    SMS = "sms"
    EMAIL = "email"
    FUND = "fund"
    UNKNOWN = "unknown"
    """Of a recovered order: nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """How people call what a kind delivers."""

    thing: str
    """What the buyer waits for: "the code"."""
    got: str
    """It is there: "code received"."""
    finding: str
    """The HTLC is held and nothing has come yet: "a number is being found"."""
    waiting: str
    """After the number, where there is one: "waiting for the SMS"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """The request that creates an order at the provider: a POST of JSON.

    ``needs_key``: with the account's key. ``is_prepaid``: it spends the account's balance, and no invoice comes.
    """

    path: str
    body: Mapping[str, str | int | bool]
    needs_key: bool = False
    is_prepaid: bool = False


class Spec(ABC):
    """What a client asks for. Each kind is a frozen dataclass of its own, in a module of its own."""

    __slots__ = ()

    kind: KindName
    words: ClassVar[Words]
    has_promise: ClassVar[bool] = False
    """The provider promises the thing, or the money back, in ``policy.promise_s``. Without it our alarms come then all
    the same, and say that they are ours."""
    outlives_delivery: ClassVar[bool] = False
    """More may come once it is fulfilled and paid for: see ``is_followed``."""
    may_be_canceled: ClassVar[bool] = False
    """The provider can be asked to cancel what is paid."""

    @property
    def market(self) -> str | None:
        """What has its own habits of how soon a number comes. None: the kind brings no number for one code."""
        return None

    @property
    def webhook_url(self) -> str | None:
        """Where the provider tells how it goes. None: nowhere, or the kind has no such thing."""
        return None

    def with_webhook(self, make_url: Callable[[], str]) -> Self:
        """The same, telling at a new URL how it goes: if the kind has that, and the client named none of its own."""
        return self

    @property
    @abstractmethod
    def what(self) -> str:
        """What is bought, in words: "an activation code for OpenAI in Germany"."""

    @abstractmethod
    def placing(self, *, is_prepaid: bool) -> Placing:
        """How it is ordered."""

    @abstractmethod
    def keep(self, keeper: Keeper, status: ProviderStatus) -> None:
        """Keeps what a reply delivers."""

    @abstractmethod
    def signal(self, status: ProviderStatus) -> OrderSignal:
        """What a reply says about the order."""

    @abstractmethod
    def is_delivered(self, items: tuple[Item, ...]) -> bool:
        """Whether what was bought is among the items."""

    def is_taken_back(self, items: tuple[Item, ...]) -> bool:
        """Whether the provider said later that what was delivered failed after all."""
        return False

    def is_delivered_by_settlement(self, order: Order) -> bool:
        """Whether the order is fulfilled as soon as it is paid for, without a word of the provider's."""
        return False

    @abstractmethod
    def comes_next(self, order: Order) -> str:
        """What comes while the HTLC is held, and what the buyer has to do for it: one sentence or two."""

    def after_delivery(self, order: Order) -> str:
        """What comes when it is fulfilled and paid for."""
        return "The order closes now."

    def is_followed(self, order: Order, policy: Policy, now_ms: int) -> bool:
        """Whether more may come still: the order stays open then, and the provider is asked."""
        until_ms = self.followed_until_ms(order)
        return until_ms is not None and now_ms < until_ms

    def followed_until_ms(self, order: Order) -> int | None:
        """Until when more may come, after the delivery. None: nothing more comes."""
        return None

    def follow_poll_s(self, order: Order, policy: Policy, now_ms: int) -> float:
        """How long after the latest request the provider is asked again meanwhile."""
        raise NotImplementedError

    def without_secrets(self) -> Spec:
        """The same without what is the buyer's own business, long after the end."""
        return self


def signal_of(status: ProviderStatus) -> OrderSignal:
    """What every kind's reply may say."""
    if status.error is not None:
        return OrderSignal.OVER
    return OrderSignal.PAID if status.is_paid else OrderSignal.UNPAID


def prepaid(path: str, body: Mapping[str, str | int | bool]) -> Placing:
    """The same order, paid from the account's balance at once."""
    return Placing(path=path, body={**body, "immediate": True}, needs_key=True, is_prepaid=True)
