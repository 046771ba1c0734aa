"""Studies: measurements of gradatim. Each writes a JSON of records and claims, and a page rendered from it.

`python -m studies NAME` runs a study, or continues one that was interrupted. `--smoke` runs it at its smallest
size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradatim.names import hint
from gradatim.provenance import on_threads

from .core import run as core
from .every_row import run as every_row
from .frozen import run as frozen
from .house import run as house
from .images import run as images
from .meta import run as meta
from .paper import run as paper
from .streams import run as streams
from .systems import run as systems
from .tables import run as tables
from .trust import run as trust

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

STUDIES: dict[str, str] = {
    "core": "linear regression and digits in three regimes, throughput, kill and resume",
    "every_row": "gains, states that carry their precision, merging, drift and stopping, far past the trained horizon",
    "frozen": "frozen models adapted: boundaries, reprogramming, guided dropout, samplers, each beside its controls",
    "house": "what can be counted: results that moved, names, shapes, examples, lines, memory, ragged tasks",
    "images": "MNIST and Fashion-MNIST, all regimes and signals, against baselines that could win",
    "paper": "the paper's tables: three regimes on its families, greedy and constant, default gain, one step",
    "systems": "five systems for tasks that follow or help one another, against the baselines that could win",
    "tables": "the estimators on real tables in one strict pass, against peers that also see each row once",
    "trust": "states and files: damage, kills, shared states, cuts, order, outliers, few rows, whose rows they hold",
}

UNPUBLISHED: dict[str, str] = {
    "meta": "learning from other tasks: letters, sinusoids and tables in groups, beside the best that learns nothing",
    "streams": "the estimators on streams that change, row by row, against river's learners and refits",
}
"""Studies whose results in docs/results are missing, or of an earlier form. They run like the others."""


def run(
    name: str, out: Path, smoke: bool, seeds: int, workers: int, console: Console, table: int | None = None
) -> list[Path]:
    """Run a study and return the files it wrote below `out`: NAME.json, NAME.md and pictures.

    Work in progress is stored in `out/work/NAME`. A second call continues from it.

    Args:
        name: of the study.
        out: the folder for the results.
        smoke: use tiny sizes, which take a minute or two. The numbers mean nothing.
        seeds: the number of meta-training seeds.
        workers: the number of meta-training processes at a time.
        table: the number of one table of `paper`. None runs all of them.

    Raises:
        ValueError: the study is unknown (the nearest known name is suggested), has no tables, or has no such table.
    """
    if name not in STUDIES | UNPUBLISHED:
        raise ValueError(f"no study is called {name!r}: {hint(name, STUDIES | UNPUBLISHED)}")
    if name == "paper":
        with on_threads(1):  # its learners are small: threads would wait for one another
            return paper.run(out, smoke, seeds, workers, console, table)
    if table is not None:
        raise ValueError(f"only 'paper' has numbered tables; got table {table} for {name!r}: leave it out")
    modules = {
        "core": core,
        "every_row": every_row,
        "frozen": frozen,
        "house": house,
        "images": images,
        "tables": tables,
    }
    modules |= {"meta": meta, "streams": streams, "systems": systems, "trust": trust}
    return modules[name].run(out, smoke, seeds, workers, console)
