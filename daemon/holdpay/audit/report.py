"""Pure: an audit for people and for programs. Whatever it says goes through the redaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from holdpay.audit.findings import Finding, Severity, exit_code, worst
from holdpay.redact import redact_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was looked at, and what was found."""

    database: str
    order_count: int
    journal_row_count: int
    lnd: str
    """One sentence: compared with which node, or why not."""
    findings: tuple[Finding, ...]


_LABELS = {
    Severity.ERROR: "ERROR",
    Severity.WARNING: "WARNING",
    Severity.UNRESOLVED: "UNRESOLVED",
    Severity.NOTE: "note",
}
_VERDICTS = {
    Severity.NOTE: "All is well: nothing is wrong, and no order is open.",
    Severity.UNRESOLVED: "Nothing is wrong. Orders are under way.",
    Severity.WARNING: "Something should be looked at.",
    Severity.ERROR: "Something is wrong.",
}


def sorted_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The worst first; of one kind in the order in which they were found."""
    return tuple(sorted(findings, key=lambda finding: -finding.severity))


def as_lines(report: Report) -> Iterator[str]:
    """For people."""
    yield redact_text(
        f"database  {report.database}: {report.order_count} orders, {report.journal_row_count} journal rows"
    )
    yield redact_text(f"lnd       {report.lnd}")
    for finding in report.findings:
        yield ""
        yield redact_text(f"{_LABELS[finding.severity]}{_whose(finding)}: {finding.text}")
        if finding.todo:
            yield redact_text(f"    do: {finding.todo}")
    yield ""
    yield _VERDICTS[worst(report.findings)]


def _whose(finding: Finding) -> str:
    order = f" order {finding.order_id}" if finding.order_id else ""
    return f"{order} (payment {finding.hash8}…)" if finding.hash8 else order


def as_json(report: Report) -> str:
    """One object; ``exit_code`` is the process's."""
    findings = [
        {
            **asdict(finding),
            "severity": _LABELS[finding.severity].lower(),
            "text": redact_text(finding.text),
            "todo": redact_text(finding.todo),
        }
        for finding in report.findings
    ]
    fields = {
        "database": report.database,
        "order_count": report.order_count,
        "journal_row_count": report.journal_row_count,
        "lnd": redact_text(report.lnd),
        "exit_code": int(exit_code(report.findings)),
        "findings": findings,
    }
    return json.dumps(fields, ensure_ascii=False, indent=2)
