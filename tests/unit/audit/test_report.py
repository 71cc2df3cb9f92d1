"""What people and programs read of an audit: redacted, the worst first, with its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdpay.audit.findings import AuditExit, Finding, Severity, exit_code
from holdpay.audit.report import Report, as_json, as_lines, sorted_findings

ROOT = Path(__file__).parents[3]
SECRET = "ab" * 32
TALK = f"payment {SECRET}, SMS to +15551234567, invoice lnbc30u1{'q' * 40}"


def finding(severity: Severity, text: str = "Something.") -> Finding:
    return Finding(severity=severity, code="a-code", text=text, todo=text, order_id="abcdefghjk", hash8=SECRET[:8])


def report(*findings: Finding) -> Report:
    return Report(database="/x/holdpay.db", order_count=2, journal_row_count=9, lnd="compared", findings=findings)


@pytest.mark.parametrize(
    ("severities", "code"),
    [
        ((), 0),
        ((Severity.NOTE,), 0),
        ((Severity.NOTE, Severity.UNRESOLVED), 3),
        ((Severity.WARNING,), 3),
        ((Severity.UNRESOLVED, Severity.ERROR, Severity.NOTE), 4),
    ],
)
def test_the_worst_finding_is_the_exit_code(severities: tuple[Severity, ...], code: int) -> None:
    findings = [finding(severity) for severity in severities]
    assert exit_code(findings) == code
    assert json.loads(as_json(report(*findings)))["exit_code"] == code


def test_no_hash_number_or_invoice_is_printed_whole() -> None:
    told = report(finding(Severity.ERROR, TALK))
    for printed in ("\n".join(as_lines(told)), as_json(told)):
        assert SECRET[:8] in printed
        assert not any(secret in printed for secret in (SECRET, "5551234567", "q" * 40))


def test_the_worst_is_told_first_and_says_what_to_do() -> None:
    lines = list(as_lines(report(*sorted_findings([finding(Severity.NOTE), finding(Severity.ERROR, "It is torn.")]))))
    assert lines[0] == "database  /x/holdpay.db: 2 orders, 9 journal rows"
    assert lines[3:5] == ["ERROR order abcdefghjk (payment abababab…): It is torn.", "    do: It is torn."]
    assert lines[-1] == "Something is wrong."


def test_an_empty_report_says_that_all_is_well() -> None:
    assert list(as_lines(report()))[-1].startswith("All is well")


def test_the_operators_guide_has_every_exit_code_with_its_meaning() -> None:
    guide = (ROOT / "docs" / "operations.md").read_text()
    for code in AuditExit:
        assert f"| {int(code)} | {code.meaning} |" in guide
