"""The figures of a run as JSON, with what they depend on besides the code."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

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

    def write_json(self, path: Path) -> None:
        """The figures of each part, and its rows as they were printed."""
        told = {
            name: {**asdict(cast("DataclassInstance", part)), "rows": [asdict(row) for row in part.rows()]}
            for name, part in self.figures.items()
        }
        path.write_text(json.dumps({"machine": machine(), **told}, indent=2) + "\n")


def machine() -> dict[str, object]:
    """What the figures depend on besides the code."""
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_1min": os.getloadavg()[0],
    }
