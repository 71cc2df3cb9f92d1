"""The life of an order under faults, judged by an independent auditor; and the proof that the judge is awake."""

from __future__ import annotations

import pytest

from tests.simulation.core import CoreSimulation
from tests.simulation.planted import BUGS

SHORT_RUN = 1_000
BUG_HUNT = 5_000


def test_no_law_is_broken_under_any_mix_of_faults() -> None:
    for seed in range(SHORT_RUN):
        outcome = CoreSimulation(seed).run()
        assert outcome.violation is None, (
            f"seed {seed}: {outcome.violation}; see scripts/simulate --seed {seed} --trace"
        )


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name: str) -> None:
    with BUGS[name]():
        assert any(CoreSimulation(seed).run().violation for seed in range(BUG_HUNT)), f"{name} survived"


def test_the_same_seed_tells_the_same_story() -> None:
    first, second = (CoreSimulation(7, trace=True).run() for _ in range(2))
    assert first.transcript == second.transcript
    assert first.ends == second.ends
