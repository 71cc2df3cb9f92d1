"""scripts/mutate on a tiny package: what it changes, and what it says of tests that notice and that do not."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mutation.operators import mutants

ROOT = Path(__file__).resolve().parents[2]

PRICES = '''
"""What things cost."""
import functools
import logging

log = logging.getLogger(__name__)
LIMIT_SAT = 100
FREE = frozenset({"air", "rain"})


def loud(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)
    return wrapper


@loud
def is_dear(price_sat: int) -> bool:
    """Over the limit."""
    log.info("asked", 1)
    return price_sat > LIMIT_SAT


class Till:
    @property
    def change_sat(self) -> int:
        return 10 - 3

    def never(self) -> int:
        return 7
'''

WAITING = """
def wait(seconds: int) -> int:
    while seconds > 0:
        seconds -= 1
    return seconds
"""

TESTS = """
from tiny.prices import FREE, Till, is_dear
from tiny.waiting import wait

def test_dear(): assert is_dear(102) and not is_dear(90)
def test_change(): assert Till().change_sat == 7
def test_wait(): assert wait(2) == 0
def test_free(): assert "air" in FREE
"""


@dataclass(frozen=True)
class Run:
    exit_code: int
    output: str
    verdicts: dict[tuple[str, str, str], str]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    # What a conftest imports may be the mutant.
    conftest = "from tiny.prices import FREE\nassert 'rain' in FREE\n"
    files = {
        "checks/conftest.py": conftest,
        "src/tiny/prices.py": PRICES,
        "src/tiny/waiting.py": WAITING,
        "checks/test_prices.py": TESTS,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "equivalent.toml").write_text("")
    return tmp_path


def mutate(tiny: Path, *options: str, only: str = "src/tiny/prices.py") -> Run:
    report = tiny / "report.json"
    chosen = ["--only", str(tiny / only), "--tests", str(tiny / "checks")]
    command = [sys.executable, "-m", "tests.mutation", *chosen, "--equivalents", str(tiny / "equivalent.toml")]
    done = subprocess.run(
        [*command, "--json", str(report), *options],
        cwd=ROOT,
        env={"PYTHONPATH": str(tiny / "src"), "PATH": "/usr/bin:/bin", "TMPDIR": str(tiny)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    rows = json.loads(report.read_text()) if report.exists() else []
    verdicts = {(row["function"], row["before"], row["after"]): row["verdict"] for row in rows}
    return Run(done.returncode, done.stdout + done.stderr, verdicts)


def test_what_no_test_notices_is_told_and_what_one_notices_is_not(tiny: Path) -> None:
    run = mutate(tiny, only="src/tiny")
    assert run.exit_code == 1
    told = "survived: prices.py:22 is_dear comparison: return price_sat > LIMIT_SAT -> return price_sat >= LIMIT_SAT"
    assert told in run.output
    assert "<= LIMIT_SAT" not in run.output
    assert "no test: prices.py:31 Till.never constant: return 7 -> return 8" in run.output
    expected = {
        ("is_dear", "return price_sat > LIMIT_SAT", "return price_sat <= LIMIT_SAT"): "killed",  # behind a decorator
        ("Till.change_sat", "return 10 - 3", "return 10 + 3"): "killed",  # a property
        ("<module>", "LIMIT_SAT = 100", "LIMIT_SAT = 101"): "survived",  # at import
        ("<module>", "FREE = frozenset({'air', 'rain'})", "FREE = frozenset({'rain'})"): "killed",
        ("<module>", "FREE = frozenset({'air', 'rain'})", "FREE = frozenset({'air'})"): "killed",
        ("wait", "seconds -= 1", "seconds += 1"): "timeout",
    }
    assert expected.items() <= run.verdicts.items()


def test_a_log_call_and_a_docstring_are_no_mutants(tiny: Path) -> None:
    found = mutants(tiny / "src/tiny/prices.py")
    assert not [mutant for mutant in found if "asked" in mutant.before or "Over the limit" in mutant.before]


def test_a_listed_equivalent_is_left_out_and_one_that_fits_nothing_is_a_mistake(tiny: Path) -> None:
    listed = """
        [[equivalent]]
        file = "tiny/prices.py"
        function = "is_dear"
        before = "return price_sat > LIMIT_SAT"
        after = "return price_sat >= LIMIT_SAT"
        why = "nobody pays the limit"
    """
    (tiny / "equivalent.toml").write_text(listed)
    run = mutate(tiny)
    assert ">= LIMIT_SAT" not in run.output
    assert "1 equivalent" in run.output
    (tiny / "equivalent.toml").write_text(listed.replace("is_dear", "is_cheap"))
    run = mutate(tiny)
    assert run.exit_code == 1
    assert "no mutant is like the one listed as equivalent any more" in run.output


def test_tests_that_fail_by_themselves_measure_nothing(tiny: Path) -> None:
    (tiny / "checks/test_prices.py").write_text("import tiny.prices\ndef test_wrong(): assert False")
    run = mutate(tiny)
    assert run.exit_code == 1
    assert "fail without a mutant" in run.output
    assert "test_wrong" in run.output


def test_a_sample_is_drawn_over_the_whole_source(tiny: Path) -> None:
    run = mutate(tiny, "--sample", "6")
    functions = {function for function, _, _ in run.verdicts}
    assert len(run.verdicts) == 6
    assert functions >= {"<module>", "Till.never"}
