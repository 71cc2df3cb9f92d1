"""The real engine, performers and database under faults on virtual time; and the proof that it sees bugs."""

from __future__ import annotations

import pytest

from tests.simulation.planted_shell import BUGS, hunt
from tests.simulation.shell import ShellSimulation

SHORT_RUN = 100
BUG_HUNT = 1_000


def test_the_real_engine_breaks_no_law_under_any_mix_of_faults() -> None:
    for seed in range(SHORT_RUN):
        outcome = ShellSimulation(seed).run()
        assert outcome.violation is None, (
            f"seed {seed}: {outcome.violation}; see scripts/simulate --shell --seed {seed} --trace"
        )


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_planted_in_the_shell_is_caught(name: str) -> None:
    assert hunt(name, range(BUG_HUNT)) is not None, f"{name} survived"


def test_the_same_seed_tells_the_same_story() -> None:
    first, second = (ShellSimulation(3, trace=True).run() for _ in range(2))
    assert first.transcript == second.transcript
    assert first.ends == second.ends
    assert first.faults == second.faults
