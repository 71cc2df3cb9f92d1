"""What scripts/test says at its end, and when it fails."""

import re
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from scripts import run_tests
from scripts.run_tests import NO_TESTS, Outcome, Suite
from tests.regtest import binaries

PYTHON = Suite("Python alone", "not real")
REAL = Suite("real lnd 0.21.0", "real")
AWAY = Suite("real lnd 0.21.0", "real", missing="There is no Go.", refusal=True)


def outcome(suite: Suite, exit_code: int = 0, *, passed: int = 1, needs: str | None = None) -> Outcome:
    return Outcome(suite, exit_code, Counter(passed=passed), Counter([needs] if needs else []))


def problems(*outcomes: Outcome, chosen: list[str] | None = None, ci: bool = False) -> list[str]:
    return run_tests.find_problems([ran.suite for ran in outcomes], list(outcomes), chosen or [], ci=ci)


def test_suites_that_passed_are_no_problem() -> None:
    assert problems(outcome(PYTHON), outcome(REAL), ci=True) == []


def test_a_failed_suite_fails_the_run() -> None:
    assert problems(outcome(PYTHON), outcome(REAL, 1)) == ["real lnd 0.21.0 (pytest ended with 1)"]


def test_a_suite_that_was_asked_for_and_cannot_run_fails_the_run() -> None:
    assert run_tests.find_problems([PYTHON, AWAY], [outcome(PYTHON)], [], ci=False) == [
        "real lnd 0.21.0 was asked for and could not run"
    ]


def test_what_the_machine_lacks_fails_the_run_in_ci_only() -> None:
    lacking = outcome(PYTHON, needs="needs systemd-analyze")
    assert problems(lacking) == []
    assert problems(lacking, ci=True) == ["Python alone lacks something on this machine, and CI must not skip it"]


def test_a_suite_without_tests_fails_the_run_unless_the_choice_left_others() -> None:
    empty = outcome(REAL, NO_TESTS, passed=0)
    assert problems(outcome(PYTHON), empty) == ["real lnd 0.21.0 has no tests to run"]
    assert problems(outcome(PYTHON), empty, chosen=["-k", "lock"]) == []
    assert problems(empty, chosen=["-k", "misspelt"]) == ["real lnd 0.21.0 has no tests to run"]


def test_the_report_tells_outcomes_and_what_was_needed(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        """<testsuites><testsuite>
        <testcase name="a"/><testcase name="b"><failure message="no"/></testcase><testcase name="c"><error/></testcase>
        <testcase name="d"><skipped message="needs Go"/></testcase>
        <testcase name="e"><skipped message="Linux"/></testcase>
        </testsuite></testsuites>"""
    )
    counts, needs = run_tests.read_report(report)
    assert run_tests.totals(counts) == "1 failed, 1 passed, 2 skipped, 1 errors"
    assert needs == Counter({"needs Go": 1})


def test_the_end_names_each_suite_and_why_it_did_not_run() -> None:
    ran = outcome(PYTHON, passed=7, needs="needs Go")
    assert run_tests.describe(PYTHON, [ran]) == "ran: 7 passed\n    1 not run: needs Go"
    assert run_tests.describe(AWAY, [ran]) == "not run: There is no Go."
    assert run_tests.describe(PYTHON, [outcome(PYTHON, NO_TESTS, passed=0)]) == "not run: it has no such test"


def test_the_real_suite_names_the_command_that_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOLDPAY_LND_VERSION", raising=False)
    (suite,) = run_tests.real_suites({}, asked=False, both=False)
    assert suite.missing is not None
    assert "scripts/test --real" in suite.missing
    assert not suite.refusal


def test_ci_runs_the_newest_and_the_oldest_tested_lnd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOLDPAY_LND_VERSION", raising=False)
    monkeypatch.setattr(binaries, "ensure", lambda version: None)
    suites = run_tests.real_suites({"A": "1"}, asked=True, both=True)
    assert [suite.environment for suite in suites] == [
        {"A": "1", "HOLDPAY_REAL": "1", "HOLDPAY_LND_VERSION": version} for version in ("0.21.0", "0.18.5")
    ]


def test_an_lnd_that_can_neither_be_found_nor_built_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(version: str) -> None:
        raise binaries.Unavailable(f"There is no lnd {version} here and no Go to build it.")

    monkeypatch.setattr(binaries, "ensure", unavailable)
    suite = run_tests.real_suite("0.18.5", {}, asked=True)
    assert (suite.missing, suite.refusal) == ("There is no lnd 0.18.5 here and no Go to build it.", True)


def test_what_is_measured_runs_alone_and_all_the_rest_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, bool]] = []
    all_at_once = threading.Barrier(4, timeout=30)

    def record(suite: Suite, chosen: list[str], *, is_beside: bool = False) -> Outcome:
        ran.append((suite.name, is_beside))
        if suite.name != "Figures":
            all_at_once.wait()
        return outcome(suite)

    monkeypatch.setattr(run_tests, "run", record)
    suites = [*run_tests.python_suites({}, []), REAL, replace(REAL, name="real lnd 0.18.5")]
    outcomes = run_tests.run_all(suites, [])
    beside = ["Processes", "real lnd 0.21.0", "real lnd 0.18.5"]
    assert [each.suite.name for each in outcomes] == ["Figures", "Python alone", *beside]
    assert ran[0] == ("Figures", False)
    assert set(ran[1:]) == {("Python alone", False), *((name, True) for name in beside)}
    assert [suite.paths for suite in run_tests.python_suites({}, ["-k", "lock"])] == [()]


def test_each_test_of_python_alone_is_in_one_suite_and_each_on_a_real_lnd_where_that_suite_looks() -> None:
    figures, within, processes = run_tests.python_suites({}, [])
    apart = {*figures.paths, *processes.paths}
    assert set(within.paths) == {f"--ignore={path}" for path in apart}
    tests = run_tests.ROOT / "tests"
    assert all((run_tests.ROOT / path).is_dir() for path in (*apart, *run_tests.ON_LND))
    marked = [path for path in tests.rglob("*.py") if re.search(r"mark\.real\b", path.read_text())]
    assert len(marked) > 5
    strays = [path for path in marked if not any(path.is_relative_to(run_tests.ROOT / on) for on in run_tests.ON_LND)]
    assert strays == []


HANGING = """
import asyncio

async def test_hangs():
    await asyncio.Event().wait()

async def test_goes_on():
    pass
"""


def test_a_test_that_hangs_fails_by_its_name_and_the_others_go_on(tmp_path: Path) -> None:
    suite = tmp_path / "test_hanging.py"
    suite.write_text(HANGING)
    command: list[str | Path] = [sys.executable, "-m", "pytest", "-c", run_tests.ROOT / "pyproject.toml"]
    command += ["--rootdir", tmp_path, "-o", "timeout=1", suite]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout
    assert "Failed: Timeout (>1.0s)" in said
    assert re.search(r"^FAILED \S*::test_hangs", said, re.MULTILINE)
    assert "1 failed, 1 passed" in said


def test_a_test_is_stopped_before_its_whole_suite_is(pytestconfig: pytest.Config) -> None:
    assert 0 < float(pytestconfig.getini("timeout")) < run_tests.HANG_S
