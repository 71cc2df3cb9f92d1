"""Money for the prepaid account at the provider.

It is fulfilled when the hold invoice settles: nothing else says so, and what a status reply of such an order looks like
is not documented. The account's balance and its history show the credit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from holdpay.core.events import ProviderStatus
from holdpay.core.items import Item, Keeper
from holdpay.core.kinds.spec import KindName, Placing, Spec, Words
from holdpay.core.states import OrderSignal

if TYPE_CHECKING:
    from holdpay.core.model import Order


@dataclass(frozen=True, slots=True, kw_only=True)
class FundSpec(Spec):
    """``amount_sat``: what the balance gains."""

    words: ClassVar[Words] = Words(
        thing="the credit",
        got="account funded",
        finding="the account is being credited",
        waiting="the account is being credited",
    )

    kind: Literal[KindName.FUND] = KindName.FUND
    amount_sat: int

    @property
    def what(self) -> str:
        return f"{self.amount_sat:,} sat for the prepaid account"

    def placing(self, *, is_prepaid: bool) -> Placing:
        assert not is_prepaid
        return Placing(path="/fund", body={"amount": self.amount_sat}, needs_key=True)

    def comes_next(self, order: Order) -> str:
        return "The provider credits the account and settles the hold invoice."

    def keep(self, keeper: Keeper, status: ProviderStatus) -> None:
        """Nothing is delivered but the credit."""

    def is_delivered(self, items: tuple[Item, ...]) -> bool:
        return False

    def signal(self, status: ProviderStatus) -> OrderSignal:
        # Its status is not documented: an error of it is no word about the money. What becomes of that lnd says.
        return OrderSignal.PAID if status.is_paid else OrderSignal.UNPAID

    def is_delivered_by_settlement(self, order: Order) -> bool:
        return True
