"""What the doctor found, and the exit codes that tell it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Verdict(StrEnum):
    """Of one check."""

    OK = "ok"
    WARNING = "warning"
    """Orders can be bought; it should be looked at."""
    FAILED = "failed"
    """It keeps orders from being bought, or their money from being followed."""
    SKIPPED = "skipped"
    """Not looked at: another check has to succeed first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """``text``: what was found. ``todo``: how to mend it; with WARNING and FAILED it is never empty."""

    verdict: Verdict
    check: str
    text: str
    todo: str = ""


class DoctorExit(IntEnum):
    """The exit codes of `holdpayd doctor`, those of `holdpayd check` where they mean the same."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> DoctorExit:
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    FINE = 0, "No check failed; there may be warnings."
    UNEXPECTED = 1, "Something unexpected."
    USAGE = 2, "The command line cannot be understood."
    FAILED = 4, "At least one check failed."
    CONFIG = 78, "The configuration cannot be used, so little else could be looked at."


CONFIGURATION = "configuration"
"""The name of the check that all others need."""


def exit_code(findings: Iterable[Finding]) -> DoctorExit:
    """By the worst of them."""
    failed = {finding.check for finding in findings if finding.verdict is Verdict.FAILED}
    if CONFIGURATION in failed:
        return DoctorExit.CONFIG
    return DoctorExit.FAILED if failed else DoctorExit.FINE


def ok(check: str, text: str) -> Finding:
    return Finding(verdict=Verdict.OK, check=check, text=text)


def warning(check: str, text: str, todo: str) -> Finding:
    return Finding(verdict=Verdict.WARNING, check=check, text=text, todo=todo)


def failed(check: str, text: str, todo: str) -> Finding:
    return Finding(verdict=Verdict.FAILED, check=check, text=text, todo=todo)


def skipped(check: str, text: str) -> Finding:
    return Finding(verdict=Verdict.SKIPPED, check=check, text=text)


@dataclass(frozen=True, slots=True)
class Unseen:
    """A look that saw nothing: why, and what to do."""

    text: str
    todo: str


def unseen(check: str, seen: Unseen) -> Finding:
    """A check whose look saw nothing has failed."""
    return failed(check, seen.text, seen.todo)


def parted(message: str) -> Unseen:
    """A message of ``errors`` (one sentence what happened, one what to do next), taken apart."""
    depth = 0
    for at, character in enumerate(message):
        depth += (character == "(") - (character == ")")
        if depth <= 0 and message[at : at + 2] == ". ":
            return Unseen(message[: at + 1], message[at + 2 :])
    return Unseen(message, "See the log of holdpayd (`journalctl -u holdpayd`).")
