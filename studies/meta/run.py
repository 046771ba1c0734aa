"""`make study NAME=meta`: what is gained by learning from other tasks, beside the best that learns nothing from them.

Letters and sentences of other classes, sinusoids, and tables in groups; `parts.PARTS` says which parts there are. Each
part stores its work under a hash of the code that it reaches, so that a run goes on, and changed code begins anew.

Source: the bars are this project's own, fixed before the run.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from gradatim.provenance import on_threads
from studies.part import begin, run_parts

from . import made
from .page import PAGE
from .parts import PARTS
from .verdicts import unmeasured

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console


def run(out: Path, smoke: bool, seeds: int, workers: int, console: Console) -> list[Path]:
    """Run the study. Return meta.json, meta.md and the picture, written below `out` anew after each part.

    A smoke run reads small made files in place of those of $GRADATIM_DATA.

    Raises:
        ValueError: $GRADATIM_DATA is not set, or a package of the peers is not installed. A smoke run needs neither.
    """
    study = begin("meta", "letters and tables", out, smoke, workers, console)
    with made.data(study.folder / "data") if smoke else nullcontext(), on_threads(1):
        return run_parts(PARTS, study, out, PAGE, unmeasured, smoke, seeds)
