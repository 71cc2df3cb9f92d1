"""An activation code: a number for one service in one country, and the code that an SMS brings to it.

The number comes first, then the code; the hold invoice settles when the code came. Without one in ``policy.promise_s``
the provider cancels it. It can be asked to cancel earlier, from ``policy.cancel_after_s`` on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from holdpay.core.events import ProviderStatus
from holdpay.core.items import Item, ItemKind, Keeper, texts
from holdpay.core.kinds.spec import KindName, Placing, Spec, Words, prepaid, signal_of
from holdpay.core.states import OrderSignal

if TYPE_CHECKING:
    from holdpay.core.model import Order


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeSpec(Spec):
    """``country``: the provider's number, 0 is a real one; None where it is not known of one that an earlier build
    recovered. ``service``: its short code. ``ref``: a Lightning Address that earns a share."""

    words: ClassVar[Words] = Words(
        thing="the code", got="code received", finding="a number is being found", waiting="waiting for the SMS"
    )
    has_promise: ClassVar[bool] = True
    may_be_canceled: ClassVar[bool] = True

    kind: Literal[KindName.CODE] = KindName.CODE
    country: int | None
    country_name: str
    service: str
    service_name: str
    is_real_phone: bool = False
    ref: str | None = None

    @property
    def what(self) -> str:
        if self.country is None:
            return "something, nobody knows any more what (an activation code, as a rule)"
        on_what = " on a real phone" if self.is_real_phone else ""
        return f"an activation code{on_what} for {self.service_name or self.service} in {self.country_name}"

    @property
    def market(self) -> str:
        return f"{self.country}/{self.service}"

    def placing(self, *, is_prepaid: bool) -> Placing:
        assert self.country is not None
        body: dict[str, str | int | bool] = {"country": self.country, "service": self.service}
        if self.is_real_phone:
            body["realphone"] = True
        if self.ref is not None:
            body["ref"] = self.ref
        return prepaid("/createorder", body) if is_prepaid else Placing(path="/createorder", body=body)

    def comes_next(self, order: Order) -> str:
        if order.number is None:
            return "A number comes next, then the code."
        not_to = f", no longer to +{order.earlier_numbers[-1]}" if order.earlier_numbers else ""
        return f"Have the SMS sent to +{order.number}{not_to}: the code is handed over when it arrives."

    def keep(self, keeper: Keeper, status: ProviderStatus) -> None:
        if status.number is not None:
            keeper.number(status.number)
        if status.code is not None:
            keeper.code(status.code, may_lack_zeros=status.code_may_lack_zeros)
        for text in status.messages:
            # Without a digit it is more likely a word about it.
            if _may_hold_code(text):
                keeper.sms(text)
            else:
                keeper.unread(text, has_value=True)

    def is_delivered(self, items: tuple[Item, ...]) -> bool:
        return bool(texts(items, ItemKind.CODE))

    def signal(self, status: ProviderStatus) -> OrderSignal:
        if status.code is not None or any(map(_may_hold_code, status.messages)):
            return OrderSignal.FULFILLED
        if status.error is None and status.number is not None:
            return OrderSignal.NUMBER
        return signal_of(status)


def _may_hold_code(text: str) -> bool:
    return any(map(str.isdigit, text))
