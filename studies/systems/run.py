"""`make study NAME=systems`: five systems beside this one, each against the baselines that could win.

Rehearsal with information maximization, path-aware MAML, task relations, memory imitation, and blocks of features and
tasks. `parts.PARTS` says which parts there are. Each stores its work, so that a run goes on.

Source: the bars are this project's own, fixed before the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradatim.provenance import on_threads
from studies.part import begin, run_parts
from studies.tables.verdicts import without_value

from .page import PAGE
from .parts import BARS, PARTS

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console


def run(out: Path, smoke: bool, seeds: int, workers: int, console: Console) -> list[Path]:
    """Run the study. Return systems.json, systems.md and the picture, written below `out` anew after each part.

    `seeds`: of what is trained; a part that needs more has more.

    Raises:
        ValueError: $GRADATIM_DATA is not set. A smoke run does not need it.
    """
    study = begin("systems", "images, sentences and tables", out, smoke, workers, console)
    with on_threads(1):
        return run_parts(
            PARTS, study, out, PAGE, lambda name, why: without_value(name, *BARS[name], why), smoke, seeds
        )
