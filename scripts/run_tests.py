"""What scripts/test runs inside the environment: a pytest for each suite, then what ran, what did not, and why.

After what is measured all suites run at once: those on a real lnd and those of processes mostly wait. The first one
prints as it goes, the others when each of them has ended.

HOLDPAY_LND_VERSION chooses the lnd of the real suite (default: the newest supported; in CI also the oldest one tested).
A test says by `pytest.skip("needs …")` that the machine lacks something: shown at the end, and a failure where CI=true.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.regtest import binaries

ROOT = Path(__file__).resolve().parent.parent
LNDGRPC_VENV = ROOT / ".cache" / "lndgrpc"
HANG_S = 1200  # pytest then shows where every thread stands, and ends: a test that pyproject's `timeout` could not stop
FIGURES = "tests/bench"
PROCESSES = "tests/e2e"
ON_LND = ("tests/contract", "tests/integration")
NO_TESTS = 5  # pytest's exit code for "nothing collected"


@dataclass(frozen=True, slots=True)
class Suite:
    """One run of pytest. `missing` says why it cannot run, `refusal` whether that fails the whole run."""

    name: str
    marker: str
    paths: tuple[str, ...] = ()
    """pytest's; none: all. Where tests are chosen, that choice takes their place."""
    environment: dict[str, str] = field(default_factory=dict)
    missing: str | None = None
    refusal: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """`counts` by pytest's words; `needs` are the reasons of tests that the machine could not run."""

    suite: Suite
    exit_code: int
    counts: Counter[str]
    needs: Counter[str]


def main(arguments: list[str]) -> int:
    ci = os.environ.get("CI") == "true"
    real = ci or "--real" in arguments
    chosen = [argument for argument in arguments if argument != "--real"]
    started_s = time.monotonic()
    client, client_missing = lndgrpc_client()
    environment = {"HOLDPAY_LNDGRPC_PYTHON": client} if client else {}
    suites = [*python_suites(environment, chosen), *real_suites(environment, asked=real, both=ci)]
    outcomes = run_all([suite for suite in suites if suite.missing is None], chosen)
    print("\nSuites")
    for suite in suites:
        print(f"  {suite.name}: {describe(suite, outcomes)}")
    if client_missing:
        print(f"  lnd-grpc-client against the sandbox: not run: {client_missing}")
    problems = find_problems(suites, outcomes, chosen, ci=ci)
    if ci and client_missing:
        problems.append("lnd-grpc-client could not be installed, and CI must run its tests")
    for problem in problems:
        print(f"  FAILED: {problem}")
    total = sum((outcome.counts for outcome in outcomes), Counter[str]())
    print(f"===== {totals(total)} in {time.monotonic() - started_s:.2f}s =====", flush=True)
    return 1 if problems else 0


def lndgrpc_client() -> tuple[str | None, str]:
    """A Python with lnd-grpc-client, which can't share a process with other lnd stubs; or why there is none."""
    command: list[str | Path] = [sys.executable, ROOT / "scripts" / "make_venv.py", LNDGRPC_VENV, "lndgrpc"]
    made = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    sys.stderr.write(made.stderr)
    if made.returncode == 0:
        return str(LNDGRPC_VENV / "bin" / "python"), ""
    return None, (made.stderr.strip().splitlines() or ["it could not be installed"])[-1]


def python_suites(environment: dict[str, str], chosen: list[str]) -> list[Suite]:
    """What is measured has the machine to itself. Daemons and sandboxes as processes have a run of their own, which
    takes as long as all that runs in one process."""
    if chosen:
        return [Suite("Python alone", "not real", environment=environment)]
    within = (f"--ignore={FIGURES}", f"--ignore={PROCESSES}")
    return [
        Suite("Figures", "not real", (FIGURES,), environment),
        Suite("Python alone", "not real", within, environment),
        Suite("Processes", "not real", (PROCESSES,), environment),
    ]


def real_suites(environment: dict[str, str], *, asked: bool, both: bool) -> list[Suite]:
    """The suites on a real lnd, its binaries found or built."""
    wanted = os.environ.get("HOLDPAY_LND_VERSION")
    versions = [wanted] if wanted else [binaries.DEFAULT_VERSION]
    if both and not wanted:
        versions += [version for version in binaries.ACCEPTED_ON_PATH if version not in versions]
    return [real_suite(version, environment, asked=asked) for version in versions]


def real_suite(version: str, environment: dict[str, str], *, asked: bool) -> Suite:
    name = f"real lnd {version}"
    if not asked:
        return Suite(name, "real", missing="scripts/test --real runs it (with Go, or lnd and btcd on PATH)")
    try:
        binaries.ensure(version)
    except binaries.Unavailable as unavailable:
        return Suite(name, "real", missing=str(unavailable), refusal=True)
    return Suite(name, "real", ON_LND, {**environment, "HOLDPAY_REAL": "1", "HOLDPAY_LND_VERSION": version})


def run_all(suites: list[Suite], chosen: list[str]) -> list[Outcome]:
    """What is measured alone; then all others, each in a lane of its own."""
    alone = [suite for suite in suites if suite.paths == (FIGURES,)]
    first, *others = [suite for suite in suites if suite not in alone]
    outcomes = [run(suite, chosen) for suite in alone]
    with ThreadPoolExecutor(max_workers=max(1, len(others))) as lanes:
        beside = [lanes.submit(run, suite, chosen, is_beside=True) for suite in others]
        outcomes.append(run(first, chosen))
    return [*outcomes, *(ran.result() for ran in beside)]


def run(suite: Suite, chosen: list[str], *, is_beside: bool = False) -> Outcome:
    """``is_beside``: what it prints is kept until it has ended."""
    with tempfile.TemporaryDirectory(prefix="holdpay-test-") as scratch:
        report = Path(scratch) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", suite.marker, f"--junit-xml={report}"]
        command += [
            "-o",
            f"faulthandler_timeout={HANG_S}",
            "-o",
            "faulthandler_exit_on_timeout=true",
            *(chosen or suite.paths),
        ]
        if not is_beside:
            print(f"\n===== {suite.name} =====", flush=True)
        into = subprocess.PIPE if is_beside else None
        environment = os.environ | suite.environment
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=into, stderr=subprocess.STDOUT if into else None, check=False
        )
        if done.stdout is not None:
            print(f"\n===== {suite.name} =====\n{done.stdout.decode(errors='replace')}", flush=True)
        counts, needs = read_report(report)
    return Outcome(suite, done.returncode, counts, needs)


def read_report(report: Path) -> tuple[Counter[str], Counter[str]]:
    """Counts by outcome, and the reasons of skipped tests that start with `needs`."""
    counts: Counter[str] = Counter()
    needs: Counter[str] = Counter()
    if not report.exists():
        return counts, needs
    words = {"failure": "failed", "error": "errors", "skipped": "skipped"}
    for case in ElementTree.parse(report).iter("testcase"):
        found = [child for child in case if child.tag in words]
        counts[words[found[0].tag] if found else "passed"] += 1
        needs.update(why for child in found if (why := child.get("message", "")).startswith("needs "))
    return counts, needs


def describe(suite: Suite, outcomes: list[Outcome]) -> str:
    for outcome in outcomes:
        if outcome.suite is suite and outcome.exit_code == NO_TESTS:
            return "not run: it has no such test"
        if outcome.suite is suite:
            lacking = "".join(f"\n    {count} not run: {why}" for why, count in outcome.needs.items())
            return f"ran: {totals(outcome.counts)}{lacking}"
    return f"not run: {suite.missing}"


def find_problems(suites: list[Suite], outcomes: list[Outcome], chosen: list[str], *, ci: bool) -> list[str]:
    problems = [f"{suite.name} was asked for and could not run" for suite in suites if suite.refusal]
    empty = [outcome for outcome in outcomes if outcome.exit_code == NO_TESTS]
    for outcome in outcomes:
        if outcome.exit_code not in (0, NO_TESTS):
            problems.append(f"{outcome.suite.name} (pytest ended with {outcome.exit_code})")
        if ci and outcome.needs:
            problems.append(f"{outcome.suite.name} lacks something on this machine, and CI must not skip it")
    if empty and (not chosen or len(empty) == len(outcomes)):
        problems += [f"{outcome.suite.name} has no tests to run" for outcome in empty]
    return problems


def totals(counts: Counter[str]) -> str:
    order = ("failed", "passed", "skipped", "errors")
    return ", ".join(f"{counts[word]} {word}" for word in order if counts[word]) or "no tests ran"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
