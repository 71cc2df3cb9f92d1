"""Draws the lag over the number of open orders, for holdpay and for what people do instead.

python tests/bench/plot.py FIGURES.json LAG.svg: with the Python of an environment that has matplotlib (scripts/lib.sh:
make_venv plots), and nothing of ours. The same figures make the same file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

PANELS = {"number": "to the number", "code": "to the code"}


def main(figures: Path, svg: Path) -> None:
    lags = json.loads(figures.read_text())["lag"]["lags"]
    once = [lag for lag in lags if not lag["scenario"]["is_full"] and lag["scenario"]["allows_per_s"] is None]
    mpl.rcParams.update({"svg.hashsalt": "holdpay", "svg.fonttype": "none", "font.family": "sans-serif"})
    drawn, panels = plt.subplots(1, len(PANELS), figsize=(9, 3.6), sharey=True)
    for panel, (what, words) in zip(panels, PANELS.items(), strict=True):
        draw(panel, once, what)
        panel.set_title(words)
    panels[0].set_ylabel("s after the provider has it, mean")
    handles, names = panels[0].get_legend_handles_labels()
    drawn.legend(handles, names, loc="lower center", ncols=len(names), frameon=False, fontsize=8.5)
    drawn.tight_layout(rect=(0, 0.08, 1, 1))
    drawn.savefig(svg, metadata={"Date": None})
    # One blank at the end of a line is one too many.
    svg.write_text("\n".join(line.rstrip() for line in svg.read_text().splitlines()) + "\n")


def draw(panel: Any, lags: list[dict[str, Any]], what: str) -> None:
    for contender in dict.fromkeys(lag["contender"] for lag in lags):
        points = [(lag["scenario"]["at_once"], lag[what]["mean_s"]) for lag in lags if lag["contender"] == contender]
        is_ours = contender == "holdpay"
        panel.plot(
            *zip(*points, strict=True),
            label=contender,
            marker="o",
            markersize=4,
            linewidth=2.5 if is_ours else 1.2,
            linestyle="-" if is_ours else "--",
        )
    panel.set_xscale("log")
    sizes = sorted({lag["scenario"]["at_once"] for lag in lags})
    panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
    panel.minorticks_off()
    panel.set_xlabel("orders within a minute")
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
