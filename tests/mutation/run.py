"""From mutants to verdicts: in place where that can be, else in a process that imports the mutant."""

from __future__ import annotations

import ast
import importlib
import importlib.abc
import importlib.machinery
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import CodeType, ModuleType
from typing import TextIO

import pytest

from tests.mutation.children import Children, Ended
from tests.mutation.operators import Mutant, parse
from tests.mutation.suite import Line, Record, Tracer, collect, first_failure, run_all
from tests.mutation.swapping import NamedValue, Swap, live_functions, named_value, plan, put_anew

REMEMBERED = 4
"""So many tests that killed mutants of a function are tried first on the next one of it."""
BUDGET_S = 30.0
"""So much time of tests, as they take without a mutant, a mutant is worth: what they leave counts as survived."""
SEED_S = 1.0
"""A seed of the simulation takes far less."""
SIMULATION = "the simulation"
AT_IMPORT = "the import"


class Verdict(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    TIMEOUT = "timeout"
    """A test takes far longer with it: killed, too."""
    SIMULATED = "simulated"
    """No test kills it, the simulation does."""
    SURVIVED = "survived"
    NO_TEST = "no test"
    SAME = "same"
    """It compiles to the same code."""


LEFT = (Verdict.SURVIVED, Verdict.NO_TEST)


@dataclass(frozen=True, slots=True)
class Result:
    """``by``: the test that killed it."""

    mutant: Mutant
    verdict: Verdict
    by: str = ""


@dataclass(slots=True)
class Warm:
    """What the process that has imported everything hands to the one that has imported nothing."""

    verdicts: dict[int, tuple[Verdict, str]]
    at_import: dict[int, tuple[list[int], list[int]]]
    """Tests to run first, and then, of a change in what runs at import."""
    names: list[str]
    paths: list[Path]
    took_s: dict[int, float]
    modules: list[str]


@dataclass(slots=True)
class Progress:
    """A line on stderr, of which a terminal shows the latest only."""

    total: int
    out: TextIO
    counts: dict[Verdict, int]
    told_s: float = 0.0

    def note(self, mutant: Mutant, verdict: Verdict) -> None:
        """One that is left is told at once."""
        if verdict in LEFT:
            if self.out.isatty():
                self.tell("")
            print(f"{verdict}: {mutant}", flush=True)
        self.counts[verdict] = self.counts.get(verdict, 0) + 1
        if time.monotonic() - self.told_s > (0.5 if self.out.isatty() else 30):
            words = ", ".join(f"{count} {each}" for each, count in self.counts.items())
            self.tell(f"{sum(self.counts.values())} of {self.total}: {words}")

    def tell(self, text: str) -> None:
        self.told_s = time.monotonic()
        print(
            f"\r\x1b[K{text}" if self.out.isatty() else text,
            end="" if self.out.isatty() else "\n",
            file=self.out,
            flush=True,
        )


def run(mutants: Sequence[Mutant], tests: Sequence[str], jobs: int, seeds: int, scratch: Path) -> list[Result]:
    """Each mutant's verdict."""
    progress = Progress(len(mutants), sys.stderr, {})
    warm_folder, cold_folder = scratch / "w", scratch / "c"
    warm_folder.mkdir()
    cold_folder.mkdir()
    ended: list[Ended] = []
    one = Children(1, scratch)
    one.start(lambda: _Warm(mutants, jobs, seeds, warm_folder, progress).work(tests), ended.append, is_quiet=False)
    one.finish()
    warm: Warm = ended[0].result
    progress.counts = {}
    for verdict, _ in warm.verdicts.values():
        progress.counts[verdict] = progress.counts.get(verdict, 0) + 1
    _import_all(warm.modules)
    _run_at_import(mutants, warm, Children(jobs, cold_folder), progress, seeds)
    return [Result(mutant, *warm.verdicts[at]) for at, mutant in enumerate(mutants)]


def _verdict(ended: Ended) -> Verdict:
    if ended.signal is not None:
        return Verdict.TIMEOUT if ended.signal in {signal.SIGALRM, signal.SIGPROF} else Verdict.KILLED
    if ended.result == SIMULATION:
        return Verdict.SIMULATED
    return Verdict.SURVIVED if ended.result is None else Verdict.KILLED


def _simulation(seeds: int) -> Callable[[], bool]:
    """Whether every law holds in that many seeds of the core's simulation."""
    from tests.simulation.core import CoreSimulation  # not before the package is collected under the eyes of the tracer

    def holds() -> bool:
        signal.setitimer(signal.ITIMER_REAL, SEED_S * seeds)
        outcomes = (CoreSimulation(seed).run() for seed in range(seeds))
        is_broken = any(outcome.violation for outcome in outcomes)
        signal.setitimer(signal.ITIMER_REAL, 0)
        return not is_broken

    return holds


# --- in place -------------------------------------------------------------------------------------------------------


class _Warm:
    """In a child of its own, which collects all tests and runs none: what runs one is forked from it."""

    def __init__(self, mutants: Sequence[Mutant], jobs: int, seeds: int, scratch: Path, progress: Progress) -> None:
        self._mutants = mutants
        self._files = {str(mutant.path) for mutant in mutants}
        self._jobs = jobs
        self._seeds = seeds
        self._scratch = scratch
        self._progress = progress
        self._children = Children(jobs, scratch)
        self._warm: Warm | None = None
        self._failed: list[str] = []
        self._killers: dict[tuple[Path, str], list[int]] = defaultdict(list)
        self._puts_anew: dict[Path, bool] = {}

    def work(self, tests: Sequence[str]) -> Warm:
        with Tracer(self._files) as tracer:
            exit_code = collect(tests, lambda items: self._on_items(items, tracer))
        if self._warm is None or exit_code:
            reason = "\n".join(self._failed) or f"pytest ended with {exit_code}"
            raise SystemExit(f"the tests fail without a mutant, so nothing can be said of one:\n{reason}")
        return self._warm

    def _on_items(self, items: Sequence[pytest.Item], tracer: Tracer) -> None:
        tracer.stop()
        self._items = items
        self._progress.tell(f"{len(items)} tests, each traced once")
        self._record = self._run_each(range(len(items)), is_traced=True)
        if self._record.failed:
            self._failed = [items[at].nodeid for at in self._record.failed]
            return
        self._record.imported = frozenset(tracer.lines)
        self._ran = {test: {name for name, _ in lines} for test, lines in self._record.lines.items()}
        self._covering: dict[Line, list[int]] = defaultdict(list)
        for test, lines in self._record.lines.items():
            for line in lines:
                self._covering[line].append(test)
        concerned = sorted({test for tests in self._covering.values() for test in tests}, key=self._took_s)
        self._progress.tell(f"{len(concerned)} tests run the code in question; once more in the order of their time")
        control = self._run_each(concerned, is_traced=False)
        self._record.took_s |= control.took_s
        self._flaky = set(control.failed)
        if self._flaky:
            self._progress.tell(
                "not used, since they fail in another order:\n" + "\n".join(items[at].nodeid for at in self._flaky)
            )
        names, paths = [item.nodeid for item in items], [item.path for item in items]
        self._warm = Warm({}, {}, names, paths, self._record.took_s, _installed())
        self._swap_all(self._warm)

    def _took_s(self, test: int) -> float:
        return self._record.took_s[test]

    def _run_each(self, order: Sequence[int], *, is_traced: bool) -> Record:
        def work() -> Record:
            if not is_traced:
                return run_all(self._items, order)
            with Tracer(self._files) as tracer:
                return run_all(self._items, order, tracer)

        ended: list[Ended] = []
        self._children.start(work, ended.append)
        self._children.finish()
        record: Record = ended[0].result
        return record

    def _swap_all(self, warm: Warm) -> None:
        originals = {
            path: compile(parse(path), str(path), "exec", dont_inherit=True) for path in {m.path for m in self._mutants}
        }
        live = live_functions(self._files)
        simulate = _simulation(self._seeds) if self._seeds else None  # imported before the forks
        for at, mutant in enumerate(self._mutants):
            swap = plan(originals[mutant.path], mutant.compile(), live)
            lines = [(str(mutant.path), line) for line in range(mutant.first_line, mutant.last_line + 1)]
            covering = {test for line in lines for test in self._covering.get(line, ())} - self._flaky
            if swap is not None and not swap:
                self._note(warm, at, Verdict.SAME)
            elif swap is None or (not covering and not self._record.imported.isdisjoint(lines)):
                warm.at_import[at] = self._order_at_import(mutant)
                value = mutant.named_value() if self._may_put_anew(mutant.path) else None
                if value is not None:
                    self._start_anew(warm, at, value)
            elif not covering and simulate is None:
                self._note(warm, at, Verdict.NO_TEST)
            else:
                self._start(warm, at, swap, self._order(mutant, covering), simulate)
        self._children.finish()

    def _may_put_anew(self, path: Path) -> bool:
        """Whether the tests pass with all constants and tables of a module made anew, as they are."""
        if path not in self._puts_anew:
            values = [value for each in parse(path).body if (value := named_value(each, path)) is not None]
            order = sorted((test for test, names in self._ran.items() if str(path) in names), key=self._took_s)
            order = self._within_budget([test for test in order if test not in self._flaky])

            def work() -> int | None:
                for value in values:
                    put_anew(path, value)
                return first_failure(self._items, order, self._record.took_s)

            self._puts_anew[path] = False
            self._children.finish()
            self._children.start(
                work, lambda ended: self._puts_anew.update({path: bool(order) and ended == Ended(None, None)})
            )
            self._children.finish()
        return self._puts_anew[path]

    def _start_anew(self, warm: Warm, at: int, value: NamedValue) -> None:
        """Puts a constant's value in place. What no test notices so is imported, too: it may do more there."""
        mutant = self._mutants[at]
        name, _ = value
        reads = {
            (str(mutant.path), node.lineno)
            for node in ast.walk(mutant.tree)
            if isinstance(node, ast.Name) and node.id == name
        }
        nearest = {test for line in reads for test in self._covering.get(line, ())} - self._flaky
        order = self._order(mutant, nearest)

        def work() -> int | str | None:
            try:
                put_anew(mutant.path, value)
            except Exception:  # noqa: BLE001 - whatever the mutant makes of it
                return AT_IMPORT
            return first_failure(self._items, order, self._record.took_s)

        def done(ended: Ended) -> None:
            if ended == Ended(None, None):
                return
            del warm.at_import[at]
            self._note_killed(warm, at, ended)

        self._children.start(work, done)

    def _order(self, mutant: Mutant, covering: set[int]) -> list[int]:
        killers = [test for test in self._killers[mutant.path, mutant.function] if test in covering]
        return self._within_budget(killers + sorted(covering - set(killers), key=self._took_s))

    def _order_at_import(self, mutant: Mutant) -> tuple[list[int], list[int]]:
        """Those of the file that is mostly about the mutant's, since to collect all takes long; then the others.

        Also those that run nothing of it: a constant is read without a trace.
        """
        beside = {str(path) for path in mutant.path.parent.iterdir()}

        def rank(test: int) -> tuple[bool, bool, float]:
            names = self._ran[test]
            return str(mutant.path) not in names, names.isdisjoint(beside), self._took_s(test)

        order = self._within_budget(sorted(self._ran.keys() - self._flaky, key=rank))
        sizes = Counter(item.path for item in self._items)
        about = Counter(self._items[test].path for test in order if str(mutant.path) in self._ran[test])
        nearest = max(about, key=lambda path: (about[path] / sizes[path], -sizes[path]), default=None)
        first = [test for test in order if self._items[test].path == nearest]
        return first, [test for test in order if self._items[test].path != nearest]

    def _within_budget(self, order: list[int]) -> list[int]:
        """The first in any case."""
        left_s = BUDGET_S
        return order[:1] + [test for test in order[1:] if (left_s := left_s - self._took_s(test)) > 0]

    def _start(self, warm: Warm, at: int, swap: Swap, order: list[int], simulate: Callable[[], bool] | None) -> None:
        def work() -> int | str | None:
            for function, code in swap:
                function.__code__ = code
            failed = first_failure(self._items, order, self._record.took_s)
            return SIMULATION if failed is None and simulate is not None and not simulate() else failed

        def done(ended: Ended) -> None:
            if ended == Ended(None, None):
                self._note(warm, at, Verdict.SURVIVED if order else Verdict.NO_TEST)
            else:
                self._note_killed(warm, at, ended)

        self._children.start(work, done)

    def _note_killed(self, warm: Warm, at: int, ended: Ended) -> None:
        by = ended.result if isinstance(ended.result, str) else ""
        if isinstance(ended.result, int):
            by = warm.names[ended.result]
            killers = self._killers[self._mutants[at].path, self._mutants[at].function]
            if ended.result in killers:
                killers.remove(ended.result)
            killers.insert(0, ended.result)
            del killers[REMEMBERED:]
        self._note(warm, at, _verdict(ended), by)

    def _note(self, warm: Warm, at: int, verdict: Verdict, by: str = "") -> None:
        warm.verdicts[at] = verdict, by
        self._progress.note(self._mutants[at], verdict)


# --- at import ------------------------------------------------------------------------------------------------------


def _installed() -> list[str]:
    """The loaded modules of other people."""
    homes = (sys.prefix, sys.base_prefix)
    return [name for name, module in sys.modules.items() if str(getattr(module, "__file__", "")).startswith(homes)]


def _import_all(names: Sequence[str]) -> None:
    """So that each child need not."""
    for name in names:
        with suppress(Exception):
            importlib.import_module(name)


def _run_at_import(mutants: Sequence[Mutant], warm: Warm, children: Children, progress: Progress, seeds: int) -> None:
    longest = max(warm.at_import.values(), key=lambda orders: sum(map(len, orders)), default=([], []))
    children.start(lambda: _run_in_turn(longest, warm), _insist)
    for at, orders in warm.at_import.items():
        _start_at_import(mutants[at], at, orders, warm, children, progress, seeds)
    children.finish()


def _insist(ended: Ended) -> None:
    if ended != Ended(None, None):
        raise SystemExit(f"scripts/mutate: {ended.result} fails in a process of its own without a mutant.")


def _start_at_import(
    mutant: Mutant,
    at: int,
    orders: tuple[list[int], list[int]],
    warm: Warm,
    children: Children,
    progress: Progress,
    seeds: int,
) -> None:
    def work() -> str | None:
        sys.meta_path.insert(0, _Importer(mutant))
        failed = _run_in_turn(orders, warm)
        return SIMULATION if failed is None and seeds and not _simulation(seeds)() else failed

    def done(ended: Ended) -> None:
        verdict = _verdict(ended)
        if verdict is Verdict.SURVIVED and not any(orders):
            verdict = Verdict.NO_TEST
        warm.verdicts[at] = verdict, ended.result or ""
        progress.note(mutant, verdict)

    children.start(work, done)


def _run_in_turn(orders: tuple[list[int], list[int]], warm: Warm) -> str | None:
    """The first test that fails."""
    return _run_named(orders[0], warm) or _run_named(orders[1], warm)


def _run_named(tests: Sequence[int], warm: Warm) -> str | None:
    if not tests:
        return None
    failed: list[str] = []

    def on_items(items: Sequence[pytest.Item]) -> None:
        places = {item.nodeid: at for at, item in enumerate(items)}
        took_s = {places[warm.names[test]]: warm.took_s[test] for test in tests}
        first = first_failure(items, list(took_s), took_s)
        if first is not None:
            failed.append(items[first].nodeid)

    # A mutant that loops at import never comes to a test.
    signal.setitimer(signal.ITIMER_REAL, BUDGET_S)
    exit_code = collect(sorted({str(warm.paths[test]) for test in tests}), on_items)
    if failed:
        return failed[0]
    return None if exit_code == 0 else AT_IMPORT


class _Importer(importlib.abc.MetaPathFinder):
    """Finds the mutant's module, and all else as ever."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin == str(self._mutant.path):
            spec.loader = _Loader(fullname, spec.origin, self._mutant)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, mutant: Mutant) -> None:
        super().__init__(fullname, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        return self._mutant.compile()
