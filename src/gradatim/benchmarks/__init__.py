"""Studies, run by `gradatim bench NAME`: record by record, resumable, written as JSON and rendered from it.

Source: DESIGN.md, Results: same data, same budget, tuned baselines, seeds, intervals, side by side in one run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..names import hint
from ..provenance import on_threads
from . import core, gain, images, paper, tables

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

BENCHMARKS: dict[str, str] = {
    "core": "linear regression and digits in three regimes, throughput, kill and resume",
    "gain": "gains, states that carry their precision, merging, drift and stopping, far past the trained horizon",
    "images": "MNIST and Fashion-MNIST, all regimes and signals, against baselines that could win",
    "paper": "the paper's tables: three regimes on its families, greedy and constant, default gain, one step",
    "tables": "the estimators on real tables in one strict pass, against peers that also see each row once",
}


def run(
    name: str, out: Path, smoke: bool, seeds: int, workers: int, console: Console, table: int | None = None
) -> list[Path]:
    """Run a benchmark and return the files it wrote below `out`: NAME.json, NAME.md and pictures.

    `smoke`: tiny sizes, in a minute or two, numbers without meaning; `seeds` of meta-training; `workers`: meta-training
    processes at a time; `table`: of `paper`, this one alone. Work in progress stands in `out/work/NAME`; a second call
    goes on from there.

    Raises:
        ValueError: an unknown name, the nearest known one is suggested; a table where there are none, or no such table.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"no benchmark is called {name!r}: {hint(name, BENCHMARKS)}")
    if name == "paper":
        with on_threads(1):  # its learners are small: threads would wait for one another
            return paper.run(out, smoke, seeds, workers, console, table)
    if table is not None:
        raise ValueError(f"only 'paper' has numbered tables; got table {table} for {name!r}: leave it out")
    study = {"core": core, "gain": gain, "images": images, "tables": tables}[name]
    return study.run(out, smoke, seeds, workers, console)
