"""What became of each dispatch of a payment, kept beside it: an order itself knows only the latest one. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from holdpay.core.diagnosis import Cause
from holdpay.core.lightning import Attempt, FailureReason
from holdpay.core.model import Payment
from holdpay.core.states import FailureClass


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchRecord:
    """One SendPaymentV2 call, from its intent on. None: it has not failed, or nothing of it is known."""

    n: int
    """From 1."""
    at_ms: int
    fee_limit_msat: int
    failed_at_ms: int | None = None
    failure_reason: FailureReason | None = None
    failure_class: FailureClass | None = None
    cause: Cause | None = None
    diagnosis: str | None = None


def recorded(before: Payment | None, after: Payment, known: DispatchRecord | None) -> DispatchRecord | None:
    """The record of the latest dispatch, if a change of the payment begins it or adds to it. ``known``: what it is so
    far; None: nothing, or it is not known here. None is returned if there is nothing to write."""
    if after.dispatch_count > (before.dispatch_count if before is not None else 0):
        return DispatchRecord(
            n=after.dispatch_count, at_ms=after.money_out_since_ms or 0, fee_limit_msat=after.fee_limit_msat
        )
    if known is None or before is None or (before.failure, before.diagnosis) == (after.failure, after.diagnosis):
        return None
    failure, diagnosis = after.failure, after.diagnosis
    found = replace(
        known,
        failed_at_ms=None if failure is None else failure.at_ms,
        failure_reason=None if failure is None else failure.reason,
        failure_class=None if failure is None else failure.failure_class,
        cause=None if diagnosis is None else diagnosis.cause,
        diagnosis=None if diagnosis is None else diagnosis.text,
    )
    return None if found == known else found


@dataclass(frozen=True, slots=True)
class Dispatched:
    """A dispatch with its HTLC attempts, oldest first."""

    record: DispatchRecord
    attempts: tuple[Attempt, ...] = ()
