"""What is true of all open orders together, counted as each of them changes: nobody walks them all."""

from __future__ import annotations

from collections import Counter

from holdpay.core.explain import Beside, beside
from holdpay.core.holds import takes_place
from holdpay.core.lightning import NodeIdentity
from holdpay.core.model import Order, Payment
from holdpay.core.states import HoldLevel


class Tally:
    """Of those whose money is, or may be, out, how many there are and how much it is; who has a place among the holds;
    and why the others are open. What the limits look at the store counts (``MoneyTotals``)."""

    def __init__(self) -> None:
        self.out = 0
        self.locked_msat = 0
        self.levels: Counter[HoldLevel] = Counter()
        """Of those whose money is out, how urgent each is."""
        self.placed = 0
        """Those that have a place among the holds (``core.holds``)."""
        self.placed_msat = 0
        """What they may come to lock, with the largest fee that can be."""
        self.besides: Counter[Beside] = Counter()
        """Why those of ``MoneyTotals.settled_orders`` are open."""
        self._payers: Counter[NodeIdentity] = Counter()

    def changed(self, before: Order | None, after: Order | None) -> None:
        """None: it is not open."""
        self._count(before, -1)
        self._count(after, 1)

    def payer_besides(self, node: NodeIdentity) -> NodeIdentity | None:
        """Another node than ``node`` from which money is out."""
        return next((payer for payer in self._payers if payer != node), None)

    def _count(self, order: Order | None, by: int) -> None:
        if order is None:
            return
        why = beside(order)
        if why is not None:
            self.besides[why] += by
        if takes_place(order):
            self.placed += by
            self.placed_msat += by * order.reserved_msat
        if order.is_money_out and order.payment is not None:
            self._count_out(order, order.payment, by)

    def _count_out(self, order: Order, payment: Payment, by: int) -> None:
        payer = NodeIdentity(payment.node_pubkey, payment.node_network)
        self.out += by
        self.levels[payment.hold_level] += by
        self.locked_msat += by * order.locked_msat
        self._payers[payer] += by
        if not self._payers[payer]:
            del self._payers[payer]
