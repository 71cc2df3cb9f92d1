"""What people and programs read of an audit: redacted, the worst first, with its exit code."""

from __future__ import annotations

import json
from dataclasses import replace
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
    return Report(database="/x/holdpay.db", order_count=2, journal_row_count=9_000, lnd="compared", findings=findings)


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
    assert lines[0] == "Something is wrong."
    assert lines[2:4] == ["ERROR order abcdefghjk (payment abababab…): It is torn.", "    do: It is torn."]
    assert lines[-2:] == ["database  /x/holdpay.db: 2 orders, 9,000 journal rows", "lnd       compared"]


def test_one_finding_about_many_orders_is_one_paragraph_that_names_them_up_to_a_bound() -> None:
    many = [replace(finding(Severity.WARNING), order_id=f"order{n:05d}", hash8=None) for n in range(50)]
    told = [*many, finding(Severity.NOTE)]
    lines = list(as_lines(report(*told)))
    assert lines[2] == "WARNING, 50 times: Something."
    assert lines[3].startswith("    of: order order00000, order order00001, ")
    assert lines[3].endswith(", order order00019, and 30 more")
    assert lines[4:6] == ["    do: Something.", ""]
    assert lines[6].startswith("note order abcdefghjk")
    assert len(json.loads(as_json(report(*told)))["findings"]) == 51


def test_one_kind_of_finding_in_many_words_shows_some_of_them() -> None:
    kind = finding(Severity.WARNING)
    lines = list(as_lines(report(*(replace(kind, text=f"It asks {n} sat.") for n in range(5)))))
    assert lines[2:5] == ["WARNING, 5 times: It asks 0 sat.", "    or: It asks 1 sat.", "    or: It asks 2 sat."]
    assert lines[5] == "    or in 2 other ways, which --json has"


def test_an_empty_report_says_that_all_is_well() -> None:
    assert next(iter(as_lines(report()))).startswith("All is well")


def test_the_operators_guide_has_every_exit_code_with_its_meaning() -> None:
    guide = (ROOT / "docs" / "operations.md").read_text()
    for code in AuditExit:
        assert f"| {int(code)} | {code.meaning} |" in guide
