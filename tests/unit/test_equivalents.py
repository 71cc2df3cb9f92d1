"""What `scripts/mutate` leaves out: each entry of the list is a mistake that it would plant today."""

from __future__ import annotations

from tests.mutation import equivalents
from tests.mutation.__main__ import EQUIVALENTS
from tests.mutation.operators import PACKAGE, mutants


def test_every_mutant_that_is_listed_as_equivalent_is_still_one() -> None:
    """Else the driver refuses to run, which nobody sees who does not run it."""
    known = equivalents.load(EQUIVALENTS)
    files = sorted({PACKAGE / entry.file for entry in known})
    equivalents.match(known, [mutant for path in files for mutant in mutants(path)], files)
