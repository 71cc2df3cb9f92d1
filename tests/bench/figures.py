"""docs/figures.json, and what is made of it alone: docs/figures.md, the plot, and a part of README.md."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
FIGURES: Final = ROOT / "docs" / "figures.json"
PAGE: Final = ROOT / "docs" / "figures.md"
PLOT: Final = ROOT / "docs" / "lag.svg"
README: Final = ROOT / "README.md"
BEGIN, END = "<!-- generated: figures -->", "<!-- end -->"

PARTS: Final = {
    "lag": """\
How long after the provider a client has its number and its code. The real engine, scheduler, adapter and database run
on virtual time against a simulated market; beside them, with the same drawn timings, the loops that people write
instead. A number comes 12 to 25 s after the payment, some later; the SMS after 5 to 60 s, some after minutes, some
never; the hold invoice settles 0.1 to 3 s later, and the status shows the code before, with, or up to a second after
that.""",
    "clients": "What a client that asks waits while others follow their orders, each on a connection of its own.",
    "scale": "What the daemon does with a database that years have filled.",
    "latency": """\
From the provider's reply to the payment in a real lnd, by lnd's own time of its creation, through the daemon and by a
bare create-and-pay loop.""",
    "memory": "What the daemon weighs, idle, at work, and with many open orders over real gRPC to the sandbox's lnd.",
    "throughput": "Orders a second through the daemon and of the bare loop, in turns, on the same real lnd.",
}
"""In the order of the page."""


def record(told: dict[str, Any], plots_python: Path) -> None:
    """Writes what was measured over what was measured before, part by part, and everything that is made of it."""
    figures = {**read(), **told}
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    PAGE.write_text(page(figures))
    README.write_text(readme(README.read_text(), figures))
    if "lag" in told:
        subprocess.run([plots_python, Path(__file__).with_name("plot.py"), FIGURES, PLOT], check=True)


def read() -> dict[str, Any]:
    """By part. Empty before the first measurement."""
    found: dict[str, Any] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    return found


def page(figures: dict[str, Any]) -> str:
    """docs/figures.md."""
    parts = "\n".join(_part(name, words, figures[name]) for name, words in PARTS.items() if name in figures)
    return f"""\
# Figures

Written by `scripts/bench --write-docs` from docs/figures.json. Do not edit. "missed" is said where a goal is.

{parts}"""


def readme(text: str, figures: dict[str, Any]) -> str:
    """README.md with its part made anew: every figure that has a goal."""
    rows = [row for name in PARTS if name in figures for row in _whole(figures[name]["rows"]) if row["target"]]
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    table = "\n".join(_table(rows))
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def _part(name: str, words: str, part: dict[str, Any]) -> str:
    table = "\n".join(_lag_tables(part) if name == "lag" else _table(_whole(part["rows"])))
    machine = part["machine"]
    return f"""\
## {name}

{words}

{table}

`scripts/bench --only {name}`; Python {machine["python"]}, {machine["cores"]} cores, load {machine["load_1min"]:.1f}.
"""


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "| what | measured | goal | |"
    yield "|---|---:|---:|---|"
    for row in rows:
        verdict = {True: "met", False: "**missed**", None: ""}[row["is_met"]]
        yield f"| {row['what']} | {row['value']} | {row['target']} | {verdict} |"


def _whole(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each with its own whole name: a row that is indented on the terminal belongs to the last that is not."""
    head, named = "", []
    for row in rows:
        if not row["what"].startswith(" "):
            head = row["what"].partition(":")[0]
        what = f"{head}: {row['what'].strip()}" if row["what"].startswith(" ") else row["what"]
        named.append({**row, "what": what})
    return named


def _lag_tables(part: dict[str, Any]) -> Iterator[str]:
    contenders = list(dict.fromkeys(lag["contender"] for lag in part["lags"]))
    yield "![Lag over open orders](lag.svg)"
    yield ""
    yield "Mean lag to the number / to the code in s, and polls an order:"
    yield ""
    yield f"| orders | {' | '.join(contenders)} |"
    yield "|---" * (len(contenders) + 1) + "|"
    by_scenario: dict[str, list[str]] = {}
    for lag in part["lags"]:
        cell = f"{lag['number']['mean_s']:.2f} / {lag['code']['mean_s']:.2f}, {lag['polls_per_order']:.0f} polls"
        by_scenario.setdefault(_words(lag["scenario"]), []).append(cell)
    for words, cells in by_scenario.items():
        yield f"| {words} | {' | '.join(cells)} |"
    yield ""
    yield from _table([row for row in _whole(part["rows"]) if row["target"]])


def _words(scenario: dict[str, Any]) -> str:
    form = f"{scenario['at_once']:,} {'open for 20 min' if scenario['is_full'] else 'within a minute'}"
    allowed = scenario["allows_per_s"]
    return form if allowed is None else f"{form}, {allowed:g} requests/s allowed"
