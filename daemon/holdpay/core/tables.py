"""The two tables that an order's halves go by, and what the pair of both means.

Each half is driven only by what its owner said: ``ORDER_TABLE`` by the provider, ``HTLC_TABLE`` by LND.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdpay.core.charge import ChargeState
from holdpay.core.kinds.spec import Words
from holdpay.core.model import Order
from holdpay.core.states import HtlcSignal, HtlcState, OrderSignal, OrderState


@dataclass(frozen=True, slots=True)
class To:
    """The next state; ``is_anomaly`` if the message contradicts what its sender said before."""

    state: OrderState | HtlcState
    is_anomaly: bool = False


_R, _A, _P, _N, _D, _C, _X = OrderState
_ORDER_SIGNALS = (OrderSignal.UNPAID, OrderSignal.PAID, OrderSignal.NUMBER, OrderSignal.FULFILLED, OrderSignal.OVER)


def _order_row(state: OrderState, *targets: To | OrderState) -> dict[tuple[OrderState, OrderSignal], To]:
    return {
        (state, signal): target if isinstance(target, To) else To(target)
        for signal, target in zip(_ORDER_SIGNALS, targets, strict=True)
    }


ORDER_TABLE: dict[tuple[OrderState, OrderSignal], To] = {
    (_R, OrderSignal.PLACED): To(_A),
    # state          UNPAID        PAID  NUMBER        FULFILLED     OVER
    **_order_row(_A, _A, _P, _N, _D, _C),
    **_order_row(_P, To(_P, True), _P, _N, _D, _C),
    **_order_row(_N, To(_N, True), _N, _N, _D, _C),
    **_order_row(_D, To(_D, True), _D, _D, _D, To(_D, True)),
    **_order_row(_C, _C, _C, To(_C, True), To(_D, True), _C),
    **{(state, OrderSignal.ABANDON): To(_X) for state in (_R, _A, _P, _N, _C)},
}
"""(state, signal) → next. A pair that is missing cannot happen: only our own code could ask for it."""

_S, _L = HtlcSignal.SEND, HtlcSignal.LOST
_NONE, _DISP, _UNKN, _FLY, _SETL, _FAIL, _GONE = HtlcState
_REPORTS = {HtlcSignal.IN_FLIGHT: _FLY, HtlcSignal.SETTLED: _SETL, HtlcSignal.FAILED: _FAIL}

HTLC_TABLE: dict[tuple[HtlcState, HtlcSignal], To] = {
    (_NONE, _S): To(_DISP),
    (_FAIL, _S): To(_DISP),
    **{(_DISP, s): To(t) for s, t in {**_REPORTS, _L: _UNKN, HtlcSignal.ABSENT: _NONE}.items()},
    **{(_UNKN, s): To(t) for s, t in {**_REPORTS, _L: _UNKN, HtlcSignal.ABSENT: _NONE}.items()},
    **{(_FLY, s): To(t) for s, t in {**_REPORTS, _L: _FLY}.items()},
    (_FLY, HtlcSignal.ABSENT): To(_FLY, True),
    # Said by the channels and the block height, or by an operator: it ends what LND's word would never end.
    **{(state, HtlcSignal.GONE): To(_GONE) for state in (_DISP, _UNKN, _FLY)},
    # LND spoke of a payment that we believed absent, or ended: its word counts, except against a preimage.
    **{(_NONE, s): To(t, True) for s, t in _REPORTS.items()},
    (_FAIL, HtlcSignal.FAILED): To(_FAIL),
    (_FAIL, HtlcSignal.IN_FLIGHT): To(_FLY, True),
    (_FAIL, HtlcSignal.SETTLED): To(_SETL, True),
    (_SETL, HtlcSignal.SETTLED): To(_SETL),
    (_SETL, HtlcSignal.IN_FLIGHT): To(_SETL, True),
    (_SETL, HtlcSignal.FAILED): To(_SETL, True),
    **{(_GONE, signal): To(_GONE, True) for signal in _REPORTS},
    **{(state, HtlcSignal.ABSENT): To(state, True) for state in (_NONE, _SETL, _FAIL, _GONE)},
    **{(state, _L): To(state) for state in (_NONE, _SETL, _FAIL, _GONE)},
}
"""(state, signal) → next. Missing: SEND while money may be out or spent, and GONE while none is out, which only our own
code could ask for."""


IMPOSSIBLE = ""


def _cells(state: OrderState, *phases: str) -> dict[tuple[OrderState, HtlcState], str]:
    return {(state, htlc): phase for htlc, phase in zip(HtlcState, phases, strict=True)}


_ASKING = "asking lnd what became of the payment"

PAIR_TABLE: dict[tuple[OrderState, HtlcState], str] = {
    # All 49 cells, with the kind's own words in braces.
    # columns: NONE, DISPATCHING, UNKNOWN, IN_FLIGHT, SETTLED, FAILED, GONE
    **_cells(_R, "ordering at the provider", IMPOSSIBLE, IMPOSSIBLE, IMPOSSIBLE, IMPOSSIBLE, IMPOSSIBLE, IMPOSSIBLE),
    **_cells(
        _A,
        "hold invoice received, not paid yet",
        "sending the payment",
        _ASKING,
        "payment on its way",
        "charged early, {thing} is due",
        "payment failed, the money is back",
        IMPOSSIBLE,
    ),
    **_cells(
        _P,
        "paid by somebody else, or the provider errs",
        "held, says the provider; asking lnd",
        "held, says the provider; asking lnd",
        "held, {finding}",
        "charged, {thing} is due",
        "the money is back, the provider does not say so yet",
        IMPOSSIBLE,
    ),
    **_cells(
        _N,
        "paid by somebody else; {waiting}",
        "held, says the provider; asking lnd",
        "held, says the provider; asking lnd",
        "held, {waiting}",
        "charged, {thing} is due",
        "the money is back; the number is probably dead",
        IMPOSSIBLE,
    ),
    **_cells(
        _D,
        "{got}, nothing charged",
        "{got}; asking lnd about the payment",
        "{got}; asking lnd about the payment",
        "{got}, settlement is coming",
        "{got}, settled",
        "{got}, nothing charged",
        "{got}; lnd cannot say any more how the payment ended",
    ),
    **_cells(
        _C,
        "canceled, nothing was sent",
        "canceled; asking lnd about the payment",
        "canceled; asking lnd about the payment",
        "canceled, the money is on its way back",
        "charged although canceled",
        "canceled, the money is back",
        "canceled; lnd cannot say any more how the payment ended",
    ),
    **_cells(
        _X,
        "given up, nothing was spent",
        IMPOSSIBLE,
        IMPOSSIBLE,
        IMPOSSIBLE,
        "charged, and {thing} never came",
        "given up, the money is back",
        "given up; lnd cannot say any more how the payment ended",
    ),
}


CHARGE_TABLE: dict[tuple[OrderState, ChargeState | None], str] = {
    (_R, None): "ordering at the provider",
    (_R, ChargeState.INTENDED): "ordering at the provider, paid from the account",
    (_R, ChargeState.UNKNOWN): "perhaps ordered and charged: the provider's reply was lost",
    (_R, ChargeState.REFUSED): "the provider did not take the order, nothing was charged",
    (_P, ChargeState.CHARGED): "paid from the account, {finding}",
    (_N, ChargeState.CHARGED): "paid from the account, {waiting}",
    (_D, None): "{got}, nothing charged",
    (_D, ChargeState.CHARGED): "{got}, paid from the account",
    (_D, ChargeState.REFUSED): "{got}, nothing charged",
    (_D, ChargeState.UNKNOWN): "{got}; nobody can say whether the account was charged",
    (_C, ChargeState.RETURNED): "canceled, the price goes back to the account",
    (_X, None): "given up, nothing was charged",
    (_X, ChargeState.UNKNOWN): "given up; nobody can say whether the account was charged",
    (_X, ChargeState.CHARGED): "charged, and {thing} never came",
    (_X, ChargeState.REFUSED): "given up, nothing was charged",
}
"""The same of an order that the prepaid account pays: (state, charge) → phase. What is missing is impossible."""


def cell(order: Order) -> str:
    """Where the order's two halves stand, as the tables have it. IMPOSSIBLE: we contradict ourselves."""
    if order.request.is_prepaid:
        return CHARGE_TABLE.get((order.state, None if order.charge is None else order.charge.state), IMPOSSIBLE)
    return PAIR_TABLE[order.state, order.htlc]


WAITING = "waiting for a place among the holds, nothing ordered yet"


def phase(order: Order) -> str:
    """The pair in a few words for people."""
    if order.is_waiting:
        return WAITING
    return in_words(cell(order), order.spec.words)


def in_words(text: str, words: Words) -> str:
    """A cell's text with the words of a kind."""
    return text.format(thing=words.thing, got=words.got, finding=words.finding, waiting=words.waiting)
