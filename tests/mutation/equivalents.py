"""The list of mutants that change nothing that anybody could see, each with a word why."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.operators import Mutant


@dataclass(frozen=True, slots=True)
class Equivalent:
    """``file`` ends the path of the mutant's file."""

    file: str
    function: str
    before: str
    after: str
    why: str

    def is_of(self, path: Path) -> bool:
        return path.as_posix().endswith("/" + self.file)

    def fits(self, mutant: Mutant) -> bool:
        mine = self.function, self.before, self.after
        return self.is_of(mutant.path) and mine == (mutant.function, mutant.before, mutant.after)


def load(path: Path) -> list[Equivalent]:
    """Every entry needs every key."""
    return [Equivalent(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("equivalent", [])]


def match(known: Iterable[Equivalent], mutants: Iterable[Mutant], files: Iterable[Path]) -> list[Mutant]:
    """The mutants that are listed. An entry of one of ``files`` that fits none is a mistake."""
    listed: list[Mutant] = []
    mutants, files = list(mutants), list(files)
    for entry in known:
        fitting = [mutant for mutant in mutants if entry.fits(mutant)]
        if not fitting and any(entry.is_of(path) for path in files):
            raise SystemExit(f"scripts/mutate: no mutant is like the one listed as equivalent any more: {entry}")
        listed += fitting
    return listed
