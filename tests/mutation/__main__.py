"""`python -m tests.mutation`: see scripts/mutate.

mutmut and cosmic-ray start a suite anew for every mutant; with thousands of tests that is days. Here the tests are
collected once and traced once; then each mutant is put into the functions of a forked child, which runs only the tests
that run the changed line, fastest first, until one fails. A change in what runs at import needs a process that has
imported nothing yet.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.mutation import equivalents
from tests.mutation.operators import PACKAGE, Mutant, mutants
from tests.mutation.run import LEFT, Result, Verdict, run

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("core", "engine", "lnd", "store")
EQUIVALENTS = ROOT / "tests" / "mutation" / "equivalent.toml"


def main() -> int:
    """Exit code 1 if a mutant survived that is not listed as equivalent."""
    options = _options()
    files = [path for chosen in options.only or PACKAGES for path in _files(chosen)]
    known = equivalents.load(options.equivalents)
    found = [mutant for path in files for mutant in mutants(path)]
    listed = equivalents.match(known, found, files)
    out = {id(mutant) for mutant in listed}
    chosen = [mutant for mutant in found if id(mutant) not in out]
    if options.sample is not None and options.sample < len(chosen):
        # Evenly: each stretch of the source gives its share.
        step = len(chosen) / options.sample
        offset = random.Random(options.seed).random() * step
        chosen = [chosen[int(offset + at * step)] for at in range(options.sample)]
    begun_s = time.monotonic()
    results: list[Result] = []
    for group in sorted({_group(mutant) for mutant in chosen}):
        tests = options.tests or [_tests_of(group)]
        of_group = [mutant for mutant in chosen if _group(mutant) == group]
        with tempfile.TemporaryDirectory(prefix="m-") as scratch:
            results += run(of_group, tests, options.jobs, options.simulate if group == "core" else 0, Path(scratch))
    _report(results, listed, time.monotonic() - begun_s)
    if options.json:
        options.json.write_text(json.dumps([_row(result) for result in results], indent=1) + "\n", encoding="utf-8")
    return 1 if any(result.verdict in LEFT for result in results) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/mutate", description="Which mutants of the code do the tests kill?")
    parser.add_argument("--only", action="append", metavar="PACKAGE|FILE", help="(default: core, engine, lnd, store)")
    parser.add_argument("--tests", action="append", metavar="PATH", help="(default: the unit tests of the package)")
    parser.add_argument("--sample", type=int, metavar="N", help="so many mutants, drawn evenly over the source")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="which sample (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="mutants at a time (default: %(default)s)")
    parser.add_argument(
        "--simulate",
        type=int,
        default=0,
        metavar="N",
        help="N seeds of the core's simulation for what no test kills (default: none)",
    )
    parser.add_argument("--equivalents", type=Path, default=EQUIVALENTS, metavar="FILE", help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every mutant with what became of it")
    return parser.parse_args()


def _files(chosen: str) -> list[Path]:
    path = PACKAGE / chosen if (PACKAGE / chosen).exists() else Path(chosen).resolve()
    if not path.exists():
        raise SystemExit(
            f"scripts/mutate: there is no {chosen}. Name a package of holdpay (core) or a file of one (core/hold.py)."
        )
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _group(mutant: Mutant) -> str:
    return mutant.path.relative_to(PACKAGE).parts[0] if mutant.path.is_relative_to(PACKAGE) else "others"


def _tests_of(group: str) -> str:
    """Of a package, or of a module beside them."""
    return f"tests/unit/test_{group}" if group.endswith(".py") else f"tests/unit/{group}"


def _report(results: list[Result], listed: list[Mutant], took_s: float) -> None:
    for group in sorted({_group(result.mutant) for result in results}):
        counts = Counter[Verdict](each.verdict for each in results if _group(each.mutant) == group)
        del counts[Verdict.SAME]
        total = counts.total()
        killed = total - sum(counts[verdict] for verdict in LEFT)
        words = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
        equivalent = sum(_group(mutant) == group for mutant in listed)
        print(f"{group}: {killed} of {total} mutants killed ({killed / max(1, total):.1%}): {words}; ", end="")
        print(f"{equivalent} equivalent")
    print(f"{len(results)} mutants in {took_s:.0f} s")


def _row(result: Result) -> dict[str, str | int]:
    mutant = result.mutant
    return {
        "file": mutant.label,
        "line": mutant.line,
        "function": mutant.function,
        "operator": mutant.operator,
        "before": mutant.before,
        "after": mutant.after,
        "verdict": result.verdict.value,
        "by": result.by,
    }


if __name__ == "__main__":
    raise SystemExit(main())
