"""The record of a dispatch: when a change of the payment begins one, adds to it, or says nothing new of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdpay.core.diagnosis import Cause, Diagnosis
from holdpay.core.dispatches import DispatchRecord, recorded
from holdpay.core.states import FailureClass, HtlcState
from tests.unit.build import NOW_MS, failure, payment

SENT = payment(HtlcState.DISPATCHING, dispatch_count=1, fee_limit_msat=10_000, money_out_since_ms=NOW_MS)
RECORD = DispatchRecord(n=1, at_ms=NOW_MS, fee_limit_msat=10_000)
FAILED = replace(SENT, htlc=HtlcState.FAILED, failure=failure(FailureClass.NO_ATTEMPT))
WHY = Diagnosis(cause=Cause.FEE_LIMIT, text="too dear")


def test_the_first_dispatch_and_each_further_one_begin_a_record() -> None:
    assert recorded(None, SENT, None) == recorded(replace(SENT, dispatch_count=0), SENT, None) == RECORD
    again = recorded(FAILED, replace(SENT, dispatch_count=2, fee_limit_msat=20_000), RECORD)
    assert again == replace(RECORD, n=2, fee_limit_msat=20_000)


def test_a_dispatch_of_which_nobody_knows_when_it_was_is_recorded_all_the_same() -> None:
    found = recorded(None, replace(SENT, money_out_since_ms=None), None)
    assert found == replace(RECORD, at_ms=0)


def test_a_failure_and_then_what_was_in_the_way_are_added() -> None:
    failed = recorded(SENT, FAILED, RECORD)
    assert failed is not None
    assert FAILED.failure is not None
    assert (failed.failed_at_ms, failed.failure_reason) == (FAILED.failure.at_ms, FAILED.failure.reason)
    assert (failed.failure_class, failed.cause, failed.diagnosis) == (FailureClass.NO_ATTEMPT, None, None)
    told = recorded(FAILED, replace(FAILED, diagnosis=WHY), failed)
    assert told == replace(failed, cause=Cause.FEE_LIMIT, diagnosis="too dear")


@pytest.mark.parametrize(
    ("before", "after", "known"),
    [
        (SENT, replace(SENT, htlc=HtlcState.IN_FLIGHT), RECORD),
        (SENT, FAILED, None),
        (None, replace(SENT, dispatch_count=0), RECORD),
        (SENT, replace(SENT, diagnosis=WHY), replace(RECORD, cause=Cause.FEE_LIMIT, diagnosis="too dear")),
    ],
    ids=["nothing of it changed", "it is not known here", "nothing was sent", "it says so already"],
)
def test_otherwise_there_is_nothing_to_write(before: object, after: object, known: DispatchRecord | None) -> None:
    assert recorded(before, after, known) is None  # type: ignore[arg-type]
