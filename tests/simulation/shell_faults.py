"""The faults that only a real engine can meet, besides those of the core simulation."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.simulation.faults import Faults, draw


@dataclass(slots=True, kw_only=True)
class ShellFaults(Faults):
    """Chances are per occasion, or per minute where it says so; times in ms."""

    kill_inside: float = 0.0
    """The process is killed inside a performer: before a call, in the middle, or before its answer is read."""
    kill: float = 0.0
    """Per minute, at any moment."""
    stop: float = 0.0
    """Per minute: the service manager stops the daemon, which ends in an orderly way."""
    store_error: float = 0.0
    """A commit fails, and nothing was written."""
    store_error_late: float = 0.0
    """A commit is reported as failed, and is durable all the same (an error of the last fsync)."""
    stray_cancel: float = 0.0
    """A call or stream of lnd raises CancelledError although nobody canceled the task, as grpc.aio does."""
    task_cancel: float = 0.0
    """Per minute: one task of a duty is canceled by nobody in particular."""
    defect: float = 0.0
    """An adapter raises what it never should."""
    garbage: float = 0.0
    """The provider answers with something that makes no sense."""
    queued: float = 0.0
    """A status request waits long for its turn before it is sent."""
    provider_down: float = 0.0
    """Per minute."""
    provider_down_ms: int = 0
    wrong_node: float = 0.0
    """Per minute: another node is at lnd's address for a while."""
    wrong_node_ms: int = 0


PER_CALL = ("kill_inside", "store_error", "store_error_late", "stray_cancel", "defect", "garbage", "queued")
PER_MINUTE = ("kill", "stop", "task_cancel", "provider_down", "wrong_node")


def draw_shell(rng: Random) -> ShellFaults:
    """The core's mix, with some of these on top."""
    core = draw(rng)
    faults = ShellFaults(**{name: getattr(core, name) for name in Faults.__dataclass_fields__})
    for name in PER_CALL:
        if rng.random() < 0.3:
            setattr(faults, name, rng.choice((0.005, 0.02, 0.1)))
    for name in PER_MINUTE:
        if rng.random() < 0.3:
            setattr(faults, name, rng.choice((0.03, 0.1, 0.3)))
    faults.provider_down_ms = rng.choice((20_000, 300_000, 3_600_000))
    faults.wrong_node_ms = rng.choice((2_000, 60_000, 600_000))
    return faults
