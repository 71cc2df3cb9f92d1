"""The doctor's findings on paper."""

from __future__ import annotations

import json
from pathlib import Path

from holdpay.doctor.findings import DoctorExit, Finding, exit_code, failed, ok, parted, skipped, warning
from holdpay.doctor.report import COLUMNS, as_json, as_lines

HASH = "ab" * 32
LONG = "a quite ordinary sentence of some words that goes on and on until no line of a terminal is wide enough for it"
FOUND = [
    ok("disk", "There is room."),
    ok("unit", LONG),
    warning("unit", LONG, LONG),
    failed("lnd", "lnd is away.", "Start it."),
    skipped("version, sync", "lnd has to answer first."),
]


def lines(findings: list[Finding]) -> list[str]:
    return list(as_lines(findings))


def test_each_check_is_a_line_with_its_verdict_and_what_to_do_below() -> None:
    told = lines(FOUND)
    assert told[0] == "ok       disk: There is room."
    at = told.index("failed   lnd: lnd is away.")
    assert told[at + 1] == "         do: Start it."
    assert "skipped  version, sync: lnd has to answer first." in told


def test_no_line_is_wider_than_a_terminal() -> None:
    assert max(map(len, lines(FOUND))) <= COLUMNS
    assert all(line.startswith("         ") for line in lines([ok("unit", LONG)])[1:-2])


def test_a_path_is_not_broken_however_long_it_is() -> None:
    path = "/" + "long-folder/" * 9
    assert any(line.endswith(path) for line in lines([ok("disk", f"It is in {path}")]))


def test_the_last_line_sums_up_and_a_check_counts_once_by_its_worst() -> None:
    assert lines(FOUND)[-1] == "Checks: 1 ok; 1 warning (unit); 1 failed (lnd); not looked at: version, sync."
    assert lines([FOUND[0]])[-1] == "Checks: 1 ok."


def test_the_exit_code_is_of_the_worst() -> None:
    assert exit_code(FOUND[:3]) is DoctorExit.FINE
    assert exit_code(FOUND) is DoctorExit.FAILED
    assert exit_code([*FOUND, failed("configuration", "It is wrong.", "Mend it.")]) is DoctorExit.CONFIG
    assert exit_code([warning("configuration", "It is odd.", "Mend it.")]) is DoctorExit.FINE


def test_a_program_reads_the_same() -> None:
    told = json.loads(as_json(FOUND))
    assert told["exit_code"] == 4
    assert told["checks"][3] == {"check": "lnd", "verdict": "failed", "text": "lnd is away.", "todo": "Start it."}
    assert len(told["checks"]) == len(FOUND)


def test_nothing_secret_is_told() -> None:
    secret = [failed("lnd", f"{HASH} is odd.", "See socks5h://u:sesame@tor:9050.")]
    for printed in ("\n".join(as_lines(secret)), as_json(secret)):
        assert HASH not in printed
        assert "sesame" not in printed


def test_the_guide_explains_every_exit_code() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    section = guide.partition("## First: `holdpayd doctor`")[2].partition("\n## ")[0]
    for code in DoctorExit:
        assert f"| {int(code)} | {code.meaning} |" in section


def test_a_message_is_parted_after_its_first_sentence() -> None:
    what = parted("lnd at 127.0.0.1:1 does not answer (refused. Or so). See that it runs. And more.")
    assert what.text == "lnd at 127.0.0.1:1 does not answer (refused. Or so)."
    assert what.todo == "See that it runs. And more."
    assert parted("Only one.").text == "Only one."
    assert parted("Only one.").todo
