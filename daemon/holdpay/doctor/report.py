"""Pure: what the doctor found, for people and for programs. Whatever it says goes through the redaction."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from holdpay.doctor.findings import Finding, Verdict, exit_code
from holdpay.redact import redact_text

COLUMNS: Final = 80
_LABEL: Final = 9
"""Where the text begins: behind the longest verdict."""
_RISING: Final = (Verdict.OK, Verdict.SKIPPED, Verdict.WARNING, Verdict.FAILED)


def as_lines(findings: Sequence[Finding]) -> Iterator[str]:
    """For people: each check in its place, what to do below it, and a last line that sums up."""
    for finding in findings:
        label = finding.verdict.value.ljust(_LABEL)
        yield from _wrapped(redact_text(f"{finding.check}: {finding.text}"), label, " " * _LABEL)
        if finding.todo:
            yield from _wrapped(redact_text(finding.todo), f"{' ' * _LABEL}do: ", " " * (_LABEL + 4))
    yield ""
    yield from _wrapped(_sum(findings), "", "")


def _wrapped(text: str, first: str, further: str) -> list[str]:
    # A path or a command that is broken in the middle cannot be copied: rather a line that is too long.
    return textwrap.wrap(
        text, COLUMNS, initial_indent=first, subsequent_indent=further, break_long_words=False, break_on_hyphens=False
    )


def _sum(findings: Sequence[Finding]) -> str:
    """A check with several findings counts once, by the worst."""
    worst: dict[str, Verdict] = {}
    for finding in findings:
        worst[finding.check] = max(finding.verdict, worst.get(finding.check, finding.verdict), key=_RISING.index)
    names = {verdict: [check for check, each in worst.items() if each is verdict] for verdict in _RISING}
    parts = [f"{len(names[Verdict.OK]):,} ok"]
    parts += [
        f"{len(names[verdict])} {verdict.value} ({', '.join(names[verdict])})"
        for verdict in (Verdict.WARNING, Verdict.FAILED)
        if names[verdict]
    ]
    parts += [f"not looked at: {', '.join(names[Verdict.SKIPPED])}"] if names[Verdict.SKIPPED] else []
    return f"Checks: {'; '.join(parts)}."


def as_json(findings: Sequence[Finding]) -> str:
    """One object; ``exit_code`` is the process's."""
    checks = [
        {
            "check": finding.check,
            "verdict": finding.verdict.value,
            "text": redact_text(finding.text),
            "todo": redact_text(finding.todo),
        }
        for finding in findings
    ]
    return json.dumps({"exit_code": int(exit_code(findings)), "checks": checks}, ensure_ascii=False, indent=2)
