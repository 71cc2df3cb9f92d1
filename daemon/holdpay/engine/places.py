"""Places for holds, and the queue before them: oldest first. The queue is what is on disk; this is its index."""

from __future__ import annotations

from bisect import bisect_left, insort

from holdpay.core.holds import HoldCaps, WhenFull, ordinal
from holdpay.core.model import OPERATOR, Order
from holdpay.engine.tally import Tally
from holdpay.errors import LimitExceeded
from holdpay.ports import told_to


class Places:
    """Who waits, and whether there is room. ``tally`` counts who has a place."""

    def __init__(self, caps: HoldCaps, tally: Tally) -> None:
        self.caps = caps
        self._tally = tally
        self._waiting: list[tuple[int, str]] = []
        """Sorted: created when, and the id."""

    def changed(self, before: Order | None, after: Order | None) -> None:
        """None: it is not open. To be called for each change, as ``Tally.changed``."""
        was, is_now = _is_in_queue(before), _is_in_queue(after)
        if was and not is_now and before is not None:
            del self._waiting[bisect_left(self._waiting, _key(before))]
        elif is_now and not was and after is not None:
            insort(self._waiting, _key(after))

    @property
    def waiting(self) -> int:
        """How many orders wait."""
        return len(self._waiting)

    def oldest(self, most: int) -> list[str]:
        """The ids of those that waited longest, in their order."""
        return [order_id for _, order_id in self._waiting[:most]]

    def entering(self, order: Order) -> LimitExceeded | None:
        """Why an order that was not recorded yet cannot have a place at once; None: it can."""
        if (too_big := self.too_big(order)) is not None:
            return too_big
        full = self.full(order.reserved_msat) or (self._behind_others() if self._waiting else None)
        return None if full is None else told_to(order.request.client, full)

    def waits(self, more_msat: int) -> bool:
        """Whether an order of ``more_msat`` would have to wait for its place, and may."""
        return self.caps.when_full is WhenFull.QUEUE and (bool(self._waiting) or self.full(more_msat) is not None)

    def _behind_others(self) -> LimitExceeded:
        return LimitExceeded(
            f"{self.waiting:,} {'order waits' if self.waiting == 1 else 'orders wait'} for a place among the holds"
            " already. Wait for some to end, or raise [holds] in the configuration.",
            limit="holds",
        )

    def is_refused(self, order: Order) -> bool:
        """Whether an order that cannot have a place at once may not wait for one either: it never could have it, or the
        configuration says so."""
        return self.too_big(order) is not None or self.caps.when_full is WhenFull.REFUSE

    def too_big(self, order: Order) -> LimitExceeded | None:
        """The cap that an order alone is over, so that it can never have a place. None: it is over none."""
        wanted_sat = -(-order.reserved_msat // 1000)
        for limit, most_sat in (
            ("holds.max_channel_locked_sat", self.caps.max_channel_locked_sat),
            ("holds.max_locked_sat", self.caps.max_locked_sat),
        ):
            if most_sat is not None and wanted_sat > most_sat:
                return LimitExceeded(
                    f"This order alone may lock {wanted_sat:,} sat, and {limit} is {most_sat:,}."
                    " Order something cheaper, or raise the limit.",
                    limit=limit,
                    limit_sat=most_sat,
                    wanted_sat=wanted_sat,
                )
        return None

    def full(self, more_msat: int, ahead: Tally | None = None) -> LimitExceeded | None:
        """The cap that leaves no room for one more order of ``more_msat``; None: there is room. ``ahead``: what the
        step that is being taken has changed so far."""
        orders = self._tally.placed + (ahead.placed if ahead else 0)
        locked_msat = self._tally.placed_msat + (ahead.placed_msat if ahead else 0) + more_msat
        caps = self.caps
        if caps.max_orders is not None and orders >= caps.max_orders:
            return LimitExceeded(
                f"{orders:,} of {caps.max_orders:,} holds are out or about to be (holds.max_orders)."
                " Wait for one to end, or raise the limit.",
                limit="holds.max_orders",
                limit_orders=caps.max_orders,
                open_orders=orders,
            )
        if caps.max_locked_sat is not None and locked_msat > caps.max_locked_sat * 1000:
            locked_sat = -(-locked_msat // 1000)
            return LimitExceeded(
                f"With this order {locked_sat:,} sat would be locked in holds and holds.max_locked_sat is"
                f" {caps.max_locked_sat:,}. Wait for a hold to end, or raise the limit.",
                limit="holds.max_locked_sat",
                limit_sat=caps.max_locked_sat,
                wanted_sat=locked_sat,
            )
        return None

    def position(self, order: Order) -> int | None:
        """In the queue, from 1 on. None: it does not wait."""
        if not _is_in_queue(order):
            return None
        at = bisect_left(self._waiting, _key(order))
        return at + 1 if at < len(self._waiting) and self._waiting[at] == _key(order) else None

    def words(self, order: Order, client: str = OPERATOR) -> str:
        """For what it waits, and where in the queue, for people; a client is not told how much the others hold. Empty:
        it does not wait."""
        position = self.position(order)
        if position is None:
            return ""
        caps, counts = self.caps, []
        if caps.max_orders is not None:
            counts.append(f"{self._tally.placed:,} of {caps.max_orders:,} holds are out")
        if caps.max_locked_sat is not None:
            locked_sat = -(-self._tally.placed_msat // 1000)
            counts.append(f"{locked_sat:,} of {caps.max_locked_sat:,} sat are locked")
        if counts and client != OPERATOR:
            counts = ["there is no place for it yet"]
        return "; ".join([", ".join(counts), f"{ordinal(position)} in the queue"] if counts else ["about to be placed"])


def _is_in_queue(order: Order | None) -> bool:
    return order is not None and order.is_waiting and not order.is_quarantined


def _key(order: Order) -> tuple[int, str]:
    return order.created_at_ms, order.id
