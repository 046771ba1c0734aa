"""`make study NAME=systems`: five systems beside this one, each against the baselines that could win.

Rehearsal with information maximization, path-aware MAML, task relations, memory imitation, and blocks of features and
tasks. `parts.PARTS` says which parts there are. Each stores its work, so that a run goes on.

Source: the bars are this project's own, fixed before the run.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import torch

from gradatim.comparison.report import write_result
from gradatim.comparison.runs import Study
from gradatim.provenance import commit, on_threads
from studies.part import Found
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
    if not smoke and not os.environ.get("GRADATIM_DATA"):
        raise ValueError(
            "make study NAME=systems reads images, sentences and tables: set GRADATIM_DATA, or run with --smoke"
        )
    study = Study(out / "work" / ("systems-smoke" if smoke else "systems"), 1 if smoke else workers, console)
    found, written = Found(), []
    with on_threads(1):
        for place, part in enumerate(PARTS):
            console.print(f"{part.name}: part {place + 1} of {len(PARTS)}")
            found = found + part.measure(study, smoke, seeds)
            measured = {entry["id"] for entry in found.claims}
            later = [
                without_value(name, *BARS[name], "not measured")
                for other in PARTS
                for name in other.claims
                if name not in measured
            ]
            whole = {
                "benchmark": "systems",
                "smoke": smoke,
                "seeds": seeds,
                "commit": commit(),
                "torch": torch.__version__,
                "records": found.records,
                "claims": [*found.claims, *later],
                "listings": found.listings,
            }
            written = write_result(out, "systems", json.loads(json.dumps(whole)), PAGE)
    return written
