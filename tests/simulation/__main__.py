"""`python -m tests.simulation`: many seeds on all cores, or one with its story. See scripts/simulate."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable

from tests.simulation.core import CoreSimulation, Outcome
from tests.simulation.shell import ShellSimulation

CHUNK = 20
SHOWN_FAILURES = 10


def main() -> int:
    """Exit code 1 if a law was broken."""
    parser = argparse.ArgumentParser(
        prog="scripts/simulate",
        description="Runs the life of orders under random faults, judged by an auditor. Without --shell: the pure core"
        " in a daemon of its own, some hundred seeds a second and core.",
    )
    parser.add_argument(
        "--shell", action="store_true", help="the real engine and SQLite on virtual time: tens of seeds a second"
    )
    parser.add_argument("--seeds", type=int, default=2_000, metavar="N", help="how many seeds (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="S", help="the first of them (default: %(default)s)")
    parser.add_argument("--seed", type=int, metavar="S", help="this one only")
    parser.add_argument("--trace", action="store_true", help="tell the whole story of --seed")
    options = parser.parse_args()
    if options.trace and options.seed is None:
        parser.error("--trace tells the story of one seed: name it with --seed")
    command = "scripts/simulate --shell" if options.shell else "scripts/simulate"
    if options.seed is not None:
        return replay(ShellSimulation if options.shell else CoreSimulation, options.seed, trace=options.trace)
    run_seed = run_shell_seed if options.shell else run_core_seed
    return run_many(run_seed, range(options.first, options.first + options.seeds), command)


def replay(simulation: type[CoreSimulation | ShellSimulation], seed: int, *, trace: bool) -> int:
    """One seed, with its transcript."""
    outcome = simulation(seed, trace=trace).run()
    print("\n".join(outcome.transcript))
    print(f"seed {seed}: {outcome.violation or 'every law held'}; ends: {dict(outcome.ends)}")
    return 1 if outcome.violation else 0


def run_many(run_seed: Callable[[int], Outcome], seeds: Iterable[int], command: str) -> int:
    """All seeds on all cores, then what happened."""
    began_s = time.monotonic()
    ends: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    failures: list[Outcome] = []
    count = 0
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for outcome in pool.imap_unordered(run_seed, seeds, chunksize=CHUNK):
            count += 1
            ends += outcome.ends
            faults += outcome.faults
            if outcome.violation:
                failures.append(outcome)
    print(f"{count:,} seeds in {time.monotonic() - began_s:.0f} s, {sum(ends.values()):,} orders")
    print("ends:   " + ", ".join(f"{name} {number:,}" for name, number in ends.most_common()))
    print("faults: " + ", ".join(f"{name} {number:,}" for name, number in faults.most_common()))
    for outcome in sorted(failures, key=lambda each: each.seed)[:SHOWN_FAILURES]:
        print(f"seed {outcome.seed}: {outcome.violation}")
        print(f"  {command} --seed {outcome.seed} --trace")
    print(f"{count - len(failures):,} passed, {len(failures):,} failed")
    return 1 if failures else 0


def run_core_seed(seed: int) -> Outcome:
    """For a worker process."""
    return CoreSimulation(seed).run()


def run_shell_seed(seed: int) -> Outcome:
    """For a worker process."""
    return ShellSimulation(seed).run()


if __name__ == "__main__":
    raise SystemExit(main())
