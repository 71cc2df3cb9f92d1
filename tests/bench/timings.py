"""When the provider has what: drawn from a seed and a name, so that every contender meets the same."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

SERVICES: Final = {"dr": 13.5, "go": 16.0, "tg": 19.0, "wa": 22.5}
"""By short code: the usual time from the payment to the number, in s."""
SPREAD_S: Final = 1.2
EARLIEST_S, LATEST_S = 12.0, 25.0
SLOW_SHARE: Final = 0.06
"""Numbers that come later than all that."""
NO_NUMBER_SHARE: Final = 0.03
LATE_CODE_SHARE: Final = 0.08
"""Codes that take minutes."""
NO_CODE_SHARE: Final = 0.03


@dataclass(frozen=True, slots=True)
class Timing:
    """Of one order, in s. ``number_after_s``: from the payment; None: none comes, and the provider says so after
    ``gives_up_after_s``. ``code_after_s``: from the number; None: none comes. The hold invoice settles, and the status
    shows the code, so long after the SMS came: the one or the other is first, or both come at once.
    """

    service: str
    number_after_s: float | None
    gives_up_after_s: float
    code_after_s: float | None
    settles_after_s: float
    shown_after_s: float


def draw(seed: int, name: str) -> Timing:
    """The same for the same seed and name."""
    rng = Random(f"{seed} {name}")
    service = rng.choice(list(SERVICES))
    settles_after_s = rng.uniform(0.1, 3.0)
    return Timing(
        service=service,
        number_after_s=_number_after_s(rng, service),
        gives_up_after_s=rng.uniform(60, 120),
        code_after_s=_code_after_s(rng),
        settles_after_s=settles_after_s,
        shown_after_s=rng.choice((0.0, settles_after_s, settles_after_s + rng.uniform(0.0, 1.0))),
    )


def _number_after_s(rng: Random, service: str) -> float | None:
    usual_s = min(max(rng.gauss(SERVICES[service], SPREAD_S), EARLIEST_S), LATEST_S)
    slow_s = LATEST_S + rng.expovariate(1 / 20)
    luck = rng.random()
    if luck < NO_NUMBER_SHARE:
        return None
    return slow_s if luck < NO_NUMBER_SHARE + SLOW_SHARE else usual_s


def _code_after_s(rng: Random) -> float | None:
    soon_s, late_s = rng.uniform(5, 60), rng.uniform(60, 170)
    luck = rng.random()
    if luck < NO_CODE_SHARE:
        return None
    return late_s if luck < NO_CODE_SHARE + LATE_CODE_SHARE else soon_s
