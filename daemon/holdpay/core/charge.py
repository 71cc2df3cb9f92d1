"""A spend of the prepaid account's balance, in place of a payment.

The intent is on disk before the order is placed, and it is placed once: a reply that was lost is never repeated,
because each repetition could spend again. What became of it the balance may prove, or a person says it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ChargeState(StrEnum):
    """The spend, in the provider's words."""

    INTENDED = "intended"
    """The intent is on disk, the order may or may not have arrived. Assume that it is spent."""
    UNKNOWN = "unknown"
    """The reply was lost, or made no sense: perhaps spent. Only the balance, or a person, can say."""
    CHARGED = "charged"
    """The provider took the order and the money."""
    REFUSED = "refused"
    """It did not take it. Nothing was spent."""
    RETURNED = "returned"
    """The provider says that the order is over: the price goes back to the balance."""


PERHAPS_CHARGED = frozenset({ChargeState.INTENDED, ChargeState.UNKNOWN})
COUNTED = PERHAPS_CHARGED | {ChargeState.CHARGED}
"""What the limits count as spent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One spend. ``amount_sat``: the price that was expected, which no reply confirms. ``balance_before_sat``: right
    before the intent; None: it was not known."""

    state: ChargeState = ChargeState.INTENDED
    since_ms: int
    amount_sat: int
    balance_before_sat: int | None = None
    intended_at_ms: int
    unmoved_since_ms: int | None = None
    """Since when the balance is seen to be what it was before, with nothing else that could have moved it. Once proves
    nothing: ``prove_absent_s``."""
