"""What is true of all open orders together, counted as each of them changes: nobody walks them all."""

from __future__ import annotations

from collections import Counter

from holdpay.core.lightning import NodeIdentity
from holdpay.core.model import Order


class Tally:
    """Of the orders whose money is, or may be, out."""

    def __init__(self) -> None:
        self.out = 0
        self.locked_msat = 0
        self._payers: Counter[NodeIdentity] = Counter()

    def changed(self, before: Order | None, after: Order | None) -> None:
        """None: it is not open."""
        self._count(before, -1)
        self._count(after, 1)

    def payer_besides(self, node: NodeIdentity) -> NodeIdentity | None:
        """Another node than ``node`` from which money is out."""
        return next((payer for payer in self._payers if payer != node), None)

    def _count(self, order: Order | None, by: int) -> None:
        if order is None or not order.is_money_out or order.payment is None:
            return
        payer = NodeIdentity(order.payment.node_pubkey, order.payment.node_network)
        self.out += by
        self.locked_msat += by * order.locked_msat
        self._payers[payer] += by
        if not self._payers[payer]:
            del self._payers[payer]
