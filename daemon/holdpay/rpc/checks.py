"""What all rules say, as the interface has it."""

from __future__ import annotations

from typing import Final

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.core.vetting import Check, Verdict
from holdpay.engine.objections import Answer
from holdpay.errors import HoldpayError
from holdpay.rpc.status import code_of

_VERDICTS: Final = {verdict: pb.Verdict.Value(f"VERDICT_{verdict.name}") for verdict in Verdict}


def answer_to_pb(answer: Answer) -> pb.CheckReport:
    """Every rule, and the error that would come."""
    return pb.CheckReport(
        fine=answer.is_fine,
        what=answer.what,
        amount_msat=answer.amount_msat,
        checks=[_check_to_pb(finding.check) for finding in answer.findings],
        refusal=None if answer.error is None else _refusal_to_pb(answer.error),
    )


def _check_to_pb(check: Check) -> pb.Check:
    is_passed = check.verdict is Verdict.PASS
    return pb.Check(
        rule=check.rule,
        value=check.value,
        limit=check.limit,
        key=check.key,
        verdict=_VERDICTS[check.verdict],
        why="" if is_passed else check.why,
    )


def _refusal_to_pb(error: HoldpayError) -> pb.Refusal:
    return pb.Refusal(
        status_code=code_of(error).value[0], message=error.message, reason=error.reason, metadata=error.metadata
    )
