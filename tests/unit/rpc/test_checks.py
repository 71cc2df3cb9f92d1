"""What every rule says, as clients get it."""

from __future__ import annotations

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.core.vetting import Check, Verdict
from holdpay.engine.objections import Answer, Finding
from holdpay.errors import LimitExceeded, NotPayable, PriceTooHigh
from holdpay.rpc.checks import answer_to_pb

PASSED = Check(rule="payee", value="02ab", limit="one of provider.payee_pubkeys", key="provider.payee_check", why="no")


def _with(verdict: Verdict) -> Check:
    return Check(rule="time_lock", value="500 blocks", limit="at most 475 blocks", verdict=verdict, why="too long")


def test_a_rule_is_told_whole_and_one_that_passed_has_nothing_to_explain() -> None:
    answer = Answer(what="an invoice", amount_msat=1, findings=(Finding(PASSED), Finding(_with(Verdict.UNKNOWN))))
    assert answer_to_pb(answer) == pb.CheckReport(
        fine=True,
        what="an invoice",
        amount_msat=1,
        checks=[
            pb.Check(
                rule="payee",
                value="02ab",
                limit="one of provider.payee_pubkeys",
                key="provider.payee_check",
                verdict=pb.VERDICT_PASS,
            ),
            pb.Check(
                rule="time_lock",
                value="500 blocks",
                limit="at most 475 blocks",
                verdict=pb.VERDICT_UNKNOWN,
                why="too long",
            ),
        ],
    )


def test_the_refusal_is_the_first_error_as_submit_would_send_it() -> None:
    dear = PriceTooHigh("Too dear.", price_sat=3, limit="max_price_sat")
    findings = (Finding(PASSED), Finding(_with(Verdict.FAIL), dear), Finding(_with(Verdict.FAIL), NotPayable("No.")))
    report = answer_to_pb(Answer(what="", amount_msat=None, findings=findings))
    assert not report.fine
    assert not report.HasField("amount_msat")
    assert report.refusal == pb.Refusal(
        status_code=11,  # OUT_OF_RANGE
        message="Too dear.",
        reason="PRICE_TOO_HIGH",
        metadata={"price_sat": "3", "limit": "max_price_sat"},
    )


def test_a_warning_refuses_nothing_and_a_failure_does_with_or_without_an_error() -> None:
    warned = Answer(what="", amount_msat=None, findings=(Finding(_with(Verdict.WARN)),))
    failed = Answer(what="", amount_msat=None, findings=(Finding(_with(Verdict.FAIL)),))
    assert (answer_to_pb(warned).fine, answer_to_pb(failed).fine) == (True, False)
    assert not answer_to_pb(failed).HasField("refusal")


def test_each_error_has_its_own_status() -> None:
    full = Answer(what="", amount_msat=None, findings=(Finding(_with(Verdict.FAIL), LimitExceeded("Full.")),))
    assert answer_to_pb(full).refusal.status_code == 8  # RESOURCE_EXHAUSTED
