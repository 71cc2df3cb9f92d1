"""The figures of a run, with what they depend on besides the code."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

from tests.bench.rows import Figures, Row

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(slots=True)
class Report:
    """What was measured in this run, by the names of the parts."""

    figures: dict[str, Figures] = field(default_factory=dict)

    def rows(self) -> Iterator[Row]:
        for part in self.figures.values():
            yield from part.rows()

    @property
    def is_met(self) -> bool:
        """Whether no target was missed."""
        return all(row.is_met is not False for row in self.rows())

    def told(self) -> dict[str, Any]:
        """By part: what the figures depend on, the figures, and their rows as they were printed."""
        return {
            name: {
                "machine": machine(),
                **asdict(cast("DataclassInstance", part)),
                "rows": [asdict(row) for row in part.rows()],
            }
            for name, part in self.figures.items()
        }


def machine() -> dict[str, object]:
    """What the figures depend on besides the code."""
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_1min": os.getloadavg()[0],
    }
