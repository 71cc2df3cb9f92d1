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


OWNERS_SHOWN = 20
TEXTS_SHOWN = 3

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
    """For people: the verdict, what was found, the worst first, and what was looked at."""
    yield _VERDICTS[worst(report.findings)]
    for alike in _alike(report.findings):
        yield ""
        for line in _paragraph(alike):
            yield redact_text(line)
    yield ""
    yield redact_text(
        f"database  {report.database}: {report.order_count:,} orders, {report.journal_row_count:,} journal rows"
    )
    yield redact_text(f"lnd       {report.lnd}")


def _alike(findings: Iterable[Finding]) -> Iterable[list[Finding]]:
    """Of one kind, and with the same to do: told as one."""
    groups: dict[tuple[Severity, str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.code, finding.todo), []).append(finding)
    return groups.values()


def _paragraph(alike: list[Finding]) -> Iterator[str]:
    first, label = alike[0], _LABELS[alike[0].severity]
    if len(alike) == 1:
        yield f"{label}{_of(first)}: {first.text}"
    else:
        texts = list(dict.fromkeys(finding.text for finding in alike))
        yield f"{label}, {len(alike):,} times: {texts[0]}"
        yield from (f"    or: {text}" for text in texts[1:TEXTS_SHOWN])
        if len(texts) > TEXTS_SHOWN:
            yield f"    or in {len(texts) - TEXTS_SHOWN:,} other ways, which --json has"
        owners = [whose for finding in alike if (whose := _whose(finding))]
        more = f", and {len(owners) - OWNERS_SHOWN:,} more" if len(owners) > OWNERS_SHOWN else ""
        if owners:
            yield f"    of: {', '.join(owners[:OWNERS_SHOWN])}{more}"
    if first.todo:
        yield f"    do: {first.todo}"


def _of(finding: Finding) -> str:
    whose = _whose(finding)
    return f" {whose}" if whose else ""


def _whose(finding: Finding) -> str:
    payment = f"payment {finding.hash8}…" if finding.hash8 else ""
    if not finding.order_id:
        return payment
    return f"order {finding.order_id} ({payment})" if payment else f"order {finding.order_id}"


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
